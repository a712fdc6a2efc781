//! A process that may or may not be our child: told apart by its start time, waited for by descriptor.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Doing, VmError};

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    start_time: u64,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes hold of a process that was just started.
    pub(crate) fn hold(pid: u32) -> Result<Process, VmError> {
        let doing = || format!("taking hold of process {pid}");
        let fd = pid_fd(pid).doing(doing)?;
        let start_time = start_time(pid).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound)).doing(doing)?;
        // Its successor is an unsafe function, because a type other than this one might close the descriptor early.
        #[allow(deprecated)]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE).doing(doing)?;
        Ok(Process { pid, start_time, fd })
    }

    /// Finds a process again. `None` if it has ended.
    pub(crate) fn find(pid: u32, start_time: u64) -> Option<Process> {
        let process = Process::hold(pid).ok()?;
        // Checked after the descriptor was opened: from then on the number cannot pass to another.
        (process.start_time == start_time && process.is_running()).then_some(process)
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in clock ticks since the host booted.
    pub(crate) fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Whether it runs. One that ended and was not collected yet does not.
    pub(crate) fn is_running(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.get_ref(), PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        // The only error is that it has ended already.
        let _ = rustix::process::pidfd_send_signal(self.fd.get_ref(), Signal::KILL);
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        let _ = self.fd.readable().await;
    }

    /// Time that one of its threads has spent on a processor.
    pub(crate) fn thread_time(&self, thread: u32) -> Option<Duration> {
        let folder = format!("/proc/{}/task/{thread}", self.pid);
        if let Ok(text) = std::fs::read_to_string(format!("{folder}/schedstat")) {
            return on_processor(&text);
        }
        // A kernel without schedstat counts in ticks of 10 ms (proc(5), always 100 a second for user space).
        let ticks = ticks(&std::fs::read_to_string(format!("{folder}/stat")).ok()?)?;
        Some(Duration::from_millis(ticks.checked_mul(10)?))
    }
}

/// The process whose arguments hold this word. For a guest that was started by a daemon that died before it
/// could write the number down.
pub(crate) fn with_argument(word: &str) -> Option<Process> {
    let entries = std::fs::read_dir("/proc").ok()?;
    entries.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let found = arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes());
        if found { Process::hold(pid).ok() } else { None }
    })
}

/// Time that a process has spent on processors, all threads together, in steps of 10 ms.
pub(crate) fn whole_time(pid: u32) -> Option<Duration> {
    let ticks = ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(Duration::from_millis(ticks.checked_mul(10)?))
}

fn pid_fd(pid: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

fn start_time(pid: u32) -> Option<u64> {
    fields(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.nth(19)?.parse().ok()
}

/// The fields behind the name, which may itself hold spaces and brackets. The first is the state, field 3.
fn fields(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

fn ticks(stat: &str) -> Option<u64> {
    let mut fields = fields(stat)?.skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

fn on_processor(schedstat: &str) -> Option<Duration> {
    Some(Duration::from_nanos(schedstat.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn counters_are_read_behind_a_name_with_brackets() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 5 0 0 0 12 34 0 0 20 0 1 0 4242 9";
        assert_eq!(ticks(stat), Some(46));
        assert_eq!(fields(stat).unwrap().nth(19), Some("4242"));
        assert_eq!(on_processor("1500000000 2 3\n"), Some(Duration::from_millis(1500)));
    }

    #[tokio::test]
    async fn a_process_is_found_by_number_and_start_time_until_it_ends() {
        let mut child = tokio::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::hold(child.id().unwrap()).unwrap();
        assert!(Process::find(process.pid(), process.start_time()).is_some());
        assert!(Process::find(process.pid(), process.start_time() + 1).is_none());
        assert!(process.thread_time(process.pid()).is_some());
        process.kill();
        process.ended().await;
        child.wait().await.unwrap();
        assert!(!process.is_running());
        assert!(Process::find(process.pid(), process.start_time()).is_none());
    }
}
