use super::*;
use crate::config::{Host, Preset, RelayTls};
use std::time::Duration;

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
