//! Starting QEMU: its arguments, the files it is handed, the user it becomes.
//!
//! QEMU gets every file as an open descriptor and opens `/proc/self/fd/N`. So its user needs no right to any folder
//! of the daemon, and can reach nothing but these files. Its standard input is the listening control socket, its
//! standard output the listening socket of its network, and its standard error a pipe that never blocks it and holds
//! 64 KiB at most.

use std::ffi::OsString;
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::OFlags;
use tokio::process::{Child, Command};

use crate::accelerator::Accelerator;
use crate::error::{Doing, VmError};
use crate::host;
use crate::record::Record;

/// QEMU's name for the buffer that keeps the end of the guest's console.
pub(crate) const CONSOLE: &str = "console";
/// Its size. QEMU wants a power of two.
pub(crate) const CONSOLE_BYTES: usize = 64 * 1024;

/// The code that emulation translates is kept in a cache of this size; QEMU's own choice grows to 1 GiB.
const TRANSLATION_MIB: u32 = 64;
/// What QEMU needs besides the guest's memory: the cache above and its own heap.
pub(crate) const OVERHEAD_MIB: u32 = 128;

/// The files that a guest is made of.
#[derive(Debug)]
pub(crate) struct Files {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub data: Option<PathBuf>,
    pub persistent: Option<PathBuf>,
}

/// A QEMU that was just started.
#[derive(Debug)]
pub(crate) struct Launched {
    pub child: Child,
    pub log: Log,
}

/// What QEMU writes to its standard error. Kept by the kernel, 64 KiB at most, until it is asked for.
#[derive(Debug)]
pub(crate) struct Log(PipeReader);

impl Log {
    /// Takes what was written since the last time, safe to print.
    pub(crate) fn take(&mut self) -> String {
        let mut bytes = Vec::new();
        // Ends with an error when the pipe is empty and QEMU still holds it; what was read until then counts.
        let _ = (&mut self.0).take(64 * 1024).read_to_end(&mut bytes);
        printable(&String::from_utf8_lossy(&bytes))
    }
}

/// The argument that tells this guest's process from all others.
pub(crate) fn name_argument(name: &str) -> String {
    format!("{name},debug-threads=on")
}

/// The sockets that QEMU listens on.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub qmp: UnixListener,
    pub network: UnixListener,
}

/// Starts QEMU. It answers on its control socket as soon as the machine is set up.
pub(crate) fn launch(record: &Record, files: &Files, sockets: Sockets) -> Result<Launched, VmError> {
    // The shell opens the files with the daemon's rights, then becomes setpriv, which becomes QEMU: one process.
    let mut opens = String::from("exec 3<\"$1\" 4<\"$2\"");
    let mut opened: Vec<&Path> = vec![&files.kernel, &files.initrd];
    let mut disks = Vec::new();
    for (disk, serial) in [(&files.data, "data"), (&files.persistent, "persistent")] {
        if let Some(path) = disk {
            opened.push(path);
            let fd = opened.len() + 2;
            opens.push_str(&format!(" {fd}<>\"${}\"", opened.len()));
            disks.push((serial, fd));
        }
    }
    let script = format!("{opens}; shift {}; exec \"$@\"", opened.len());

    let (log, stderr) = std::io::pipe().doing(|| "making a pipe for QEMU's messages".into())?;
    rustix::fs::fcntl_setfl(&stderr, OFlags::WRONLY | OFlags::NONBLOCK)
        .and_then(|()| rustix::fs::fcntl_setfl(&log, OFlags::RDONLY | OFlags::NONBLOCK))
        .doing(|| "setting up the pipe for QEMU's messages".into())?;
    let child = Command::new("/bin/sh")
        .args(["-c", &script, "sh"])
        .args(&opened)
        .args(record.user.wrapper()?)
        .arg(host::qemu()?)
        .args(arguments(record, &disks))
        .env_clear()
        .current_dir("/")
        // A group of its own, so that Ctrl-C at the daemon's terminal does not end the guests.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(sockets.qmp)))
        .stdout(Stdio::from(OwnedFd::from(sockets.network)))
        .stderr(Stdio::from(OwnedFd::from(stderr)))
        .spawn()
        .doing(|| "starting QEMU".into())?;
    Ok(Launched { child, log: Log(log) })
}

fn arguments(record: &Record, disks: &[(&str, usize)]) -> Vec<OsString> {
    let mut words: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    let memory = record.memory_mib;
    add("-name", name_argument(&record.name));
    add("-machine", "q35,usb=off,smbus=off,vmport=off,sata=off,memory-backend=ram".into());
    match record.accelerator {
        Accelerator::Kvm => {
            add("-accel", "kvm".into());
            add("-cpu", "host".into());
        }
        Accelerator::Tcg => {
            add("-accel", format!("tcg,thread=multi,tb-size={TRANSLATION_MIB}"));
            add("-cpu", "max".into());
        }
    }
    add("-smp", record.cores.to_string());
    add("-m", format!("{memory}M"));
    add("-object", format!("memory-backend-ram,id=ram,size={memory}M"));
    add("-kernel", "/proc/self/fd/3".into());
    add("-initrd", "/proc/self/fd/4".into());
    add("-append", "console=ttyS0 quiet cryptomgr.notests panic=5".into());
    // The console goes to a ring in memory: a file could be filled without limit by the guest.
    add("-chardev", format!("ringbuf,id={CONSOLE},size={CONSOLE_BYTES}"));
    add("-serial", format!("chardev:{CONSOLE}"));
    // QEMU has no network stack of its own at work: frames go to whoever connects to this socket, and nowhere else. When
    // that one is gone it listens again, so that a later daemon can take its place.
    add("-netdev", "stream,id=net,server=on,addr.type=fd,addr.str=1".into());
    add("-device", "virtio-net-pci,netdev=net,romfile=".into());
    for (serial, fd) in disks {
        // The format is named: QEMU must never guess it from bytes that a guest wrote.
        add("-blockdev", format!("driver=raw,node-name={serial},file.driver=file,file.filename=/proc/self/fd/{fd}"));
        add("-device", format!("virtio-blk-pci,drive={serial},serial={serial}"));
    }
    add("-object", "rng-random,id=random,filename=/dev/urandom".into());
    add("-device", "virtio-rng-pci,rng=random".into());
    add("-device", "virtio-balloon-pci,free-page-reporting=on".into());
    add("-chardev", "socket,id=qmp,fd=0,server=on,wait=off".into());
    add("-mon", "chardev=qmp,mode=control".into());
    add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
    words.extend(["-nodefaults", "-no-user-config"].map(String::from));
    words.extend(["-display", "none"].map(String::from));
    words.into_iter().map(OsString::from).collect()
}

/// Takes out what would move a terminal's cursor or recolour it: a guest wrote it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_a_guest_wrote_cannot_steer_a_terminal() {
        assert_eq!(printable("a\r\n\u{1b}[2Jb\u{9b}31mc\0"), "a\n[2Jb31mc");
    }
}
