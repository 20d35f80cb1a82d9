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
