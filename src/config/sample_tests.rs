//! Keeps the two files in `conf/` true: every key that the program knows stands there,
//! with its default, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::keys::{MAIN_KEYS, NOT_BUILT, USER_KEYS};
use super::place::Place;
use super::read::read_texts;
use super::{Checked, Config};

const MAIN: &str = include_str!("../../conf/penstock.toml");
const USERS: &str = include_str!("../../conf/users.toml");

/// A commented key of a sample file.
#[derive(Debug)]
struct Entry {
    /// As in the lists of keys: `relays.*.server`.
    pattern: String,
    /// The line of its table, as it stands, and its own line.
    table: String,
    line: String,
    /// Whether the words above it say that the value is not a default.
    example: bool,
}

/// The lines that are commented keys: `#` and no space behind it.
fn entries(sample: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut table = String::new();
    let mut prose = String::new();
    let mut fresh = true;
    for line in sample.lines() {
        let Some(key) = line
            .strip_prefix('#')
            .filter(|it| !it.starts_with(' ') && !it.is_empty())
        else {
            assert!(
                line.is_empty() || line.starts_with("# ") || line == "#",
                "neither words nor a key: {line}"
            );
            if fresh {
                prose.clear();
                fresh = false;
            }
            prose.push_str(line.trim_start_matches('#'));
            continue;
        };
        if key.starts_with('[') {
            table = key.to_owned();
        } else {
            let name = key.split(" = ").next().unwrap();
            let inside = table.trim_matches(['[', ']']);
            let inside = match table.starts_with("[[") {
                true => format!("{inside}[]"),
                false => inside.to_owned(),
            };
            let mut path: Vec<&str> = inside.split('.').filter(|it| !it.is_empty()).collect();
            if matches!(path[..], ["relays", _, ..] | ["hints", _]) {
                path[1] = "*";
            }
            path.push(name);
            entries.push(Entry {
                pattern: path.join("."),
                table: table.clone(),
                line: key.to_owned(),
                example: prose.contains("Default:")
                    || prose.contains("o default")
                    || prose.contains("Example"),
            });
        }
        fresh = true;
    }
    entries
}

/// Both files with every key uncommented.
fn uncommented(sample: &str) -> String {
    sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

fn parse(main: &str, users: &str) -> Checked {
    let place = Place {
        inspecting: true,
        ..Place::default()
    };
    read_texts(main, users, &place, NOT_BUILT).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_known_key_stands_in_the_sample_files_and_nothing_else() {
    for (sample, keys) in [(MAIN, MAIN_KEYS), (USERS, USER_KEYS)] {
        let written: BTreeSet<String> = entries(sample).into_iter().map(|it| it.pattern).collect();
        // "limits = {...}" in an example is a table, not a key.
        let known: BTreeSet<String> = keys
            .iter()
            .filter(|key| {
                !NOT_BUILT.iter().any(|(prefix, value)| {
                    // What is not built at all, or not the value that is no default.
                    key.starts_with(prefix) && (value.is_none() || *value == Some("true"))
                })
            })
            .map(|it| (*it).to_owned())
            .collect();
        let written: BTreeSet<String> = written
            .into_iter()
            .filter(|it| it != "relays.*.limits")
            .collect();
        assert_eq!(written, known);
    }
}

#[test]
fn the_sample_files_mean_the_defaults_as_they_are_and_parse_when_uncommented() {
    assert_eq!(parse(MAIN, USERS).config, parse("", "").config);

    let directory = tempfile::tempdir().unwrap();
    let password: PathBuf = directory.path().join("second.password");
    std::fs::write(&password, "secret\n").unwrap();
    std::fs::set_permissions(
        &password,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let main = uncommented(MAIN)
        .replace("second.password", password.to_str().unwrap())
        .replace("sixth.secret", password.to_str().unwrap());
    let config = parse(&main, &uncommented(USERS)).config;
    assert_eq!(config.relays.len(), 8);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.users.len(), 2);
}

#[test]
fn the_values_in_the_sample_files_are_the_defaults() {
    // What a key needs around it to be read at all.
    let base = |table: &str, line: &str| -> Config {
        let main = match table {
            "" => format!("{line}\n[relays.example]\nserver = \"[smtp.example.nl]:587\"\n"),
            "[[listen]]" if !line.starts_with("address") => {
                format!("[[listen]]\naddress = \"127.0.0.1:2525\"\n{line}\n")
            }
            "[relays.example]" => format!("{table}\nserver = \"[smtp.example.nl]:587\"\n{line}\n"),
            "[relays.example.limits]" => {
                format!("[relays.example]\nserver = \"[smtp.example.nl]:587\"\n{table}\n{line}\n")
            }
            "[relays.fifth.oauth]" => format!(
                "[relays.fifth]\nserver = \"[smtp.office365.com]:587\"\n\
                 username = \"mailer@example.com\"\n{table}\nprovider = \"microsoft\"\n\
                 client-id = \"1\"\n{line}\n"
            ),
            table => format!("{table}\n{line}\n"),
        };
        let mut config = parse(&main, "").config;
        for relay in config.relays.values_mut() {
            relay.limits.overridden.clear();
        }
        config
    };
    let mut first = BTreeMap::new();
    for entry in entries(MAIN) {
        let repeated = first.insert(entry.pattern.clone(), ()).is_some();
        if entry.example || repeated {
            continue;
        }
        let Entry { table, line, .. } = &entry;
        assert_eq!(base(table, line), base(table, ""), "{entry:?}");
    }
    let user = |line: &str| {
        parse(
            "default-relay = \"a\"\n[relays.a]\nserver = \"a.example\"\n",
            &format!("[[user]]\naddress = \"a@b.example\"\n{line}\n"),
        )
        .config
    };
    assert_eq!(user("aliases = []"), user(""));
}
