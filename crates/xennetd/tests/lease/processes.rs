//! What the kernel says about processes: which guests run, and who listens where.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// In the kernel's tables: a TCP socket that listens.
const LISTENS: &str = "0A";

/// The QEMU processes of the daemon on this data directory: those that hold a file in it.
pub fn guests_of(data_dir: &Path) -> Vec<u32> {
    let dir = data_dir.canonicalize().unwrap();
    let mut guests: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system")))
        .filter(|pid| descriptors(*pid).iter().any(|file| file.starts_with(&dir)))
        .collect();
    guests.sort_unstable();
    guests
}

/// Ends a process at once. Only for processes that a test's own daemon started.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

pub fn is_alive(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Local addresses, as the kernel writes them (hexadecimal), at which a process takes TCP connections or UDP packets. What
/// `ss -lntup` shows.
pub fn listening(pid: u32) -> Vec<String> {
    let sockets: HashSet<String> =
        descriptors(pid).iter().filter_map(|file| file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)).collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (fields[1], fields[3], fields[9]);
            if sockets.contains(inode) && (state == LISTENS || table.starts_with("udp")) {
                found.push(format!("{table} {address}"));
            }
        }
    }
    found
}

fn descriptors(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
}
