//! A real guest, from image to stop. Emulated unless this machine's KVM works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use xennet_vm::{Accelerator, Image, ImageStore, PersistentDisk, Vm, VmError, VmSpec};

/// Survives from one run of the tests to the next, so the image is built once.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("images")
}

async fn image() -> Image {
    ImageStore::new(cache()).thin(|progress| println!("{}", progress.step)).await.expect("the thin image can be made")
}

/// A key pair and everything that the stock ssh needs to log in with it.
struct Login {
    key: PathBuf,
    public: String,
}

impl Login {
    fn new(dir: &Path) -> Login {
        let key = dir.join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&key).status();
        assert!(made.expect("ssh-keygen runs").success());
        let public = std::fs::read_to_string(dir.join("key.pub")).unwrap().trim().to_owned();
        Login { key, public: format!("{public} publisher") }
    }

    fn run(&self, program: &str, port_option: &str, vm: &Vm, arguments: &[&str]) -> Output {
        let output = Command::new(program)
            .arg("-i")
            .arg(&self.key)
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", port_option, &vm.guest_ssh().port().to_string()])
            .args(arguments)
            .output()
            .expect("the stock client is installed");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn ssh(&self, vm: &Vm, command: &str) -> String {
        let output = self.run("ssh", "-p", vm, &["root@127.0.0.1", command]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_is_started_used_adopted_by_a_second_daemon_and_stopped_without_a_trace() {
    let image = image().await;
    let accelerator = Accelerator::probe(&image, &cache()).await.unwrap().accelerator;
    let home = tempfile::tempdir().unwrap();
    let login = Login::new(home.path());
    // Deeper than a socket's path may be, and in a folder that QEMU's user may not enter.
    let dir = home.path().join("d".repeat(120)).join("vm");
    let persistent = PersistentDisk { path: home.path().join("kept.raw"), mib: 16 };
    let spec = VmSpec {
        dir: dir.clone(),
        hostname: "vm-test".into(),
        cores: 2,
        memory_mib: 192,
        disk_mib: 256,
        persistent: Some(persistent.clone()),
        authorized_key: login.public.clone(),
        accelerator,
    };

    let vm = Vm::start(spec.clone(), &image).await.unwrap();
    let greeting = vm.wait_ready(Duration::from_secs(120)).await.unwrap();
    assert!(greeting.starts_with("SSH-2.0-dropbear"), "{greeting}");
    assert!(matches!(Vm::start(spec.clone(), &image).await, Err(VmError::AlreadyRunning { .. })));

    assert_eq!(login.ssh(&vm, "hostname; nproc; cat /sys/class/block/vda/size"), "vm-test\n2\n524288");
    assert_eq!(login.ssh(&vm, "grep -c -e ' /data ext4' -e ' /persistent ext4' /proc/mounts"), "2");
    // 10.0.2.2 is QEMU's name for the node's own 127.0.0.1. Somebody listens there, and hears nothing from the guest.
    let node = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    node.set_nonblocking(true).unwrap();
    let knock = format!("nc -w 2 10.0.2.2 {} </dev/null >/dev/null 2>&1 && echo open || echo shut", node.local_addr().unwrap().port());
    assert_eq!(login.ssh(&vm, &knock), "shut");
    assert!(node.accept().is_err());

    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (out, back) = (home.path().join("out"), home.path().join("back"));
    std::fs::write(&out, &bytes).unwrap();
    let (out, back) = (out.to_str().unwrap(), back.to_str().unwrap());
    login.run("scp", "-P", &vm, &[out, "root@127.0.0.1:/data/file"]);
    login.run("scp", "-P", &vm, &["root@127.0.0.1:/data/file", back]);
    assert_eq!(std::fs::read(back).unwrap(), bytes);
    login.ssh(&vm, "echo kept > /persistent/word");

    let before = vm.cpu_time();
    assert!(before > Duration::from_millis(100), "{before:?}");
    let (pid, address) = (vm.pid(), vm.guest_ssh());
    if std::fs::metadata("/proc/self").unwrap().owner() == 0 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        assert!(status.contains("CapBnd:\t0000000000000000") && !status.contains("Uid:\t0"), "{status}");
    }

    // The first daemon is gone, so early that it had not yet written which process the guest is. The guest is not gone.
    drop(vm);
    let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let record = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    let mut written: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    written["pid"] = serde_json::Value::Null;
    written["start_time"] = serde_json::Value::Null;
    std::fs::write(&record, written.to_string()).unwrap();
    let vm = Vm::adopt(&dir).await.unwrap().expect("the guest lives");
    assert_eq!((vm.pid(), vm.guest_ssh()), (pid, address));
    vm.wait_ready(Duration::from_secs(60)).await.unwrap();
    assert!(vm.cpu_time() >= before);
    assert_eq!(login.ssh(&vm, "cmp /data/file /data/file && echo same"), "same");
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();

    vm.stop().await.unwrap();
    assert!(!vm.is_running() && !Path::new(&format!("/proc/{pid}/fd")).exists() || is_zombie(pid));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "something is left in the folder");
    assert!(std::net::TcpStream::connect(address).is_err(), "the port still listens");
    assert!(Vm::adopt(&dir).await.unwrap().is_none());

    // What was on the persistent disk is there in the next lease, and the guest's own power-off is noticed.
    let vm = Vm::start(VmSpec { disk_mib: 0, cores: 1, ..spec }, &image).await.unwrap();
    vm.wait_ready(Duration::from_secs(120)).await.unwrap();
    assert_eq!(login.ssh(&vm, "cat /persistent/word; poweroff"), "kept");
    let exit = tokio::time::timeout(Duration::from_secs(60), vm.exited()).await.expect("the guest powers off");
    assert_eq!(exit.code, Some(0), "{}", exit.said);
    vm.stop().await.unwrap();
}

trait Owner {
    fn owner(&self) -> u32;
}

impl Owner for std::fs::Metadata {
    fn owner(&self) -> u32 {
        std::os::unix::fs::MetadataExt::uid(self)
    }
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test]
async fn the_same_packages_give_the_same_image() {
    let first = image().await;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let other = ImageStore::new(folder.path());
    // The packages are the same files; everything made from them is made again.
    let (from, to) = (cache().join("packages"), folder.path().join("packages"));
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    let mut steps = 0;
    let second = other.thin(|_| steps += 1).await.unwrap();
    assert_eq!(steps, 5);
    if first.packages() == second.packages() {
        assert_eq!(first.hash(), second.hash());
    } else {
        // Debian has newer packages than the cached image: compare with one made from those.
        assert_eq!(ImageStore::new(cache()).refresh(|_| ()).await.unwrap().hash(), second.hash());
    }

    // A damaged file is noticed, and the image made again.
    std::fs::write(second.initrd(), b"damaged").unwrap();
    assert_eq!(other.thin(|_| ()).await.unwrap().hash(), second.hash());
}

#[tokio::test]
async fn a_guest_that_cannot_be_is_refused_before_anything_is_made() {
    let image = image().await;
    let home = tempfile::tempdir().unwrap();
    let spec = VmSpec {
        dir: home.path().join("vm"),
        hostname: "vm".into(),
        cores: 1,
        memory_mib: u32::MAX,
        disk_mib: 0,
        persistent: None,
        authorized_key: "ssh-ed25519 AAAA".into(),
        accelerator: Accelerator::Tcg,
    };
    let error = Vm::start(spec.clone(), &image).await.unwrap_err();
    assert!(matches!(error, VmError::NotEnoughMemory { .. }), "{error}");
    let error = Vm::start(VmSpec { memory_mib: 128, disk_mib: u32::MAX, ..spec }, &image).await.unwrap_err();
    assert!(matches!(error, VmError::DiskFull { .. }), "{error}");
    assert_eq!(std::fs::read_dir(home.path().join("vm")).unwrap().count(), 0);
}
