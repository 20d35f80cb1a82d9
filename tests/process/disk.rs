//! Promise 1, the disk's half: one that is full refuses mail for the time being and heals
//! by itself; one that cannot sync ends the daemon, and the next start loses nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::client::{Answer, Client, message};
use crate::daemon::{Daemon, Home, free_address, relay_table};
use crate::relay::{FakeRelay, Relay};

/// The daemon stores the ledger of limits once a minute, and what left before goes then.
const SOON: Duration = Duration::from_secs(150);

/// A daemon's files, its only relay, and its listener.
struct Setting {
    home: Home,
    relay: Relay,
    listen: std::net::SocketAddr,
    accepted: BTreeSet<String>,
}

impl Setting {
    async fn new(min_free: &str) -> Self {
        let relay = FakeRelay::default().start().await;
        let listen = free_address();
        let home = Home::new("", "");
        let table = relay_table(
            "out",
            &relay,
            &home.path("ca.pem"),
            None,
            "limits = { preset = \"unlimited\", connections = 4 }",
        );
        let config = format!(
            "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
             [spool]\npath = \"{{dir}}/state\"\nmin-free = \"{min_free}\"\n\
             [retry]\nfirst = \"1s\"\nmax = \"2s\"\n{table}"
        );
        home.configure(&config, "");
        Self {
            home,
            relay,
            listen,
            accepted: BTreeSet::new(),
        }
    }

    /// One message with its own subject; what was accepted is remembered.
    async fn submit(&mut self, subject: &str, octets: usize) -> std::io::Result<Answer> {
        let mut client = Client::dial(self.listen).await?;
        client.try_reply().await?;
        client.try_send(b"EHLO app.test\r\n").await?;
        client.try_reply().await?;
        let text = "0123456789abcdef\r\n".repeat(octets / 18);
        let content = message("a@app.test", "b@example.net", subject, &text);
        let answer = client
            .try_submit("a@app.test", &["b@example.net"], &content)
            .await?;
        if answer.code == 250 {
            self.accepted.insert(subject.to_owned());
        }
        Ok(answer)
    }

    /// Waits until everything that was accepted is with the relay.
    async fn until_delivered(&self) {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            let delivered: BTreeSet<String> = self
                .relay
                .accepted()
                .iter()
                .filter_map(|it| subject_of(&it.text()))
                .collect();
            if delivered == self.accepted {
                return;
            }
            let missing: Vec<_> = self.accepted.difference(&delivered).collect();
            let strange: Vec<_> = delivered.difference(&self.accepted).collect();
            assert!(
                tokio::time::Instant::now() < until && strange.is_empty(),
                "missing: {missing:?}, never accepted: {strange:?}\n{}",
                self.home.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until mail is accepted.
    async fn until_accepted(&mut self, subject: &str) {
        let until = tokio::time::Instant::now() + SOON;
        while self.submit(subject, 100).await.unwrap().code != 250 {
            assert!(tokio::time::Instant::now() < until, "it does not heal");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn status(&self) -> String {
        String::from_utf8(self.home.cli(&["status"]).stdout).unwrap()
    }
}

fn subject_of(text: &str) -> Option<String> {
    let line = text.lines().find_map(|it| it.strip_prefix("Subject: "))?;
    Some(line.to_owned())
}

/// A file system of this size, mounted until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(place: PathBuf, megabytes: usize) -> Self {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(&place)
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting a tmpfs needs root");
        Self(place)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a small file system, which needs root; .ci/run has it"]
async fn a_full_disk_refuses_mail_for_now_loses_nothing_and_heals_by_itself() {
    let mut it = Setting::new("1MB").await;
    it.relay
        .answer("connect", None, crate::relay::Answer::Close);
    let disk = SmallDisk::mount(it.home.path("state"), 16);
    let mut daemon = it.home.start().await;

    // Mail alone fills it up to the reserve.
    let mut refused = 0;
    for number in 0..2_000 {
        let octets = if number % 7 == 0 { 300_000 } else { 20_000 };
        let answer = it
            .submit(&format!("filling {number}"), octets)
            .await
            .unwrap();
        if answer.code != 250 {
            assert_refused_for_now(&answer);
            refused += 1;
        }
        if refused == 5 {
            break;
        }
    }
    assert_eq!(refused, 5, "the disk never was full");
    assert!(it.accepted.len() > 20, "{}", it.accepted.len());

    // Somebody else takes the reserve as well: not one octet is left.
    let filler = it.home.path("state/filler");
    let full = fs::write(&filler, vec![0; 16 << 20]);
    assert!(full.is_err(), "the disk still has room");
    for number in 0..5 {
        let answer = it.submit(&format!("full {number}"), 1_000).await.unwrap();
        assert_refused_for_now(&answer);
    }
    assert!(it.status().contains("452"), "{}", it.status());
    it.relay.mend();
    fs::remove_file(&filler).unwrap();

    // What was accepted leaves, which makes room: mail is accepted again by itself.
    it.until_accepted("healed").await;
    it.until_delivered().await;
    assert!(!it.status().contains("452"), "{}", it.status());
    assert!(daemon.stop().await.success(), "{}", it.home.log());
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a small file system, which needs root; .ci/run has it"]
async fn a_daemon_that_starts_on_a_full_disk_refuses_for_now_and_heals_by_itself() {
    let mut it = Setting::new("1MB").await;
    it.relay
        .answer("connect", None, crate::relay::Answer::Close);
    let disk = SmallDisk::mount(it.home.path("state"), 8);
    let mut daemon = it.home.start().await;
    for number in 0..5 {
        let answer = it.submit(&format!("waiting {number}"), 20_000).await;
        assert_eq!(answer.unwrap().code, 250);
    }
    assert!(daemon.stop().await.success(), "{}", it.home.log());
    let filler = it.home.path("state/filler");
    let full = fs::write(&filler, vec![0; 8 << 20]);
    assert!(full.is_err(), "the disk still has room");
    let mut daemon = it.home.start().await;
    assert_refused_for_now(&it.submit("full", 1_000).await.unwrap());
    it.relay.mend();
    fs::remove_file(&filler).unwrap();
    it.until_accepted("healed").await;
    it.until_delivered().await;
    assert!(daemon.stop().await.success(), "{}", it.home.log());
    drop(disk);
}

fn assert_refused_for_now(answer: &Answer) {
    assert_eq!(answer.code, 452, "{answer:?}");
    assert!(answer.text().starts_with("4.3.1"), "{answer:?}");
}

/// Makes file operations below a directory fail while a file says so: `write ENOSPC` or
/// `sync EIO`, by their numbers.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
static int fails(int fd, const char *what) {
  char link[64], path[4096], line[64], word[32];
  const char *plan = getenv("SHIM_PLAN"), *dir = getenv("SHIM_DIR");
  int number = 0;
  FILE *file;
  ssize_t length;
  if (!plan || !dir || !(file = fopen(plan, "r"))) return 0;
  if (!fgets(line, sizeof line, file)) line[0] = 0;
  fclose(file);
  if (sscanf(line, "%31s %d", word, &number) != 2 || strcmp(word, what)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, dir, strlen(dir)) ? 0 : number;
}
ssize_t pwrite64(int fd, const void *octets, size_t length, off_t offset) {
  static ssize_t (*real)(int, const void *, size_t, off_t);
  int number = fails(fd, "write");
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  if (number) {
    if (length > 1) real(fd, octets, length / 2, offset);
    errno = number;
    return -1;
  }
  return real(fd, octets, length, offset);
}
int fdatasync(int fd) {
  static int (*real)(int);
  int number = fails(fd, "sync");
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  if (number) { errno = number; return -1; }
  return real(fd);
}
"#;

/// A daemon whose disk fails on order.
struct FailingDisk {
    plan: PathBuf,
}

impl FailingDisk {
    async fn start(home: &Home) -> (Self, Daemon) {
        let (source, library) = (home.path("shim.c"), home.path("shim.so"));
        fs::write(&source, SHIM).unwrap();
        let compiled = Command::new("gcc")
            .args(["-O1", "-w", "-fPIC", "-shared", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status()
            .unwrap();
        assert!(compiled.success());
        let plan = home.path("plan");
        let mut command = home.command();
        command
            .env("SHIM_PLAN", &plan)
            .env("SHIM_DIR", home.path("state/log"))
            .env("LD_PRELOAD", &library);
        (Self { plan }, home.start_with(command).await)
    }

    fn fails(&self, what: &str) {
        let written = self.plan.with_extension("new");
        fs::write(&written, what).unwrap();
        // All of it at once: the daemon reads it at any moment.
        #[allow(clippy::disallowed_methods, reason = "not a file of the spool")]
        fs::rename(written, &self.plan).unwrap();
    }

    fn works(&self) {
        fs::remove_file(&self.plan).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs gcc; .ci/run has it"]
async fn a_write_that_fails_is_answered_for_now_and_the_next_one_may_succeed() {
    let mut it = Setting::new("1MB").await;
    let (disk, mut daemon) = FailingDisk::start(&it.home).await;
    it.until_accepted("before").await;
    it.until_delivered().await;
    for failure in ["write 28", "write 5"] {
        disk.fails(failure);
        for number in 0..3 {
            let answer = it.submit(&format!("{failure}, {number}"), 2_000).await;
            assert_refused_for_now(&answer.unwrap());
        }
        let status = it.status();
        assert!(status.contains("new mail is refused"), "{status}");
        disk.works();
        it.until_accepted(&format!("after {failure}")).await;
        it.until_delivered().await;
        let status = it.status();
        assert!(!status.contains("new mail is refused"), "{status}");
    }
    assert!(daemon.stop().await.success(), "{}", it.home.log());
    assert_eq!(corrupt(&it.home.path("state")), 0);
    // Nothing half-written came to life.
    let mut daemon = it.home.start().await;
    it.until_accepted("after a restart").await;
    it.until_delivered().await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs gcc; .ci/run has it"]
async fn a_sync_that_fails_ends_the_daemon_which_says_what_to_do() {
    let mut it = Setting::new("1MB").await;
    it.relay
        .answer("connect", None, crate::relay::Answer::Close);
    let (disk, mut daemon) = FailingDisk::start(&it.home).await;
    for number in 0..5 {
        it.submit(&format!("kept {number}"), 2_000).await.unwrap();
    }
    disk.fails("sync 5");
    // 452, or the end of the connection; never 250.
    if let Ok(answer) = it.submit("refused", 2_000).await {
        assert_refused_for_now(&answer);
    }
    let status = daemon.end(SOON).await.expect("the daemon goes on");
    assert_eq!(status.code(), Some(1));
    let log = it.home.log();
    for words in ["a sync failed", "Input/output error", "Check the disk"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    disk.works();
    it.relay.mend();
    let mut daemon = it.home.start().await;
    // It was written, and nobody was told: either is right.
    let sent = it.accepted.clone();
    it.accepted.insert("refused".into());
    let until = tokio::time::Instant::now() + SOON;
    loop {
        let delivered: BTreeSet<String> = it
            .relay
            .accepted()
            .iter()
            .filter_map(|it| subject_of(&it.text()))
            .collect();
        assert!(delivered.is_subset(&it.accepted), "{delivered:?}");
        if sent.is_subset(&delivered) {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "{}", it.home.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(daemon.stop().await.success());
}

/// Copies of damaged records.
fn corrupt(state: &Path) -> usize {
    fs::read_dir(state.join("corrupt")).unwrap().count()
}
