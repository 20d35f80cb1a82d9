//! `[relays.NAME]`: where mail goes, with which login, under how much TLS.

use std::net::IpAddr;

use ipnet::IpNet;

use super::file::Table;
use super::limits::read_limits;
use super::oauth::read_oauth;
use super::place::Place;
use super::problem::quoted;
use super::server::{default_tls, read_server};
use super::{
    AuthMethod, Certificates, Credentials, Host, Preset, Proof, Relay, RelayTls, ReversePathRule,
    Secret, Server,
};
use crate::mail::{Domain, Mailbox};

/// The keys that say what the password is; only one of them may be written.
const PASSWORD_KEYS: [&str; 4] = ["login", "password", "password-file", "password-credential"];
/// The keys that would have no effect where the certificate is not verified.
const CERTIFICATE_KEYS: [&str; 3] = ["ca-file", "fingerprint", "tls-name"];

/// Reads one relay; none where it has no usable server.
pub(super) fn read_relay(name: &str, table: Table, place: &Place) -> Option<Relay> {
    check_name(name, table);
    if !table.has("server") {
        table.wrong(
            "server",
            "is missing",
            "write server = \"[smtp.example.nl]:587\"",
        );
    }
    let credentials = match table.has("oauth") {
        true => read_token_login(table, place),
        false => read_credentials(table, place),
    };
    let auth = read_auth(table, credentials.as_ref());
    let logs_in = credentials.is_some() && auth != AuthMethod::None;
    let tls = table.choice(
        "tls",
        &[
            ("implicit", RelayTls::Implicit),
            ("required", RelayTls::Required),
            ("opportunistic", RelayTls::Opportunistic),
            ("off", RelayTls::Off),
        ],
    );
    let servers = read_servers(table, |port| tls.unwrap_or(default_tls(port, logs_in)))?;
    let certificates = read_certificates(table, place);
    check_tls(table, &servers, logs_in);

    let bulk = table.boolean("bulk").unwrap_or(false);
    let preset = if bulk { Preset::Bulk } else { Preset::Standard };
    let limits = table
        .table("limits", |limits| read_limits(limits, preset))
        .unwrap_or_else(|| preset.limits());
    let relay = Relay {
        name: name.to_owned(),
        servers,
        sender: table.parsed(
            "sender",
            "write an address like \"mailer@example.nl\"",
            Mailbox::parse,
        ),
        credentials,
        auth,
        certificates,
        reverse_path: read_reverse_path(table),
        bulk: bulk || limits.preset == Preset::Bulk,
        spf_include: table.parsed(
            "spf-include",
            "write what senders' SPF records contain behind include:",
            Domain::parse,
        ),
        outbound_ips: table
            .list(
                "outbound-ips",
                "write addresses or networks like \"192.0.2.0/28\"",
                |text| match text.parse::<IpNet>() {
                    Ok(network) => Ok(network.trunc()),
                    Err(_) => text
                        .parse::<IpAddr>()
                        .map(IpNet::from)
                        .map_err(|_| "is neither an address nor a network"),
                },
            )
            .unwrap_or_default(),
        verify: table.boolean("verify").unwrap_or(false),
        limits,
    };
    if relay.verify && relay.sender.is_none() && !table.has("sender") {
        table.wrong(
            "verify",
            "needs to know where the test message goes",
            "write sender = \"mailer@example.nl\", the address of the relay account",
        );
    }
    warn_of_provider(table, &relay);
    Some(relay)
}

/// A name is typed in a shell and stands in logs and metrics.
fn check_name(name: &str, table: Table) {
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with('-') || !name.chars().all(plain) {
        table.wrong(
            "",
            &format!("{} is not a name for a relay", quoted(name)),
            "use up to 64 letters, digits, dots, hyphens and underscores",
        );
    }
}

fn read_servers(table: Table, tls: impl Fn(u16) -> RelayTls) -> Option<Vec<Server>> {
    let remedy = "write it like \"[smtp.example.nl]:587\"";
    let first = table.parsed("server", remedy, read_server);
    let fallback = table
        .list("fallback", remedy, read_server)
        .unwrap_or_default();
    let mut servers: Vec<Server> = Vec::new();
    for (host, port) in first.iter().cloned().chain(fallback) {
        let server = Server {
            host,
            port,
            tls: tls(port),
        };
        if servers.contains(&server) {
            table.wrong(
                "fallback",
                &format!("{server} is named twice"),
                "name each server once",
            );
        }
        servers.push(server);
    }
    first.is_some().then_some(servers)
}

/// A login with a token: the mailbox, and who gives the token for it.
fn read_token_login(table: Table, place: &Place) -> Option<Credentials> {
    for key in PASSWORD_KEYS.into_iter().filter(|key| table.has(key)) {
        table.wrong(
            key,
            "stands beside [oauth], and a token needs no password",
            match key {
                "login" => "write username = \"...\" instead, or delete the table oauth",
                _ => "delete it, or delete the table oauth",
            },
        );
    }
    let oauth = table.table("oauth", |oauth| read_oauth(oauth, place))?;
    let username = table.text("username").map(str::to_owned);
    if !table.has("username") && !table.has("login") {
        table.wrong(
            "username",
            "is missing",
            "write the address of the mailbox that the token is for",
        );
    }
    let odd = |it: &String| it.is_empty() || it.chars().any(char::is_control);
    if username.as_ref().is_some_and(odd) {
        table.wrong(
            "username",
            "is empty or has a control character in it",
            "write the address of the mailbox that the token is for",
        );
    }
    Some(Credentials {
        username: username?,
        proof: Proof::Token(Box::new(oauth?)),
    })
}

fn read_credentials(table: Table, place: &Place) -> Option<Credentials> {
    let written: Vec<&str> = PASSWORD_KEYS
        .into_iter()
        .filter(|key| table.has(key))
        .collect();
    let [key] = written[..] else {
        if let [_, second, ..] = written[..] {
            table.wrong(
                second,
                &format!("stands beside {}", written[0]),
                "one login is enough: delete all but one",
            );
        } else if table.has("username") {
            let token = table.written("auth") == Some("xoauth2");
            if !token {
                table.wrong(
                    "username",
                    "has no password",
                    "write password, password-file or password-credential, too",
                );
            }
        }
        return None;
    };
    let (username, password) = if key == "login" {
        if table.has("username") {
            table.wrong(
                "username",
                "stands beside login",
                "delete one of the two: login is the user name, a space, and the password",
            );
        }
        // Not parsed(): its message would show the password.
        let login = table.text("login")?;
        let Some((username, password)) = login.split_once(' ') else {
            table.wrong(
                "login",
                "has no space in it",
                "write login = \"username password\", one space between",
            );
            return None;
        };
        (username.to_owned(), Secret::new(password.to_owned()))
    } else {
        let password = match key {
            "password" => Some(Secret::new(table.text(key)?.to_owned())),
            "password-file" => place.password_file(table, key),
            _ => place.password_credential(table, key),
        };
        if !table.has("username") {
            table.wrong(
                key,
                "has no user name",
                "write username = \"...\", too: often it is the address of the account",
            );
        }
        (table.text("username")?.to_owned(), password?)
    };
    if username.is_empty() {
        table.wrong(key, "has an empty user name", "write the user name");
    }
    // A control character would end the command, or the field inside PLAIN (RFC 4616).
    let control = |it: &str| it.chars().any(char::is_control);
    if control(&username) || control(password.expose()) {
        table.wrong(
            key,
            "has a control character in the user name or the password",
            "delete it; often it is a line break that was copied along",
        );
    }
    let unreadable_here = key == "password-credential" && place.inspecting;
    if password.expose().is_empty() && !unreadable_here {
        table.wrong(
            key,
            "has an empty password",
            "write the password, or delete the login",
        );
    }
    Some(Credentials {
        username,
        proof: Proof::Password(password),
    })
}

fn read_auth(table: Table, credentials: Option<&Credentials>) -> AuthMethod {
    let auth = table
        .choice(
            "auth",
            &[
                ("auto", AuthMethod::Auto),
                ("plain", AuthMethod::Plain),
                ("login", AuthMethod::Login),
                ("cram-md5", AuthMethod::CramMd5),
                ("xoauth2", AuthMethod::XOauth2),
                ("none", AuthMethod::None),
            ],
        )
        .unwrap_or(match table.has("oauth") {
            true => AuthMethod::XOauth2,
            false => AuthMethod::Auto,
        });
    match (auth, table.has("oauth")) {
        (AuthMethod::XOauth2, false) => table.wrong(
            "auth",
            "\"xoauth2\" needs to know who gives the tokens",
            &format!(
                "write [{}] with provider and client-id below this table; docs/relays.md has \
                 the steps",
                table.path("oauth")
            ),
        ),
        (AuthMethod::XOauth2, true) | (_, false) => {}
        (_, true) => table.wrong(
            "auth",
            "stands beside [oauth], whose tokens are for XOAUTH2 alone",
            "delete auth, or delete the table oauth",
        ),
    }
    let needs = matches!(
        auth,
        AuthMethod::Plain | AuthMethod::Login | AuthMethod::CramMd5
    );
    let written = PASSWORD_KEYS.iter().any(|key| table.has(key));
    if needs && credentials.is_none() && !written {
        table.wrong(
            "auth",
            "names a way to log in, but there is no login",
            "write login = \"username password\", or delete auth",
        );
    }
    auth
}

fn read_certificates(table: Table, place: &Place) -> Certificates {
    if table.has("ca-file") && table.has("fingerprint") {
        table.wrong(
            "fingerprint",
            "stands beside ca-file",
            "a fingerprint names the only certificate to accept: delete one of the two",
        );
    }
    Certificates {
        ca_file: place.named_file(table, "ca-file"),
        fingerprint: table.parsed(
            "fingerprint",
            "write \"sha256:\" and 64 hexadecimal digits, with or without colons, as \
             `openssl x509 -noout -fingerprint -sha256` prints them",
            fingerprint,
        ),
        tls_name: table.parsed(
            "tls-name",
            "write the name that stands in the server's certificate",
            |text| match text.parse::<IpAddr>() {
                Ok(address) => Ok(address.to_string()),
                Err(_) => Domain::parse(text)
                    .ok()
                    .filter(|it| it.literal().is_none())
                    .map(|it| it.ascii().to_owned())
                    .ok_or("is not a host name"),
            },
        ),
    }
}

fn fingerprint(text: &str) -> Result<[u8; 32], &'static str> {
    let digits = match text.split_at_checked(7) {
        Some((kind, digits)) if kind.eq_ignore_ascii_case("sha256:") => digits,
        _ => return Err("does not begin with sha256:"),
    };
    let digits: Vec<u8> = digits
        .chars()
        .filter(|it| *it != ':')
        .map(|it| it.to_digit(16).and_then(|it| u8::try_from(it).ok()))
        .collect::<Option<_>>()
        .ok_or("has something that is no hexadecimal digit")?;
    let octets: Vec<u8> = digits
        .chunks(2)
        .map(|it| it[0] << 4 | it[it.len() - 1])
        .collect();
    match digits.len() {
        64 => octets.try_into().map_err(|_| "does not have 64 digits"),
        _ => Err("does not have 64 digits"),
    }
}

fn read_reverse_path(table: Table) -> ReversePathRule {
    table
        .parsed(
            "reverse-path",
            "write \"keep\", \"from\", or an address like \"bounces@example.nl\"",
            |text| match text {
                "keep" => Ok(ReversePathRule::Keep),
                "from" => Ok(ReversePathRule::From),
                address => Mailbox::parse(address).map(ReversePathRule::Fixed),
            },
        )
        .unwrap_or(ReversePathRule::Keep)
}

/// TLS demands that contradict the port, the login, or one another.
fn check_tls(table: Table, servers: &[Server], logs_in: bool) {
    for server in servers {
        match (server.port, server.tls) {
            (465, RelayTls::Required | RelayTls::Opportunistic) => table.wrong(
                "tls",
                &format!("{server} speaks TLS from the first octet, and this means STARTTLS"),
                "write tls = \"implicit\", or delete tls: the port decides",
            ),
            (25 | 587, RelayTls::Implicit) => table.warn(
                "tls",
                &format!("{server} hardly speaks TLS from the first octet: that is port 465"),
                "write tls = \"required\", or delete tls: the port decides",
            ),
            _ => {}
        }
    }
    let weakest = servers.iter().map(|it| it.tls);
    let unverified = weakest
        .clone()
        .any(|it| it == RelayTls::Opportunistic || it == RelayTls::Off);
    if logs_in && weakest.clone().any(|it| it == RelayTls::Opportunistic) {
        table.wrong(
            "tls",
            "\"opportunistic\" would send the password in clear where TLS is not offered",
            "write tls = \"required\"; or \"off\", if it shall go in clear",
        );
    }
    let on_this_machine = |server: &Server| match &server.host {
        Host::Address(address) => address.is_loopback(),
        Host::Mx(name) | Host::Name(name) => name.ascii() == "localhost",
    };
    if logs_in
        && servers
            .iter()
            .any(|it| it.tls == RelayTls::Off && !on_this_machine(it))
    {
        table.warn(
            "tls",
            "the password and the mail go over the network in clear",
            "write tls = \"required\" as soon as the server can do it",
        );
    }
    for key in CERTIFICATE_KEYS {
        if unverified && table.has(key) {
            table.wrong(
                key,
                "has no effect: without a login, on this port, certificates are not verified",
                "write tls = \"required\" (or \"implicit\"), or delete the key",
            );
        }
    }
}

/// What is known about a provider and was not written.
fn warn_of_provider(table: Table, relay: &Relay) {
    let provider = relay
        .servers
        .iter()
        .find_map(|it| Preset::of_provider(&it.host).map(|preset| (it, preset)));
    let written = table
        .table("limits", |limits| limits.has("preset"))
        .unwrap_or(false);
    if let Some((server, preset)) = provider
        && !written
    {
        table.warn(
            "limits",
            &format!(
                "{} has limits of its own, known as preset {preset}",
                server.host
            ),
            &format!("write limits = {{ preset = \"{preset}\" }}"),
        );
    }
    if relay.bulk && matches!(provider, Some((_, Preset::Gmail | Preset::Microsoft365))) {
        table.warn(
            "bulk",
            "this provider is not made for large amounts of mail and may close the account",
            "send mailings through a relay that accepts them",
        );
    }
    let own_quota = ["recipients-per-day", "min-interval"]
        .iter()
        .any(|key| relay.limits.overridden.iter().any(|it| it.0 == *key));
    if relay.limits.preset == Preset::AmazonSes && !own_quota {
        table.warn(
            "limits",
            "the preset has the figures of the SES sandbox, 200 recipients a day; an \
             account has its own",
            "write recipients-per-day and min-interval as the SES console shows them",
        );
    }
    if let Some((_, Preset::Microsoft365)) = provider
        && relay.credentials.is_some()
        && matches!(
            relay.auth,
            AuthMethod::Auto | AuthMethod::Plain | AuthMethod::Login | AuthMethod::CramMd5
        )
    {
        table.warn(
            "auth",
            "Microsoft switches password logins for SMTP off by default at the end of \
             December 2026",
            "log in with tokens instead: a table oauth with provider = \"microsoft\" \
             (docs/relays.md), or have the tenant's admin switch passwords on again",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let plain = format!("sha256:{}", "0aFF".repeat(16));
        let colons = format!("SHA256:{}", vec!["0A:ff"; 16].join(":"));
        let meant: [u8; 32] = std::array::from_fn(|place| if place % 2 == 0 { 0x0a } else { 0xff });
        assert_eq!(fingerprint(&plain), Ok(meant));
        assert_eq!(fingerprint(&colons), Ok(meant));
        for text in ["", "sha256:", "sha1:00", "sha256:zz", "0a", "sha25é:00"] {
            assert!(fingerprint(text).is_err(), "{text}");
        }
        assert!(fingerprint(&plain[..plain.len() - 1]).is_err());
        assert!(fingerprint(&format!("{plain}0a")).is_err());
    }
}
