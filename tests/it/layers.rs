//! Which module may import which: the table of the architecture, checked against `src/`.
//!
//! It reads the sources as tokens, not as text: a path in a comment, a string or a
//! `#[cfg(test)]` module counts for nothing, a path written out in the middle of a
//! function counts as much as a `use`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Module, and what it may import. `a::b` allows only that submodule of `a`.
///
/// A file has the rule of the longest matching path: `cli::demo` before `cli`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("clock", &[]),
    ("measure", &[]),
    ("smtp", &["mail"]),
    ("config", &["mail"]),
    ("dns", &["mail"]),
    // What a peer's certificate says is made printable before it is shown.
    ("tls", &["mail", "config"]),
    ("route", &["mail", "config"]),
    ("spool", &["mail", "clock", "measure"]),
    ("oauth", &["mail", "clock", "config", "dns", "tls", "spool"]),
    (
        "accept",
        &["mail", "smtp", "clock", "config", "tls", "route", "spool"],
    ),
    ("release", &["mail", "clock", "config", "spool"]),
    ("hint", &["mail", "config", "dns"]),
    (
        "relay",
        &["mail", "smtp", "clock", "config", "dns", "tls", "oauth"],
    ),
    // Of smtp only the count of octets on the wire.
    (
        "outcome",
        &["mail", "clock", "config", "relay", "oauth", "smtp"],
    ),
    ("verify", &["mail", "clock", "config", "spool"]),
    ("control", &["control::protocol"]),
    ("control::protocol", &[]),
    // The words of an event, for the daemon and for reading its files without it.
    ("control::trace", &["mail", "control::protocol"]),
    // Puts the words of mail into those of the protocol, for the daemon and for the verbs
    // that work without it.
    ("control::describe", &["mail", "control::protocol"]),
    // Its requests go the way of those of the control socket.
    (
        "http",
        &[
            "control::protocol",
            "control::Peer",
            "control::Responder",
            // Its socket is opened as that one is, for the same people.
            "control::server",
        ],
    ),
    (
        "cli",
        &[
            "mail", "clock", "config", "dns", "tls", "route", "outcome", "hint", "spool",
            "control", "relay",
        ],
    ),
    // It submits like any other client, over SMTP.
    (
        "cli::sendmail",
        &[
            "mail",
            "smtp",
            "clock",
            "config",
            "cli",
            "control::submission",
        ],
    ),
    // The demonstration is the daemon's real code in one process, with relays of its own.
    (
        "cli::demo",
        &[
            "mail", "smtp", "clock", "config", "tls", "control", "daemon", "cli",
        ],
    ),
    (
        "daemon",
        &[
            "mail", "smtp", "clock", "dns", "tls", "config", "route", "spool", "accept", "release",
            "oauth", "relay", "outcome", "hint", "verify", "control", "http", "measure",
        ],
    ),
];

/// Words that a module may not say at all, and why.
const BANNED: &[(&str, &[&str], &str)] = &[
    (
        "smtp",
        &[
            "tokio",
            "jiff",
            "SystemTime",
            "Instant",
            "serde",
            "std::net",
            "std::fs",
            "std::io",
        ],
        "the wire is plain functions over octets: no runtime, no clock, no sockets",
    ),
    (
        "mail",
        &["tokio", "SystemTime", "Instant", "serde", "std::fs"],
        "words are values only",
    ),
    (
        "outcome",
        &["tokio", "SystemTime"],
        "what a refusal means is computed, not waited for",
    ),
    (
        "hint",
        &["SystemTime", "std::fs"],
        "hints are computed from a message and from what DNS says",
    ),
    (
        "release",
        &["SystemTime", "std::fs", "std::net"],
        "what may leave is decided from values; time is an argument",
    ),
];

/// Crates that live in one place, so that replacing them touches one place.
const HOMES: &[(&str, &[&str])] = &[
    ("anyhow", &["bin", "cli"]),
    ("sled", &["spool"]),
    ("hickory_resolver", &["dns"]),
    ("icu_normalizer", &["mail"]),
    ("psl", &["hint", "cli"]),
    ("axum", &["http"]),
    ("hyper", &["oauth"]),
    ("hyper_util", &["oauth"]),
    ("http_body_util", &["oauth"]),
    ("url", &["oauth", "config"]),
    ("lettre", &["verify"]),
    ("listenfd", &["daemon", "accept", "bin"]),
    ("sd_notify", &["daemon", "bin"]),
    ("clap", &["cli", "bin", "daemon"]),
    ("comfy_table", &["cli"]),
    ("ratatui", &["cli"]),
    ("indicatif", &["cli"]),
];

#[test]
fn every_module_imports_only_what_the_architecture_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut breaches = Vec::new();
    let files = rust_files(&source);
    assert!(files.len() > 20, "only {} files below src/", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let module = module_path(file.strip_prefix(&source).unwrap());
        if is_test_only(&source, &module) {
            continue;
        }
        breaches.extend(
            check(&module, &text)
                .into_iter()
                .map(|breach| format!("{}: {breach}", file.display())),
        );
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn every_module_of_the_crate_has_a_row_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules: BTreeSet<String> = rust_files(&source)
        .iter()
        .map(|file| module_path(file.strip_prefix(&source).unwrap())[0].clone())
        // `build.rs` belongs to no program: Cargo runs it before.
        .filter(|it| !["lib", "bin", "build"].contains(&it.as_str()))
        .collect();
    let has_row = |module: &String| MAY_IMPORT.iter().any(|(row, _)| row == module);
    let without: Vec<&String> = modules.iter().filter(|it| !has_row(it)).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn the_check_itself_sees_a_violation_however_it_is_written() {
    let spool = ["spool".to_owned(), "log".to_owned()];
    for (bad, what) in [
        ("use crate::relay::Pool;", "relay"),
        ("use crate::{clock::Clock, relay::{Pool, Job}};", "relay"),
        ("use crate::{\n    mail,\n    relay,\n};", "relay"),
        ("fn f() { let it = crate::relay::Pool::new(); }", "relay"),
        ("use super::super::relay::Pool;", "relay"),
        ("pub use crate::accept as door;", "accept"),
        (
            "fn f() -> r#crate::x {} const A: u8 = crate :: release :: N;",
            "release",
        ),
        (
            "#[cfg(test)]\nmod tests { use crate::relay::A; }\nuse crate::http::B;",
            "http",
        ),
        ("use anyhow::Context;", "anyhow"),
    ] {
        let breaches = check(&spool, bad);
        assert!(!breaches.is_empty(), "{bad}");
        assert!(
            breaches.iter().all(|it| it.contains(what)),
            "{bad}: {breaches:?}"
        );
    }
    for good in [
        "use crate::mail::{Envelope, QueueId}; use crate::clock::Clock;",
        "// use crate::relay::Pool;\n/* crate::relay /* nested */ crate::relay */",
        "const A: &str = \"crate::relay::Pool\"; const B: &str = r#\"use \"crate::relay\"\"#;",
        "const Q: char = '\"'; use crate::mail::A; fn f<'a>(it: &'a str) {} // crate::relay",
        "use super::index::Index; use crate::spool::record;",
        "#[cfg(test)]\nmod tests { use crate::relay::Pool; fn f() { {} } }",
        "#[cfg(test)]\nuse crate::relay::Pool;",
    ] {
        assert_eq!(check(&spool, good), Vec::<String>::new(), "{good}");
    }
    let smtp = ["smtp".to_owned(), "reply".to_owned()];
    assert_eq!(check(&smtp, "use std::time::Instant;").len(), 1);
    assert_eq!(
        check(&smtp, "async fn f() { tokio::task::yield_now().await }").len(),
        1
    );
    assert_eq!(check(&smtp, "use std::{fs, fmt};").len(), 1);
    assert_eq!(check(&smtp, "use std::time::Duration;").len(), 0);
    let http = ["http".to_owned()];
    assert_eq!(
        check(&http, "use crate::control::protocol::Request;").len(),
        0
    );
    assert_eq!(check(&http, "use crate::control::client;").len(), 1);
    assert_eq!(check(&http, "use crate::control;").len(), 1);
}

/// Whether the file above declares this one under `#[cfg(test)]`.
fn is_test_only(source: &Path, module: &[String]) -> bool {
    if module.iter().any(|it| it.ends_with("_tests")) {
        return true;
    }
    let Some((name, above)) = module.split_last().filter(|(_, above)| !above.is_empty()) else {
        return false;
    };
    let folder = source.join(above.join("/"));
    let parent = [folder.join("mod.rs"), folder.with_extension("rs")]
        .iter()
        .find_map(|it| std::fs::read_to_string(it).ok())
        .unwrap_or_default();
    let declares = |tokens: &[String]| tokens.windows(3).any(|it| it == ["mod", name, ";"]);
    declares(&lex(&parent)) && !declares(&tokens(&parent))
}

/// What is wrong with one file.
fn check(module: &[String], text: &str) -> Vec<String> {
    let paths = paths(&tokens(text), module);
    let own = module.join("::");
    let mut breaches = BTreeSet::new();
    let row = MAY_IMPORT
        .iter()
        .filter(|(row, _)| starts_with(&own, row))
        .max_by_key(|(row, _)| row.len());
    for path in &paths {
        if let (Some(inside), Some((row, allowed))) = (path.strip_prefix("crate::"), row) {
            let top = inside.split("::").next().unwrap_or_default();
            let known = MAY_IMPORT.iter().any(|(it, _)| *it == top);
            let fine = top == module[0] && !row.contains("::")
                || starts_with(inside, &own)
                || starts_with(inside, row)
                || allowed.iter().any(|it| starts_with(inside, it));
            if known && !fine {
                breaches.insert(format!("{row} may not import {inside}"));
            }
        }
        for (banned_in, words, why) in BANNED {
            for word in *words {
                let said = path == word
                    || starts_with(path, word)
                    || path.split("::").any(|part| part == *word);
                if module[0] == *banned_in && said {
                    breaches.insert(format!("{path} in {banned_in}: {why}"));
                }
            }
        }
        for (name, homes) in HOMES {
            if starts_with(path, name) && !homes.contains(&module[0].as_str()) {
                breaches.insert(format!("{name} lives in {homes:?} only"));
            }
        }
    }
    breaches.into_iter().collect()
}

fn starts_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `spool/log.rs` is `[spool, log]`, `spool/mod.rs` is `[spool]`.
fn module_path(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|it| it.to_str().unwrap().to_owned())
        .collect();
    if parts.len() > 1 && parts.last().is_some_and(|it| it == "mod") {
        parts.pop();
    }
    parts
}

/// Every path of the token stream, groups written out, `super` resolved against `module`.
fn paths(tokens: &[String], module: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_word(&tokens[at]) && (at == 0 || tokens[at - 1] != "::") {
            at = path(tokens, at, String::new(), &mut found);
        } else {
            at += 1;
        }
    }
    found
        .into_iter()
        .map(|path| {
            let ups = path.split("::").take_while(|it| *it == "super").count();
            if ups == 0 {
                return path;
            }
            let rest = path.split("::").skip(ups).collect::<Vec<_>>().join("::");
            let base = &module[..module.len().saturating_sub(ups)];
            [&["crate".to_owned()], base, &[rest]].concat().join("::")
        })
        .collect()
}

/// Reads one path from `at`; gives the place after it.
fn path(tokens: &[String], mut at: usize, mut prefix: String, found: &mut Vec<String>) -> usize {
    while let Some(token) = tokens.get(at) {
        if token == "{" && !prefix.is_empty() {
            at += 1;
            while tokens.get(at).is_some_and(|it| it != "}") {
                if is_word(&tokens[at]) {
                    at = path(tokens, at, prefix.clone(), found);
                } else {
                    at += 1;
                }
            }
            return at + 1;
        }
        if !is_word(token) {
            break;
        }
        prefix = if prefix.is_empty() {
            token.clone()
        } else {
            format!("{prefix}::{token}")
        };
        at += 1;
        if tokens.get(at).is_none_or(|it| it != "::") {
            break;
        }
        at += 1;
    }
    found.push(prefix);
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|it: char| it.is_alphabetic() || it == '_')
}

/// Words, `::` and single punctuation marks, without comments, literals and what stands
/// under `#[cfg(test)]`.
fn tokens(text: &str) -> Vec<String> {
    let all = lex(text);
    let mut kept = Vec::new();
    let mut at = 0;
    let test = ["#", "[", "cfg", "(", "test", ")", "]"];
    while at < all.len() {
        if all[at..].len() > test.len() && all[at..].iter().zip(test).all(|(a, b)| a == b) {
            at = after_item(&all, at + test.len());
        } else {
            kept.push(all[at].clone());
            at += 1;
        }
    }
    kept
}

/// The place after one item: its `;` or its closing brace.
fn after_item(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    // `use a::{b, c};` goes on to its semicolon.
                    let semicolon = tokens.get(at + 1).is_some_and(|it| it == ";");
                    return at + 1 + usize::from(semicolon);
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

fn lex(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let (here, next) = (get(at), get(at + 1));
        if here == '/' && next == '/' {
            while at < chars.len() && get(at) != '\n' {
                at += 1;
            }
        } else if here == '/' && next == '*' {
            let mut depth = 0;
            loop {
                match (get(at), get(at + 1)) {
                    ('/', '*') => (depth, at) = (depth + 1, at + 2),
                    ('*', '/') => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if here == '"' {
            at = after_string(&chars, at);
        } else if here == 'r' && (next == '"' || next == '#') && raw_hashes(&chars, at).is_some() {
            let hashes = raw_hashes(&chars, at).unwrap();
            at += hashes + 2;
            while at < chars.len()
                && !(get(at) == '"' && (1..=hashes).all(|it| get(at + it) == '#'))
            {
                at += 1;
            }
            at += hashes + 1;
        } else if here == '\'' {
            // A character literal has its closing quote near; a lifetime has none.
            if next == '\\' {
                at += 3;
                while at < chars.len() && get(at) != '\'' {
                    at += 1;
                }
                at += 1;
            } else if get(at + 2) == '\'' {
                at += 3;
            } else {
                at += 1;
            }
        } else if here.is_alphanumeric() || here == '_' {
            let start = at;
            while get(at).is_alphanumeric() || get(at) == '_' {
                at += 1;
            }
            // Of `b"..."` and `br"..."` a `b` stays as a word; it harms nothing.
            if get(at - 1) == 'r' && raw_hashes(&chars, at - 1).is_some() {
                at -= 1;
            }
            tokens.push(chars[start..at].iter().collect());
        } else if here == ':' && next == ':' {
            tokens.push("::".into());
            at += 2;
        } else {
            if !here.is_whitespace() {
                tokens.push(here.to_string());
            }
            at += 1;
        }
    }
    tokens
}

fn after_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// How many `#` a raw string at `at` (an `r`) opens with; none: it is no raw string.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|it| **it == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}
