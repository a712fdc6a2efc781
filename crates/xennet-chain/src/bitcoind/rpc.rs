//! Bitcoin Core's JSON-RPC over HTTP: one connection a call, every answer bounded in time and size.
//!
//! The cookie is read anew for each call, since bitcoind writes another one at each start.

use std::time::Duration;

use base64::Engine as _;
use bitcoin::consensus::encode::deserialize_hex;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::BitcoindAuth;
use crate::ChainError;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take. bitcoind holds its lock for seconds while it connects blocks.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a search of all block filters may take: minutes on the main network.
const LONG_ANSWER: Duration = Duration::from_secs(900);
/// Longest answer: the ids of some 900,000 unconfirmed transactions. A full block in hexadecimal has 8 MB.
const MAX_ANSWER: usize = 64_000_000;
/// Longest cookie that is read.
const MAX_COOKIE: u64 = 1_000;

/// Where bitcoind is, and how it knows us.
#[derive(Debug)]
pub(super) struct Rpc {
    pub(super) url: String,
    authority: String,
    auth: BitcoindAuth,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// bitcoind says no: its code and words.
    Refused { code: i64, message: String },
    /// Anything else.
    For(ChainError),
}

impl Rpc {
    pub(super) fn new(url: &str, auth: BitcoindAuth) -> Result<Rpc, ChainError> {
        let bad = |why: &str| ChainError::Address { url: url.to_owned(), why: why.to_owned() };
        let authority = url.strip_prefix("http://").ok_or_else(|| bad("it does not begin with http://"))?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| bad("it has no port"))?;
        if host.is_empty() || authority.contains(['/', '@', ' ']) {
            return Err(bad("it is not of the form http://HOST:PORT"));
        }
        port.parse::<u16>().map_err(|_| bad("its port is no number from 1 to 65535"))?;
        Ok(Rpc { url: url.to_owned(), authority: authority.to_owned(), auth })
    }

    /// One call.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, Failed> {
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let patience = if method == "scanblocks" { LONG_ANSWER } else { ANSWER };
        result_of(self, self.post(&body, patience).await.map_err(Failed::For)?)
    }

    /// One method with many parameters, in one request. The answers are in the order of the questions.
    pub(super) async fn call_each(&self, method: &str, params: Vec<Value>) -> Result<Vec<Result<Value, Failed>>, ChainError> {
        if params.is_empty() {
            return Ok(Vec::new());
        }
        let count = params.len();
        let calls: Vec<Value> =
            (0..count).zip(params).map(|(id, params)| json!({ "jsonrpc": "1.0", "id": id, "method": method, "params": params })).collect();
        let Value::Array(mut answers) = self.post(&Value::Array(calls), ANSWER).await? else {
            return Err(self.strange(format!("{method}: no list of answers came")));
        };
        answers.sort_by_key(|answer| answer.get("id").and_then(Value::as_u64));
        let in_order = answers.iter().zip(0u64..).all(|(answer, id)| answer.get("id").and_then(Value::as_u64) == Some(id));
        if answers.len() != count || !in_order {
            return Err(self.strange(format!("{method}: {count} questions, and {} answers came", answers.len())));
        }
        Ok(answers.into_iter().map(|answer| result_of(self, answer)).collect())
    }

    /// One call whose refusal is an error like any other.
    pub(super) async fn ask(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        self.call(method, params).await.map_err(|why| self.plain(method, why))
    }

    pub(super) fn plain(&self, method: &str, why: Failed) -> ChainError {
        match why {
            // It is starting, and says how far it is.
            Failed::Refused { code: -28, message } => ChainError::Away { url: self.url.clone(), why: message },
            Failed::Refused { code, message } => self.strange(format!("{method}: {message} (code {code})")),
            Failed::For(why) => why,
        }
    }

    pub(super) fn strange(&self, why: impl Into<String>) -> ChainError {
        ChainError::Answer { url: self.url.clone(), why: why.into() }
    }

    /// Reads something that came as hexadecimal.
    pub(super) fn decode<T: bitcoin::consensus::Decodable>(&self, what: &str, value: &Value) -> Result<T, ChainError> {
        let text = value.as_str().ok_or_else(|| self.strange(format!("{what} is no text")))?;
        deserialize_hex(text).map_err(|why| self.strange(format!("{what}: {why}")))
    }

    /// Reads a field.
    pub(super) fn field<T: serde::de::DeserializeOwned>(&self, value: &Value, name: &str) -> Result<T, ChainError> {
        let field = value.get(name).ok_or_else(|| self.strange(format!("the answer has no {name}")))?;
        T::deserialize(field).map_err(|why| self.strange(format!("{name}: {why}")))
    }

    async fn post(&self, body: &Value, patience: Duration) -> Result<Value, ChainError> {
        let away = |why: String| ChainError::Away { url: self.url.clone(), why };
        let authorization = self.authorization().await?;
        let request = Request::post("/")
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|why| self.strange(why.to_string()))?;
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(&self.authority)).await;
        let stream = stream.map_err(|_| away(format!("no connection in {} s", CONNECT.as_secs())))?.map_err(|why| away(why.to_string()))?;
        let talk = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|why| away(why.to_string()))?;
            let exchange = async {
                let response = sender.send_request(request).await.map_err(|why| away(why.to_string()))?;
                let status = response.status();
                let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
                let body = body.map_err(|why| self.strange(format!("the answer is cut off or longer than {MAX_ANSWER} bytes: {why}")))?;
                Ok::<_, ChainError>((status, body))
            };
            // The connection is driven here, so that it ends with the call.
            tokio::pin!(exchange);
            tokio::select! {
                answer = &mut exchange => answer,
                _ = connection => exchange.await,
            }
        };
        let (status, body) = match tokio::time::timeout(patience, talk).await {
            Ok(answer) => answer?,
            Err(_) => return Err(away(format!("no answer in {} s", patience.as_secs()))),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied()),
            StatusCode::SERVICE_UNAVAILABLE => Err(away("its queue of calls is full: raise rpcworkqueue".to_owned())),
            status => serde_json::from_slice(&body.to_bytes()).map_err(|why| self.strange(format!("{status}, no JSON: {why}"))),
        }
    }

    async fn authorization(&self) -> Result<String, ChainError> {
        let secret = match &self.auth {
            BitcoindAuth::UserPassword { user, password } => format!("{user}:{password}"),
            BitcoindAuth::CookieFile(path) => {
                let bad = |why: String| ChainError::Cookie { url: self.url.clone(), path: path.clone(), why };
                let file = tokio::fs::File::open(path).await.map_err(|why| bad(why.to_string()))?;
                let mut text = String::new();
                let mut file = tokio::io::AsyncReadExt::take(file, MAX_COOKIE);
                tokio::io::AsyncReadExt::read_to_string(&mut file, &mut text).await.map_err(|why| bad(why.to_string()))?;
                text.trim().to_owned()
            }
        };
        Ok(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(secret)))
    }

    fn denied(&self) -> ChainError {
        match &self.auth {
            BitcoindAuth::CookieFile(path) => {
                let why = "bitcoind does not accept it".to_owned();
                ChainError::Cookie { url: self.url.clone(), path: path.clone(), why }
            }
            BitcoindAuth::UserPassword { user, .. } => ChainError::Password { url: self.url.clone(), user: user.clone() },
        }
    }
}

fn result_of(rpc: &Rpc, mut answer: Value) -> Result<Value, Failed> {
    match answer.get("error") {
        None | Some(Value::Null) => {}
        Some(error) => {
            let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
            let message = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
            return Err(Failed::Refused { code, message: message.chars().take(500).collect() });
        }
    }
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(Failed::For(rpc.strange("an answer without result"))),
    }
}
