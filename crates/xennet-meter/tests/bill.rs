//! What is owed, to the thousandth of a satoshi.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use xennet_meter::{MeterError, Part, Size, interval_price, owed, owed_sat};
use xennet_task::{Msat, Rates, Usage};

const RATES: Rates = Rates {
    cpu_msat_per_ghz_hour: 2_000_000,
    memory_msat_per_gib_hour: 1_000_000,
    disk_msat_per_gib_hour: 100_000,
    persistent_msat_per_gib_hour: 50_000,
    traffic_msat_per_gb: 1_000_000,
};
const HOUR_MS: u64 = 3_600_000;

#[test]
fn an_hour_of_each_part_costs_its_rate() {
    let only = |usage: Usage| owed(&RATES, 1_000, &usage).unwrap();
    assert_eq!(only(Usage { core_ms: HOUR_MS, ..Usage::default() }), Msat(2_000_000));
    assert_eq!(only(Usage { memory_mib_ms: 1_024 * HOUR_MS, ..Usage::default() }), Msat(1_000_000));
    assert_eq!(only(Usage { disk_mib_ms: 1_024 * HOUR_MS, ..Usage::default() }), Msat(100_000));
    assert_eq!(only(Usage { persistent_mib_ms: 1_024 * HOUR_MS, ..Usage::default() }), Msat(50_000));
    assert_eq!(only(Usage { traffic_bytes: 1_000_000_000, ..Usage::default() }), Msat(1_000_000));
    assert_eq!(only(Usage::default()), Msat(0));
}

#[test]
fn cores_are_paid_by_their_measured_clock() {
    let usage = Usage { core_ms: 2 * HOUR_MS, ..Usage::default() };
    assert_eq!(owed(&RATES, 300, &usage).unwrap(), Msat(1_200_000));
    assert_eq!(owed(&RATES, 0, &usage).unwrap(), Msat(0));
}

#[test]
fn the_sum_is_rounded_down_once_and_not_part_by_part() {
    // 0.4 msat of memory, 0.4 of disk and 0.4 of persistent storage: 1.2 msat in all, so 1 and not 0.
    let rates = Rates { memory_msat_per_gib_hour: 2, disk_msat_per_gib_hour: 2, persistent_msat_per_gib_hour: 2, ..Rates::default() };
    let fifth = 1_024 * HOUR_MS / 5;
    let usage = Usage { memory_mib_ms: fifth, disk_mib_ms: fifth, persistent_mib_ms: fifth, ..Usage::default() };
    assert_eq!(owed(&rates, 1_000, &usage).unwrap(), Msat(1));
    let one = Usage { memory_mib_ms: fifth, ..Usage::default() };
    assert_eq!(owed(&rates, 1_000, &one).unwrap(), Msat(0));
}

#[test]
fn a_payment_carries_whole_satoshi_and_the_rest_stays_owed() {
    let usage = |core_ms| Usage { core_ms, ..Usage::default() };
    // 1,000 msat take 1.8 s of a core of 1 GHz.
    assert_eq!(owed_sat(&RATES, 1_000, &usage(1_799)).unwrap(), 0);
    assert_eq!(owed_sat(&RATES, 1_000, &usage(1_800)).unwrap(), 1);
    assert_eq!(owed_sat(&RATES, 1_000, &usage(180_000)).unwrap(), 100);
}

#[test]
fn the_price_of_an_interval_is_rounded_up_and_bounds_what_is_owed_for_it() {
    let size = Size { cores: 1, memory_mib: 256, disk_mib: 256, persistent_mib: 0 };
    let interval = Duration::from_secs(5);
    let price = interval_price(&RATES, &size, 300, interval);
    // 833.33 for the core, 347.22 for memory, 34.72 for disk: 1215.28.
    assert_eq!(price, Msat(1_216));
    let used = Usage { core_ms: 5_000, memory_mib_ms: 256 * 5_000, disk_mib_ms: 256 * 5_000, ..Usage::default() };
    assert_eq!(owed(&RATES, 300, &used).unwrap(), Msat(1_215));
}

#[test]
fn what_no_amount_can_hold_is_an_error_and_its_bound_is_the_highest() {
    let dear = Rates { cpu_msat_per_ghz_hour: u64::MAX, ..Rates::default() };
    let long = Usage { core_ms: u64::MAX, ..Usage::default() };
    let refused = owed(&dear, u32::MAX, &long).unwrap_err();
    assert_eq!(refused, MeterError::Part { part: Part::Cpu, used: u64::MAX, rate: u64::MAX });
    assert!(refused.to_string().contains("core-ms of cpu at a rate of"), "{refused}");
    let whole = owed(&dear, 1_000, &Usage { core_ms: 2 * HOUR_MS, ..Usage::default() }).unwrap_err();
    assert_eq!(whole, MeterError::Whole { msat: 2 * u128::from(u64::MAX), most: u64::MAX });
    let size = Size { cores: u16::MAX, ..Size::default() };
    assert_eq!(interval_price(&dear, &size, u32::MAX, Duration::MAX), Msat(u64::MAX));
}

fn any_rates() -> impl Strategy<Value = Rates> {
    prop::array::uniform5(0..=Rates::MAX).prop_map(|[cpu, memory, disk, persistent, traffic]| Rates {
        cpu_msat_per_ghz_hour: cpu,
        memory_msat_per_gib_hour: memory,
        disk_msat_per_gib_hour: disk,
        persistent_msat_per_gib_hour: persistent,
        traffic_msat_per_gb: traffic,
    })
}

fn any_usage() -> impl Strategy<Value = Usage> {
    prop::array::uniform5(0..=1_u64 << 34).prop_map(|[core, memory, disk, persistent, traffic]| Usage {
        core_ms: core,
        memory_mib_ms: memory,
        disk_mib_ms: disk,
        persistent_mib_ms: persistent,
        traffic_bytes: traffic,
    })
}

proptest! {
    #[test]
    fn the_bill_is_within_one_msat_of_its_parts_and_never_above(rates in any_rates(), usage in any_usage(), mhz in 0..10_000_u32) {
        let Ok(whole) = owed(&rates, mhz, &usage) else { return Ok(()) };
        let zero = Usage::default();
        let parts = [
            Usage { core_ms: usage.core_ms, ..zero },
            Usage { memory_mib_ms: usage.memory_mib_ms, ..zero },
            Usage { disk_mib_ms: usage.disk_mib_ms, ..zero },
            Usage { persistent_mib_ms: usage.persistent_mib_ms, ..zero },
            Usage { traffic_bytes: usage.traffic_bytes, ..zero },
        ];
        let sum: u64 = parts.iter().map(|part| owed(&rates, mhz, part).unwrap().0).sum();
        prop_assert!(sum <= whole.0 && whole.0 <= sum + 5);
    }

    #[test]
    fn more_use_is_never_cheaper(rates in any_rates(), usage in any_usage(), more in any_usage(), mhz in 0..10_000_u32) {
        let both = Usage {
            core_ms: usage.core_ms + more.core_ms,
            memory_mib_ms: usage.memory_mib_ms + more.memory_mib_ms,
            disk_mib_ms: usage.disk_mib_ms + more.disk_mib_ms,
            persistent_mib_ms: usage.persistent_mib_ms + more.persistent_mib_ms,
            traffic_bytes: usage.traffic_bytes + more.traffic_bytes,
        };
        if let (Ok(less), Ok(all)) = (owed(&rates, mhz, &usage), owed(&rates, mhz, &both)) {
            prop_assert!(less <= all);
            // What is rounded off in one interval comes back in the next: the sum of two bills is at most 1 msat short.
            if let Ok(rest) = owed(&rates, mhz, &more) {
                prop_assert!(less.0 + rest.0 <= all.0 && all.0 <= less.0 + rest.0 + 1);
            }
        }
    }
}
