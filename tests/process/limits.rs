//! Promise 2 at the real daemon, in real time: no relay ever gets more than its limits,
//! however often the daemon is killed, and a mailing holds nobody up.
//!
//! What counts is what the relay saw, by its own clock. In short for CI; for the long
//! forms see docs/limits.md.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Client, message};
use crate::daemon::machine::until;
use crate::daemon::{Home, PATIENCE, free_address, relay_table};
use crate::relay::{Answer, FakeRelay, Relay, Transaction};

/// How often the daemon is killed.
fn kills() -> usize {
    std::env::var("PENSTOCK_LIMIT_KILLS").map_or(8, |it| it.parse().unwrap())
}

/// Whether the mailing is one of 10,000 over two minutes, or a tenth of it.
fn is_long() -> bool {
    std::env::var("PENSTOCK_LIMITS_LONG").is_ok()
}

/// A relay's times of something, in order.
fn times(relay: &Relay, when: impl Fn(&Transaction) -> Duration) -> Vec<Duration> {
    let mut times: Vec<Duration> = relay.transactions().iter().map(when).collect();
    times.sort();
    times
}

/// The most that any window of this length held, both of its ends included.
fn worst(times: &[Duration], window: Duration) -> usize {
    let first = |end: &Duration| times.partition_point(|it| *it + window < *end);
    let each = times.iter().enumerate();
    each.map(|(at, end)| at + 1 - first(end)).max().unwrap_or(0)
}

/// Submits `count` messages of one From.
async fn submit(address: SocketAddr, from: &str, subject: &str, count: usize) {
    let mut client = Client::connect(address).await;
    for _ in 0..count {
        let content = message(from, "bob@example.net", subject, "hello");
        let answer = client.submit(from, &["bob@example.net"], &content).await;
        answer.expect_code(250);
    }
    client.command("QUIT").await;
}

/// Submits `count` messages over many connections, which share the syncs of the disk.
async fn submit_together(address: SocketAddr, from: &str, count: usize) {
    let mut clients = tokio::task::JoinSet::new();
    for place in 0..16 {
        let from = from.to_owned();
        let count = count / 16 + usize::from(place < count % 16);
        clients.spawn(async move { submit(address, &from, "the news", count).await });
    }
    clients.join_all().await;
}

/// One of the relays that the killed daemon sends to.
struct Limited {
    name: &'static str,
    limits: &'static str,
    interval: Duration,
    most: usize,
    relay: Relay,
}

impl Limited {
    async fn start(
        name: &'static str,
        limits: &'static str,
        interval: Duration,
        most: usize,
    ) -> Self {
        // Slower than the daemon can be killed and back again.
        let slowly = Answer::from("250 2.0.0 taken").after(Duration::from_millis(15));
        let relay = FakeRelay::default()
            .forgetting_content()
            .answering(".", slowly)
            .start()
            .await;
        Self {
            name,
            limits,
            interval,
            most,
            relay,
        }
    }

    fn check(&self, log: &str) {
        for (what, times) in [
            ("arrivals", times(&self.relay, |it| it.ended)),
            ("replies", times(&self.relay, |it| it.replied)),
        ] {
            let worst = worst(&times, self.interval);
            println!(
                "{}: {} {what}, at most {worst} of {} in any {:?}",
                self.name,
                times.len(),
                self.most,
                self.interval
            );
            assert!(worst <= self.most, "{}: {times:?}\n{log}", self.name);
            // A limit that is never reached would prove nothing; some is kept for interactive mail.
            assert!(
                worst * 10 >= self.most * 9,
                "{}: {times:?}\n{log}",
                self.name
            );
        }
        assert_eq!(self.relay.offences(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "real time: windows of seconds; .ci/run runs it"]
async fn no_window_is_overrun_when_the_daemon_is_killed_in_the_middle_of_batches() {
    let second = Duration::from_secs(1);
    let relays = [
        Limited::start(
            "two",
            "limits = { batch-messages = 12, batch-interval = \"2s\", batch-window = \"2s\", per-hour = \"unlimited\", connections = 3 }",
            2 * second,
            12,
        )
        .await,
        Limited::start(
            "five",
            "limits = { batch-messages = 40, batch-interval = \"5s\", batch-window = \"3s\", per-hour = \"unlimited\", connections = 4 }",
            5 * second,
            40,
        )
        .await,
        // Any two of them, that is: at most one in any window a little shorter.
        Limited::start(
            "apart",
            "limits = { preset = \"unlimited\", min-interval = \"400ms\" }",
            Duration::from_micros(399_999),
            1,
        )
        .await,
    ];
    let listen = free_address();
    let home = Home::new("", "");
    let mut config = format!(
        "hostname = \"penstock.test\"\n[[listen]]\naddress = \"{listen}\"\n[spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
         [retry]\nfirst = \"1s\"\nmax = \"1s\"\n"
    );
    let mut users = String::new();
    for (number, it) in relays.iter().enumerate() {
        let ca = home.path(&format!("ca{number}.pem"));
        config.push_str(&relay_table(it.name, &it.relay, &ca, None, it.limits));
        users.push_str(&format!(
            "[[user]]\naddress = \"@{}.test\"\nrelay = \"{0}\"\n",
            it.name
        ));
    }
    home.configure(&config, &users);

    let mut daemon = home.start().await;
    // However slow the disk is, nothing leaves before all is there.
    let each = |verb: &str| {
        for it in &relays {
            let told = home.cli(&["relay", verb, it.name]);
            assert!(told.status.success(), "{told:?}");
        }
    };
    each("pause");
    for it in &relays {
        // More than can leave in all the time.
        let mailing = kills() * 4 * it.most + 200;
        let from = format!("news@{}.test", it.name);
        submit_together(listen, &from, mailing).await;
    }
    each("resume");
    for round in 0..kills() {
        // In the middle of a batch: when the relay has taken a few of it.
        let it = &relays[round % 2].relay;
        let few = 1 + rand::random::<u64>() as usize % (relays[round % 2].most / 2);
        it.received(it.count() + few, PATIENCE).await;
        tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 20_000)).await;
        daemon.kill();
        // What the relays were given before they answer now; then the daemon is back.
        tokio::time::sleep(Duration::from_millis(30)).await;
        daemon = home.start().await;
        let reset = format!("reset{round}@two.test");
        submit(listen, &reset, "your password", 1).await;
    }
    // The last restart must be seen through, too.
    tokio::time::sleep(6 * second).await;
    assert!(daemon.stop().await.success(), "{}", home.log());

    println!("{} kills", kills());
    for it in &relays {
        it.check(&home.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "real time: twenty batches; .ci/run runs it"]
async fn one_and_a_hundred_pass_ten_thousand_which_take_the_time_that_the_limit_dictates() {
    let (mailing, batch, colleagues, interval) = match is_long() {
        true => (10_000, 500, 100, Duration::from_secs(6)),
        false => (1_000, 50, 10, Duration::from_secs(1)),
    };
    const CONNECTIONS: usize = 4;
    let relay = FakeRelay::default().forgetting_content().start().await;
    let listen = free_address();
    let home = Home::new("", "");
    let limits = format!(
        "limits = {{ batch-messages = {batch}, batch-interval = \"{0}s\", batch-window = \"{0}s\", per-hour = \"unlimited\", \
         mailing-limit = 20000, connections = {CONNECTIONS}, interactive-share = \"0%\" }}",
        interval.as_secs()
    );
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"own\"\n[[listen]]\naddress = \"{listen}\"\n[spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{}",
        relay_table("own", &relay, &home.path("ca.pem"), None, &limits)
    );
    home.configure(&config, "");
    let mut daemon = home.start().await;

    submit(listen, "news@big.test", "the news", mailing).await;
    submit(listen, "colleague@small.test", "a survey", colleagues).await;
    let before_hundred = relay.count();
    submit(listen, "reset@one.test", "your password", 1).await;
    let (before_one, queued) = (relay.count(), Instant::now());
    let all = mailing + colleagues + 1;
    let patience = 30 * interval + Duration::from_secs(60);
    relay.received(all, patience).await;
    assert!(daemon.stop().await.success(), "{}", home.log());

    let mut seen = relay.transactions();
    seen.sort_by_key(|it| it.ended);
    let place_of_last = |from: &str| {
        let place = seen.iter().rposition(|it| it.reverse_path() == from);
        place.expect("it arrived")
    };
    // The one passes all but what is just being sent.
    let passed_by = place_of_last("reset@one.test").saturating_sub(before_one);
    // The hundred: with the rest of the present batch, so much can leave in two more.
    let hundred = place_of_last("colleague@small.test").saturating_sub(before_hundred);
    let times: Vec<Duration> = seen.iter().map(|it| it.ended).collect();
    let worst = worst(&times, interval);
    let took = *times.last().unwrap() - times[0];
    // One message of a window is kept for interactive mail; this one alone used it.
    let batches = (mailing + colleagues).div_ceil(batch - 1);
    let dictated = interval * (batches as u32 - 1);
    println!(
        "{all} messages, {batch} in any {interval:?}: {worst} at most; {passed_by} before the one, {hundred} before \
         the last of the {colleagues}; all in {took:?}, the limit dictates {dictated:?} ({:+.2} %); {:?} since the last was queued",
        100.0 * (took.as_secs_f64() / dictated.as_secs_f64() - 1.0),
        queued.elapsed(),
    );
    assert!(worst <= batch, "{worst}");
    assert!(passed_by <= 2 * CONNECTIONS, "{passed_by}");
    assert!(hundred <= 2 * batch, "{hundred}");
    if is_long() {
        assert!(took <= dictated + dictated * 3 / 100, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_excess_of_a_mailing_is_shown_with_its_reason_and_released_or_deleted_as_a_whole() {
    let relay = FakeRelay::default().forgetting_content().start().await;
    let listen = free_address();
    let home = Home::new("", "");
    let limits = "limits = { preset = \"unlimited\", mailing-limit = 30 }";
    home.configure(
        &format!(
            "hostname = \"penstock.test\"\ndefault-relay = \"own\"\n[[listen]]\naddress = \"{listen}\"\n[spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{}",
            relay_table("own", &relay, &home.path("ca.pem"), None, limits)
        ),
        "",
    );
    let mut daemon = home.start().await;
    let patience = PATIENCE;
    submit(listen, "news@one.test", "the news", 40).await;
    submit(listen, "news@two.test", "the news", 42).await;
    relay.received(60, patience).await;

    let items = |words: &[&str]| -> Vec<serde_json::Value> {
        let output = home.cli(words);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}: {text}");
        let lines = text.lines().map(|it| serde_json::from_str(it).unwrap());
        lines.collect()
    };
    let held = items(&["queue", "--held", "--json"]);
    assert_eq!(held.len(), 10 + 12);
    assert!(
        held.iter().all(|it| it["why"] == "mailing-limit"),
        "{held:?}"
    );
    let going_on = || {
        let mailings = items(&["mailings", "own", "--json"]);
        let mut found = mailings.into_iter();
        found.find(|it| it["from"] == "news@one.test")
    };
    // The relay has a message before the daemon has noted that it has.
    let pause = Duration::from_millis(50);
    until("its thirty are done", pause, async || {
        going_on().is_some_and(|it| it["done"] == 30)
    })
    .await;
    let one = going_on().expect("it is going on");
    assert_eq!(
        (&one["done"], &one["held"]),
        (&30.into(), &10.into()),
        "{one}"
    );
    assert_eq!(one["limit"], 30);
    let shown = items(&["limits", "own", "--json"]);
    assert_eq!(shown[0]["mailings"].as_array().unwrap().len(), 2);

    // The other one has the same subject, and stays.
    let key = one["key"].as_str().unwrap();
    let from = ["--mailing", key, "--from", "news@one.test", "--yes"];
    items(&[&["release", "--json"], &from[..]].concat());
    relay.received(70, patience).await;
    assert_eq!(items(&["queue", "--held", "--json"]).len(), 12);
    items(&["delete", "--json", "--mailing", "the news", "--yes"]);
    until("nothing waits", pause, async || {
        items(&["queue", "--json"]).is_empty()
    })
    .await;
    assert!(daemon.stop().await.success(), "{}", home.log());
    assert_eq!(relay.count(), 70);
}
