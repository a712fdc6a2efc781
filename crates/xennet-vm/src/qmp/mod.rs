//! QEMU's control protocol, as little of it as is needed.
//!
//! The crates that follow QEMU's schema refuse answers of other versions, so this client is tolerant: it looks at
//! the members it knows and passes over everything else. Lines, waits and memory are bounded all the same,
//! because an attacker who broke out of the guest speaks from QEMU's end.

mod message;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use message::{Message, parse};

/// The longest line that is read: 64 KiB of console text with every character escaped.
pub const MAX_LINE: usize = 512 * 1024;

/// How long a command may take. QEMU answers from its main loop, in milliseconds unless the host is starved.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Why QEMU's control socket is of no use, or a command was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// QEMU closed the connection, most likely because it ended.
    #[error("QEMU closed the connection")]
    Closed,
    /// No answer came.
    #[error("QEMU did not answer {command} within {} s", ANSWER_WITHIN.as_secs())]
    Late {
        /// The command.
        command: String,
    },
    /// A line that is longer than [`MAX_LINE`].
    #[error("QEMU sent a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// A line that is no message of this protocol.
    #[error("QEMU sent a line that is no QMP message")]
    Malformed,
    /// QEMU understood the command and refused it.
    #[error("QEMU refused {command}: {said}")]
    Refused {
        /// The command.
        command: String,
        /// Its reason.
        said: String,
    },
    /// The socket failed.
    #[error("reading or writing the control socket failed")]
    Io(#[from] std::io::Error),
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// One connection to a QEMU. Dropping it leaves QEMU running.
#[derive(Debug)]
pub struct Qmp {
    write: tokio::sync::Mutex<(OwnedWriteHalf, u64)>,
    waiting: Waiting,
    closed: watch::Receiver<bool>,
    reader: JoinHandle<()>,
}

impl Qmp {
    /// Connects to the socket `name` in `dir` and leaves the greeting behind.
    ///
    /// # Errors
    /// When nobody listens, or what answers does not speak QMP within 20 s.
    pub async fn connect(dir: impl AsFd, name: &str) -> Result<Qmp, QmpError> {
        // By way of the folder's descriptor: a socket's path may have 107 bytes, a data directory's may be longer.
        let path = socket_path(&dir, name);
        let greet = async {
            let (read, write) = UnixStream::connect(&path).await?.into_split();
            let mut read = BufReader::new(read);
            match parse(&read_line(&mut read).await?)? {
                Message::Greeting => Ok((read, write)),
                _ => Err(QmpError::Malformed),
            }
        };
        let (read, write) =
            tokio::time::timeout(ANSWER_WITHIN, greet).await.map_err(|_| QmpError::Late { command: "the connection".into() })??;
        let waiting = Waiting::default();
        let (closing, closed) = watch::channel(false);
        let reader = tokio::spawn({
            let waiting = Arc::clone(&waiting);
            async move {
                if let Err(error) = read_on(read, &waiting).await {
                    tracing::debug!(%error, "control socket of a guest ended");
                }
                // Dropping the senders tells every waiting command that no answer will come.
                lock(&waiting).clear();
                let _ = closing.send(true);
            }
        });
        let qmp = Qmp { write: tokio::sync::Mutex::new((write, 0)), waiting, closed, reader };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Carries out a command and returns what it answers.
    ///
    /// # Errors
    /// [`QmpError::Refused`] with QEMU's reason; anything else means that the connection is of no more use.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let (sender, answer) = oneshot::channel();
        let exchange = async {
            {
                let mut write = self.write.lock().await;
                write.1 = write.1.wrapping_add(1);
                let id = write.1;
                lock(&self.waiting).insert(id, sender);
                let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
                line.push('\n');
                write.0.write_all(line.as_bytes()).await?;
            }
            if *self.closed.borrow() {
                // The reader ended before the sender was put in, so nobody would drop it.
                lock(&self.waiting).clear();
            }
            answer.await.map_err(|_| QmpError::Closed)
        };
        match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Err(_) => Err(QmpError::Late { command: command.into() }),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Err(said))) => Err(QmpError::Refused { command: command.into(), said }),
            Ok(Ok(Ok(value))) => Ok(value),
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // QEMU serves one connection at a time: the next one is served when this one is closed.
        self.reader.abort();
    }
}

/// The path of a socket that fits into a socket address however deep its folder lies.
pub(crate) fn socket_path(dir: &impl AsFd, name: &str) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string()).join(name)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads for as long as the connection lives, so that QEMU never has to keep events for us.
async fn read_on(mut read: BufReader<OwnedReadHalf>, waiting: &Waiting) -> Result<(), QmpError> {
    loop {
        match parse(&read_line(&mut read).await?)? {
            Message::Answer { id, result } => {
                if let Some(sender) = lock(waiting).remove(&id) {
                    let _ = sender.send(result);
                }
            }
            Message::Event { name } if name == "BLOCK_IO_ERROR" => {
                tracing::warn!("a guest's disk failed to be read or written: is the host's disk full?");
            }
            Message::Event { name } => tracing::debug!(event = %name, "guest"),
            Message::Greeting | Message::Other => {}
        }
    }
}

/// One line, without its end.
async fn read_line(read: &mut BufReader<OwnedReadHalf>) -> Result<Vec<u8>, QmpError> {
    let mut line = Vec::new();
    loop {
        let available = read.fill_buf().await?;
        if available.is_empty() {
            return Err(QmpError::Closed);
        }
        let (taken, whole) = match available.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (available.len(), false),
        };
        if line.len() + taken > MAX_LINE {
            return Err(QmpError::TooLong);
        }
        line.extend_from_slice(&available[..taken]);
        read.consume(taken);
        if whole {
            return Ok(line);
        }
    }
}

#[cfg(test)]
mod tests;
