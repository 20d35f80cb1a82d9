//! Asking the daemon: a blocking client without a runtime, so that `penstock` starts fast.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Failure, Greeting, Item, Line, PROTOCOL_VERSION, REQUEST_MAXIMUM, Request};

/// A daemon that is alive greets at once, however much it has to do.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// Longer than any line the daemon has a reason to say.
const LINE_MAXIMUM: u64 = 64 * 1024 * 1024;

/// Why the daemon was not asked or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("penstockd does not run: nobody listens on {}", path.display())]
    NoDaemon {
        /// The socket that was tried.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error(
        "may not use {}: become a member of the group penstock-admin (sudo adduser $USER penstock-admin, then log in again), or use sudo", path.display()
    )]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// It listens, but does not say what it should in time.
    #[error("penstockd listens on {} but does not {action}: {source}", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What it should have done.
        action: &'static str,
        /// What happened instead.
        source: io::Error,
    },
    /// Not a greeting or an answer that we know.
    #[error(
        "penstockd says what this penstock does not understand; are they of the same version? (this one is {})",
        env!("CARGO_PKG_VERSION")
    )]
    NotUnderstood {
        /// What could not be read.
        source: serde_json::Error,
    },
    /// Another version of the protocol.
    #[error(
        "penstockd is version {theirs}, which speaks another protocol than this penstock; after an upgrade: systemctl restart penstock"
    )]
    OtherProtocol {
        /// The daemon's version.
        theirs: String,
    },
    /// The request does not fit one line.
    #[error("the request is too long: name fewer messages at once, or use a filter")]
    RequestTooLong,
    /// The daemon refused, in its own words.
    #[error("{0}")]
    Refused(Failure),
    /// The connection ended before the answer did.
    #[error("penstockd ended the connection before its answer was complete: {source}")]
    Broken {
        /// How it ended.
        source: io::Error,
    },
}

/// A connection that was greeted.
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    /// What the daemon said first.
    pub greeting: Greeting,
}

impl Client {
    /// Connects to the daemon that listens on `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon { path: path.into() }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { path: path.into() },
            _ => ClientError::Silent {
                path: path.into(),
                action: "let us in",
                source,
            },
        })?;
        let silent = |source| ClientError::Silent {
            path: path.into(),
            action: "greet",
            source,
        };
        stream
            .set_read_timeout(Some(GREETING_PATIENCE))
            .map_err(silent)?;
        stream
            .set_write_timeout(Some(GREETING_PATIENCE))
            .map_err(silent)?;
        let mut stream = BufReader::with_capacity(64 * 1024, stream);
        let mut line = Vec::new();
        read_line(&mut stream, &mut line).map_err(silent)?;
        let greeting: Greeting = serde_json::from_slice(&line)
            .map_err(|source| ClientError::NotUnderstood { source })?;
        if greeting.protocol != PROTOCOL_VERSION {
            return Err(ClientError::OtherProtocol {
                theirs: greeting.penstock,
            });
        }
        Ok(Self {
            stream,
            path: path.into(),
            greeting,
        })
    }

    /// Asks; the answer is read as it comes.
    pub fn ask(mut self, request: &Request) -> Result<Answer, ClientError> {
        let mut line =
            serde_json::to_vec(request).map_err(|source| ClientError::NotUnderstood { source })?;
        line.push(b'\n');
        if line.len() > REQUEST_MAXIMUM {
            return Err(ClientError::RequestTooLong);
        }
        // A connection too many is told so instead of being asked: read that, then.
        let asked = self.stream.get_mut().write_all(&line);
        // What the daemon does may take as long as a relay does.
        let patient = self.stream.get_mut().set_read_timeout(None);
        if let Err(source) = patient.or(asked.or_else(|it| match it.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(it),
        })) {
            return Err(ClientError::Silent {
                path: self.path,
                action: "take a request",
                source,
            });
        }
        Ok(Answer {
            stream: Some(self.stream),
            line: Vec::new(),
        })
    }
}

/// The items of an answer, as they come; ends at `done`, or with the error that cut it.
pub struct Answer {
    stream: Option<BufReader<UnixStream>>,
    line: Vec<u8>,
}

impl Iterator for Answer {
    type Item = Result<Item, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stream = self.stream.as_mut()?;
        let line = match read_line(stream, &mut self.line) {
            Ok(()) => serde_json::from_slice(&self.line)
                .map_err(|source| ClientError::NotUnderstood { source }),
            Err(source) => Err(ClientError::Broken { source }),
        };
        let item = match line {
            Ok(Line::Item(item)) => return Some(Ok(item)),
            Ok(Line::Done {}) => None,
            Ok(Line::Error(failure)) => Some(Err(ClientError::Refused(failure))),
            Err(error) => Some(Err(error)),
        };
        self.stream = None;
        item
    }
}

/// Reads one whole line into `line`, without keeping what was there.
fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    stream.take(LINE_MAXIMUM).read_until(b'\n', line)?;
    match line.pop() {
        Some(b'\n') => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
