//! The tables about the machine itself: `[spool]`, `[message]`, `[tls]`, `[timeouts]`,
//! `[retry]`, `[http]` and `[hints]`, with their defaults.

use std::net::SocketAddr;
use std::time::Duration;

use super::file::Table;
use super::hint::read_action;
use super::place::Place;
use super::{
    Hints, Http, HttpAddress, MessageLimits, MinFree, Retry, SpoolConfig, Timeouts, TlsFiles,
};
use crate::mail::Domain;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn default_spool() -> SpoolConfig {
    SpoolConfig {
        path: "/var/lib/penstock".into(),
        min_free: MinFree::Percent(5.0),
    }
}

pub(super) fn read_spool(table: Table, place: &Place) -> SpoolConfig {
    let default = default_spool();
    let percent = table
        .written("min-free")
        .is_some_and(|it| it.ends_with('%'));
    let min_free = match percent {
        true => table.percent("min-free", 0.0..=90.0).map(MinFree::Percent),
        false => table
            .size("min-free", 0..=1_000_000_000_000_000)
            .map(MinFree::Bytes),
    };
    if table.written("path") == Some("") {
        table.wrong("path", "names no directory", "write the path");
    }
    SpoolConfig {
        path: table
            .text("path")
            .map_or(default.path, |path| place.resolve(path)),
        min_free: min_free.unwrap_or(default.min_free),
    }
}

pub(super) fn read_message(root: Table) -> MessageLimits {
    let default = MessageLimits {
        max_size_bytes: 50_000_000,
        max_recipients: 1_000,
    };
    let read = |table: Table| MessageLimits {
        // RFC 5321 section 4.5.3.1.7: 64K octets is the least that must be taken.
        max_size_bytes: table
            .size("max-size", 65_536..=2_000_000_000)
            .unwrap_or(default.max_size_bytes),
        // Section 4.5.3.1.8 asks for at least 100; a lower number still works.
        max_recipients: table
            .number("max-recipients", 1..=50_000)
            .and_then(|it| usize::try_from(it).ok())
            .unwrap_or(default.max_recipients),
    };
    root.table("message", read).unwrap_or(default)
}

pub(super) fn read_tls(table: Table, place: &Place) -> Option<TlsFiles> {
    for (key, other) in [("certificate", "key"), ("key", "certificate")] {
        if table.has(key) && !table.has(other) {
            table.wrong(
                key,
                &format!("needs {other} beside it"),
                &format!("write {other} = \"/path/to/file.pem\", too"),
            );
        }
    }
    let certificate = place.named_file(table, "certificate");
    let key = place.named_secret_file(table, "key");
    Some(TlsFiles {
        certificate: certificate?,
        key: key?,
    })
}

pub(super) fn read_timeouts(root: Table) -> Timeouts {
    let default = Timeouts {
        idle: 5 * MINUTE,
        connect: 30 * SECOND,
        command: 5 * MINUTE,
        data: 3 * MINUTE,
        final_dot: 10 * MINUTE,
    };
    let read = |table: Table| {
        let read = |key, default| table.duration(key, MILLISECOND..=DAY).unwrap_or(default);
        Timeouts {
            idle: read("idle", default.idle),
            connect: read("connect", default.connect),
            command: read("command", default.command),
            data: read("data", default.data),
            final_dot: read("final-dot", default.final_dot),
        }
    };
    root.table("timeouts", read).unwrap_or(default)
}

pub(super) fn read_retry(root: Table) -> Retry {
    let default = Retry {
        first: MINUTE,
        max: HOUR,
        expire_after: 4 * DAY,
        warn_after: 4 * HOUR,
    };
    let read = |table: Table| {
        let read = |key, default| {
            table
                .duration(key, MILLISECOND..=366 * DAY)
                .unwrap_or(default)
        };
        let retry = Retry {
            first: read("first", default.first),
            max: read("max", default.max),
            expire_after: read("expire-after", default.expire_after),
            warn_after: read("warn-after", default.warn_after),
        };
        if retry.first > retry.max {
            table.wrong(
                if table.has("first") { "first" } else { "max" },
                "the first delay is longer than the longest",
                "make first shorter, or max longer",
            );
        }
        if retry.warn_after >= retry.expire_after {
            table.warn(
                if table.has("warn-after") {
                    "warn-after"
                } else {
                    "expire-after"
                },
                "mail expires before anybody is warned of its delay",
                "make warn-after shorter than expire-after",
            );
        }
        retry
    };
    root.table("retry", read).unwrap_or(default)
}

pub(super) fn read_http(table: Table) -> Http {
    for (key, other, what, remedy) in [
        (
            "confirm",
            "base-url",
            "serves a page that no link leads to: base-url is missing",
            "write base-url = \"https://mail.example.nl\": what people type to reach this page",
        ),
        (
            "base-url",
            "confirm",
            "begins links to a page that nobody serves: confirm is missing",
            "write confirm = \"127.0.0.1:8025\", or delete base-url",
        ),
    ] {
        if table.has(key) && !table.has(other) {
            table.wrong(key, what, remedy);
        }
    }
    Http {
        admin: table.parsed(
            "admin",
            "write \"unix:/run/penstock/http.sock\", or a loopback address and port",
            |text| {
                if let Some(path) = text.strip_prefix("unix:") {
                    return match path.starts_with('/') {
                        true => Ok(HttpAddress::Unix(path.into())),
                        false => Err("needs the whole path of the socket"),
                    };
                }
                let address: SocketAddr = text
                    .parse()
                    .map_err(|_| "is neither unix:/path nor an address with a port")?;
                match address.ip().to_canonical().is_loopback() {
                    true => Ok(HttpAddress::Loopback(address)),
                    false => Err("is not loopback, and the status page has no login"),
                }
            },
        ),
        confirm: table.parsed(
            "confirm",
            "write an address with its port, like \"127.0.0.1:8025\"",
            |text| {
                text.parse::<SocketAddr>()
                    .map_err(|_| "is not an address with a port")
            },
        ),
        base_url: table.parsed(
            "base-url",
            "write what the web server publishes, like \"https://mail.example.nl\"",
            |text| {
                let rest = text
                    .strip_prefix("https://")
                    .or_else(|| text.strip_prefix("http://"))
                    .ok_or("does not begin with https:// or http://")?;
                let odd = |it: char| it.is_whitespace() || it.is_control() || "<>\"?#".contains(it);
                match rest.is_empty() || rest.starts_with('/') || rest.contains(odd) {
                    true => Err("is not the beginning of a link"),
                    false => Ok(text.trim_end_matches('/').to_owned()),
                }
            },
        ),
    }
}

/// The keys of `[hints]` that are no hint.
const LISTS: [&str; 3] = ["dns", "dnsbl", "rhsbl"];

pub(super) fn read_hints(table: Table) -> Hints {
    let list = |key| {
        table
            .list(
                key,
                "write names of DNS lists, like \"bl.example.org\"",
                Domain::parse,
            )
            .unwrap_or_default()
    };
    Hints {
        dns: table.boolean("dns").unwrap_or(true),
        actions: table
            .keys()
            .into_iter()
            .filter(|name| !LISTS.contains(name))
            .filter_map(|name| read_action(table, name))
            .collect(),
        dnsbl: list("dnsbl"),
        rhsbl: list("rhsbl"),
    }
}
