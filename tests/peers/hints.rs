//! `penstock check` against NSD: what a real authority says, and that what is proposed to
//! be published mends what was found.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{PATIENCE, free_address, output};
use crate::programs;

/// An authority for `test.`; it ends with the test.
struct Nsd(Child);

impl Drop for Nsd {
    fn drop(&mut self) {
        // Asked, not killed: it has children of its own.
        let pid = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().ok();
        self.0.wait().ok();
    }
}

fn free_port() -> u16 {
    free_address().port()
}

/// Starts it with these records, and waits until it answers.
async fn nsd(folder: &Path, port: u16, records: &str) -> Nsd {
    let dir = folder.display();
    let conf = format!(
        "server:\n ip-address: 127.0.0.1@{port}\n username: \"\"\n chroot: \"\"\n \
         zonesdir: \"{dir}\"\n database: \"\"\n pidfile: \"{dir}/nsd.pid\"\n \
         xfrdfile: \"{dir}/xfrd.state\"\n zonelistfile: \"{dir}/zone.list\"\n \
         logfile: \"{dir}/nsd.log\"\n server-count: 1\n\
         remote-control:\n control-enable: no\n\
         zone:\n name: \"test\"\n zonefile: \"test.zone\"\n"
    );
    let zone = format!(
        "test. 60 IN SOA ns.test. admin.test. 1 60 60 60 60\ntest. 60 IN NS ns.test.\n\
         ns.test. 60 IN A 127.0.0.1\n{records}\n"
    );
    std::fs::write(folder.join("nsd.conf"), conf).unwrap();
    std::fs::write(folder.join("test.zone"), zone).unwrap();
    let child = Command::new(programs::nsd())
        .arg("-d")
        .arg("-c")
        .arg(folder.join("nsd.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Nsd(child);
    let until = tokio::time::Instant::now() + PATIENCE;
    // The question for test. SOA, by hand.
    let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04test\0\0\x06\0\x01";
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 512];
    loop {
        socket.send_to(question, ("127.0.0.1", port)).await.ok();
        let heard = socket.recv_from(&mut answer);
        let heard = tokio::time::timeout(Duration::from_millis(200), heard).await;
        if matches!(heard, Ok(Ok(_))) {
            return running;
        }
        let log = std::fs::read_to_string(folder.join("nsd.log")).unwrap_or_default();
        assert!(
            tokio::time::Instant::now() < until,
            "nsd does not answer: {log}"
        );
    }
}

fn check(folder: &Path, port: u16, words: &[&str]) -> Output {
    use std::os::unix::fs::PermissionsExt;
    for (name, text) in [
        (
            "penstock.toml",
            "hostname = \"penstock.test\"\ndefault-relay = \"own\"\n[relays.own]\n\
             server = \"[smtp.relay.test]:587\"\nspf-include = \"spf.relay.test\"\n",
        ),
        ("users.toml", ""),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(folder.join(name), mode).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command
        .arg("check")
        .args(words)
        .args(["--dns", &format!("127.0.0.1:{port}")])
        .env("PENSTOCK_CONFIG", folder.join("penstock.toml"))
        .env_remove("COLUMNS");
    output(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs NSD"]
async fn what_check_proposes_mends_what_it_found() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let port = free_port();
    let first = "mx.a.test. IN A 192.0.2.25\na.test. IN MX 10 mx.a.test.\n\
                 spf.relay.test. IN TXT \"v=spf1 ip4:198.51.100.0/24 -all\"\n\
                 _dmarc.a.test. IN TXT \"v=DMARC1; p=reject\"\n";
    let running = nsd(
        folder,
        port,
        &format!("{first}a.test. IN TXT \"v=spf1 mx -all\""),
    )
    .await;

    let told = check(folder, port, &["jan@a.test", "bob@example.net"]);
    let words = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(1), "{words}");
    assert!(
        words.contains("serious  spf-relay-missing  a.test by own\n"),
        "{words}"
    );
    assert!(words.lines().all(|it| it.chars().count() <= 80), "{words}");

    let told = check(folder, port, &["jan@a.test", "bob@example.net", "--json"]);
    let lines = String::from_utf8(told.stdout).unwrap();
    let found: Vec<Value> = lines
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let hints: Vec<&str> = found
        .iter()
        .map(|it| it["hint"].as_str().unwrap())
        .collect();
    assert_eq!(hints, ["spf-relay-missing", "dmarc-alignment"]);
    let record = found[0]["record"].as_str().unwrap().to_owned();
    assert_eq!(
        record,
        "a.test. IN TXT \"v=spf1 mx include:spf.relay.test -all\""
    );
    drop(running);

    let _running = nsd(folder, port, &format!("{first}{record}")).await;
    let told = check(folder, port, &["jan@a.test", "bob@example.net"]);
    let words = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(0), "{words}");
    assert!(words.contains("nothing was found"), "{words}");
    // Nothing is there: no record, and none of DMARC.
    let told = check(
        folder,
        port,
        &["jan@none.test", "bob@example.net", "--json"],
    );
    assert_eq!(told.status.code(), Some(1));
    // Outside its authority NSD refuses: that is unknown, and nothing serious.
    let told = check(folder, port, &["jan@elsewhere.example", "bob@example.net"]);
    let words = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(0), "{words}");
    assert!(
        words.contains("unknown  spf-missing  elsewhere.example by own"),
        "{words}"
    );
}
