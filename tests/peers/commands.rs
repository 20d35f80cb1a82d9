//! Programs that send by calling `sendmail`: cron, mail(1), PHP, git; and `-bs` as mail
//! programs speak it. Nothing of the machine is changed for them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::daemon::{Daemon, Home, free_address, relay_table};
use crate::relay::{FakeRelay, Relay, Transaction};

const SOON: Duration = crate::daemon::PATIENCE;

/// A daemon with one relay, and a `sendmail` that finds it.
struct Setting {
    home: Home,
    relay: Relay,
    _daemon: Daemon,
}

async fn setting() -> Setting {
    setting_at(free_address()).await
}

async fn setting_at(listen: SocketAddr) -> Setting {
    let relay = FakeRelay::default().start().await;
    let home = Home::new("", "");
    let table = relay_table("out", &relay, &home.path("ca.pem"), None, "");
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{table}"
    );
    home.configure(&config, "");
    let daemon = home.start().await;
    symlink(env!("CARGO_BIN_EXE_penstock"), home.path("penstock-link")).unwrap();
    fs::create_dir(home.path("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_penstock"), home.path("bin/sendmail")).unwrap();
    // Programs call it by a path and with a cleaned environment.
    let script = format!(
        "#!/bin/sh\nPENSTOCK_SERVER={listen} exec {} \"$@\"\n",
        home.path("bin/sendmail").display()
    );
    fs::write(home.path("sendmail"), script).unwrap();
    fs::set_permissions(home.path("sendmail"), fs::Permissions::from_mode(0o755)).unwrap();
    Setting {
        home,
        relay,
        _daemon: daemon,
    }
}

impl Setting {
    fn sendmail(&self) -> PathBuf {
        self.home.path("sendmail")
    }

    async fn arrived(&self) -> Transaction {
        let mut all = self.relay.received(1, SOON).await;
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

#[track_caller]
fn succeeds(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = crate::daemon::machine::ended(child);
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs bsd-mailx; .ci/run installs it"]
async fn mail_1_sends_through_penstock() {
    let it = setting().await;
    let settings = format!("set sendmail={}\n", it.sendmail().display());
    fs::write(it.home.path("mailrc"), settings).unwrap();
    let mut mail = Command::new("bsd-mailx");
    mail.args(["-s", "from mail(1)", "-c", "carl@example.org", "-b"])
        .args(["dora@example.org", "bob@example.net"])
        .args(["-r", "jan@uwdomein.nl"])
        .env("MAILRC", it.home.path("mailrc"))
        .env("HOME", it.home.path("run"));
    succeeds(&mut mail, "a line\n.hidden\n");
    let arrived = it.arrived().await;
    assert_eq!(arrived.reverse_path(), "jan@uwdomein.nl");
    let mut to = arrived.forward_paths();
    to.sort_unstable();
    assert_eq!(
        to,
        ["bob@example.net", "carl@example.org", "dora@example.org"]
    );
    let text = arrived.text();
    assert!(text.contains("Subject: from mail(1)\r\n"), "{text}");
    assert!(!text.contains("dora"), "Bcc is gone: {text}");
    assert!(text.ends_with("a line\r\n.hidden\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs php-cli; .ci/run installs it"]
async fn php_mail_sends_through_penstock() {
    let it = setting().await;
    let php = "exit(mail('Bob <bob@example.net>', 'from PHP', \"a line\\n.\\nthe end\\n\", \
               \"From: Jan <jan@uwdomein.nl>\\r\\nBcc: dora@example.org\", '-fbounces@uwdomein.nl') ? 0 : 1);";
    let path = format!("sendmail_path={} -t -i", it.sendmail().display());
    succeeds(Command::new("php").args(["-n", "-d", &path, "-r", php]), "");
    let arrived = it.arrived().await;
    assert_eq!(arrived.reverse_path(), "bounces@uwdomein.nl");
    assert_eq!(
        arrived.forward_paths(),
        ["bob@example.net", "dora@example.org"]
    );
    let text = arrived.text();
    assert!(text.contains("From: Jan <jan@uwdomein.nl>\r\n"), "{text}");
    assert!(!text.contains("Bcc") && !text.contains("dora"), "{text}");
    assert!(
        text.contains("\r\n\r\na line\r\n.\r\nthe end\r\n"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs git-email; .ci/run installs it"]
async fn git_send_email_sends_through_penstock() {
    let it = setting().await;
    let patch = "From 0000000000000000000000000000000000000001 Mon Sep 17 00:00:00 2001\n\
                 From: Jan <jan@uwdomein.nl>\nDate: Sat, 21 Nov 2026 12:00:00 +0000\n\
                 Subject: [PATCH] a change\n\nWhy.\n---\n a | 1 +\n\ndiff --git a/a b/a\n--- a/a\n\
                 +++ b/a\n@@ -0,0 +1 @@\n+.\n-- \n2.39.5\n";
    fs::write(it.home.path("0001.patch"), patch).unwrap();
    let mut git = Command::new("git");
    git.args(["send-email", "--confirm=never", "--suppress-cc=all"])
        .args(["--from=Jan <jan@uwdomein.nl>", "--to=bob@example.net"])
        .args(["--envelope-sender=bounces@uwdomein.nl"])
        .arg(format!("--smtp-server={}", it.sendmail().display()))
        .arg(it.home.path("0001.patch"))
        .current_dir(it.home.path("run"))
        .env("HOME", it.home.path("run"))
        .env("GIT_CONFIG_NOSYSTEM", "1");
    succeeds(&mut git, "");
    let arrived = it.arrived().await;
    assert_eq!(arrived.reverse_path(), "bounces@uwdomein.nl");
    assert_eq!(arrived.forward_paths(), ["bob@example.net"]);
    let text = arrived.text();
    assert!(text.contains("Subject: [PATCH] a change\r\n"), "{text}");
    assert!(text.contains("\r\n+.\r\n-- \r\n2.39.5\r\n"), "{text}");
}

/// A program that runs until it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// cron in a mount namespace of its own: its tables, its pid file and the `sendmail` that
/// it was built to call are other ones there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cron, and to be root; .ci/run installs it"]
async fn what_a_cron_job_prints_is_mailed_through_penstock() {
    let it = setting().await;
    let table = "MAILTO=bob@example.net\nMAILFROM=cron@uwdomein.nl\n@reboot echo it ran; echo .; echo still here\n";
    fs::write(it.home.path("table"), table).unwrap();
    let script = "set -e
        for place in /run /var/spool/cron /etc/cron.d; do mount -t tmpfs none $place; done
        mkdir -p /var/spool/cron/crontabs
        install -m 0600 \"$1/table\" /var/spool/cron/crontabs/root
        [ -e /usr/sbin/sendmail ] || { echo 'no /usr/sbin/sendmail to stand in for' >&2; exit 1; }
        mount --bind \"$1/sendmail\" \"$(readlink -f /usr/sbin/sendmail)\"
        mount --bind /dev/null /etc/crontab
        exec cron -f";
    let cron = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(it.home.path(""))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let cron = Killed(cron);
    let arrived = it.relay.received(1, SOON).await;
    drop(cron);
    let arrived = &arrived[0];
    assert_eq!(arrived.forward_paths(), ["bob@example.net"]);
    let text = arrived.text();
    assert!(text.contains("Subject: Cron <root@"), "{text}");
    assert!(
        text.ends_with("\r\n\r\nit ran\r\n.\r\nstill here\r\n"),
        "a dot ended it: {text}"
    );
}

/// Programs like Alpine speak SMTP to `sendmail -bs`: Python's client does it here.
#[tokio::test(flavor = "multi_thread")]
async fn sendmail_bs_is_an_smtp_dialogue() {
    let it = setting().await;
    let mut child = Command::new(it.sendmail())
        .arg("-bs")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut to, mut from) = (
        child.stdin.take().unwrap(),
        BufReader::new(child.stdout.take().unwrap()),
    );
    let dialogue = tokio::task::spawn_blocking(move || {
        let mut said = |words: &str, expected: &str| {
            to.write_all(words.as_bytes()).unwrap();
            loop {
                let mut line = String::new();
                assert!(
                    from.read_line(&mut line).unwrap() > 0,
                    "ended after {words}"
                );
                if line.as_bytes()[3] == b' ' {
                    assert!(line.starts_with(expected), "{words}: {line}");
                    return;
                }
            }
        };
        said("", "220 ");
        said("EHLO app.test\r\n", "250 ");
        said("MAIL FROM:<jan@uwdomein.nl>\r\n", "250 ");
        said("RCPT TO:<not an address>\r\n", "501 ");
        said("RCPT TO:<bob@example.net>\r\n", "250 ");
        said("DATA\r\n", "354 ");
        said(
            "From: jan@uwdomein.nl\r\nSubject: by -bs\r\n\r\n..\r\n.\r\n",
            "250 ",
        );
        said("QUIT\r\n", "221 ");
        drop(to);
        child.wait().unwrap()
    });
    assert!(dialogue.await.unwrap().success());
    let arrived = it.arrived().await;
    assert!(
        arrived.text().ends_with("\r\n\r\n.\r\n"),
        "{}",
        arrived.text()
    );
}
