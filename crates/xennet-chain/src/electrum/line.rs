//! The line to a server: JSON in lines, many questions under way at once, each answered by its number.
//!
//! Whatever the server sends is bounded: the length of a line, the questions that wait, the time that each may take. A line that
//! breaks a bound ends.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::hashes::sha256;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{ElectrumServer, tls};
use crate::ChainError;

/// How long a connection may take, encryption included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest line: the largest transaction that fits into a block, in hexadecimal.
const MAX_LINE: usize = 8_200_000;
/// Questions under way at once.
const MOST_ASKED: usize = 32;
/// Scripts of which a change may be noted before somebody looks.
const MOST_CHANGED: usize = 100_000;
/// Most of a server's words that is repeated.
const MAX_WORDS: usize = 500;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why a question failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server says no, in these words.
    Refused(String),
    /// Anything else.
    For(ChainError),
}

/// What the server said without being asked.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The end of its chain, as it was last told.
    pub(super) tip: Option<Value>,
    /// Scripts whose past has changed.
    pub(super) changed: HashSet<sha256::Hash>,
}

struct Asked {
    answer: oneshot::Sender<Result<Value, String>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    asked: HashMap<u64, Asked>,
    /// Why the line has ended.
    ended: Option<String>,
}

/// What the one who reads and those who ask share.
struct Shared {
    waiting: Mutex<Waiting>,
    heard: Mutex<Heard>,
    stir: Arc<Notify>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more comes: whoever waits is told by the end of his channel.
    fn end(&self, why: String) {
        let mut waiting = self.waiting();
        waiting.ended.get_or_insert(why);
        waiting.asked.clear();
        drop(waiting);
        self.stir.notify_one();
    }

    /// Takes in what a line says.
    fn take(&self, line: &[u8]) -> Result<(), String> {
        let mut message: Value = serde_json::from_slice(line).map_err(|why| format!("a line that is no JSON: {why}"))?;
        if let Some(id) = message.get("id").and_then(Value::as_u64) {
            let asked = {
                let mut waiting = self.waiting();
                if id >= waiting.next {
                    return Err("an answer to what nobody asked".to_owned());
                }
                waiting.asked.remove(&id)
            };
            let answer = match message.get("error") {
                None | Some(Value::Null) => Ok(message.get_mut("result").map(Value::take).unwrap_or_default()),
                Some(error) => Err(words(error)),
            };
            if let Some(asked) = asked {
                // Whoever asked may be gone.
                let _ = asked.answer.send(answer);
            }
            return Ok(());
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match message.get("method").and_then(Value::as_str) {
            Some("blockchain.headers.subscribe") => heard.tip = message.pointer_mut("/params/0").map(Value::take),
            Some("blockchain.scripthash.subscribe") => {
                let script = message.pointer("/params/0").and_then(Value::as_str).and_then(|text| text.parse().ok());
                if let Some(script) = script.filter(|_| heard.changed.len() < MOST_CHANGED) {
                    heard.changed.insert(script);
                }
            }
            _ => return Ok(()),
        }
        drop(heard);
        self.stir.notify_one();
        Ok(())
    }
}

/// Takes the number back if whoever asked no longer waits.
struct Number<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        self.shared.waiting().asked.remove(&self.id);
    }
}

/// A line that stands.
pub(super) struct Line {
    url: String,
    shared: Arc<Shared>,
    /// Whole lines, for whoever asks may stop in the middle.
    to_send: mpsc::Sender<String>,
    permits: Arc<Semaphore>,
    tasks: [JoinHandle<()>; 2],
    /// How long an answer may take.
    patience: Duration,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Line {
    /// Connects. `stir` is told of whatever the server says without being asked, and of the line's end.
    pub(super) async fn open(server: &ElectrumServer, dir: &Path, stir: Arc<Notify>) -> Result<Line, ChainError> {
        let away = |why: String| ChainError::Away { url: server.to_string(), why };
        let connect = async {
            let stream = TcpStream::connect((server.host(), server.port())).await.map_err(|why| away(why.to_string()))?;
            stream.set_nodelay(true).map_err(|why| away(why.to_string()))?;
            if server.is_encrypted() {
                return Ok(Box::new(tls::encrypt(stream, server, dir).await?) as Box<dyn Stream>);
            }
            Ok::<_, ChainError>(Box::new(stream) as Box<dyn Stream>)
        };
        let stream = tokio::time::timeout(CONNECT, connect).await;
        let stream = stream.map_err(|_| away(format!("no connection in {} s", CONNECT.as_secs())))??;
        Ok(Line::over(server.to_string(), stream, stir, ANSWER))
    }

    fn over(url: String, stream: Box<dyn Stream>, stir: Arc<Notify>, patience: Duration) -> Line {
        let (from, to) = tokio::io::split(stream);
        let shared = Arc::new(Shared { waiting: Mutex::default(), heard: Mutex::default(), stir });
        let (to_send, lines) = mpsc::channel(MOST_ASKED);
        let tasks = [tokio::spawn(read(from, shared.clone())), tokio::spawn(write(to, lines, shared.clone()))];
        let permits = Arc::new(Semaphore::new(MOST_ASKED));
        Line { url, shared, to_send, permits, tasks, patience }
    }

    /// One question.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, Failed> {
        let mut answers = self.call_each(method, vec![params]).await?;
        answers.pop().unwrap_or_else(|| Err(Failed::For(self.away("no answer".to_owned()))))
    }

    /// One question that is not to be refused.
    pub(super) async fn ask(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        self.call(method, params).await.map_err(|why| self.plain(method, why))
    }

    /// One method with many parameters. The answers are in the order of the questions.
    pub(super) async fn call_each(&self, method: &str, params: Vec<Value>) -> Result<Vec<Result<Value, Failed>>, ChainError> {
        let mut answers = Vec::with_capacity(params.len());
        for part in params.chunks(MOST_ASKED / 2) {
            let all = async {
                let mut under_way = Vec::with_capacity(part.len());
                for params in part {
                    under_way.push(self.send(method, params).await?);
                }
                let mut answered = Vec::with_capacity(part.len());
                for (_number, answer) in &mut under_way {
                    let answer = answer.await.map_err(|_| self.over_because())?;
                    answered.push(answer.map_err(Failed::Refused));
                }
                Ok::<_, ChainError>(answered)
            };
            match tokio::time::timeout(self.patience, all).await {
                Ok(answered) => answers.extend(answered?),
                Err(_) => {
                    let why = format!("no answer to {method} in {} s", self.patience.as_secs());
                    // It would not be known what a late answer is worth, and whoever follows is to connect anew.
                    self.shared.end(why.clone());
                    return Err(self.away(why));
                }
            }
        }
        Ok(answers)
    }

    /// What the server has said without being asked since this was last called; an error if the line has ended.
    pub(super) fn heard(&self) -> Result<Heard, ChainError> {
        if self.shared.waiting().ended.is_some() {
            return Err(self.over_because());
        }
        Ok(std::mem::take(&mut *self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(super) fn plain(&self, method: &str, why: Failed) -> ChainError {
        match why {
            Failed::Refused(words) => ChainError::Answer { url: self.url.clone(), why: format!("it refuses {method}: {words}") },
            Failed::For(why) => why,
        }
    }

    async fn send(&self, method: &str, params: &Value) -> Result<(Number<'_>, oneshot::Receiver<Result<Value, String>>), ChainError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| self.over_because())?;
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut waiting = self.shared.waiting();
            if waiting.ended.is_some() {
                drop(waiting);
                return Err(self.over_because());
            }
            let id = waiting.next;
            waiting.next += 1;
            waiting.asked.insert(id, Asked { answer: sender, _permit: permit });
            Number { shared: &self.shared, id }
        };
        let mut line = json!({ "jsonrpc": "2.0", "id": number.id, "method": method, "params": params }).to_string();
        line.push('\n');
        if self.to_send.send(line).await.is_err() {
            return Err(self.over_because());
        }
        Ok((number, answer))
    }

    fn over_because(&self) -> ChainError {
        let why = self.shared.waiting().ended.clone();
        self.away(why.unwrap_or_else(|| "the line was closed".to_owned()))
    }

    fn away(&self, why: String) -> ChainError {
        ChainError::Away { url: self.url.clone(), why }
    }
}

impl From<ChainError> for Failed {
    fn from(why: ChainError) -> Failed {
        Failed::For(why)
    }
}

async fn read(from: ReadHalf<Box<dyn Stream>>, shared: Arc<Shared>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    let why = loop {
        line.clear();
        line.shrink_to(MAX_LINE / 100);
        match next_line(&mut from, &mut line).await {
            Ok(()) => {}
            Err(why) => break why,
        }
        if let Err(why) = shared.take(&line) {
            break format!("it sent {why}");
        }
    };
    shared.end(why);
}

async fn write(mut to: WriteHalf<Box<dyn Stream>>, mut lines: mpsc::Receiver<String>, shared: Arc<Shared>) {
    while let Some(line) = lines.recv().await {
        let sent = async {
            to.write_all(line.as_bytes()).await?;
            to.flush().await
        };
        if let Err(why) = sent.await {
            shared.end(why.to_string());
            return;
        }
    }
}

/// Reads up to the end of a line, or says why there is none.
async fn next_line(from: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> Result<(), String> {
    loop {
        let part = from.fill_buf().await.map_err(|why| why.to_string())?;
        if part.is_empty() {
            return Err("the server closed the line".to_owned());
        }
        let end = part.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(part.len());
        if line.len() + taken > MAX_LINE {
            return Err(format!("it sent a line of more than {MAX_LINE} bytes"));
        }
        line.extend_from_slice(part.get(..taken).unwrap_or_default());
        from.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(());
        }
    }
}

/// What the server says about a refusal, without what could confuse a terminal.
fn words(error: &Value) -> String {
    let text = match error.get("message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => error.to_string(),
    };
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use tokio::io::DuplexStream;

    use super::*;

    fn line() -> (Line, DuplexStream, Arc<Notify>) {
        let (ours, theirs) = tokio::io::duplex(1_000_000);
        let stir = Arc::new(Notify::new());
        (Line::over("tcp://127.0.0.1:1".to_owned(), Box::new(ours), stir.clone(), Duration::from_secs(1)), theirs, stir)
    }

    #[tokio::test]
    async fn answers_find_their_questions_in_any_order_and_news_is_kept() {
        let (line, mut server, stir) = line();
        let hash = "11".repeat(32);
        let answers = format!(
            "{{\"id\":1,\"result\":\"b\"}}\n{{\"method\":\"blockchain.scripthash.subscribe\",\"params\":[\"{hash}\",null]}}\n\
             {{\"id\":2,\"error\":{{\"code\":1,\"message\":\"no\\nmore\"}}}}\n{{\"id\":0,\"result\":\"a\"}}\n"
        );
        let say = async {
            let mut asked = BufReader::new(&mut server);
            for _ in 0..3 {
                next_line(&mut asked, &mut Vec::new()).await.unwrap();
            }
            server.write_all(answers.as_bytes()).await.unwrap();
        };
        let (found, ()) = tokio::join!(line.call_each("x", vec![json!([]), json!([]), json!([])]), say);
        let found = found.unwrap();
        assert_eq!((found[0].as_ref().unwrap(), found[1].as_ref().unwrap()), (&json!("a"), &json!("b")));
        assert!(matches!(&found[2], Err(Failed::Refused(words)) if words == "no more"));
        stir.notified().await;
        let heard = line.heard().unwrap();
        assert_eq!(heard.changed, HashSet::from([hash.parse().unwrap()]));
        assert!(line.heard().unwrap().changed.is_empty());
    }

    #[tokio::test]
    async fn an_endless_line_or_an_answer_that_nobody_asked_for_or_nonsense_ends_it() {
        for (sent, words) in [
            (vec![b' '; MAX_LINE + 1], "more than 8200000 bytes"),
            (b"{\"id\":7,\"result\":1}\n".to_vec(), "what nobody asked"),
            (b"nonsense\n".to_vec(), "no JSON"),
            (Vec::new(), "closed the line"),
        ] {
            let (line, mut server, _stir) = line();
            let say = async move {
                // The line may end before all is written.
                let _ = server.write_all(&sent).await;
            };
            let (answer, ()) = tokio::join!(line.ask("x", json!([])), say);
            let why = answer.unwrap_err();
            assert!(why.may_pass_later() && why.to_string().contains(words), "{why}");
            assert!(line.heard().is_err());
        }
    }

    #[tokio::test]
    async fn silence_ends_it_too() {
        let (line, _server, _stir) = line();
        let why = line.ask("x", json!([])).await.unwrap_err().to_string();
        assert!(why.contains("no answer to x in 1 s"), "{why}");
        assert!(line.heard().is_err());
    }
}
