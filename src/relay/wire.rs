//! One connection as lines out and replies in, every wait bounded.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::RelayError;
use super::transcript::{Said, Transcript};
use crate::mail::Stage;
use crate::mail::text::{hide, printable};
use crate::smtp::{Reply, ReplyError, ReplyParser};

/// Replies that arrived and were not asked for yet: beyond this we stop reading, and the
/// server has to wait.
const INBOX_MAXIMUM: usize = 128 * 1024;

/// The two kinds of streams.
pub(super) enum Stream {
    /// TCP as it is.
    Plain(TcpStream),
    /// TCP under TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// None, while TLS is put on it, and after that failed.
    Closed,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, octets),
            Self::Closed => Poll::Ready(Err(std::io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}

/// What became of octets that were to be sent.
#[derive(Debug)]
pub(super) struct WriteError {
    /// How many were handed over before it failed.
    pub(super) written: usize,
    /// Why it failed.
    pub(super) error: RelayError,
}

/// A connection, the octets that came and were not read yet, and the reply parser.
pub(super) struct Wire {
    stream: Stream,
    inbox: Vec<u8>,
    parser: ReplyParser,
    ended: Option<String>,
    transcript: Option<Transcript>,
    /// Words that must not be shown although the server says them.
    masked: Vec<String>,
    /// What was sent under other words: not to be shown when the server echoes it.
    sent: Vec<String>,
    veils_challenges: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream, transcript: Option<Transcript>) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            parser: ReplyParser::new(),
            ended: None,
            transcript,
            masked: Vec::new(),
            sent: Vec::new(),
            veils_challenges: false,
        }
    }

    /// The stream alone, to put TLS on it, and the transcript so far. Everything else
    /// that was heard in clear is forgotten (RFC 3207 section 4.2).
    pub(super) fn into_parts(self) -> (Stream, Option<Transcript>) {
        (self.stream, self.transcript)
    }

    /// Whether what is said is recorded.
    pub(super) fn is_recorded(&self) -> bool {
        self.transcript.is_some()
    }

    /// Takes the transcript out.
    pub(super) fn take_transcript(&mut self) -> Option<Transcript> {
        self.transcript.take()
    }

    /// Notes what was done, if anybody reads it.
    pub(super) fn note(&mut self, words: &str) {
        self.record(Said::Note, words);
    }

    fn record(&mut self, said: Said, words: &str) {
        if let Some(transcript) = &mut self.transcript {
            transcript.add(said, words);
        }
    }

    /// From now on, replaces these words wherever the server says them.
    pub(super) fn mask(&mut self, words: impl IntoIterator<Item = String>) {
        self.masked = words.into_iter().filter(|it| it.len() > 3).collect();
    }

    /// From now on, the transcript does not show what a challenge says.
    pub(super) fn veil_challenges(&mut self) {
        self.veils_challenges = true;
    }

    /// Whether octets wait that were not read as a reply.
    pub(super) fn has_unread(&self) -> bool {
        !self.inbox.is_empty() || !self.parser.is_between()
    }

    /// Whether a server with nothing to say says something, or is gone. Takes no time.
    pub(super) async fn is_stale(&mut self) -> bool {
        poll_fn(|context| {
            let _ = self.poll_inbox(context);
            Poll::Ready(())
        })
        .await;
        self.has_unread() || self.ended.is_some()
    }

    /// Reads what has arrived. Ready when nothing more can come or be kept.
    fn poll_inbox(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut space = [0_u8; 8_192];
        while self.ended.is_none() {
            if self.inbox.len() >= INBOX_MAXIMUM {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.ended = Some("closed by the server".to_owned());
                }
                Poll::Ready(Ok(())) => self.inbox.extend_from_slice(buffer.filled()),
                Poll::Ready(Err(error)) => self.ended = Some(io_words(&error)),
            }
        }
        Poll::Ready(())
    }

    /// Sends one command; the words in the transcript may differ, for passwords.
    ///
    /// A reply that stands there before the command would be taken for the answer to it,
    /// and every later one for the answer to the next.
    pub(super) async fn command(
        &mut self,
        stage: Stage,
        line: &str,
        shown: &str,
        limit: Duration,
    ) -> Result<Reply, RelayError> {
        if self.has_unread() {
            return Err(unasked(stage));
        }
        self.record(Said::Ours, shown);
        if line != shown {
            let secret = line.rsplit(' ').next().unwrap_or_default();
            self.sent.push(secret.to_owned());
        }
        let octets = format!("{line}\r\n");
        self.write(stage, octets.as_bytes(), limit)
            .await
            .map_err(|it| it.error)?;
        self.reply(stage, limit).await
    }

    /// Sends a group of commands in one go, without waiting for replies.
    pub(super) async fn group(
        &mut self,
        stage: Stage,
        lines: &[u8],
        limit: Duration,
    ) -> Result<(), RelayError> {
        if self.transcript.is_some() {
            let words = String::from_utf8_lossy(lines).into_owned();
            self.record(Said::Ours, &words);
        }
        self.write(stage, lines, limit).await.map_err(|it| it.error)
    }

    /// Sends octets; meanwhile takes in what arrives, so that two full buffers cannot wait
    /// for each other.
    pub(super) async fn write(
        &mut self,
        stage: Stage,
        octets: &[u8],
        limit: Duration,
    ) -> Result<(), WriteError> {
        let mut written = 0;
        let sending = poll_fn(|context| {
            loop {
                let step = if written < octets.len() {
                    let rest = &octets[written..];
                    Pin::new(&mut self.stream).poll_write(context, rest)
                } else {
                    match Pin::new(&mut self.stream).poll_flush(context) {
                        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        Poll::Pending => Poll::Pending,
                    }
                };
                match step {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(some)) => written += some,
                    Poll::Ready(Err(error)) => {
                        // A server that closes may have said why.
                        let _ = self.poll_inbox(context);
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => {
                        let _ = self.poll_inbox(context);
                        return Poll::Pending;
                    }
                }
            }
        });
        let error = match timeout(limit, sending).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => RelayError::Closed {
                stage,
                detail: io_words(&error),
            },
            Err(_) => RelayError::Silent {
                stage,
                after: limit,
            },
        };
        Err(WriteError { written, error })
    }

    /// Reads one reply, whole, within the limit however it drips.
    pub(super) async fn reply(
        &mut self,
        stage: Stage,
        limit: Duration,
    ) -> Result<Reply, RelayError> {
        if let Some(read) = self.take_reply(stage) {
            return read;
        }
        let waiting = async {
            loop {
                poll_fn(|context| self.poll_some(context)).await;
                if let Some(read) = self.take_reply(stage) {
                    return read;
                }
                if let Some(detail) = &self.ended {
                    return Err(RelayError::Closed {
                        stage,
                        detail: detail.clone(),
                    });
                }
            }
        };
        let read = timeout(limit, waiting).await;
        read.unwrap_or(Err(RelayError::Silent {
            stage,
            after: limit,
        }))
    }

    /// Ready as soon as there is something new.
    fn poll_some(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let before = self.inbox.len();
        match self.poll_inbox(context) {
            Poll::Pending if self.inbox.len() == before => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// The next reply, if all of it has arrived.
    pub(super) fn take_reply(&mut self, stage: Stage) -> Option<Result<Reply, RelayError>> {
        let (consumed, read) = self.parser.feed(&self.inbox);
        self.inbox.drain(..consumed);
        match read? {
            Ok(mut reply) => {
                for line in &mut reply.lines {
                    self.hide(line);
                }
                if self.transcript.is_some() {
                    let words = match reply.code {
                        // What is encoded in it hides from whoever looks for secrets.
                        334 if self.veils_challenges => "334 ***".to_owned(),
                        _ => String::from_utf8_lossy(&reply.to_wire()).into_owned(),
                    };
                    self.record(Said::Theirs, &words);
                }
                Some(Ok(reply))
            }
            Err(mut error) => {
                let mut said = self.parser.so_far();
                self.hide(&mut said);
                self.record(Said::Theirs, &said);
                if let ReplyError::NotAReply(line) = &mut error {
                    self.hide(line);
                }
                Some(Err(RelayError::Garbage {
                    stage,
                    said: error.to_string(),
                }))
            }
        }
    }

    /// A server that answers `500 what is c2VjcmV0?`, or a box in between that echoes the
    /// line it was sent, must not put a password into a log.
    pub(super) fn hide(&self, text: &mut String) {
        for word in &self.masked {
            if word.len() > 3 && text.contains(word.as_str()) {
                *text = text.replace(word.as_str(), "***");
            }
        }
        for word in &self.sent {
            hide(text, word);
        }
    }

    /// Says QUIT and hears the server out for a moment.
    pub(super) async fn quit(mut self, limit: Duration) -> Option<Transcript> {
        let said = self.command(Stage::Quit, "QUIT", "QUIT", limit).await;
        if said.is_ok() {
            let closing = poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context));
            let _ = timeout(limit, closing).await;
        }
        self.transcript
    }
}

/// A server answered a question that was not asked.
pub(super) fn unasked(stage: Stage) -> RelayError {
    RelayError::Garbage {
        stage,
        said: "a reply to no command".to_owned(),
    }
}

/// The system's words, and plain ones for what happens every day.
pub(super) fn io_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "closed by the server".to_owned(),
        std::io::ErrorKind::ConnectionReset => "reset by the server".to_owned(),
        std::io::ErrorKind::BrokenPipe => "closed by the server while we were sending".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => printable(error.to_string().as_bytes(), 200),
    }
}
