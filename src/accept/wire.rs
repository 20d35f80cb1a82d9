//! One client's octets, in clear or under TLS: what was read and not yet used, what is
//! to be said and not yet sent.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::smtp::Reply;

/// What is read at once while commands are awaited: an idle client costs no more.
pub const COMMAND_READ: usize = 2 * 1024;
/// What is read at once while content comes.
pub const CONTENT_READ: usize = 16 * 1024;

/// A connection with its buffers.
pub struct Wire {
    stream: Stream,
    input: Vec<u8>,
    used: usize,
    out: Vec<u8>,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Only while one becomes the other, and after a handshake that failed.
    Gone,
}

impl Wire {
    /// Over a new connection.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Clear(stream),
            input: Vec::new(),
            used: 0,
            out: Vec::new(),
        }
    }

    /// What was read and not used.
    pub fn unread(&self) -> &[u8] {
        &self.input[self.used..]
    }

    /// Marks octets as used.
    pub fn consume(&mut self, octets: usize) {
        self.used += octets;
        if self.used >= self.input.len() {
            self.input.clear();
            self.used = 0;
        }
    }

    /// Puts a reply behind those that wait to be sent: a group of pipelined commands is
    /// answered by one write.
    pub fn say(&mut self, reply: &Reply) {
        reply.write(&mut self.out);
    }

    /// Octets that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Sends what waits to be sent.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        match &mut self.stream {
            Stream::Clear(stream) => stream.write_all(&out).await,
            Stream::Tls(stream) => {
                stream.write_all(&out).await?;
                stream.flush().await
            }
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads more, at most about `wanted` octets; none: the client closed.
    ///
    /// Can be dropped at any time without losing octets.
    pub async fn read(&mut self, wanted: usize) -> io::Result<usize> {
        if self.input.is_empty() && self.input.capacity() > 2 * wanted {
            self.input = Vec::new();
        }
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.input.reserve(wanted);
        match &mut self.stream {
            Stream::Clear(stream) => stream.read_buf(&mut self.input).await,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await,
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Shakes hands; says what was agreed on, like `TLSv1.3 TLS_AES_256_GCM_SHA384`.
    ///
    /// What was read in clear is forgotten: it must not be taken for words under TLS.
    pub async fn start_tls(&mut self, acceptor: TlsAcceptor) -> io::Result<String> {
        self.input = Vec::new();
        self.used = 0;
        let Stream::Clear(clear) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let stream = acceptor.accept(clear).await?;
        let (_, agreed) = stream.get_ref();
        let version = agreed.protocol_version().and_then(|it| it.as_str());
        let cipher = agreed.negotiated_cipher_suite();
        let cipher = cipher.as_ref().and_then(|it| it.suite().as_str());
        // rustls writes `TLSv1_3` and `TLS13_AES_...`; IANA and everybody else do not.
        let agreed = format!(
            "{} {}",
            version.unwrap_or("TLS").replace('_', "."),
            cipher.unwrap_or("unknown").replacen("TLS13_", "TLS_", 1)
        );
        self.stream = Stream::Tls(Box::new(stream));
        Ok(agreed)
    }

    /// Ends the sending side, so that the client reads the last reply before the end.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
            Stream::Gone => Ok(()),
        }
    }
}
