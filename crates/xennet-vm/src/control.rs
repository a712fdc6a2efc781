//! The way to a QEMU that was started: its control socket, and the greeting of the guest's SSH server.

use std::fs::File;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{sleep, timeout};

use crate::error::VmError;
use crate::folder::SOCKET;
use crate::launch::printable;
use crate::qmp::Qmp;

/// How long one knock waits: a guest that still boots does not even refuse.
const ONE_KNOCK: Duration = Duration::from_secs(2);
const BETWEEN_KNOCKS: Duration = Duration::from_millis(25);

/// Connects to QEMU and asks which threads are the guest's processors.
pub(crate) async fn take_control(folder: &File) -> Result<(Qmp, Vec<u32>), VmError> {
    let qmp = Qmp::connect(folder, SOCKET).await?;
    let answer = qmp.execute("query-cpus-fast", json!({})).await?;
    let thread = |cpu: &Value| u32::try_from(cpu.get("thread-id")?.as_u64()?).ok();
    let processors = answer.as_array().map(|cpus| cpus.iter().filter_map(thread).collect()).unwrap_or_default();
    Ok((qmp, processors))
}

/// Asks the SSH server that `connect` leads to until it answers, for ever.
pub(crate) async fn knock<S: AsyncRead + Unpin, F: Future<Output = io::Result<S>>>(connect: impl Fn() -> F) -> String {
    loop {
        if let Ok(Some(greeting)) = timeout(ONE_KNOCK, greeting(&connect)).await {
            return greeting;
        }
        sleep(BETWEEN_KNOCKS).await;
    }
}

/// The first line of an SSH server, if there is one.
async fn greeting<S: AsyncRead + Unpin, F: Future<Output = io::Result<S>>>(connect: &impl Fn() -> F) -> Option<String> {
    let mut stream = connect().await.ok()?;
    let mut line = Vec::new();
    // RFC 4253: the line has 255 bytes at most.
    while line.len() < 255 {
        match stream.read_u8().await.ok()? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let line = printable(&String::from_utf8_lossy(&line));
    line.starts_with("SSH-2.0-").then_some(line)
}
