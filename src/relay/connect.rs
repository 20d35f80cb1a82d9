//! From a relay's configuration to a connection that is ready for MAIL: DNS, TCP, TLS,
//! greeting, EHLO, STARTTLS, AUTH (RFC 5321, 3207, 4954, 8314).

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::RelayError;
use super::auth::{Login, Mechanism, choose, log_in};
use super::elsewhere::Provisional;
use super::find::{Found, find};
use super::lessons::Lessons;
use super::secure::TlsFacts;
use super::transcript::Transcript;
use super::wire::{Stream, Wire, io_words};
use crate::config::{AuthMethod, Certificates, Proof, Relay, RelayTls, Secret, Server, Timeouts};
use crate::dns::Dns;
use crate::mail::Stage;
use crate::oauth::{AccessToken, Tokens};
use crate::smtp::{Extensions, Reply};
use crate::tls::ClientTls;

/// All addresses of one server together get so many times the limit of one.
const PATIENCE: u32 = 3;

/// With which relay to connect, and how patiently.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) relay: Arc<Relay>,
    pub(super) timeouts: Timeouts,
    pub(super) hostname: String,
}

/// A connection that is ready for MAIL, and what happened on it so far.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) target: Target,
    /// What the server offers under the present TLS and login.
    pub(super) offered: Extensions,
    /// `name [address]:port`.
    pub(super) server: String,
    /// Not the first of the relay's servers.
    pub(super) is_fallback: bool,
    /// Why what this server lacks is not the relay's last word; none: it is, unless one of
    /// its equals has it.
    pub(super) provisional: Option<Provisional>,
    /// What other servers of the relay offered that are as good as this one (RFC 5321
    /// section 5.1); none: not known yet.
    pub(super) equals: Vec<Option<Extensions>>,
    pub(super) opened: Instant,
    /// It was kept for a while: the server may have closed it meanwhile.
    pub(super) is_reused: bool,
    /// Transactions started on it.
    pub(super) transactions: u32,
    /// The last transaction was given up before its end: RSET must come first.
    pub(super) needs_reset: bool,
    /// Recipient domains named on it (RCPTDOMAINMAX).
    pub(super) domains: BTreeSet<String>,
    pub(super) tls: Option<TlsFacts>,
    pub(super) login: Option<Mechanism>,
}

/// No connection: why, at which server, and what was said.
pub(super) struct Unconnected {
    pub(super) error: RelayError,
    /// Empty when none was reached.
    pub(super) server: String,
    pub(super) transcript: Option<Transcript>,
}

/// Makes connections; keeps what is expensive to make.
pub(super) struct Dialer {
    dns: Arc<dyn Dns>,
    tokens: Tokens,
    pub(super) tls: Mutex<HashMap<(Certificates, bool), ClientTls>>,
    pub(super) lessons: Lessons,
}

/// One attempt at one address, and the notes that outlive it.
pub(super) struct Try<'a> {
    pub(super) target: &'a Target,
    pub(super) server: &'a Server,
    /// For a relay that takes one.
    pub(super) token: Option<&'a Secret>,
    pub(super) transcript: Option<Transcript>,
    pub(super) reached: String,
}

impl Dialer {
    pub(super) fn new(dns: Arc<dyn Dns>, tokens: Tokens) -> Self {
        Self {
            dns,
            tokens,
            tls: Mutex::default(),
            lessons: Lessons::default(),
        }
    }

    /// Forgets certificates read from files, and what DNS said: they may have changed.
    pub(super) fn forget(&self) {
        self.tokens.reloaded();
        self.dns.forget();
        self.lessons.forget();
        self.tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Connects, with an access token where the relay takes one.
    ///
    /// A server that refuses a token may know more of it than its lifetime tells: it was
    /// revoked, or its rights have changed since. So it is told a new one, once.
    pub(super) async fn connect(
        &self,
        target: &Target,
        transcript: Option<Transcript>,
    ) -> Result<Connection, Unconnected> {
        let credentials = target.relay.credentials.as_ref();
        let wants_token = credentials.is_some_and(|it| it.oauth().is_some());
        if !wants_token {
            return self.connect_with(target, None, transcript).await;
        }
        let mut transcript = transcript;
        let mut refused: Option<AccessToken> = None;
        loop {
            let asked = self
                .tokens
                .access(&target.relay, &target.timeouts, refused.as_ref());
            let token = match asked.await {
                Ok(token) => token,
                Err(trouble) => {
                    let server = trouble.host().to_owned();
                    let error = RelayError::Token(trouble);
                    note(&mut transcript, &error.to_string());
                    return Err(Unconnected {
                        error,
                        server,
                        transcript,
                    });
                }
            };
            let minutes = self.tokens.life_left(&token).as_secs() / 60;
            let words = format!("there is an access token, good for {minutes} min");
            note(&mut transcript, &words);
            let made = self
                .connect_with(target, Some(token.secret()), transcript)
                .await;
            match made {
                Err(failed) if refused.is_none() && failed.error.refuses_login() => {
                    transcript = failed.transcript;
                    note(&mut transcript, "once more with a new access token");
                    refused = Some(token);
                }
                made => return made,
            }
        }
    }

    /// Tries the relay's servers in order.
    ///
    /// The next is tried when one cannot be reached or does not greet; not when it
    /// refuses the login, for the next would only count one more failed attempt. Of
    /// several errors the one that came furthest is told, the first of equals.
    pub(super) async fn connect_with(
        &self,
        target: &Target,
        token: Option<&Secret>,
        transcript: Option<Transcript>,
    ) -> Result<Connection, Unconnected> {
        let mut worst: Option<(RelayError, String)> = None;
        let mut transcript = transcript;
        let mut servers: Vec<(usize, &Server)> = target.relay.servers.iter().enumerate().collect();
        servers.sort_by_cached_key(|(_, it)| self.lessons.costs_time(&place_of(it)));
        for (place, server) in servers {
            let began = Instant::now();
            let mut attempt = Try {
                target,
                server,
                token,
                transcript: transcript.take(),
                reached: String::new(),
            };
            match self.connect_server(&mut attempt).await {
                Ok(mut connection) => {
                    connection.is_fallback = place > 0;
                    if place > 0 {
                        connection.provisional = Some(Provisional::Fallback);
                    }
                    self.lessons.apply(&mut connection);
                    return Ok(connection);
                }
                Err(error) => {
                    transcript = attempt.transcript.take();
                    self.lessons.met(&place_of(server), began, &error);
                    let stage = error.stage();
                    if worst.as_ref().is_none_or(|(it, _)| stage > it.stage()) {
                        worst = Some((error, attempt.reached));
                    }
                    if stage >= Stage::Auth {
                        break;
                    }
                }
            }
        }
        let (error, server) = worst.unwrap_or_else(|| {
            let error = RelayError::NoServer {
                name: target.relay.name.clone(),
                detail: "no server is configured".to_owned(),
            };
            (error, String::new())
        });
        Err(Unconnected {
            error,
            server,
            transcript,
        })
    }

    async fn connect_server(&self, attempt: &mut Try<'_>) -> Result<Connection, RelayError> {
        let limit = attempt.target.timeouts.connect;
        let patience = Instant::now() + limit * PATIENCE;
        let looked_up = timeout_at(patience, find(&*self.dns, &attempt.server.host)).await;
        let found = looked_up.unwrap_or_else(|_| {
            Err(RelayError::Dns {
                name: attempt.server.host.to_string(),
                detail: timed_out(limit * PATIENCE),
            })
        });
        attempt.note(&match &found {
            Ok(found) => format!(
                "{} is {}",
                attempt.server.host,
                found
                    .addresses
                    .iter()
                    .map(|(name, at)| format!("{name} [{at}]"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Err(error) => error.to_string(),
        });
        let mut worst: Option<(RelayError, String)> = None;
        let Found {
            mut addresses,
            firsts,
        } = found?;
        let port = attempt.server.port;
        addresses.sort_by_cached_key(|(_, it)| {
            self.lessons
                .costs_time(&SocketAddr::new(*it, port).to_string())
        });
        for (name, address) in addresses {
            let began = Instant::now();
            let address = SocketAddr::new(address, port);
            attempt.reached = format!("{name} [{}]:{}", address.ip(), address.port());
            let mut made = self.connect_address(attempt, address, true).await;
            if let Err(RelayError::Tls { .. }) = made
                && attempt.server.tls == RelayTls::Opportunistic
            {
                // Neither verified nor needed: in clear is what it would have been without
                // the offer.
                attempt.note("no TLS; once more without");
                made = self.connect_address(attempt, address, false).await;
            }
            match made {
                Ok(mut connection) => {
                    if connection.provisional.is_none() {
                        connection.compare(&self.lessons, &name, &firsts);
                    }
                    return Ok(connection);
                }
                Err(error) => {
                    let stage = error.stage();
                    attempt.note(&error.to_string());
                    self.lessons.met(&address.to_string(), began, &error);
                    if worst.as_ref().is_none_or(|(it, _)| stage > it.stage()) {
                        worst = Some((error, attempt.reached.clone()));
                    }
                    if stage >= Stage::Auth || Instant::now() >= patience {
                        break;
                    }
                }
            }
        }
        let (error, reached) = worst.unwrap_or_else(|| {
            let error = RelayError::NoServer {
                name: attempt.server.host.to_string(),
                detail: "it has no address".to_owned(),
            };
            (error, String::new())
        });
        attempt.reached = reached;
        Err(error)
    }

    /// One address: TCP, TLS, greeting, EHLO, STARTTLS, AUTH.
    async fn connect_address(
        &self,
        attempt: &mut Try<'_>,
        address: SocketAddr,
        use_starttls: bool,
    ) -> Result<Connection, RelayError> {
        let limit = attempt.target.timeouts.connect;
        let deadline = Instant::now() + limit;
        let server = attempt.reached.clone();
        attempt.note(&format!("connecting to {server}"));
        let connected = timeout_at(deadline, TcpStream::connect(address)).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unconnected(server, &error)),
            Err(_) => return Err(no_connection(server, timed_out(limit))),
        };
        // Commands are written whole; waiting for more to send only costs time.
        let _ = stream.set_nodelay(true);
        let mut tls = None;
        let stream = if attempt.server.tls == RelayTls::Implicit {
            let (stream, facts) = self.secure(attempt, stream, deadline).await?;
            tls = Some(facts);
            stream
        } else {
            Stream::Plain(stream)
        };
        let mut wire = Wire::new(stream, attempt.transcript.take());
        let made = self
            .prepare(attempt, &mut wire, &mut tls, deadline, use_starttls)
            .await;
        match made {
            Ok((hello, login)) => Ok(Connection {
                wire,
                target: attempt.target.clone(),
                offered: hello.offered,
                server,
                is_fallback: false,
                provisional: hello.refused.map(|it| Provisional::NoEhlo(it.to_string())),
                equals: Vec::new(),
                opened: Instant::now(),
                is_reused: false,
                transactions: 0,
                needs_reset: false,
                domains: BTreeSet::new(),
                tls,
                login,
            }),
            Err(error) => {
                if attempt.transcript.is_none() {
                    attempt.transcript = wire.take_transcript();
                }
                Err(error)
            }
        }
    }

    /// All that is said before MAIL.
    async fn prepare(
        &self,
        attempt: &mut Try<'_>,
        wire: &mut Wire,
        tls: &mut Option<TlsFacts>,
        deadline: Instant,
        use_starttls: bool,
    ) -> Result<(Hello, Option<Mechanism>), RelayError> {
        let timeouts = &attempt.target.timeouts;
        let left = deadline.saturating_duration_since(Instant::now());
        let greeting = wire.reply(Stage::Greeting, left).await?;
        if !greeting.is_positive() {
            return Err(refused(Stage::Greeting, greeting));
        }
        let mut hello = greet(wire, attempt.target).await?;
        let wants_starttls = use_starttls
            && tls.is_none()
            && self
                .wants_starttls(attempt, &hello.offered)
                .map_err(|error| hello.better_reason(error))?;
        if wants_starttls {
            let reply = wire
                .command(Stage::StartTls, "STARTTLS", "STARTTLS", timeouts.command)
                .await?;
            if reply.is_positive() {
                *tls = Some(self.upgrade(attempt, wire).await?);
                // What was offered in clear may have been said by anybody.
                hello = greet(wire, attempt.target).await?;
            } else if attempt.server.tls != RelayTls::Opportunistic {
                return Err(refused(Stage::StartTls, reply));
            }
        }
        let login = self
            .authenticate(attempt, wire, tls.as_ref(), &hello.offered)
            .await
            .map_err(|error| hello.better_reason(error))?;
        Ok((hello, login))
    }

    async fn authenticate(
        &self,
        attempt: &Try<'_>,
        wire: &mut Wire,
        tls: Option<&TlsFacts>,
        offered: &Extensions,
    ) -> Result<Option<Mechanism>, RelayError> {
        let relay = &attempt.target.relay;
        let Some(credentials) = relay.credentials.as_ref().filter(|_| attempt.logs_in()) else {
            return Ok(None);
        };
        // A password goes to whom the certificate proves, or in clear where that is written.
        let secure = match tls {
            Some(facts) => facts.verified,
            None => attempt.server.tls == RelayTls::Off,
        };
        if !secure {
            return Err(RelayError::NoSecureLogin {
                server: attempt.reached.clone(),
            });
        }
        let Some(mechanism) = choose(relay.auth, offered)? else {
            return Ok(None);
        };
        let password = match &credentials.proof {
            Proof::Password(password) => password,
            Proof::Token(_) => attempt.token.ok_or_else(|| RelayError::Ours {
                detail: "no access token where one is needed".to_owned(),
            })?,
        };
        let login = Login {
            username: &credentials.username,
            password,
        };
        let limit = attempt.target.timeouts.command;
        log_in(wire, mechanism, &login, limit).await?;
        // Nothing said from here on can quote what was only sent until here.
        wire.mask([]);
        Ok(Some(mechanism))
    }
}

impl Try<'_> {
    pub(super) fn logs_in(&self) -> bool {
        self.target.relay.credentials.is_some() && self.target.relay.auth != AuthMethod::None
    }

    pub(super) fn note(&mut self, words: &str) {
        note(&mut self.transcript, words);
    }
}

fn note(transcript: &mut Option<Transcript>, words: &str) {
    if let Some(transcript) = transcript {
        transcript.add(super::transcript::Said::Note, words);
    }
}

/// What came of greeting a server.
struct Hello {
    offered: Extensions,
    /// EHLO was refused with this, and HELO taken: what it offers is not known.
    refused: Option<Reply>,
}

impl Hello {
    /// A server that did not take EHLO offered nothing that we miss: its words are the
    /// reason, not what is missing.
    fn better_reason(&self, error: RelayError) -> RelayError {
        match (&self.refused, error) {
            (
                Some(reply),
                RelayError::AuthUnavailable { .. }
                | RelayError::NoSecureLogin { .. }
                | RelayError::Tls { .. },
            ) => refused(Stage::Ehlo, reply.clone()),
            (_, error) => error,
        }
    }
}

/// EHLO, and HELO for servers from before 1993, which do not know the command (RFC 5321
/// sections 3.2 and 4.1.1.1). Any other refusal is one.
async fn greet(wire: &mut Wire, target: &Target) -> Result<Hello, RelayError> {
    let limit = target.timeouts.command;
    let line = format!("EHLO {}", target.hostname);
    let reply = wire.command(Stage::Ehlo, &line, &line, limit).await?;
    if reply.is_positive() {
        return Ok(Hello {
            offered: Extensions::parse(&reply),
            refused: None,
        });
    }
    if !matches!(reply.code, 500..=504) {
        return Err(refused(Stage::Ehlo, reply));
    }
    let line = format!("HELO {}", target.hostname);
    let old = wire.command(Stage::Ehlo, &line, &line, limit).await?;
    if old.is_positive() {
        Ok(Hello {
            offered: Extensions::default(),
            refused: Some(reply),
        })
    } else {
        Err(refused(Stage::Ehlo, old))
    }
}

/// A reply that says no, or one that cannot stand there.
pub(super) fn refused(stage: Stage, reply: crate::smtp::Reply) -> RelayError {
    if reply.is_transient() || reply.is_permanent() {
        RelayError::Refused { stage, reply }
    } else {
        RelayError::Garbage {
            stage,
            said: format!("{reply}"),
        }
    }
}

/// That we have no descriptor left says nothing about the relay.
fn unconnected(server: String, error: &std::io::Error) -> RelayError {
    use rustix::io::Errno;
    let detail = io_words(error);
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => RelayError::Ours {
            detail: format!("cannot open a socket to {server}: {detail}"),
        },
        _ => no_connection(server, detail),
    }
}

/// A server as it is configured.
fn place_of(server: &Server) -> String {
    format!("{}:{}", server.host, server.port)
}

fn no_connection(server: String, detail: String) -> RelayError {
    RelayError::Connect { server, detail }
}

pub(super) fn timed_out(limit: Duration) -> String {
    // What is left of a limit is a little less than what was configured.
    format!("no answer within {:.0} s", limit.as_secs_f64())
}
