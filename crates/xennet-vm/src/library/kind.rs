//! What a file is, told by its first bytes alone and never by a program that guesses.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// How many of the first bytes are looked at. The ext4 superblock ends within them.
pub(crate) const HEAD: usize = 4096;

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKind {
    /// A disk, byte for byte.
    Raw,
    /// A disk in QEMU's format; a raw one is made of it.
    Qcow2,
    /// A root file system as a tar archive, compressed or not.
    RootTar,
    /// A container image: an OCI layout or what `docker save` writes, as a tar archive.
    Container,
    /// A kernel and its initramfs.
    Kernel,
}

impl ImageKind {
    /// How a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ImageKind::Raw => "raw",
            ImageKind::Qcow2 => "qcow2",
            ImageKind::RootTar => "root-tar",
            ImageKind::Container => "container",
            ImageKind::Kernel => "kernel",
        }
    }
}

impl std::str::FromStr for ImageKind {
    type Err = String;

    fn from_str(text: &str) -> Result<ImageKind, String> {
        let all = [ImageKind::Raw, ImageKind::Qcow2, ImageKind::RootTar, ImageKind::Container];
        all.into_iter().find(|kind| kind.name() == text).ok_or_else(|| "raw, qcow2, root-tar or container".to_owned())
    }
}

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Magic {
    Disk,
    Qcow2,
    Tar,
    Gzip,
    Xz,
    Zstd,
}

impl Magic {
    fn name(self) -> &'static str {
        match self {
            Magic::Disk => "a raw disk",
            Magic::Qcow2 => "qcow2",
            Magic::Tar => "tar",
            Magic::Gzip => "gzip",
            Magic::Xz => "xz",
            Magic::Zstd => "zstd",
        }
    }
}

/// Formats that QEMU would guess and that are not taken.
const OTHERS: [(usize, &[u8], &str); 12] = [
    (0, b"QED\0", "a QED disk"),
    (0, b"KDMV", "a VMDK disk"),
    (0, b"COWD", "a VMDK disk"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], "a VDI disk"),
    (0, b"conectix", "a VHD disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"Bochs Virtual HD Image", "a Bochs disk"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "a cloop disk"),
    (0, b"OOOM", "a User Mode Linux disk"),
];

/// Tells what begins like this.
pub(crate) fn magic(head: &[u8]) -> Result<Magic, Refusal> {
    let at = |offset: usize, bytes: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(bytes));
    if at(0, b"QFI\xfb") {
        return Ok(Magic::Qcow2);
    }
    if at(0, b"LUKS\xba\xbe") || at(0, b"SKUL\xba\xbe") {
        return Err(Refusal::Encrypted { how: "LUKS" });
    }
    if let Some((_, _, what)) = OTHERS.iter().find(|(offset, bytes, _)| at(*offset, bytes)) {
        return Err(Refusal::Format { what });
    }
    if at(0, b"json:") {
        return Err(Refusal::Format { what: "a description of a disk elsewhere (json:)" });
    }
    if at(0, &[0x1f, 0x8b]) {
        return Ok(Magic::Gzip);
    }
    if at(0, b"\xfd7zXZ\0") {
        return Ok(Magic::Xz);
    }
    if at(0, &[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Magic::Zstd);
    }
    if at(257, b"ustar") {
        return Ok(Magic::Tar);
    }
    // A boot sector (MBR, or the protective one of GPT), or an ext4 superblock.
    if at(510, &[0x55, 0xaa]) || at(1080, &[0x53, 0xef]) {
        return Ok(Magic::Disk);
    }
    Err(Refusal::Unknown)
}

/// Fails if the first bytes contradict what was said.
pub(crate) fn agree(said: Option<ImageKind>, found: Magic) -> Result<(), Refusal> {
    let archive = matches!(found, Magic::Tar | Magic::Gzip | Magic::Xz | Magic::Zstd);
    match said {
        Some(ImageKind::Raw) if found != Magic::Disk => Err(Refusal::Disguised { said: "raw", found: found.name() }),
        Some(ImageKind::Qcow2) if found != Magic::Qcow2 => Err(Refusal::Disguised { said: "qcow2", found: found.name() }),
        Some(kind @ (ImageKind::RootTar | ImageKind::Container)) if !archive => {
            Err(Refusal::Disguised { said: kind.name(), found: found.name() })
        }
        _ => Ok(()),
    }
}

/// The first bytes of a disk that was inside something: only a disk may be there.
pub(crate) fn disk_inside(head: &[u8]) -> Result<(), Refusal> {
    match magic(head)? {
        Magic::Disk => Ok(()),
        other => Err(Refusal::DisguisedInside { found: other.name() }),
    }
}

/// A kernel that QEMU can enter, and an archive that it can unpack.
pub(crate) fn kernel_pair(kernel: &[u8], initrd: &[u8]) -> Result<(), Refusal> {
    let elf = kernel.starts_with(b"\x7fELF\x02\x01");
    let bz_image = kernel.get(510..512) == Some(&[0x55, 0xaa]) && kernel.get(514..518) == Some(b"HdrS");
    if !elf && !bz_image {
        return Err(Refusal::Disguised { said: "a kernel", found: "neither an x86-64 ELF file nor a bzImage" });
    }
    let packed: [&[u8]; 7] =
        [b"070701", b"070702", &[0x1f, 0x8b], b"\xfd7zXZ\0", &[0x28, 0xb5, 0x2f, 0xfd], &[0x02, 0x21, 0x4c, 0x18], b"\x5d\0\0"];
    if !packed.iter().any(|start| initrd.starts_with(start)) {
        return Err(Refusal::Disguised { said: "an initramfs", found: "neither a cpio archive nor a compressed one" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_kind_is_told_by_its_first_bytes() {
        let mut sector = [0; HEAD];
        assert_eq!(magic(&sector), Err(Refusal::Unknown));
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(magic(&sector), Ok(Magic::Disk));
        // What QEMU would guess comes before what a boot sector says.
        sector[..4].copy_from_slice(b"QFI\xfb");
        assert_eq!(magic(&sector), Ok(Magic::Qcow2));
        assert!(matches!(agree(Some(ImageKind::Raw), Magic::Qcow2), Err(Refusal::Disguised { .. })));
        sector[..4].copy_from_slice(b"KDMV");
        assert!(matches!(magic(&sector), Err(Refusal::Format { what: "a VMDK disk" })));
        assert!(matches!(magic(b"LUKS\xba\xbe\0\x02"), Err(Refusal::Encrypted { .. })));
        assert!(matches!(magic(b""), Err(Refusal::Unknown)));
    }
}
