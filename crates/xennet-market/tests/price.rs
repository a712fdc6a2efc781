//! What a publisher pays for the machine it measured, and whether the node takes that.
#![allow(clippy::unwrap_used)]

mod market;

use std::time::Duration;

use market::{NOW, acceptance, compute, figures, policy, proposal, task, words};
use proptest::prelude::*;
use xennet_market::{NodePolicy, check_acceptance, consider_proposal, price};
use xennet_meter::Figures;
use xennet_task::{Acceptance, AnnouncementHash, PayoutInterval, Proposal, Rates};

fn verdict(proposal: &Proposal, own: &Figures, policy: &NodePolicy) -> Result<(), Vec<xennet_market::Reason>> {
    consider_proposal(proposal, &task(), &acceptance(), own, policy, NOW)
}

#[test]
fn what_a_node_chooses_is_what_the_publisher_accepts() {
    assert_eq!(check_acceptance(&task(), &acceptance(), NOW), Ok(()));
    let late = acceptance().expires_at;
    assert_eq!(
        words(check_acceptance(&task(), &acceptance(), late)),
        ["expires_at: the acceptance was valid until 1800000060, now it is 1800000060 (unix seconds); send a new one"]
    );
}

#[test]
fn a_machine_that_was_not_asked_for_is_refused_smaller_or_larger() {
    let odd = Acceptance {
        operating_system: "plan9".to_owned(),
        compute: compute(2, 90),
        memory_mib: 511,
        disk_mib: 257,
        persistent_mib: 1,
        ..acceptance()
    };
    let said = words(check_acceptance(&task(), &odd, NOW));
    assert_eq!(
        said,
        [
            "operating_systems: plan9 asked for, this node has thin; add one of those to the list",
            "compute: 2 cores of 90 MHz accepted, but the task lists 1 × 100 MHz, 2 × 100 MHz; accept one of its alternatives",
            "memory: 511 MiB accepted, the task asks for 512; accept 512 or more",
            "storage: 257 MiB accepted, the task pays for at most 256; accept 256 or less",
            "persistent storage: 1 MiB accepted, the task pays for at most 0; accept 0 or less",
        ]
    );
    assert_eq!(words(price(&task(), &figures(), &odd)), said, "and nothing is paid for it");
}

#[test]
fn a_machine_as_agreed_is_paid_the_announced_rates() {
    assert_eq!(price(&task(), &figures(), &acceptance()), Ok(task().rates));
}

#[test]
fn a_part_that_is_a_little_slow_is_paid_in_proportion() {
    let slow = Figures { memory_mb_s: 80, disk_write_mb_s: 9, up_kbit_s: 750, ..figures() };
    let rates = price(&task(), &slow, &acceptance()).unwrap();
    let expected =
        Rates { memory_msat_per_gib_hour: 800_000, disk_msat_per_gib_hour: 90_000, traffic_msat_per_gb: 750_000, ..task().rates };
    assert_eq!(rates, expected);
    // A slow clock lowers no rate: the rate is for a GHz as measured.
    let tired = Figures { core_mhz: 75, ..figures() };
    assert_eq!(price(&task(), &tired, &acceptance()), Ok(task().rates));
}

#[test]
fn a_machine_that_falls_short_is_refused_with_what_was_measured() {
    let poor = Figures {
        cores: 1,
        core_mhz: 74,
        memory_mib: 431,
        memory_mb_s: 74,
        disk_mib: 191,
        disk_read_mb_s: 7,
        down_kbit_s: 749,
        ..figures()
    };
    let said = words(price(&task(), &poor, &acceptance()));
    assert_eq!(
        said,
        [
            "cores: 1 cores measured, 2 agreed, but 2 is the least taken; give the machine 2, or agree on less",
            "clock: 74 MHz measured, 100 agreed, but 75 is the least taken; give the machine 75, or agree on less",
            "memory: 431 MiB measured, 512 agreed, but 432 is the least taken; give the machine 432, or agree on less",
            "memory speed: 74 MB/s measured, 100 agreed, but 75 is the least taken; give the machine 75, or agree on less",
            "storage: 191 MiB measured, 256 agreed, but 192 is the least taken; give the machine 192, or agree on less",
            "storage speed: 7 MB/s measured, 10 agreed, but 8 is the least taken; give the machine 8, or agree on less",
            "bandwidth: 749 kbit/s measured, 1000 agreed, but 750 is the least taken; give the machine 750, or agree on less",
        ]
    );
}

#[test]
fn a_clock_of_zero_is_no_measurement_even_if_any_clock_would_do() {
    let mut task = task();
    task.requirements.compute.clear();
    let any = Acceptance { compute: compute(1, 0), memory_mib: 256, ..acceptance() };
    let said = words(price(&task, &Figures { core_mhz: 0, ..figures() }, &any));
    assert_eq!(said, ["clock: 0 MHz measured, 1 agreed, but 1 is the least taken; give the machine 1, or agree on less"]);
    assert!(price(&task, &Figures { core_mhz: 1, ..figures() }, &any).is_ok());
}

#[test]
fn what_the_publisher_proposes_for_a_machine_as_agreed_the_node_takes() {
    assert_eq!(verdict(&proposal(), &figures(), &policy()), Ok(()));
    let slow = Figures { memory_mb_s: 75, disk_write_mb_s: 8, up_kbit_s: 750, ..figures() };
    let prorated = Proposal { rates: price(&task(), &slow, &acceptance()).unwrap(), ..proposal() };
    assert_eq!(verdict(&prorated, &figures(), &policy()), Ok(()));
}

#[test]
fn a_proposal_for_another_task_or_too_late_is_refused() {
    let other = Proposal { task: AnnouncementHash([9; 32]), expires_at: NOW, ..proposal() };
    let said = words(verdict(&other, &figures(), &policy()));
    assert!(said[0].starts_with("task: the proposal is for 0909"), "{said:?}");
    assert!(said[1].starts_with("expires_at: the proposal was valid until"), "{said:?}");
}

#[test]
fn a_clock_far_below_the_own_figure_is_refused() {
    assert_eq!(verdict(&Proposal { core_mhz: 150, ..proposal() }, &figures(), &policy()), Ok(()));
    assert_eq!(
        words(verdict(&Proposal { core_mhz: 149, ..proposal() }, &figures(), &policy())),
        ["core_mhz: the proposal says 149 MHz, the node measured 300 MHz and takes no less than 150; measure again while the node is idle"]
    );
}

#[test]
fn a_rate_far_below_the_announced_one_is_refused_for_parts_the_machine_has() {
    let mut less = proposal();
    less.rates.memory_msat_per_gib_hour = 749_999;
    less.rates.persistent_msat_per_gib_hour = 0;
    assert_eq!(
        words(verdict(&less, &figures(), &policy())),
        [
            "memory rate: 749999 msat per GiB and hour proposed, 1000000 was announced, and this node takes no less than 750000; propose 750000 or more"
        ]
    );
}

#[test]
fn a_price_below_the_floor_is_refused_though_the_task_announced_it() {
    let dear = NodePolicy { floor: Rates { cpu_msat_per_ghz_hour: 4_000_000, ..policy().floor }, ..policy() };
    assert_eq!(
        words(verdict(&proposal(), &figures(), &dear)),
        [
            "rates: 1725000 msat an hour offered for this machine, this node wants 2400051 msat; raise the cpu rate from 2000000 to 3125085 msat per GHz and hour"
        ]
    );
}

#[test]
fn other_terms_than_announced_are_refused() {
    let other = Proposal { payout: PayoutInterval::InArrears(Duration::from_secs(6)), lease: Duration::from_secs(3_601), ..proposal() };
    assert_eq!(
        words(verdict(&other, &figures(), &policy())),
        [
            "payout: 6 s proposed, 5 s announced (negative: in advance); propose 5 s",
            "lease: 3601 s proposed, 60 to 3600 s agreed; propose a time within",
        ]
    );
}

#[test]
fn a_channel_that_cannot_pay_for_the_shortest_lease_is_refused() {
    // A minute of this machine costs 28.75 sat.
    assert_eq!(verdict(&Proposal { capacity_sat: 29, ..proposal() }, &figures(), &policy()), Ok(()));
    assert_eq!(
        words(verdict(&Proposal { capacity_sat: 28, ..proposal() }, &figures(), &policy())),
        ["capacity_sat: 28 sat, but 60 s of this machine cost 29 sat; lock 29 sat or more"]
    );
}

proptest! {
    #[test]
    fn no_figures_and_no_proposal_make_it_panic_and_nobody_is_paid_more_than_announced(
        core_mhz: u32, speeds in prop::array::uniform6(any::<u32>()), rates in prop::array::uniform5(any::<u64>()), seconds: u64, sat: u64,
    ) {
        let [memory, write, read, down, up, size] = speeds;
        let figures = Figures {
            core_mhz: core_mhz % 5_000,
            memory_mb_s: memory,
            disk_write_mb_s: write,
            disk_read_mb_s: read,
            down_kbit_s: down,
            up_kbit_s: up,
            disk_mib: size,
            ..figures()
        };
        if let Ok(paid) = price(&task(), &figures, &acceptance()) {
            prop_assert!(paid.memory_msat_per_gib_hour <= task().rates.memory_msat_per_gib_hour);
            prop_assert!(paid.disk_msat_per_gib_hour <= task().rates.disk_msat_per_gib_hour);
            prop_assert!(paid.traffic_msat_per_gb <= task().rates.traffic_msat_per_gb);
            // And what the publisher says, an honest node takes.
            let answer = Proposal { rates: paid, core_mhz: figures.core_mhz, ..proposal() };
            prop_assert_eq!(verdict(&answer, &figures, &policy()), Ok(()));
        }
        let [cpu, memory, disk, persistent, traffic] = rates;
        let wild = Proposal {
            core_mhz,
            rates: Rates {
                cpu_msat_per_ghz_hour: cpu,
                memory_msat_per_gib_hour: memory,
                disk_msat_per_gib_hour: disk,
                persistent_msat_per_gib_hour: persistent,
                traffic_msat_per_gb: traffic,
            },
            lease: Duration::from_secs(seconds),
            payout: PayoutInterval::InAdvance(Duration::from_secs(seconds)),
            capacity_sat: sat,
            ..proposal()
        };
        let _ = verdict(&wild, &figures, &policy());
    }
}
