//! Under whom QEMU runs: a user of its own for each guest when the daemon is root, else the daemon's user.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::VmError;
use crate::host;

/// The user identifiers that systemd sets aside for services that get one at start (systemd.exec, `DynamicUser=`).
/// No account has one, so a QEMU that was broken out of owns nothing and can signal nobody.
const IDS: std::ops::RangeInclusive<u32> = 61_184..=65_519;

/// The user that a QEMU is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Privilege {
    /// A user and group of this number, with no capability.
    Own(u32),
    /// The daemon's own user, because only root can take another.
    Daemons,
}

impl Privilege {
    /// Chooses for one guest; `hint` spreads the choice so that two daemons that choose at once differ.
    pub(crate) fn choose(hint: u64) -> Privilege {
        if !rustix::process::geteuid().is_root() {
            return Privilege::Daemons;
        }
        let count = u64::from(IDS.end() - IDS.start()) + 1;
        let used: Vec<u32> = owners_of_processes();
        (0..count)
            .map(|step| IDS.start() + (hint.wrapping_add(step) % count) as u32)
            .find(|id| !used.contains(id))
            .map_or(Privilege::Own(*IDS.start()), Privilege::Own)
    }

    /// The program that gives up everything before it becomes QEMU, with its arguments.
    pub(crate) fn wrapper(self) -> Result<Vec<OsString>, VmError> {
        let mut words = vec![host::program("setpriv", "util-linux")?.into_os_string(), "--no-new-privs".into()];
        if let Privilege::Own(id) = self {
            words.push(format!("--reuid={id}").into());
            words.push(format!("--regid={id}").into());
            words.push(match kvm_group() {
                Some(group) => format!("--groups={group}").into(),
                None => "--clear-groups".into(),
            });
            words.extend(["--inh-caps=-all".into(), "--bounding-set=-all".into()]);
        }
        Ok(words)
    }

    /// Gives a file to the user, since it is opened through `/proc/self/fd` and so with the user's rights.
    pub(crate) fn own(self, path: &Path) -> std::io::Result<()> {
        match self {
            Privilege::Own(id) => std::os::unix::fs::chown(path, Some(id), Some(id)),
            Privilege::Daemons => Ok(()),
        }
    }
}

/// The group that may open `/dev/kvm`, if it is a group of its own.
fn kvm_group() -> Option<u32> {
    let metadata = std::fs::metadata("/dev/kvm").ok()?;
    (metadata.gid() != 0 && metadata.mode() & 0o060 == 0o060).then(|| metadata.gid())
}

fn owners_of_processes() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.uid()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn root_gives_each_guest_an_unused_user_and_others_keep_their_own() {
        let chosen = Privilege::choose(u64::MAX);
        if rustix::process::geteuid().is_root() {
            assert!(matches!(chosen, Privilege::Own(id) if IDS.contains(&id)), "{chosen:?}");
        } else {
            assert_eq!(chosen, Privilege::Daemons);
        }
        assert!(chosen.wrapper().unwrap().iter().any(|word| word == "--no-new-privs"));
    }
}
