//! What a guest gets of its own: a small cpio archive behind the image's. The kernel unpacks one after the other.

use std::fmt::Write as _;

/// A cpio archive in the kernel's "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

impl Archive {
    pub(crate) fn new() -> Archive {
        Archive { bytes: Vec::new(), inode: 0 }
    }

    /// Adds a folder; its own folder must be in the image or added before.
    pub(crate) fn folder(mut self, path: &str, mode: u32) -> Archive {
        self.entry(path, DIRECTORY | mode, &[]);
        self
    }

    /// Adds a file.
    pub(crate) fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Archive {
        self.entry(path, FILE | mode, content);
        self
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        // inode, mode, uid, gid, links, time, size, device, special device, name's length, check
        let numbers = [self.inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        let mut header = String::from("070701");
        for number in numbers {
            let _ = write!(header, "{number:08X}");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::Archive;

    #[test]
    fn an_archive_has_the_form_that_the_kernel_reads() {
        let bytes = Archive::new().folder("root/.ssh", 0o700).file("root/.ssh/a", 0o600, b"key\n").finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        // 110 bytes of header, then the name with its zero, filled up to four bytes.
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[14..22], format!("{:08X}", 0o040_700));
        assert_eq!(&text[110..120], "root/.ssh\0");
        assert_eq!(&text[120..126], "070701");
        assert_eq!(&text[134..142], format!("{:08X}", 0o100_600));
        assert_eq!(&text[230..248], "root/.ssh/a\0\0\0key\n");
        assert!(text.contains("TRAILER!!!\0"));
    }
}
