//! The verbs that need no daemon: `config`, `relay add|set|remove`, `user`, `import`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A directory with both files as they are shipped.
struct Home(tempfile::TempDir);

/// What a run of `penstock` gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn shipped() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for name in ["penstock.toml", "users.toml"] {
            let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("conf")
                .join(name);
            home.write(name, &fs::read_to_string(shipped).unwrap());
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs `penstock` with words, and with a line on its standard input.
    fn penstock(&self, words: &[&str], input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(words)
            .env("PENSTOCK_CONFIG", self.path("penstock.toml"))
            .env("PENSTOCK_SOCKET", self.path("no.sock"))
            .env_remove("COLUMNS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A verb that asks for nothing may have ended before.
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        let ended = crate::daemon::machine::ended(child);
        let ran = Ran {
            code: ended.status.code().unwrap(),
            out: String::from_utf8(ended.stdout).unwrap(),
            err: String::from_utf8(ended.stderr).unwrap(),
        };
        for secret in ["geheim", "$argon2"] {
            let shown = format!("{}{}", ran.out, ran.err);
            assert!(!shown.contains(secret), "a secret is shown: {shown}");
        }
        ran
    }

    #[track_caller]
    fn done(&self, words: &[&str], input: &str) -> String {
        let ran = self.penstock(words, input);
        assert_eq!(ran.code, 0, "{words:?}\n{}{}", ran.out, ran.err);
        ran.out
    }

    #[track_caller]
    fn refused(&self, code: i32, words: &[&str], expected: &str) {
        let before = (self.read("penstock.toml"), self.read("users.toml"));
        let ran = self.penstock(words, "");
        let said = format!("{}{}", ran.out, ran.err);
        assert_eq!(ran.code, code, "{words:?}\n{said}");
        assert!(said.contains(expected), "{said}");
        let after = (self.read("penstock.toml"), self.read("users.toml"));
        assert_eq!(before, after, "something was written");
    }
}

#[test]
fn the_shipped_files_become_a_working_configuration_from_the_command_line() {
    let home = Home::shipped();
    home.done(
        &[
            "relay",
            "add",
            "own",
            "--server",
            "[smtp.example.nl]:587",
            "--username",
            "mailer",
            "--limit",
            "per-hour=600",
            "--default",
        ],
        "geheim\n",
    );
    home.done(
        &[
            "user",
            "add",
            "jan@example.nl",
            "--relay",
            "own",
            "--alias",
            "j@example.nl",
        ],
        "",
    );
    home.done(&["user", "set", "jan@example.nl", "--password"], "geheim\n");
    home.done(&["user", "add", "@example.nl"], "");
    let checked = home.done(&["config", "check"], "");
    assert!(
        checked.ends_with("penstock.toml: good, 1 listener, 1 relay, 2 users\n"),
        "{checked}"
    );

    // The words of the sample are all still there, and where they were.
    let written = home.read("penstock.toml");
    assert!(written.contains("No default: such mail is refused.\ndefault-relay = \"own\"\n"));
    assert!(
        written.contains("password = \"geheim\"\nlimits = { per-hour = 600 }\n"),
        "{written}"
    );
    assert_eq!(
        written.matches("\n# ").count(),
        include_str!("../../conf/penstock.toml")
            .matches("\n# ")
            .count()
    );
    assert!(
        home.read("users.toml")
            .contains("password-hash = \"$argon2id$")
    );

    home.done(
        &["relay", "set", "own", "--server", "[smtp2.example.nl]:465"],
        "",
    );
    let written = home.read("penstock.toml");
    assert!(
        written.contains("geheim"),
        "without a password the old one stays"
    );
    let mode = fs::metadata(home.path("penstock.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);

    let shown = home.done(&["config", "show"], "");
    assert!(
        shown.contains("server = \"[smtp2.example.nl]:465\"\n"),
        "{shown}"
    );
    assert!(
        shown.contains("per-hour = 600                           # line "),
        "{shown}"
    );
    assert!(
        shown.lines().skip(1).all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    let users = home.done(&["user", "list", "--json"], "");
    let first: serde_json::Value = serde_json::from_str(users.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["relay"], &first["login"]),
        (&"own".into(), &"jan@example.nl".into())
    );

    home.done(&["user", "remove", "jan@example.nl", "@example.nl"], "");
    assert_eq!(
        home.read("users.toml").trim_end(),
        include_str!("../../conf/users.toml").trim_end()
    );
}

#[test]
fn a_mistake_changes_nothing_and_says_file_line_key_and_remedy() {
    let home = Home::shipped();
    home.done(&["relay", "add", "own", "--server", "a.example"], "");
    home.done(&["user", "add", "jan@example.nl", "--relay", "own"], "");
    home.refused(
        78,
        &["relay", "set", "own", "--tls", "sure"],
        "relays.own.tls\n  \"sure\" is not one of",
    );
    home.refused(
        78,
        &["relay", "remove", "own"],
        "name relay own: jan@example.nl\nfirst: penstock user set jan@example.nl --relay OTHER",
    );
    home.refused(
        78,
        &["user", "add", "x@example.nl", "--relay", "onw"],
        "write \"own\"",
    );
    home.refused(1, &["user", "add", "JAN@example.nl"], "there is a user");
    home.refused(
        1,
        &["relay", "set", "nobody", "--tls", "off"],
        "there is no relay nobody",
    );
    home.refused(64, &["relay", "add"], "required");
    home.refused(
        0,
        &["relay", "set", "own", "--limit", "per-day=9", "--dry-run"],
        "not written",
    );

    let broken = home
        .read("penstock.toml")
        .replace("server = \"a.example\"", "sevrer = \"a.example\"");
    home.write("penstock.toml", &broken);
    home.refused(
        78,
        &["config", "check"],
        "relays.own.sevrer\n  is not a known key\n  remedy: the nearest known key is server\n",
    );
    home.refused(78, &["config", "show"], "relays.own.sevrer");
    let json = home.penstock(&["config", "check", "--json"], "");
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["ok"], json["problems"].as_array().unwrap().len()),
        (&false.into(), 2)
    );
    assert!(json["problems"][1]["line"].as_u64().unwrap() > 100);

    home.write(
        "penstock.toml",
        "[relays.own]\nserver = \"a.example\"\nlogin = \"u geheim\"\n",
    );
    fs::set_permissions(
        home.path("penstock.toml"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    home.refused(78, &["config", "check"], "chmod 0640");
    let broken = home.path("penstock.toml");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o640)).unwrap();
    home.write("rules.toml", "[[rule]]\nclas = \"policy\"\n");
    home.refused(78, &["config", "check"], "rules.toml\n  ");
    home.refused(78, &["config", "check"], "1 mistake");
    fs::remove_file(home.path("rules.toml")).unwrap();
    home.done(&["config", "check"], "");
    fs::remove_file(home.path("penstock.toml")).unwrap();
    let ran = home.penstock(&["config", "check"], "");
    assert_eq!(ran.code, 78);
    assert!(
        ran.out.contains("cannot read this file: no such file"),
        "{}",
        ran.out
    );
}

#[test]
fn a_spreadsheet_and_a_postfix_are_taken_over() {
    let home = Home::shipped();
    home.done(
        &["relay", "add", "own", "--server", "a.example", "--default"],
        "",
    );
    home.write(
        "list.csv",
        "address;relay;aliases\njan@example.nl;own;j@example.nl\npiet@example.nl;;\n",
    );
    let list = home.path("list.csv");
    let said = home.done(&["user", "import", list.to_str().unwrap()], "");
    assert!(
        said.starts_with("2 new, 0 changed, 0 as they were\n"),
        "{said}"
    );

    let postfix = home.path("postfix");
    fs::create_dir(&postfix).unwrap();
    home.write(
        "postfix/main.cf",
        "relayhost = [mail.example.org]:587\nsmtp_sender_dependent_authentication = yes\n\
         sender_dependent_relayhost_maps = hash:/etc/postfix/relays\nsmtp_sasl_auth_enable = yes\n\
         smtp_sasl_password_maps = hash:/etc/postfix/passwords\ntransport_maps = hash:/etc/postfix/transport\n",
    );
    home.write(
        "postfix/relays",
        "klaas@example.nl [smtp.gmail.com]:587\njan@example.nl DUNNO\n",
    );
    home.write(
        "postfix/passwords",
        "klaas@example.nl klaas:geheim\n[mail.example.org]:587 u:geheim2\n",
    );
    let words = ["import", "postfix", postfix.to_str().unwrap()];
    let before = home.read("penstock.toml");
    let said = home.done(&words, "");
    assert!(
        said.contains("sender klaas@example.nl: [smtp.gmail.com]:587, relay gmail"),
        "{said}"
    );
    assert!(said.contains("transport_maps: Penstock chooses"), "{said}");
    assert!(
        said.contains("user jan@example.nl: is there already"),
        "{said}"
    );
    assert!(
        said.ends_with("to write it: the same with --write\n"),
        "{said}"
    );
    assert_eq!(home.read("penstock.toml"), before);

    home.done(
        &["import", "postfix", postfix.to_str().unwrap(), "--write"],
        "",
    );
    let shown = home.done(&["config", "show"], "");
    assert!(
        shown.contains("[relays.gmail.limits]\n# gmail: ")
            && shown.contains("\npreset = \"gmail\"\n"),
        "{shown}"
    );
    assert!(shown.contains("default-relay = \"own\"\n"), "{shown}");
    let ran = home.penstock(&["import", "postfix", "/nowhere"], "");
    assert_eq!(ran.code, 1, "{}", ran.err);
}
