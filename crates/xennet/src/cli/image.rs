//! The words of `xennet image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do about images.
#[derive(Debug, Subcommand)]
pub enum ImageOrder {
    /// List the images of this data directory, the one used last first
    #[command(after_help = "Example:\n  xennet image list --json | jq 'map(.stored_bytes) | add'")]
    List,
    /// Take a disk (raw, qcow2), a root file system (tar), a container image (OCI, docker save), or a kernel with its initramfs
    #[command(after_help = "Examples:\n  \
            xennet image add debian.qcow2\n  \
            docker save alpine > alpine.tar; xennet image add alpine.tar\n  \
            xennet image add vmlinuz --initrd initrd.img\n\n\
            The file is read by a process that may open nothing, so it must be whole in itself. docs/images.md says what is refused.")]
    Add(AddArgs),
    /// Read images again and compare their hashes
    #[command(after_help = "Examples:\n  xennet image verify\n  xennet image verify 9f86")]
    Verify {
        /// The image: its hash, or the beginning of it [default: all]
        image: Option<String>,
    },
    /// Delete images, those used longest ago first, until the others fit
    #[command(after_help = "Examples:\n  xennet image prune --dry-run\n  xennet image prune --keep-mib 0\n  xennet image prune 9f86")]
    Prune(PruneArgs),
}

/// See [`ImageOrder::Add`].
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The file, or the folder of an OCI layout
    pub file: PathBuf,
    /// The initramfs that belongs to the kernel FILE
    #[arg(long, value_name = "FILE", conflicts_with = "kind")]
    pub initrd: Option<PathBuf>,
    /// What it has to be: raw, qcow2, root-tar or container [default: told by its first bytes]
    #[arg(long)]
    pub kind: Option<xennetd::image::ImageKind>,
}

/// See [`ImageOrder::Prune`].
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// These and no others: their hashes, or the beginnings of them
    #[arg(value_name = "IMAGE", conflicts_with = "keep_mib")]
    pub images: Vec<String>,
    /// MiB that the images left may take [default: image_store_mib of the configuration]
    #[arg(long, value_name = "MIB")]
    pub keep_mib: Option<u32>,
    /// Only say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
}
