//! A relay for the demonstration: TLS, a login, and a memory of what it got.
//!
//! It takes everything but what its script says, and tells the stage about each message.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::smtp::{BareEndings, Command, CommandLines, DataDecoder, Line, Masked, Reply};
use crate::tls::ServerTls;

/// What a relay saw.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The relay's name.
    pub relay: &'static str,
    /// With which login.
    pub login: String,
    /// The reverse-path, empty for a report.
    pub from: String,
    /// The recipient, or the first of several.
    pub to: String,
    /// What it answered.
    pub reply: String,
    /// The message was taken; else the recipient was refused.
    pub taken: bool,
    /// When it answered, by its own clock.
    pub at: Instant,
}

/// What a relay is like.
pub struct Relay {
    /// Its name in the configuration.
    pub name: &'static str,
    /// TLS from the first octet; else STARTTLS.
    pub implicit: bool,
    /// The only login it takes.
    pub username: &'static str,
    /// Its password.
    pub password: &'static str,
    /// Recipients that are answered so the first time only, or always.
    pub refusals: Vec<Refusal>,
}

/// What a relay says to a recipient instead of 250.
pub struct Refusal {
    /// How the address begins.
    pub to: &'static str,
    /// What it says.
    pub reply: Reply,
    /// Only the first time: greylisting.
    pub once: bool,
}

/// A relay that runs as long as this.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate's fingerprint, for the configuration.
    pub fingerprint: String,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port of this machine; certificate and key stand in `folder`.
    pub async fn start(
        self,
        folder: &Path,
        seen: mpsc::UnboundedSender<Seen>,
    ) -> anyhow::Result<Running> {
        let folder = folder.join(self.name);
        std::fs::create_dir(&folder).context("cannot make a folder for a relay")?;
        let tls = ServerTls::self_signed(&folder, self.name)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let fingerprint = crate::tls::fingerprint_text(&tls.fingerprint());
        let shared = Arc::new(Shared {
            relay: self,
            tls,
            seen,
            refused: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A client that hangs up or talks nonsense is its own affair.
                clients.spawn(async move { shared.serve(stream).await.ok() });
                while clients.try_join_next().is_some() {}
            }
        });
        Ok(Running {
            address,
            fingerprint,
            _tasks: tasks,
        })
    }
}

struct Shared {
    relay: Relay,
    tls: ServerTls,
    seen: mpsc::UnboundedSender<Seen>,
    /// Who was refused already.
    refused: Mutex<Vec<String>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One conversation.
struct Client {
    stream: Box<dyn Stream>,
    lines: CommandLines,
    input: Vec<u8>,
    login: Option<String>,
    from: String,
    to: Vec<String>,
}

impl Shared {
    async fn serve(&self, stream: tokio::net::TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream: Box<dyn Stream> = Box::new(stream);
        let mut secure = self.relay.implicit;
        if secure {
            stream = Box::new(self.tls.acceptor().accept(stream).await?);
        }
        let mut client = Client {
            stream,
            lines: CommandLines::new(BareEndings::Refuse),
            input: Vec::new(),
            login: None,
            from: String::new(),
            to: Vec::new(),
        };
        client
            .say(&Reply::new(220, format!("{} ESMTP", self.relay.name)))
            .await?;
        loop {
            let Some(line) = client.line().await? else {
                return Ok(());
            };
            let command = match Command::parse(&line) {
                Ok(command) => command,
                Err(error) => {
                    client.say(&error.reply()).await?;
                    continue;
                }
            };
            let reply = match command {
                Command::StartTls if !secure => {
                    client.say(&Reply::enhanced(220, 0, 0, "go ahead")).await?;
                    client.stream = Box::new(self.tls.acceptor().accept(client.stream).await?);
                    secure = true;
                    continue;
                }
                Command::Data if !client.to.is_empty() => {
                    client.say(&Reply::new(354, "go ahead")).await?;
                    client.content().await?;
                    let reply = Reply::enhanced(250, 0, 0, "taken");
                    self.tell(&client, true, &reply);
                    client.to.clear();
                    reply
                }
                Command::Quit => {
                    client.say(&Reply::enhanced(221, 0, 0, "bye")).await?;
                    return Ok(());
                }
                other => self.answer(&mut client, other, secure).await?,
            };
            client.say(&reply).await?;
        }
    }

    async fn answer(
        &self,
        client: &mut Client,
        command: Command,
        secure: bool,
    ) -> anyhow::Result<Reply> {
        Ok(match command {
            Command::Ehlo(_) | Command::Helo(_) => {
                let login = if secure { "AUTH PLAIN" } else { "STARTTLS" };
                let mut reply = Reply::new(250, self.relay.name);
                for word in [
                    "PIPELINING",
                    "8BITMIME",
                    "SMTPUTF8",
                    "SIZE 100000000",
                    login,
                ] {
                    reply.lines.push(word.to_owned());
                }
                reply
            }
            Command::Auth { mechanism, initial } if secure && mechanism == "PLAIN" => {
                let initial = match initial {
                    Some(Masked(initial)) => initial,
                    None => {
                        client.say(&Reply::new(334, "")).await?;
                        String::from_utf8(client.line().await?.unwrap_or_default())?
                    }
                };
                let octets = BASE64.decode(initial)?;
                let right = [self.relay.username, self.relay.password].map(str::as_bytes);
                let mut parts = octets.split(|it| *it == 0).skip(1);
                if [parts.next(), parts.next()] == right.map(Some) {
                    client.login = Some(self.relay.username.to_owned());
                    Reply::enhanced(235, 7, 0, "welcome")
                } else {
                    Reply::enhanced(535, 7, 8, "wrong")
                }
            }
            Command::Mail(_) if client.login.is_none() => {
                Reply::enhanced(530, 7, 0, "authentication required")
            }
            Command::Mail(mail) => {
                client.from = mail.reverse_path.to_string();
                client.to.clear();
                Reply::enhanced(250, 1, 0, "ok")
            }
            Command::Recipient(recipient) => {
                client.to.push(recipient.forward_path.to_string());
                match self.refusal(client) {
                    Some(reply) => {
                        self.tell(client, false, &reply);
                        client.to.pop();
                        reply
                    }
                    None => Reply::enhanced(250, 1, 5, "ok"),
                }
            }
            Command::Rset => {
                client.to.clear();
                Reply::enhanced(250, 0, 0, "ok")
            }
            Command::Noop => Reply::enhanced(250, 0, 0, "ok"),
            _ => Reply::enhanced(503, 5, 1, "not now"),
        })
    }

    fn refusal(&self, client: &Client) -> Option<Reply> {
        let to = client.to.last()?;
        let refusal = self
            .relay
            .refusals
            .iter()
            .find(|it| to.starts_with(it.to))?;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refusal.once && refused.contains(to) {
            return None;
        }
        refused.push(to.clone());
        Some(refusal.reply.clone())
    }

    fn tell(&self, client: &Client, taken: bool, reply: &Reply) {
        let seen = Seen {
            relay: self.relay.name,
            login: client.login.clone().unwrap_or_default(),
            from: client.from.clone(),
            to: client.to.last().cloned().unwrap_or_default(),
            reply: reply.to_string(),
            taken,
            at: Instant::now(),
        };
        // Nobody listens any more once the demonstration is over.
        self.seen.send(seen).ok();
    }
}

impl Client {
    async fn say(&mut self, reply: &Reply) -> anyhow::Result<()> {
        self.stream.write_all(&reply.to_wire()).await?;
        Ok(self.stream.flush().await?)
    }

    async fn line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            let (taken, line) = self.lines.feed(&self.input);
            self.input.drain(..taken);
            match line {
                Some(Line::Complete(line)) => return Ok(Some(line)),
                Some(_) => anyhow::bail!("not a command line"),
                None if self.fill().await? => {}
                None => return Ok(None),
            }
        }
    }

    async fn content(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut decoder = DataDecoder::new(BareEndings::Refuse);
        let mut content = Vec::new();
        loop {
            let taken = decoder.feed(&self.input, &mut content);
            self.input.drain(..taken);
            if decoder.is_ended() {
                return Ok(content);
            }
            anyhow::ensure!(
                self.fill().await?,
                "the client left in the middle of a message"
            );
        }
    }

    async fn fill(&mut self) -> anyhow::Result<bool> {
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }
}
