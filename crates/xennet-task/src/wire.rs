//! Bytes in, bytes out: numbers as minimal LEB128, text with its length before it, everything else of a fixed length.
//!
//! There is one way to write each thing and no other is read, so what was decoded encodes to the same bytes again.

use xennet_identity::{Identity, IdentityError, Role};

use crate::limits::{FieldError, Limits};
use crate::{Acceptance, Announcement, Cancellation, Kind, Proposal, Sealed, Task};

// The limits of all numbers, lists and texts together keep every announcement short enough for Bitcoin and the overlay.
const _: () = {
    let longest = [Task::MAX_WIRE_LEN, Acceptance::MAX_WIRE_LEN, Sealed::MAX_WIRE_LEN, Cancellation::WIRE_LEN];
    let mut i = 0;
    while i < longest.len() {
        assert!(Announcement::ENVELOPE_LEN + longest[i] <= Announcement::MAX_LEN);
        i += 1;
    }
    assert!(Proposal::MAX_WIRE_LEN < Announcement::MAX_LEN);
};

/// Why bytes are no announcement, or not one that may be heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any announcement.
    #[error("{found} bytes, but an announcement has at most {max}", max = Announcement::MAX_LEN)]
    TooLong {
        /// Bytes given.
        found: usize,
    },
    /// The bytes end before the field does.
    #[error("the bytes end within {field}")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// Bytes follow the last field.
    #[error("bytes left over after the last field: {found}; there must be none")]
    Trailing {
        /// How many.
        found: usize,
    },
    /// Does not begin with "XN".
    #[error("does not begin with \"XN\", so it is not Xennet's")]
    NotXennet,
    /// A version this program does not know.
    #[error("{what} has version {found}, but only {known} is known; a newer program may know it")]
    Version {
        /// What has it.
        what: &'static str,
        /// The version.
        found: u8,
        /// The version known.
        known: u8,
    },
    /// None of the known kinds.
    #[error("kind {found} is unknown; it must be from 1 to 4")]
    Kind {
        /// The kind.
        found: u8,
    },
    /// A number with needless bytes, or beyond 64 bits.
    #[error("{field} is not written in the fewest bytes, or is longer than 64 bits")]
    Number {
        /// The field.
        field: &'static str,
    },
    /// A field that may not be said.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The sender's identity cannot be read.
    #[error("the sender is no identity")]
    Identity(#[source] IdentityError),
    /// A node that says what only a publisher may, or the other way round.
    #[error("{kind} comes from a {found}, but only a {expected} may say it")]
    WrongRole {
        /// What was said.
        kind: Kind,
        /// By whom.
        found: Role,
        /// Who may.
        expected: Role,
    },
    /// The signature is not the sender's over these bytes.
    #[error("the signature is not the sender's")]
    Signature,
}

/// Reads from the front, never past the end.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { left: bytes }
    }

    pub(crate) fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, left) = self.left.split_at_checked(count).ok_or(DecodeError::Truncated { field })?;
        self.left = left;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (bytes, left) = self.left.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
        self.left = left;
        Ok(*bytes)
    }

    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(|[byte]| byte)
    }

    /// Four bytes, little-endian.
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A number within its limits, as whatever integer the field is. The limits fit that integer.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self, limits: &Limits) -> Result<T, DecodeError> {
        let value = limits.check(self.varint(limits.field)?)?;
        T::try_from(value).map_err(|_| DecodeError::Number { field: limits.field })
    }

    /// A number of at most 64 bits, 7 in each byte, least significant first, in the fewest bytes.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Number { field })
    }

    /// UTF-8 of at most `max` bytes.
    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<&'a str, DecodeError> {
        let length = self.varint(field)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= max)
            .ok_or_else(|| FieldError::new(field, format!("{length} bytes long"), format!("at most {max} bytes")))?;
        let bytes = self.bytes(field, length)?;
        let not_text = |_| FieldError::new(field, format!("the bytes {}", hex::encode(bytes)), "UTF-8");
        Ok(std::str::from_utf8(bytes).map_err(not_text)?)
    }

    pub(crate) fn identity(&mut self, kind: Kind) -> Result<Identity, DecodeError> {
        let identity = Identity::decode(self.bytes("identity", Identity::WIRE_LEN)?).map_err(DecodeError::Identity)?;
        let expected = kind.said_by();
        if identity.role != expected {
            return Err(DecodeError::WrongRole { kind, found: identity.role, expected });
        }
        Ok(identity)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.left.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { found: self.left.len() }) }
    }
}

/// Appends a number as a varint.
pub(crate) fn put_varint(to: &mut Vec<u8>, value: impl Into<u64>) {
    let mut value = value.into();
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Appends text with its length before it.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_varint(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}
