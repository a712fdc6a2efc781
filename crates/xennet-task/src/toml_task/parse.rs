//! Which fields a task.toml has, and which of them contradict each other.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeTable;

use super::section::{Absent, Document, Field, Section};
use super::units::{self, Measured};
use super::{Carrier, TaskFile, TaskFileError};
use crate::limits;
use crate::requirements::check_name;
use crate::task::{check_address, check_info};
use crate::{Compute, LeaseRange, PayoutInterval, Rates, Requirements, Storage};

pub(super) fn parse(text: &str) -> Result<TaskFile, TaskFileError> {
    let mut document = Document::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        errors.iter().for_each(|error| document.syntax(error));
        return Err(document.into_error());
    }
    let mut root = Section::root(table.get_ref());
    let file = task_file(&mut document, &mut root);
    root.finish(&mut document);
    if document.problems.is_empty() { Ok(file) } else { Err(document.into_error()) }
}

impl Document<'_> {
    fn into_error(mut self) -> TaskFileError {
        self.problems.sort_by_key(|problem| problem.line);
        TaskFileError { problems: self.problems }
    }
}

fn task_file<'t>(document: &mut Document<'t>, root: &mut Section<'t>) -> TaskFile {
    let lease = lease(document, root);
    TaskFile {
        requirements: requirements(document, root),
        machines: root.integer(document, "machines", &limits::MACHINES, Absent::Is(1)),
        address: root.read(document, "address", Absent::Is(None), |document, field| address(document, field).map(Some)),
        payout: payout(document, root, &lease),
        lease,
        rates: rates(document, root),
        proposal_within: Duration::from_secs(root.measure(
            document,
            "proposal_within",
            &units::DURATION,
            &limits::PROPOSAL_WITHIN,
            Absent::Is(180),
        )),
        acceptance_work_bits: root.integer(document, "acceptance_work_bits", &limits::ACCEPTANCE_WORK_BITS, Absent::Is(16)),
        work_bits: root.integer(document, "work_bits", &limits::WORK_BITS, Absent::Is(18)),
        valid_for: Duration::from_secs(root.measure(document, "valid_for", &units::DURATION, &limits::VALID_FOR, Absent::Is(3_600))),
        budget_sat: root
            .read(document, "budget_sat", Absent::Is(None), |document, field| field.integer(document, &limits::BUDGET).map(Some)),
        info: root.read(document, "info", Absent::Is(String::new()), info),
        carrier: root.read(document, "carrier", Absent::Is(Carrier::default()), carrier),
    }
}

fn lease<'t>(document: &mut Document<'t>, root: &mut Section<'t>) -> LeaseRange {
    let none = LeaseRange { min: Duration::ZERO, max: Duration::ZERO };
    let example = "[lease]` with `min = \"1 min\"` and `max = \"1 h\"";
    let Some(mut section) = root.needed_section(document, "lease", example) else {
        return none;
    };
    let mut seconds = |name, limits, example| section.measure(document, name, &units::DURATION, limits, Absent::Missing(example));
    let min: u64 = seconds("min", &limits::LEASE_MIN, "min = \"1 min\"");
    let max: u64 = seconds("max", &limits::LEASE_MAX, "max = \"1 h\"");
    if 0 < max
        && max < min
        && let Some(field) = section.field(document, "max")
    {
        let problem = format!("{} is shorter than lease.min, which is {min} s", field.written);
        document.wrong(&field, problem, format!("it must be at least {min} s, or lease.min less"));
    }
    section.finish(document);
    LeaseRange { min: Duration::from_secs(min), max: Duration::from_secs(max) }
}

fn payout<'t>(document: &mut Document<'t>, root: &mut Section<'t>, lease: &LeaseRange) -> PayoutInterval {
    let absent = Absent::Missing("payout_interval = \"5 s\"");
    let payout = root.read(document, "payout_interval", absent, |document, field| {
        let Measured { negative, amount } = field.measure(document, &units::DURATION, &limits::PAYOUT)?;
        let interval = Duration::from_secs(amount);
        if !lease.max.is_zero() && interval > lease.max {
            let longest = lease.max.as_secs();
            let problem = format!("{} is longer than lease.max, which is {longest} s", field.written);
            document.wrong(field, problem, format!("it must be at most {longest} s, or lease.max more"));
        }
        Some(Some(if negative { PayoutInterval::InAdvance(interval) } else { PayoutInterval::InArrears(interval) }))
    });
    payout.unwrap_or(PayoutInterval::InArrears(Duration::ZERO))
}

fn rates<'t>(document: &mut Document<'t>, root: &mut Section<'t>) -> Rates {
    let example = "[rates]` with a rate for each part, such as `cpu_msat_per_ghz_hour = 2_000_000";
    let Some(mut section) = root.needed_section(document, "rates", example) else {
        return Rates::default();
    };
    let mut rate = |limits: &limits::Limits, example| section.integer(document, limits.field, limits, Absent::Missing(example));
    let rates = Rates {
        cpu_msat_per_ghz_hour: rate(&limits::RATE_CPU, "cpu_msat_per_ghz_hour = 2_000_000"),
        memory_msat_per_gib_hour: rate(&limits::RATE_MEMORY, "memory_msat_per_gib_hour = 1_000_000"),
        disk_msat_per_gib_hour: rate(&limits::RATE_DISK, "disk_msat_per_gib_hour = 100_000"),
        persistent_msat_per_gib_hour: rate(&limits::RATE_PERSISTENT, "persistent_msat_per_gib_hour = 100_000"),
        traffic_msat_per_gb: rate(&limits::RATE_TRAFFIC, "traffic_msat_per_gb = 1_000_000"),
    };
    section.finish(document);
    rates
}

fn requirements<'t>(document: &mut Document<'t>, root: &mut Section<'t>) -> Requirements {
    let Some(mut section) = root.section(document, "requirements") else {
        return Requirements::default();
    };
    let absent = || Absent::Is(0);
    let requirements = Requirements {
        operating_systems: section.read(document, "operating_systems", Absent::Is(Vec::new()), operating_systems),
        bandwidth_kbit_s: section.measure(document, "bandwidth", &units::BANDWIDTH, &limits::BANDWIDTH, absent()),
        storage: storage(document, &mut section),
        persistent_mib: section.measure(document, "persistent", &units::SIZE, &limits::PERSISTENT, absent()),
        compute: section.read(document, "compute", Absent::Is(Vec::new()), compute),
        memory_per_core_mib: section.measure(document, "memory_per_core", &units::SIZE, &limits::MEMORY_PER_CORE, absent()),
        memory_mb_s: section.measure(document, "memory_speed", &units::SPEED, &limits::MEMORY_SPEED, absent()),
    };
    section.finish(document);
    requirements
}

fn storage<'t>(document: &mut Document<'t>, requirements: &mut Section<'t>) -> Storage {
    let Some(mut section) = requirements.section(document, "storage") else {
        return Storage::default();
    };
    let storage = Storage {
        size_mib: section.measure(document, "size", &units::SIZE, &limits::STORAGE_SIZE, Absent::Is(0)),
        mb_s: section.measure(document, "speed", &units::SPEED, &limits::STORAGE_SPEED, Absent::Is(0)),
    };
    if storage.mb_s > 0
        && section.field(document, "size").is_none()
        && let Some(speed) = section.field(document, "speed")
    {
        let problem = format!("{} is asked of a disk, but no disk is", speed.written);
        document.wrong(&speed, problem, "add `size = \"256 MiB\"`, or remove the speed");
    }
    section.finish(document);
    storage
}

fn operating_systems<'t>(document: &mut Document<'t>, field: &Field<'t>) -> Option<Vec<String>> {
    let should_be = "a list of names, such as [\"thin\", \"debian-12\"]";
    let mut names: Vec<String> = Vec::new();
    for element in field.list(document, should_be)? {
        let Some(name) = element.text(document, "a name in quotes, such as \"thin\"") else {
            continue;
        };
        if let Err(error) = check_name(name) {
            element.not(document, &error.allowed);
        } else if names.iter().any(|other| other == name) {
            document.wrong(&element, format!("{} is in the list twice", element.written), "remove one");
        } else {
            names.push(name.to_owned());
        }
    }
    at_most(document, field, names.len(), &limits::OPERATING_SYSTEMS);
    let together: usize = names.iter().map(String::len).sum();
    if together > Requirements::MAX_NAMES {
        let remedy = format!("at most {} letters fit into an announcement: remove some", Requirements::MAX_NAMES);
        document.wrong(field, format!("the names have {together} letters together"), remedy);
    }
    Some(names)
}

fn compute<'t>(document: &mut Document<'t>, field: &Field<'t>) -> Option<Vec<Compute>> {
    let should_be = "a list of tables: write `[[requirements.compute]]` with `cores = 1` below";
    let mut alternatives = Vec::new();
    for element in field.list(document, should_be)? {
        let Some(mut section) = element.section(document, should_be) else {
            continue;
        };
        let alternative = Compute {
            cores: section.integer(document, "cores", &limits::CORES, Absent::Missing("cores = 1")),
            mhz: section.measure(document, "clock", &units::CLOCK, &limits::MHZ, Absent::Is(0)),
        };
        section.finish(document);
        if alternative.cores > 0 && alternatives.contains(&alternative) {
            document.wrong(&element, format!("{alternative} is in the list twice"), "remove one");
        }
        alternatives.push(alternative);
    }
    at_most(document, field, alternatives.len(), &limits::COMPUTE);
    Some(alternatives)
}

fn at_most<'t>(document: &mut Document<'t>, field: &Field<'t>, count: usize, limits: &limits::Limits) {
    if limits.check(count as u64).is_err() {
        document.wrong(field, format!("the list has {count} elements"), format!("at most {} fit: remove some", limits.max));
    }
}

fn address<'t>(document: &mut Document<'t>, field: &Field<'t>) -> Option<SocketAddr> {
    let address = field.parsed(document, "an IP address and a port, such as \"203.0.113.7:9022\"")?;
    if let Err(error) = check_address(&address) {
        field.not(document, &error.allowed);
    }
    Some(address)
}

fn info<'t>(document: &mut Document<'t>, field: &Field<'t>) -> Option<String> {
    let text = field.text(document, "a text in quotes, such as \"https://example.org/t\"")?;
    if let Err(error) = check_info(text) {
        document.wrong(field, format!("the text is {}", error.found), format!("it must be {}", error.allowed));
    }
    Some(text.to_owned())
}

fn carrier<'t>(document: &mut Document<'t>, field: &Field<'t>) -> Option<Carrier> {
    let should_be = "\"chain\", \"chain_full\" or \"overlay\"";
    match field.text(document, should_be)? {
        "chain" => Some(Carrier::Chain),
        "chain_full" => Some(Carrier::ChainFull),
        "overlay" => Some(Carrier::Overlay),
        _ => {
            field.not(document, should_be);
            None
        }
    }
}
