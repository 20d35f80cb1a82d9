//! The protocol without the connection: one line in, one effect out.
//!
//! [`Session::step`] decides and does nothing else; it knows no socket, no clock and no
//! disk, and is tested without them. The connection reads lines, carries effects out and
//! reports back what came of them.

use crate::smtp::{
    AUTH_LINE_MAXIMUM, COMMAND_LINE_MAXIMUM, Command, CommandError, Extensions, Line, MailCommand,
    RecipientCommand, Reply, SessionLimits,
};

use super::guard::Trust;
use super::sasl::{self, Login};
use super::transaction::{Added, Announced, Transaction};

/// Commands that made no sense, until the connection ends; an accepted message forgives.
const ERRORS_MAXIMUM: u32 = 20;
/// Commands that bring no message nearer (NOOP, RSET, EHLO, ...) since the last one.
const IDLE_COMMANDS_MAXIMUM: u32 = 1_000;
/// Recipients beyond what a transaction may have, since the last message: a client that
/// knows no limits may name all of a large mailing before it looks at the replies.
const SURPLUS_MAXIMUM: u32 = 100_000;
/// Failed logins on one connection.
const FAILED_LOGINS_MAXIMUM: u32 = 3;
/// What LIMITS announces (RFC 9422): messages on one connection.
const MESSAGES_MAXIMUM: u32 = 100_000;
/// RFC 9422 section 4: a limit has at most six digits.
const ANNOUNCED_MAXIMUM: u32 = 999_999;
/// Beyond this, a chunk that is refused is not read to its end.
const SKIPPED_MAXIMUM: u64 = 1 << 30;

/// What the configuration says for this client and listener, at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The name to greet with.
    pub hostname: String,
    /// What the client may do without a login.
    pub trust: Trust,
    /// STARTTLS can be offered.
    pub can_start_tls: bool,
    /// A login can be offered, under TLS or where `login_in_clear`.
    pub can_login: bool,
    /// Both ends are on loopback: nobody listens in.
    pub login_in_clear: bool,
    /// Octets of one message.
    pub max_size_bytes: u64,
    /// Recipients of one transaction.
    pub max_recipients: usize,
    /// The spool has room.
    pub has_room: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A line came.
    Line(Line),
    /// A login was checked.
    Checked(Checked),
    /// A chunk that is not the last was taken; or what was wrong with it.
    ChunkTaken(Result<u64, Reply>),
    /// The content ended: the answer to the whole message.
    Ended(Reply),
}

/// What came of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It was right; the name as the directory has it.
    Right(String),
    /// It was wrong, or the name is unknown: nobody is told which.
    Wrong,
    /// It was right, but wants to act for somebody else.
    ForAnother,
    /// Too many are being checked.
    Busy,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Say it and go on.
    Reply(Reply),
    /// Say it and end the connection.
    Close(Reply),
    /// Say it, then shake hands; nothing that was received before counts any more.
    StartTls(Reply),
    /// Check a login.
    Check(Login),
    /// Say it, then read content up to its final dot.
    ReceiveData(Reply),
    /// Read this much content.
    ReceiveChunk {
        /// Octets.
        size: u64,
        /// The message ends with them.
        last: bool,
    },
    /// Read this much and drop it, then say it (RFC 3030: the octets come whatever we say).
    SkipChunk {
        /// Octets.
        size: u64,
        /// The answer.
        reply: Reply,
    },
}

/// How the client greeted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// What it calls itself, whatever that is.
    pub name: String,
    /// By EHLO.
    pub extended: bool,
}

/// An AUTH exchange that waits for the client's next line.
#[derive(Debug)]
enum Exchange {
    Plain,
    LoginName,
    LoginPassword(String),
}

/// One client's dialogue.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    greeting: Option<Greeting>,
    tls: Option<String>,
    login: Option<String>,
    exchange: Option<Exchange>,
    transaction: Option<Transaction>,
    errors: u32,
    idle_commands: u32,
    surplus: u32,
    failed_logins: u32,
    messages: u32,
}

impl Session {
    /// For a new connection; `tls` where TLS began with the first octet.
    pub fn new(terms: Terms, tls: Option<String>) -> Self {
        Self {
            terms,
            greeting: None,
            tls,
            login: None,
            exchange: None,
            transaction: None,
            errors: 0,
            idle_commands: 0,
            surplus: 0,
            failed_logins: 0,
            messages: 0,
        }
    }

    /// What to say first.
    pub fn welcome(&self) -> Reply {
        Reply::new(220, format!("{} ESMTP Penstock", self.terms.hostname))
    }

    /// What to say when the connection ends by our will.
    pub fn farewell(&self, subject: u16, detail: u16, why: &str) -> Reply {
        Reply::enhanced(
            421,
            subject,
            detail,
            format!("{} {why}", self.terms.hostname),
        )
    }

    /// The configuration changed; between transactions it counts at once.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// The handshake after STARTTLS succeeded: its version and cipher.
    ///
    /// Nothing the client said in clear survives (RFC 3207 section 4.2).
    pub fn tls_started(&mut self, tls: String) {
        *self = Self::new(self.terms.clone(), Some(tls));
    }

    /// The transaction that is open.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// There is no memory for more recipients of the transaction: the rest may come in
    /// another one (RFC 5321 section 4.5.3.1.10).
    pub fn take_no_more_recipients(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.set_full();
        }
    }

    /// Whether content came by BDAT and more is to come.
    pub fn is_between_chunks(&self) -> bool {
        self.transaction
            .as_ref()
            .is_some_and(Transaction::is_between_chunks)
    }

    /// How the client greeted.
    pub fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    /// Version and cipher of TLS; none in clear.
    pub fn tls(&self) -> Option<&str> {
        self.tls.as_deref()
    }

    /// Who logged in.
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// How long the next line may be.
    pub fn line_limit(&self) -> usize {
        match self.exchange {
            Some(_) => AUTH_LINE_MAXIMUM,
            // AUTH itself may carry its response; it is told from others only when read.
            None if self.offers_login() => AUTH_LINE_MAXIMUM,
            None => COMMAND_LINE_MAXIMUM,
        }
    }

    /// Decides what follows from what happened.
    pub fn step(&mut self, event: Event) -> Effect {
        match event {
            Event::Line(Line::Complete(line)) => match self.exchange.take() {
                Some(exchange) => self.response(exchange, &line),
                None => match Command::parse(&line) {
                    Ok(command) => self.command(command),
                    Err(error) => self.not_a_command(&error),
                },
            },
            // RFC 4954 section 4 has a status of its own for a line of its exchange.
            Event::Line(Line::TooLong) => match self.exchange.take() {
                Some(_) => self.error(Reply::enhanced(500, 5, 6, "response too long")),
                None => self.error(Reply::enhanced(500, 5, 2, "line too long")),
            },
            Event::Line(Line::BareLf) => Effect::Close(Reply::enhanced(
                500,
                5,
                2,
                "a line ended with a bare LF; lines end with CRLF, \
                 or set bare-lf = \"repair\" for this listener",
            )),
            Event::Line(Line::Endless) => {
                Effect::Close(Reply::enhanced(500, 5, 2, "line without end"))
            }
            Event::Checked(checked) => self.checked(checked),
            Event::ChunkTaken(Ok(octets)) => Effect::Reply(Reply::enhanced(
                250,
                0,
                0,
                format!("{octets} octets received"),
            )),
            Event::ChunkTaken(Err(reply)) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.break_off();
                }
                Effect::Reply(reply)
            }
            Event::Ended(reply) => {
                self.transaction = None;
                if reply.is_positive() {
                    self.errors = 0;
                    self.idle_commands = 0;
                    self.surplus = 0;
                }
                Effect::Reply(reply)
            }
        }
    }

    fn command(&mut self, command: Command) -> Effect {
        match command {
            Command::Ehlo(name) => self.idle(|it| it.greet(name, true)),
            Command::Helo(name) => self.idle(|it| it.greet(name, false)),
            Command::Mail(mail) => self.mail(mail),
            Command::Recipient(recipient) => self.recipient(recipient),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.chunk(size, last),
            Command::Rset => self.idle(|it| {
                it.transaction = None;
                Reply::enhanced(250, 0, 0, "ok")
            }),
            Command::Noop => self.idle(|_| Reply::enhanced(250, 0, 0, "ok")),
            Command::Help => self.idle(|_| {
                Reply::enhanced(214, 0, 0, "Penstock takes mail by RFC 5321 and RFC 6409")
            }),
            // Who exists is the relay's to know (RFC 5321 section 3.5.3).
            Command::Verify(_) => self
                .idle(|_| Reply::enhanced(252, 5, 2, "cannot verify, but will take mail for it")),
            Command::Expand(_) => self.error(Reply::enhanced(502, 5, 1, "command not implemented")),
            Command::Quit => Effect::Close(Reply::enhanced(221, 0, 0, "bye")),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => {
                self.authenticate(&mechanism, initial.map(|it| it.0))
            }
        }
    }

    fn greet(&mut self, name: String, extended: bool) -> Reply {
        self.transaction = None;
        self.greeting = Some(Greeting { name, extended });
        let mut reply = Reply::new(250, self.terms.hostname.clone());
        if extended {
            reply.lines.extend(self.offers().lines());
        }
        reply
    }

    fn offers(&self) -> Extensions {
        let auth: &[&str] = match self.offers_login() && self.login.is_none() {
            true => &["PLAIN", "LOGIN"],
            false => &[],
        };
        let most = u32::try_from(self.terms.max_recipients);
        Extensions {
            pipelining: true,
            size: Some(Some(self.terms.max_size_bytes)),
            eight_bit_mime: true,
            smtputf8: true,
            enhanced_status_codes: true,
            dsn: true,
            chunking: true,
            starttls: self.terms.can_start_tls && self.tls.is_none(),
            auth: auth.iter().map(ToString::to_string).collect(),
            limits: SessionLimits {
                mail: Some(MESSAGES_MAXIMUM),
                recipients: Some(most.map_or(ANNOUNCED_MAXIMUM, |it| it.min(ANNOUNCED_MAXIMUM))),
                recipient_domains: None,
            },
        }
    }

    fn mail(&mut self, mail: MailCommand) -> Effect {
        if self.greeting.is_none() {
            return self.error(bad_sequence("EHLO or HELO first"));
        }
        if self.transaction.is_some() {
            return self.error(bad_sequence("a transaction is open already; RSET ends it"));
        }
        if self.login.is_none() {
            match self.terms.trust {
                Trust::Open => {}
                Trust::AfterLogin if !self.offers_login() && self.tls.is_none() => {
                    return self.error(Reply::enhanced(
                        530,
                        7,
                        0,
                        "log in first; this needs TLS, so STARTTLS before it",
                    ));
                }
                Trust::AfterLogin => {
                    return self.error(Reply::enhanced(530, 7, 0, "log in first"));
                }
                Trust::Never => {
                    return self.error(Reply::enhanced(
                        550,
                        7,
                        1,
                        "this address may not submit here; its network is not in allow-from",
                    ));
                }
            }
        }
        if self.messages >= MESSAGES_MAXIMUM {
            return Effect::Close(self.farewell(
                7,
                0,
                "so many messages on one connection; connect again",
            ));
        }
        if mail.size.is_some_and(|it| it > self.terms.max_size_bytes) {
            return self.idle(|it| too_large(it.terms.max_size_bytes));
        }
        if !self.terms.has_room {
            return self.idle(|_| no_room());
        }
        self.messages += 1;
        let reply = Reply::enhanced(250, 1, 0, "sender ok");
        self.transaction = Some(Transaction::new(mail));
        Effect::Reply(reply)
    }

    fn recipient(&mut self, recipient: RecipientCommand) -> Effect {
        let limit = self.terms.max_recipients;
        let Some(transaction) = &mut self.transaction else {
            return self.error(bad_sequence("MAIL first"));
        };
        match transaction.add(recipient, limit) {
            Added::New => Effect::Reply(Reply::enhanced(250, 1, 5, "recipient ok")),
            Added::Again => self.idle(|_| Reply::enhanced(250, 1, 5, "recipient ok, again")),
            Added::NeedsSmtpUtf8 => self.idle(|_| CommandError::NeedsSmtpUtf8.reply()),
            Added::TooMany => {
                self.surplus += 1;
                if self.surplus >= SURPLUS_MAXIMUM {
                    return Effect::Close(self.farewell(5, 3, "far too many recipients"));
                }
                Effect::Reply(Reply::enhanced(452, 5, 3, "too many recipients"))
            }
            Added::TooLate => self.error(bad_sequence("the content is on its way")),
        }
    }

    fn data(&mut self) -> Effect {
        match &self.transaction {
            None => self.error(bad_sequence("MAIL first")),
            Some(it) if it.has_chunks() => self.error(bad_sequence(
                "the content comes by BDAT; it cannot change to DATA",
            )),
            Some(it) if it.recipients.is_empty() => self.error(bad_sequence("RCPT first")),
            Some(_) => Effect::ReceiveData(Reply::new(354, "go ahead; end with <CRLF>.<CRLF>")),
        }
    }

    fn chunk(&mut self, size: u64, last: bool) -> Effect {
        let limit = self.terms.max_size_bytes;
        let refusal = match &mut self.transaction {
            None => bad_sequence("MAIL first"),
            Some(it) if it.recipients.is_empty() => bad_sequence("RCPT first"),
            Some(it) => match it.announce(size, limit) {
                // Empty chunks bring the message no nearer to its end.
                Announced::Taken if size == 0 && !last => {
                    return self.idle(|_| Reply::enhanced(250, 0, 0, "0 octets received"));
                }
                Announced::Taken => return Effect::ReceiveChunk { size, last },
                Announced::TooLarge => too_large(limit),
                Announced::BrokenOff => bad_sequence("an earlier chunk was refused; RSET first"),
            },
        };
        if last {
            // RFC 3030 section 2: LAST ends the transaction, and this one has failed.
            self.transaction = None;
        }
        if size > limit.saturating_mul(2).min(SKIPPED_MAXIMUM) {
            return Effect::Close(refusal);
        }
        match self.error(refusal) {
            Effect::Reply(reply) => Effect::SkipChunk { size, reply },
            close => close,
        }
    }

    fn start_tls(&mut self) -> Effect {
        if self.tls.is_some() {
            return self.error(bad_sequence("TLS is active already"));
        }
        if !self.terms.can_start_tls {
            return self.error(Reply::enhanced(502, 5, 1, "STARTTLS is not offered here"));
        }
        self.transaction = None;
        Effect::StartTls(Reply::enhanced(220, 0, 0, "ready for TLS"))
    }

    /// Whether AUTH may be used now: never where somebody could listen in.
    fn offers_login(&self) -> bool {
        self.terms.can_login && (self.tls.is_some() || self.terms.login_in_clear)
    }

    fn authenticate(&mut self, mechanism: &str, initial: Option<String>) -> Effect {
        if self.transaction.is_some() {
            return self.error(bad_sequence("not within a transaction"));
        }
        if self.login.is_some() {
            return self.error(bad_sequence("logged in already"));
        }
        if !self.terms.can_login {
            return self.error(Reply::enhanced(502, 5, 1, "AUTH is not offered here"));
        }
        if !self.offers_login() {
            return self.error(Reply::enhanced(
                538,
                7,
                11,
                "a login needs TLS; STARTTLS first",
            ));
        }
        if !self.greeting.as_ref().is_some_and(|it| it.extended) {
            return self.error(bad_sequence("EHLO first"));
        }
        match (mechanism, initial) {
            ("PLAIN", Some(response)) => self.response(Exchange::Plain, response.as_bytes()),
            ("PLAIN", None) => self.ask(Exchange::Plain, ""),
            ("LOGIN", Some(name)) => self.response(Exchange::LoginName, name.as_bytes()),
            // `Username:` and `Password:`, which old clients compare with.
            ("LOGIN", None) => self.ask(Exchange::LoginName, "VXNlcm5hbWU6"),
            _ => self.error(Reply::enhanced(504, 5, 4, "this mechanism is not offered")),
        }
    }

    fn ask(&mut self, exchange: Exchange, question: &str) -> Effect {
        self.exchange = Some(exchange);
        Effect::Reply(Reply::new(334, question))
    }

    fn response(&mut self, exchange: Exchange, line: &[u8]) -> Effect {
        if line == b"*" {
            return self.error(Reply::enhanced(501, 7, 0, "login cancelled"));
        }
        let login = match exchange {
            Exchange::Plain => sasl::plain(line),
            Exchange::LoginName => match sasl::answer(line) {
                Some(name) => return self.ask(Exchange::LoginPassword(name), "UGFzc3dvcmQ6"),
                None => None,
            },
            Exchange::LoginPassword(name) => {
                sasl::answer(line).and_then(|password| sasl::login(&name, &password))
            }
        };
        match login {
            Some(login) => Effect::Check(login),
            None => self.error(Reply::enhanced(
                501,
                5,
                2,
                "not a response of this mechanism",
            )),
        }
    }

    fn checked(&mut self, checked: Checked) -> Effect {
        match checked {
            Checked::Right(login) => {
                self.login = Some(login);
                self.failed_logins = 0;
                Effect::Reply(Reply::enhanced(235, 7, 0, "logged in"))
            }
            Checked::Wrong => self.failed("name or password is wrong"),
            Checked::ForAnother => self.failed(
                "this login may not act for another; leave the authorization identity empty, \
                 or make it the login name",
            ),
            Checked::Busy => self.idle(|_| {
                Reply::enhanced(454, 7, 0, "too many logins at once, try again in a moment")
            }),
        }
    }

    fn failed(&mut self, why: &str) -> Effect {
        self.failed_logins += 1;
        if self.failed_logins >= FAILED_LOGINS_MAXIMUM {
            return Effect::Close(self.farewell(7, 0, "too many failed logins"));
        }
        Effect::Reply(Reply::enhanced(535, 7, 8, why))
    }

    fn not_a_command(&mut self, error: &CommandError) -> Effect {
        let reply = error.reply();
        if error.must_close() {
            return Effect::Close(reply);
        }
        match error {
            // A mailing to addresses of which some are no addresses is no attack.
            CommandError::ForwardPath(_) => self.idle(|_| reply),
            _ => self.error(reply),
        }
    }

    /// Answers something that made no sense; too much of that ends the connection.
    fn error(&mut self, reply: Reply) -> Effect {
        self.errors += 1;
        if self.errors >= ERRORS_MAXIMUM {
            return Effect::Close(self.farewell(7, 0, "too many errors"));
        }
        Effect::Reply(reply)
    }

    /// Answers what brings no message nearer; too much of that ends the connection.
    fn idle(&mut self, reply: impl FnOnce(&mut Self) -> Reply) -> Effect {
        self.idle_commands += 1;
        if self.idle_commands >= IDLE_COMMANDS_MAXIMUM {
            return Effect::Close(self.farewell(7, 0, "too many commands without a message"));
        }
        Effect::Reply(reply(self))
    }
}

/// The message is larger than this host takes.
pub fn too_large(limit: u64) -> Reply {
    Reply::enhanced(
        552,
        3,
        4,
        format!("message too large; the limit is {limit} octets"),
    )
}

/// The message cannot be stored now.
pub fn no_room() -> Reply {
    Reply::enhanced(452, 3, 1, "cannot store mail now, try again later")
}

fn bad_sequence(what: &str) -> Reply {
    Reply::enhanced(503, 5, 1, what)
}
