//! The publisher's answer to a node's hello: what the cut hid, what was lost on the way, and what its own store has forgotten.

use xennet_rama::Update;
use xennet_task::Usage;

use crate::{Action, CloseReason, Lease, LedgerKind, Message, Purse, Stage};

/// What a node says of itself in its hello.
pub struct Theirs {
    pub usage: Usage,
    pub restarted: bool,
    pub channel: u32,
    pub total_sat: u64,
    pub best: Option<Update>,
}

impl Lease {
    pub(crate) fn publisher_hears_hello(&mut self, now_ms: u64, theirs: &Theirs, out: &mut Vec<Action>) {
        if let Err(why) = self.recall(now_ms, theirs, out) {
            if self.stage == Stage::Live {
                return self.begin_publisher_closing(now_ms, CloseReason::Protocol, &why, out);
            }
            return self.break_off(now_ms, why, out);
        }
        if !theirs.restarted {
            self.forget_what_the_node_did_not_count(now_ms, &theirs.usage);
        }
        self.publisher_greeted(now_ms, theirs, out);
    }

    /// A node that holds more than this store knows of: the store was put back from an old copy. What the node proves is taken
    /// over; without a proof nothing is signed any more, for it would be signed a second time.
    fn recall(&mut self, now_ms: u64, theirs: &Theirs, out: &mut Vec<Action>) -> Result<(), String> {
        let Theirs { channel, total_sat, best, .. } = *theirs;
        let Some(account) = &mut self.account else { return Ok(()) };
        let present = account.channel.number;
        if channel > present {
            return Err(format!(
                "the node is paid on channel {channel}, and this store knows of channel {present} only: it was put back from a copy made before the lease was renewed; settle"
            ));
        }
        if channel < present {
            // What it holds there was signed here, and what it lacks is said again.
            return Ok(());
        }
        let known_sat = account.total_sat();
        if total_sat <= known_sat {
            return Ok(());
        }
        let Purse::Publisher(channel) = &mut account.channel.purse else { return Ok(()) };
        let Some(update) = best.filter(|update| update.total_sat == total_sat) else {
            return Err(format!(
                "the node says it holds a payment of {total_sat} sat and does not show it, but the most this store knows of is {known_sat} sat; settle"
            ));
        };
        channel.recall(&update).map_err(|error| error.to_string())?;
        let forgotten_sat = account.channel.terms.earned_of(total_sat).saturating_sub(account.channel.terms.earned_of(known_sat));
        account.recalled_msat = account.recalled_msat.saturating_add(forgotten_sat.saturating_mul(1000));
        account.payments = account.payments.max(1);
        self.revision += 1;
        let note = format!("this store knew of {known_sat} sat only; the node showed the payment of {total_sat} sat");
        out.push(self.record(now_ms, LedgerKind::Paid, note));
        Ok(())
    }

    /// The other side is back: make up for what was lost in between.
    fn publisher_greeted(&mut self, now_ms: u64, theirs: &Theirs, out: &mut Vec<Action>) {
        let present = self.account.as_ref().map_or(1, |account| account.channel.number);
        // Of a channel that has not taken over there, nothing is held.
        let their_total_sat = if theirs.channel == present { theirs.total_sat } else { 0 };
        self.restarted = false;
        self.grant_what_the_cut_hid(theirs);
        self.publisher_acknowledged(their_total_sat);
        let closing = matches!(self.stage, Stage::Closing { .. });
        if self.stage != Stage::Live && !closing {
            return;
        }
        self.say_renewal(theirs.channel, out);
        if let Some(account) = &self.account {
            if account.acked_total_sat == 0
                && present == 1
                && let (Some(funding), Some(outpoint)) = (&account.channel.funding, account.channel.outpoint)
            {
                let transaction = bitcoin::consensus::encode::serialize_hex(funding);
                out.push(Action::Send(Message::Funded { transaction, vout: outpoint.vout }));
            }
            if their_total_sat < account.total_sat()
                && let Purse::Publisher(channel) = &account.channel.purse
                && let Some(update) = channel.last_update()
            {
                // Totals are cumulative: saying the last one again makes up for any number of lost ones.
                let usage = account.meter.usage();
                out.push(Action::Send(Message::Pay { number: account.payments, channel: present, usage, update }));
            }
        }
        let paused = self.publisher().is_some_and(|side| side.paused);
        if !closing && !paused {
            self.resume_meter(now_ms);
        }
    }

    /// When a connection dies, the two sides notice at different moments. What only the publisher counted was not used.
    fn forget_what_the_node_did_not_count(&mut self, now_ms: u64, their_usage: &Usage) {
        if let Some(account) = &mut self.account {
            account.meter.advance(now_ms);
            account.meter.lower_to(their_usage);
        }
    }

    /// If it is the node that noticed later, the guest ran on for its meter: pay for that, up to one interval's price in the
    /// whole lease, and for what this publisher has paid for and forgotten.
    fn grant_what_the_cut_hid(&mut self, theirs: &Theirs) {
        let (Some(price), Some(account)) = (self.price(), &self.account) else { return };
        let (Ok(counted), Ok(own)) = (price.owed(&theirs.usage), price.owed(&account.meter.usage())) else { return };
        let granted_msat = counted.0.saturating_sub(own.0).min(price.interval().0.saturating_add(account.recalled_msat));
        if let Some(account) = &mut self.account {
            // A node that began anew may have forgotten what it was granted and worked for.
            account.granted_msat = if theirs.restarted { granted_msat.max(account.granted_msat) } else { granted_msat };
            self.revision += 1;
        }
    }
}
