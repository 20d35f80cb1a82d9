mod files;
mod mistakes;
mod relays;
mod tables;
mod tokens;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A listing of `key: what | remedy` for each problem.
pub fn problems(main: &str, users: &str) -> Vec<String> {
    match Config::parse(main, users) {
        Ok(_) => Vec::new(),
        Err(error) => error
            .problems
            .iter()
            .map(|it| {
                let line = it.line.unwrap_or(0);
                format!("{line} {}: {} | {}", it.key, it.what, it.remedy)
            })
            .collect(),
    }
}

#[track_caller]
pub fn refused(main: &str, users: &str, expected: &[&str]) {
    let found = problems(main, users);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

pub fn parse(main: &str, users: &str) -> Config {
    Config::parse(main, users).unwrap_or_else(|error| panic!("{error}"))
}

/// What PRODUCT shows, without what is not built yet.
pub const WHOLE: &str = r#"
hostname      = "app01.example.nl"
default-relay = "carerix"
bounces-via   = "carerix"
admin         = "postmaster@example.nl"
users         = "users.toml"

[[listen]]
address = "127.0.0.1:2525"
[[listen]]
address = "0.0.0.0:587"
tls  = "starttls"
auth = "optional"
allow-from = ["10.1.0.0/16"]
senders = ["erp@uwdomein.nl"]
bare-lf = "repair"

[spool]
path = "/var/lib/penstock"
min-free = "5%"

[message]
max-size = "50MB"
max-recipients = 1000

[timeouts]
idle      = "5m"
connect   = "30s"
command   = "5m"
data      = "3m"
final-dot = "10m"
[retry]
first = "1m"
max   = "1h"
expire-after  = "4d"
warn-after    = "4h"

[relays.carerix]
server = "[mail.carerix.net]:587"
limits = { preset = "standard" }

[relays.own]
server       = "[smtp.uwdomein.nl]:465"
fallback     = ["[smtp2.uwdomein.nl]:465"]
sender       = "mailer@uwdomein.nl"
login        = "relayuser secret of two words"
auth         = "auto"
tls          = "implicit"
reverse-path = "keep"
bulk         = true
limits       = { connections = 4 }
"#;

pub const USERS: &str = r#"
[[user]]
address = "jan@uwdomein.nl"
aliases = ["j.jansen@uwdomein.nl"]
relay   = "own"
username = "jan"
password-hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG"
[[user]]
address = "@uwdomein.nl"
relay   = "own"
"#;

pub fn relay(rest: &str) -> Result<Relay, Vec<String>> {
    let main = format!("[relays.own]\n{rest}\n");
    match Config::parse(&main, "") {
        Ok(mut config) => Ok(config.relays.remove("own").unwrap()),
        Err(_) => Err(problems(&main, "")),
    }
}

/// A directory with the two files, secret unless said otherwise.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new(main: &str, users: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("penstock.toml", main, 0o640);
        files.write("users.toml", users, 0o640);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    pub fn refused(&self, expected: &str) {
        let error = load(&self.path("penstock.toml")).unwrap_err();
        let text = error.to_string().replace("\n  ", " ");
        assert!(text.contains(expected), "{error}");
    }
}
