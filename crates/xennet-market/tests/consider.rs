//! Which tasks a node takes, and with which machine.
#![allow(clippy::unwrap_used)]

mod market;

use std::time::Duration;

use market::{NOW, compute, have, policy, task, words};
use proptest::prelude::*;
use xennet_market::{Capabilities, Dial, NodePolicy, Payment, Reason, check_work, consider};
use xennet_task::{PayoutInterval, Rates, Requirements, Storage, Task};

fn refusal(change: impl Fn(&mut Task, &mut Capabilities, &mut NodePolicy)) -> Vec<String> {
    let (mut task, mut have, mut policy) = (task(), have(), policy());
    change(&mut task, &mut have, &mut policy);
    words(consider(&task, &have, &policy, NOW))
}

#[test]
fn the_example_task_is_taken_with_the_most_cores_that_fit() {
    let choice = consider(&task(), &have(), &policy(), NOW).unwrap();
    assert_eq!(choice.operating_system, "thin");
    assert_eq!(choice.compute, compute(2, 100));
    assert_eq!((choice.memory_mib, choice.disk_mib, choice.persistent_mib), (512, 256, 0));

    let small = Capabilities { memory_mib: 300, ..have() };
    let choice = consider(&task(), &small, &policy(), NOW).unwrap();
    assert_eq!((choice.compute, choice.memory_mib), (compute(1, 100), 256));
}

#[test]
fn of_equally_many_cores_the_slowest_is_chosen() {
    let mut task = task();
    task.requirements.compute = vec![compute(1, 250), compute(1, 50), compute(1, 200)];
    assert_eq!(consider(&task, &have(), &policy(), NOW).unwrap().compute, compute(1, 50));
}

#[test]
fn a_task_without_requirements_gets_the_smallest_machine() {
    let task = Task { requirements: Requirements::default(), ..task() };
    let choice = consider(&task, &have(), &policy(), NOW).unwrap();
    assert_eq!(choice.operating_system, "thin");
    assert_eq!(choice.compute, compute(1, 0));
    assert_eq!((choice.memory_mib, choice.disk_mib, choice.persistent_mib), (256, 256, 0));
}

#[test]
fn the_first_system_of_the_task_that_the_node_has_is_chosen() {
    let mut task = task();
    task.requirements.operating_systems = ["openwrt", "debian-12", "thin"].map(str::to_owned).to_vec();
    assert_eq!(consider(&task, &have(), &policy(), NOW).unwrap().operating_system, "debian-12");
}

#[test]
fn what_the_node_does_not_have_is_named_with_both_numbers() {
    let said = refusal(|task, _, _| {
        task.requirements.bandwidth_kbit_s = 60_000;
        task.requirements.storage = Storage { size_mib: 20_000, mb_s: 500 };
        task.requirements.persistent_mib = 1_001;
        task.requirements.memory_mb_s = 9_000;
        task.requirements.operating_systems = vec!["plan9".to_owned()];
    });
    assert_eq!(
        said,
        [
            "operating_systems: plan9 asked for, this node has thin, debian-12; add one of those to the list",
            "storage: 20000 MiB asked for, this node gives at most 10000; ask for 10000 or less",
            "storage speed: 500 MB/s asked for, this node gives at most 200; ask for 200 or less",
            "persistent storage: 1001 MiB asked for, this node gives at most 1000; ask for 1000 or less",
            "bandwidth: 60000 kbit/s asked for, this node gives at most 50000; ask for 50000 or less",
            "memory speed: 9000 MB/s asked for, this node gives at most 2000; ask for 2000 or less",
        ]
    );
}

#[test]
fn of_alternatives_that_do_not_fit_the_nearest_is_named() {
    let said = refusal(|task, _, _| task.requirements.compute = vec![compute(64, 3_000), compute(1, 400), compute(1, 1_000)]);
    assert_eq!(said, ["clock: 400 MHz asked for, this node gives at most 300; ask for 300 or less"]);
    let said = refusal(|_, have, _| have.memory_mib = 100);
    assert_eq!(said, ["memory: 256 MiB asked for, this node gives at most 100; ask for 100 or less"]);
}

#[test]
fn a_price_below_the_floor_names_the_cpu_rate_that_would_do_and_that_rate_does() {
    let free = Task { rates: Rates { traffic_msat_per_gb: 1_000, ..Rates::default() }, ..task() };
    let reasons = consider(&free, &have(), &policy(), NOW).unwrap_err();
    assert_eq!(
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "rates: 0 msat an hour offered for this machine, this node wants 351 msat; raise the cpu rate from 0 to 585 msat per GHz and hour"
        ]
    );
    let Reason::Price { fix_msat_per_ghz_hour, .. } = reasons[0] else { unreachable!() };
    let mut enough = free.clone();
    enough.rates.cpu_msat_per_ghz_hour = fix_msat_per_ghz_hour;
    assert!(consider(&enough, &have(), &policy(), NOW).is_ok());
    enough.rates.cpu_msat_per_ghz_hour -= 2;
    assert!(consider(&enough, &have(), &policy(), NOW).is_err());
}

#[test]
fn one_part_may_be_paid_for_by_another_but_traffic_may_not() {
    let mut task = task();
    task.rates = Rates { memory_msat_per_gib_hour: 1_000_000, traffic_msat_per_gb: 999, ..Rates::default() };
    let said = words(consider(&task, &have(), &policy(), NOW));
    assert_eq!(said, ["traffic rate: 999 msat offered per GB, this node wants 1000 msat; offer 1000 msat"]);
    task.rates.traffic_msat_per_gb = 1_000;
    assert!(consider(&task, &have(), &policy(), NOW).is_ok());
}

#[test]
fn a_node_does_not_wait_longer_or_for_more_than_its_policy_says() {
    let hour = |task: &mut Task| task.payout = PayoutInterval::InArrears(Duration::from_secs(3_601));
    assert_eq!(
        refusal(|task, _, _| hour(task)),
        ["payout: every 3601 s in arrears, this node waits at most 3600 s; pay every 3600 s or more often"]
    );
    assert_eq!(
        refusal(|_, _, policy| policy.max_exposure_msat = 1_000),
        [
            "payout: an interval of 5 s costs 2396 msat, this node works for at most 1000 msat unpaid; pay every 2 s or more often, or in advance"
        ]
    );
    assert_eq!(
        refusal(|_, _, policy| policy.max_exposure_msat = 10),
        ["payout: an interval of 5 s costs 2396 msat, this node works for at most 10 msat unpaid; pay in advance"]
    );
    assert_eq!(
        refusal(|_, _, policy| policy.payment = Payment::AdvanceOnly),
        ["payout: every 5 s in arrears, but this node wants to be paid in advance; pay in advance (-5 s)"]
    );
}

#[test]
fn a_task_that_pays_in_advance_may_do_so_for_any_interval() {
    let mut task = task();
    task.payout = PayoutInterval::InAdvance(Duration::from_secs(600_000));
    let strict = NodePolicy { payment: Payment::AdvanceOnly, max_exposure_msat: 0, ..policy() };
    assert!(consider(&task, &have(), &strict, NOW).is_ok());
}

#[test]
fn times_that_do_not_fit_are_named() {
    assert_eq!(
        refusal(|task, _, _| task.expires_at = NOW),
        ["expires_at: the task was valid until 1800000000, now it is 1800000000 (unix seconds); send a new one"]
    );
    assert_eq!(
        refusal(|_, _, policy| policy.min_lease = Duration::from_secs(4_000)),
        ["lease: 60 to 3600 s asked for, this node leases 4000 to 2592000 s; let the two ranges overlap"]
    );
    assert_eq!(
        refusal(|task, _, _| task.proposal_within = Duration::from_secs(5)),
        ["proposal_within: 5 s given, this node needs 20 s to boot and be measured; give 20 s or more"]
    );
}

#[test]
fn work_is_judged_before_anything_else() {
    assert_eq!(check_work(16, &policy()), Ok(()));
    assert_eq!(
        check_work(3, &policy()).unwrap_err().to_string(),
        "work_bits: the task has 3 bits of work, this node wants 16; announce it with 16 or more"
    );
    assert_eq!(
        refusal(|task, _, _| task.acceptance_work_bits = 60),
        ["acceptance_work_bits: the task asks for 60 bits of work, this node does at most 28; ask for 28 or less"]
    );
}

#[test]
fn a_node_that_dials_public_addresses_only_does_not_knock_at_its_owners_doors() {
    let public_only = NodePolicy { dial: Dial::PublicOnly, ..policy() };
    for private in [
        "127.0.0.1:22",
        "10.1.2.3:22",
        "192.168.0.1:22",
        "169.254.1.1:22",
        "100.64.0.1:22",
        "[::1]:22",
        "[fe80::1]:22",
        "[::ffff:127.0.0.1]:22",
    ] {
        let task = Task { address: private.parse().unwrap(), ..task() };
        assert!(consider(&task, &have(), &policy(), NOW).is_ok(), "{private}");
        let said = words(consider(&task, &have(), &public_only, NOW));
        assert!(
            said[0].ends_with("is not a public address, and this node dials only public addresses; announce such an address"),
            "{said:?}"
        );
    }
    for nowhere in ["0.0.0.0:22", "224.0.0.1:22", "[::]:22", "8.8.8.8:0"] {
        let task = Task { address: nowhere.parse().unwrap(), ..task() };
        assert!(consider(&task, &have(), &policy(), NOW).is_err(), "{nowhere}");
    }
    let public = Task { address: "[2001:db8::1]:22".parse().unwrap(), ..task() };
    assert!(consider(&public, &have(), &public_only, NOW).is_ok());
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let said = refusal(|task, have, policy| {
        task.expires_at = 0;
        task.rates = Rates::default();
        have.bandwidth_kbit_s = 0;
        policy.payment = Payment::AdvanceOnly;
    });
    assert_eq!(said.len(), 5, "{said:?}");
}

#[test]
fn a_policy_is_written_in_seconds_and_what_is_left_out_is_the_default() {
    let policy: NodePolicy = serde_json::from_str(r#"{"min_lease": 7, "payment": "advance_only"}"#).unwrap();
    let expected = NodePolicy { min_lease: Duration::from_secs(7), payment: Payment::AdvanceOnly, ..NodePolicy::default() };
    assert_eq!(policy, expected);
    assert_eq!(serde_json::from_str::<NodePolicy>(&serde_json::to_string(&policy).unwrap()).unwrap(), policy);
    assert!(serde_json::from_str::<NodePolicy>(r#"{"min_leese": 7}"#).is_err());
}

#[test]
fn a_reason_can_be_read_by_programs_too() {
    let reason = check_work(3, &policy()).unwrap_err();
    let text = serde_json::to_string(&reason).unwrap();
    assert_eq!(text, r#"{"reason":"work","committed":3,"least":16}"#);
    assert_eq!(serde_json::from_str::<Reason>(&text).unwrap(), reason);
}

proptest! {
    #[test]
    fn no_numbers_of_a_stranger_make_it_panic_and_what_is_chosen_fits(
        cores: u16, mhz: u32, memory: u32, disk: u32, persistent: u32, interval: u64, rates in prop::array::uniform5(any::<u64>()),
        free_cores: u16, core_mhz: u32, free_memory: u32,
    ) {
        let mut task = task();
        task.requirements.compute = vec![compute(cores, mhz), compute(1, mhz)];
        task.requirements.memory_per_core_mib = memory;
        task.requirements.storage.size_mib = disk;
        task.requirements.persistent_mib = persistent;
        task.payout = PayoutInterval::InArrears(Duration::from_secs(interval));
        let [cpu, memory, disk, persistent, traffic] = rates;
        task.rates = Rates {
            cpu_msat_per_ghz_hour: cpu,
            memory_msat_per_gib_hour: memory,
            disk_msat_per_gib_hour: disk,
            persistent_msat_per_gib_hour: persistent,
            traffic_msat_per_gb: traffic,
        };
        let have = Capabilities { cores: free_cores, core_mhz, memory_mib: free_memory, ..have() };
        if let Ok(choice) = consider(&task, &have, &policy(), NOW) {
            prop_assert!(choice.compute.cores <= have.cores && choice.compute.mhz <= have.core_mhz);
            prop_assert!(choice.memory_mib <= have.memory_mib && choice.disk_mib <= have.disk_mib);
        }
    }
}
