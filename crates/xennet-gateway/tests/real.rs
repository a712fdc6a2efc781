//! A real guest in QEMU whose only network is the gateway. Needs root for the host in its own network namespace.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use xennet_gateway::{Counts, Gateway, Policy, Profile, Settings};
use xennet_vm::ImageStore;

/// What the guest does instead of waiting for a publisher. It says all it finds out on its console.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do insmod "/lib/modules/$(uname -r)/kernel/$module"; done <"/lib/modules/$(uname -r)/boot"
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
knock() { timeout 5 nc -w 3 "$1" "$2" </dev/null >/dev/null 2>&1 && echo "open $1 $2"; }
ping -c 1 -w 5 10.0.2.2 >/dev/null && echo "gateway answers"
for port in 22 80 7777; do
    for address in 10.77.0.1 10.77.0.2 10.0.2.2 10.0.2.3 169.254.169.254 127.0.0.1 192.168.0.1; do knock $address $port; done
done
echo x | timeout 2 nc -u -w 1 10.77.0.2 7777
echo x | timeout 2 nc -u -w 1 169.254.169.254 53
ping -c 1 -w 1 10.77.0.2 >/dev/null && echo "open 10.77.0.2 ping"
ip addr add 10.0.2.99/24 dev eth0
ping -c 2 -w 2 -I 10.0.2.99 10.0.2.2 >/dev/null
ip addr del 10.0.2.99/24 dev eth0
timeout 60 nc 10.77.0.2 8888 </dev/null | wc -c | sed 's/^/fetched /'
echo "counted $(cat /sys/class/net/eth0/statistics/rx_bytes) $(cat /sys/class/net/eth0/statistics/tx_bytes)"
poweroff -f
"#;

fn run(words: &str) {
    let mut words = words.split(' ');
    let program = words.next().unwrap();
    assert!(Command::new(program).args(words).status().expect(program).success());
}

/// A host of its own at 10.77.0.2, next to ours at 10.77.0.1.
struct Neighbour(String);

impl Neighbour {
    fn new() -> Neighbour {
        let name = format!("xg{}", std::process::id());
        run(&format!("ip netns add {name}"));
        let neighbour = Neighbour(name.clone());
        run(&format!("ip link add {name}a type veth peer name {name}b netns {name}"));
        // Without IPv6 nothing but the guest could make a frame come over.
        neighbour.inside("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6");
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}a/disable_ipv6"), "1").unwrap();
        run(&format!("ip addr add 10.77.0.1/24 dev {name}a"));
        run(&format!("ip link set {name}a up"));
        neighbour.inside(&format!("ip addr add 10.77.0.2/24 dev {name}b && ip link set {name}b up && ip link set lo up"));
        neighbour
    }

    fn inside(&self, script: &str) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.0, "sh", "-c", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Frames that have reached it.
    fn heard(&self) -> u64 {
        self.inside(&format!("grep {}b /proc/net/dev | cut -d: -f2 | awk '{{print $2}}'", self.0)).parse().unwrap()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Boots a guest behind a gateway until it powers off: what it said, and what was counted.
async fn boot(dir: &Path, policy: Policy) -> (String, Counts) {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    let image = ImageStore::new(cache).thin(|_| ()).await.expect("the thin image can be made");
    let mut initrd = std::fs::read(image.initrd()).unwrap();
    initrd.extend(archive("scan", INIT.as_bytes()));
    let initrd_file = dir.join("initrd");
    std::fs::write(&initrd_file, initrd).unwrap();
    let socket = dir.join("net");
    let listener = UnixListener::bind(&socket).unwrap();
    let qemu = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-machine", "q35,usb=off,smbus=off,vmport=off,sata=off", "-accel", "tcg", "-cpu", "max", "-m", "192M"])
        .arg("-kernel")
        .arg(image.kernel())
        .arg("-initrd")
        .arg(&initrd_file)
        .args(["-append", "console=ttyS0 quiet cryptomgr.notests panic=5 rdinit=/scan"])
        .args(["-netdev", &format!("stream,id=net,server=off,addr.type=unix,addr.path={}", socket.display())])
        .args(["-device", "virtio-net-pci,netdev=net,romfile="])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (stream, _) = tokio::task::spawn_blocking(move || listener.accept()).await.unwrap().unwrap();
    let gateway = Gateway::start(stream, Settings { policy: Arc::new(policy), ..Settings::default() }).unwrap();
    let pid = qemu.id().to_string();
    let ended = tokio::task::spawn_blocking(move || qemu.wait_with_output());
    let Ok(output) = tokio::time::timeout(Duration::from_secs(240), ended).await else {
        let _ = Command::new("kill").args(["-9", &pid]).status();
        unreachable!("the guest did not power off within 240 s");
    };
    (String::from_utf8_lossy(&output.unwrap().unwrap().stdout).into_owned(), gateway.counts())
}

/// A cpio archive with one program in it.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, name, mode, content) in [(1, name, 0o100_755, content), (0, "TRAILER!!!", 0, &[][..])] {
        let numbers = [number, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend(b"070701");
        bytes.extend(numbers.map(|number| format!("{number:08X}")).concat().into_bytes());
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_hears_nothing_of_a_guest_that_scans_it_and_an_exception_opens_it_alone() {
    if !is_root() {
        println!("not run: only root can make the neighbour's network namespace");
        return;
    }
    let neighbour = Neighbour::new();
    let dir = tempfile::tempdir().unwrap();
    let (said, counts) = boot(dir.path(), Policy { profile: Profile::OpenInternet, allow: vec![] }).await;
    assert!(said.contains("gateway answers") && said.contains("counted "), "{said}");
    assert!(!said.contains("open ") && said.contains("fetched 0"), "{said}");
    assert_eq!((neighbour.heard(), counts.opened), (0, 0));
    assert!(counts.dropped_forbidden >= 21 && counts.dropped_spoofed >= 2, "{counts:?}");

    let served = format!("ip netns exec {} python3 -c", neighbour.0);
    let mut words = served.split(' ');
    let mut server = Command::new(words.next().unwrap())
        .args(words)
        .arg("import socket\ns = socket.create_server(('10.77.0.2', 8888))\nc, _ = s.accept()\nc.sendall(bytes(20_000_000))\nc.close()")
        .spawn()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let allow = vec!["10.77.0.2/32".parse().unwrap()];
    let (said, counts) = boot(dir.path(), Policy { profile: Profile::None, allow }).await;
    let _ = server.kill();
    let _ = server.wait();
    assert!(said.contains("fetched 20000000"), "{said} {counts:?}");
    let line = said.lines().find_map(|line| line.split_once("counted ")).expect("the guest counts").1;
    let own: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    println!("the guest counted {own:?} bytes into and out of it, the gateway {counts:?}");
    for (guest, gateway) in [(own[0], counts.down_frame_bytes), (own[1], counts.up_frame_bytes)] {
        assert!(guest.abs_diff(gateway) * 100 <= gateway, "the guest counted {guest} bytes, the gateway {gateway}");
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}
