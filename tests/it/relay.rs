//! A scriptable relay: an SMTP server of its own on 127.0.0.1:0 that does as it is told
//! and remembers what it got.
//!
//! It shares no code with Penstock: what both read wrongly in the same way would
//! otherwise pass. Its tasks run on the test's own runtime, so a paused clock is sound.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::certificates::{Authority, Pair};

/// How the relay offers TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    Off,
    /// After the command of that name.
    Command,
    Implicit,
}

/// What the relay does instead of its usual reply.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These lines, each ended by CRLF. A 421 closes the connection.
    Reply(String),
    /// Nothing, for ever; the connection stays.
    Silence,
    /// The connection ends.
    Close,
    /// These octets as they are.
    Raw(Vec<u8>),
    /// These octets, then the end of the connection.
    RawThenClose(Vec<u8>),
    /// One octet of the reply after the other.
    Drip(String, Duration),
    /// The answer, later.
    After(Duration, Box<Answer>),
}

impl From<&str> for Answer {
    fn from(reply: &str) -> Self {
        Self::Reply(reply.to_owned())
    }
}

impl Answer {
    /// A reply that never ends: this many continuation lines.
    pub fn endless(code: u16, lines: usize) -> Self {
        Self::Raw(format!("{code}-again\r\n").repeat(lines).into_bytes())
    }

    /// What no SMTP server says.
    pub fn garbage() -> Self {
        Self::Raw(b"HTTP/1.1 400 Bad Request\r\nServer: \x00\xff\x1b[2J\r\n\r\n".to_vec())
    }

    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }
}

struct Rule {
    at: String,
    skip: usize,
    times: Option<usize>,
    answer: Answer,
}

/// One login that a client tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub mechanism: String,
    pub username: String,
    /// For CRAM-MD5 the digest; for XOAUTH2 the token.
    pub password: String,
    pub accepted: bool,
}

/// One message, from MAIL to the reply to its end.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Since the relay started: when MAIL came.
    pub at: Duration,
    /// When the end of the content came.
    pub ended: Duration,
    /// When that was answered, by the relay's own clock: just before the reply was sent.
    pub replied: Duration,
    /// Counts connections from 0.
    pub connection: usize,
    pub tls: bool,
    /// The login in force.
    pub login: Option<String>,
    /// All after `MAIL FROM:`, parameters included.
    pub mail: String,
    /// All after `RCPT TO:` of each recipient that was accepted.
    pub recipients: Vec<String>,
    /// The content as it came over the wire, the final dot included (BDAT: the chunks).
    pub wire: Vec<u8>,
    /// The content after unstuffing.
    pub content: Vec<u8>,
    /// What the end of the content was answered with; empty: nothing was said.
    pub reply: String,
}

impl Transaction {
    /// Whether the client was told that the relay took it.
    pub fn accepted(&self) -> bool {
        self.reply.starts_with('2')
    }

    /// The reverse-path without brackets and parameters.
    pub fn reverse_path(&self) -> &str {
        bare(&self.mail)
    }

    /// The forward-paths without brackets and parameters.
    pub fn forward_paths(&self) -> Vec<&str> {
        self.recipients.iter().map(|it| bare(it)).collect()
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// The content without the fields that a relay on the way may put on top.
    pub fn without_trace(&self) -> &[u8] {
        without_trace(&self.content)
    }
}

/// Takes `Received` fields, folded lines included, off the top of a message.
pub fn without_trace(mut content: &[u8]) -> &[u8] {
    while content.len() >= 9 && content[..9].eq_ignore_ascii_case(b"received:") {
        let mut at = 0;
        loop {
            let Some(line) = content[at..].windows(2).position(|it| it == b"\r\n") else {
                return &[];
            };
            at += line + 2;
            if !matches!(content.get(at), Some(b' ' | b'\t')) {
                break;
            }
        }
        content = &content[at..];
    }
    content
}

fn bare(argument: &str) -> &str {
    let end = argument.rfind('>').map_or(argument.len(), |it| it);
    argument[..end].trim_start_matches('<')
}

#[derive(Default)]
struct Memory {
    transactions: Vec<Transaction>,
    logins: Vec<Login>,
    commands: Vec<(Duration, usize, String)>,
    offences: Vec<String>,
    connections: usize,
    open: usize,
    most_open: usize,
    mails: Vec<Duration>,
}

/// A relay being set up. `FakeRelay::default()` offers STARTTLS and every extension,
/// takes any login and any mail.
pub struct FakeRelay {
    tls: Tls,
    mechanisms: String,
    logins: BTreeMap<String, String>,
    login_required: bool,
    extensions: Vec<String>,
    rules: Vec<Rule>,
    certificate: Option<Pair>,
    keep_content: bool,
    address: SocketAddr,
    told: Option<Told>,
    judge: Option<Judge>,
}

/// Whether a token is good for a mailbox.
type Judge = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// Who is told each content before it is answered.
type Told = Box<dyn Fn(&[u8]) + Send + Sync>;

impl Default for FakeRelay {
    fn default() -> Self {
        let extensions = [
            "PIPELINING",
            "SIZE 104857600",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
        ];
        Self {
            tls: Tls::Command,
            mechanisms: "PLAIN LOGIN CRAM-MD5 XOAUTH2".into(),
            logins: BTreeMap::new(),
            login_required: false,
            extensions: extensions.map(str::to_owned).to_vec(),
            rules: Vec::new(),
            certificate: None,
            keep_content: true,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            told: None,
            judge: None,
        }
    }
}

impl FakeRelay {
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Which mechanisms EHLO names; empty: no AUTH.
    pub fn mechanisms(mut self, names: &str) -> Self {
        self.mechanisms = names.to_owned();
        self
    }

    /// A login that is right; with any, all others are wrong and MAIL needs one.
    pub fn login(mut self, username: &str, password: &str) -> Self {
        self.logins.insert(username.into(), password.into());
        self.login_required = true;
        self
    }

    /// Takes XOAUTH2 alone, and the tokens that this finds good; MAIL needs a login.
    pub fn tokens(mut self, judge: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        self.judge = Some(Box::new(judge));
        self.login_required = true;
        self.mechanisms("XOAUTH2")
    }

    pub fn extension(mut self, line: &str) -> Self {
        self.extensions.push(line.to_owned());
        self
    }

    /// Takes an extension away, parameters and all.
    pub fn without(mut self, keyword: &str) -> Self {
        self.extensions
            .retain(|it| it.split(' ').next() != Some(keyword));
        self
    }

    /// The certificate to show; a valid one for 127.0.0.1 and localhost unless given.
    pub fn certificate(mut self, pair: Pair) -> Self {
        self.certificate = Some(pair);
        self
    }

    /// Remembers no content: for runs with very much of it.
    pub fn forgetting_content(mut self) -> Self {
        self.keep_content = false;
        self
    }

    /// Tells each content that came to its end, before it is answered.
    pub fn on_content(mut self, told: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// Listens at a fixed address, so that it can be stopped and started again.
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Answers so from now on. `at` is how the command line begins (`RCPT TO:<bob@`), or
    /// `connect`, `TLS`, `AUTH`, `content` (while it arrives), `.` (its end).
    pub fn answering(self, at: &str, answer: impl Into<Answer>) -> Self {
        self.rule(at, 0, None, answer.into())
    }

    /// Answers so the first time.
    pub fn answering_once(self, at: &str, answer: impl Into<Answer>) -> Self {
        self.rule(at, 0, Some(1), answer.into())
    }

    /// Answers so this many times.
    pub fn answering_times(self, at: &str, times: usize, answer: impl Into<Answer>) -> Self {
        self.rule(at, 0, Some(times), answer.into())
    }

    /// Answers so after this many usual answers.
    pub fn answering_after(self, skip: usize, at: &str, answer: impl Into<Answer>) -> Self {
        self.rule(at, skip, None, answer.into())
    }

    fn rule(mut self, at: &str, skip: usize, times: Option<usize>, answer: Answer) -> Self {
        self.rules.push(Rule {
            at: at.to_owned(),
            skip,
            times,
            answer,
        });
        self
    }

    pub async fn start(self) -> Relay {
        let authority = Authority::new();
        let certificate = self
            .certificate
            .unwrap_or_else(|| authority.sign(&["127.0.0.1", "localhost"]));
        let listener = TcpListener::bind(self.address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            tls: self.tls,
            mechanisms: self.mechanisms,
            logins: self.logins,
            login_required: self.login_required,
            extensions: Mutex::new(self.extensions),
            rules: Mutex::new(self.rules),
            acceptor: certificate.acceptor(),
            keep_content: self.keep_content,
            told: self.told,
            judge: self.judge,
            started: Instant::now(),
            memory: Mutex::new(Memory::default()),
            changed: watch::Sender::new(0),
        });
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepting = start(accept(listener, shared.clone(), connections.clone()));
        Relay {
            addr: address,
            tls: shared.tls,
            authority_pem: authority.pem(),
            fingerprint: certificate.fingerprint.clone(),
            shared,
            accepting,
            connections,
        }
    }
}

struct Shared {
    tls: Tls,
    mechanisms: String,
    logins: BTreeMap<String, String>,
    login_required: bool,
    extensions: Mutex<Vec<String>>,
    rules: Mutex<Vec<Rule>>,
    acceptor: tokio_rustls::TlsAcceptor,
    keep_content: bool,
    told: Option<Told>,
    judge: Option<Judge>,
    started: Instant,
    memory: Mutex<Memory>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    fn remember(&self, change: impl FnOnce(&mut Memory)) {
        change(&mut self.memory());
        self.changed.send_modify(|it| *it += 1);
    }

    fn rule_for(&self, at: &str) -> Option<Answer> {
        let mut rules = self.rules.lock().unwrap();
        for rule in rules.iter_mut() {
            let begins = at
                .get(..rule.at.len())
                .is_some_and(|it| it.eq_ignore_ascii_case(&rule.at));
            if !begins {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            match &mut rule.times {
                Some(0) => continue,
                Some(times) => *times -= 1,
                None => {}
            }
            return Some(rule.answer.clone());
        }
        None
    }
}

/// A relay that runs until it is dropped.
pub struct Relay {
    pub addr: SocketAddr,
    /// How it offers TLS.
    pub tls: Tls,
    /// What to trust.
    pub authority_pem: String,
    /// What to pin.
    pub fingerprint: String,
    shared: Arc<Shared>,
    accepting: AbortHandle,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.hang_up();
    }
}

impl Relay {
    /// Every message whose content came to its end, in order.
    pub fn transactions(&self) -> Vec<Transaction> {
        self.shared.memory().transactions.clone()
    }

    /// Those that the client was told the relay took.
    pub fn accepted(&self) -> Vec<Transaction> {
        let memory = self.shared.memory();
        memory
            .transactions
            .iter()
            .filter(|it| it.accepted())
            .cloned()
            .collect()
    }

    /// How many messages came to their end.
    pub fn count(&self) -> usize {
        self.shared.memory().transactions.len()
    }

    /// The only message; panics unless there is exactly one.
    pub fn only(&self) -> Transaction {
        let transactions = self.transactions();
        assert_eq!(transactions.len(), 1, "{transactions:?}");
        transactions.into_iter().next().unwrap()
    }

    pub fn logins(&self) -> Vec<Login> {
        self.shared.memory().logins.clone()
    }

    /// Command lines, with the time since the start and the connection.
    pub fn commands(&self) -> Vec<(Duration, usize, String)> {
        self.shared.memory().commands.clone()
    }

    /// What a well-behaved client does not do; empty in every good test.
    pub fn offences(&self) -> Vec<String> {
        self.shared.memory().offences.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.memory().connections
    }

    /// The most that were open at one time.
    pub fn most_connections(&self) -> usize {
        self.shared.memory().most_open
    }

    /// When MAIL came, in whole minutes since the first.
    pub fn attempts_after_minutes(&self) -> Vec<u64> {
        let mails = self.shared.memory().mails.clone();
        let first = mails.first().copied().unwrap_or_default();
        mails
            .iter()
            .map(|it| (*it - first).as_secs() / 60)
            .collect()
    }

    /// A further rule while running; it comes before the older ones.
    pub fn answer(&self, at: &str, times: Option<usize>, answer: impl Into<Answer>) {
        let rule = Rule {
            at: at.to_owned(),
            skip: 0,
            times,
            answer: answer.into(),
        };
        self.shared.rules.lock().unwrap().insert(0, rule);
    }

    /// From now on everything is answered as usual.
    pub fn mend(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// Cuts all open connections.
    pub fn hang_up(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Waits until this many messages came to their end; panics after `patience`.
    ///
    /// Under a paused clock `patience` is virtual: give days.
    pub async fn received(&self, count: usize, patience: Duration) -> Vec<Transaction> {
        self.until(patience, |it| it.transactions.len() >= count)
            .await;
        self.transactions()
    }

    /// Waits until this many commands with this beginning came.
    pub async fn commanded(&self, beginning: &str, count: usize, patience: Duration) {
        self.until(patience, |it| {
            let with = it
                .commands
                .iter()
                .filter(|(_, _, line)| line.starts_with(beginning));
            with.count() >= count
        })
        .await;
    }

    async fn until(&self, patience: Duration, done: impl Fn(&Memory) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if done(&self.shared.memory()) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(patience, wait).await.is_err() {
            let memory = self.shared.memory();
            let last = memory.commands.iter().rev().take(12).rev();
            panic!(
                "the relay waited {patience:?} in vain; it has {} messages, offences {:?}, last commands: {:#?}",
                memory.transactions.len(),
                memory.offences,
                last.collect::<Vec<_>>()
            );
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own peer")]
fn start(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(task).abort_handle()
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let number = shared.memory().connections;
        shared.remember(|it| {
            it.connections += 1;
            it.open += 1;
            it.most_open = it.most_open.max(it.open);
        });
        let count = Open(shared.clone());
        let task = start(async move {
            let shared = count.0.clone();
            stream.set_nodelay(true).ok();
            // An error is the client's hanging up: nothing to do about it.
            serve(stream, number, shared).await.ok();
            drop(count);
        });
        let mut connections = connections.lock().unwrap();
        connections.retain(|it| !it.is_finished());
        connections.push(task);
    }
}

/// Counts a connection as open until it is dropped, aborted or not.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.remember(|it| it.open -= 1);
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The end of a conversation: not an error of anybody.
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

struct Conversation {
    stream: Option<Box<dyn Stream>>,
    input: Vec<u8>,
    output: Vec<u8>,
    number: usize,
    shared: Arc<Shared>,
    tls: bool,
    greeted: bool,
    login: Option<String>,
    transaction: Option<Transaction>,
}

async fn serve(stream: TcpStream, number: usize, shared: Arc<Shared>) -> Result<(), Over> {
    let mut it = Conversation {
        stream: Some(Box::new(stream)),
        input: Vec::new(),
        output: Vec::new(),
        number,
        tls: false,
        greeted: false,
        login: None,
        transaction: None,
        shared: shared.clone(),
    };
    if shared.tls == Tls::Implicit {
        it.handshake().await?;
    }
    it.say("connect", "220 relay.test ESMTP").await?;
    loop {
        let line = it.line().await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        shared.remember(|memory| {
            memory
                .commands
                .push((shared.started.elapsed(), number, line.clone()));
        });
        it.command(&line).await?;
    }
}

impl Conversation {
    async fn command(&mut self, line: &str) -> Result<(), Over> {
        let verb = line
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" => {
                self.greeted = true;
                self.transaction = None;
                let reply = if verb == "EHLO" {
                    self.hello()
                } else {
                    "250 relay.test".into()
                };
                self.say(line, &reply).await?;
            }
            "STARTTLS" if self.shared.tls == Tls::Command && !self.tls => {
                let accepted = self
                    .say(line, "220 2.0.0 go ahead")
                    .await?
                    .starts_with("220");
                if accepted {
                    self.flush().await?;
                    if !self.input.is_empty() {
                        self.offence("octets between STARTTLS and its reply");
                        self.input.clear();
                    }
                    self.handshake().await?;
                    self.greeted = false;
                }
            }
            "AUTH" => self.auth(line).await?,
            "MAIL" => self.mail(line).await?,
            "RCPT" if self.transaction.is_some() => {
                let argument = line.get(8..).unwrap_or_default().trim().to_owned();
                if self.say(line, "250 2.1.5 ok").await?.starts_with('2') {
                    self.open_transaction().recipients.push(argument);
                }
            }
            "DATA" if self.has_recipients() => {
                if self.say(line, "354 go ahead").await?.starts_with("354") {
                    self.data().await?;
                }
            }
            "BDAT" if self.transaction.is_some() => self.bdat(line).await?,
            "RSET" => {
                self.transaction = None;
                self.say(line, "250 2.0.0 ok").await?;
            }
            "NOOP" => {
                self.say(line, "250 2.0.0 ok").await?;
            }
            "QUIT" => {
                self.say(line, "221 2.0.0 bye").await?;
                self.flush().await?;
                return Err(Over);
            }
            "RCPT" | "DATA" => {
                // After pipelining past a refusal this is what a server says; no offence.
                self.say(line, "503 5.5.1 no transaction").await?;
            }
            _ => {
                self.offence(&format!("unknown command {line:?}"));
                self.say(line, "500 5.5.2 unknown").await?;
            }
        }
        Ok(())
    }

    fn hello(&self) -> String {
        let mut lines = vec!["relay.test".to_owned()];
        lines.extend(self.shared.extensions.lock().unwrap().iter().cloned());
        if self.shared.tls == Tls::Command && !self.tls {
            lines.push("STARTTLS".into());
        }
        let secure = self.tls || self.shared.tls == Tls::Off;
        if secure && !self.shared.mechanisms.is_empty() {
            lines.push(format!("AUTH {}", self.shared.mechanisms));
        }
        let last = lines.pop().unwrap_or_default();
        let mut reply: String = lines.iter().map(|it| format!("250-{it}\r\n")).collect();
        reply.push_str(&format!("250 {last}"));
        reply
    }

    fn offers(&self, keyword: &str) -> bool {
        let extensions = self.shared.extensions.lock().unwrap();
        extensions
            .iter()
            .any(|it| it.split(' ').next() == Some(keyword))
    }

    async fn mail(&mut self, line: &str) -> Result<(), Over> {
        let at = self.shared.started.elapsed();
        self.shared.remember(|it| it.mails.push(at));
        if !self.greeted {
            self.offence("MAIL before EHLO");
        }
        if self.transaction.is_some() {
            self.offence("MAIL within a transaction");
        }
        for (parameter, keyword) in [
            ("SIZE=", "SIZE"),
            ("BODY=", "8BITMIME"),
            ("SMTPUTF8", "SMTPUTF8"),
            ("RET=", "DSN"),
            ("ENVID=", "DSN"),
        ] {
            let said = line
                .split(' ')
                .skip(1)
                .any(|it| it.to_ascii_uppercase().starts_with(parameter));
            if said && !self.offers(keyword) {
                self.offence(&format!("{parameter} without {keyword}"));
            }
        }
        let usual = if self.shared.login_required && self.login.is_none() {
            "530 5.7.0 authentication required"
        } else {
            "250 2.1.0 ok"
        };
        if self.say(line, usual).await?.starts_with('2') {
            self.transaction = Some(Transaction {
                at,
                ended: at,
                replied: at,
                connection: self.number,
                tls: self.tls,
                login: self.login.clone(),
                mail: line.get(10..).unwrap_or_default().trim().to_owned(),
                recipients: Vec::new(),
                wire: Vec::new(),
                content: Vec::new(),
                reply: String::new(),
            });
        }
        Ok(())
    }

    async fn data(&mut self) -> Result<(), Over> {
        let mut searched = 0;
        let length = loop {
            if self.input.is_empty() {
                self.fill().await?;
            }
            if let Some(answer) = self.shared.rule_for("content") {
                self.perform("content", answer).await?;
            }
            if self.input.starts_with(b".\r\n") {
                break 3;
            }
            let from = searched.min(self.input.len());
            if let Some(at) = self.input[from..]
                .windows(5)
                .position(|it| it == b"\r\n.\r\n")
            {
                break from + at + 5;
            }
            searched = self.input.len().saturating_sub(4);
            self.fill().await?;
        };
        let rest = self.input.split_off(length);
        let wire = std::mem::replace(&mut self.input, rest);
        let content = unstuff(&wire[..wire.len() - 3]);
        if wire.len() > 3 && has_bare_line_end(&content) {
            self.offence("a bare CR or LF in the content");
        }
        self.finish(wire, content).await
    }

    async fn bdat(&mut self, line: &str) -> Result<(), Over> {
        if !self.offers("CHUNKING") {
            self.offence("BDAT without CHUNKING");
        }
        let mut words = line.split(' ').skip(1);
        let size: usize = words
            .next()
            .and_then(|it| it.parse().ok())
            .unwrap_or_default();
        let last = words
            .next()
            .is_some_and(|it| it.eq_ignore_ascii_case("LAST"));
        while self.input.len() < size {
            self.fill().await?;
        }
        let rest = self.input.split_off(size);
        let chunk = std::mem::replace(&mut self.input, rest);
        if !self.has_recipients() {
            self.say(line, "503 5.5.1 no recipients").await?;
            return Ok(());
        }
        if !last {
            let accepted = self.say(line, "250 2.0.0 ok").await?.starts_with('2');
            if accepted {
                self.open_transaction().wire.extend(chunk);
            } else {
                self.transaction = None;
            }
            return Ok(());
        }
        let mut wire = std::mem::take(&mut self.open_transaction().wire);
        wire.extend(chunk);
        let content = wire.clone();
        self.finish(wire, content).await
    }

    async fn finish(&mut self, wire: Vec<u8>, content: Vec<u8>) -> Result<(), Over> {
        let mut transaction = self.transaction.take().ok_or(Over)?;
        let eight_bit = content.iter().any(|it| *it > 127);
        if eight_bit && !self.offers("8BITMIME") {
            self.offence("8-bit content without 8BITMIME");
        }
        transaction.ended = self.shared.started.elapsed();
        transaction.replied = transaction.ended;
        if let Some(told) = &self.shared.told {
            told(&content);
        }
        if self.shared.keep_content {
            (transaction.wire, transaction.content) = (wire, content);
        }
        let place = {
            let mut memory = self.shared.memory();
            memory.transactions.push(transaction);
            memory.transactions.len() - 1
        };
        let reply = self.say(".", "250 2.0.0 taken").await;
        let replied = self.shared.started.elapsed();
        self.shared.memory().transactions[place].replied = replied;
        self.flush().await?;
        let reply = reply?;
        self.shared
            .remember(|it| it.transactions[place].reply = reply);
        Ok(())
    }

    async fn auth(&mut self, line: &str) -> Result<(), Over> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let initial = words
            .next()
            .map(|it| if it == "=" { "" } else { it }.to_owned());
        if !self.tls && self.shared.tls != Tls::Off {
            self.offence("credentials in clear");
        }
        if !self.shared.mechanisms.split(' ').any(|it| it == mechanism) {
            self.say(line, "504 5.5.4 mechanism").await?;
            return Ok(());
        }
        let (username, password, right) = match mechanism.as_str() {
            "PLAIN" => {
                let text = self.answer_to("", initial).await?;
                let mut parts = text.split('\0').skip(1).map(str::to_owned);
                let username = parts.next().unwrap_or_default();
                let password = parts.next().unwrap_or_default();
                let right = self.is_right(&username, &password);
                (username, password, right)
            }
            "LOGIN" => {
                let username = self.answer_to("VXNlcm5hbWU6", initial).await?;
                let password = self.answer_to("UGFzc3dvcmQ6", None).await?;
                let right = self.is_right(&username, &password);
                (username, password, right)
            }
            "CRAM-MD5" => {
                let challenge = format!("<{}.penstock@relay.test>", self.number);
                let text = self.answer_to(&BASE64.encode(&challenge), None).await?;
                let (username, digest) = text.split_once(' ').unwrap_or_default();
                let right = match self.shared.logins.get(username) {
                    Some(password) => cram_md5(password, &challenge) == digest,
                    None => self.shared.logins.is_empty(),
                };
                (username.to_owned(), digest.to_owned(), right)
            }
            _ => {
                let text = self.answer_to("", initial).await?;
                let field = |name: &str| {
                    let mut parts = text.split('\x01');
                    parts
                        .find_map(|it| it.strip_prefix(name))
                        .unwrap_or_default()
                        .to_owned()
                };
                let (username, token) = (field("user="), field("auth=Bearer "));
                let right = match &self.shared.judge {
                    Some(judge) => judge(&username, &token),
                    None => self.is_right(&username, &token),
                };
                if self.shared.judge.is_some() && !right {
                    // The way of Google and Microsoft: the reason, and an empty line.
                    let reason = r#"{"status":"401","schemes":"Bearer","scope":"mail"}"#;
                    let answer = self.answer_to(&BASE64.encode(reason), None).await?;
                    if !answer.is_empty() {
                        self.offence("a reason for a refusal was answered with words");
                    }
                }
                (username, token, right)
            }
        };
        let usual = if right {
            "235 2.7.0 welcome"
        } else if self.shared.judge.is_some() {
            "535 5.7.3 Authentication unsuccessful"
        } else {
            "535 5.7.8 wrong"
        };
        let accepted = self.say(line, usual).await?.starts_with("235");
        if accepted {
            self.login = Some(username.clone());
        }
        self.shared.remember(|it| {
            it.logins.push(Login {
                mechanism,
                username,
                password,
                accepted,
            });
        });
        Ok(())
    }

    fn is_right(&self, username: &str, password: &str) -> bool {
        self.shared.logins.is_empty()
            || self
                .shared
                .logins
                .get(username)
                .is_some_and(|it| it == password)
    }

    /// The client's answer to a 334, decoded; the initial response instead where there is one.
    async fn answer_to(
        &mut self,
        challenge: &str,
        initial: Option<String>,
    ) -> Result<String, Over> {
        let encoded = match initial {
            Some(text) => text.into_bytes(),
            None => {
                self.output.extend(format!("334 {challenge}\r\n").bytes());
                self.line().await?
            }
        };
        match BASE64.decode(&encoded) {
            Ok(octets) => Ok(String::from_utf8_lossy(&octets).into_owned()),
            Err(_) => {
                self.offence("not base64");
                Ok(String::new())
            }
        }
    }

    /// Says what the script wants at this place, else `usual`; gives the reply that was
    /// really made, empty if it was none.
    async fn say(&mut self, at: &str, usual: &str) -> Result<String, Over> {
        match self.shared.rule_for(at) {
            Some(answer) => self.perform(at, answer).await,
            None => {
                self.output.extend(usual.bytes().chain(*b"\r\n"));
                Ok(usual.to_owned())
            }
        }
    }

    async fn perform(&mut self, at: &str, mut answer: Answer) -> Result<String, Over> {
        while let Answer::After(delay, then) = answer {
            self.flush().await?;
            tokio::time::sleep(delay).await;
            answer = *then;
        }
        match answer {
            Answer::Reply(reply) => {
                self.output.extend(reply.bytes().chain(*b"\r\n"));
                if reply.starts_with("421") {
                    self.flush().await?;
                    return Err(Over);
                }
                Ok(reply)
            }
            Answer::Raw(octets) => {
                self.output.extend(&octets);
                self.flush().await?;
                let text = String::from_utf8_lossy(&octets);
                Ok(text.lines().next().unwrap_or_default().to_owned())
            }
            Answer::RawThenClose(octets) => {
                self.output.extend(&octets);
                self.flush().await?;
                Err(Over)
            }
            Answer::Drip(reply, every) => {
                self.flush().await?;
                for octet in reply.bytes().chain(*b"\r\n") {
                    self.output.push(octet);
                    self.flush().await?;
                    tokio::time::sleep(every).await;
                }
                Ok(reply)
            }
            Answer::Silence if at == "content" => {
                // Not even reading: the client's own buffers fill up.
                std::future::pending().await
            }
            Answer::Silence => {
                self.flush().await?;
                loop {
                    self.fill().await?;
                    self.input.clear();
                }
            }
            Answer::Close | Answer::After(..) => {
                self.flush().await?;
                Err(Over)
            }
        }
    }

    async fn handshake(&mut self) -> Result<(), Over> {
        if let Some(answer) = self.shared.rule_for("TLS") {
            self.perform("TLS", answer).await?;
            self.flush().await?;
        }
        let stream = self.stream.take().ok_or(Over)?;
        let stream = self.shared.acceptor.clone().accept(stream).await?;
        self.stream = Some(Box::new(stream));
        self.tls = true;
        Ok(())
    }

    /// One command line without its CRLF.
    async fn line(&mut self) -> Result<Vec<u8>, Over> {
        loop {
            if let Some(end) = self.input.iter().position(|it| *it == b'\n') {
                let mut line: Vec<u8> = self.input.drain(..=end).collect();
                line.pop();
                if line.pop() != Some(b'\r') {
                    self.offence("a command line that ends in a bare LF");
                }
                if line.len() > 1000 && !line.starts_with(b"AUTH") {
                    self.offence("a command line of more than 1000 octets");
                }
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Over> {
        self.flush().await?;
        let stream = self.stream.as_mut().ok_or(Over)?;
        self.input.reserve(64 * 1024);
        match stream.read_buf(&mut self.input).await? {
            0 => Err(Over),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Over> {
        if !self.output.is_empty() {
            let stream = self.stream.as_mut().ok_or(Over)?;
            stream.write_all(&self.output).await?;
            stream.flush().await?;
            self.output.clear();
        }
        Ok(())
    }

    fn has_recipients(&self) -> bool {
        self.transaction
            .as_ref()
            .is_some_and(|it| !it.recipients.is_empty())
    }

    fn open_transaction(&mut self) -> &mut Transaction {
        self.transaction
            .as_mut()
            .expect("asked for only within one")
    }

    fn offence(&self, what: &str) {
        self.shared.remember(|it| it.offences.push(what.to_owned()));
    }
}

/// Takes the stuffed dots out (RFC 5321 section 4.5.2).
fn unstuff(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(wire.len());
    let mut before = *b"\r\n";
    for octet in wire {
        if !(before == *b"\r\n" && *octet == b'.') {
            content.push(*octet);
        }
        before = [before[1], *octet];
    }
    content
}

fn has_bare_line_end(content: &[u8]) -> bool {
    (0..content.len()).any(|at| match content[at] {
        b'\n' => at == 0 || content[at - 1] != b'\r',
        b'\r' => content.get(at + 1) != Some(&b'\n'),
        _ => false,
    })
}

fn cram_md5(password: &str, challenge: &str) -> String {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<md5::Md5>::new_from_slice(password.as_bytes()).unwrap();
    mac.update(challenge.as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.iter().map(|it| format!("{it:02x}")).collect()
}
