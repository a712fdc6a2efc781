//! Why an image is not taken. Each says what was found, and what would be taken.

/// Why an image is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nothing that is known begins like this.
    #[error(
        "it is no image that is known here: taken are raw disks with a boot sector or ext4, qcow2, tar (plain, gzip, xz, zstd) and OCI or docker archives"
    )]
    Unknown,
    /// Known, and not taken.
    #[error("it is {what}: make it raw first with `qemu-img convert -O raw IN OUT`")]
    Format {
        /// The format's name.
        what: &'static str,
    },
    /// It was said to be of one kind and begins like another.
    #[error("it was said to be {said}, but begins like {found}: a program that guesses would take it for that")]
    Disguised {
        /// What was said.
        said: &'static str,
        /// What its first bytes are.
        found: &'static str,
    },
    /// The disk inside a qcow2 begins like something that is no disk.
    #[error("the disk inside begins like {found}: a program that guesses would take it for that")]
    DisguisedInside {
        /// What its first bytes are.
        found: &'static str,
    },
    /// It is encrypted.
    #[error("it is encrypted ({how}), and nobody here has the passphrase: send it decrypted")]
    Encrypted {
        /// By what.
        how: &'static str,
    },
    /// The disk or the unpacked files are larger than is allowed.
    #[error("{what} is {bytes} bytes, but at most {most} bytes are taken: `image_mib` in [limits] decides")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, or where counting was given up.
        bytes: u64,
        /// The most.
        most: u64,
    },
    /// The disk names another file as the one below it.
    #[error("it has a backing file ({name}): only an image that is whole in itself is taken; `qemu-img convert` makes one")]
    Backing {
        /// The name, tamed.
        name: String,
    },
    /// The disk's content is in another file.
    #[error("its content is in an external data file: only an image that is whole in itself is taken; `qemu-img convert` makes one")]
    ExternalData,
    /// A number in it cannot be.
    #[error("{field} is {value}, but must be {expected}")]
    Field {
        /// Which number.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What would be right.
        expected: &'static str,
    },
    /// It ends too early.
    #[error("it ends at byte {length}, but {what} reaches to byte {end}: it is cut off")]
    Truncated {
        /// What lies beyond the end.
        what: &'static str,
        /// Its size.
        length: u64,
        /// How large it would have to be.
        end: u64,
    },
    /// Compressed bytes that cannot be unpacked.
    #[error("{what} cannot be unpacked: it is damaged or cut off")]
    Damaged {
        /// What.
        what: &'static str,
    },
    /// A path in an archive leads out of it.
    #[error("{path} is {how}: paths in an archive must stay inside it")]
    Escape {
        /// The path, tamed.
        path: String,
        /// How it escapes.
        how: &'static str,
    },
    /// Something in an archive that is neither file, folder nor link.
    #[error("{path} is {what}: only files, folders and links are taken; leave it out, as `tar --exclude=./dev/*` does")]
    Entry {
        /// The path, tamed.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// More than is allowed of something that costs memory.
    #[error("it has {found} {what}, but at most {most} are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were counted.
        found: u64,
        /// The most.
        most: u64,
    },
    /// A container image that is not as its specification says.
    #[error("as a container image it is wrong: {why}")]
    Container {
        /// What is wrong.
        why: String,
    },
    /// The process that read it was ended by its limits.
    #[error("reading it ended the confined process ({how}): it wanted more memory, time or rights than an image may")]
    Outgrown {
        /// How it ended.
        how: String,
    },
    /// The file could not be read.
    #[error("it could not be read: {why}")]
    Unreadable {
        /// What the system said.
        why: String,
    },
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        Refusal::Unreadable { why: tame(&error.to_string()) }
    }
}

/// A stranger's words, short and without control characters.
pub(crate) fn tame(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The same for a whole reason.
pub(crate) fn tame_long(text: &str) -> String {
    text.chars().take(1000).map(|c| if c.is_control() { '?' } else { c }).collect()
}
