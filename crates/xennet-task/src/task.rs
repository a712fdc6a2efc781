//! The task: every field of the RFC's *Task Details*.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xennet_identity::Identity;

use crate::limits::{self, FieldError};
use crate::names::{hex_array, seconds};
use crate::wire::{DecodeError, Reader, put_text, put_varint};
use crate::{Kind, Rates, Requirements};

/// The number a publisher gives its task (RFC: *Task ID*). Eight random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub [u8; 8]);

/// What a publisher announces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The publisher's number for it.
    pub id: TaskId,
    /// Who announces it and pays.
    pub publisher: Identity,
    /// The ed25519 public key of the publisher's SSH server. A node hangs up on any other.
    #[serde(with = "hex_array")]
    pub ssh_host_key: [u8; 32],
    /// Where nodes dial to.
    pub address: SocketAddr,
    /// What the virtual machine must have.
    pub requirements: Requirements,
    /// How many such machines are wanted network-wide, at least 1.
    pub machines: u16,
    /// How long a lease should last.
    pub lease: LeaseRange,
    /// When the publisher pays.
    pub payout: PayoutInterval,
    /// The most it offers for each part.
    pub rates: Rates,
    /// From the tunnel's start, the time within which the proposal must have been made and accepted. Whole seconds.
    #[serde(rename = "proposal_within_s", with = "seconds")]
    pub proposal_within: Duration,
    /// Leading zero bits the publisher demands of an acceptance's work.
    pub acceptance_work_bits: u8,
    /// Unix seconds after which the announcement is void.
    pub expires_at: u32,
    /// Additional information, typically a short URL. UTF-8, at most [`Task::MAX_INFO`] bytes, no control characters.
    pub info: String,
}

/// How long a lease should last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRange {
    /// Shortest, whole seconds, at least 1.
    #[serde(rename = "min_s", with = "seconds")]
    pub min: Duration,
    /// Longest, whole seconds, not under `min`.
    #[serde(rename = "max_s", with = "seconds")]
    pub max: Duration,
}

/// When the publisher pays. On the wire: signed seconds, negative means in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayoutInterval {
    /// After each interval of use. Whole seconds.
    #[serde(rename = "in_arrears_s", with = "seconds")]
    InArrears(Duration),
    /// Before each interval of use. Whole seconds.
    #[serde(rename = "in_advance_s", with = "seconds")]
    InAdvance(Duration),
}

impl Task {
    /// The longest additional information, bytes.
    pub const MAX_INFO: usize = 96;

    pub(crate) const MAX_WIRE_LEN: usize = 8
        + Identity::WIRE_LEN
        + 32
        + (1 + 16 + 2)
        + Requirements::MAX_WIRE_LEN
        + limits::MACHINES.wire_len()
        + LeaseRange::MAX_WIRE_LEN
        + PayoutInterval::MAX_WIRE_LEN
        + Rates::MAX_WIRE_LEN
        + limits::PROPOSAL_WITHIN.wire_len()
        + 1
        + 4
        + limits::varint_len(Self::MAX_INFO as u64)
        + Self::MAX_INFO;

    /// Checks that every field may be said and that none contradicts another.
    pub fn check(&self) -> Result<(), FieldError> {
        check_address(&self.address)?;
        self.requirements.check()?;
        limits::MACHINES.check(self.machines)?;
        self.lease.check()?;
        self.payout.check()?;
        if self.payout.interval() > self.lease.max {
            let allowed = format!("at most the longest lease, {} s", self.lease.max.as_secs());
            return Err(FieldError::new(limits::PAYOUT.field, self.payout, allowed));
        }
        self.rates.check()?;
        check_seconds(&limits::PROPOSAL_WITHIN, self.proposal_within)?;
        limits::ACCEPTANCE_WORK_BITS.check(self.acceptance_work_bits)?;
        check_info(&self.info)
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.id.0);
        self.publisher.encode(to);
        to.extend_from_slice(&self.ssh_host_key);
        match self.address.ip() {
            IpAddr::V4(ip) => {
                to.push(4);
                to.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                to.push(6);
                to.extend_from_slice(&ip.octets());
            }
        }
        to.extend_from_slice(&self.address.port().to_le_bytes());
        self.requirements.encode(to);
        put_varint(to, self.machines);
        put_varint(to, self.lease.min.as_secs());
        put_varint(to, self.lease.max.as_secs());
        self.payout.encode(to);
        self.rates.encode(to);
        put_varint(to, self.proposal_within.as_secs());
        to.push(self.acceptance_work_bits);
        to.extend_from_slice(&self.expires_at.to_le_bytes());
        put_text(to, &self.info);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Task, DecodeError> {
        let task = Task {
            id: TaskId(from.array("id")?),
            publisher: from.identity(Kind::Task)?,
            ssh_host_key: from.array("ssh_host_key")?,
            address: decode_address(from)?,
            requirements: Requirements::decode(from)?,
            machines: from.number(&limits::MACHINES)?,
            lease: LeaseRange {
                min: Duration::from_secs(from.number(&limits::LEASE_MIN)?),
                max: Duration::from_secs(from.number(&limits::LEASE_MAX)?),
            },
            payout: PayoutInterval::decode(from)?,
            rates: Rates::decode(from)?,
            proposal_within: Duration::from_secs(from.number(&limits::PROPOSAL_WITHIN)?),
            acceptance_work_bits: from.byte("acceptance_work_bits")?,
            expires_at: from.u32("expires_at")?,
            info: from.text("info", Self::MAX_INFO)?.to_owned(),
        };
        task.check()?;
        Ok(task)
    }
}

impl LeaseRange {
    const MAX_WIRE_LEN: usize = limits::LEASE_MIN.wire_len() + limits::LEASE_MAX.wire_len();

    fn check(&self) -> Result<(), FieldError> {
        check_seconds(&limits::LEASE_MIN, self.min)?;
        check_seconds(&limits::LEASE_MAX, self.max)?;
        if self.max < self.min {
            let allowed = format!("at least the shortest lease, {}", self.min.as_secs());
            return Err(FieldError::new(limits::LEASE_MAX.field, self.max.as_secs(), allowed));
        }
        Ok(())
    }
}

impl PayoutInterval {
    // Zigzag doubles the number.
    pub(crate) const MAX_WIRE_LEN: usize = limits::varint_len(2 * limits::PAYOUT.max);

    /// How long an interval is, whenever it is paid.
    pub fn interval(&self) -> Duration {
        match self {
            PayoutInterval::InArrears(interval) | PayoutInterval::InAdvance(interval) => *interval,
        }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        check_seconds(&limits::PAYOUT, self.interval())
    }

    /// Zigzag: n seconds in arrears is 2n, in advance 2n − 1.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        put_varint(
            to,
            match self {
                PayoutInterval::InArrears(interval) => interval.as_secs() * 2,
                PayoutInterval::InAdvance(interval) => interval.as_secs() * 2 - 1,
            },
        );
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<PayoutInterval, DecodeError> {
        let value = from.varint(limits::PAYOUT.field)?;
        let interval = Duration::from_secs(limits::PAYOUT.check(value.div_ceil(2))?);
        Ok(if value % 2 == 0 { PayoutInterval::InArrears(interval) } else { PayoutInterval::InAdvance(interval) })
    }
}

/// Seconds as on the wire: `10 s` in arrears, `-10 s` in advance.
impl std::fmt::Display for PayoutInterval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PayoutInterval::InArrears(interval) => write!(f, "{} s", interval.as_secs()),
            PayoutInterval::InAdvance(interval) => write!(f, "-{} s", interval.as_secs()),
        }
    }
}

/// A duration on the wire is whole seconds.
pub(crate) fn check_seconds(limits: &limits::Limits, duration: Duration) -> Result<(), FieldError> {
    if duration.subsec_nanos() != 0 {
        return Err(FieldError::new(limits.field, format!("{duration:?}"), "whole seconds"));
    }
    limits.check(duration.as_secs()).map(drop)
}

/// Control characters could play tricks with the terminal of whoever lists tasks.
pub(crate) fn check_info(info: &str) -> Result<(), FieldError> {
    if info.len() > Task::MAX_INFO {
        let allowed = format!("at most {} bytes", Task::MAX_INFO);
        return Err(FieldError::new("info", format!("{} bytes long", info.len()), allowed));
    }
    if info.chars().any(char::is_control) {
        return Err(FieldError::new("info", format!("{info:?}"), "without control characters"));
    }
    Ok(())
}

/// An address that can be dialled and that has one form only.
pub(crate) fn check_address(address: &SocketAddr) -> Result<(), FieldError> {
    let wrong = |allowed: &str| Err(FieldError::new("address", address, allowed));
    limits::PORT.check(address.port())?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.ip() == Ipv4Addr::BROADCAST {
        return wrong("the address of one host, such as 203.0.113.7:9022");
    }
    if let SocketAddr::V6(v6) = address {
        if v6.ip().to_ipv4_mapped().is_some() {
            return wrong("written as IPv4, since it is an IPv4 address");
        }
        if v6.flowinfo() != 0 || v6.scope_id() != 0 {
            return wrong("without a zone or a flow label, since these mean nothing to others");
        }
    }
    Ok(())
}

fn decode_address(from: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    let ip = match from.byte("address")? {
        4 => IpAddr::V4(Ipv4Addr::from(from.array::<4>("address")?)),
        6 => IpAddr::V6(Ipv6Addr::from(from.array::<16>("address")?)),
        family => return Err(FieldError::new("address family", family, "4 or 6").into()),
    };
    Ok(SocketAddr::new(ip, u16::from_le_bytes(from.array("address")?)))
}
