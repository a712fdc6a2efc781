//! A node and a publisher on one embedded chain, each a process with a data directory of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// One market at a time: emulated machines are slow enough alone.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct Market {
    pub dir: tempfile::TempDir,
    node: Child,
    overlay: String,
    tunnel: String,
    _turn: MutexGuard<'static, ()>,
}

impl Market {
    /// Starts a node; the publisher is started by `xennet` itself.
    pub fn open() -> Market {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        build_daemon();
        let dir = tempfile::tempdir().unwrap();
        let overlay = format!("/ip4/127.0.0.1/tcp/{}", free_port());
        std::fs::create_dir(dir.path().join("node")).unwrap();
        // Figures of an emulated guest vary with what else runs here; that they are compared is not what these tests are for.
        let policy = "[policy]\nfigures_tolerance_percent = 95\nleast_of_offer_percent = 5\n";
        std::fs::write(dir.path().join("node/xennet.toml"), policy).unwrap();
        let node = spawn_node(dir.path(), &overlay);
        Market { dir, node, overlay, tunnel: format!("127.0.0.1:{}", free_port()), _turn: turn }
    }

    /// `xennet` with these words, for the publisher.
    pub fn xennet(&self, words: &[&str]) -> Command {
        let mut command = xennet(&self.dir.path().join("publisher"), self.dir.path());
        command.args(["--overlay-listen", &self.overlay, "--tunnel-listen", &self.tunnel]).args(words);
        command
    }

    /// Runs `xennet` for the publisher and gives what it writes, errors too.
    pub fn ask(&self, words: &[&str]) -> String {
        said(self.xennet(words))
    }

    /// The same for the node.
    pub fn ask_node(&self, words: &[&str]) -> String {
        let mut command = xennet(&self.dir.path().join("node"), self.dir.path());
        command.args(words);
        said(command)
    }

    /// Without warning.
    pub fn kill_node(&mut self) {
        self.node.kill().unwrap();
        self.node.wait().unwrap();
    }

    pub fn start_node(&mut self) {
        self.node = spawn_node(self.dir.path(), &self.overlay);
    }
}

impl Drop for Market {
    fn drop(&mut self) {
        // However the test went, nothing is left running: daemons are asked, guests are ended by their node.
        self.ask(&["stop"]);
        self.ask_node(&["stop"]);
        let _ = self.node.wait();
        end_guests(self.dir.path());
    }
}

/// Sends SIGINT, as Ctrl-C does.
pub fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

fn xennet(data_dir: &Path, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xennet"));
    command.arg("--datadir").arg(data_dir).arg("--chain-dir").arg(dir.join("chain")).args(["--block-interval", "1"]);
    command.env_remove("XENNET_DATADIR");
    command
}

fn spawn_node(dir: &Path, overlay: &str) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("node.log")).unwrap();
    let mut command = xennet(&dir.join("node"), dir);
    command.args(["node", "run", "--bootstrap", overlay]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    // Words about a daemon that was started go to stderr; what was asked for is the rest.
    if output.status.success() {
        String::from_utf8(output.stdout).unwrap()
    } else {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

/// A guest outlives its daemon on purpose, so a test that fails in between can leave one.
fn end_guests(dir: &Path) {
    let pattern = format!("qemu.*{}", dir.display());
    let found = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
    for pid in String::from_utf8_lossy(&found.stdout).split_whitespace() {
        let _ = Command::new("kill").arg(pid).status();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `xennet` starts the `xennetd` beside it, which cargo does not build for this package's tests.
fn build_daemon() {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--release", "--workspace", "--bin", "xennetd"])
            .status()
            .unwrap();
        assert!(built.success());
        Path::new(env!("CARGO_BIN_EXE_xennet")).with_file_name("xennetd")
    });
}
