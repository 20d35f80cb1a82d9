//! A server for tests that does as it is told, and remembers what it was told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What the server does instead of its usual reply.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// These lines, CRLF added.
    Say(&'static str),
    /// These octets.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Silent,
    /// The end.
    Close,
    /// These octets, then the end.
    SayAndClose(&'static str),
    /// One octet a second.
    Drip(&'static str),
    /// These words, and so many octets of the line that was just heard.
    Echo(&'static str, usize),
}

/// The server's script: for the nth (from 1; 0 for each) time of a verb.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    pub(super) offers: Vec<&'static str>,
    /// Offered under TLS instead, if not empty.
    pub(super) offers_tls: Vec<&'static str>,
    pub(super) acts: HashMap<(&'static str, usize), Act>,
    pub(super) implicit_tls: bool,
}

impl Script {
    pub(super) fn offering(offers: &[&'static str]) -> Self {
        Self {
            offers: offers.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn at(mut self, verb: &'static str, act: Act) -> Self {
        self.acts.insert((verb, 0), act);
        self
    }

    pub(super) fn at_nth(mut self, verb: &'static str, nth: usize, act: Act) -> Self {
        self.acts.insert((verb, nth), act);
        self
    }
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Command lines, with the number of their connection from 1.
    pub(super) lines: Vec<(usize, String)>,
    /// Contents with their end, as on the wire.
    pub(super) contents: Vec<Vec<u8>>,
    pub(super) connections: usize,
    pub(super) open: usize,
    pub(super) most_open: usize,
    counts: HashMap<String, usize>,
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) fingerprint: [u8; 32],
    pub(super) heard: Arc<Mutex<Heard>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(super) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let der = pair.cert.der().clone();
        let fingerprint = crate::tls::fingerprint(&der);
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![der], key)
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let script = Arc::new(script);
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&heard);
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = {
                    let mut heard = shared.lock().unwrap();
                    heard.connections += 1;
                    heard.open += 1;
                    heard.most_open = heard.most_open.max(heard.open);
                    heard.connections
                };
                let session = Session {
                    script: Arc::clone(&script),
                    heard: Arc::clone(&shared),
                    number,
                };
                let (acceptor, heard) = (acceptor.clone(), Arc::clone(&shared));
                sessions.spawn(async move {
                    session.serve(stream, acceptor).await;
                    heard.lock().unwrap().open -= 1;
                });
            }
        });
        Self {
            address,
            fingerprint,
            heard,
            _tasks: tasks,
        }
    }

    /// The command lines of all connections.
    pub(super) fn lines(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.lines.iter().map(|(_, it)| it.clone()).collect()
    }

    pub(super) fn contents(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().contents.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.heard.lock().unwrap().connections
    }
}

struct Session {
    script: Arc<Script>,
    heard: Arc<Mutex<Heard>>,
    number: usize,
}

/// What comes after a command.
enum Next {
    Go,
    Tls,
    Data,
    Chunk(usize),
    End,
}

impl Session {
    async fn serve(&self, stream: TcpStream, acceptor: TlsAcceptor) {
        if self.script.implicit_tls {
            if let Ok(stream) = acceptor.accept(stream).await {
                self.talk(stream, true, true).await;
            }
            return;
        }
        if let Some(stream) = self.talk(stream, false, true).await
            && let Ok(stream) = acceptor.accept(stream).await
        {
            self.talk(stream, true, false).await;
        }
    }

    /// Speaks SMTP; gives the stream back for TLS.
    async fn talk<S>(&self, stream: S, tls: bool, greet: bool) -> Option<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::new(stream);
        if greet
            && !self
                .act(&mut stream, "GREETING", "220 fake.example ESMTP\r\n")
                .await
        {
            return None;
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            self.heard
                .lock()
                .unwrap()
                .lines
                .push((self.number, line.clone()));
            match self.command(&mut stream, &line, tls).await {
                Next::Go => {}
                Next::Tls => return Some(stream.into_inner()),
                Next::End => return None,
                Next::Data => {
                    let mut content = Vec::new();
                    while content != b".\r\n" && !content.ends_with(b"\r\n.\r\n") {
                        if stream.read_until(b'\n', &mut content).await.ok()? == 0 {
                            return None;
                        }
                    }
                    self.heard.lock().unwrap().contents.push(content);
                    if !self.act(&mut stream, "DOT", "250 2.0.0 taken\r\n").await {
                        return None;
                    }
                }
                Next::Chunk(size) => {
                    let mut content = vec![0; size];
                    stream.read_exact(&mut content).await.ok()?;
                    self.heard.lock().unwrap().contents.push(content);
                    if !self.act(&mut stream, "DOT", "250 2.0.0 taken\r\n").await {
                        return None;
                    }
                }
            }
        }
    }

    async fn command<S>(&self, stream: &mut BufReader<S>, line: &str, tls: bool) -> Next
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let verb = line.split(' ').next().unwrap_or_default();
        let usual = match verb {
            "EHLO" => {
                let offers = match (tls, self.script.offers_tls.as_slice()) {
                    (true, offers) if !offers.is_empty() => offers,
                    _ => &self.script.offers,
                };
                let mut reply = "250-fake.example\r\n".to_owned();
                for offer in offers {
                    reply += &format!("250-{offer}\r\n");
                }
                reply + "250 HELP\r\n"
            }
            "HELO" => "250 fake.example\r\n".to_owned(),
            "STARTTLS" => "220 go\r\n".to_owned(),
            "DATA" => "354 go\r\n".to_owned(),
            "QUIT" => "221 bye\r\n".to_owned(),
            "AUTH" => match line {
                "AUTH LOGIN" | "AUTH CRAM-MD5" => "334 PDEyMz4=\r\n".to_owned(),
                _ => "235 2.7.0 welcome\r\n".to_owned(),
            },
            "MAIL" | "RCPT" | "RSET" => "250 2.1.0 ok\r\n".to_owned(),
            "BDAT" => String::new(),
            // Lines of an AUTH exchange: CRAM-MD5 has one question, LOGIN two.
            _ if self.before(2).as_deref() == Some("AUTH LOGIN") => {
                "334 UGFzc3dvcmQ6\r\n".to_owned()
            }
            _ => "235 2.7.0 welcome\r\n".to_owned(),
        };
        let goes_on = self.act(stream, verb, &usual).await;
        let overridden = |verb: &'static str| {
            let counts = &self.heard.lock().unwrap().counts;
            let nth = counts.get(verb).copied().unwrap_or_default();
            let acts = &self.script.acts;
            acts.get(&(verb, nth))
                .or_else(|| acts.get(&(verb, 0)))
                .cloned()
        };
        match verb {
            _ if !goes_on => Next::End,
            "QUIT" => Next::End,
            "STARTTLS" if overridden("STARTTLS").is_none() => Next::Tls,
            "DATA" => match overridden("DATA") {
                Some(Act::Say(reply)) if !reply.starts_with("354") => Next::Go,
                _ => Next::Data,
            },
            "BDAT" => Next::Chunk(line.split(' ').nth(1).unwrap().parse().unwrap()),
            _ => Next::Go,
        }
    }

    /// The line that came so many lines ago.
    fn before(&self, lines: usize) -> Option<String> {
        let heard = self.heard.lock().unwrap();
        heard
            .lines
            .iter()
            .rev()
            .nth(lines - 1)
            .map(|(_, it)| it.clone())
    }

    fn count(&self, verb: &str) -> usize {
        let mut heard = self.heard.lock().unwrap();
        let count = heard.counts.entry(verb.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Does what the script says, or the usual; false: the connection ends.
    async fn act<S>(&self, stream: &mut BufReader<S>, verb: &str, usual: &str) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let nth = self.count(verb);
        let acts = &self.script.acts;
        let find = |nth| acts.iter().find(|((it, n), _)| *it == verb && *n == nth);
        let act = find(nth).or_else(|| find(0)).map(|(_, act)| act.clone());
        let act = act.unwrap_or_else(|| Act::Raw(usual.as_bytes().to_vec()));
        match act {
            Act::Say(reply) => self.send(stream, format!("{reply}\r\n").as_bytes()).await,
            Act::Raw(octets) => self.send(stream, &octets).await,
            Act::Silent => {
                std::future::pending::<()>().await;
                false
            }
            Act::Close => false,
            Act::SayAndClose(reply) => {
                self.send(stream, format!("{reply}\r\n").as_bytes()).await;
                let _ = stream.shutdown().await;
                false
            }
            Act::Echo(words, most) => {
                let line = self.before(1).unwrap_or_default();
                let line = &line[..line.len().min(most)];
                self.send(stream, format!("{words}{line}\r\n").as_bytes())
                    .await
            }
            Act::Drip(reply) => {
                for octet in reply.bytes() {
                    if !self.send(stream, &[octet]).await {
                        return false;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                true
            }
        }
    }

    async fn send<S>(&self, stream: &mut BufReader<S>, octets: &[u8]) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        stream.write_all(octets).await.is_ok() && stream.flush().await.is_ok()
    }
}
