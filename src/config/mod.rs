//! Configuration as meant: checked values, one slice a stage.
//!
//! What stands in the TOML files is read once, by [`Config::load`] or [`Config::parse`];
//! [`Config`] is what the rest of the program sees: nothing in it needs to be checked
//! again. Every mistake is a [`Problem`] that names file, line, key and remedy.

pub mod changes;
mod endpoint;
pub mod facts;
mod file;
pub mod hint;
mod hostname;
pub mod keys;
pub mod limits;
mod listener;
mod machine;
mod oauth;
mod place;
pub mod preset;
pub mod problem;
pub mod read;
mod relay;
pub mod secret;
pub mod server;
mod user;
pub mod value;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::mail::{Domain, Mailbox};

pub use changes::changes;
pub use endpoint::Endpoint;
pub use facts::{Fact, Section, tls_word};
pub use hint::HintName;
pub use hostname::machine_name;
pub use limits::{LimitSource, Limits, WrittenAt};
pub use listener::IMPLIED_LISTENER;
pub use oauth::{Grant, OAuth, Provider};
pub use place::group_id;
pub(crate) use place::plain;
pub use preset::Preset;
pub use problem::{ConfigError, Problem};
pub use read::{Checked, inspect, inspect_as, load, users_path};
pub use secret::Secret;

/// Everything that was configured, whole and consistent.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name this host greets with, and that stands in Received fields.
    pub hostname: String,
    /// The relay for a From that matches no user; its key in `relays`.
    pub default_relay: Option<String>,
    /// The relay for reports; none: the sender's own.
    pub bounces_via: Option<String>,
    /// Who gets alarms.
    pub admin: Option<Mailbox>,
    /// The listeners.
    pub listen: Vec<Listener>,
    /// The spool.
    pub spool: SpoolConfig,
    /// Bounds on one message.
    pub message: MessageLimits,
    /// The certificate for listeners; none: a self-signed one is made.
    pub tls: Option<TlsFiles>,
    /// Time limits of both sides.
    pub timeouts: Timeouts,
    /// When to try again and when to give up.
    pub retry: Retry,
    /// The status and confirmation pages.
    pub http: Http,
    /// What to do about hints, by the hint's name.
    pub hints: Hints,
    /// The relays by name.
    pub relays: BTreeMap<String, Relay>,
    /// The user directory as written, in order.
    pub users: Vec<User>,
}

/// Where clients connect, and who may.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Address and port, or the address that a systemd socket is matched to.
    pub address: SocketAddr,
    /// How TLS is offered.
    pub tls: ListenerTls,
    /// Whether logging in is offered.
    pub auth: ListenerAuth,
    /// Networks that may submit without a login.
    pub allow_from: Vec<IpNet>,
    /// From addresses taken without a login; empty: all whose user has no password.
    pub senders: Vec<Mailbox>,
    /// What a bare CR or LF is answered with.
    pub bare_lf: BareLf,
}

/// How a listener offers TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerTls {
    /// Not at all.
    Off,
    /// By the command STARTTLS (RFC 3207).
    StartTls,
    /// From the first octet (RFC 8314).
    Implicit,
}

/// Whether a listener offers AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerAuth {
    /// Not offered.
    Off,
    /// Offered; not needed from loopback and `allow-from`.
    Optional,
    /// Needed before MAIL.
    Required,
}

/// What happens to a bare CR or LF in mail data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareLf {
    /// The message is refused (RFC 5321 section 2.3.8).
    Refuse,
    /// It becomes CRLF; it never ends a message.
    Repair,
}

/// The spool's place and its reserve.
#[derive(Debug, Clone, PartialEq)]
pub struct SpoolConfig {
    /// The state directory.
    pub path: PathBuf,
    /// Below this much free room new mail is refused.
    pub min_free: MinFree,
}

/// A reserve of disk space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinFree {
    /// Percent of the file system.
    Percent(f64),
    /// Octets.
    Bytes(u64),
}

/// Bounds on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Octets: what SIZE announces.
    pub max_size_bytes: u64,
    /// Recipients of one transaction.
    pub max_recipients: usize,
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the listener's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Time limits (RFC 5321 section 4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A client that sends nothing.
    pub idle: Duration,
    /// Upstream: TCP, TLS and greeting together.
    pub connect: Duration,
    /// Upstream: the reply to a command.
    pub command: Duration,
    /// Upstream: progress while the content is sent.
    pub data: Duration,
    /// Upstream: the reply to the final dot.
    pub final_dot: Duration,
}

/// When to try again and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first delay.
    pub first: Duration,
    /// The longest delay.
    pub max: Duration,
    /// From the first transient failure to giving up.
    pub expire_after: Duration,
    /// From the first transient failure to the delay warning.
    pub warn_after: Duration,
}

/// Pages served over HTTP.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Http {
    /// Metrics, health and status; none: off.
    pub admin: Option<HttpAddress>,
    /// The confirmation page; none: off.
    pub confirm: Option<SocketAddr>,
    /// What confirmation links begin with, without a slash at its end.
    pub base_url: Option<String>,
}

/// Where a page is served.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// A loopback address.
    Loopback(SocketAddr),
}

/// What is done about hints.
#[derive(Debug, Clone, PartialEq)]
pub struct Hints {
    /// Whether DNS is asked; otherwise only contents are looked at.
    pub dns: bool,
    /// By the hint; what is missing is only logged.
    pub actions: BTreeMap<HintName, HintAction>,
    /// DNS blacklists of addresses.
    pub dnsbl: Vec<Domain>,
    /// DNS blacklists of domains.
    pub rhsbl: Vec<Domain>,
}

/// What is done about one kind of hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HintAction {
    /// Said in the log and by `penstock hints`.
    #[default]
    Log,
    /// The message is held.
    Hold,
    /// The message is refused.
    Reject,
    /// Nobody looks for it.
    Off,
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            dns: true,
            actions: BTreeMap::new(),
            dnsbl: Vec::new(),
            rhsbl: Vec::new(),
        }
    }
}

impl Hints {
    /// Whether mail is held or refused for what its content shows.
    pub fn judges_content(&self) -> bool {
        let judges = |it: &HintAction| matches!(it, HintAction::Hold | HintAction::Reject);
        let mut actions = self.actions.iter();
        actions.any(|(hint, action)| hint.is_content() && judges(action))
    }

    /// What is done about this hint.
    pub fn action(&self, hint: HintName) -> HintAction {
        self.actions.get(&hint).copied().unwrap_or_default()
    }
}

/// An upstream relay.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// Its key in `[relays]`.
    pub name: String,
    /// Servers in the order to try them; never empty: `server`, then `fallback`.
    pub servers: Vec<Server>,
    /// The relay account's own address.
    pub sender: Option<Mailbox>,
    /// How to log in; none: without.
    pub credentials: Option<Credentials>,
    /// Which mechanism to use.
    pub auth: AuthMethod,
    /// What is demanded of its certificate.
    pub certificates: Certificates,
    /// What MAIL FROM becomes.
    pub reverse_path: ReversePathRule,
    /// It accepts large amounts of mail.
    pub bulk: bool,
    /// What senders' SPF records must contain.
    pub spf_include: Option<Domain>,
    /// The addresses from which it delivers, where they are known.
    pub outbound_ips: Vec<IpNet>,
    /// Inactive until its test message is confirmed.
    pub verify: bool,
    /// What it may get, and when.
    pub limits: Limits,
}

/// One server of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// The name or address.
    pub host: Host,
    /// The port; 25 unless written.
    pub port: u16,
    /// How TLS is used with it.
    pub tls: RelayTls,
}

/// How a server is named (PRODUCT section 5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// `smtp.example.nl`: MX records first, then address records.
    Mx(Domain),
    /// `[smtp.example.nl]`: address records only.
    Name(Domain),
    /// `192.0.2.11`, `[192.0.2.11]`, `[2001:db8::1]`: no look-up.
    Address(IpAddr),
}

/// How much TLS is demanded of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayTls {
    /// From the first octet; the default on port 465.
    Implicit,
    /// STARTTLS or nothing is sent; the default on port 587, and everywhere with credentials.
    Required,
    /// STARTTLS where it is offered, unverified; the default elsewhere without credentials.
    Opportunistic,
    /// In clear, credentials too.
    Off,
}

/// How a relay's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Certificates {
    /// Instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the only certificate to accept.
    pub fingerprint: Option<[u8; 32]>,
    /// The name to verify instead of the configured one.
    pub tls_name: Option<String>,
}

/// A login at a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name; for a token, the mailbox.
    pub username: String,
    /// What goes with it.
    pub proof: Proof,
}

/// What proves that a login is one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A password; prints as `***`.
    Password(Secret),
    /// A token that is asked for (XOAUTH2).
    Token(Box<OAuth>),
}

impl Credentials {
    /// Who gives the token, where it is one.
    pub fn oauth(&self) -> Option<&OAuth> {
        match &self.proof {
            Proof::Token(oauth) => Some(oauth),
            Proof::Password(_) => None,
        }
    }

    /// The password, where it is one.
    pub fn password(&self) -> Option<&Secret> {
        match &self.proof {
            Proof::Password(password) => Some(password),
            Proof::Token(_) => None,
        }
    }
}

/// How to log in at a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// The best that the relay offers, PLAIN first, CRAM-MD5 where nothing else is offered.
    Auto,
    /// RFC 4616.
    Plain,
    /// The old two-question login.
    Login,
    /// RFC 2195.
    CramMd5,
    /// OAuth 2 bearer tokens.
    XOauth2,
    /// None, even with credentials.
    None,
}

/// What MAIL FROM becomes upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReversePathRule {
    /// What the client said.
    Keep,
    /// The From address.
    From,
    /// This address.
    Fixed(Mailbox),
}

/// One entry of the user directory.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// What From is matched with.
    pub address: UserAddress,
    /// Further addresses of the same user.
    pub aliases: Vec<Mailbox>,
    /// The relay's name; none: the default relay.
    pub relay: Option<String>,
    /// The name for SMTP AUTH; the address unless written.
    pub username: Option<String>,
    /// An argon2 hash in PHC form; only with an address, not a domain.
    pub password_hash: Option<Secret>,
}

/// What an entry of the directory matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserAddress {
    /// One address.
    Mailbox(Mailbox),
    /// `@domain`: everyone else there.
    Domain(Domain),
}

#[cfg(test)]
mod sample_tests;
