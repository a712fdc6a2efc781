//! Hardware virtualization or emulation: found out by running a guest, since `/dev/kvm` alone proves nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, VmError};
use crate::host;
use crate::image::Image;
use crate::spec::VmSpec;
use crate::vm::Vm;

/// How the guest's instructions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// By the host's processor, through the kernel's KVM.
    Kvm,
    /// By QEMU's translator: anywhere, some ten times slower.
    Tcg,
}

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The accelerator to use.
    pub accelerator: Accelerator,
    /// Why this one, for the node's owner.
    pub why: String,
}

/// A verdict holds as long as this does not change.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Circumstances {
    kernel: String,
    qemu: String,
    user: u32,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    circumstances: Circumstances,
    verdict: Verdict,
}

const DEVICE: &str = "/dev/kvm";

/// A guest under a working KVM answers within a second or two.
const DEADLINE: Duration = Duration::from_secs(10);

impl Accelerator {
    /// Boots the thin image under KVM; if its SSH server does not start within 10 s, emulation it is. The verdict
    /// is kept in `cache` for this kernel and QEMU.
    ///
    /// # Errors
    /// When QEMU is not installed, or no guest could be run at all, whatever the accelerator.
    pub async fn probe(image: &Image, cache: &Path) -> Result<Verdict, VmError> {
        let circumstances = Circumstances {
            kernel: std::fs::read_to_string("/proc/version").unwrap_or_default().trim().to_owned(),
            qemu: qemu_version().await?,
            user: rustix::process::geteuid().as_raw(),
        };
        if !Path::new(DEVICE).exists() {
            return Ok(Verdict { accelerator: Accelerator::Tcg, why: format!("{DEVICE} does not exist") });
        }
        let file = cache.join("accelerator.json");
        if let Some(cached) = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok())
            && cached.circumstances == circumstances
        {
            return Ok(cached.verdict);
        }
        let verdict = try_kvm(image, cache).await?;
        let cached = Cached { circumstances, verdict };
        let bytes = serde_json::to_vec_pretty(&cached).map_err(std::io::Error::from);
        bytes.and_then(|bytes| std::fs::write(&file, bytes)).doing(|| format!("writing {}", file.display()))?;
        Ok(cached.verdict)
    }
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "emulation",
        })
    }
}

async fn try_kvm(image: &Image, cache: &Path) -> Result<Verdict, VmError> {
    let doing = || format!("making a folder in {}", cache.display());
    std::fs::create_dir_all(cache).doing(doing)?;
    let folder = tempfile::Builder::new().prefix(".probe-").tempdir_in(cache).doing(doing)?;
    let spec = VmSpec {
        dir: folder.path().to_owned(),
        hostname: "probe".into(),
        cores: 1,
        memory_mib: 128,
        disk_mib: 0,
        persistent: None,
        // Nobody has the key to this, and nobody needs it: the console's word is enough.
        authorized_key: "ssh-ed25519 AAAA".into(),
        accelerator: Accelerator::Kvm,
    };
    let attempt = tokio::time::timeout(DEADLINE, async {
        let vm = Vm::start(spec, image).await?;
        let ready = vm.wait_booted(DEADLINE).await;
        vm.stop().await?;
        ready
    });
    let failed = |why: String| Ok(Verdict { accelerator: Accelerator::Tcg, why });
    let verdict = match attempt.await {
        Ok(Ok(_)) => Ok(Verdict { accelerator: Accelerator::Kvm, why: "a guest booted under KVM".into() }),
        Ok(Err(VmError::QemuFailed { said })) => failed(format!("QEMU cannot use KVM: {}", said.lines().next().unwrap_or_default())),
        Ok(Err(VmError::GuestEnded { .. })) => failed("a guest under KVM ended while it booted".into()),
        Ok(Err(VmError::NotReady { .. })) | Err(_) => failed(format!("a guest under KVM did not boot within {} s", DEADLINE.as_secs())),
        Ok(Err(error)) => Err(error),
    };
    // A try that ran out of time may have left a guest that takes no notice of anything but this.
    Vm::discard(folder.path()).await?;
    verdict
}

/// The first line of `qemu --version`.
async fn qemu_version() -> Result<String, VmError> {
    let run = tokio::process::Command::new(host::qemu()?).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let doing = || "asking QEMU for its version".to_owned();
    let output = tokio::time::timeout(DEADLINE, run).await.map_err(std::io::Error::from).doing(doing)?.doing(doing)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
