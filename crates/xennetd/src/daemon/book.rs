//! The tasks a daemon knows: its own, which are kept, and those of others, which are not.

use std::collections::{HashMap, HashSet};

use secp256k1::PublicKey;
use serde::{Deserialize, Serialize};
use xennet_task::{AnnouncementHash, Task, TaskFile};

use crate::control::TaskState;

/// The most tasks of others that are remembered; beyond that the one that expires first gives way.
const MOST_FOREIGN: usize = 10_000;

/// A task announced by this daemon, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwnTask {
    /// What was announced.
    pub task: Task,
    /// The announcement's hash.
    pub hash: AnnouncementHash,
    /// What the user wrote.
    pub file: TaskFile,
    /// The bytes for the overlay, tag included.
    pub message: Vec<u8>,
    /// The transaction that carries it, if one does.
    pub transaction: Option<bitcoin::Transaction>,
    /// How far it is.
    pub state: TaskState,
}

/// A task somebody announced.
#[derive(Debug, Clone)]
pub struct KnownTask {
    /// What was announced.
    pub task: Task,
    /// Leading zero bits it committed to.
    pub work_bits: u8,
    /// The transaction that carries it, if one does.
    pub txid: Option<bitcoin::Txid>,
    /// The block it is in.
    pub height: Option<u32>,
    /// Why this node does not take it.
    pub refusals: Vec<String>,
    /// Whether this node has accepted it.
    pub taken: bool,
    /// How often this node has accepted it.
    pub attempts: u8,
    /// Unix seconds before which this node does not accept it again.
    pub not_before: u64,
}

/// How often a node accepts one task whose leases come to nothing.
const MOST_ATTEMPTS: u8 = 4;
/// How long it waits before the next time, seconds.
const RETRY_AFTER_S: u64 = 15;

/// All tasks.
#[derive(Debug, Default)]
pub struct Book {
    /// Own ones.
    pub own: HashMap<AnnouncementHash, OwnTask>,
    /// All that are known, own ones included.
    pub known: HashMap<AnnouncementHash, KnownTask>,
    /// Tasks that were taken back, with who said so: whoever joins late may hear of that before it hears of the task.
    cancelled: HashSet<(AnnouncementHash, PublicKey)>,
}

impl Book {
    /// Notes a task; true if it was not known.
    pub fn note(&mut self, hash: AnnouncementHash, task: Task, work_bits: u8, txid: Option<bitcoin::Txid>) -> bool {
        if let Some(known) = self.known.get_mut(&hash) {
            known.txid = known.txid.or(txid);
            return false;
        }
        if self.cancelled.contains(&(hash, task.publisher.key)) && !self.own.contains_key(&hash) {
            return false;
        }
        if self.known.len() >= MOST_FOREIGN {
            let first = self.known.iter().filter(|(hash, _)| !self.own.contains_key(hash)).min_by_key(|(_, known)| known.task.expires_at);
            if let Some(first) = first.map(|(hash, _)| *hash) {
                self.known.remove(&first);
            }
        }
        self.known.insert(
            hash,
            KnownTask { task, work_bits, txid, height: None, refusals: Vec::new(), taken: false, attempts: 0, not_before: 0 },
        );
        true
    }

    /// Notes that somebody takes a task back; true if it was known and is his. Own ones are not for strangers to take back.
    pub fn cancel(&mut self, task: AnnouncementHash, by: PublicKey) -> bool {
        if self.cancelled.len() >= MOST_FOREIGN {
            self.cancelled.clear();
        }
        self.cancelled.insert((task, by));
        let his = self.known.get(&task).is_some_and(|known| known.task.publisher.key == by);
        his && !self.own.contains_key(&task) && self.known.remove(&task).is_some()
    }

    /// A lease of this task came to nothing for a reason that may pass: it may be accepted again after a while, a few times.
    pub fn try_again(&mut self, hash: &AnnouncementHash, now_unix: u64) {
        if let Some(known) = self.known.get_mut(hash).filter(|known| known.attempts < MOST_ATTEMPTS) {
            known.taken = false;
            known.not_before = now_unix.saturating_add(RETRY_AFTER_S);
        }
    }

    /// Notes the transaction that carries a task and its block; false if the task is not known.
    pub fn note_chain(&mut self, hash: &AnnouncementHash, txid: bitcoin::Txid, height: Option<u32>) -> bool {
        let Some(known) = self.known.get_mut(hash) else { return false };
        known.txid = Some(txid);
        known.height = height;
        true
    }

    /// Notes the block a task's transaction is in.
    pub fn note_height(&mut self, hash: &AnnouncementHash, height: Option<u32>) {
        if let Some(known) = self.known.get_mut(hash) {
            known.height = height;
        }
    }

    /// Drops the tasks of others whose time is over; marks own ones. Gives the own ones that changed.
    pub fn expire(&mut self, now_unix: u64) -> Vec<AnnouncementHash> {
        let own = &self.own;
        self.known.retain(|hash, known| u64::from(known.task.expires_at) >= now_unix || own.contains_key(hash));
        let mut changed = Vec::new();
        for (hash, task) in &mut self.own {
            let open = matches!(task.state, TaskState::Open | TaskState::Filled);
            if open && u64::from(task.task.expires_at) < now_unix {
                task.state = TaskState::Expired;
                changed.push(*hash);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use secp256k1::{Keypair, SECP256K1};
    use xennet_identity::{Anchor, Identity, Role};
    use xennet_task::TaskId;

    use super::*;

    fn task(publisher: u8) -> Task {
        let key = Keypair::from_seckey_slice(SECP256K1, &[publisher; 32]).unwrap().public_key();
        let identity = Identity { role: Role::Publisher, key, anchor: Anchor { height: 1, hash: [9; 32] }, nonce: 0 };
        let file = TaskFile::parse(TaskFile::example()).unwrap();
        file.task(TaskId([1; 8]), identity, [2; 32], ([127, 0, 0, 1], 28_722).into(), 1_800_000_000)
    }

    #[test]
    fn a_cancellation_counts_before_and_after_its_task_and_only_its_publishers() {
        let hash = AnnouncementHash([3; 32]);
        let (mine, other) = (task(1), task(2));
        for early in [true, false] {
            let mut book = Book::default();
            assert!(early || book.note(hash, mine.clone(), 16, None));
            assert!(!book.cancel(hash, other.publisher.key), "a stranger's");
            assert_eq!(book.known.len(), usize::from(!early));
            assert_eq!(book.cancel(hash, mine.publisher.key), !early);
            assert!(!book.cancel(hash, other.publisher.key), "nor does it undo the right one");
            assert!(!book.note(hash, mine.clone(), 16, None) && book.known.is_empty());
        }
    }
}
