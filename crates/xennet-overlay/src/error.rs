use std::io;

/// Why the overlay could not start or take a message.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The network's name cannot stand in a protocol name.
    #[error("network name {name:?} is not 1 to 32 of the characters a-z, 0-9 and '-': use for example \"regtest\"")]
    Network {
        /// The name as configured.
        name: String,
    },
    /// A listen or bootstrap address of the wrong form.
    #[error("{role} address {address} must be an IP address with a TCP port, such as /ip4/203.0.113.7/tcp/7400")]
    Address {
        /// What the address was meant for.
        role: &'static str,
        /// The address as configured.
        address: String,
    },
    /// Too many bootstrap addresses.
    #[error("{given} bootstrap addresses were given, but at most {most} are kept: leave out {}", given - most)]
    TooManyAddresses {
        /// How many there were.
        given: usize,
        /// How many are allowed.
        most: usize,
    },
    /// The listening socket could not be opened.
    #[error("cannot listen on {address}: is another daemon using the port? Stop it, or configure another port")]
    Listen {
        /// The address as configured.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The message is longer than any peer accepts.
    #[error("the message has {length} bytes, but peers take at most {most}: leave out optional fields")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        most: usize,
    },
    /// Our own judge refuses the message, so every peer would, and would blame us for it.
    #[error("every peer would refuse this message: {reason}")]
    Refused {
        /// The judge's reason.
        reason: &'static str,
    },
    /// The queue to the overlay's task is full.
    #[error("the overlay is busy: {queued} commands are waiting; try again")]
    Busy {
        /// The length of the full queue.
        queued: usize,
    },
    /// The overlay's task has ended.
    #[error("the overlay has stopped: restart the daemon")]
    Stopped,
    /// A setting of ours that libp2p refuses.
    #[error("the overlay's settings are refused: {why}")]
    Settings {
        /// What libp2p said.
        why: String,
    },
}
