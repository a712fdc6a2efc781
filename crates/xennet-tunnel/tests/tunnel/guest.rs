//! SSH inside a pipe, against the stock `sshd`.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use xennet_tunnel::{ExecEvent, GuestSsh, PipeTarget, TunnelError, public_key};

use crate::world::*;

const USER_SEED: [u8; 32] = [5; 32];

async fn world_with_sshd() -> (World, Sshd) {
    let sshd = Sshd::start(&USER_SEED).await;
    (World::with(PipeTarget::Tcp(sshd.address)).await, sshd)
}

async fn log_in(world: &World, sshd: &Sshd) -> GuestSsh {
    let pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    let expected = Some(public_key(&sshd.host_seed));
    let (guest, key) = GuestSsh::connect(pipe, &sshd.user, USER_SEED, expected).await.unwrap();
    assert_eq!(Some(key), expected);
    guest
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_the_guest_with_input_output_and_status() {
    let (world, sshd) = world_with_sshd().await;
    let guest = log_in(&world, &sshd).await;
    let mut input = vec![0; 3_000_000];
    Pattern::new(4).fill(&mut input);
    let output = soon("cat", guest.run("cat; echo done >&2; exit 7", &input)).await.unwrap();
    assert!(output.stdout == input);
    assert_eq!(output.stderr, b"done\n");
    assert_eq!(output.status, Some(7));
    assert!(!output.success());

    let output = soon("kill", guest.run("kill -TERM $$", b"")).await.unwrap();
    assert_eq!((output.status, output.signal.as_deref()), (None, Some("TERM")));

    // Input that is not read is no error.
    let output = soon("true", guest.run("true", &input)).await.unwrap();
    assert!(output.success());

    let long = soon("seq", guest.run("head -c 5000000 /dev/zero", b"")).await;
    assert!(matches!(long, Err(TunnelError::OutputTooLong { .. })), "{long:?}");
    // The command that printed too much does not hold up the next.
    let output = soon("echo", guest.run("echo still here", b"")).await.unwrap();
    assert_eq!(output.stdout, b"still here\n");
}

#[tokio::test]
async fn a_running_command_streams() {
    let (world, sshd) = world_with_sshd().await;
    let guest = log_in(&world, &sshd).await;
    let mut running = guest.exec("while read line; do echo got $line; done").await.unwrap();
    for word in ["one", "two"] {
        running.input.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let said = soon("a line", running.output.next()).await;
        assert_eq!(said, Some(ExecEvent::Stdout(format!("got {word}\n").into_bytes())));
    }
    running.input.shutdown().await.unwrap();
    assert_eq!(soon("the status", running.output.next()).await, Some(ExecEvent::Exit(0)));
    assert_eq!(soon("the end", running.output.next()).await, None);
}

#[tokio::test]
async fn a_wrong_key_on_either_side_is_named() {
    let (world, sshd) = world_with_sshd().await;
    let pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    let other = Some(public_key(&[6; 32]));
    let error = GuestSsh::connect(pipe, &sshd.user, USER_SEED, other).await.unwrap_err();
    assert!(matches!(error, TunnelError::GuestHostKey { .. }), "{error}");

    let pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    let error = GuestSsh::connect(pipe, &sshd.user, [6; 32], None).await.unwrap_err();
    assert!(matches!(error, TunnelError::GuestLogin { .. }), "{error}");
}

#[tokio::test]
async fn a_command_notices_that_the_tunnel_broke() {
    let (world, sshd) = world_with_sshd().await;
    let guest = log_in(&world, &sshd).await;
    let running = guest.run("sleep 50", b"");
    let cutting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.publisher.close("test");
    };
    let (ended, ()) = soon("the command to fail", futures::future::join(running, cutting)).await;
    assert!(ended.is_err());
    soon("the login to be gone", async {
        while !guest.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
