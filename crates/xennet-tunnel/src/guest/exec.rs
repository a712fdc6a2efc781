//! Commands in the guest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::error::TunnelError;

/// How much of either output [`super::GuestSsh::run`] keeps.
const MAX_OUTPUT: usize = 4 * 1024 * 1024;
/// The type of extended data that is standard error.
const STDERR: u32 = 1;

/// A running command. Its output must be read: while nobody does, everything in this login stands still.
#[derive(Debug)]
pub struct ExecStream {
    /// Its standard input.
    pub input: ExecInput,
    /// What comes from it.
    pub output: ExecOutput,
}

/// The standard input of a command. Shutting it down is the end of the input; dropping it is not.
pub struct ExecInput {
    writer: Pin<Box<dyn AsyncWrite + Send>>,
}

/// What comes from a command. Dropping it ends the command, as hanging up does.
#[derive(Debug)]
pub struct ExecOutput {
    reader: ChannelReadHalf,
    closer: Closer,
}

/// Closes the channel when dropped.
#[derive(Debug)]
struct Closer(Option<ChannelWriteHalf<Msg>>);

/// Something that comes from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// A piece of standard output.
    Stdout(Vec<u8>),
    /// A piece of standard error.
    Stderr(Vec<u8>),
    /// It ended with this status.
    Exit(u32),
    /// A signal ended it.
    Signal(String),
}

/// All that came from a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Its exit status, unless a signal ended it or the connection broke.
    pub status: Option<u32>,
    /// The signal that ended it, if one did.
    pub signal: Option<String>,
}

impl Output {
    /// Whether the status is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }
}

impl ExecStream {
    pub(super) async fn start(mut channel: Channel<Msg>, command: &str) -> Result<Self, TunnelError> {
        channel.exec(true, command).await?;
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::Failure | ChannelMsg::Close) => return Err(TunnelError::GuestExec),
                Some(_) => (),
                None => return Err(russh::Error::Disconnect.into()),
            }
        }
        let (reader, writer) = channel.split();
        Ok(Self {
            input: ExecInput { writer: Box::pin(writer.make_writer()) },
            output: ExecOutput { reader, closer: Closer(Some(writer)) },
        })
    }

    /// Writes the input and reads the output at the same time, to the end.
    pub(super) async fn run(self, stdin: &[u8]) -> Result<Output, TunnelError> {
        let Self { mut input, output: mut from } = self;
        let feed = async {
            // A command that ends without having read its input is no error.
            let _ = input.write_all(stdin).await;
            let _ = input.shutdown().await;
            std::future::pending::<()>().await;
        };
        let collect = async {
            let mut output = Output::default();
            while let Some(event) = from.next().await {
                let (kept, piece) = match event {
                    ExecEvent::Stdout(piece) => (&mut output.stdout, piece),
                    ExecEvent::Stderr(piece) => (&mut output.stderr, piece),
                    ExecEvent::Exit(status) => {
                        output.status = Some(status);
                        continue;
                    }
                    ExecEvent::Signal(name) => {
                        output.signal = Some(name);
                        continue;
                    }
                };
                if kept.len() + piece.len() > MAX_OUTPUT {
                    return Err(TunnelError::OutputTooLong { max: MAX_OUTPUT });
                }
                kept.extend_from_slice(&piece);
            }
            if output.status.is_none() && output.signal.is_none() {
                return Err(russh::Error::Disconnect.into());
            }
            Ok(output)
        };
        tokio::select! {
            output = collect => output,
            () = feed => Err(russh::Error::Disconnect.into()),
        }
    }
}

impl ExecOutput {
    /// The next thing that comes, or `None` at the end. A command that came to its end by itself has given
    /// [`ExecEvent::Exit`] or [`ExecEvent::Signal`] before.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        loop {
            return match self.reader.wait().await? {
                ChannelMsg::Data { data } => Some(ExecEvent::Stdout(data.to_vec())),
                ChannelMsg::ExtendedData { data, ext: STDERR } => Some(ExecEvent::Stderr(data.to_vec())),
                ChannelMsg::ExitStatus { exit_status } => Some(ExecEvent::Exit(exit_status)),
                ChannelMsg::ExitSignal { signal_name, .. } => Some(ExecEvent::Signal(format!("{signal_name:?}"))),
                ChannelMsg::Close => {
                    self.closer.0 = None;
                    None
                }
                _ => continue,
            };
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = writer.close().await;
            });
        }
    }
}

impl AsyncWrite for ExecInput {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().writer.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.as_mut().poll_shutdown(cx)
    }
}

impl std::fmt::Debug for ExecInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecInput").finish_non_exhaustive()
    }
}
