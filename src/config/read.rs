//! From the two files to a [`Config`]: what is read, then checked as a whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::file::{Source, Table};
use super::hostname::machine_name;
use super::keys::{Known, MAIN_KEYS, NOT_BUILT, USER_KEYS};
use super::listener::{overlap, read_listeners};
use super::machine::{
    default_spool, read_hints, read_http, read_message, read_retry, read_spool, read_timeouts,
    read_tls,
};
use super::place::{self, NotUtf8, Place, create_command, exposed, plain};
use super::problem::{ConfigError, Problem, nearest, quoted};
use super::relay::read_relay;
use super::user::read_users;
use super::{Config, HttpAddress, ListenerAuth, ListenerTls, Relay};
use crate::mail::{Domain, Mailbox};

/// The user directory, unless the key says otherwise.
const USERS: &str = "users.toml";
/// The keys that make a file one with secrets in it.
const SECRET_KEYS: [&str; 4] = ["login", "password", "password-hash", "client-secret"];

/// A configuration without mistakes, and what will still surprise somebody.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What is meant.
    pub config: Config,
    /// What is allowed but worth a look, by file and line.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads the text of the two files.
    pub fn parse(penstock_toml: &str, users_toml: &str) -> Result<Self, ConfigError> {
        read_texts(penstock_toml, users_toml, &Place::default(), NOT_BUILT).map(|it| it.config)
    }

    /// Reads the files, for the daemon: whole or not at all, changing nothing.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path).map(|it| it.config)
    }
}

/// Reads the files for the daemon, with warnings.
pub fn load(path: &Path) -> Result<Checked, ConfigError> {
    read_files(path, false, &[])
}

/// Reads the files for somebody who is not the daemon: a password that only systemd
/// hands over is a warning, and empty in the result.
pub fn inspect(path: &Path) -> Result<Checked, ConfigError> {
    read_files(path, true, &[])
}

/// Reads the text of the two files as if they stood in `place`.
pub(super) fn read_texts(
    main: &str,
    users: &str,
    place: &Place,
    not_built: NotBuilt,
) -> Result<Checked, ConfigError> {
    let main = Source::new(Path::new("penstock.toml"), main);
    let tree = main.parse()?;
    let read = read_main(Table::root(&main, &tree), place, not_built);
    let users = Source::new(Path::new("users.toml"), users);
    read_directory(read, main, users, not_built)
}

/// Inspects the files as if some of them had other texts, before those are written.
pub fn inspect_as(path: &Path, texts: &[(&Path, &str)]) -> Result<Checked, ConfigError> {
    read_files(path, true, texts)
}

/// Where the user directory is, by the text of the main file; by default, beside it.
pub fn users_path(path: &Path, main: &str) -> PathBuf {
    let written = main
        .parse::<toml::Table>()
        .ok()
        .and_then(|it| it.get("users")?.as_str().map(str::to_owned));
    let directory = path.parent().unwrap_or(Path::new(""));
    directory.join(written.as_deref().unwrap_or(USERS))
}

/// The text of a file, and what is known of it if it is there already.
fn read_or_take(
    path: &Path,
    texts: &[(&Path, &str)],
) -> std::io::Result<(String, Option<std::fs::Metadata>)> {
    match texts.iter().find(|(taken, _)| *taken == path) {
        Some((_, text)) => Ok(((*text).to_owned(), std::fs::metadata(path).ok())),
        None => place::read(path).map(|(text, found)| (text, Some(found))),
    }
}

fn read_files(
    path: &Path,
    inspecting: bool,
    texts: &[(&Path, &str)],
) -> Result<Checked, ConfigError> {
    let (text, found) =
        read_or_take(path, texts).map_err(|error| cannot_read(path, &error, false))?;
    let place = Place {
        directory: path.parent().map(Path::to_owned).unwrap_or_default(),
        credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        inspecting,
        files_must_exist: true,
    };
    let main = Source::new(path, &text);
    let tree = main.parse()?;
    let read = read_main(Table::root(&main, &tree), &place, NOT_BUILT);
    check_exposed(&main, &text, path, found.as_ref());
    let users_path = place.resolve(&read.users);
    match read_or_take(&users_path, texts) {
        Ok((text, found)) => {
            let users = Source::new(&users_path, &text);
            check_exposed(&users, &text, &users_path, found.as_ref());
            read_directory(read, main, users, NOT_BUILT)
        }
        Err(error) => {
            let (mut problems, _) = main.finish();
            problems.extend(cannot_read(&users_path, &error, true).problems);
            Err(ConfigError { problems })
        }
    }
}

/// Reports a file with secrets in it that others can read.
fn check_exposed(source: &Source, text: &str, path: &Path, found: Option<&std::fs::Metadata>) {
    if let (Some(line), Some((what, remedy))) =
        (secret_line(text), found.and_then(|it| exposed(path, it)))
    {
        source.wrong(Some(line), "", &what, &remedy);
    }
}

/// The first line on which a secret stands: told by its key, so that a file that is not
/// even TOML is looked at, too.
fn secret_line(text: &str) -> Option<usize> {
    text.lines()
        .position(|line| SECRET_KEYS.iter().any(|key| has_key(line, key)))
        .map(|place| place + 1)
}

fn has_key(line: &str, key: &str) -> bool {
    let part_of_word = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
    let comment = line.trim_start().starts_with('#');
    !comment
        && line.match_indices(key).any(|(place, _)| {
            let behind = line[place + key.len()..].trim_start_matches(['"', '\'']);
            !line[..place].ends_with(part_of_word) && behind.trim_start().starts_with('=')
        })
}

fn cannot_read(path: &Path, error: &std::io::Error, directory: bool) -> ConfigError {
    let remedy = match (error.kind(), directory) {
        (std::io::ErrorKind::NotFound, true) => format!(
            "create it, empty if every From takes the default relay: {}",
            create_command(path)
        ),
        (std::io::ErrorKind::NotFound, false) => {
            "create it (an example is in /usr/share/doc/penstock), or name another file \
             with --config"
                .to_owned()
        }
        (std::io::ErrorKind::PermissionDenied, _) => {
            "run this as root, or as a member of the group penstock".to_owned()
        }
        _ => "correct the path or the file".to_owned(),
    };
    let other_encoding = error.get_ref().and_then(|it| it.downcast_ref::<NotUtf8>());
    let (line, what, remedy) = match other_encoding {
        Some(NotUtf8 { line }) => (
            Some(*line),
            "a letter here is not UTF-8, and the whole file must be".to_owned(),
            "save the file as UTF-8, or take the letter out".to_owned(),
        ),
        None => (
            None,
            format!("cannot read this file: {}", plain(error)),
            remedy,
        ),
    };
    ConfigError {
        problems: vec![Problem {
            file: path.to_owned(),
            line,
            key: String::new(),
            what,
            remedy,
        }],
    }
}

pub(super) type NotBuilt = &'static [(&'static str, Option<&'static str>)];

/// What stands in the main file.
struct Main {
    /// Everything but the users.
    config: Config,
    /// The path of those, as it is written.
    users: String,
    /// Every relay that is written, right or wrong: a user who names a wrong one makes
    /// no mistake of his own.
    relay_names: Vec<String>,
}

fn read_main(root: Table, place: &Place, not_built: NotBuilt) -> Main {
    let known = Known {
        keys: MAIN_KEYS,
        not_built,
    };
    known.check(root);
    let relays = read_relays(root, place);
    let config = Config {
        hostname: read_hostname(root),
        default_relay: relay_name(root, "default-relay", &relays),
        bounces_via: relay_name(root, "bounces-via", &relays),
        admin: root.parsed(
            "admin",
            "write an address like \"postmaster@example.nl\"",
            Mailbox::parse,
        ),
        listen: read_listeners(root),
        spool: root
            .table("spool", |table| read_spool(table, place))
            .unwrap_or_else(default_spool),
        message: read_message(root),
        tls: root.table("tls", |table| read_tls(table, place)).flatten(),
        timeouts: read_timeouts(root),
        retry: read_retry(root),
        http: root.table("http", read_http).unwrap_or_default(),
        hints: root.table("hints", read_hints).unwrap_or_default(),
        relays,
        users: Vec::new(),
    };
    check_whole(root, &config);
    let names = root.table("relays", |relays| {
        let names = relays.keys().into_iter().map(str::to_owned);
        names.collect()
    });
    Main {
        config,
        users: root.text("users").unwrap_or(USERS).to_owned(),
        relay_names: names.unwrap_or_default(),
    }
}

/// The users, and the verdict on everything.
fn read_directory(
    read: Main,
    main: Source,
    users: Source,
    not_built: NotBuilt,
) -> Result<Checked, ConfigError> {
    let mut config = read.config;
    {
        let tree = users.parse()?;
        let root = Table::root(&users, &tree);
        let known = Known {
            keys: USER_KEYS,
            not_built,
        };
        known.check(root);
        config.users = read_users(root, &read.relay_names, config.default_relay.as_deref());
    }
    for listener in &config.listen {
        let only_by_login = listener.auth == ListenerAuth::Required
            || (!listener.is_loopback() && listener.allow_from.is_empty());
        if only_by_login && config.users.iter().all(|it| it.password_hash.is_none()) {
            main.warn(
                None,
                "listen",
                &format!(
                    "{} takes mail by login only, and no user has a password-hash",
                    listener.address
                ),
                "run: penstock user set ADDRESS --password",
            );
        }
    }
    if config.relays.is_empty() {
        main.warn(
            None,
            "relays",
            "there is no relay: every message is refused",
            "run: penstock relay add NAME --server [smtp.example.nl]:587",
        );
    }
    let (mut problems, mut warnings) = main.finish();
    let (more_problems, more_warnings) = users.finish();
    problems.extend(more_problems);
    warnings.extend(more_warnings);
    match problems.is_empty() {
        true => Ok(Checked { config, warnings }),
        false => Err(ConfigError { problems }),
    }
}

fn read_relays(root: Table, place: &Place) -> BTreeMap<String, Relay> {
    root.table("relays", |relays| {
        relays
            .keys()
            .into_iter()
            .filter_map(|name| {
                let relay = relays.table(name, |table| read_relay(name, table, place))??;
                Some((name.to_owned(), relay))
            })
            .collect()
    })
    .unwrap_or_default()
}

fn read_hostname(root: Table) -> String {
    let written = root.parsed(
        "hostname",
        "write the full name of this machine, like \"app01.example.nl\"",
        |text| {
            Domain::parse(text)
                .map(|it| it.ascii().to_owned())
                .map_err(|_| "is not a host name")
        },
    );
    written.unwrap_or_else(|| {
        let name = machine_name();
        if !root.has("hostname") && !name.contains('.') {
            root.warn(
                "hostname",
                &format!("this machine only knows itself as {name}, without a domain"),
                "write hostname = \"app01.example.nl\": some relays refuse a short name",
            );
        }
        name
    })
}

/// A key whose value is the name of a relay. A wrong one is kept, so that it is not
/// taken for missing later on.
fn relay_name(root: Table, key: &str, relays: &BTreeMap<String, Relay>) -> Option<String> {
    let name = root.text(key)?;
    // A relay with a mistake in it is there all the same.
    let written = root
        .table("relays", |table| table.has(name))
        .unwrap_or(false);
    if !written {
        let remedy = match nearest(name, relays.keys().map(String::as_str)) {
            Some(near) => format!("write \"{near}\", or add [relays.{name}]"),
            None => format!("add [relays.{name}], or delete {key}"),
        };
        root.wrong(key, &format!("there is no relay {}", quoted(name)), &remedy);
    }
    Some(name.to_owned())
}

/// What only the whole can show.
fn check_whole(root: Table, config: &Config) {
    let offers_tls = config.listen.iter().any(|it| it.tls != ListenerTls::Off);
    if offers_tls && config.tls.is_none() && !root.has("tls") {
        root.warn(
            "tls",
            "a listener offers TLS without a certificate: a self-signed one is made",
            "write [tls] with certificate and key, or have clients trust the self-signed one",
        );
    }
    check_pages(root, config);
    for relay in config.relays.values() {
        let to_itself = relay
            .servers
            .iter()
            .find(|server| config.listen.iter().any(|it| it.is_server(server)));
        if let Some(server) = to_itself {
            let key = format!("relays.{}.server", relay.name);
            let line = root
                .table("relays", |table| table.line(&relay.name))
                .flatten();
            root.source.wrong(
                line,
                &key,
                &format!("{server} is a [[listen]] of this file: mail would go in circles"),
                "write the server that shall get the mail",
            );
        }
    }
    if root.text("users") == Some("") {
        root.wrong("users", "names no file", "write users = \"users.toml\"");
    }
}

/// The web pages need ports of their own.
fn check_pages(root: Table, config: &Config) {
    let admin = match config.http.admin {
        Some(HttpAddress::Loopback(address)) => Some(address),
        Some(HttpAddress::Unix(_)) | None => None,
    };
    let mut taken: Vec<(SocketAddr, &str)> = config
        .listen
        .iter()
        .map(|it| (it.address, "a [[listen]]"))
        .collect();
    for (key, address) in [("admin", admin), ("confirm", config.http.confirm)] {
        let Some(address) = address else { continue };
        // Here `[::]` takes IPv4, too, unless the system says otherwise.
        let both = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let other = taken.iter().find(|(other, _)| {
            overlap(*other, address) || (both && other.port() == address.port())
        });
        if let Some((other, whose)) = other {
            let what = format!("{address} is the port of {whose}, {other}");
            root.table("http", |table| {
                table.wrong(key, &what, "give one of the two another port");
            });
        }
        taken.push((address, "http.admin"));
    }
}

#[cfg(test)]
#[path = "read_tests/mod.rs"]
mod tests;
