//! The confirmation page, spoken to over its real listener: a GET confirms nothing, the
//! button does, nothing else is there, and strangers cannot wear it out.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Harness, relay};
use crate::relay::{FakeRelay, Relay};
use crate::verifying::received;

const SOON: Duration = Duration::from_secs(30);

fn config(own: &Relay) -> String {
    format!(
        "default-relay = \"own\"\n[http]\nconfirm = \"127.0.0.1:0\"\n\
         base-url = \"https://mail.example.nl\"\n{}",
        relay("own", own, "sender = \"mailer@uwdomein.nl\"\nverify = true")
    )
}

/// Sends octets and reads until the server closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that has heard enough may reset the connection.
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "no end: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status and all of the answer.
async fn http(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let answer = raw(
        address,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
    )
    .await;
    let status = answer.get(9..12).and_then(|it| it.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer}")), answer)
}

#[tokio::test]
async fn a_get_confirms_nothing_and_the_button_confirms_at_once() {
    let own = FakeRelay::default().start().await;
    let penstock = Harness::start(&config(&own), "").await;
    let token = received(&own, 1).await;
    let text = own.transactions()[0].text();
    let path = format!("/confirm/{token}");
    assert!(
        text.contains(&format!("https://mail.example.nl{path}\r\n")),
        "{text}"
    );
    let page = penstock.confirm_address();
    for method in ["GET", "HEAD", "GET"] {
        let (status, answer) = http(page, method, &path).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(penstock.relay("own").await["state"], "unverified");
    }
    let (_, answer) = http(page, "GET", &path).await;
    let lower = answer.to_lowercase();
    for header in [
        "cache-control: no-store",
        "referrer-policy: no-referrer",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "frame-ancestors 'none'",
        "default-src 'none'",
        "form-action 'self'",
    ] {
        assert!(lower.contains(header), "{header}: {answer}");
    }
    assert!(answer.contains("<form method=post>"), "{answer}");
    assert!(answer.contains("mailer@uwdomein.nl"), "{answer}");
    assert!(!lower.contains("<script"), "{answer}");
    assert!(
        !answer.contains(&token),
        "the page does not repeat the secret"
    );

    let (status, answer) = http(page, "POST", &path).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("The relay own is active"), "{answer}");
    assert_eq!(penstock.relay("own").await["state"], "active");
    assert_eq!(
        penstock.relay("own").await["verification"]["by"],
        "the confirmation page"
    );
    for method in ["GET", "POST"] {
        let (status, answer) = http(page, method, &path).await;
        assert_eq!(status, 410, "{answer}");
        assert!(answer.contains("is confirmed already"), "{answer}");
    }
}

#[tokio::test]
async fn a_wrong_token_says_so_and_the_listener_serves_nothing_else() {
    let own = FakeRelay::default().start().await;
    let penstock = Harness::start(&config(&own), "").await;
    let page = penstock.confirm_address();
    let wrong = format!("/confirm/{}", "0".repeat(40));
    for (method, path) in [
        ("GET", wrong.as_str()),
        ("POST", &wrong),
        ("GET", "/confirm/x"),
        ("POST", "/confirm/%00%ff<script>"),
    ] {
        let (status, answer) = http(page, method, path).await;
        assert!(status == 404 || status == 400, "{path}: {answer}");
        assert!(!answer.contains("<script>"), "{answer}");
    }
    let (_, answer) = http(page, "GET", &wrong).await;
    assert!(answer.contains("this token is not known"), "{answer}");
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/status",
        "/confirm",
        "/confirm/",
        "/../confirm",
        "/confirm/a/b",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            let (status, answer) = http(page, method, path).await;
            assert!(status >= 400, "{method} {path}: {answer}");
            assert!(!answer.contains("penstock_"), "{path}: {answer}");
        }
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        let path = format!("/confirm/{}", received(&own, 1).await);
        assert!(http(page, method, &path).await.0 >= 400);
    }
    assert_eq!(penstock.relay("own").await["state"], "unverified");
}

#[tokio::test(start_paused = true)]
async fn endless_requests_end_and_idle_visitors_do_not_keep_others_out() {
    let own = FakeRelay::default().start().await;
    let penstock = Harness::start(&config(&own), "").await;
    let page = penstock.confirm_address();
    // Far more than a request may have, in each place where there could be more.
    let long = "x".repeat(200_000);
    for request in [
        format!("GET /{long}"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}"),
        format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(40_000)),
        format!("POST /confirm/a HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n{long}"),
    ] {
        let mut stream = TcpStream::connect(page).await.unwrap();
        stream.write_all(request.as_bytes()).await.ok();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{}", &request[..40]);
    }
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(page).await.unwrap());
    }
    let path = format!("/confirm/{}", received(&own, 1).await);
    let (status, answer) = http(page, "POST", &path).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(penstock.relay("own").await["state"], "active");
}

#[tokio::test]
async fn a_reload_opens_and_closes_the_page() {
    let own = FakeRelay::default().start().await;
    let without = format!(
        "default-relay = \"own\"\n{}",
        relay(
            "own",
            &own,
            "sender = \"mailer@uwdomein.nl\"\nverify = true"
        )
    );
    let penstock = Harness::start(&without, "").await;
    let token = received(&own, 1).await;
    let page = crate::machine::free_address();
    let with = config(&own).replace("127.0.0.1:0\"\nbase", &format!("{page}\"\nbase"));
    penstock.configure(&with, "");
    penstock.ask(serde_json::json!({"reload": {}})).await;
    let path = format!("/confirm/{token}");
    assert_eq!(http(page, "GET", &path).await.0, 200);
    penstock.configure(&without, "");
    penstock.ask(serde_json::json!({"reload": {}})).await;
    let closed = tokio::time::timeout(SOON, async {
        while TcpStream::connect(page).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(closed.await.is_ok(), "still served");
}
