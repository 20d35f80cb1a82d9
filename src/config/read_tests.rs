use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::config::{
    AuthMethod, BareLf, HintAction, HintName, Host, LimitSource, ListenerAuth, Preset, RelayTls,
    ReversePathRule, UserAddress,
};

/// A listing of `key: what | remedy` for each problem.
fn problems(main: &str, users: &str) -> Vec<String> {
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
fn refused(main: &str, users: &str, expected: &[&str]) {
    let found = problems(main, users);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

fn parse(main: &str, users: &str) -> Config {
    Config::parse(main, users).unwrap_or_else(|error| panic!("{error}"))
}

/// What PRODUCT shows, without what is not built yet.
const WHOLE: &str = r#"
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

const USERS: &str = r#"
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

#[test]
fn the_whole_configuration_is_read_as_meant() {
    let config = parse(WHOLE, USERS);
    assert_eq!(config.hostname, "app01.example.nl");
    assert_eq!(config.default_relay.as_deref(), Some("carerix"));
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.listen[1].tls, ListenerTls::StartTls);
    assert_eq!(config.listen[1].auth, ListenerAuth::Optional);
    assert_eq!(config.listen[1].bare_lf, BareLf::Repair);
    assert_eq!(config.timeouts.final_dot, Duration::from_secs(600));

    let own = &config.relays["own"];
    assert_eq!(own.servers.len(), 2);
    assert_eq!(own.servers[1].to_string(), "[smtp2.uwdomein.nl]:465");
    assert_eq!(own.servers[0].tls, RelayTls::Implicit);
    let login = own.credentials.as_ref().unwrap();
    assert_eq!(login.username, "relayuser");
    assert_eq!(login.password().unwrap().expose(), "secret of two words");
    assert_eq!(own.auth, AuthMethod::Auto);
    assert_eq!(own.reverse_path, ReversePathRule::Keep);
    assert_eq!(own.limits.preset, Preset::Bulk);
    assert_eq!(own.limits.per_hour, Some(6_000));
    assert_eq!(own.limits.connections, 4);
    let written = own.limits.source("connections");
    assert!(matches!(written, LimitSource::Written(at) if at.0.is_some()));
    assert!(matches!(
        own.limits.source("per-hour"),
        LimitSource::Preset {
            preset: Preset::Bulk,
            date: "2026-11-21",
            ..
        }
    ));

    assert_eq!(config.users.len(), 2);
    assert!(
        matches!(&config.users[1].address, UserAddress::Domain(it) if it.ascii() == "uwdomein.nl")
    );
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = parse("", "");
    let written = parse(
        "[[listen]]\naddress = \"127.0.0.1:2525\"\n[spool]\n[message]\n[timeouts]\n[retry]\n",
        "",
    );
    assert_eq!(config, written);
    assert_eq!(config.message.max_size_bytes, 50_000_000);
    assert_eq!(config.spool.path, Path::new("/var/lib/penstock"));
    assert_eq!(config.retry.expire_after, Duration::from_secs(4 * 86_400));
    assert!(config.relays.is_empty());
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refused(
        "hostnam = \"a.example\"\nper-hour = 5\n[relays.own]\nsever = \"a.example\"\nserver = \"a.example\"\n\
         limits = { per_hour = 3 }\n[colours]\nx = 1\n",
        "[[user]]\nadress = \"a@b.example\"\naddress = \"a@b.example\"\nrelay = \"own\"\n",
        &[
            "1 hostnam: is not a known key | the nearest known key is hostname",
            "2 per-hour: is not a known key | per-hour belongs in [relays.NAME.limits]",
            "4 relays.own.sever: is not a known key | the nearest known key is server",
            "6 relays.own.limits.per_hour: is not a known key | the nearest known key is per-hour",
            "7 colours: is not a known key | known here: hostname, default-relay,",
            "2 user.adress: is not a known key | the nearest known key is address",
        ],
    );
}

#[test]
fn all_mistakes_are_told_at_once_with_line_key_and_remedy() {
    refused(
        "admin = 7\n[message]\nmax-size = 50000000\nmax-recipients = \"many\"\n[timeouts]\nidle = \"soon\"\n\
         final-dot = \"2d\"\n[spool]\nmin-free = \"5\"\nlisten = 1\n[retry]\nfirst = \"2h\"\n",
        "",
        &[
            "1 admin: must be text in quotes | write admin = \"7\"",
            "3 message.max-size: 50000000 is not a size like \"80MB\" or \"64KiB\" | write the number",
            "4 message.max-recipients: must be a whole number",
            "6 timeouts.idle: \"soon\" is not a duration like \"5m\"",
            "7 timeouts.final-dot: \"2d\" is out of range | write a duration from \"1ms\" to \"1d\"",
            "9 spool.min-free: \"5\" is not a size",
            "10 spool.listen: is not a known key",
            "12 retry.first: the first delay is longer",
        ],
    );
}

#[test]
fn what_is_not_toml_is_told_without_showing_the_line() {
    let found = Config::parse("[relays.own]\nlogin = \"u verysecret\n", "").unwrap_err();
    assert_eq!(found.problems[0].line, Some(2));
    assert!(!found.to_string().contains("verysecret"), "{found}");
    assert!(problems("a = 1\na = 2\n", "")[0].starts_with("2 : this is not TOML: duplicate key"));
    assert!(
        problems("[listen]\naddress = \"127.0.0.1:1\"\n", "")[0]
            .ends_with("write [[listen]], with two brackets, above the keys of each entry")
    );
    assert!(problems("relays = 5\n", "")[0].starts_with("1 relays: is a table, not a value"));
    assert!(!problems("[hostname]\n", "").is_empty());
    assert!(!problems("[relays]\nown = 5\n", "").is_empty());
}

#[test]
fn no_message_shows_a_secret() {
    for login in [
        "login = \"verysecret\"",
        "login = \" verysecret\"",
        "login = \"user very\\u0007secret\"",
        "password = \"verysecret\"",
        "username = \"u\"\npassword = \"verysecret\"\npassword-file = \"x\"",
        "login = \"user verysecret\"\ntls = \"opportunistic\"",
        "login = [\"verysecret\"]",
        "username = [\"verysecret\"]\npassword = [\"verysecret\"]",
    ] {
        let main = format!("[relays.own]\nserver = \"a.example\"\n{login}\n");
        let error = Config::parse(&main, "").unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("secret\"\n"),
            "{error}"
        );
        assert!(!error.to_string().contains("very"), "{error}");
    }
    let error = Config::parse(
        "",
        "[[user]]\naddress = \"a@b.example\"\npassword-hash = \"verysecret\"\n",
    );
    assert!(!error.unwrap_err().to_string().contains("very"));
    let config = parse(WHOLE, USERS);
    assert!(!format!("{config:?}").contains("secret of"));
}

#[test]
fn open_relays_are_refused() {
    let listen = |rest: &str| problems(&format!("[[listen]]\naddress = {rest}\n"), "");
    for (rest, expected) in [
        (
            "\"0.0.0.0:25\"",
            "2 listen.address: 0.0.0.0:25 is not loopback and has neither",
        ),
        (
            "\"[::]:25\"",
            "2 listen.address: [::]:25 is not loopback and has neither",
        ),
        (
            "\"10.0.0.1:25\"\nallow-from = []",
            "2 listen.address: 10.0.0.1:25 is not loopback",
        ),
        (
            "\"0.0.0.0:25\"\nallow-from = [\"0.0.0.0/0\"]",
            "3 listen.allow-from: \"0.0.0.0/0\": is wider",
        ),
        (
            "\"0.0.0.0:25\"\nallow-from = [\n\"10.0.0.0/8\",\n\"::/0\"]",
            "5 listen.allow-from: \"::/0\": holds every",
        ),
        (
            "\"0.0.0.0:25\"\nauth = \"required\"",
            "3 listen.auth: a login is never offered in clear",
        ),
        (
            "\"127.0.0.1:25\"\nauth = \"required\"\nallow-from = [\"127.0.0.1\"]",
            "4 listen.allow-from: says who needs no login",
        ),
        (
            "\"127.0.0.1:25\"\nauth = \"required\"\nsenders = [\"a@b.example\"]",
            "4 listen.senders: says what",
        ),
        (
            "\"127.0.0.1:25\"\nsenders = []",
            "3 listen.senders: is empty, which could mean everybody or nobody",
        ),
        (
            "\"localhost:25\"",
            "2 listen.address: \"localhost:25\": is not an address with a port",
        ),
        (
            "\"127.0.0.1:25\"\n[[listen]]\naddress = \"127.0.0.1:25\"",
            "4 listen.address: 127.0.0.1:25 is listened on twice",
        ),
    ] {
        let found = listen(rest);
        assert!(
            found.first().is_some_and(|it| it.starts_with(expected)),
            "{rest}: {found:?}"
        );
    }
    for rest in [
        "\"127.0.0.1:25\"",
        "\"[::1]:25\"\nauth = \"required\"",
        "\"[::ffff:127.0.0.1]:25\"",
        "\"0.0.0.0:25\"\nauth = \"required\"\ntls = \"starttls\"",
        "\"0.0.0.0:25\"\nallow-from = [\"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.7\"]",
        "\"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"",
    ] {
        assert_eq!(listen(rest), Vec::<String>::new(), "{rest}");
    }
}

fn relay(rest: &str) -> Result<Relay, Vec<String>> {
    let main = format!("[relays.own]\n{rest}\n");
    match Config::parse(&main, "") {
        Ok(mut config) => Ok(config.relays.remove("own").unwrap()),
        Err(_) => Err(problems(&main, "")),
    }
}

#[test]
fn tls_follows_the_port_and_the_login() {
    let tls = |rest: &str| relay(rest).unwrap().servers[0].tls;
    assert_eq!(tls("server = \"a.example:465\""), RelayTls::Implicit);
    assert_eq!(tls("server = \"a.example:587\""), RelayTls::Required);
    assert_eq!(tls("server = \"a.example\""), RelayTls::Opportunistic);
    let login = "login = \"u p\"";
    assert_eq!(
        tls(&format!("server = \"a.example\"\n{login}")),
        RelayTls::Required
    );
    let none = "auth = \"none\"";
    assert_eq!(
        tls(&format!("server = \"a.example\"\n{login}\n{none}")),
        RelayTls::Opportunistic
    );
    assert_eq!(
        tls(&format!("server = \"a.example\"\n{login}\ntls = \"off\"")),
        RelayTls::Off
    );
    let mixed = relay("server = \"a.example:465\"\nfallback = [\"b.example:587\"]").unwrap();
    assert_eq!(mixed.servers[1].tls, RelayTls::Required);
}

#[test]
fn contradictions_of_a_relay_are_refused() {
    let server = "server = \"[a.example]\"";
    for (rest, expected) in [
        ("", "1 relays.own.server: is missing"),
        (
            "server = \"smtps://a\"",
            "2 relays.own.server: \"smtps://a\": looks like a URL",
        ),
        (
            "server = \"a:465\"\ntls = \"required\"",
            "3 relays.own.tls: a:465 speaks TLS from the first octet",
        ),
        (
            &format!("{server}\nlogin = \"u p\"\ntls = \"opportunistic\""),
            "4 relays.own.tls: \"opportunistic\" would",
        ),
        (
            &format!("{server}\nlogin = \"u\""),
            "3 relays.own.login: has no space in it",
        ),
        (
            &format!("{server}\nlogin = \"u \""),
            "3 relays.own.login: has an empty password",
        ),
        (
            &format!("{server}\nlogin = \" p\""),
            "3 relays.own.login: has an empty user name",
        ),
        (
            &format!("{server}\nlogin = \"u p\"\npassword = \"p\""),
            "4 relays.own.password: stands beside login",
        ),
        (
            &format!("{server}\nlogin = \"u p\"\nusername = \"u\""),
            "4 relays.own.username: stands beside login",
        ),
        (
            &format!("{server}\nusername = \"u\""),
            "3 relays.own.username: has no password",
        ),
        (
            &format!("{server}\npassword = \"p\""),
            "3 relays.own.password: has no user name",
        ),
        (
            &format!("{server}\nauth = \"plain\""),
            "3 relays.own.auth: names a way to log in",
        ),
        (
            &format!("{server}\nusername = \"u\"\npassword-file = \"/nowhere\""),
            "4 relays.own.password-file: cannot read /nowhere: no such file",
        ),
        (
            &format!("{server}\nusername = \"u\"\npassword-credential = \"../x\""),
            "4 relays.own.password-credential: is not the name",
        ),
        (
            &format!("{server}\nusername = \"u\"\npassword-credential = \"x\""),
            "4 relays.own.password-credential: is handed to the service",
        ),
        (
            &format!("{server}\ntls-name = \"b.example\""),
            "3 relays.own.tls-name: has no effect",
        ),
        (
            &format!("{server}\ntls = \"sure\""),
            "3 relays.own.tls: \"sure\" is not one of: implicit",
        ),
        (
            &format!("{server}\nfallback = [\"[a.example]:25\"]"),
            "3 relays.own.fallback: [a.example]:25 is named twice",
        ),
        (
            &format!("{server}\nreverse-path = \"sender\""),
            "3 relays.own.reverse-path: \"sender\": an address needs an @",
        ),
        (
            &format!("{server}\nlimits = {{ per-hour = 0 }}"),
            "3 relays.own.limits.per-hour: 0 is not a number from 1",
        ),
        (
            &format!("{server}\nlimits = {{ preset = \"gmial\" }}"),
            "3 relays.own.limits.preset: \"gmial\" is not one of",
        ),
        (
            &format!("{server}\nlimits = {{ batch-window = \"6m\" }}"),
            "3 relays.own.limits.batch-window: 6m is longer",
        ),
        (
            &format!("{server}\nlimits = {{ interactive-share = \"95%\" }}"),
            "3 relays.own.limits.interactive-share: \"95%\" is out of range",
        ),
    ] {
        let found = relay(rest).unwrap_err();
        assert!(
            found.iter().any(|it| it.starts_with(expected)),
            "{rest}: {found:#?}"
        );
        assert_eq!(found.len(), 1, "{rest}: {found:#?}");
    }
    refused(
        "default-relay = \"onw\"\nbounces-via = \"x\"\n[relays.own]\nserver = \"a.example\"\n[relays.\"a b\"]\nserver = \"a.example\"\n",
        "",
        &[
            "1 default-relay: there is no relay \"onw\" | write \"own\", or add [relays.onw]",
            "2 bounces-via: there is no relay \"x\" | add [relays.x], or delete",
            "5 relays.a b: \"a b\" is not a name for a relay",
        ],
    );
}

#[test]
fn limits_start_from_the_preset_and_can_be_lifted() {
    let limits = relay("server = \"a.example\"").unwrap().limits;
    assert_eq!(limits, Preset::Standard.limits());
    let limits = relay(
        "server = \"a.example\"\n[relays.own.limits]\npreset = \"microsoft-365\"\nper-hour = 600\n\
         recipients-per-day = \"unlimited\"\nbatch-bytes = \"20MB\"\ninteractive-share = \"10%\"",
    )
    .unwrap()
    .limits;
    assert_eq!(limits.batch_messages, Some(30));
    assert_eq!(limits.per_hour, Some(600));
    assert_eq!(limits.recipients_per_day, None);
    assert_eq!(limits.batch_bytes, Some(20_000_000));
    assert!((limits.interactive_share - 0.1).abs() < 1e-9);
    let overridden: Vec<&str> = limits.overridden.iter().map(|it| it.0).collect();
    assert_eq!(
        overridden,
        [
            "batch-bytes",
            "per-hour",
            "recipients-per-day",
            "interactive-share"
        ]
    );
    // A shorter interval shortens the preset's window with it.
    let limits = relay("server = \"a.example\"\nlimits = { batch-interval = \"10s\" }")
        .unwrap()
        .limits;
    assert_eq!(limits.batch_window, Duration::from_secs(10));
}

#[test]
fn every_preset_writes_what_it_reads() {
    for preset in Preset::ALL {
        let mut text =
            format!("server = \"a.example\"\n[relays.own.limits]\npreset = \"{preset}\"\n");
        for (key, value) in preset.limits().entries() {
            match value.parse::<u64>() {
                Ok(number) => text.push_str(&format!("{key} = {number}\n")),
                Err(_) => text.push_str(&format!("{key} = \"{value}\"\n")),
            }
        }
        match relay(&text) {
            Ok(mut relay) => {
                relay.limits.overridden.clear();
                assert_eq!(relay.limits, preset.limits());
            }
            // Only connections cannot be lifted, and no preset does.
            Err(problems) => panic!("{problems:?}"),
        }
    }
}

#[test]
fn the_directory_refuses_clashes_and_unknown_relays() {
    let main = "[relays.own]\nserver = \"a.example\"\n";
    let hash = USERS
        .lines()
        .find(|it| it.starts_with("password-hash"))
        .unwrap();
    refused(
        main,
        &format!(
            "[[user]]\naddress = \"Jan@Bücher.example\"\nrelay = \"own\"\naliases = [\"x@b.example\"]\n{hash}\n\
             [[user]]\naddress = \"x@B.example\"\nrelay = \"own\"\n\
             [[user]]\naddress = \"y@b.example\"\naliases = [\"jan@xn--bcher-kva.example\"]\nrelay = \"onw\"\n\
             [[user]]\naddress = \"@b.example\"\nrelay = \"own\"\naliases = [\"z@b.example\"]\n\
             [[user]]\naddress = \"@B.EXAMPLE\"\nrelay = \"own\"\n\
             [[user]]\naddress = \"z2@b.example\"\nrelay = \"own\"\nusername = \"JAN@xn--bcher-kva.example\"\n{hash}\n\
             [[user]]\naddress = \"no address\"\n\
             [[user]]\naddress = \"w@b.example\"\n\
             [[user]]\naddress = \"v@b.example\"\nrelay = \"own\"\npassword-hash = \"$2y$10$abc\"\n"
        ),
        &[
            "7 user.address: x@b.example already stands in line 4",
            "11 user.aliases: jan@xn--bcher-kva.example already stands in line 2",
            "12 user.relay: there is no relay \"onw\" | write \"own\"",
            "16 user.aliases: cannot be given to the whole domain @b.example",
            "18 user.address: @b.example already stands in line 14",
            "23 user.username: the login name jan@xn--bcher-kva.example already stands in line 2",
            "26 user.address: \"no address\": ",
            "27 user.relay: is not written, and there is no default-relay",
            "32 user.password-hash: is not an argon2 hash",
        ],
    );
}

#[test]
fn a_hash_that_takes_all_memory_is_refused() {
    let main = "default-relay = \"own\"\n[relays.own]\nserver = \"a.example\"\n";
    let user = "[[user]]\naddress = \"a@b.example\"\npassword-hash = \"$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG\"\n";
    refused(main, user, &["3 user.password-hash: takes over 1 GiB"]);
}

/// A directory with the two files, secret unless said otherwise.
struct Files(tempfile::TempDir);

impl Files {
    fn new(main: &str, users: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("penstock.toml", main, 0o640);
        files.write("users.toml", users, 0o640);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    fn refused(&self, expected: &str) {
        let error = load(&self.path("penstock.toml")).unwrap_err();
        let text = error.to_string().replace("\n  ", " ");
        assert!(text.contains(expected), "{error}");
    }
}

#[test]
fn files_with_secrets_must_be_secret() {
    let files = Files::new(WHOLE, USERS);
    load(&files.path("penstock.toml")).unwrap();
    for mode in [0o644, 0o660, 0o641, 0o604, 0o666] {
        files.write("penstock.toml", WHOLE, mode);
        files.refused("has secrets in it, and its mode is 06");
        files.refused("&& chmod 0640 /");
    }
    files.write("penstock.toml", WHOLE, 0o600);
    files.write("users.toml", USERS, 0o644);
    files.refused("users.toml has secrets in it, and its mode is 0644");
    // Without a secret the mode does not matter, nor do words that look like one.
    let open = "[relays.own]\nserver = \"a.example\"\nauth = \"none\"\n # password = \"x\"\n";
    files.write("penstock.toml", open, 0o644);
    files.write("users.toml", "", 0o644);
    load(&files.path("penstock.toml")).unwrap();
}

#[test]
fn a_password_comes_from_a_secret_file_beside_the_main_one() {
    let main = "[relays.own]\nserver = \"a.example\"\nusername = \"u\"\npassword-file = \"own.password\"\n";
    let files = Files::new(main, "");
    files.refused("relays.own.password-file cannot read /");
    files.refused("own.password: no such file or directory remedy: create it: install -m 0640");
    files.write("own.password", "secret word\n", 0o640);
    let loaded = load(&files.path("penstock.toml")).unwrap();
    let login = loaded.config.relays["own"].credentials.clone().unwrap();
    assert_eq!(login.password().unwrap().expose(), "secret word");
    files.write("own.password", "two\nlines\n", 0o640);
    files.refused("holds more than a password");
    files.write("own.password", "\n", 0o640);
    files.refused("has an empty password");
    files.write("own.password", "secret", 0o644);
    files.refused("has secrets in it, and its mode is 0644");
}

#[test]
fn missing_files_are_refused_with_what_to_do() {
    let files = Files::new("", "");
    fs::remove_file(files.path("users.toml")).unwrap();
    files.refused(
        "users.toml cannot read this file: no such file or directory remedy: create it, empty if",
    );
    fs::remove_file(files.path("penstock.toml")).unwrap();
    files.refused(
        "penstock.toml cannot read this file: no such file or directory remedy: create it",
    );
    fs::create_dir(files.path("penstock.toml")).unwrap();
    files.refused("it is not a file");
    let files = Files::new(
        "[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n[relays.own]\nserver = \"a.example:465\"\nca-file = \"/nowhere.pem\"\n",
        "",
    );
    files.write("tls.crt", "x", 0o644);
    files.write("tls.key", "x", 0o644);
    files.refused("relays.own.ca-file cannot read /nowhere.pem: no such file or directory");
    files.refused("tls.key has secrets in it, and its mode is 0644");
}

#[test]
fn surprises_are_warnings() {
    let warnings = |main: &str| -> Vec<String> {
        let files = Files::new(&format!("hostname = \"a.example\"\n{main}"), "");
        let checked = inspect(&files.path("penstock.toml")).unwrap();
        checked
            .warnings
            .iter()
            .map(|it| format!("{}: {} {}", it.key, it.what, it.remedy))
            .collect()
    };
    let found = warnings("[relays.own]\nserver = \"smtp.office365.com:587\"\nlogin = \"u p\"\n");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("limits = { preset = \"microsoft-365\" }"));
    assert!(found[1].contains("December 2026"));
    let found = warnings(
        "[relays.own]\nserver = \"[email-smtp.eu-west-1.amazonaws.com]:587\"\nlimits = { preset = \"amazon-ses\" }\n",
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    let found =
        warnings("[relays.own]\nserver = \"[192.0.2.1]\"\nlogin = \"u p\"\ntls = \"off\"\n");
    assert!(found[0].contains("in clear"), "{found:#?}");
    assert_eq!(
        warnings("[relays.own]\nserver = \"[127.0.0.1]\"\nlogin = \"u p\"\ntls = \"off\"\n").len(),
        0
    );
    assert!(warnings("")[0].contains("every message is refused"));
    let found = warnings("[[listen]]\naddress = \"[::1]:587\"\nauth = \"required\"\n");
    assert!(
        found[0].contains("no user has a password-hash"),
        "{found:#?}"
    );
    let found = warnings(
        "[relays.own]\nserver = \"a.example\"\nusername = \"u\"\npassword-credential = \"own\"\n",
    );
    assert!(found[0].contains("LoadCredential=own:PATH"), "{found:#?}");
}

#[test]
fn a_hint_is_known_by_its_name_and_only_the_content_can_refuse_mail() {
    let relay = "[relays.a]\nserver = \"[a.example]\"\n";
    refused(
        &format!(
            "[hints.no-subjct]\naction = \"hold\"\n[hints.spf-missing]\naction = \"reject\"\n\
             [hints.scripts]\naction = \"drop\"\n[hints.few-words]\nactoin = \"log\"\n{relay}"
        ),
        "",
        &[
            "1 hints.no-subjct: \"no-subjct\" is no hint | the nearest hint is no-subject",
            "4 hints.spf-missing.action: \"reject\" needs a hint that the message alone shows",
            "6 hints.scripts.action: \"drop\" is not one of",
            "8 hints.few-words.actoin: is not a known key",
        ],
    );
    let config = Config::parse(
        &format!(
            "[hints.scripts]\naction = \"reject\"\n[hints.few-words]\naction = \"off\"\n{relay}"
        ),
        "",
    )
    .unwrap();
    assert_eq!(config.hints.action(HintName::Scripts), HintAction::Reject);
    assert_eq!(config.hints.action(HintName::FewWords), HintAction::Off);
    assert_eq!(config.hints.action(HintName::NoSubject), HintAction::Log);
}

#[test]
fn the_status_page_stays_on_this_machine_once_it_is_built() {
    let read = |text: &str| match read_texts(text, "", &Place::default(), &[]) {
        Ok(checked) => (Some(checked.config), Vec::new()),
        Err(error) => (None, error.problems),
    };
    let (config, problems) = read(
        "[http]\nadmin = \"unix:/run/penstock/http.sock\"\nconfirm = \"127.0.0.1:8025\"\n\
         base-url = \"https://mail.example.nl/\"\n[hints]\ndnsbl = [\"bl.example.org\"]\n\
         [hints.no-subject]\naction = \"hold\"\n[relays.own]\nserver = \"a.example\"\nverify = true\n\
         sender = \"a@b.example\"\n",
    );
    assert!(problems.is_empty(), "{problems:?}");
    let config = config.unwrap();
    assert_eq!(
        config.http.base_url.as_deref(),
        Some("https://mail.example.nl")
    );
    assert_eq!(config.hints.action(HintName::NoSubject), HintAction::Hold);
    assert!(config.relays["own"].verify);
    for text in [
        "[http]\nadmin = \"0.0.0.0:80\"",
        "[http]\nadmin = \"unix:x\"",
        "[http]\nconfirm = \"127.0.0.1:8025\"\nbase-url = \"mail.example.nl\"",
        "[http]\nbase-url = \"https://mail.example.nl\"",
        "[http]\nconfirm = \"127.0.0.1:8025\"",
        "[hints]\nno-subject = \"hold\"",
        "[relays.own]\nserver = \"a.example\"\nverify = true",
    ] {
        assert_eq!(read(text).1.len(), 1, "{text}: {:?}", read(text).1);
    }
}

#[test]
fn a_relay_is_never_penstock_itself() {
    let circle = |listen: &str, server: &str| {
        let main = format!(
            "[[listen]]\naddress = \"{listen}\"\nallow-from = [\"10.0.0.0/8\"]\n[relays.own]\nserver = \"{server}\"\n"
        );
        problems(&main, "").len() == 1
    };
    assert!(circle("127.0.0.1:2525", "127.0.0.1:2525"));
    assert!(circle("0.0.0.0:2525", "[127.0.0.1]:2525"));
    assert!(circle("[::]:2525", "localhost:2525"));
    assert!(circle("[::ffff:127.0.0.1]:2525", "[127.0.0.1]:2525"));
    assert!(!circle("127.0.0.1:2525", "127.0.0.1:2526"));
    assert!(!circle("127.0.0.1:2525", "127.0.0.2:2525"));
    assert!(!circle("0.0.0.0:25", "192.0.2.1"));
}

#[test]
fn hosts_keep_their_notation() {
    let relay =
        relay("server = \"a.example\"\nfallback = [\"[b.example]\", \"192.0.2.1\"]").unwrap();
    assert!(matches!(relay.servers[0].host, Host::Mx(_)));
    assert!(matches!(relay.servers[1].host, Host::Name(_)));
    assert!(matches!(relay.servers[2].host, Host::Address(_)));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        place in 0..WHOLE.len(),
        length in 0..40_usize,
        junk in "\\PC{0,12}|[\\[\\]={}\",.#\n a-z0-9]{0,24}",
    ) {
        let mut text = WHOLE.to_owned();
        let end = (place + length).min(text.len());
        text.replace_range(place..end, &junk);
        if let Err(error) = Config::parse(&text, USERS) {
            proptest::prop_assert!(!error.problems.is_empty());
        }
        Config::parse(WHOLE, &text).ok();
    }
}

/// A relay that takes tokens, and its table oauth.
fn with_tokens(relay: &str, oauth: &str) -> String {
    format!(
        "[relays.a]\nserver = \"[a.example]:587\"\n{relay}\n[relays.a.oauth]\nclient-id = \"app\"\n{oauth}\n"
    )
}

#[test]
fn a_provider_fills_in_what_is_the_same_for_everybody() {
    let read = |oauth: &str| {
        let text = with_tokens("username = \"m@a.example\"", oauth);
        let config = parse(&text, "");
        let relay = &config.relays["a"];
        assert_eq!(relay.auth, AuthMethod::XOauth2);
        assert_eq!(relay.servers[0].tls, RelayTls::Required);
        relay.credentials.as_ref().unwrap().oauth().unwrap().clone()
    };
    let it = read("provider = \"microsoft\"");
    assert_eq!(
        it.token_url.to_string(),
        "https://login.microsoftonline.com/common/oauth2/v2.0/token"
    );
    assert!(it.device_url.is_some() && it.scope.ends_with(" offline_access"));
    let it = read(
        "provider = \"microsoft\"\ntenant = \"example.nl\"\ngrant = \"client-credentials\"\n\
         client-secret = \"s\"",
    );
    assert!(it.token_url.path().starts_with("/example.nl/"));
    assert_eq!(
        (it.device_url, it.scope.as_str()),
        (None, "https://outlook.office365.com/.default")
    );
    let it = read("provider = \"google\"\nclient-secret = \"s\"");
    assert_eq!(it.device_url, None);
    let it = read("provider = \"google\"\ntoken-url = \"https://b.example/t\"\nscope = \"x\"");
    assert_eq!((it.token_url.host(), it.scope.as_str()), ("b.example", "x"));
}

#[test]
fn what_tokens_cannot_do_without_or_beside_is_refused_by_its_key() {
    let named = "username = \"m@a.example\"";
    for (relay, oauth, expected) in [
        (
            "",
            "provider = \"google\"",
            "1 relays.a.username: is missing",
        ),
        (
            "login = \"m@a.example secret\"",
            "provider = \"google\"",
            "3 relays.a.login: stands beside [oauth]",
        ),
        (
            "username = \"m\"\npassword = \"x\"",
            "provider = \"google\"",
            "4 relays.a.password: stands beside [oauth]",
        ),
        (
            "username = \"m\"\nauth = \"plain\"",
            "provider = \"google\"",
            "4 relays.a.auth: stands beside [oauth]",
        ),
        (
            named,
            "",
            "4 relays.a.oauth.token-url: is missing, and so is provider",
        ),
        (
            named,
            "provider = \"gogle\"",
            "6 relays.a.oauth.provider: \"gogle\"",
        ),
        (
            named,
            "token-url = \"http://login.example/t\"",
            "6 relays.a.oauth.token-url: \"http://login.example/t\": would send tokens in clear",
        ),
        (
            named,
            "provider = \"google\"\ntenant = \"x\"",
            "7 relays.a.oauth.tenant: is a notion of Microsoft",
        ),
        (
            named,
            "provider = \"microsoft\"\ntenant = \"../x\"",
            "7 relays.a.oauth.tenant: \"../x\": is not a tenant",
        ),
        (
            named,
            "provider = \"microsoft\"\ngrant = \"client-credentials\"\nclient-secret = \"s\"",
            "4 relays.a.oauth.tenant: must be the organisation's own",
        ),
        (
            named,
            "provider = \"microsoft\"\ntenant = \"x\"\ngrant = \"client-credentials\"",
            "8 relays.a.oauth.grant: \"client-credentials\" needs the secret",
        ),
        (
            named,
            "provider = \"google\"\ngrant = \"client-credentials\"\nclient-secret = \"s\"",
            "7 relays.a.oauth.grant: \"client-credentials\" is nothing that Google has",
        ),
        (
            named,
            "provider = \"google\"\nclient-secret = \"s\"\nclient-secret-file = \"f\"",
            "8 relays.a.oauth.client-secret-file: stands beside client-secret",
        ),
    ] {
        refused(&with_tokens(relay, oauth), "", &[expected]);
    }
    refused(
        "[relays.a]\nserver = \"[a.example]\"\nusername = \"m\"\nauth = \"xoauth2\"\n",
        "",
        &[
            "4 relays.a.auth: \"xoauth2\" needs to know who gives the tokens | write [relays.a.oauth]",
        ],
    );
}
