//! The metrics as Prometheus' own client library reads them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::{Client, message};
use crate::daemon::{Home, free_address, relay_table};
use crate::relay::FakeRelay;

const SOON: Duration = crate::daemon::PATIENCE;

/// Every sample as `name{labels} value`; what the parser does not like ends it.
const PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        labels = ','.join('%s=%s' % pair for pair in sorted(sample.labels.items()))
        print('%s{%s} %g' % (sample.name, labels, sample.value))
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs python3-prometheus-client; .ci/run installs it"]
async fn prometheus_reads_every_metric_and_no_address_is_in_them() {
    let relay = FakeRelay::default()
        .answering("RCPT TO:<gone@", "550 5.1.1 no such user")
        .answering("RCPT TO:<later@", "450 4.2.1 not now")
        .start()
        .await;
    let listen = free_address();
    let home = Home::new("", "");
    let table = relay_table("out", &relay, &home.path("ca.pem"), None, "");
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
         [http]\nadmin = \"unix:{{dir}}/run/http.sock\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{table}"
    );
    home.configure(&config, "");
    let _daemon = home.start().await;
    let mut client = Client::connect(listen).await;
    let to = ["bob@example.net", "gone@example.net", "later@example.net"];
    let mail = message("jan@uwdomein.nl", to[0], "counted", "hello");
    client
        .submit("jan@uwdomein.nl", &to, &mail)
        .await
        .queue_id();
    // The message, and the report about its failed recipient; each is counted a moment
    // after the relay has answered.
    let end = tokio::time::Instant::now() + SOON;
    let mut text = page(&home, "/metrics");
    while !text.contains("penstock_relay_duration_seconds_count{relay=\"out\"} 2\n") {
        assert!(tokio::time::Instant::now() < end, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        text = page(&home, "/metrics");
    }
    assert!(!text.contains('@'), "{text}");
    let samples = parsed(&text);
    for sample in [
        "penstock_messages_total{outcome=accepted,relay=out} 1",
        "penstock_messages_total{outcome=released,relay=out} 2",
        "penstock_messages_total{outcome=held,relay=out} 0",
        "penstock_recipients_total{outcome=delivered,relay=out} 2",
        "penstock_recipients_total{outcome=deferred,relay=out} 1",
        "penstock_recipients_total{outcome=failed,relay=out} 1",
        "penstock_relay_duration_seconds_count{relay=out} 2",
        "penstock_relay_duration_seconds_bucket{le=+Inf,relay=out} 2",
        "penstock_commit_duration_seconds_count{} 1",
        "penstock_limit_left{limit=batch-messages,relay=out} 498",
        "penstock_paused_relays{} 0",
        "penstock_oldest_sendable_age_seconds{} 0",
        "penstock_accepting{} 1",
    ] {
        assert!(
            samples.iter().any(|it| it == sample),
            "{sample}\n{samples:#?}"
        );
    }
    for (path, expected) in [("/healthz", "ok\n"), ("/readyz", "ok\n")] {
        assert_eq!(page(&home, path), expected);
    }
}

/// The body of a page on the daemon's socket.
fn page(home: &Home, path: &str) -> String {
    let mut socket = UnixStream::connect(home.path("run/http.sock")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    write!(socket, "GET {path} HTTP/1.0\r\nHost: penstock\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{answer}");
    body.to_owned()
}

fn parsed(text: &str) -> Vec<String> {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", PARSER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = crate::daemon::machine::ended(python);
    assert!(output.status.success(), "{text}");
    let samples = String::from_utf8(output.stdout).unwrap();
    samples.lines().map(str::to_owned).collect()
}
