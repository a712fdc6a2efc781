//! A task.toml is read as its author meant it, or refused with the line, the value and what would be right.
#![allow(clippy::unwrap_used)]

mod any;

use std::time::Duration;

use any::*;
use proptest::prelude::*;
use secp256k1::Keypair;
use xennet_task::{Carrier, Compute, PayoutInterval, Said, Storage, TaskFile, TaskId, Unworked};

const SMALLEST: &str = "\
payout_interval = \"-5 s\"
[lease]
min = \"1 min\"
max = \"1 h\"
[rates]
cpu_msat_per_ghz_hour = 1
memory_msat_per_gib_hour = 2
disk_msat_per_gib_hour = 3
persistent_msat_per_gib_hour = 4
traffic_msat_per_gb = 5
";

/// What is said about the example in which one text was replaced by another.
fn refused(replace: &str, with: &str) -> String {
    let example = TaskFile::example();
    assert!(example.contains(replace), "no `{replace}` in the example");
    TaskFile::parse(&example.replacen(replace, with, 1)).unwrap_err().to_string()
}

#[test]
fn the_example_is_read_as_it_says() {
    let file = TaskFile::parse(TaskFile::example()).unwrap();
    assert_eq!(file.machines, 1);
    assert_eq!(file.address, None);
    assert_eq!(file.payout, PayoutInterval::InArrears(Duration::from_secs(5)));
    assert_eq!((file.lease.min, file.lease.max), (Duration::from_secs(60), Duration::from_secs(3_600)));
    assert_eq!(file.proposal_within, Duration::from_secs(180));
    assert_eq!(file.valid_for, Duration::from_secs(3_600));
    assert_eq!(file.budget_sat, Some(50_000));
    assert_eq!(file.carrier, Carrier::Chain);
    assert_eq!((file.work_bits, file.acceptance_work_bits), (18, 16));
    assert_eq!(file.requirements.operating_systems, ["thin"]);
    assert_eq!(file.requirements.bandwidth_kbit_s, 1_000);
    assert_eq!(file.requirements.storage, Storage { size_mib: 256, mb_s: 10 });
    assert_eq!(file.requirements.memory_per_core_mib, 256);
    assert_eq!(file.requirements.memory_mb_s, 100);
    let (one, two) = (Compute { cores: 1, mhz: 100 }, Compute { cores: 2, mhz: 100 });
    assert_eq!(file.requirements.compute, [one, two]);
    assert_eq!(file.rates.cpu_msat_per_ghz_hour, 2_000_000);
}

#[test]
fn a_negative_payout_interval_pays_in_advance() {
    let file = TaskFile::parse(SMALLEST).unwrap();
    assert_eq!(file.payout, PayoutInterval::InAdvance(Duration::from_secs(5)));
}

#[test]
fn what_is_left_out_has_the_value_that_the_example_names() {
    let (smallest, example) = (TaskFile::parse(SMALLEST).unwrap(), TaskFile::parse(TaskFile::example()).unwrap());
    assert_eq!(smallest.machines, example.machines);
    assert_eq!(smallest.proposal_within, example.proposal_within);
    assert_eq!(smallest.valid_for, example.valid_for);
    assert_eq!(smallest.work_bits, example.work_bits);
    assert_eq!(smallest.acceptance_work_bits, example.acceptance_work_bits);
    assert_eq!(smallest.carrier, example.carrier);
    assert_eq!(smallest.requirements, xennet_task::Requirements::default());
    assert_eq!((smallest.budget_sat, smallest.info.as_str()), (None, ""));
}

#[test]
fn a_task_made_of_it_can_be_said() {
    let keys: Keypair = keypair(1);
    for text in [TaskFile::example(), SMALLEST] {
        let file = TaskFile::parse(text).unwrap();
        let task = file.task(TaskId([1; 8]), publisher(), [2; 32], "192.0.2.1:22".parse().unwrap(), 1_800_000_000);
        assert_eq!(task.expires_at, 1_800_003_600);
        assert_eq!(task.address, "192.0.2.1:22".parse().unwrap());
        assert!(Unworked::sign(&Said::Task(task), file.work_bits, &keys).is_ok());
    }
}

#[test]
fn it_survives_json() {
    let file = TaskFile::parse(TaskFile::example()).unwrap();
    let json = serde_json::to_string(&file).unwrap();
    assert_eq!(serde_json::from_str::<TaskFile>(&json).unwrap(), file);
}

#[test]
fn a_missing_field_names_where_it_belongs_and_how_it_could_look() {
    assert_eq!(refused("payout_interval", "# payout_interval"), "line 1: payout_interval: is missing; write `payout_interval = \"5 s\"`");
    assert_eq!(refused("min = \"1 min\"", ""), "line 15: lease.min: is missing; write `min = \"1 min\"`");
    assert_eq!(refused("cores = 2", ""), "line 36: requirements.compute[2].cores: is missing; write `cores = 1`");
    assert_eq!(
        refused("traffic_msat_per_gb = 1_000_000", ""),
        "line 41: rates.traffic_msat_per_gb: is missing; write `traffic_msat_per_gb = 1_000_000`"
    );
}

#[test]
fn an_unknown_field_names_the_one_that_was_meant() {
    let unknown = refused("machines", "machine");
    assert!(unknown.starts_with("line 4: machine: is unknown; did you mean `machines`? Known here: "), "{unknown}");
    assert_eq!(
        refused("speed = \"10 MB/s\"", "sped = \"10 MB/s\""),
        "line 29: requirements.storage.sped: is unknown; did you mean `speed`? Known here: size, speed"
    );
    assert_eq!(
        refused("max = \"1 h\"", "max = \"1 h\"\nwhenever = true"),
        "line 18: lease.whenever: is unknown; remove it; known here: min, max"
    );
}

#[test]
fn a_contradiction_names_both_fields() {
    assert_eq!(
        refused("max = \"1 h\"", "max = \"30 s\""),
        "line 17: lease.max: \"30 s\" is shorter than lease.min, which is 60 s; \
         it must be at least 60 s, or lease.min less"
    );
    assert_eq!(
        refused("\"5 s\"", "\"-2 h\""),
        "line 5: payout_interval: \"-2 h\" is longer than lease.max, which is 3600 s; \
         it must be at most 3600 s, or lease.max more"
    );
    assert_eq!(
        refused("size = \"256 MiB\"", ""),
        "line 29: requirements.storage.speed: \"10 MB/s\" is asked of a disk, but no disk is; \
         add `size = \"256 MiB\"`, or remove the speed"
    );
    assert_eq!(
        refused("[\"thin\"]", "[\"thin\", \"thin\"]"),
        "line 21: requirements.operating_systems[2]: \"thin\" is in the list twice; remove one"
    );
    assert_eq!(refused("cores = 2", "cores = 1"), "line 36: requirements.compute[2]: 1 × 100 MHz is in the list twice; remove one");
}

#[test]
fn a_number_out_of_range_names_the_range() {
    assert_eq!(refused("machines = 1", "machines = 0"), "line 4: machines: is 0; it must be an integer from 1 to 65535");
    assert_eq!(refused("work_bits = 18", "work_bits = 300"), "line 11: work_bits: is 300; it must be an integer from 0 to 64");
    assert_eq!(
        refused("budget_sat = 50_000", "budget_sat = -5"),
        "line 9: budget_sat: is -5; it must be an integer from 1 to 2100000000000000"
    );
    assert_eq!(refused("\"3 min\"", "\"2 d\""), "line 7: proposal_within: \"2 d\" is 172800 s; it must be from 1 to 86400 s");
    assert_eq!(
        refused("= 2_000_000", "= 99999999999999999999"),
        "line 42: rates.cpu_msat_per_ghz_hour: is 99999999999999999999; it must be an integer from 0 to 4398046511103"
    );
}

#[test]
fn a_value_of_the_wrong_kind_names_the_right_one() {
    assert_eq!(
        refused("\"256 MiB\"", "256"),
        "line 24: requirements.memory_per_core: is 256; it must be a size with its unit in quotes, such as \"512 MiB\""
    );
    assert_eq!(
        refused("\"256 MiB\"", "\"256\""),
        "line 24: requirements.memory_per_core: \"256\" has no unit; \
         write a size in MiB, GiB, TiB, MB, GB, TB, such as \"512 MiB\""
    );
    assert_eq!(
        refused("\"256 MiB\"", "\"256 mb\""),
        "line 24: requirements.memory_per_core: \"256 mb\" has the unit `mb`, which is none of MiB, GiB, TiB, MB, GB, TB; \
         write a size in MiB, GiB, TiB, MB, GB, TB, such as \"512 MiB\""
    );
    assert_eq!(
        refused("\"256 MiB\"", "\"-256 MiB\""),
        "line 24: requirements.memory_per_core: \"-256 MiB\" is negative; \
         write a size without a minus, such as \"512 MiB\""
    );
    assert_eq!(
        refused("\"1 min\"", "\"soon\""),
        "line 16: lease.min: \"soon\" does not begin with a number; write a duration in s, min, h, d, such as \"10 min\""
    );
    assert_eq!(
        refused("\"1 min\"", "\"0.5 s\""),
        "line 16: lease.min: \"0.5 s\" is no whole number of s; write a duration in s, min, h, d, such as \"10 min\""
    );
    assert_eq!(refused("machines = 1 ", "machines = \"1\""), "line 4: machines: is \"1\"; it must be an integer from 1 to 65535");
    assert_eq!(
        refused("# address = \"203.0.113.7:9022\"", "address = \"home\""),
        "line 6: address: is \"home\"; it must be an IP address and a port, such as \"203.0.113.7:9022\""
    );
    assert_eq!(
        refused("# address = \"203.0.113.7:9022\"", "address = \"0.0.0.0:9022\""),
        "line 6: address: is \"0.0.0.0:9022\"; it must be the address of one host, such as 203.0.113.7:9022"
    );
    assert_eq!(
        refused("carrier = \"chain\"", "carrier = \"pigeon\""),
        "line 10: carrier: is \"pigeon\"; it must be \"chain\", \"chain_full\" or \"overlay\""
    );
    assert_eq!(
        refused("[\"thin\"]", "\"thin\""),
        "line 21: requirements.operating_systems: is \"thin\"; it must be a list of names, such as [\"thin\", \"debian-12\"]"
    );
    assert_eq!(
        refused("[\"thin\"]", "[\"Thin\"]"),
        "line 21: requirements.operating_systems[1]: is \"Thin\"; \
         it must be 1 to 20 lower-case letters, digits, `-` or `.`"
    );
    assert_eq!(
        refused("\"https://example.org/t\"", &format!("\"{}\"", "x".repeat(97))),
        "line 13: info: the text is 97 bytes long; it must be at most 96 bytes"
    );
}

#[test]
fn what_is_not_toml_names_the_line() {
    let error = refused("machines = 1", "machines 1");
    assert!(error.starts_with("line 4: machines 1"), "{error}");
    let twice = refused("carrier = \"chain\"", "machines = 2");
    assert!(twice.starts_with("line 10: machines: `machines = 2"), "{twice}");
    assert!(twice.contains("duplicate key"), "{twice}");
}

#[test]
fn all_mistakes_are_named_at_once_in_the_order_of_the_lines() {
    let error = TaskFile::parse("machines = 0\nwork_bitz = 3\n[lease]\nmax = 7\n").unwrap_err();
    let places: Vec<_> = error.problems.iter().map(|p| (p.line, p.field.as_str())).collect();
    assert_eq!(places, [(1, "machines"), (1, "payout_interval"), (1, "rates"), (2, "work_bitz"), (3, "lease.min"), (4, "lease.max")]);
    assert_eq!(error.to_string().lines().count(), 6);
}

#[test]
fn units_are_those_people_use() {
    let storage = |size: &str| {
        let text = format!("{SMALLEST}[requirements.storage]\nsize = \"{size}\"\n");
        TaskFile::parse(&text).unwrap().requirements.storage.size_mib
    };
    assert_eq!(storage("512MiB"), 512);
    assert_eq!(storage("1.5 GiB"), 1_536);
    assert_eq!(storage("2 TiB"), 2 << 20);
    assert_eq!(storage("1_000 MiB"), 1_000);
    // A requirement is rounded up: 512 MB are 488.28 MiB.
    assert_eq!(storage("512 MB"), 489);
}

proptest! {
    // Whatever is written over the example, it is refused or makes a task that can be said.
    #[test]
    fn no_file_panics_or_makes_a_task_that_cannot_be_said(
        at: prop::sample::Index, length in 0usize..12, with in "[ -~\\n]{0,8}|[0-9]{1,30}|-?[0-9]{1,4} ?(s|MiB|GHz)",
    ) {
        let example = TaskFile::example();
        let at = at.index(example.len());
        let end = (at + length).min(example.len());
        let text = [&example[..at], &with, &example[end..]].concat();
        match TaskFile::parse(&text) {
            Ok(file) => {
                let task = file.task(TaskId([1; 8]), publisher(), [2; 32], "192.0.2.1:22".parse().unwrap(), u32::MAX);
                prop_assert!(Unworked::sign(&Said::Task(task), file.work_bits, &keypair(1)).is_ok());
            }
            Err(error) => {
                let lines = text.lines().count();
                prop_assert!(!error.problems.is_empty());
                prop_assert!(error.problems.iter().all(|p| (1..=lines.max(1) + 1).contains(&p.line)));
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        prop_assert!(TaskFile::parse(&text).is_err());
    }
}
