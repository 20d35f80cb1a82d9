//! Names, addresses, and the next server.

use super::*;

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_as_they_are_written() {
    let fake = Fake::start(Script::offering(ALL)).await;
    let port = fake.address.port();
    let name = |it: &str| Domain::parse(it).unwrap();
    let zone = Zone::default()
        .mx("mail.example", 10, "mx1.example")
        .mx("mail.example", 20, "mx2.example")
        // Nobody listens on the first.
        .address("mx1.example", "127.0.0.99")
        .address("mx2.example", "127.0.0.1")
        .address("mail.example", "127.0.0.98")
        .address("plain.example", "127.0.0.1")
        .mx("null.example", 0, ".")
        .mx("lost.example", 0, "gone.example")
        .trouble("slow.example");
    let pool = pool_with(zone);
    let outcome = async |host: Host| {
        let mut relay = relay(&fake);
        relay.servers = vec![Server {
            host,
            port,
            tls: RelayTls::Opportunistic,
        }];
        pool.deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
            .await
    };
    let found = outcome(Host::Mx(name("mail.example"))).await;
    assert!(
        found.server.starts_with("mx2.example [127.0.0.1]:"),
        "{}",
        found.server
    );
    let found = outcome(Host::Mx(name("plain.example"))).await;
    assert!(
        found.server.starts_with("plain.example ["),
        "{}",
        found.server
    );
    let found = outcome(Host::Name(name("mail.example"))).await;
    assert!(
        matches!(error(&found, 0), RelayError::Connect { .. }),
        "no MX for brackets"
    );
    for (host, temporary) in [
        ("null.example", false),
        ("lost.example", false),
        ("none.example", false),
        ("slow.example", true),
    ] {
        let found = outcome(Host::Mx(name(host))).await;
        assert_eq!(
            matches!(error(&found, 0), RelayError::Dns { .. }),
            temporary,
            "{host}"
        );
        assert_eq!(error(&found, 0).severity(), Severity::Relay);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_server_is_tried_when_one_cannot_be_reached() {
    let busy = Fake::start(Script::default().at("GREETING", Act::Say("554 5.3.2 not today"))).await;
    let good = Fake::start(Script::offering(ALL)).await;
    let mut relay = relay(&busy);
    let mut nobody = relay.servers[0].clone();
    nobody.host = Host::Address("127.0.0.97".parse().unwrap());
    relay.servers = vec![
        nobody,
        server(&busy, RelayTls::Off),
        server(&good, RelayTls::Off),
    ];
    let pool = pool();
    let delivery = pool
        .deliver(&job(
            relay.clone(),
            envelope(&["a@x.example"], MESSAGE),
            MESSAGE,
        ))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    relay.servers.pop();
    let delivery = pool
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    assert!(matches!(
        error(&delivery, 0),
        RelayError::Refused {
            stage: Stage::Greeting,
            ..
        }
    ));
}
