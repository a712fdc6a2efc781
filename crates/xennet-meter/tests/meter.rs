//! Counting, and comparing two counts.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use xennet_meter::{Disagreement, Meter, Part, Size, Tolerance, compare, owed};
use xennet_task::{Rates, Usage};

const SIZE: Size = Size { cores: 2, memory_mib: 512, disk_mib: 1_024, persistent_mib: 0 };

#[test]
fn a_meter_counts_while_the_machine_is_at_the_publishers_disposal() {
    let mut meter = Meter::new(SIZE);
    meter.advance(1_000);
    assert_eq!(meter.usage(), Usage::default(), "a new meter is paused");
    meter.resume(2_000);
    meter.advance(5_000);
    meter.pause(6_000);
    meter.advance(60_000);
    meter.pause(70_000);
    meter.resume(100_000);
    meter.advance(100_500);
    meter.traffic(777);
    let expected =
        Usage { core_ms: 2 * 4_500, memory_mib_ms: 512 * 4_500, disk_mib_ms: 1_024 * 4_500, persistent_mib_ms: 0, traffic_bytes: 777 };
    assert_eq!(meter.usage(), expected);
    assert_eq!((meter.running_ms(), meter.is_running()), (4_500, true));
}

#[test]
fn a_clock_that_goes_back_takes_nothing_away() {
    let mut meter = Meter::new(SIZE);
    meter.resume(10_000);
    meter.advance(12_000);
    meter.advance(5_000);
    assert_eq!(meter.running_ms(), 2_000);
    meter.advance(6_000);
    assert_eq!(meter.running_ms(), 3_000);
    meter.traffic(500);
    meter.traffic(400);
    assert_eq!(meter.usage().traffic_bytes, 500);
}

#[test]
fn the_time_a_daemon_was_dead_is_not_counted() {
    let mut meter = Meter::new(SIZE);
    meter.resume(1_000);
    meter.advance(3_000);
    let mut again: Meter = serde_json::from_str(&serde_json::to_string(&meter).unwrap()).unwrap();
    assert_eq!(again, meter);
    again.skip_to(90_000);
    again.advance(91_000);
    assert_eq!(again.running_ms(), 3_000);
    again.pause(92_000);
    again.skip_to(99_000);
    again.advance(100_000);
    assert_eq!(again.running_ms(), 4_000, "a paused meter stays paused");
}

#[test]
fn no_time_however_long_overflows() {
    let mut meter = Meter::new(Size { cores: u16::MAX, memory_mib: u32::MAX, disk_mib: u32::MAX, persistent_mib: u32::MAX });
    meter.resume(0);
    meter.advance(u64::MAX);
    meter.pause(0);
    meter.resume(0);
    meter.advance(u64::MAX);
    assert_eq!(meter.usage().core_ms, u64::MAX);
}

#[test]
fn two_honest_meters_agree_within_share_and_slack() {
    let tolerance = Tolerance::new(10_000, &SIZE, Duration::from_millis(500), 1_000);
    let own = Usage { core_ms: 100_000, traffic_bytes: 50_000, ..Usage::default() };
    assert_eq!(compare(&own, &own, &tolerance), Ok(()));
    // 1 % of 100,000 and half a second of two cores.
    let edge = Usage { core_ms: 98_000, ..own };
    assert_eq!(compare(&own, &edge, &tolerance), Ok(()));
    let past = Usage { core_ms: 97_999, ..own };
    let refused = compare(&own, &past, &tolerance).unwrap_err();
    assert_eq!(refused, Disagreement { part: Part::Cpu, own: 100_000, theirs: 97_999, allowed: 2_000 });
    assert_eq!(
        refused.to_string(),
        "cpu: the own meter says 100000 core-ms, the other side says 97999 core-ms, 2000 apart is allowed; compare the clocks of both sides, or allow more"
    );
    assert!(compare(&past, &own, &tolerance).is_err(), "in the other direction too");
    let chatty = Usage { traffic_bytes: 60_000, ..own };
    assert_eq!(compare(&own, &chatty, &tolerance).unwrap_err().part, Part::Traffic);
}

proptest! {
    #[test]
    fn what_is_owed_never_shrinks_while_time_goes_on(steps in prop::collection::vec((0..4_u8, 0..100_000_u64), 1..40)) {
        let rates = Rates { cpu_msat_per_ghz_hour: 3_000_001, memory_msat_per_gib_hour: 7, traffic_msat_per_gb: 1_000, ..Rates::default() };
        let mut meter = Meter::new(SIZE);
        let (mut last, mut traffic) = (0, 0);
        for (what, number) in steps {
            match what {
                0 => meter.advance(number),
                1 => meter.pause(number),
                2 => meter.resume(number),
                _ => {
                    traffic += number;
                    meter.traffic(traffic);
                }
            }
            let now = owed(&rates, 333, &meter.usage()).unwrap().0;
            prop_assert!(now >= last);
            last = now;
        }
    }
}

#[test]
fn a_meter_can_be_brought_nearer_to_the_other_sides_in_either_direction() {
    let mut meter = Meter::new(SIZE);
    meter.resume(0);
    meter.advance(10_000);
    meter.traffic(500);
    let mut fewer = meter.usage();
    fewer.core_ms -= 4 * u64::from(SIZE.cores);
    fewer.traffic_bytes = 300;
    let mut more = meter.usage();
    more.core_ms += 1_000;
    more.traffic_bytes += 1;
    let before = meter.usage();
    meter.lower_to(&more);
    assert_eq!(meter.usage(), before);
    meter.lower_to(&fewer);
    assert_eq!((meter.running_ms(), meter.usage().traffic_bytes), (9_996, 300));
    assert!(meter.is_running());
    meter.advance(10_004);
    assert_eq!(meter.running_ms(), 10_000);
    meter.raise_to(&fewer);
    assert_eq!((meter.running_ms(), meter.usage().traffic_bytes), (10_000, 300));
    meter.raise_to(&more);
    assert_eq!((meter.running_ms(), meter.usage().traffic_bytes), (10_500, 501));
}
