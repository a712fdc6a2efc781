//! Short forms that stand on the chain and whose announcements have not come over the overlay yet.

use std::collections::HashMap;

use xennet_task::{AnnouncementHash, Digest};

/// The most that are remembered; each was paid for on the chain. Beyond that the one that expires first gives way.
const MOST: usize = 4_096;

/// What is known of them.
#[derive(Debug, Default)]
pub struct Sought {
    forms: HashMap<AnnouncementHash, Form>,
}

#[derive(Debug, Clone, Copy)]
struct Form {
    expires_at: u32,
    height: Option<u32>,
}

impl Sought {
    /// Notes a short form, again when its block changes.
    pub fn note(&mut self, digest: &Digest, height: Option<u32>) {
        if self.forms.len() >= MOST && !self.forms.contains_key(&digest.hash) {
            let first = self.forms.iter().min_by_key(|(_, form)| form.expires_at).map(|(hash, _)| *hash);
            if let Some(first) = first {
                self.forms.remove(&first);
            }
        }
        self.forms.insert(digest.hash, Form { expires_at: digest.expires_at, height });
    }

    /// The announcement has come: the block its short form is in.
    pub fn found(&mut self, hash: &AnnouncementHash) -> Option<u32> {
        self.forms.remove(hash).and_then(|form| form.height)
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now_unix: u64) {
        self.forms.retain(|_, form| u64::from(form.expires_at) >= now_unix);
    }

    /// How many are sought.
    pub fn len(&self) -> usize {
        self.forms.len()
    }
}

#[cfg(test)]
mod tests {
    use xennet_task::Kind;

    use super::*;

    fn digest(nth: u32) -> Digest {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&nth.to_le_bytes());
        Digest { kind: Kind::Task, work_bits: 8, expires_at: 1_000 + nth, hash: AnnouncementHash(hash) }
    }

    #[test]
    fn the_block_is_remembered_until_the_announcement_comes() {
        let mut sought = Sought::default();
        sought.note(&digest(1), None);
        sought.note(&digest(1), Some(7));
        assert_eq!((sought.len(), sought.found(&digest(1).hash)), (1, Some(7)));
        assert_eq!((sought.len(), sought.found(&digest(1).hash)), (0, None));
    }

    #[test]
    fn they_are_bounded_and_expire() {
        let mut sought = Sought::default();
        for nth in 0..5_000 {
            sought.note(&digest(nth), Some(nth));
        }
        assert_eq!(sought.len(), MOST);
        assert_eq!(sought.found(&digest(0).hash), None, "what expires first has given way");
        assert_eq!(sought.found(&digest(4_999).hash), Some(4_999));
        sought.expire(1_000 + 4_990);
        assert_eq!(sought.len(), 9);
    }
}
