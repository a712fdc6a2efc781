//! Where figures were measured; without it they say nothing.

use std::fmt;
use std::fs;
use std::num::NonZero;
use std::thread;

use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// The processor's own name.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: u32,
    /// Whether the processor has instructions for SHA-256, which both ours and what it is compared with use.
    pub sha_instructions: bool,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether guests run under KVM: `works`, `does not work: …`, `absent`, or `not tried`.
    pub kvm: String,
    /// Processes that wanted to run over the last minute, when the run began (`uptime`). Above the number of cores, others
    /// were at work too, and only ratios mean something.
    pub load_before: f64,
    /// The same when it ended; the benchmarks themselves are part of it.
    pub load_after: f64,
}

impl Hardware {
    /// Looks around. Whether KVM works is found out by whoever starts a guest.
    pub fn look() -> Hardware {
        let cpuinfo = read("/proc/cpuinfo");
        Hardware {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: u32::try_from(thread::available_parallelism().map_or(1, NonZero::get)).unwrap_or(u32::MAX),
            sha_instructions: field(&cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "sha_ni")),
            memory_mib: memory_mib(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            kvm: if fs::exists("/dev/kvm").unwrap_or(false) { "not tried" } else { "absent" }.to_owned(),
            load_before: load(),
            load_after: 0.0,
        }
    }

    /// Notes the load at the end.
    pub fn finish(&mut self) {
        self.load_after = load();
    }
}

/// Three lines, as they stand above the figures.
impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sha = if self.sha_instructions { "with SHA instructions" } else { "without SHA instructions" };
        writeln!(f, "{}, {} cores {sha}, {} MiB of memory, Linux {}", self.cpu, self.cores, self.memory_mib, self.kernel)?;
        writeln!(f, "KVM: {}", self.kvm)?;
        let shared = if self.load_before > f64::from(self.cores) { ": others were at work, so only ratios mean much" } else { "" };
        write!(f, "load {:.1} before, {:.1} after{shared}", self.load_before, self.load_after)
    }
}

/// A file of the kernel's; empty where there is none, as on another system.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn memory_mib(meminfo: &str) -> u64 {
    let kib = field(meminfo, "MemTotal").and_then(|value| value.strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn load() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_by_its_first_entry() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu sha_ni\n\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(field(cpuinfo, "model name"), Some("Some CPU @ 2.00GHz"));
        assert_eq!(field(cpuinfo, "flags"), Some("fpu sha_ni"));
        assert_eq!(field(cpuinfo, "missing"), None);
    }

    #[test]
    fn memory_is_read_in_mib_and_nonsense_is_none() {
        assert_eq!(memory_mib("MemTotal:       24618564 kB\nMemFree: 1 kB\n"), 24_041);
        assert_eq!(memory_mib("MemTotal: many\n"), 0);
    }

    #[test]
    fn a_busy_machine_is_called_one() {
        let quiet = Hardware { cpu: "CPU".into(), cores: 2, kvm: "works".into(), load_before: 0.5, ..Hardware::default() };
        assert!(quiet.to_string().contains("CPU, 2 cores without SHA instructions"));
        assert!(!quiet.to_string().contains("others"));
        assert!(Hardware { load_before: 7.0, ..quiet }.to_string().contains("others were at work"));
    }

    #[test]
    fn this_machine_has_at_least_a_core_and_a_kernel() {
        let hardware = Hardware::look();
        assert!(hardware.cores >= 1);
        assert!(!hardware.kernel.is_empty());
    }
}
