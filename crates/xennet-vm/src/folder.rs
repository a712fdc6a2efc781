//! A guest's folder: what lies in it, made and deleted.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::cpio::Archive;
use crate::disk::{self, Kind};
use crate::error::{Doing, VmError};
use crate::image::Image;
use crate::launch::Files;
use crate::privilege::Privilege;
use crate::record::Record;
use crate::spec::VmSpec;

/// QEMU's control socket.
pub(crate) const SOCKET: &str = "qmp.sock";
/// The socket that carries the guest's frames.
pub(crate) const NETWORK: &str = "net.sock";
const INITRD: &str = "initrd.cpio";
const DATA: &str = "data.raw";

/// Deletes what belongs to one run of a guest. The record goes last: while it is there, it is found again.
pub(crate) fn clean(dir: &Path) -> Result<(), VmError> {
    for name in [SOCKET, NETWORK, INITRD, DATA] {
        disk::remove(&dir.join(name))?;
    }
    Record::remove(dir)
}

pub(crate) fn make_folder(dir: &Path) -> Result<(), VmError> {
    let doing = || format!("making the guest's folder {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(doing)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).doing(doing)
}

pub(crate) fn open_folder(dir: &Path) -> Result<File, VmError> {
    File::open(dir).doing(|| format!("opening the guest's folder {}", dir.display()))
}

/// The guest's disks, and the image's file system with what is the guest's own behind it.
pub(crate) fn make_files(spec: &VmSpec, image: &Image, user: Privilege) -> Result<Files, VmError> {
    let initrd = spec.dir.join(INITRD);
    let doing = || format!("writing {}", initrd.display());
    let mut bytes = std::fs::read(image.initrd()).doing(|| format!("reading {}", image.initrd().display()))?;
    bytes.extend(
        Archive::new()
            .folder("root/.ssh", 0o700)
            .file("root/.ssh/authorized_keys", 0o600, format!("{}\n", spec.authorized_key).as_bytes())
            .file("etc/hostname", 0o644, format!("{}\n", spec.hostname).as_bytes())
            .file("etc/hosts", 0o644, format!("127.0.0.1 localhost\n10.0.2.15 {}\n", spec.hostname).as_bytes())
            .finish(),
    );
    std::fs::write(&initrd, bytes).doing(doing)?;

    let mut files = Files { kernel: image.kernel(), initrd, data: None, persistent: None };
    if spec.disk_mib > 0 {
        let path = spec.dir.join(DATA);
        disk::make(&path, spec.disk_mib, Kind::Temporary)?;
        files.data = Some(path);
    }
    if let Some(persistent) = &spec.persistent {
        disk::keep(&persistent.path, persistent.mib)?;
        files.persistent = Some(persistent.path.clone());
    }
    for path in [Some(&files.initrd), files.data.as_ref(), files.persistent.as_ref()].into_iter().flatten() {
        user.own(path).doing(|| format!("giving {} to QEMU's user", path.display()))?;
    }
    Ok(files)
}
