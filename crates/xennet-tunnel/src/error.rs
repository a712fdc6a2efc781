//! What can go wrong in the tunnel, each with its remedy.

use std::io;
use std::net::SocketAddr;

/// An error of the tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The publisher could not listen at the address of the task.
    #[error("cannot listen on {address}; is another program using the port? choose a free one or stop that program")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A frame of the lease pipe has an impossible length.
    #[error("a frame of {len} bytes was given, but the lease pipe takes 1 to {max} bytes")]
    FrameLength {
        /// The length of the frame.
        len: usize,
        /// The longest frame, in bytes.
        max: usize,
    },
    /// The session is over.
    #[error("the tunnel is closed: {why}")]
    Closed {
        /// Why it was closed.
        why: String,
    },
    /// The node tried to open a pipe.
    #[error("a node cannot open a pipe; only the publisher's end of the tunnel can")]
    NotPublisher,
    /// A pipe was asked for by a name the node did not offer.
    #[error("there is no pipe named {name}; the node offers {offered}")]
    UnknownPipe {
        /// The name that was asked for.
        name: String,
        /// The name the node offers.
        offered: String,
    },
    /// Too many pipes are open at once.
    #[error("{max} pipes are open already; close one first")]
    TooManyPipes {
        /// How many may be open in one session.
        max: usize,
    },
    /// The node did not open the pipe.
    #[error("the node did not open the pipe ({why}); the guest may not be running yet")]
    PipeRefused {
        /// The reason the node gave.
        why: String,
    },
    /// The node did not answer the request for a pipe.
    #[error("the node did not open the pipe within {seconds} s; the guest may be overloaded")]
    PipeTimeout {
        /// How long was waited.
        seconds: u64,
    },
    /// The guest showed another host key than the one expected.
    #[error("the guest's host key is {found}, but {expected} was expected; do not use this guest")]
    GuestHostKey {
        /// The key that was expected, in OpenSSH's format.
        expected: String,
        /// The key that was shown, in OpenSSH's format.
        found: String,
    },
    /// The guest refused the login.
    #[error("the guest refused the login of {user}; was its key put in when the guest was started?")]
    GuestLogin {
        /// The user name in the guest.
        user: String,
    },
    /// The guest did not finish what was asked in time.
    #[error("the guest did not finish {what} within {seconds} s")]
    GuestTimeout {
        /// What was being done.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The guest refused to run a command.
    #[error("the guest refused to run a command; its SSH server may be out of processes")]
    GuestExec,
    /// A command printed more than is kept.
    #[error("the command printed more than {max} bytes; stream its output instead")]
    OutputTooLong {
        /// How many bytes are kept of each stream.
        max: usize,
    },
    /// A key could not be written in OpenSSH's format.
    #[error("the key cannot be written in OpenSSH's format")]
    Key(#[source] russh::keys::ssh_key::Error),
    /// A stock program that is needed for a measurement is missing or failed.
    #[error("{program} is needed for this measurement and failed ({why}); {remedy}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// What happened.
        why: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The SSH protocol failed.
    #[error("the SSH connection failed")]
    Ssh(#[from] russh::Error),
    /// Reading or writing failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Says in a few plain words why a session of the SSH library ended.
pub(crate) fn why_ended(error: &russh::Error) -> String {
    use russh::Error as E;
    match error {
        E::KeepaliveTimeout => "the other end did not answer for 8 s".to_owned(),
        E::Disconnect | E::HUP | E::SendError | E::RecvError => "the connection was closed".to_owned(),
        E::IO(e) if e.kind() == io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        E::IO(e) => e.to_string(),
        other => other.to_string(),
    }
}
