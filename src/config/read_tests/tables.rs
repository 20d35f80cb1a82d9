use super::*;
use crate::config::{
    AuthMethod, BareLf, HintAction, HintName, LimitSource, ListenerAuth, Preset, RelayTls,
    ReversePathRule, UserAddress,
};
use std::time::Duration;

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
        (
            "\"127.0.0.1:25\"\n[[listen]]\naddress = \"0.0.0.0:25\"\nallow-from = [\"10.1.0.0/16\"]",
            "4 listen.address: 0.0.0.0:25 and 127.0.0.1:25 are the same port",
        ),
        (
            "\"[::]:25\"\nallow-from = [\"10.1.0.0/16\"]\n[[listen]]\naddress = \"[::1]:25\"",
            "5 listen.address: [::1]:25 and [::]:25 are the same port",
        ),
        (
            "\"127.0.0.1:25\"\n[http]\nadmin = \"127.0.0.1:25\"",
            "4 http.admin: 127.0.0.1:25 is the port of a [[listen]], 127.0.0.1:25",
        ),
        (
            "\"127.0.0.1:25\"\n[http]\nconfirm = \"[::]:25\"\nbase-url = \"https://a.example\"",
            "4 http.confirm: [::]:25 is the port of a [[listen]], 127.0.0.1:25",
        ),
        (
            "\"127.0.0.1:25\"\n[http]\nadmin = \"127.0.0.1:80\"\nconfirm = \"0.0.0.0:80\"\nbase-url = \"https://a.example\"",
            "5 http.confirm: 0.0.0.0:80 is the port of http.admin, 127.0.0.1:80",
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
