//! How `penstock` ends: the exit codes of sysexits.h, and the sentence that goes with them.

use std::io;
use std::process::ExitCode;

use super::beside::aside;
use crate::control::client::ClientError;
use crate::control::protocol::FailureKind;
use crate::mail::text::printable;

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub struct Trouble {
    code: ExitCode,
    /// What is wrong and, where we know it, what to do; empty: all was said already.
    message: String,
}

/// What a verb gives.
pub type Outcome = Result<(), Trouble>;

impl Trouble {
    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// It was asked for wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(64, message)
    }

    /// There is no daemon to ask.
    pub fn no_daemon(message: impl Into<String>) -> Self {
        Self::new(69, message)
    }

    /// Not now.
    pub fn try_again(message: impl Into<String>) -> Self {
        Self::new(75, message)
    }

    /// The configuration is wrong.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(78, message)
    }

    /// The same, with another line below.
    pub fn and(self, line: impl AsRef<str>) -> Self {
        Self {
            message: format!("{}\n{}", self.message, line.as_ref()),
            ..self
        }
    }

    /// The output already says how it went; only the exit code is missing.
    pub fn said(code: ExitCode) -> Self {
        Self {
            code,
            message: String::new(),
        }
    }

    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::from(code),
            message: message.into(),
        }
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(&self, program: &str) -> ExitCode {
        // A daemon quotes relays: what they say is shown, not obeyed.
        let lines = self.message.lines();
        for (place, line) in lines.map(|it| printable(it.as_bytes(), 2_000)).enumerate() {
            match place {
                0 => aside(format!("{program}: {line}")),
                _ => aside(line),
            }
        }
        self.code
    }
}

impl From<io::Error> for Trouble {
    /// A reader that has seen enough (`penstock queue | head`) is no failure.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(0, ""),
            _ => Self::failed(format!("cannot write: {error}")),
        }
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NoDaemon { .. } => Self::no_daemon(format!(
                "{message}\nstart it with: systemctl start penstock"
            )),
            ClientError::Silent { .. } => Self::try_again(message),
            ClientError::RequestTooLong => Self::usage(message),
            ClientError::Refused(failure) => match failure.kind {
                FailureKind::BadRequest => Self::usage(message),
                FailureKind::NotFound | FailureKind::Failed => Self::failed(message),
                FailureKind::TryAgain => Self::try_again(message),
                FailureKind::BadConfiguration => Self::configuration(message),
            },
            ClientError::Denied { .. }
            | ClientError::NotUnderstood { .. }
            | ClientError::OtherProtocol { .. }
            | ClientError::Broken { .. } => Self::failed(message),
        }
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}
