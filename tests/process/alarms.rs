//! What somebody should know at once: in the status, in the metrics, once in the log, and
//! by mail.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Client, message};
use crate::daemon::machine::until;
use crate::daemon::{Home, free_address, relay_table};
use crate::disk::SmallDisk;
use crate::relay::{FakeRelay, Relay};

/// The disk is looked at once a minute.
const SOON: Duration = Duration::from_secs(150);

/// A daemon whose alarms leave by `office`, whatever happens to `out`.
struct Setting {
    home: Home,
    listen: std::net::SocketAddr,
    office: Relay,
}

impl Setting {
    async fn new(out: &Relay, min_free: &str) -> Self {
        let office = FakeRelay::default().start().await;
        let listen = free_address();
        let home = Home::new("", "");
        let (ca_of_out, ca) = (home.path("out.pem"), home.path("office.pem"));
        let config = format!(
            "hostname = \"penstock.test\"\nadmin = \"postmaster@example.nl\"\n\
             default-relay = \"out\"\nbounces-via = \"office\"\n\
             [[listen]]\naddress = \"{listen}\"\n\
             [http]\nadmin = \"unix:{{dir}}/run/http.sock\"\n\
             [spool]\npath = \"{{dir}}/state\"\nmin-free = \"{min_free}\"\n{}{}",
            relay_table("out", out, &ca_of_out, None, ""),
            relay_table(
                "office",
                &office,
                &ca,
                None,
                "sender = \"penstock@example.nl\""
            ),
        );
        home.configure(&config, "");
        Self {
            home,
            listen,
            office,
        }
    }

    /// What `penstock status` prints.
    fn status(&self) -> String {
        String::from_utf8(self.home.cli(&["status"]).stdout).unwrap()
    }

    /// The names of the alarms that stand, as programs get them.
    fn standing(&self) -> Vec<String> {
        let told = self.home.cli(&["status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&told).unwrap();
        let alarms = status["alarms"].as_array().unwrap();
        let name = |it: &serde_json::Value| it["alarm"].as_str().unwrap().to_owned();
        alarms.iter().map(name).collect()
    }

    /// The lines of the metrics about alarms.
    fn metric(&self) -> Vec<String> {
        let mut socket = UnixStream::connect(self.home.path("run/http.sock")).unwrap();
        socket
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: penstock\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        let lines = page.lines().filter(|it| it.starts_with("penstock_alarm{"));
        lines.map(str::to_owned).collect()
    }

    async fn until_standing(&self, expected: &[&str]) {
        let until = Instant::now() + SOON;
        while self.standing() != expected {
            assert!(
                Instant::now() < until,
                "{:?}\n{}",
                self.standing(),
                self.home.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The only mail that the administrator got.
    async fn mail(&self) -> String {
        let mail = self.office.received(1, SOON).await;
        assert_eq!(mail.len(), 1);
        assert_eq!(mail[0].forward_paths(), ["postmaster@example.nl"]);
        assert_eq!(mail[0].reverse_path(), "");
        mail[0].text()
    }

    fn lines_of_log(&self, words: &str) -> usize {
        self.home.log().matches(words).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a small file system, which needs root; .ci/run has it"]
async fn a_disk_that_fills_up_is_told_of_everywhere_and_once_before_mail_is_refused() {
    let out = FakeRelay::default().start().await;
    let it = Setting::new(&out, "10MB").await;
    let disk = SmallDisk::mount(it.home.path("state"), 64);
    let filler = it.home.path("state/filler");
    fs::write(&filler, vec![0; 50 << 20]).unwrap();
    let mut daemon = it.home.start().await;

    it.until_standing(&["disk-low"]).await;
    let status = it.status();
    assert!(
        status.contains("! new mail will be refused soon: "),
        "{status}"
    );
    assert_eq!(
        it.metric(),
        ["penstock_alarm{alarm=\"disk-low\",relay=\"\"} 1"]
    );
    let mail = it.mail().await;
    for words in [
        "Subject: [penstock penstock.test] the disk of the spool is nearly full\r\n",
        "10 MB are kept free",
        "penstock queue",
    ] {
        assert!(mail.contains(words), "{words}: {mail}");
    }

    fs::remove_file(&filler).unwrap();
    it.until_standing(&[]).await;
    assert!(it.status().contains("all is well"), "{}", it.status());
    assert_eq!(it.metric(), [""; 0]);
    assert_eq!(it.lines_of_log("alarm: new mail will be refused"), 1);
    // The disk is looked over once a minute; status tells at once.
    it.home.logged("the alarm is over").await;
    assert_eq!(it.lines_of_log("the alarm is over"), 1);
    assert_eq!(it.office.accepted().len(), 1);
    assert!(daemon.stop().await.success(), "{}", it.home.log());
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_paused_is_told_of_everywhere_and_once() {
    let out = FakeRelay::default()
        .answering("MAIL", "530 5.7.0 authentication required")
        .start()
        .await;
    let it = Setting::new(&out, "1MB").await;
    let mut daemon = it.home.start().await;
    let mut client = Client::connect(it.listen).await;
    for subject in ["one", "two", "three"] {
        let mail = message("jan@uwdomein.nl", "bob@example.net", subject, "hello");
        client
            .submit("jan@uwdomein.nl", &["bob@example.net"], &mail)
            .await
            .queue_id();
    }

    it.until_standing(&["relay-paused"]).await;
    // One that is just being tried does not wait.
    let words = "! relay out is paused, 3 messages wait for it: ";
    until(words, Duration::from_millis(50), async || {
        it.status().contains(words)
    })
    .await;
    assert_eq!(
        it.metric(),
        ["penstock_alarm{alarm=\"relay-paused\",relay=\"out\"} 1"]
    );
    let mail = it.mail().await;
    for words in [
        "Subject: [penstock penstock.test] relay out is paused\r\n",
        "530 5.7.0 authentication required",
        "What to do:",
        "penstock relay resume out",
    ] {
        assert!(mail.contains(words), "{words}: {mail}");
    }

    out.mend();
    assert!(it.home.cli(&["relay", "resume", "out"]).status.success());
    out.received(3, SOON).await;
    it.until_standing(&[]).await;
    assert_eq!(it.metric(), [""; 0]);
    assert_eq!(it.lines_of_log("alarm: "), 1);
    assert_eq!(it.lines_of_log("the alarm is over"), 1);
    assert_eq!(it.office.accepted().len(), 1);
    assert!(daemon.stop().await.success(), "{}", it.home.log());
}
