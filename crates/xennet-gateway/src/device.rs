//! The card that our TCP stack sees: IP packets in, framed Ethernet out.

use std::collections::VecDeque;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetProtocol;

use crate::counters::{Counters, add};
use crate::frame::{self, ETHERNET, MTU};

/// Frames for QEMU wait up to here, bytes; then flows wait.
const MOST_WAITING: usize = 256 * 1024;
/// Before each frame stands its length, as QEMU's stream sockets want it.
const LENGTH: usize = 4;

/// Both directions of the guest's card.
#[derive(Debug, Default)]
pub(crate) struct Card {
    /// IP packets of TCP, from the guest.
    pub(crate) packets: VecDeque<Vec<u8>>,
    /// Frames for the guest, each behind its length.
    pub(crate) out: Vec<u8>,
    /// How much of it is written.
    pub(crate) written: usize,
    /// What `out` has grown by since the shaper last looked.
    pub(crate) fresh: usize,
    /// Whether the shaper lets frames through.
    pub(crate) open: bool,
    pub(crate) counters: std::sync::Arc<Counters>,
}

impl Card {
    pub(crate) fn has_room(&self) -> bool {
        self.open && self.out.len() - self.written < MOST_WAITING
    }

    /// Puts a whole frame out, or drops it when there is no room, as a wire would.
    pub(crate) fn put(&mut self, frame: &[u8]) {
        if self.has_room() {
            self.begin(frame.len()).copy_from_slice(frame);
        }
    }

    fn begin(&mut self, length: usize) -> &mut [u8] {
        add(&self.counters.down_frames, 1);
        add(&self.counters.down_frame_bytes, length);
        self.fresh += length;
        if self.written > 0 && self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        self.out.extend(u32::try_from(length).unwrap_or(0).to_be_bytes());
        let start = self.out.len();
        self.out.resize(start + length, 0);
        &mut self.out[start..]
    }

    /// Takes note that bytes were written to QEMU.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written >= MOST_WAITING || self.written == self.out.len() {
            self.out.drain(..self.written);
            self.written = 0;
        }
    }
}

/// Takes the next whole frame's place out of what QEMU sent. `Err` if its length cannot be.
pub(crate) fn next_frame(bytes: &[u8]) -> Result<Option<std::ops::Range<usize>>, usize> {
    let Some(Ok(length)) = bytes.get(..LENGTH).map(<[u8; LENGTH]>::try_from) else { return Ok(None) };
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(length);
    }
    Ok((bytes.len() >= LENGTH + length).then_some(LENGTH..LENGTH + length))
}

/// The longest frame that QEMU's stream sockets carry, bytes.
pub(crate) const LONGEST: usize = 4_096 + 65_536;

pub(crate) struct Received(Vec<u8>);
pub(crate) struct Place<'a>(&'a mut Card);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let frame = self.0.begin(ETHERNET + length);
        frame::header(frame, EthernetProtocol::Ipv4);
        write(&mut frame[ETHERNET..])
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Place<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Place<'_>)> {
        if !self.has_room() {
            return None;
        }
        let packet = self.packets.pop_front()?;
        Some((Received(packet), Place(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Place<'_>> {
        self.has_room().then_some(Place(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // The way from QEMU is a Unix socket: nothing is garbled on it. A guest that sends wrong sums harms itself.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities
    }
}
