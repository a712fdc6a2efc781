//! What went wrong and the next step, shown once, at the edge.

use std::error::Error;
use std::process::ExitCode;

use serde_json::json;
use xennetd::config::ConfigError;
use xennetd::control::{ClientError, Failure};
use xennetd::guest::GuestError;

/// An error with its next step and the exit code it ends with.
#[derive(Debug)]
pub struct Fail {
    message: String,
    next: String,
    code: u8,
}

impl Fail {
    /// Ends with exit code 1 and has no next step yet.
    pub fn new(message: impl Into<String>) -> Fail {
        Fail { message: message.into(), next: String::new(), code: 1 }
    }

    /// With what can be done about it.
    pub fn next(mut self, step: impl Into<String>) -> Fail {
        self.next = step.into();
        self
    }

    /// With its cause.
    pub fn because(mut self, cause: impl Error) -> Fail {
        self.message = format!("{}: {}", self.message, chain(&cause));
        self
    }

    /// With another exit code.
    pub fn code(mut self, code: u8) -> Fail {
        self.code = code;
        self
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Shows it on stderr.
    pub fn show(&self, as_json: bool) -> ExitCode {
        if as_json {
            eprintln!("{}", json!({"error": {"message": self.message, "next": self.next, "exit_code": self.code}}));
        } else {
            eprintln!("xennet: {}", self.message);
            if !self.next.is_empty() {
                eprintln!("next: {}", self.next);
            }
        }
        ExitCode::from(self.code)
    }

    /// Shows it on stderr as something that does not end this program.
    pub fn show_as_note(&self, about: &str) {
        eprintln!("xennet: {about}: {}", self.message);
    }
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl From<ClientError> for Fail {
    fn from(error: ClientError) -> Fail {
        let next = match &error {
            ClientError::NoDaemon { .. } => "start one: `xennet publish task.toml` for a publisher, `xennet node run` for a node".into(),
            ClientError::Forbidden { .. } => "run xennet as the user who started the daemon, or choose another --datadir".into(),
            ClientError::Failed(Failure { remedy, .. }) => remedy.clone(),
            ClientError::Broken(_) => "if it stopped by itself, xennetd.log in the data directory says why".into(),
            ClientError::Strange { .. } => "use xennet and xennetd of one version: `xennet stop` ends the old daemon".into(),
        };
        Fail::new(chain(&error)).next(next)
    }
}

impl From<ConfigError> for Fail {
    fn from(error: ConfigError) -> Fail {
        Fail::new(chain(&error))
    }
}

impl From<GuestError> for Fail {
    fn from(error: GuestError) -> Fail {
        match error {
            GuestError::Daemon(error) => error.into(),
            error => Fail::new(chain(&error)),
        }
    }
}
