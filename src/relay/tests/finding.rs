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
async fn an_address_that_costs_time_is_tried_last_for_some_minutes() {
    let good = Fake::start(Script::offering(ALL)).await;
    let port = good.address.port();
    // It takes the connection, and says nothing.
    let _silent = tokio::net::TcpListener::bind(("127.0.0.5", port))
        .await
        .unwrap();
    let zone = Zone::default()
        .address("two.example", "127.0.0.5")
        .address("two.example", "127.0.0.1");
    let by_address = vec![Server {
        host: Host::Name(Domain::parse("two.example").unwrap()),
        port,
        tls: RelayTls::Off,
    }];
    let by_server = ["127.0.0.5", "127.0.0.1"].map(|it| Server {
        host: Host::Address(it.parse().unwrap()),
        port,
        tls: RelayTls::Off,
    });
    for servers in [by_address, by_server.to_vec()] {
        let pool = pool_with(zone.clone());
        let mut relay = relay(&good);
        relay.servers = servers;
        let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
        let mut took = Vec::new();
        for wait in [0, 100, 301] {
            tokio::time::sleep(Duration::from_secs(wait)).await;
            let started = tokio::time::Instant::now();
            assert_eq!(code(&pool.deliver(&job).await, 0), 250);
            took.push(started.elapsed().as_secs());
            pool.close().await;
        }
        assert_eq!(took, [30, 0, 30]);
        tokio::time::sleep(Duration::from_secs(301)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_a_fallback_server_lacks_is_not_the_relays_last_word() {
    let away = Fake::start(Script::default().at("GREETING", Act::Say("421 not now"))).await;
    let poor = Fake::start(Script::offering(&["SIZE 20"])).await;
    let mut relay = relay(&away);
    relay.servers.push(server(&poor, RelayTls::Off));
    let mut wishes = envelope(&["jürgen@x.example"], MESSAGE);
    let pool = pool();
    let delivery = pool
        .deliver(&job(relay.clone(), wishes.clone(), MESSAGE))
        .await;
    let found = error(&delivery, 0);
    assert_eq!(found.severity(), Severity::Transient, "{found}");
    assert!(found.to_string().contains("a fallback server"), "{found}");
    wishes.size_bytes = 5;
    let delivery = pool
        .deliver(&job(relay.clone(), wishes.clone(), b"a\r\nb\r\n"))
        .await;
    let found = error(&delivery, 0);
    assert!(matches!(found, RelayError::NotHere { .. }), "{found}");
    assert!(found.to_string().contains("SMTPUTF8"), "{found}");
    // Said by the relay's own, it is.
    relay.servers.remove(0);
    let delivery = pool.deliver(&job(relay, wishes, b"a\r\nb\r\n")).await;
    assert_eq!(error(&delivery, 0).severity(), Severity::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_message_fails_only_when_all_equal_mail_servers_lack_what_it_needs() {
    let lacking = Fake::start(Script::default()).await;
    let port = lacking.address.port();
    // The same port on another address, which offers it, or not.
    for offers in [true, false] {
        let other = tokio::net::TcpListener::bind(("127.0.0.6", port))
            .await
            .unwrap();
        let serve = async {
            loop {
                let (mut stream, _) = other.accept().await.unwrap();
                stream.write_all(b"220 x\r\n").await.unwrap();
                let mut heard = [0; 1_000];
                while let Ok(1..) = stream.read(&mut heard).await {
                    let ehlo: &[u8] = match offers {
                        true => b"250-x\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n",
                        false => b"250 x\r\n",
                    };
                    let reply: &[u8] = match &heard[..4] {
                        b"EHLO" => ehlo,
                        b"DATA" => b"354 go\r\n",
                        _ => b"250 ok\r\n",
                    };
                    stream.write_all(reply).await.unwrap();
                }
            }
        };
        let zone = Zone::default()
            .mx("mail.example", 10, "one.example")
            .mx("mail.example", 10, "two.example")
            .mx("mail.example", 20, "three.example")
            .address("one.example", "127.0.0.1")
            .address("two.example", "127.0.0.6")
            .address("three.example", "127.0.0.7");
        let mut relay = relay(&lacking);
        relay.servers[0].host = Host::Mx(Domain::parse("mail.example").unwrap());
        let message = b"x: y\r\n";
        let job = job(relay, envelope(&["jürgen@x.example"], message), message);
        let pool = pool_with(zone);
        let deliver = async {
            for _ in 0..100 {
                let delivery = pool.deliver(&job).await;
                pool.close().await;
                match delivery.attempts[0].result.clone() {
                    Ok(_) => return true,
                    Err(RelayError::NotHere { .. }) => {}
                    Err(error) => {
                        assert_eq!(error.severity(), Severity::Permanent, "{error}");
                        return false;
                    }
                }
            }
            panic!("a hundred throws of a coin");
        };
        let delivered = tokio::select! {
            delivered = deliver => delivered,
            () = serve => unreachable!(),
        };
        assert_eq!(delivered, offers);
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
