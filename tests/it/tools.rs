//! The tools themselves: a fake that lies would let everything pass.

use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::certificates::Authority;
use crate::client::{Client, message, stuff};
use crate::dns::Zone;
use crate::relay::{Answer, FakeRelay, Tls, without_trace};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_fake_relay_remembers_what_an_independent_client_sent() {
    use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
    let relay = FakeRelay::default().tls(Tls::Off).start().await;
    let mail = Message::builder()
        .from("Jan <jan@uwdomein.nl>".parse().unwrap())
        .to("bob@example.net".parse().unwrap())
        .subject("hello")
        .body(".a line with a dot\r\n".to_owned())
        .unwrap();
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(relay.addr.port())
        .build();
    transport.send(mail.clone()).await.unwrap();
    let got = relay.received(1, SOON).await.remove(0);
    assert_eq!(got.reverse_path(), "jan@uwdomein.nl");
    assert_eq!(got.forward_paths(), ["bob@example.net"]);
    assert!(got.text().contains("\r\n\r\n.a line"), "{}", got.text());
    assert!(got.wire.windows(8).any(|it| it == b"\r\n\r\n..a "));
    assert!(got.accepted() && !got.tls);
}

#[tokio::test]
async fn the_fake_relay_speaks_tls_both_ways_and_records_every_kind_of_login() {
    let authority = Authority::new();
    for tls in [Tls::Command, Tls::Implicit] {
        let relay = FakeRelay::default()
            .tls(tls)
            .certificate(authority.sign(&["localhost"]))
            .login("jan", "geheim")
            .start()
            .await;
        let mut client = match tls {
            Tls::Implicit => Client::connect_tls(relay.addr, authority.client()).await,
            _ => {
                let mut it = Client::connect(relay.addr).await;
                it.start_tls(authority.client()).await;
                it
            }
        };
        client.command("MAIL FROM:<a@b.nl>").await.expect_code(530);
        client.auth_plain("jan", "wrong").await.expect_code(535);
        client.auth_login("jan", "geheim").await.expect_code(235);
        client
            .submit("a@b.nl", &["c@d.nl", "e@f.nl"], b"x\r\n.y\r\n")
            .await
            .expect_code(250);
        let got = relay.only();
        assert_eq!(got.login.as_deref(), Some("jan"));
        assert_eq!(got.content, b"x\r\n.y\r\n");
        assert_eq!(got.wire, b"x\r\n..y\r\n.\r\n");
        let logins: Vec<bool> = relay.logins().iter().map(|it| it.accepted).collect();
        assert_eq!(logins, [false, true]);
        assert_eq!(relay.offences(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_fake_relay_checks_cram_md5_as_rfc_2195_has_it() {
    use base64::Engine;
    let relay = FakeRelay::default()
        .tls(Tls::Off)
        .login("tim", "tanstaaf")
        .start()
        .await;
    let mut client = Client::connect(relay.addr).await;
    let asked = client.command("AUTH CRAM-MD5").await.expect_code(334);
    let base64 = base64::engine::general_purpose::STANDARD;
    let challenge = base64.decode(asked.text()).unwrap();
    let digest = {
        use hmac::{KeyInit, Mac};
        let mut mac = hmac::Hmac::<md5::Md5>::new_from_slice(b"tanstaaf").unwrap();
        mac.update(&challenge);
        mac.finalize().into_bytes()
    };
    let hex: String = digest.iter().map(|it| format!("{it:02x}")).collect();
    let response = base64.encode(format!("tim {hex}"));
    client.command(&response).await.expect_code(235);
}

#[tokio::test(start_paused = true)]
async fn the_fake_relay_answers_as_the_script_says_and_then_as_usual() {
    let relay = FakeRelay::default()
        .tls(Tls::Off)
        .answering_once("RCPT TO:<bob@", "450 4.7.1 greylisted")
        .answering_once("DATA", Answer::from("451 4.3.0 later").after(SOON))
        .answering_after(1, ".", Answer::Close)
        .start()
        .await;
    let mut client = Client::connect(relay.addr).await;
    let mail = message("a@b.nl", "bob@d.nl", "x", "y");
    client
        .submit("a@b.nl", &["ann@d.nl", "bob@d.nl"], &mail)
        .await
        .expect_code(450);
    let before = tokio::time::Instant::now();
    client
        .submit("a@b.nl", &["bob@d.nl"], &mail)
        .await
        .expect_code(451);
    assert!(before.elapsed() >= SOON);
    client
        .submit("a@b.nl", &["bob@d.nl"], &mail)
        .await
        .expect_code(250);
    client
        .try_submit("a@b.nl", &["bob@d.nl"], &mail)
        .await
        .unwrap_err();
    assert_eq!(relay.attempts_after_minutes(), [0, 0, 0, 0]);
    assert_eq!(relay.count(), 2);
    assert_eq!(relay.accepted().len(), 1);
}

#[tokio::test]
async fn the_fake_relay_takes_bdat_and_hangs_up_when_told() {
    let relay = FakeRelay::default().tls(Tls::Off).start().await;
    let mut client = Client::connect(relay.addr).await;
    client
        .send(b"MAIL FROM:<a@b.nl>\r\nRCPT TO:<c@d.nl>\r\nBDAT 3\r\n.a\rBDAT 3 LAST\r\n\n.b")
        .await;
    for _ in 0..4 {
        client.reply().await.expect_code(250);
    }
    assert_eq!(relay.only().content, b".a\r\n.b");
    relay.hang_up();
    client.try_reply().await.unwrap_err();
    assert_eq!(relay.most_connections(), 1);
}

#[tokio::test]
async fn an_endless_reply_is_really_sent() {
    let relay = FakeRelay::default()
        .tls(Tls::Off)
        .answering("EHLO", Answer::endless(250, 1000))
        .start()
        .await;
    let mut client = Client::dial(relay.addr).await.unwrap();
    client.reply().await.expect_code(220);
    client.send(b"EHLO x\r\nNOOP\r\n").await;
    let answer = client.reply().await;
    assert_eq!(answer.lines.len(), 1001);
}

#[tokio::test]
async fn the_dns_authority_answers_a_real_resolver() {
    let server = Zone::default()
        .mx("example.nl", 10, "mail.example.nl")
        .address("mail.example.nl", "192.0.2.1")
        .txt("example.nl", "v=spf1 -all")
        .start()
        .await;
    let mut name_server = NameServerConfig::udp_and_tcp(server.address.ip());
    for connection in &mut name_server.connections {
        connection.port = server.address.port();
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
    let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        .build()
        .unwrap();
    let mx = resolver.mx_lookup("example.nl.").await.unwrap();
    assert!(format!("{mx:?}").contains("mail"), "{mx:?}");
    let txt = resolver.txt_lookup("example.nl.").await.unwrap();
    assert_eq!(txt.answers()[0].data.to_string(), "v=spf1 -all");
    assert!(resolver.lookup_ip("nowhere.example.nl.").await.is_err());
}

#[test]
fn trace_fields_come_off_the_top_and_nothing_else_does() {
    let content = b"Received: from a\r\n\tby b\r\nReceived: c\r\nFrom: x\r\nReceived: old\r\n\r\nReceived: body\r\n";
    assert_eq!(
        without_trace(content),
        b"From: x\r\nReceived: old\r\n\r\nReceived: body\r\n"
    );
    assert_eq!(stuff(b".a\r\n..b"), b"..a\r\n...b\r\n.\r\n");
}
