//! Keeps both sides' leases in real stores on disks that forget, and lets a process die at a numbered step.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bitcoin::consensus::encode::serialize;
use bitcoin::{Transaction, TxIn, TxOut};
use bitcoinkernel::{PrecomputedTransactionData, ScriptPubkey, VERIFY_ALL, verify};
use tempfile::TempDir;
use xennet_lease::{Account, Lease, LedgerEntry};
use xennet_task::LeaseId;
use xennetd::store::{Batch, Medium, Store, Table};

use crate::forgetful::{Fault, Forgetful};
use crate::pair::{Hand, Who};

/// What a wallet's words lead to.
const WALLET_KEY: [u8; 32] = [42; 32];
/// How often a store is given the same, at the most.
const MOST_TRIES: u32 = 20;

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It is killed at this step; what it gave to the system is written.
    Kill { step: u64 },
    /// The power fails at this step; what was not synced is gone, but for what these bits choose.
    PowerLoss { step: u64, survives: u64 },
    /// Something is wrong with the disk from this operation on.
    Disk(Fault),
}

/// What was seen, shared with whoever reports it.
#[derive(Debug, Default)]
pub struct Record {
    /// Steps of either side so far.
    pub steps: [u64; 2],
    /// Disk operations of either side until its death.
    pub operations: [u64; 2],
    /// Different steps by name.
    pub names: BTreeSet<String>,
    pub deaths: u64,
    /// Whose processes are dead now.
    pub dead: [bool; 2],
    /// Writes of the store that the disk refused: it was full, a write failed, a sync failed.
    pub refused: [u64; 3],
    /// What is wrong.
    pub faults: Vec<String>,
    /// Transactions that end a channel and were given to the chain.
    pub endings: u64,
}

struct Keeper {
    disk: Forgetful,
    store: Option<Store>,
    dir: TempDir,
    /// The newest revision that the store has acknowledged, and its total.
    acknowledged: (u64, u64),
    /// What it was asked to write after that.
    offered: Option<(u64, u64)>,
}

pub struct Harmful {
    keepers: [Keeper; 2],
    /// Who is to die next, and the others after that.
    doomed: VecDeque<(Who, Death)>,
    /// A store that says that all is written, and writes nothing.
    lying: bool,
    armed: bool,
    /// Something was wrong with a disk that nobody dies of.
    spared: bool,
    pub record: Rc<RefCell<Record>>,
}

pub fn place(who: Who) -> usize {
    usize::from(who == Who::Node)
}

fn revision(lease: &Lease) -> (u64, u64) {
    (lease.revision, lease.account.as_ref().map_or(0, Account::total_sat))
}

impl Harmful {
    pub fn new(doomed: &[(Who, Death)], lying: bool) -> Harmful {
        let keeper = || {
            let (disk, dir) = (Forgetful::default(), tempfile::tempdir().unwrap());
            let store = open(&dir, &disk);
            Keeper { disk, store: Some(store), dir, acknowledged: (0, 0), offered: None }
        };
        Harmful {
            keepers: [keeper(), keeper()],
            doomed: doomed.iter().copied().collect(),
            lying,
            armed: false,
            spared: false,
            record: Rc::default(),
        }
    }

    /// Operations of the disks are counted from the first step on.
    fn arm(&mut self) {
        if std::mem::replace(&mut self.armed, true) {
            return;
        }
        for (who, keeper) in [Who::Publisher, Who::Node].into_iter().zip(&self.keepers) {
            let fault = match self.doomed.front() {
                Some((doomed, Death::Disk(fault))) if *doomed == who => Some(*fault),
                _ => None,
            };
            keeper.disk.arm(fault);
        }
        // Of what a process outlives, nobody hears; what comes after it is another matter.
        if let Some((_, Death::Disk(fault))) = self.doomed.front()
            && fault.is_outlived()
        {
            self.doomed.pop_front();
            self.spared = true;
        }
    }

    fn fault(&self, what: String) {
        self.record.borrow_mut().faults.push(what);
    }

    /// The process is gone, and with it whatever only it knew.
    fn die(&mut self, who: Who) {
        let keeper = &mut self.keepers[place(who)];
        let mut record = self.record.borrow_mut();
        record.deaths += 1;
        record.dead[place(who)] = true;
        keeper.store = None;
        self.doomed.pop_front();
    }
}

impl Hand for Harmful {
    fn step(&mut self, who: Who, what: &dyn Fn() -> String) -> bool {
        self.arm();
        let nth = {
            let mut record = self.record.borrow_mut();
            let nth = record.steps[place(who)];
            record.steps[place(who)] += 1;
            if self.doomed.is_empty() && !self.spared {
                record.names.insert(format!("{who:?} {}", what()));
            }
            nth
        };
        match self.doomed.front().copied() {
            Some((doomed, Death::Kill { step })) if doomed == who && nth >= step => {
                self.die(who);
                false
            }
            Some((doomed, Death::PowerLoss { step, survives })) if doomed == who && nth >= step => {
                self.keepers[place(who)].disk.lose_power(survives);
                self.die(who);
                false
            }
            _ => true,
        }
    }

    fn keep(&mut self, who: Who, lease: &Lease, entries: &[&LedgerEntry]) -> bool {
        let id = lease.id;
        if self.lying && self.armed {
            let keeper = &mut self.keepers[place(who)];
            (keeper.acknowledged, keeper.offered) = (revision(lease), None);
            return true;
        }
        let keeper = &mut self.keepers[place(who)];
        let mut batch = Batch::new();
        batch.put_json(Table::Leases, &id.0, lease).unwrap();
        for entry in entries {
            batch.append(id, entry).unwrap();
        }
        keeper.offered = Some(revision(lease));
        for _ in 0..MOST_TRIES {
            let failed_before = keeper.disk.failed();
            let answer = keeper.store.as_ref().expect("a living process has its store").persist_blocking(batch, ());
            if self.record.borrow().deaths == 0 {
                self.record.borrow_mut().operations[place(who)] = keeper.disk.operations();
            }
            match answer {
                Ok(persisted) => {
                    persisted.into_inner();
                    (keeper.acknowledged, keeper.offered) = (revision(lease), None);
                    return true;
                }
                Err(_) if keeper.disk.is_off() => {
                    self.die(who);
                    return false;
                }
                // As the daemon: nothing is done until the disk takes it.
                Err(unpersisted) if keeper.disk.failed() > failed_before => {
                    let kind = match keeper.disk.fault() {
                        Some(Fault::Full { .. }) => 0,
                        Some(Fault::BadWrite { .. }) => 1,
                        _ => 2,
                    };
                    self.record.borrow_mut().refused[kind] += 1;
                    batch = unpersisted.batch;
                }
                Err(unpersisted) => {
                    let error = unpersisted.error;
                    self.fault(format!("{who:?}: {error}"));
                    return true;
                }
            }
        }
        self.fault(format!("{who:?}: the store never takes it"));
        true
    }

    fn kept(&mut self, who: Who) -> (Lease, Vec<LedgerEntry>) {
        self.record.borrow_mut().dead[place(who)] = false;
        let keeper = &mut self.keepers[place(who)];
        keeper.disk.turn_on();
        keeper.disk.arm(None);
        let store = open(&keeper.dir, &keeper.disk);
        let mut leases: Vec<(Vec<u8>, Lease)> = store.scan_json(Table::Leases).unwrap();
        assert_eq!(leases.len(), 1, "one lease is kept");
        let lease = leases.remove(0).1;
        let ledger = ledger(&store, lease.id);
        keeper.store = Some(store);
        // M1: the last acknowledged state, or the one after it; never older, never anything else.
        let (found, acknowledged, offered) = (revision(&lease), keeper.acknowledged, keeper.offered);
        if found != acknowledged && Some(found) != offered {
            self.fault(format!("M1: {who:?} finds revision {found:?}, acknowledged was {acknowledged:?}, offered {offered:?}"));
        }
        (lease, ledger)
    }

    fn judge(&mut self, transaction: &Transaction, lease: &Lease) {
        let output_of = |input: &TxIn| {
            let channel = lease.channels().find(|channel| channel.outpoint == Some(input.previous_output))?;
            Some(channel.terms.funding_output())
        };
        let spent: Vec<TxOut> = transaction.input.iter().filter_map(output_of).collect();
        if spent.is_empty() {
            return;
        }
        self.record.borrow_mut().endings += spent.len() as u64;
        if spent.len() != transaction.input.len() || !valid(transaction, &spent) {
            self.fault(format!("Bitcoin Core does not let {} spend {} channels", transaction.compute_txid(), spent.len()));
        }
    }
}

/// As the daemon opens it: what it holds of channels is encrypted with a key of the wallet, which is as old as the wallet.
fn open(dir: &TempDir, disk: &Forgetful) -> Store {
    let store = Store::open_on(dir.path(), Medium::Through(Arc::new(disk.clone()))).unwrap();
    let sealed = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.seal_with(&WALLET_KEY));
    assert_eq!(sealed.unwrap(), 0, "nothing lay there in the clear");
    store
}

fn ledger(store: &Store, id: LeaseId) -> Vec<LedgerEntry> {
    let page = store.ledger(id, 0, 100_000).unwrap();
    page.entries
}

/// Whether Bitcoin Core's interpreter lets the transaction spend these outputs, one for each of its inputs.
fn valid(transaction: &Transaction, outputs: &[TxOut]) -> bool {
    let kernel = bitcoinkernel::Transaction::new(&serialize(transaction)).unwrap();
    let scripts: Vec<_> = outputs.iter().map(|output| ScriptPubkey::new(output.script_pubkey.as_bytes()).unwrap()).collect();
    let sats = outputs.iter().map(|output| output.value.to_sat() as i64);
    let spent: Vec<_> = scripts.iter().zip(sats.clone()).map(|(script, sat)| bitcoinkernel::TxOut::new(script, sat)).collect();
    let data = PrecomputedTransactionData::new(&kernel, &spent).unwrap();
    let lets =
        |(nth, (script, sat)): (usize, (&ScriptPubkey, i64))| verify(script, Some(sat), &kernel, nth, Some(VERIFY_ALL), &data).is_ok();
    scripts.iter().zip(sats).enumerate().all(lets)
}
