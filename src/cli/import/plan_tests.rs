use std::fs;
use std::path::Path;

use super::super::{Draft, write_into};
use super::*;
use crate::config::{Config, RelayTls};

struct Postfix(tempfile::TempDir);

impl Postfix {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn plan(&self) -> Plan {
        plan(&MainFile::open(self.0.path()).unwrap(), &BTreeSet::new())
    }
}

/// The plan as a configuration, checked.
fn written(plan: &mut Plan) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let mut draft = Draft::open(&directory.path().join("penstock.toml")).unwrap();
    write_into(&mut draft, plan).unwrap();
    draft
        .check()
        .unwrap_or_else(|error| panic!("{error}"))
        .config
}

const MAIN: &str = "\
# See /usr/share/postfix/main.cf.dist for a commented, more complete version
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
compatibility_level = 3.6
myhostname = app01.uwdomein.nl
mydestination = $myhostname, localhost
relayhost = [mail.carerix.net]:submission
mynetworks = 127.0.0.0/8 10.1.0.0/16
message_size_limit = 52428800
maximal_queue_lifetime = 3

# per sender
smtp_sender_dependent_authentication = yes
sender_dependent_relayhost_maps = hash:/etc/postfix/sender_relay
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd
smtp_sasl_security_options = noanonymous
smtp_tls_security_level = may
smtp_tls_policy_maps = texthash:/etc/postfix/tls_policy
smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt
smtp_destination_rate_delay = 1s
smtp_destination_concurrency_limit = 4
";

const SENDER_RELAY: &str = "\
# sender                 relay
jan@uwdomein.nl          [smtp.office365.com]:587
piet@uwdomein.nl         [smtp.office365.com]:587
@uwdomein.nl             smtp.uwdomein.nl:465
boss@uwdomein.nl         DUNNO
info@ander.nl            [2001:db8::1]:2525
";

const SASL_PASSWD: &str = "\
jan@uwdomein.nl            jan@uwdomein.nl:geheim:met:dubbelepunt
piet@uwdomein.nl           piet@uwdomein.nl:anders
smtp.uwdomein.nl           mailer:wachtwoord
[mail.carerix.net]:submission  carerix:sesam
klaas@uwdomein.nl          klaas:klaas
";

#[test]
fn a_login_that_nothing_uses_is_told_without_its_password() {
    let postfix = Postfix::new(&[
        (
            "main.cf",
            "relayhost = [a.example]:587\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd\n",
        ),
        (
            "sasl_passwd",
            "[a.example]:587 u:geheim\n[Old.example]:587 old:geheim\n",
        ),
    ]);
    let left = postfix.plan().left;
    let about: Vec<&String> = left.iter().filter(|it| it.contains("login of")).collect();
    assert_eq!(about.len(), 1, "{left:?}");
    assert!(
        about[0].starts_with("the login of [old.example]:587 in smtp_sasl"),
        "{left:?}"
    );
    assert!(!left.iter().any(|it| it.contains("geheim")));
}

#[test]
fn a_postfix_with_a_relay_and_a_login_for_each_sender_is_understood() {
    let postfix = Postfix::new(&[
        ("main.cf", MAIN),
        ("sender_relay", SENDER_RELAY),
        ("sasl_passwd", SASL_PASSWD),
        ("tls_policy", "[2001:db8::1]:2525 secure match=nexthop\n"),
    ]);
    let mut plan = postfix.plan();
    assert_eq!(plan.default_relay.as_deref(), Some("carerix"));
    let names: Vec<&str> = plan.relays.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "carerix",
            "office365",
            "office365-piet",
            "uwdomein",
            "2001.db8..1",
            "carerix-klaas"
        ]
    );
    let config = written(&mut plan);
    assert_eq!(config.hostname, "app01.uwdomein.nl");
    assert_eq!(config.message.max_size_bytes, 52_428_800);
    assert_eq!(config.retry.expire_after.as_secs(), 3 * 86_400);

    let login = |name: &str| {
        let login = config.relays[name].credentials.clone().unwrap();
        let password = login.password().unwrap().expose().to_owned();
        (login.username, password)
    };
    assert_eq!(login("carerix"), ("carerix".into(), "sesam".into()));
    assert_eq!(
        login("office365"),
        ("jan@uwdomein.nl".into(), "geheim:met:dubbelepunt".into())
    );
    assert_eq!(
        login("office365-piet"),
        ("piet@uwdomein.nl".into(), "anders".into())
    );
    assert_eq!(login("uwdomein"), ("mailer".into(), "wachtwoord".into()));
    assert_eq!(login("carerix-klaas"), ("klaas".into(), "klaas".into()));

    let office = &config.relays["office365"];
    assert_eq!(office.limits.preset, Preset::Microsoft365);
    assert_eq!(office.limits.connections, 4);
    assert_eq!(office.limits.min_interval.as_secs(), 1);
    assert_eq!(config.relays["uwdomein"].servers[0].tls, RelayTls::Implicit);
    let other = &config.relays["2001.db8..1"];
    assert_eq!(
        (other.servers[0].tls, other.credentials.is_none()),
        (RelayTls::Required, true)
    );

    let relay = |address: &str| {
        let user = config.users.iter().find(|it| match &it.address {
            crate::config::UserAddress::Mailbox(it) => it.to_string() == address,
            crate::config::UserAddress::Domain(it) => format!("@{it}") == address,
        });
        user.unwrap().relay.clone()
    };
    assert_eq!(relay("@uwdomein.nl").as_deref(), Some("uwdomein"));
    assert_eq!(relay("boss@uwdomein.nl"), None);
    assert_eq!(relay("klaas@uwdomein.nl").as_deref(), Some("carerix-klaas"));
    assert_eq!(config.users.len(), 6);

    assert!(
        plan.left.iter().any(|it| it.starts_with("mynetworks: ")),
        "{:#?}",
        plan.left
    );
    let said = format!("{:?}{:?}", plan.understood, plan.left);
    for secret in ["sesam", "geheim", "wachtwoord"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn a_simple_smarthost_becomes_the_default_relay() {
    let mut plan = Postfix::new(&[
        (
            "main.cf",
            "relayhost = [smtp.example.nl]:587\nsmtp_sasl_auth_enable = yes\n\
             smtp_sasl_password_maps = lmdb:/etc/postfix/sasl/sasl_passwd\nsmtp_tls_security_level = encrypt\n",
        ),
        ("sasl_passwd", "[smtp.example.nl]:587 user@example.nl:secret\n"),
    ])
    .plan();
    assert_eq!(
        plan.understood,
        ["relayhost [smtp.example.nl]:587: default-relay example"]
    );
    let config = written(&mut plan);
    assert_eq!(config.default_relay.as_deref(), Some("example"));
    assert_eq!(
        config.relays["example"].servers[0].to_string(),
        "[smtp.example.nl]:587"
    );
    assert!(config.users.is_empty());
}

#[test]
fn the_next_hop_of_default_transport_counts_more_than_relayhost_and_the_senders() {
    let with = |transport: &str| {
        Postfix::new(&[
            (
                "main.cf",
                &format!(
                    "default_transport = {transport}\nrelayhost = [unused.example]:587\n\
                     sender_dependent_relayhost_maps = hash:/etc/postfix/senders\n\
                     smtp_sasl_auth_enable = yes\n\
                     smtp_sasl_password_maps = hash:/etc/postfix/sasl\n"
                ),
            ),
            ("senders", "jan@example.nl [sender.example]:587\n"),
            ("sasl", "[real.example]:587 u:p\n"),
        ])
        .plan()
    };
    let mut plan = with("smtp:[real.example]:587");
    assert_eq!(
        plan.understood,
        ["default_transport [real.example]:587: default-relay real"]
    );
    assert_eq!((plan.relays.len(), plan.users.len()), (1, 0));
    for expected in [
        "relayhost: not taken",
        "sender_dependent_relayhost_maps: not",
    ] {
        let said = plan.left.iter().any(|it| it.starts_with(expected));
        assert!(said, "{:#?}", plan.left);
    }
    let config = written(&mut plan);
    assert!(config.relays["real"].credentials.is_some());
    // A sender's own login counts there, too.
    let plan = Postfix::new(&[
        (
            "main.cf",
            "default_transport = smtp:[real.example]:587\nsmtp_sasl_auth_enable = yes\n\
             smtp_sender_dependent_authentication = yes\n\
             smtp_sasl_password_maps = hash:/etc/postfix/sasl\n",
        ),
        ("sasl", "[real.example]:587 u:p\njan@example.nl jan:q\n"),
    ])
    .plan();
    let jan = ("jan@example.nl".to_owned(), Some("real-jan".to_owned()));
    assert_eq!(plan.users, [jan]);
    // Without one they count.
    for transport in ["smtp", "relay:", "out:"] {
        let plan = with(transport);
        assert_eq!(plan.default_relay.as_deref(), Some("unused"), "{transport}");
        assert_eq!(plan.users.len(), 1);
        let told = plan
            .left
            .iter()
            .any(|it| it.starts_with("default_transport out: a"));
        assert_eq!(told, transport == "out:");
    }
    let plan = with("error:no mail from here");
    assert_eq!((plan.relays.len(), plan.users.len()), (0, 0));
    assert!(plan.left[0].starts_with("default_transport error: "));
}

#[test]
fn what_decides_beside_main_cf_is_said_without_its_values() {
    let plan = Postfix::new(&[
        (
            "main.cf",
            "relayhost = [a.example]:587\nmasquerade_domains = example.nl\n\
             body_checks = pcre:/x\nrelay_domains = b.example\nsmtp_bind_address 192.0.2.1\n",
        ),
        (
            "master.cf",
            "smtp unix - - y - - smtp\n  -o smtp_sasl_password_maps=static:u:geheim\n",
        ),
    ])
    .plan();
    for expected in [
        "masquerade_domains: ",
        "body_checks: ",
        "relay_domains: ",
        "master.cf, smtp unix: has its own smtp_sasl_password_maps (-o)",
        "main.cf, the line that begins with smtp_bind_address: ",
    ] {
        let said = plan.left.iter().any(|it| it.starts_with(expected));
        assert!(said, "{expected}: {:#?}", plan.left);
    }
    assert!(
        !plan
            .left
            .iter()
            .any(|it| it.contains("geheim") || it.contains("192.0.2.1"))
    );
}

#[test]
fn what_cannot_be_taken_over_is_said() {
    let plan = Postfix::new(&[
        (
            "main.cf",
            "sender_dependent_relayhost_maps = pcre:/etc/postfix/relay, hash:/etc/postfix/senders\n\
             smtp_sasl_password_maps = mysql:/etc/postfix/sql.cf hash:/etc/postfix/passwd\n\
             transport_maps = hash:/etc/postfix/transport\nsender_dependent_default_transport_maps = hash:/x\n",
        ),
        ("senders", "a@b.example  smtp.example.nl:smtp:x\nlocal [smtp.example.nl]\n"),
        ("passwd", "x@b.example u:p\n"),
    ])
    .plan();
    assert_eq!(plan.relays, []);
    for (place, expected) in [
        "pcre:/etc/postfix/relay of sender_dependent_relayhost_maps",
        "mysql:/etc/postfix/sql.cf",
        "smtp_sasl_auth_enable is not yes",
        "relayhost is empty",
        "a@b.example: smtp.example.nl:smtp:x has no valid port",
        "sender local: neither an address nor a @domain",
        "the login of x@b.example",
        "transport_maps: Penstock chooses",
        "sender_dependent_default_transport_maps: not read",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(
            plan.left[place].starts_with(expected),
            "{place}: {:#?}",
            plan.left
        );
    }
    assert!(MainFile::open(Path::new("/nowhere")).is_err());
}

#[test]
fn times_have_the_units_of_postfix() {
    assert_eq!(
        (seconds("90"), seconds("2h"), seconds("x")),
        (Some(90), Some(7_200), None)
    );
}
