//! One line of QMP.

use serde_json::Value;

use super::QmpError;

/// What a line says. Everything that is not needed is [`Message::Other`].
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line of a connection.
    Greeting,
    /// Something happened.
    Event {
        /// Its name, such as `SHUTDOWN`.
        name: String,
    },
    /// The answer to the command with this number: its result, or QEMU's reason for refusing.
    Answer {
        /// The number that was sent with the command.
        id: u64,
        /// Result or reason.
        result: Result<Value, String>,
    },
    /// A message that this client has no use for.
    Other,
}

/// Reads one line.
///
/// # Errors
/// [`QmpError::Malformed`] when it is no JSON object.
pub fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(line) else {
        return Err(QmpError::Malformed);
    };
    if members.contains_key("QMP") {
        return Ok(Message::Greeting);
    }
    if let Some(Value::String(name)) = members.get("event") {
        return Ok(Message::Event { name: name.clone() });
    }
    let Some(id) = members.get("id").and_then(Value::as_u64) else {
        return Ok(Message::Other);
    };
    if let Some(result) = members.remove("return") {
        return Ok(Message::Answer { id, result: Ok(result) });
    }
    let reason = members.get("error").and_then(|error| error.get("desc")).and_then(Value::as_str);
    Ok(Message::Answer { id, result: Err(reason.unwrap_or("without giving a reason").to_owned()) })
}
