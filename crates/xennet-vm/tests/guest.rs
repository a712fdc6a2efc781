//! A real guest, from image to stop. Emulated unless this machine's KVM works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use xennet_gateway::{Gateway, Rates, Settings};
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

    fn run(&self, program: &str, port_option: &str, door: &Door, arguments: &[&str]) -> Output {
        let output = Command::new(program)
            .arg("-i")
            .arg(&self.key)
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", port_option, &door.port.to_string()])
            .args(arguments)
            .output()
            .expect("the stock client is installed");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Has the guest send without end.
    fn flood(&self, door: &Door) -> Running {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(&self.key).args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p"]);
        ssh.args([&door.port.to_string(), "root@127.0.0.1", "cat /dev/zero"]).stdout(Stdio::null()).stderr(Stdio::null());
        Running(ssh.spawn().unwrap())
    }

    fn ssh(&self, door: &Door, command: &str) -> String {
        let output = self.run("ssh", "-p", door, &["root@127.0.0.1", command]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// TCP ports that a process listens on.
fn listening(pid: u32) -> Vec<String> {
    let output = Command::new("ss").args(["-lntupH"]).output().expect("ss is installed").stdout;
    let own = format!("pid={pid},");
    String::from_utf8_lossy(&output).lines().filter(|line| line.contains(&own)).map(str::to_owned).collect()
}

/// A gateway on a guest's network, and a port of this test that leads through it to the guest's SSH server.
struct Door {
    gateway: Arc<Gateway>,
    port: u16,
    serving: JoinHandle<()>,
}

impl Door {
    async fn open(vm: &Vm) -> Door {
        let gateway = Arc::new(Gateway::start(vm.network().await.unwrap(), Settings::default()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = Arc::clone(&gateway);
        let serving = tokio::spawn(async move {
            while let Ok((mut stock, _)) = listener.accept().await {
                let to = Arc::clone(&to);
                tokio::spawn(async move { copy_bidirectional(&mut stock, &mut to.connect(22).await.unwrap()).await });
            }
        });
        Door { gateway, port, serving }
    }

    async fn wait_ready(&self, vm: &Vm, seconds: u64) -> Result<String, VmError> {
        vm.wait_ready(Duration::from_secs(seconds), || self.gateway.connect(22)).await
    }

    /// As the death of the daemon that holds it would.
    async fn fall_shut(self) {
        self.serving.abort();
        let _ = self.serving.await;
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
    let door = Door::open(&vm).await;
    let greeting = door.wait_ready(&vm, 120).await.unwrap();
    assert!(greeting.starts_with("SSH-2.0-dropbear"), "{greeting}");
    assert!(matches!(Vm::start(spec.clone(), &image).await, Err(VmError::AlreadyRunning { .. })));

    assert_eq!(login.ssh(&door, "hostname; nproc; cat /sys/class/block/vda/size"), "vm-test\n2\n524288");
    assert_eq!(login.ssh(&door, "grep -c -e ' /data ext4' -e ' /persistent ext4' /proc/mounts"), "2");
    // 10.0.2.2 is the gateway, on the node. Somebody listens there, and hears nothing from the guest.
    let node = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    node.set_nonblocking(true).unwrap();
    let knock = format!("nc -w 2 10.0.2.2 {} </dev/null >/dev/null 2>&1 && echo open || echo shut", node.local_addr().unwrap().port());
    assert_eq!(login.ssh(&door, &knock), "shut");
    assert!(node.accept().is_err());

    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (out, back) = (home.path().join("out"), home.path().join("back"));
    std::fs::write(&out, &bytes).unwrap();
    let (out, back) = (out.to_str().unwrap(), back.to_str().unwrap());
    login.run("scp", "-P", &door, &[out, "root@127.0.0.1:/data/file"]);
    login.run("scp", "-P", &door, &["root@127.0.0.1:/data/file", back]);
    assert_eq!(std::fs::read(back).unwrap(), bytes);
    login.ssh(&door, "echo kept > /persistent/word");

    let before = vm.cpu_time();
    assert!(before > Duration::from_millis(100), "{before:?}");
    let pid = vm.pid();
    assert_eq!(listening(pid), Vec::<String>::new());
    if std::fs::metadata("/proc/self").unwrap().owner() == 0 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        assert!(status.contains("CapBnd:\t0000000000000000") && !status.contains("Uid:\t0"), "{status}");
    }

    // The first daemon is gone, so early that it had not yet written which process the guest is. The guest is not gone.
    // It dies in the middle of a flood that it holds back, so that a frame is left half sent.
    door.gateway.set_rates(Rates { up_bytes_per_s: Some(200_000), down_bytes_per_s: None });
    let flood = login.flood(&door);
    let counted = door.gateway.counts().up_frame_bytes;
    while door.gateway.counts().up_frame_bytes < counted + 600_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    door.fall_shut().await;
    drop((vm, flood));
    let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let record = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    let mut written: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    written["pid"] = serde_json::Value::Null;
    written["start_time"] = serde_json::Value::Null;
    std::fs::write(&record, written.to_string()).unwrap();
    let vm = Vm::adopt(&dir).await.unwrap().expect("the guest lives");
    assert_eq!(vm.pid(), pid);
    let door = Door::open(&vm).await;
    door.wait_ready(&vm, 60).await.unwrap();
    assert!(vm.cpu_time() >= before);
    assert_eq!(login.ssh(&door, "cmp /data/file /data/file && echo same"), "same");
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();

    vm.stop().await.unwrap();
    assert!(!vm.is_running() && !Path::new(&format!("/proc/{pid}/fd")).exists() || is_zombie(pid));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "something is left in the folder");
    assert!(door.gateway.connect(22).await.is_err(), "there is a network without a guest");
    assert!(Vm::adopt(&dir).await.unwrap().is_none());

    // What was on the persistent disk is there in the next lease, and the guest's own power-off is noticed.
    let vm = Vm::start(VmSpec { disk_mib: 0, cores: 1, ..spec }, &image).await.unwrap();
    let door = Door::open(&vm).await;
    door.wait_ready(&vm, 120).await.unwrap();
    assert_eq!(login.ssh(&door, "cat /persistent/word; poweroff"), "kept");
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
