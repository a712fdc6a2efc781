//! Starts the confined process and hears its verdict.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::confined::{Answer, CONFINED};
use super::error::LibraryError;
use super::kind::ImageKind;
use super::refusal::Refusal;
use crate::host;
use crate::privilege::Privilege;

/// Has a file read. What is made of it, if anything, is written to `output`.
pub(crate) fn read(program: &Path, input: File, output: File, most: u64, said: Option<ImageKind>) -> Result<Answer, LibraryError> {
    let io = |source| LibraryError::Io { doing: "starting the confined process that reads images".into(), source };
    let hint = u64::from(std::process::id());
    let user = Privilege::choose(hint.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut words: Vec<OsString> = no_network();
    words.extend(user.wrapper().map_err(LibraryError::Host)?);
    // The program is opened with our rights: its user may not enter the folder that it lies in.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "exec 3<\"$1\"; shift; exec \"$@\"", "sh"])
        .arg(program)
        .args(words)
        .args(["/proc/self/fd/3", CONFINED, &most.to_string(), said.map_or("any", ImageKind::name)])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    let mut told = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(64 * 1024).read_to_end(&mut told).map_err(io)?;
    }
    let status = child.wait().map_err(io)?;
    let told = String::from_utf8_lossy(&told);
    if let Some(answer) = told.lines().rev().find_map(|line| serde_json::from_str(line).ok()) {
        return Ok(answer);
    }
    if status.code().is_some() {
        // Not the file's fault: a program on the way did not start.
        let said = told.lines().last().unwrap_or("it said nothing").to_owned();
        return Err(LibraryError::Reader { said });
    }
    let how = status.signal().map_or_else(|| "no signal".to_owned(), |signal| format!("signal {signal}"));
    Ok(Answer::Refused { why: Refusal::Outgrown { how }.to_string() })
}

/// A network of its own, which is none, where the host lets us make one. The filter forbids sockets either way.
fn no_network() -> Vec<OsString> {
    let Ok(unshare) = host::program("unshare", "util-linux") else { return Vec::new() };
    let root = rustix::process::geteuid().is_root();
    let flags: &[&str] = if root { &["--net"] } else { &["--user", "--map-current-user", "--net"] };
    let tried = Command::new(&unshare).args(flags).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        return Vec::new();
    }
    let mut words = vec![unshare.into_os_string()];
    words.extend(flags.iter().map(OsString::from));
    words
}
