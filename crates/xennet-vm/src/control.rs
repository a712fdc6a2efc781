//! The way to a QEMU that was started: its control socket, and the port that leads to the guest.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use crate::error::{Doing, VmError};
use crate::folder::SOCKET;
use crate::launch::{NETWORK, printable};
use crate::qmp::Qmp;
use crate::record::Record;

/// How many ports are tried. Each may be taken by another program between our look and QEMU's.
const PORT_TRIES: u32 = 32;
/// How long one knock waits: QEMU takes the connection whether or not the guest listens yet.
const ONE_KNOCK: Duration = Duration::from_secs(2);
const BETWEEN_KNOCKS: Duration = Duration::from_millis(25);

/// Connects to QEMU, opens the port to the guest's SSH server if there is none yet, asks which threads are the
/// guest's processors.
pub(crate) async fn take_control(folder: &File, record: &mut Record) -> Result<(Qmp, Vec<u32>), VmError> {
    let qmp = Qmp::connect(folder, SOCKET).await?;
    if record.port.is_none() {
        record.port = Some(open_port(&qmp).await?);
    }
    let answer = qmp.execute("query-cpus-fast", json!({})).await?;
    let thread = |cpu: &Value| u32::try_from(cpu.get("thread-id")?.as_u64()?).ok();
    let processors = answer.as_array().map(|cpus| cpus.iter().filter_map(thread).collect()).unwrap_or_default();
    Ok((qmp, processors))
}

/// Has QEMU listen on a free port. The kernel names one that is free now; whether it still is when QEMU asks is
/// known by QEMU's answer alone.
async fn open_port(qmp: &Qmp) -> Result<u16, VmError> {
    let mut said = String::new();
    for _ in 0..PORT_TRIES {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let port = free.doing(|| "looking for a free port on 127.0.0.1".into())?.port();
        said = qmp.human(&format!("hostfwd_add {} tcp:127.0.0.1:{port}-:22", NETWORK)).await?;
        if said.is_empty() {
            return Ok(port);
        }
    }
    Err(VmError::NoPort { tries: PORT_TRIES, said })
}

/// Asks the SSH server at this address until it answers, for ever.
pub(crate) async fn knock(address: SocketAddr) -> String {
    loop {
        if let Ok(Some(greeting)) = timeout(ONE_KNOCK, greeting(address)).await {
            return greeting;
        }
        sleep(BETWEEN_KNOCKS).await;
    }
}

/// The first line of an SSH server, if there is one at this address.
async fn greeting(address: SocketAddr) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
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
