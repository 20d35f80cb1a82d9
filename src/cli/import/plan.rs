//! From Postfix's parameters to relays and users: what is understood, and what is not.

use std::collections::{BTreeMap, BTreeSet};

use super::next_hop::{host_of, is_local, is_sender, server};
use super::postfix::{Lookup, MainFile, words};
use crate::config::value::{write_duration, write_size};
use crate::config::{Host, Preset};

/// Certificates that every system has; a relay that needs only these needs no ca-file.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];
/// Parameters that decide about other things than relays, and what stands in for them.
const ELSEWHERE: [(&str, &str); 23] = [
    (
        "transport_maps",
        "Penstock chooses the relay by From, never by recipient",
    ),
    (
        "sender_canonical_maps",
        "Penstock does not rewrite addresses",
    ),
    (
        "recipient_canonical_maps",
        "Penstock does not rewrite addresses",
    ),
    ("canonical_maps", "Penstock does not rewrite addresses"),
    ("masquerade_domains", "Penstock does not rewrite addresses"),
    (
        "smtp_generic_maps",
        "Penstock does not rewrite addresses; see reverse-path",
    ),
    ("virtual_alias_maps", "Penstock delivers no mail here"),
    ("always_bcc", "Penstock adds no recipients"),
    ("sender_bcc_maps", "Penstock adds no recipients"),
    ("recipient_bcc_maps", "Penstock adds no recipients"),
    ("header_checks", "Penstock leaves messages as they are"),
    ("smtp_header_checks", "Penstock leaves messages as they are"),
    ("mime_header_checks", "Penstock leaves messages as they are"),
    ("body_checks", "Penstock leaves messages as they are"),
    ("smtp_body_checks", "Penstock leaves messages as they are"),
    (
        "relay_domains",
        "Penstock takes mail for every domain, from who may send, and chooses the relay by From",
    ),
    (
        "relay_transport",
        "Penstock chooses the relay by From, never by recipient",
    ),
    ("content_filter", "Penstock hands mail to relays only"),
    ("smtpd_milters", "Penstock has no milters"),
    (
        "non_smtpd_milters",
        "Penstock has no milters: signing is the relay's task",
    ),
    (
        "mynetworks",
        "write allow-from at a [[listen]], if more than this machine sends",
    ),
    (
        "smtpd_sender_login_maps",
        "a user with a password-hash sends as his own addresses only",
    ),
    ("smtp_bind_address", "Penstock takes the system's address"),
];

/// Transports that hand mail to no relay.
const NO_RELAY: [&str; 8] = [
    "error", "retry", "discard", "local", "virtual", "lmtp", "uucp", "pipe",
];

/// Where mail goes that no table says anything about.
enum ByDefault {
    /// By this parameter, to this next hop.
    To(&'static str, String),
    /// To the world itself.
    Direct,
    /// Nowhere that a relay could stand for.
    Nowhere,
}

/// What would be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Single values: table, key, value.
    pub values: Vec<(&'static str, &'static str, String)>,
    /// The default relay's name.
    pub default_relay: Option<String>,
    /// The relays.
    pub relays: Vec<PlannedRelay>,
    /// The users: address or @domain, and relay; none: the default.
    pub users: Vec<(String, Option<String>)>,
    /// What was understood, a line each.
    pub understood: Vec<String>,
    /// What was not, or needs a look, a line each.
    pub left: Vec<String>,
}

/// One relay to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRelay {
    /// Its name.
    pub name: String,
    /// Its keys as they would be written, in order.
    pub keys: Vec<(&'static str, String)>,
    /// The servers to try after the first.
    pub fallback: Vec<String>,
    /// Its limits.
    pub limits: Vec<(&'static str, Limit)>,
}

/// The value of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// A number.
    Number(u32),
    /// A text.
    Text(String),
}

/// Two senders with the same of this share a relay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Account {
    next_hop: String,
    login: Option<(String, String)>,
}

/// Reads what Postfix does with outgoing mail; `taken` are names that relays have already.
pub fn plan(main: &MainFile, taken: &BTreeSet<String>) -> Plan {
    Planner {
        main,
        senders: main.lookup("sender_dependent_relayhost_maps"),
        passwords: main.lookup("smtp_sasl_password_maps"),
        policies: main.lookup("smtp_tls_policy_maps"),
        names: taken.clone(),
        accounts: BTreeMap::new(),
        used: BTreeSet::new(),
        plan: Plan::default(),
    }
    .run()
}

struct Planner<'a> {
    main: &'a MainFile,
    senders: Lookup,
    passwords: Lookup,
    policies: Lookup,
    names: BTreeSet<String>,
    accounts: BTreeMap<Account, String>,
    /// The passwords that a relay has, or that were spoken of.
    used: BTreeSet<String>,
    plan: Plan,
}

impl Planner<'_> {
    fn run(mut self) -> Plan {
        for lookup in [&self.senders, &self.passwords, &self.policies] {
            self.plan.left.extend(lookup.unread.iter().cloned());
        }
        if !self.main.is_yes("smtp_sasl_auth_enable")
            && self.main.get("smtp_sasl_password_maps").is_some()
        {
            self.plan.left.push(
                "smtp_sasl_auth_enable is not yes: Postfix did not log in; the passwords \
                 are taken all the same"
                    .into(),
            );
        }
        let default = self.default_next_hop();
        self.read_default(&default);
        match &default {
            ByDefault::Nowhere => {}
            ByDefault::To("default_transport", next_hop) => {
                self.tell_of_senders();
                self.read_logins(Some(next_hop), &mut BTreeSet::new());
            }
            ByDefault::To(_, next_hop) => self.read_senders(Some(next_hop)),
            ByDefault::Direct => self.read_senders(None),
        }
        self.read_rest_of_passwords();
        self.read_values();
        for (name, instead) in ELSEWHERE {
            if self.main.names().contains(name) {
                self.plan.left.push(format!("{name}: {instead}"));
            }
        }
        for (service, set) in self.main.services() {
            self.plan.left.push(format!(
                "master.cf, {service}: has its own {} (-o), which is not read",
                set.join(", ")
            ));
        }
        for word in self.main.without_value() {
            self.plan.left.push(format!(
                "main.cf, the line that begins with {word}: without a = it means nothing"
            ));
        }
        if self
            .main
            .get("sender_dependent_default_transport_maps")
            .is_some()
        {
            self.plan.left.push(
                "sender_dependent_default_transport_maps: not read; write its relays with \
                 penstock relay add"
                    .into(),
            );
        }
        self.plan
    }

    /// The next hop of `default_transport` counts more than `relayhost` and the one of the
    /// sender, which are not looked at then (postconf(5)).
    fn default_next_hop(&mut self) -> ByDefault {
        let written = self.main.get("default_transport");
        let (transport, next_hop) = match &written {
            Some(written) => written.split_once(':').unwrap_or((written, "")),
            None => ("smtp", ""),
        };
        if NO_RELAY.contains(&transport) {
            self.plan.left.push(format!(
                "default_transport {transport}: Postfix hands such mail to no relay, whatever \
                 relayhost and the senders' tables say, so none of them is taken over"
            ));
            return ByDefault::Nowhere;
        }
        if !matches!(transport, "smtp" | "relay") {
            self.plan.left.push(format!(
                "default_transport {transport}: a transport of its own in master.cf; it is taken \
                 for SMTP, with the smtp_ parameters of main.cf"
            ));
        }
        match (next_hop.trim(), self.main.get("relayhost")) {
            ("", Some(relayhost)) => ByDefault::To("relayhost", relayhost),
            ("", None) => ByDefault::Direct,
            (next_hop, _) => ByDefault::To("default_transport", next_hop.to_owned()),
        }
    }

    fn read_default(&mut self, default: &ByDefault) {
        let (parameter, next_hop) = match default {
            ByDefault::To(parameter, next_hop) => (*parameter, next_hop),
            ByDefault::Nowhere => return,
            ByDefault::Direct => {
                self.plan.left.push(
                    "relayhost is empty: Postfix delivers to the world by itself, Penstock never \
                     does; mail of other senders is refused until there is a default-relay"
                        .into(),
                );
                return;
            }
        };
        let login = self.login(None, next_hop);
        if let Some(name) = self.account(parameter, next_hop, login) {
            self.plan
                .understood
                .push(format!("{parameter} {next_hop}: default-relay {name}"));
            self.plan.default_relay = Some(name);
        }
    }

    /// Relays that Postfix does not use, because `default_transport` names another one.
    fn tell_of_senders(&mut self) {
        for parameter in ["relayhost", "sender_dependent_relayhost_maps"] {
            if self.main.get(parameter).is_some() {
                self.plan.left.push(format!(
                    "{parameter}: not taken over; Postfix does not look at it while \
                     default_transport names a next hop"
                ));
            }
        }
    }

    fn read_senders(&mut self, relayhost: Option<&String>) {
        let by_sender = self.main.is_yes("smtp_sender_dependent_authentication");
        let mut seen = BTreeSet::new();
        for (sender, next_hop) in self.senders.entries.clone() {
            if !seen.insert(sender.clone()) {
                continue;
            }
            if !is_sender(&sender) {
                self.plan
                    .left
                    .push(format!("sender {sender}: neither an address nor a @domain"));
                continue;
            }
            if next_hop.eq_ignore_ascii_case("dunno") {
                self.plan.users.push((sender, None));
                continue;
            }
            let login = self.login(by_sender.then_some(&sender), &next_hop);
            if let Some(name) = self.account(&sender, &next_hop, login) {
                self.plan
                    .understood
                    .push(format!("sender {sender}: {next_hop}, relay {name}"));
                self.plan.users.push((sender, Some(name)));
            }
        }
        self.read_logins(relayhost, &mut seen);
    }

    /// Senders with a login of their own at the relay of everybody.
    fn read_logins(&mut self, relayhost: Option<&String>, seen: &mut BTreeSet<String>) {
        let by_sender = self.main.is_yes("smtp_sender_dependent_authentication");
        for (sender, _) in self.passwords.entries.clone() {
            if !sender.contains('@') || !seen.insert(sender.clone()) {
                continue;
            }
            let Some(relayhost) = relayhost.filter(|_| by_sender) else {
                self.used.insert(sender.clone());
                self.plan.left.push(format!(
                    "the login of {sender}: smtp_sender_dependent_authentication is not yes, \
                     or there is no relayhost to use it at"
                ));
                continue;
            };
            let login = self.login(Some(&sender), relayhost);
            if let Some(name) = self.account(&sender, relayhost, login) {
                self.plan.understood.push(format!(
                    "sender {sender}: own login at {relayhost}, relay {name}"
                ));
                self.plan.users.push((sender, Some(name)));
            }
        }
    }

    /// Logins that Postfix has and no relay took.
    fn read_rest_of_passwords(&mut self) {
        let mut told = BTreeSet::new();
        for (whose, _) in &self.passwords.entries {
            if !self.used.contains(whose) && told.insert(whose) {
                self.plan.left.push(format!(
                    "the login of {whose} in smtp_sasl_password_maps: neither relayhost nor a \
                     sender uses it; if it is needed, penstock relay add"
                ));
            }
        }
    }

    /// The order of Postfix: the sender, the host's name, the next hop as it is written.
    fn login(&mut self, sender: Option<&String>, next_hop: &str) -> Option<(String, String)> {
        let first = words(next_hop).next().unwrap_or_default();
        let domain = sender.and_then(|it| Some(format!("@{}", it.rsplit_once('@')?.1)));
        let keys = [
            sender.cloned(),
            domain,
            Some(host_of(first)),
            Some(first.to_owned()),
        ];
        let (key, found) = keys
            .into_iter()
            .flatten()
            .find_map(|key| Some((key.clone(), self.passwords.get(&key)?)))?;
        self.used.insert(key.to_lowercase());
        let (username, password) = found.split_once(':').unwrap_or((found, ""));
        (!username.is_empty()).then(|| (username.to_owned(), password.to_owned()))
    }

    /// The relay for a next hop and a login: the one that there is, or a new one.
    fn account(
        &mut self,
        whose: &str,
        next_hop: &str,
        login: Option<(String, String)>,
    ) -> Option<String> {
        let account = Account {
            next_hop: next_hop.to_owned(),
            login,
        };
        if let Some(name) = self.accounts.get(&account) {
            return Some(name.clone());
        }
        let mut servers = words(next_hop).map(server);
        let (host, port, first) = match servers.next() {
            Some(Ok(read)) => read,
            Some(Err(words)) => {
                self.plan.left.push(format!("{whose}: {words}"));
                return None;
            }
            None => return None,
        };
        let mut fallback = Vec::new();
        let more = self.main.get("smtp_fallback_relay").unwrap_or_default();
        for next in servers.chain(words(&more).map(server)) {
            match next {
                Ok((_, _, text)) => fallback.push(text),
                Err(words) => self.plan.left.push(format!("{whose}: fallback {words}")),
            }
        }
        let name = self.name(&host, &account);
        let mut keys = vec![("server", first)];
        if let Some((username, password)) = &account.login {
            keys.push(("username", username.clone()));
            keys.push(("password", password.clone()));
        }
        keys.extend(self.tls(&name, next_hop, &host, port, account.login.is_some()));
        self.plan.relays.push(PlannedRelay {
            name: name.clone(),
            keys,
            fallback,
            limits: self.limits(&host),
        });
        self.accounts.insert(account, name.clone());
        Some(name)
    }

    /// A short name that nobody has: the domain's, then the account's, then a number.
    fn name(&mut self, host: &Host, account: &Account) -> String {
        let base = match host {
            Host::Address(address) => address.to_string().replace(':', "."),
            Host::Mx(name) | Host::Name(name) => {
                let domain = psl::domain_str(name.ascii()).unwrap_or(name.ascii());
                domain.split('.').next().unwrap_or(domain).to_owned()
            }
        };
        let plain = |it: char| it.is_ascii_alphanumeric() || it == '.' || it == '_';
        let local = account.login.as_ref().map(|(username, _)| {
            let local = username.split('@').next().unwrap_or_default();
            local.replace(|it| !plain(it), "-").to_lowercase()
        });
        let named = local.map(|local| format!("{base}-{local}"));
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut candidates = std::iter::once(base.clone())
            .chain(named.filter(|it| it.len() <= 64 && !it.ends_with('-')))
            .chain(numbered);
        let name = candidates
            .find(|it| !self.names.contains(it))
            .unwrap_or(base);
        self.names.insert(name.clone());
        name
    }

    fn tls(
        &mut self,
        name: &str,
        next_hop: &str,
        host: &Host,
        port: u16,
        logs_in: bool,
    ) -> Vec<(&'static str, String)> {
        let first = words(next_hop).next().unwrap_or_default();
        let policy = self
            .policies
            .get(first)
            .or_else(|| self.policies.get(&host_of(first)));
        let old = match (
            self.main.is_yes("smtp_enforce_tls"),
            self.main.is_yes("smtp_use_tls"),
        ) {
            (true, _) => Some("encrypt"),
            (_, true) => Some("may"),
            _ => None,
        };
        let written = self.main.get("smtp_tls_security_level");
        let policy = policy
            .map(str::to_owned)
            .or(written)
            .or(old.map(str::to_owned));
        let level = policy.as_deref().and_then(|it| words(it).next());
        let level = level.unwrap_or("none").to_owned();

        let mut keys = Vec::new();
        let implicit = port == 465 || self.main.is_yes("smtp_tls_wrappermode");
        let required = !matches!(level.as_str(), "none" | "may" | "dane");
        if implicit && port != 465 {
            keys.push(("tls", "implicit".to_owned()));
        } else if required && !logs_in && !implicit && port != 587 {
            keys.push(("tls", "required".to_owned()));
        }
        let verified = implicit || required || logs_in || port == 587;
        match level.as_str() {
            "none" | "may" | "encrypt" | "dane" if verified && !is_local(host) => {
                self.plan.left.push(format!(
                    "relay {name}: Postfix did not insist on a verified certificate ({level}), \
                     Penstock does; penstock relay test {name} shows whether it fits"
                ));
            }
            "fingerprint" => self.plan.left.push(format!(
                "relay {name}: the fingerprint is not taken over; write fingerprint = \
                 \"sha256:...\", or the system's certificates must do"
            )),
            _ => {}
        }
        let ca_file = self.main.get("smtp_tls_CAfile");
        if let Some(ca_file) = ca_file.filter(|it| verified && !SYSTEM_ROOTS.contains(&it.as_str()))
        {
            keys.push(("ca-file", ca_file));
        }
        keys
    }

    fn limits(&self, host: &Host) -> Vec<(&'static str, Limit)> {
        let mut limits = Vec::new();
        if let Some(preset) = Preset::of_provider(host) {
            limits.push(("preset", Limit::Text(preset.name().to_owned())));
        }
        let get = |name: &str| {
            let own = self.main.get(&format!("smtp_{name}"));
            own.or_else(|| self.main.get(&format!("default_{name}")))
        };
        if let Some(delay) = get("destination_rate_delay").and_then(|it| seconds(&it))
            && delay > 0
        {
            let delay = write_duration(std::time::Duration::from_secs(delay));
            limits.push(("min-interval", Limit::Text(delay)));
        }
        for (theirs, ours) in [
            ("destination_concurrency_limit", "connections"),
            ("destination_recipient_limit", "recipients-per-message"),
        ] {
            let number = get(theirs).and_then(|it| it.parse().ok());
            if let Some(number) = number.filter(|it| (1..=200).contains(it)) {
                limits.push((ours, Limit::Number(number)));
            }
        }
        limits
    }

    fn read_values(&mut self) {
        let mut put = |parameter: &str, table, key, value: Option<String>| {
            if let Some(value) = value {
                let path = match table {
                    "" => String::new(),
                    table => format!("{table}."),
                };
                self.plan
                    .understood
                    .push(format!("{parameter}: {path}{key} = {value}"));
                self.plan.values.push((table, key, value));
            }
        };
        let name = self.main.get("myhostname");
        put(
            "myhostname",
            "",
            "hostname",
            name.filter(|it| it.contains('.')),
        );
        let size = self.main.get("message_size_limit");
        let size = size.and_then(|it| it.parse().ok());
        let size = size.filter(|it| (65_536..=2_000_000_000).contains(it));
        put(
            "message_size_limit",
            "message",
            "max-size",
            size.map(write_size),
        );
        for (parameter, key) in [
            ("maximal_queue_lifetime", "expire-after"),
            ("delay_warning_time", "warn-after"),
        ] {
            let long = self.main.get(parameter).and_then(|it| {
                // Without a unit these are days and hours (postconf(5)).
                let unit = if key == "expire-after" { 'd' } else { 'h' };
                let bare = it.bytes().all(|octet| octet.is_ascii_digit());
                seconds(&if bare { format!("{it}{unit}") } else { it })
            });
            let long = long
                .filter(|it| *it > 0)
                .map(std::time::Duration::from_secs);
            put(parameter, "retry", key, long.map(write_duration));
        }
    }
}

/// A time of Postfix in seconds: `5`, `5s`, `1h`.
fn seconds(text: &str) -> Option<u64> {
    let end = text
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = match &text[end..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
