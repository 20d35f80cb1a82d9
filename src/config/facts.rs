//! The effective configuration as a list of keys and values: for `penstock config show`,
//! and for comparing two of them.

use toml::Value;

use super::value::{write_duration, write_percent, write_size};
use super::{
    AuthMethod, BareLf, Config, Credentials, HttpAddress, LimitSource, Listener, ListenerAuth,
    ListenerTls, MinFree, OAuth, Provider, Relay, RelayTls, ReversePathRule, Secret, User,
    UserAddress,
};

/// What is shown instead of a secret.
const HIDDEN: &str = "***";

/// One table of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its table, as it is written: `relays.own`, `listen`; empty: the top.
    pub table: String,
    /// Whether it is one of an array of tables.
    pub array: bool,
    /// What people call it: `relay own`, `listener 127.0.0.1:2525`.
    pub title: String,
    /// Its keys in their usual order; `limits.per-hour` for a table below.
    pub facts: Vec<Fact>,
}

/// One key with its effective value.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The key.
    pub key: String,
    /// The value as it would be written; a secret prints as `***`.
    pub value: Value,
    /// For a limit: where the value comes from.
    pub source: Option<LimitSource>,
    /// The secret itself, only for comparing.
    pub(super) secret: Option<Secret>,
}

impl Fact {
    /// The value for people: without quotes and brackets.
    pub fn words(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            Value::Array(list) => {
                let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                texts.join(", ")
            }
            other => other.to_string(),
        }
    }
}

impl Section {
    fn new(table: &str, title: &str) -> Self {
        Self {
            table: table.to_owned(),
            array: false,
            title: title.to_owned(),
            facts: Vec::new(),
        }
    }

    fn add(&mut self, key: &str, value: impl Into<Value>) -> &mut Fact {
        self.facts.push(Fact {
            key: key.to_owned(),
            value: value.into(),
            source: None,
            secret: None,
        });
        let last = self.facts.len() - 1;
        &mut self.facts[last]
    }

    /// A key that may be missing.
    fn add_some(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(key, value.to_string());
        }
    }

    fn add_list<T: ToString>(&mut self, key: &str, list: &[T]) {
        let texts: Vec<Value> = list.iter().map(|it| Value::from(it.to_string())).collect();
        self.add(key, texts);
    }

    fn add_secret(&mut self, key: &str, secret: &Secret) {
        self.add(key, HIDDEN).secret = Some(secret.clone());
    }
}

impl Config {
    /// Every table with every effective value, in the order of the sample file.
    pub fn sections(&self) -> Vec<Section> {
        let mut sections = vec![self.top()];
        sections.extend(self.listen.iter().map(listener));
        sections.extend(self.machine());
        sections.extend(self.relays.values().map(relay));
        sections.extend(self.users.iter().map(user));
        sections
    }

    fn top(&self) -> Section {
        let mut top = Section::new("", "");
        top.add("hostname", self.hostname.as_str());
        top.add_some("default-relay", self.default_relay.as_ref());
        top.add_some("bounces-via", self.bounces_via.as_ref());
        top.add_some("admin", self.admin.as_ref());
        top
    }

    fn machine(&self) -> Vec<Section> {
        let mut tls = Section::new("tls", "tls");
        if let Some(files) = &self.tls {
            tls.add("certificate", files.certificate.to_string_lossy().as_ref());
            tls.add("key", files.key.to_string_lossy().as_ref());
        }
        let mut spool = Section::new("spool", "spool");
        spool.add("path", self.spool.path.to_string_lossy().as_ref());
        let min_free = match self.spool.min_free {
            MinFree::Percent(percent) => write_percent(percent),
            MinFree::Bytes(octets) => write_size(octets),
        };
        spool.add("min-free", min_free);
        let mut message = Section::new("message", "message");
        message.add("max-size", write_size(self.message.max_size_bytes));
        message.add("max-recipients", number(self.message.max_recipients));
        let mut timeouts = Section::new("timeouts", "timeouts");
        for (key, duration) in [
            ("idle", self.timeouts.idle),
            ("connect", self.timeouts.connect),
            ("command", self.timeouts.command),
            ("data", self.timeouts.data),
            ("final-dot", self.timeouts.final_dot),
        ] {
            timeouts.add(key, write_duration(duration));
        }
        let mut retry = Section::new("retry", "retry");
        for (key, duration) in [
            ("first", self.retry.first),
            ("max", self.retry.max),
            ("expire-after", self.retry.expire_after),
            ("warn-after", self.retry.warn_after),
        ] {
            retry.add(key, write_duration(duration));
        }
        let mut http = Section::new("http", "http");
        let admin = self.http.admin.as_ref().map(|it| match it {
            HttpAddress::Unix(path) => format!("unix:{}", path.display()),
            HttpAddress::Loopback(address) => address.to_string(),
        });
        http.add_some("admin", admin);
        http.add_some("confirm", self.http.confirm);
        http.add_some("base-url", self.http.base_url.as_ref());
        let mut hints = Section::new("hints", "hints");
        if !self.hints.dns {
            hints.add("dns", false);
        }
        if !self.hints.dnsbl.is_empty() {
            hints.add_list("dnsbl", &self.hints.dnsbl);
        }
        if !self.hints.rhsbl.is_empty() {
            hints.add_list("rhsbl", &self.hints.rhsbl);
        }
        for (name, action) in &self.hints.actions {
            hints.add(&format!("{}.action", name.name()), action.name());
        }
        let all = [tls, spool, message, timeouts, retry, http, hints];
        all.into_iter().filter(|it| !it.facts.is_empty()).collect()
    }
}

fn listener(listener: &Listener) -> Section {
    let mut section = Section::new("listen", &format!("listener {}", listener.address));
    section.array = true;
    section.add("address", listener.address.to_string());
    let tls = match listener.tls {
        ListenerTls::Off => "off",
        ListenerTls::StartTls => "starttls",
        ListenerTls::Implicit => "implicit",
    };
    section.add("tls", tls);
    let auth = match listener.auth {
        ListenerAuth::Off => "off",
        ListenerAuth::Optional => "optional",
        ListenerAuth::Required => "required",
    };
    section.add("auth", auth);
    section.add_list("allow-from", &listener.allow_from);
    if !listener.senders.is_empty() {
        section.add_list("senders", &listener.senders);
    }
    let bare_lf = match listener.bare_lf {
        BareLf::Refuse => "refuse",
        BareLf::Repair => "repair",
    };
    section.add("bare-lf", bare_lf);
    section
}

fn relay(relay: &Relay) -> Section {
    let mut section = Section::new(
        &format!("relays.{}", table_key(&relay.name)),
        &format!("relay {}", relay.name),
    );
    let (first, fallback) = match relay.servers.split_first() {
        Some((first, fallback)) => (Some(first), fallback),
        None => (None, &[][..]),
    };
    section.add_some("server", first);
    if !fallback.is_empty() {
        section.add_list("fallback", fallback);
    }
    section.add_some("sender", relay.sender.as_ref());
    if let Some(login) = &relay.credentials {
        section.add("username", login.username.as_str());
        if let Some(password) = login.password() {
            section.add_secret("password", password);
        }
    }
    section.add("auth", auth_word(relay.auth));
    let demands: Vec<&str> = relay.servers.iter().map(|it| tls_word(it.tls)).collect();
    match demands.first() {
        Some(first) if demands.iter().all(|it| it == first) => {
            section.add("tls", *first);
        }
        // Decided by the ports of the servers, one after the other.
        _ => section.add_list("tls", &demands),
    }
    let certificates = &relay.certificates;
    section.add_some("tls-name", certificates.tls_name.as_ref());
    section.add_some(
        "ca-file",
        certificates.ca_file.as_ref().map(|it| it.display()),
    );
    let fingerprint = certificates.fingerprint.map(|octets| {
        let digits: String = octets.iter().map(|it| format!("{it:02x}")).collect();
        format!("sha256:{digits}")
    });
    section.add_some("fingerprint", fingerprint);
    let reverse_path = match &relay.reverse_path {
        ReversePathRule::Keep => "keep".to_owned(),
        ReversePathRule::From => "from".to_owned(),
        ReversePathRule::Fixed(address) => address.to_string(),
    };
    section.add("reverse-path", reverse_path);
    section.add("bulk", relay.bulk);
    section.add_some("spf-include", relay.spf_include.as_ref());
    if !relay.outbound_ips.is_empty() {
        section.add_list("outbound-ips", &relay.outbound_ips);
    }
    section.add("verify", relay.verify);
    if let Some(oauth) = relay.credentials.as_ref().and_then(Credentials::oauth) {
        add_oauth(&mut section, oauth);
    }
    section.add("limits.preset", relay.limits.preset.name());
    for (key, value) in relay.limits.entries() {
        let value = match value.parse::<i64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::from(value),
        };
        section.add(&format!("limits.{key}"), value).source = Some(relay.limits.source(key));
    }
    section
}

fn add_oauth(section: &mut Section, oauth: &OAuth) {
    section.add_some("oauth.provider", oauth.provider.map(Provider::name));
    section.add("oauth.client-id", oauth.client_id.as_str());
    if let Some(secret) = &oauth.client_secret {
        section.add_secret("oauth.client-secret", secret);
    }
    section.add("oauth.grant", oauth.grant.name());
    section.add("oauth.scope", oauth.scope.as_str());
    section.add("oauth.token-url", oauth.token_url.to_string());
    section.add_some("oauth.device-url", oauth.device_url.as_ref());
    section.add_some(
        "oauth.ca-file",
        oauth.ca_file.as_ref().map(|it| it.display()),
    );
}

fn user(user: &User) -> Section {
    let address = match &user.address {
        UserAddress::Mailbox(mailbox) => mailbox.to_string(),
        UserAddress::Domain(domain) => format!("@{domain}"),
    };
    let mut section = Section::new("user", &format!("user {address}"));
    section.array = true;
    section.add("address", address);
    if !user.aliases.is_empty() {
        section.add_list("aliases", &user.aliases);
    }
    section.add_some("relay", user.relay.as_ref());
    section.add_some("username", user.username.as_ref());
    if let Some(hash) = &user.password_hash {
        section.add_secret("password-hash", hash);
    }
    section
}

/// The word for a way to log in.
pub fn auth_word(auth: AuthMethod) -> &'static str {
    match auth {
        AuthMethod::Auto => "auto",
        AuthMethod::Plain => "plain",
        AuthMethod::Login => "login",
        AuthMethod::CramMd5 => "cram-md5",
        AuthMethod::XOauth2 => "xoauth2",
        AuthMethod::None => "none",
    }
}

/// The word for a demand of TLS.
pub fn tls_word(tls: RelayTls) -> &'static str {
    match tls {
        RelayTls::Implicit => "implicit",
        RelayTls::Required => "required",
        RelayTls::Opportunistic => "opportunistic",
        RelayTls::Off => "off",
    }
}

/// A dot in a name would be taken for a table below.
fn table_key(name: &str) -> String {
    match name.contains('.') {
        true => format!("\"{name}\""),
        false => name.to_owned(),
    }
}

fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "hostname = \"a.example\"\ndefault-relay = \"own\"\n\
        [relays.own]\nserver = \"[a.example]:587\"\nlogin = \"u verysecret\"\n\
        [relays.old]\nserver = \"b.example\"\n";
    const USERS: &str = "[[user]]\naddress = \"jan@a.example\"\nrelay = \"own\"\n";

    fn parse(main: &str, users: &str) -> Config {
        Config::parse(main, users).unwrap()
    }

    #[test]
    fn the_effective_configuration_shows_no_secret_and_every_source() {
        let config = parse(MAIN, USERS);
        let sections = config.sections();
        assert!(!format!("{sections:?}").contains("verysecret"));
        let own = sections.iter().find(|it| it.title == "relay own").unwrap();
        let per_hour = own
            .facts
            .iter()
            .find(|it| it.key == "limits.per-hour")
            .unwrap();
        assert_eq!(per_hour.value, Value::from(1200));
        assert!(matches!(per_hour.source, Some(LimitSource::Preset { .. })));
        assert!(
            own.facts
                .iter()
                .any(|it| it.key == "password" && it.words() == "***")
        );
    }
}
