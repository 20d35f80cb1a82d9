//! The application of the demonstration: it submits over SMTP like any other.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::letter::Letter;
use crate::smtp::{DataEncoder, Reply, ReplyParser};

/// A connection to the daemon.
pub struct Submission {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Submission {
    /// Connects and greets.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot reach penstockd")?;
        stream.set_nodelay(true)?;
        let mut it = Self {
            stream,
            input: Vec::new(),
        };
        it.reply().await?;
        it.command("EHLO app.example").await?;
        Ok(it)
    }

    /// Submits one message; gives the reply that decided it.
    pub async fn send(&mut self, letter: &Letter) -> anyhow::Result<Reply> {
        let mut commands = vec![format!("MAIL FROM:<{}>", letter.from)];
        commands.extend(letter.to.iter().map(|it| format!("RCPT TO:<{it}>")));
        commands.push("DATA".to_owned());
        for command in commands {
            let reply = self.command(&command).await?;
            if !reply.is_positive() && !reply.is_intermediate() {
                self.command("RSET").await?;
                return Ok(reply);
            }
        }
        self.content(letter).await
    }

    /// Submits one message with its commands in one go (RFC 2920); gives the reply that
    /// decided it.
    pub async fn send_pipelined(&mut self, letter: &Letter) -> anyhow::Result<Reply> {
        let mut commands = format!("MAIL FROM:<{}>\r\n", letter.from);
        for to in &letter.to {
            commands += &format!("RCPT TO:<{to}>\r\n");
        }
        commands += "DATA\r\n";
        self.stream.write_all(commands.as_bytes()).await?;
        let mut refused = None;
        for _ in 0..=letter.to.len() {
            let reply = self.reply().await?;
            if !reply.is_positive() {
                refused.get_or_insert(reply);
            }
        }
        let data = self.reply().await?;
        if !data.is_intermediate() {
            self.command("RSET").await?;
            return Ok(refused.unwrap_or(data));
        }
        self.content(letter).await
    }

    async fn content(&mut self, letter: &Letter) -> anyhow::Result<Reply> {
        let mut encoder = DataEncoder::new();
        let mut wire = Vec::new();
        encoder.feed(&letter.content, &mut wire);
        wire.extend(encoder.finish());
        self.stream.write_all(&wire).await?;
        self.reply().await
    }

    async fn command(&mut self, line: &str) -> anyhow::Result<Reply> {
        self.stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await?;
        self.reply().await
    }

    async fn reply(&mut self) -> anyhow::Result<Reply> {
        let mut parser = ReplyParser::new();
        loop {
            let (taken, reply) = parser.feed(&self.input);
            self.input.drain(..taken);
            if let Some(reply) = reply {
                return Ok(reply?);
            }
            let read = self.stream.read_buf(&mut self.input).await?;
            anyhow::ensure!(read > 0, "penstockd hung up");
        }
    }
}
