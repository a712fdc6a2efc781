//! Names: which questions are passed on, and which answers.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{DnsFlags, DnsOpcode, DnsPacket, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData};

use crate::policy::Policy;

/// The longest message that is passed on, bytes.
pub(crate) const LONGEST: usize = 4_096;
const HEADER: usize = 12;
const AAAA: u16 = 28;

/// A question that may be passed on: one standard query.
pub(crate) fn is_question(message: &[u8]) -> bool {
    let Ok(packet) = DnsPacket::new_checked(message) else { return false };
    message.len() <= LONGEST
        && !packet.flags().contains(DnsFlags::RESPONSE)
        && packet.opcode() == DnsOpcode::Query
        && packet.question_count() == 1
        && packet.answer_record_count() == 0
        && DnsQuestion::parse(packet.payload()).is_ok()
}

/// Whether an answer belongs to a question.
pub(crate) fn answers(question: &[u8], answer: &[u8]) -> bool {
    let (Ok(asked), Ok(said)) = (DnsPacket::new_checked(question), DnsPacket::new_checked(answer)) else { return false };
    let (Ok((_, one)), Ok((_, other))) = (DnsQuestion::parse(asked.payload()), DnsQuestion::parse(said.payload())) else { return false };
    said.flags().contains(DnsFlags::RESPONSE)
        && asked.transaction_id() == said.transaction_id()
        && one.type_ == other.type_
        && one.name.eq_ignore_ascii_case(other.name)
}

/// Whether everything an answer names may be named. A name that leads into a private network is how a page of a stranger
/// reaches it.
pub(crate) fn may_be_told(policy: &Policy, answer: &[u8]) -> bool {
    let Ok(packet) = DnsPacket::new_checked(answer) else { return false };
    let mut rest = packet.payload();
    for _ in 0..packet.question_count() {
        let Ok((after, _)) = DnsQuestion::parse(rest) else { return false };
        rest = after;
    }
    for _ in 0..packet.answer_record_count() {
        let Ok((after, record)) = DnsRecord::parse(rest) else { return false };
        rest = after;
        let address = match record.data {
            DnsRecordData::A(v4) => IpAddr::V4(v4),
            DnsRecordData::Other(kind, data) if u16::from(kind) == AAAA => match <[u8; 16]>::try_from(data) {
                Ok(octets) => IpAddr::V6(Ipv6Addr::from(octets)),
                Err(_) => return false,
            },
            _ => continue,
        };
        if !policy.may_be_named(address) {
            return false;
        }
    }
    true
}

/// The answer "refused" to a question that [`is_question`].
pub(crate) fn refusal(question: &[u8]) -> Option<Vec<u8>> {
    let packet = DnsPacket::new_checked(question).ok()?;
    let (rest, _) = DnsQuestion::parse(packet.payload()).ok()?;
    let mut answer = question.get(..question.len() - rest.len())?.to_vec();
    let recursion = packet.flags() & DnsFlags::RECURSION_DESIRED;
    let refused = DnsFlags::RESPONSE | DnsFlags::RECURSION_AVAILABLE | recursion;
    let word = refused.bits() | u16::from(u8::from(DnsRcode::Refused));
    answer.get_mut(2..4)?.copy_from_slice(&word.to_be_bytes());
    // One question, nothing else.
    answer.get_mut(4..HEADER)?.copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    Some(answer)
}

/// Puts another number into a message.
pub(crate) fn renumber(message: &mut [u8], number: [u8; 2]) -> Option<[u8; 2]> {
    let place = message.get_mut(..2)?;
    let old = [place[0], place[1]];
    place.copy_from_slice(&number);
    Some(old)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::Profile;

    const QUESTION: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x01x\x03org\0\0\x01\0\x01";

    fn answer(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut answer = QUESTION.to_vec();
        answer[2] = 0x81;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        answer.extend(data);
        answer
    }

    #[test]
    fn an_answer_that_names_a_forbidden_address_is_not_told() {
        let policy = Policy { profile: Profile::Web, allow: vec![] };
        assert!(is_question(QUESTION) && !is_question(&answer(1, &[1, 1, 1, 1])));
        assert!(may_be_told(&policy, &answer(1, &[1, 1, 1, 1])));
        assert!(!may_be_told(&policy, &answer(1, &[127, 0, 0, 1])) && !may_be_told(&policy, &answer(1, &[192, 168, 1, 1])));
        assert!(may_be_told(&policy, &answer(28, &"2606:4700::1".parse::<Ipv6Addr>().unwrap().octets())));
        assert!(!may_be_told(&policy, &answer(28, &"::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets())));
        assert!(!may_be_told(&policy, &answer(28, &[0; 4])) && !may_be_told(&policy, &answer(1, &[1, 1, 1, 1])[..30]));
    }

    #[test]
    fn an_answer_belongs_to_its_question_and_a_refusal_to_both() {
        let right = answer(1, &[1, 1, 1, 1]);
        assert!(answers(QUESTION, &right));
        let mut wrong = right.clone();
        wrong[0] = 0;
        assert!(!answers(QUESTION, &wrong));
        let refused = refusal(QUESTION).unwrap();
        assert!(answers(QUESTION, &refused));
        assert_eq!(refused[3] & 15, 5);
    }

    proptest::proptest! {
        #[test]
        fn no_message_makes_it_panic(mut message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let policy = Policy { profile: Profile::Web, allow: vec![] };
            let _ = (is_question(&message), may_be_told(&policy, &message), refusal(&message), answers(QUESTION, &message));
            let _ = renumber(&mut message, [1, 2]);
        }
    }
}
