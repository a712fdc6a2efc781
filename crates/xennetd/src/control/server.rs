//! The daemon's end of the control socket.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, http};
use futures::Stream;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xennet_task::LeaseId;

use super::{Command, Event, Failure, FailureKind, MAX_COMMAND_BYTES, PIPE_PROTOCOL, Reply, What};

/// Anything bytes go through both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A pipe of a lease, as the daemon hands it over.
pub type PipeStream = Box<dyn Duplex>;

/// What a client wants of the daemon's loop. The loop answers through `reply`; if `reply` is closed, the client has hung up.
pub enum Request {
    /// Carry out a command.
    Command {
        /// The command.
        command: Command,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Reply, Failure>>,
    },
    /// Open a pipe of a lease. The server joins it to the client's connection, so the loop carries no bytes.
    Pipe {
        /// The lease.
        lease: LeaseId,
        /// The pipe's name, e.g. [`GUEST_SSH`](super::GUEST_SSH).
        name: String,
        /// Where the opened pipe goes.
        reply: oneshot::Sender<Result<PipeStream, Failure>>,
    },
}

/// Why the control socket could not be opened.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Unix socket paths are short.
    #[error(
        "the control socket's path {path} has {length} bytes, but a unix socket's path may have at most {MAX_SOCKET_PATH}: \
         choose a shorter --datadir"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The operating system refused.
    #[error("cannot open the control socket {path}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// `sun_path` holds 108 bytes, the last of them zero.
const MAX_SOCKET_PATH: usize = 107;

/// How long clients have to take their answers when the daemon stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Bytes each way between a client and a pipe at a time.
const PIPE_BUFFER: usize = 64 * 1024;

/// A served control socket. Dropping it stops serving and removes the socket file: nobody new gets in, those who listen to
/// events hear their end, and answers that are on their way still arrive.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
    stopped: CancellationToken,
    path: PathBuf,
}

impl Server {
    /// Stops serving, and waits a little until the answers on their way have arrived: the process may end after this.
    pub async fn close(mut self) {
        self.stopped.cancel();
        let _ = tokio::time::timeout(LAST_ANSWERS, &mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        self.stopped.cancel();
        // Gone already is as good as removed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves the control API on `path` until the [`Server`] is dropped. Requests go to `requests`; what is sent to `events`
/// goes to every client that listens.
///
/// A socket left over by a killed daemon is replaced: the store's lock has already made sure that there is no other daemon.
pub fn serve(path: &Path, requests: mpsc::Sender<Request>, events: broadcast::Sender<Event>) -> Result<Server, ServeError> {
    let listener = bind_private(path)?;
    let stopped = CancellationToken::new();
    let app = router(Shared { requests, events, stopped: stopped.clone() });
    let until = stopped.clone();
    let task = tokio::spawn(async move {
        // Accept errors are waited out inside.
        let _ = axum::serve(listener, app).with_graceful_shutdown(until.cancelled_owned()).await;
    });
    Ok(Server { task, stopped, path: path.to_path_buf() })
}

/// Binds the socket so that at no instant anybody else could connect: inside a directory of mode 0700, then moved.
fn bind_private(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Io { path: path.to_path_buf(), source };
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(".d");
    let hidden = PathBuf::from(hidden);
    let inner = hidden.join("s");
    let length = inner.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(ServeError::PathTooLong { path: path.to_path_buf(), length });
    }
    let _ = fs::remove_dir_all(&hidden);
    fs::create_dir(&hidden).map_err(failed)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let listener = UnixListener::bind(&inner).map_err(failed)?;
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&inner, path).map_err(failed)?;
    fs::remove_dir(&hidden).map_err(failed)?;
    Ok(listener)
}

#[derive(Clone)]
struct Shared {
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<Event>,
    stopped: CancellationToken,
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/command", post(command))
        .route("/v1/events", get(events))
        .route("/v1/pipe/{lease}/{name}", get(pipe))
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::max(MAX_COMMAND_BYTES))
        .with_state(shared)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

fn stopping() -> Failure {
    Failure::new(FailureKind::Unavailable, "the daemon is stopping", "Start it again, then repeat the command.")
}

async fn command(State(shared): State<Shared>, body: Result<Json<Command>, JsonRejection>) -> Result<Json<Reply>, Failure> {
    let Json(command) = body.map_err(|e| {
        Failure::new(FailureKind::BadInput, e.body_text(), "Send one Command as JSON with the header Content-Type: application/json.")
    })?;
    let (reply, answer) = oneshot::channel();
    let request = Request::Command { command, reply };
    shared.requests.send(request).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?.map(Json)
}

async fn events(State(shared): State<Shared>) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let listener = (shared.events.subscribe(), shared.stopped);
    let stream = futures::stream::unfold(listener, |(mut receiver, stopped)| async move {
        let event = match stopped.run_until_cancelled(receiver.recv()).await? {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => Event { at_ms: crate::clock::unix_ms(), what: What::Lagged { missed } },
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        // Plain data always has a JSON form; were there none, the comment keeps the stream going.
        let sse = SseEvent::default().json_data(&event).unwrap_or_else(|_| SseEvent::default().comment("unencodable"));
        Some((Ok(sse), (receiver, stopped)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

async fn pipe(
    State(shared): State<Shared>,
    UrlPath((lease, name)): UrlPath<(String, String)>,
    mut request: http::Request<Body>,
) -> Result<Response, Failure> {
    let lease: LeaseId = lease.parse().map_err(|_| {
        Failure::new(
            FailureKind::BadInput,
            format!("\"{lease}\" is no lease"),
            "A lease is 16 hexadecimal digits; `xennet leases` lists them.",
        )
    })?;
    let wanted = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok());
    if wanted != Some(PIPE_PROTOCOL) {
        return Err(Failure::new(
            FailureKind::BadInput,
            "a pipe needs an upgraded connection",
            format!("Send the headers Connection: upgrade and Upgrade: {PIPE_PROTOCOL}."),
        ));
    }
    let (reply, answer) = oneshot::channel();
    let wish = Request::Pipe { lease, name, reply };
    shared.requests.send(wish).await.map_err(|_| stopping())?;
    let mut pipe = answer.await.map_err(|_| stopping())??;

    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(client) = upgrade.await else { return };
        let mut client = TokioIo::new(client);
        // Either end may hang up at any time; that is how pipes end.
        let _ = copy_bidirectional_with_sizes(&mut client, &mut pipe, PIPE_BUFFER, PIPE_BUFFER).await;
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PIPE_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

async fn unknown_path(uri: http::Uri) -> Failure {
    Failure::not_found(format!("path {}", uri.path()), "The paths are /v1/command, /v1/events and /v1/pipe/LEASE/NAME.")
}
