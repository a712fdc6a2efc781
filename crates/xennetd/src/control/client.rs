//! A client's end of the control socket.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use xennet_task::LeaseId;

use super::{Command, Event, Failure, PIPE_PROTOCOL, Reply, socket_path};

/// The longest answer taken, bytes: a thousand ledger entries are about 300 KiB.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// The longest event taken, bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Why a command brought no reply.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens on the control socket.
    #[error("no daemon runs on {data_dir}")]
    NoDaemon {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The daemon runs, but this user may not talk to it.
    #[error("this user may not talk to the daemon on {data_dir}: its control socket belongs to another user")]
    Forbidden {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The daemon says no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The connection broke, e.g. because the daemon was stopped.
    #[error("the connection to the daemon broke")]
    Broken(#[source] io::Error),
    /// The daemon answers something that this version does not know.
    #[error("the daemon's answer makes no sense to this version of xennet: {why}")]
    Strange {
        /// What was wrong with it.
        why: String,
    },
}

/// Talks to the daemon of one data directory. Holds no connection: each call makes its own.
#[derive(Debug, Clone)]
pub struct Client {
    data_dir: PathBuf,
}

/// Raw bytes of a pipe.
pub type Pipe = TokioIo<hyper::upgrade::Upgraded>;

type Sender = http1::SendRequest<Full<Bytes>>;

impl Client {
    /// A client of the daemon on `data_dir`, whether or not it runs.
    pub fn new(data_dir: &Path) -> Client {
        Client { data_dir: data_dir.to_path_buf() }
    }

    /// Whether a daemon listens.
    pub async fn is_there(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// Asks for `command`. Waits as long as the daemon takes.
    pub async fn command(&self, command: &Command) -> Result<Reply, ClientError> {
        let body = serde_json::to_vec(command).map_err(strange)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/command")
            .header(header::HOST, "xennetd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(strange)?;
        let response = self.connect().await?.send_request(request).await.map_err(broken)?;
        let response = succeeded(response, StatusCode::OK).await?;
        let body = whole_body(response).await?;
        serde_json::from_slice(&body).map_err(strange)
    }

    /// Listens to what the daemon tells from now on.
    pub async fn events(&self) -> Result<Events, ClientError> {
        let request = Request::builder().uri("/v1/events").header(header::HOST, "xennetd").body(Full::default()).map_err(strange)?;
        let response = self.connect().await?.send_request(request).await.map_err(broken)?;
        let response = succeeded(response, StatusCode::OK).await?;
        Ok(Events { body: response.into_body(), buffer: Vec::new() })
    }

    /// Opens the pipe `name` of a lease.
    pub async fn pipe(&self, lease: &LeaseId, name: &str) -> Result<Pipe, ClientError> {
        let request = Request::builder()
            .uri(format!("/v1/pipe/{lease}/{name}"))
            .header(header::HOST, "xennetd")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, PIPE_PROTOCOL)
            .body(Full::default())
            .map_err(strange)?;
        let response = self.connect().await?.send_request(request).await.map_err(broken)?;
        let response = succeeded(response, StatusCode::SWITCHING_PROTOCOLS).await?;
        let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
        Ok(TokioIo::new(upgraded))
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let stream = UnixStream::connect(socket_path(&self.data_dir)).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon { data_dir: self.data_dir.clone() },
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { data_dir: self.data_dir.clone() },
            _ => ClientError::Broken(e),
        })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends when its sender or its upgraded stream is dropped; what breaks it, the sender hears as well.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

/// What the daemon tells, one event after the other.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the daemon has stopped.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(end) = find(&self.buffer, b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                match parse_block(&block)? {
                    Some(event) => return Ok(Some(event)),
                    // A keep-alive comment.
                    None => continue,
                }
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(strange(format!("an event of more than {MAX_EVENT_BYTES} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(broken)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// One block of server-sent events: lines `data: JSON`, or a comment.
fn parse_block(block: &[u8]) -> Result<Option<Event>, ClientError> {
    let text = std::str::from_utf8(block).map_err(strange)?;
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
    if data.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&data.join("\n")).map(Some).map_err(strange)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

async fn succeeded(response: Response<Incoming>, wanted: StatusCode) -> Result<Response<Incoming>, ClientError> {
    let status = response.status();
    if status == wanted {
        return Ok(response);
    }
    let body = whole_body(response).await?;
    match serde_json::from_slice::<Failure>(&body) {
        Ok(failure) => Err(ClientError::Failed(failure)),
        Err(_) => Err(strange(format!("{status}: {}", String::from_utf8_lossy(&body)))),
    }
}

async fn whole_body(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), MAX_REPLY_BYTES);
    body.collect().await.map(|whole| whole.to_bytes()).map_err(|e| ClientError::Broken(io::Error::other(e)))
}

fn strange(why: impl ToString) -> ClientError {
    ClientError::Strange { why: why.to_string() }
}

fn broken(e: hyper::Error) -> ClientError {
    ClientError::Broken(io::Error::other(e))
}
