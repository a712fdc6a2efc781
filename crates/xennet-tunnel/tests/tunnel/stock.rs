//! The stock `ssh`, `scp` and `sshd` at either end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use xennet_tunnel::{Link, ListenLimits, PIPE_VERSION, PipeTarget, openssh_private_key, openssh_public_key, public_key};

use crate::world::*;

const USER_SEED: [u8; 32] = [5; 32];

/// Joins each connection to a loopback port to a pipe of its own, as the daemon does for the stock `ssh`.
async fn door_into(link: Link) -> SocketAddr {
    let socket = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let link = link.clone();
            tokio::spawn(async move {
                let _ = link.open_pipe(PIPE).await.unwrap().join(stream).await;
            });
        }
    });
    address
}

/// A key file and a known host for the stock programs.
struct Files {
    folder: tempfile::TempDir,
    options: Vec<String>,
}

impl Files {
    fn new(seed: &[u8; 32], host: SocketAddr, host_seed: &[u8; 32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, openssh_private_key(seed).unwrap()).unwrap();
        private(&key);
        let known = folder.path().join("known");
        let host_key = openssh_public_key(&public_key(host_seed));
        let line = format!("[{}]:{} {host_key}\n", host.ip(), host.port());
        std::fs::write(&known, line).unwrap();
        let options = [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={}", known.display()),
            format!("IdentityFile={}", key.display()),
        ];
        let options = options.into_iter().flat_map(|o| ["-o".to_owned(), o]).collect();
        Self { folder, options }
    }

    fn command(&self, program: &str, port_flag: &str, host: SocketAddr) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", port_flag, &host.port().to_string()]);
        command.args(&self.options);
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }
}

async fn sha256(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().await.unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_ssh_and_scp_reach_the_guest_and_100_mb_go_both_ways_unchanged() {
    let sshd = Sshd::start(&USER_SEED).await;
    let world = World::with(PipeTarget::Tcp(sshd.address)).await;
    let door = door_into(world.publisher.clone()).await;
    let files = Files::new(&USER_SEED, door, &sshd.host_seed);
    let user_at = format!("{}@{}", sshd.user, door.ip());

    let mut ssh = files.command("ssh", "-p", door);
    ssh.args([&user_at, "echo $((6 * 7)); exit 3"]);
    let out = soon("ssh", ssh.output()).await.unwrap();
    assert_eq!(out.stdout, b"42\n", "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(3));

    let at = |name: &str| -> PathBuf { files.folder.path().join(name) };
    let mut bytes = vec![0; 100_000_000];
    Pattern::new(3).fill(&mut bytes);
    std::fs::write(at("here"), &bytes).unwrap();
    drop(bytes);
    let there = format!("{user_at}:{}", at("there").display());
    for (from, to) in [(at("here").display().to_string(), there.clone()), (there, at("back").display().to_string())] {
        let mut scp = files.command("scp", "-P", door);
        scp.args([&from, &to]);
        let out = soon("scp", scp.output()).await.unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(sha256(&at("here")).await, sha256(&at("back")).await);
    assert!(world.publisher.traffic() > 200_000_000);
}

#[tokio::test]
async fn a_stock_client_gets_no_shell_no_command_no_file_and_no_other_forward() {
    let guests = Guests::of(&[NODE_SEED]);
    let (listener, _events) = listen(ListenLimits::default(), guests.authorize()).await;
    let address = listener.local_addr();
    let files = Files::new(&NODE_SEED, address, &HOST_SEED);
    let user_at = format!("{LEASE}@{}", address.ip());
    let tries: &[&[&str]] = &[
        &[&user_at, "true"],
        &["-tt", &user_at],
        &["-s", &user_at, "sftp"],
        &["-o", "ExitOnForwardFailure=yes", "-R", "2222:127.0.0.1:22", "-N", &user_at],
        &["-o", "ExitOnForwardFailure=yes", "-R", "vm-0000:1:127.0.0.1:22", "-N", &user_at],
        &["-o", "ExitOnForwardFailure=yes", "-R", "/tmp/x.sock:127.0.0.1:22", "-N", &user_at],
        &["-W", "127.0.0.1:22", &user_at],
    ];
    for args in tries {
        let mut ssh = files.command("ssh", "-p", address);
        ssh.args(*args);
        let out = soon("ssh to be refused", ssh.output()).await.unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{args:?}");
        assert!(!said.contains("Permission denied"), "{args:?} did not log in: {said}");
    }
    assert_eq!(listener.counters().sessions, 0);

    // And without the key not even that.
    let files = Files::new(&[44; 32], address, &HOST_SEED);
    let mut ssh = files.command("ssh", "-p", address);
    ssh.args([&user_at, "true"]);
    let out = soon("ssh to be refused", ssh.output()).await.unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("Permission denied (publickey)"), "{said}");
}

#[tokio::test]
async fn a_stock_client_can_play_the_node() {
    let guests = Guests::of(&[NODE_SEED]);
    let (listener, mut events) = listen(ListenLimits::default(), guests.authorize()).await;
    let address = listener.local_addr();
    let files = Files::new(&NODE_SEED, address, &HOST_SEED);
    let PipeTarget::Tcp(guest) = echo().await else { panic!() };
    let mut ssh = files.command("ssh", "-p", address);
    ssh.args(["-R", &format!("{PIPE}:{PIPE_VERSION}:{guest}"), "-s"]);
    ssh.args([&format!("{LEASE}@{}", address.ip()), "xennet-lease"]);
    let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let link = up(&mut events).await;

    let mut said = ssh.stdin.take().unwrap();
    said.write_all(b"\0\0\0\x05hello").await.unwrap();
    assert_eq!(frame(&mut events).await, b"hello");
    link.send(b"hi".to_vec()).await.unwrap();
    let mut heard = [0; 6];
    soon("hi", ssh.stdout.take().unwrap().read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"\0\0\0\x02hi");

    let mut pipe = link.open_pipe(PIPE).await.unwrap();
    pipe.write_all(b"through OpenSSH").await.unwrap();
    let mut back = [0; 15];
    soon("the echo", pipe.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"through OpenSSH");
    ssh.kill().await.unwrap();
    down(&mut events).await;
}
