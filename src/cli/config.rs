//! `penstock config check` and `penstock config show`: what is written, checked, and
//! what it comes to. Neither needs the daemon.

mod check;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value as Json, json};
use toml::Value;

use crate::config::{self, Checked, ConfigError, Fact, LimitSource, Problem, Section, WrittenAt};
use crate::mail::count::count;

use check::{with_certificates, with_rules};

/// The exit code of a bad configuration (sysexits.h, EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;

/// Where a comment begins behind a value.
const COMMENT_COLUMN: usize = 40;
/// Wide enough for a terminal that nobody resized.
const COLUMNS: usize = 80;

/// Checks both files, and the rules for refusals where there are any; exits 78 if the
/// daemon would not start with them.
pub fn check(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let checked = with_rules(path, with_certificates(path, config::inspect(path)));
    let text = match json {
        true => one_line(&check_json(path, &checked)),
        false => check_text(path, &checked),
    };
    print(&text)?;
    Ok(match checked {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_CONFIG),
    })
}

/// Shows every value as it takes effect, secrets as `***`, and where limits come from.
pub fn show(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let checked = config::inspect(path);
    let (text, code) = match (&checked, json) {
        (Ok(checked), true) => (
            one_line(&show_json(&checked.config.sections())),
            ExitCode::SUCCESS,
        ),
        (Ok(checked), false) => (
            show_text(path, &checked.config.sections()),
            ExitCode::SUCCESS,
        ),
        (Err(_), true) => (
            one_line(&check_json(path, &checked)),
            ExitCode::from(EXIT_CONFIG),
        ),
        (Err(_), false) => (check_text(path, &checked), ExitCode::from(EXIT_CONFIG)),
    };
    print(&text)?;
    Ok(code)
}

/// A reader that has seen enough (`penstock config show | head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn check_text(path: &Path, checked: &Result<Checked, ConfigError>) -> String {
    let mut text = String::new();
    match checked {
        Ok(Checked { config, warnings }) => {
            for warning in warnings {
                _ = writeln!(text, "warning: {warning}");
            }
            _ = writeln!(
                text,
                "{}: good, {}, {}, {}",
                path.display(),
                count(config.listen.len() as u64, "listener", "listeners"),
                count(config.relays.len() as u64, "relay", "relays"),
                count(config.users.len() as u64, "user", "users"),
            );
        }
        Err(error) => {
            _ = writeln!(text, "{error}");
            let mistakes = count(error.problems.len() as u64, "mistake", "mistakes");
            _ = writeln!(text, "{}: {mistakes}", path.display());
        }
    }
    text
}

fn check_json(path: &Path, checked: &Result<Checked, ConfigError>) -> Json {
    let (config, problems, warnings) = match checked {
        Ok(checked) => (Some(&checked.config), &[][..], &checked.warnings[..]),
        Err(error) => (None, &error.problems[..], &[][..]),
    };
    json!({
        "ok": checked.is_ok(),
        "file": path,
        "listeners": config.map(|it| it.listen.len()),
        "relays": config.map(|it| it.relays.len()),
        "users": config.map(|it| it.users.len()),
        "problems": problems.iter().map(problem_json).collect::<Vec<_>>(),
        "warnings": warnings.iter().map(problem_json).collect::<Vec<_>>(),
    })
}

fn problem_json(problem: &Problem) -> Json {
    json!({
        "file": problem.file,
        "line": problem.line,
        "key": problem.key,
        "what": problem.what,
        "remedy": problem.remedy,
    })
}

fn show_text(path: &Path, sections: &[Section]) -> String {
    let mut text = format!("# {}, as it takes effect\n", path.display());
    for section in sections {
        if !section.table.is_empty() {
            _ = match section.array {
                true => writeln!(text, "\n[[{}]]", section.table),
                false => writeln!(text, "\n[{}]", section.table),
            };
        }
        let mut below = "";
        for fact in &section.facts {
            let (table, key) = fact.key.rsplit_once('.').unwrap_or(("", &fact.key));
            if table != below {
                _ = writeln!(text, "\n[{}.{table}]", section.table);
                below = table;
                let below = section.facts.iter().filter(|it| it.key.starts_with(table));
                text.push_str(&who_says_so(below));
            }
            text.push_str(&line(key, &fact.value, fact.source.as_ref()));
        }
    }
    text
}

/// Of the preset that limits start from: where its figures were read, and when.
fn who_says_so<'a>(mut facts: impl Iterator<Item = &'a Fact>) -> String {
    let preset = facts.find_map(|it| match &it.source {
        Some(LimitSource::Preset {
            preset,
            source,
            date,
        }) => Some(format!("{preset}: {source}, {date}")),
        _ => None,
    });
    let mut text = String::new();
    let mut line = String::new();
    for word in preset.iter().flat_map(|it| it.split_whitespace()) {
        if line.chars().count() + word.chars().count() > COLUMNS - 4 {
            _ = writeln!(text, "#{line}");
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    if !line.is_empty() {
        _ = writeln!(text, "#{line}");
    }
    text
}

/// A key and its value; a list that is too long for the line with one entry a line.
fn line(key: &str, value: &Value, source: Option<&LimitSource>) -> String {
    let mut line = format!("{key} = {value}");
    if let Value::Array(list) = value
        && line.chars().count() > COLUMNS
    {
        let entries: String = list.iter().map(|it| format!("    {it},\n")).collect();
        line = format!("{key} = [\n{entries}]");
    }
    let source = match source {
        None => return line + "\n",
        Some(LimitSource::Written(WrittenAt(Some(number)))) => format!("line {number}"),
        Some(LimitSource::Written(WrittenAt(None))) => "written".to_owned(),
        Some(LimitSource::Preset { preset, date, .. }) => format!("{preset}, {date}"),
    };
    format!("{line:COMMENT_COLUMN$} # {source}\n")
}

fn show_json(sections: &[Section]) -> Json {
    let mut root = Map::new();
    for section in sections {
        let facts = facts_json(&section.facts);
        match (section.table.split_once('.'), section.array) {
            (None, true) => {
                let list = root
                    .entry(section.table.clone())
                    .or_insert_with(|| json!([]));
                if let Json::Array(list) = list {
                    list.push(facts.into());
                }
            }
            (None, false) if section.table.is_empty() => root.extend(facts),
            (None, false) => {
                root.insert(section.table.clone(), facts.into());
            }
            (Some((table, name)), _) => {
                let named = root.entry(table).or_insert_with(|| json!({}));
                if let Json::Object(named) = named {
                    named.insert(name.trim_matches('"').to_owned(), facts.into());
                }
            }
        }
    }
    root.into()
}

fn facts_json(facts: &[Fact]) -> Map<String, Json> {
    let mut map = Map::new();
    for fact in facts {
        let value = json!(fact.value);
        let value = match &fact.source {
            None => value,
            Some(LimitSource::Written(line)) => {
                json!({ "value": value, "source": "written", "line": line.0 })
            }
            Some(LimitSource::Preset {
                preset,
                source,
                date,
            }) => json!({
                "value": value,
                "source": "preset",
                "preset": preset.name(),
                "said_by": source,
                "date": date,
            }),
        };
        match fact.key.rsplit_once('.') {
            None => {
                map.insert(fact.key.clone(), value);
            }
            Some((table, key)) => {
                let below = map.entry(table).or_insert_with(|| json!({}));
                if let Json::Object(below) = below {
                    below.insert(key.to_owned(), value);
                }
            }
        }
    }
    map
}

fn one_line(value: &Json) -> String {
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "hostname = \"a.example\"\n[relays.own]\nserver = \"[a.example]:587\"\n\
        login = \"u verysecret\"\nlimits = { per-hour = 600 }\n\
        [relays.\"b.c\"]\nserver = \"b.example\"\n[[listen]]\naddress = \"0.0.0.0:25\"\n\
        allow-from = [\"10.0.0.0/8\", \"192.0.2.0/24\", \"198.51.100.0/24\", \"203.0.113.0/24\", \"172.16.0.0/12\"]\n";
    const USERS: &str = "[[user]]\naddress = \"jan@a.example\"\nrelay = \"own\"\n";

    pub(super) fn files(main: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("penstock.toml");
        for (name, text) in [("penstock.toml", main), ("users.toml", USERS)] {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn the_check_says_what_is_there_or_what_is_wrong_within_80_columns() {
        let (_directory, path) = files(MAIN);
        let path = path.as_path();
        let good = check_text(path, &config::inspect(path));
        assert!(
            good.ends_with(": good, 1 listener, 2 relays, 1 user\n"),
            "{good}"
        );
        assert!(check_json(path, &config::inspect(path))["ok"] == true);

        let (_directory, path) = files(&MAIN.replace("server", "sevrer"));
        let path = Path::new(&path);
        let wrong = config::inspect(path);
        let text = check_text(path, &wrong);
        assert!(
            text.contains(":3: relays.own.sevrer\n  is not a known key\n"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let json = check_json(path, &wrong);
        assert_eq!(json["problems"][0]["line"], 2);
        assert_eq!(json["problems"][1]["key"], "relays.own.sevrer");
        assert_eq!(json["ok"], false);
    }

    #[test]
    fn a_login_with_tokens_is_shown_as_it_would_be_written_and_parses_again() {
        let (_directory, path) = files(
            "[relays.own]\nserver = \"[a.example]:587\"\nusername = \"m@a.example\"\n\
             reverse-path = \"from\"\n[relays.own.oauth]\nprovider = \"google\"\n\
             client-id = \"app\"\nclient-secret = \"verysecret\"\n",
        );
        let config = config::inspect(&path).unwrap().config;
        let mut sections = config.sections();
        sections.retain(|it| it.table != "user");
        let text = show_text(&path, &sections);
        assert!(!text.contains("verysecret"), "{text}");
        let written: toml::Table = text.parse().unwrap();
        let own = &written["relays"]["own"];
        assert_eq!(own["reverse-path"].as_str(), Some("from"));
        assert_eq!(own["oauth"]["provider"].as_str(), Some("google"));
        assert_eq!(
            own["oauth"]["scope"].as_str(),
            Some("https://mail.google.com/")
        );
        assert!(own["limits"]["preset"].as_str().is_some());
        let again = text.replace("\"***\"", "\"verysecret\"");
        let again = config::Config::parse(&again, "").unwrap();
        assert_eq!(
            again.relays["own"].credentials,
            config.relays["own"].credentials
        );
    }

    #[test]
    fn what_is_shown_has_sources_and_no_secret_and_parses_again() {
        let (_directory, path) = files(MAIN);
        let config = config::inspect(&path).unwrap().config;
        let text = show_text(&path, &config.sections());
        assert!(!text.contains("verysecret"), "{text}");
        assert!(text.contains("\npassword = \"***\"\n"), "{text}");
        assert!(
            text.contains("per-hour = 600                           # line 5\n"),
            "{text}"
        );
        assert!(
            text.contains("per-day = \"unlimited\"                    # standard, 2026-11-21\n")
        );
        let said = format!(
            "[relays.\"b.c\".limits]\n# standard: {}",
            &config::Preset::Standard.source()[..20]
        );
        assert!(text.contains(&said), "{text}");
        assert!(
            text.lines().skip(1).all(|line| line.chars().count() <= 80),
            "{text}"
        );

        let (main, users) = text.split_at(text.find("\n[[user]]").unwrap());
        let again = config::Config::parse(main, users).unwrap();
        assert_eq!(again.listen, config.listen);
        assert_eq!(again.users, config.users);
        assert_eq!(again.relays["b.c"].servers, config.relays["b.c"].servers);

        let json = show_json(&config.sections());
        assert_eq!(
            json["relays"]["own"]["limits"]["per-hour"]["source"],
            "written"
        );
        assert_eq!(json["relays"]["own"]["limits"]["per-hour"]["line"], 5);
        assert_eq!(
            json["relays"]["b.c"]["limits"]["per-hour"]["preset"],
            "standard"
        );
        assert_eq!(json["user"][0]["address"], "jan@a.example");
        assert_eq!(json["hostname"], "a.example");
        assert!(!json.to_string().contains("verysecret"));
    }
}
