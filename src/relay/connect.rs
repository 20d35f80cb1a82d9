//! From a relay's configuration to a connection that is ready for MAIL: DNS, TCP, TLS,
//! greeting, EHLO, STARTTLS, AUTH (RFC 5321, 3207, 4954, 8314).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::RelayError;
use super::auth::{Mechanism, choose, log_in};
use super::transcript::Transcript;
use super::wire::{Stream, Wire, io_words};
use crate::config::{AuthMethod, Certificates, Host, Relay, RelayTls, Server, Timeouts};
use crate::dns::{Dns, DnsError, MailServers, addresses, mail_servers};
use crate::mail::text::printable;
use crate::mail::{Domain, Stage};
use crate::smtp::Extensions;
use crate::tls::{ClientTls, TlsError, Trust, fingerprint, fingerprint_text};

/// Addresses of one server that are tried, all its MX hosts together.
const ADDRESSES_MAXIMUM: usize = 10;
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
    pub(super) opened: Instant,
    /// Transactions started on it.
    pub(super) transactions: u32,
    /// The last transaction was given up before its end: RSET must come first.
    pub(super) needs_reset: bool,
    /// Recipient domains named on it (RCPTDOMAINMAX).
    pub(super) domains: BTreeSet<String>,
    pub(super) tls: Option<TlsFacts>,
    pub(super) login: Option<Mechanism>,
}

/// What was agreed in a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1_3`.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// The certificate's fingerprint as the configuration writes it.
    pub fingerprint: String,
    /// It was verified, by chain and name or by fingerprint.
    pub verified: bool,
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
    tls: Mutex<HashMap<(Certificates, bool), ClientTls>>,
}

/// One attempt at one address, and the notes that outlive it.
struct Try<'a> {
    target: &'a Target,
    server: &'a Server,
    transcript: Option<Transcript>,
    reached: String,
}

impl Dialer {
    pub(super) fn new(dns: Arc<dyn Dns>) -> Self {
        Self {
            dns,
            tls: Mutex::default(),
        }
    }

    /// Forgets certificates read from files: they may have changed.
    pub(super) fn forget(&self) {
        self.tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Tries the relay's servers in order.
    ///
    /// The next is tried when one cannot be reached or does not greet; not when it
    /// refuses the login, for the next would only count one more failed attempt. Of
    /// several errors the one that came furthest is told, the first of equals.
    pub(super) async fn connect(
        &self,
        target: &Target,
        transcript: Option<Transcript>,
    ) -> Result<Connection, Unconnected> {
        let mut worst: Option<(RelayError, String)> = None;
        let mut transcript = transcript;
        for (place, server) in target.relay.servers.iter().enumerate() {
            let mut attempt = Try {
                target,
                server,
                transcript: transcript.take(),
                reached: String::new(),
            };
            match self.connect_server(&mut attempt).await {
                Ok(mut connection) => {
                    connection.is_fallback = place > 0;
                    return Ok(connection);
                }
                Err(error) => {
                    transcript = attempt.transcript.take();
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
        let looked_up = timeout_at(patience, self.find(&attempt.server.host)).await;
        let found = looked_up.unwrap_or_else(|_| {
            Err(RelayError::Dns {
                name: attempt.server.host.to_string(),
                detail: timed_out(limit * PATIENCE),
            })
        });
        attempt.note(&match &found {
            Ok(list) => format!(
                "{} is {}",
                attempt.server.host,
                list.iter()
                    .map(|(name, at)| format!("{name} [{at}]"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Err(error) => error.to_string(),
        });
        let mut worst: Option<(RelayError, String)> = None;
        for (name, address) in found? {
            let address = SocketAddr::new(address, attempt.server.port);
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
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    let stage = error.stage();
                    attempt.note(&error.to_string());
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

    /// The addresses of a server, in the order to try them, each with its host's name.
    async fn find(&self, host: &Host) -> Result<Vec<(String, IpAddr)>, RelayError> {
        let names = match host {
            Host::Address(address) => return Ok(vec![(address.to_string(), *address)]),
            Host::Name(name) => vec![name.ascii().to_owned()],
            Host::Mx(name) => self.mail_hosts(name).await?,
        };
        let mut found = Vec::new();
        let mut trouble = None;
        for name in names {
            match addresses(&*self.dns, &name).await {
                Ok(list) => found.extend(list.into_iter().map(|it| (name.clone(), it))),
                // A temporary failure is the better excuse: it says less.
                Err(error) if error.is_temporary() => trouble = Some((name, error)),
                Err(error) => {
                    trouble.get_or_insert((name, error));
                }
            }
            if found.len() >= ADDRESSES_MAXIMUM {
                break;
            }
        }
        found.truncate(ADDRESSES_MAXIMUM);
        match trouble {
            Some((name, error)) if found.is_empty() => Err(dns_error(name, &error)),
            _ => Ok(found),
        }
    }

    async fn mail_hosts(&self, name: &Domain) -> Result<Vec<String>, RelayError> {
        match mail_servers(&*self.dns, name).await {
            Ok(MailServers::Listed(names)) => Ok(names),
            Ok(MailServers::Itself) => Ok(vec![name.ascii().to_owned()]),
            Ok(MailServers::Nobody) => Err(RelayError::NoServer {
                name: name.to_string(),
                detail: "its null MX record says that it takes no mail".to_owned(),
            }),
            Err(error) => Err(dns_error(name.to_string(), &error)),
        }
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
            Ok(Err(error)) => return Err(no_connection(server, io_words(&error))),
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
            Ok((offered, login)) => Ok(Connection {
                wire,
                target: attempt.target.clone(),
                offered,
                server,
                is_fallback: false,
                opened: Instant::now(),
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
    ) -> Result<(Extensions, Option<Mechanism>), RelayError> {
        let timeouts = &attempt.target.timeouts;
        let left = deadline.saturating_duration_since(Instant::now());
        let greeting = wire.reply(Stage::Greeting, left).await?;
        if !greeting.is_positive() {
            return Err(refused(Stage::Greeting, greeting));
        }
        let mut offered = greet(wire, attempt.target).await?;
        if use_starttls && tls.is_none() && self.wants_starttls(attempt, &offered)? {
            let reply = wire
                .command(Stage::StartTls, "STARTTLS", "STARTTLS", timeouts.command)
                .await?;
            if reply.is_positive() {
                *tls = Some(self.upgrade(attempt, wire).await?);
                // What was offered in clear may have been said by anybody.
                offered = greet(wire, attempt.target).await?;
            } else if attempt.server.tls != RelayTls::Opportunistic {
                return Err(refused(Stage::StartTls, reply));
            }
        }
        let login = self
            .authenticate(attempt, wire, tls.as_ref(), &offered)
            .await?;
        Ok((offered, login))
    }

    fn wants_starttls(&self, attempt: &Try<'_>, offered: &Extensions) -> Result<bool, RelayError> {
        match attempt.server.tls {
            RelayTls::Off | RelayTls::Implicit => Ok(false),
            RelayTls::Required | RelayTls::Opportunistic if offered.starttls => Ok(true),
            RelayTls::Opportunistic => Ok(false),
            RelayTls::Required if attempt.logs_in() => Err(RelayError::NoSecureLogin {
                server: attempt.reached.clone(),
            }),
            RelayTls::Required => Err(RelayError::Tls {
                server: attempt.reached.clone(),
                detail: "the server does not offer STARTTLS".to_owned(),
            }),
        }
    }

    /// Puts TLS on a connection that was promised it.
    async fn upgrade(
        &self,
        attempt: &mut Try<'_>,
        wire: &mut Wire,
    ) -> Result<TlsFacts, RelayError> {
        // Octets behind the 220 came in clear, perhaps from somebody in between, and would
        // be taken for replies under TLS: response injection.
        if wire.has_unread() {
            return Err(RelayError::Garbage {
                stage: Stage::StartTls,
                said: "more octets in clear after the reply to STARTTLS: somebody injects replies"
                    .to_owned(),
            });
        }
        let deadline = Instant::now() + attempt.target.timeouts.connect;
        let placeholder = Wire::new(Stream::Closed, None);
        let (stream, transcript) = std::mem::replace(wire, placeholder).into_parts();
        attempt.transcript = transcript;
        let Stream::Plain(stream) = stream else {
            return Err(RelayError::Tls {
                server: attempt.reached.clone(),
                detail: "TLS within TLS".to_owned(),
            });
        };
        let (stream, facts) = self.secure(attempt, stream, deadline).await?;
        *wire = Wire::new(stream, attempt.transcript.take());
        Ok(facts)
    }

    /// The handshake.
    async fn secure(
        &self,
        attempt: &mut Try<'_>,
        stream: TcpStream,
        deadline: Instant,
    ) -> Result<(Stream, TlsFacts), RelayError> {
        let failed = |detail: String| RelayError::Tls {
            server: attempt.reached.clone(),
            detail,
        };
        let certificates = &attempt.target.relay.certificates;
        let trust = match attempt.server.tls {
            RelayTls::Opportunistic if !attempt.logs_in() => Trust::Nobody,
            _ => Trust::Configured,
        };
        let client = self
            .client(certificates, trust)
            .await
            .map_err(|error| failed(error.to_string()))?;
        // The name that was configured, not the one that DNS gave for it: whoever can
        // forge an MX record must not get the password.
        let name = match (&certificates.tls_name, &attempt.server.host) {
            (Some(name), _) => name.clone(),
            (None, Host::Mx(name) | Host::Name(name)) => name.ascii().to_owned(),
            (None, Host::Address(address)) => address.to_string(),
        };
        let limit = attempt.target.timeouts.connect;
        let handshake = timeout_at(deadline, client.connect(&name, stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(timed_out(limit))),
        };
        let session = stream.get_ref().1;
        let leaf = session.peer_certificates().and_then(|it| it.first());
        let facts = TlsFacts {
            version: session
                .protocol_version()
                .map(|it| format!("{it:?}"))
                .unwrap_or_default(),
            cipher: session
                .negotiated_cipher_suite()
                .map(|it| format!("{:?}", it.suite()))
                .unwrap_or_default(),
            fingerprint: leaf
                .map(|it| fingerprint_text(&fingerprint(it)))
                .unwrap_or_default(),
            verified: client.is_verified(),
        };
        attempt.note(&format!(
            "{} {}, certificate {} {}",
            facts.version,
            facts.cipher,
            facts.fingerprint,
            if facts.verified {
                "verified"
            } else {
                "not verified"
            }
        ));
        Ok((Stream::Tls(Box::new(stream)), facts))
    }

    async fn client(
        &self,
        certificates: &Certificates,
        trust: Trust,
    ) -> Result<ClientTls, TlsError> {
        let key = (certificates.clone(), trust == Trust::Configured);
        let lock = || self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = lock().get(&key) {
            return Ok(kept.clone());
        }
        // It reads files, the system's roots among them.
        let wanted = key.0.clone();
        let made = tokio::task::spawn_blocking(move || ClientTls::new(&wanted, trust))
            .await
            .map_err(|error| TlsError::Handshake(error.to_string()))??;
        lock().insert(key, made.clone());
        Ok(made)
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
        log_in(
            wire,
            mechanism,
            credentials,
            attempt.target.timeouts.command,
        )
        .await?;
        // Nothing said from here on can quote what was only sent until here.
        wire.mask([]);
        Ok(Some(mechanism))
    }
}

impl Try<'_> {
    fn logs_in(&self) -> bool {
        self.target.relay.credentials.is_some() && self.target.relay.auth != AuthMethod::None
    }

    fn note(&mut self, words: &str) {
        if let Some(transcript) = &mut self.transcript {
            transcript.add(super::transcript::Said::Note, words);
        }
    }
}

/// EHLO, and HELO for servers from before 1993.
async fn greet(wire: &mut Wire, target: &Target) -> Result<Extensions, RelayError> {
    let limit = target.timeouts.command;
    let line = format!("EHLO {}", target.hostname);
    let reply = wire.command(Stage::Ehlo, &line, &line, limit).await?;
    if reply.is_positive() {
        return Ok(Extensions::parse(&reply));
    }
    if !reply.is_permanent() {
        return Err(refused(Stage::Ehlo, reply));
    }
    let line = format!("HELO {}", target.hostname);
    let reply = wire.command(Stage::Ehlo, &line, &line, limit).await?;
    if reply.is_positive() {
        Ok(Extensions::default())
    } else {
        Err(refused(Stage::Ehlo, reply))
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

fn no_connection(server: String, detail: String) -> RelayError {
    RelayError::Connect { server, detail }
}

fn timed_out(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

fn dns_error(name: String, error: &DnsError) -> RelayError {
    let detail = printable(error.to_string().as_bytes(), 200);
    if error.is_temporary() {
        RelayError::Dns { name, detail }
    } else {
        RelayError::NoServer { name, detail }
    }
}
