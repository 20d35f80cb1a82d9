//! An application that submits mail: a plain SMTP client that says exactly what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How long a test's client waits for a reply before it calls the test lost. Real
/// time-outs of the daemon are longer; under a paused clock this is virtual.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One connection.
pub struct Client {
    stream: Option<Box<dyn Stream>>,
    input: Vec<u8>,
}

/// A reply as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    pub lines: Vec<String>,
}

impl Answer {
    /// Panics with the whole reply unless it has this code.
    #[track_caller]
    pub fn expect_code(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The queue id of `250 2.0.0 <queue-id> queued`.
    #[track_caller]
    pub fn queue_id(&self) -> String {
        let text = self.text();
        let words: Vec<&str> = text.split(' ').collect();
        assert!(
            self.code == 250 && words.first() == Some(&"2.0.0") && words.len() > 2,
            "{self:?}"
        );
        words[1].to_owned()
    }
}

impl Client {
    /// Connects without reading the greeting.
    pub async fn dial(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: Some(Box::new(stream)),
            input: Vec::new(),
        })
    }

    /// Connects, reads the greeting, says EHLO.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut it = Self::dial(address).await.unwrap();
        it.reply().await.expect_code(220);
        it.command("EHLO app.test").await.expect_code(250);
        it
    }

    /// The same over implicit TLS.
    pub async fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let mut it = Self::dial(address).await.unwrap();
        it.handshake(config).await;
        it.reply().await.expect_code(220);
        it.command("EHLO app.test").await.expect_code(250);
        it
    }

    /// STARTTLS, the handshake, EHLO again.
    pub async fn start_tls(&mut self, config: Arc<ClientConfig>) {
        self.command("STARTTLS").await.expect_code(220);
        self.handshake(config).await;
        self.command("EHLO app.test").await.expect_code(250);
    }

    async fn handshake(&mut self, config: Arc<ClientConfig>) {
        let stream = self.stream.take().expect("a connection");
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        self.stream = Some(Box::new(stream));
    }

    /// AUTH PLAIN.
    pub async fn auth_plain(&mut self, username: &str, password: &str) -> Answer {
        self.auth_plain_as("", username, password).await
    }

    /// AUTH PLAIN, to act as somebody.
    pub async fn auth_plain_as(
        &mut self,
        identity: &str,
        username: &str,
        password: &str,
    ) -> Answer {
        let response = BASE64.encode(format!("{identity}\0{username}\0{password}"));
        self.command(&format!("AUTH PLAIN {response}")).await
    }

    /// AUTH LOGIN.
    pub async fn auth_login(&mut self, username: &str, password: &str) -> Answer {
        self.command("AUTH LOGIN").await.expect_code(334);
        self.command(&BASE64.encode(username))
            .await
            .expect_code(334);
        self.command(&BASE64.encode(password)).await
    }

    /// Sends a line and reads the reply to it.
    pub async fn command(&mut self, line: &str) -> Answer {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Sends octets as they are.
    pub async fn send(&mut self, octets: &[u8]) {
        self.try_send(octets).await.unwrap();
    }

    pub async fn try_send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        let stream = self.stream.as_mut().expect("a connection");
        stream.write_all(octets).await?;
        stream.flush().await
    }

    /// The next reply; panics if the connection ends first.
    pub async fn reply(&mut self) -> Answer {
        let waited = tokio::time::timeout(PATIENCE, self.try_reply()).await;
        waited.expect("no reply").expect("the connection ended")
    }

    /// The next reply; an error if the connection ends first.
    pub async fn try_reply(&mut self) -> std::io::Result<Answer> {
        let mut lines = Vec::new();
        loop {
            while let Some(end) = self.input.windows(2).position(|it| it == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                let line = String::from_utf8_lossy(&line[..end]).into_owned();
                let code = line.get(..3).and_then(|it| it.parse().ok());
                let code =
                    code.ok_or_else(|| std::io::Error::other(format!("no reply: {line}")))?;
                lines.push(line.get(4..).unwrap_or_default().to_owned());
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Ok(Answer { code, lines });
                }
            }
            let stream = self.stream.as_mut().expect("a connection");
            if stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits until the server hangs up; gives what it said before.
    pub async fn end(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.input);
        if let Some(stream) = self.stream.as_mut() {
            stream.read_to_end(&mut rest).await.ok();
        }
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// One transaction: MAIL, RCPT, DATA, each waiting for its reply. Gives the first
    /// reply that is a refusal (and resets), else the one to the final dot.
    pub async fn submit(&mut self, from: &str, to: &[&str], content: &[u8]) -> Answer {
        self.try_submit(from, to, content).await.unwrap()
    }

    /// The same; an error if the connection ends.
    pub async fn try_submit(
        &mut self,
        from: &str,
        to: &[&str],
        content: &[u8],
    ) -> std::io::Result<Answer> {
        let mut lines = vec![format!("MAIL FROM:<{from}>")];
        lines.extend(to.iter().map(|it| format!("RCPT TO:<{it}>")));
        lines.push("DATA".into());
        for line in lines {
            self.try_send(format!("{line}\r\n").as_bytes()).await?;
            let answer = self.try_reply().await?;
            if answer.code >= 400 {
                self.try_send(b"RSET\r\n").await?;
                self.try_reply().await?;
                return Ok(answer);
            }
        }
        self.try_send(&stuff(content)).await?;
        self.try_reply().await
    }
}

/// Stuffs the dots and ends the content.
pub fn stuff(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 8);
    for line in content.split_inclusive(|it| *it == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend(line);
    }
    if !wire.is_empty() && !wire.ends_with(b"\r\n") {
        wire.extend(b"\r\n");
    }
    wire.extend(b".\r\n");
    wire
}

/// A small message with all the fields that Penstock would otherwise add.
pub fn message(from: &str, to: &str, subject: &str, text: &str) -> Vec<u8> {
    format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\
         Date: Sat, 21 Nov 2026 12:00:00 +0100\r\nMessage-ID: <{:x}@app.test>\r\n\r\n{text}\r\n",
        rand::random::<u64>()
    )
    .into_bytes()
}
