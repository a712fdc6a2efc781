//! The node's part of a renewal: consider, agree, take the new channel over.

use bitcoin::Transaction;
use secp256k1::PublicKey;
use xennet_market::consider_proposal;
use xennet_rama::{ChannelTerms, NodeChannel, refund_height_for};
use xennet_task::Proposal;

use super::Renewal;
use crate::lease::clip;
use crate::{Action, Channel, Lease, Message, Purse, Secret, Side, Stage};

/// The node considers another renewal so long after one that was not funded, milliseconds: each costs it a key.
const BETWEEN_MS: u64 = 10_000;
/// Channels of one lease that may wait for their ends at the same time.
const MOST_PAST: usize = 8;

impl Lease {
    pub(crate) fn node_asked_to_renew(&mut self, now_ms: u64, wish: &Message, out: &mut Vec<Action>) {
        let Message::Renew { channel, adds_s, capacity_sat, channel_key, refund_height } = wish else { return };
        if self.stage != Stage::Live || *channel != self.next_number() {
            return;
        }
        if let Some(renewal) = &self.next {
            let same = renewal.publisher_key.is_some_and(|key| key.to_string() == *channel_key)
                && (renewal.adds_s, renewal.capacity_sat, renewal.refund_height) == (*adds_s, *capacity_sat, *refund_height);
            if same {
                return self.say_renewal_agreed(out);
            }
            if renewal.is_funded() {
                return;
            }
            if now_ms.saturating_sub(renewal.since_ms) < BETWEEN_MS {
                let reason = format!("one renewal in {} s is considered; ask again", BETWEEN_MS / 1000);
                return out.push(Action::Send(Message::RenewRefused { channel: *channel, reasons: vec![reason] }));
            }
        }
        match self.node_considers_renewal(now_ms, channel_key, *adds_s, *capacity_sat, *refund_height) {
            Ok(publisher_key) => {
                // A key that no funding pays to is as good as new.
                let known = self.next.take().and_then(|renewal| renewal.secret);
                self.next = Some(Renewal {
                    adds_s: *adds_s,
                    capacity_sat: *capacity_sat,
                    refund_height: *refund_height,
                    publisher_key: Some(publisher_key),
                    secret: None,
                    channel: None,
                    looking: false,
                    since_ms: now_ms,
                });
                self.revision += 1;
                match known {
                    Some(secret) => self.node_has_key(secret, out),
                    None => out.push(Action::AskKey),
                }
            }
            Err(reasons) => out.push(Action::Send(Message::RenewRefused { channel: *channel, reasons })),
        }
    }

    /// The same that stands against a proposal stands against a renewal: the owner's policy may have changed since.
    fn node_considers_renewal(
        &self,
        now_ms: u64,
        key: &str,
        adds_s: u64,
        capacity_sat: u64,
        refund_height: u32,
    ) -> Result<PublicKey, Vec<String>> {
        let (Side::Node(side), Some(agreed)) = (&self.side, &self.proposal) else { return Err(Vec::new()) };
        let publisher_key: PublicKey = key.parse().map_err(|error| vec![format!("channel key {}: {error}", clip(key))])?;
        if self.past.len() >= MOST_PAST {
            return Err(vec![format!(
                "{} channels of this lease still wait for their ends on the chain, at most {MOST_PAST} may",
                self.past.len()
            )]);
        }
        let now_unix = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        let proposal = Proposal {
            lease: std::time::Duration::from_secs(adds_s),
            capacity_sat,
            refund_height,
            channel_key: publisher_key.serialize(),
            expires_at: u32::MAX,
            ..*agreed
        };
        consider_proposal(&proposal, &self.task, &self.acceptance, &side.own_figures, &side.policy, now_unix)
            .map_err(|reasons| reasons.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let least = refund_height_for(self.height_after(self.left_s(now_ms).saturating_add(adds_s), side.block_s));
        if refund_height < least {
            return Err(vec![format!("the refund height is {refund_height}, but it must be {least} at least")]);
        }
        Ok(publisher_key)
    }

    pub(crate) fn node_has_key(&mut self, secret: Secret, out: &mut Vec<Action>) {
        let Side::Node(side) = &self.side else { return };
        let number = self.next_number();
        let Some(renewal) = self.next.as_mut().filter(|renewal| renewal.channel.is_none()) else { return };
        let Some(publisher_key) = renewal.publisher_key else { return };
        let terms = ChannelTerms {
            publisher_key,
            node_key: secret.0.public_key(secp256k1::SECP256K1),
            capacity_sat: renewal.capacity_sat,
            refund_height: renewal.refund_height,
            close_feerate_sat_per_kvb: side.close_feerate_sat_per_kvb,
        };
        self.revision += 1;
        match terms.check().and_then(|()| NodeChannel::new(terms.clone(), secret.0)) {
            Ok(channel) => {
                renewal.secret = Some(secret);
                renewal.channel = Some(Channel::new(number, terms, Purse::Node(channel)));
                self.say_renewal_agreed(out);
            }
            Err(error) => {
                self.next = None;
                out.push(Action::Send(Message::RenewRefused { channel: number, reasons: vec![error.to_string()] }));
            }
        }
    }

    fn say_renewal_agreed(&self, out: &mut Vec<Action>) {
        if let Some(channel) = self.next.as_ref().and_then(|renewal| renewal.channel.as_ref()) {
            out.push(Action::Send(Message::RenewAgreed {
                channel: channel.number,
                channel_key: channel.terms.node_key.to_string(),
                close_feerate_sat_per_kvb: channel.terms.close_feerate_sat_per_kvb,
            }));
        }
    }

    pub(crate) fn node_renewal_funded(&mut self, now_ms: u64, number: u32, transaction: &str, vout: u32, out: &mut Vec<Action>) {
        if number != self.next_number() || !matches!(self.stage, Stage::Live | Stage::Closing { .. }) {
            return;
        }
        let Some(renewal) = self.next.as_mut().filter(|renewal| !renewal.is_funded()) else { return };
        let adds_s = renewal.adds_s;
        let Some(channel) = &mut renewal.channel else { return };
        let Purse::Node(purse) = &mut channel.purse else { return };
        let funded = bitcoin::consensus::encode::deserialize_hex::<Transaction>(transaction)
            .map_err(|error| format!("the funding transaction cannot be read: {error}"))
            .and_then(|transaction| {
                let outpoint = purse.funded(&transaction, vout).map_err(|error| error.to_string())?;
                Ok((transaction, outpoint))
            });
        let (transaction, outpoint) = match funded {
            Ok(funded) => funded,
            Err(why) => {
                out.push(Action::Send(Message::RenewRefused { channel: number, reasons: vec![why.clone()] }));
                return self.drop_renewal(now_ms, why, true, out);
            }
        };
        channel.outpoint = Some(outpoint);
        channel.funding = Some(transaction.clone());
        out.push(Action::Watch(channel.terms.script_pubkey()));
        out.push(Action::Broadcast(transaction));
        self.added_s = self.added_s.saturating_add(adds_s);
        self.revision += 1;
        out.push(self.record_renewed(now_ms, adds_s, outpoint));
    }
}
