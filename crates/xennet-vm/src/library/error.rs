//! What can go wrong with the store of images, each with its remedy.

use std::path::PathBuf;

use crate::error::VmError;

/// Why an image cannot be added, found or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// The image is not taken.
    #[error("{} is refused: {why}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The reason; it holds the remedy.
        why: String,
    },
    /// No image has this name.
    #[error("no image here begins with {name}: `xennet image list` shows those there are")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Several images have this name.
    #[error("{count} images begin with {name}: write more of it")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// An image's file has changed since it was added.
    #[error(
        "image {hash} is damaged: {file} has another hash than when it was added; remove it with `xennet image prune {hash}` and add it again"
    )]
    Damaged {
        /// The image.
        hash: String,
        /// Its file.
        file: String,
    },
    /// The confined process did not start.
    #[error("the confined process that reads images did not start: {said}")]
    Reader {
        /// What was said instead of a verdict.
        said: String,
    },
    /// The host lacks something.
    #[error(transparent)]
    Host(VmError),
    /// The system refused something.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}
