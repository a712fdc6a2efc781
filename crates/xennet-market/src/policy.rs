//! What a node's owner wants.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xennet_task::Rates;

/// How a node wants to be paid.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payment {
    /// After each interval, within the limits for exposure, or before it.
    #[default]
    ArrearsOrAdvance,
    /// Only before each interval.
    AdvanceOnly,
}

/// Where a node dials to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dial {
    /// Any address, also of the own machine and network. For trying Xennet out.
    #[default]
    Anywhere,
    /// Only public addresses, so that no task makes the node knock at doors of its owner's network.
    PublicOnly,
}

/// What a node's owner wants. The defaults suit a spare machine at home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodePolicy {
    /// The least to be paid for each part, in the units of [`Rates`]: thousandths of a satoshi for an hour of 1 GHz of one core
    /// *as the benchmark measures it*, of 1 GiB, and for 10^9 bytes of traffic.
    ///
    /// The parts that time is paid for are compared together, as the price of the chosen machine for an hour: a task may pay more
    /// for one part and nothing for another. Traffic is compared by itself, because nobody knows how much there will be.
    ///
    /// The default is about what electricity costs at home (5 W for a core of 3 GHz, at 0.15 USD a kWh and 0.001 USD a satoshi,
    /// is 250 msat for a GHz hour), with room to earn.
    pub floor: Rates,
    /// Leading zero bits to demand of a task's work.
    pub min_task_work_bits: u8,
    /// The most work to put into an acceptance, leading zero bits. Each bit doubles it; 28 bits take a core half a minute.
    pub max_acceptance_work_bits: u8,
    /// The longest interval to work before being paid, whole seconds.
    #[serde(with = "seconds")]
    pub max_interval: Duration,
    /// The most to have worked for without being paid, thousandths of a satoshi.
    pub max_exposure_msat: u64,
    /// The most to have earned on a channel whose funding is not six blocks deep, thousandths of a satoshi: until then a
    /// reorganisation could let the publisher take it all back. Beyond it the guest stands still until the blocks are there.
    pub max_unburied_msat: u64,
    /// The shortest lease worth the start of a machine, whole seconds.
    #[serde(with = "seconds")]
    pub min_lease: Duration,
    /// The longest time to be bound, whole seconds.
    #[serde(with = "seconds")]
    pub max_lease: Duration,
    /// How to be paid.
    pub payment: Payment,
    /// Where to dial to.
    pub dial: Dial,
    /// What booting and measuring take: a task must leave at least this time for its proposal, whole seconds.
    #[serde(with = "seconds")]
    pub min_proposal_time: Duration,
    /// How much slower than the own figure the publisher may have measured a core, percent of the own figure. An emulated core's
    /// clock varies twofold with the load of the host, hence the default of 50; with KVM 10 is enough.
    pub figures_tolerance_percent: u8,
    /// How much of each announced rate the proposal must still pay, percent. A machine a little slower than asked for is paid
    /// less in proportion.
    pub least_of_offer_percent: u8,
}

impl Default for NodePolicy {
    fn default() -> NodePolicy {
        NodePolicy {
            floor: Rates {
                cpu_msat_per_ghz_hour: 500,
                memory_msat_per_gib_hour: 100,
                disk_msat_per_gib_hour: 2,
                persistent_msat_per_gib_hour: 4,
                traffic_msat_per_gb: 1_000,
            },
            min_task_work_bits: 16,
            max_acceptance_work_bits: 28,
            max_interval: Duration::from_secs(3_600),
            max_exposure_msat: 1_000_000,
            max_unburied_msat: 100_000_000,
            min_lease: Duration::from_secs(10),
            max_lease: Duration::from_secs(30 * 86_400),
            payment: Payment::default(),
            dial: Dial::default(),
            min_proposal_time: Duration::from_secs(20),
            figures_tolerance_percent: 50,
            least_of_offer_percent: 75,
        }
    }
}

/// A duration as whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(duration.as_secs())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }
}
