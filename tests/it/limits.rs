//! Promise 2, seen from the relay: whatever is submitted, and however often the daemon is
//! stopped and started, no window of any limit ever holds more than it may.

use std::collections::BTreeSet;
use std::time::Duration;

use penstock::daemon::Ended;

use crate::client::message;
use crate::harness::{Harness, relay};
use crate::relay::{Answer, FakeRelay, Transaction};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The most that any window of this length held.
fn most(
    transactions: &[Transaction],
    window: Duration,
    weight: impl Fn(&Transaction) -> usize,
) -> usize {
    let ends_at = |first: &Transaction| first.ended + window;
    (0..transactions.len())
        .map(|at| {
            let within = transactions[at..]
                .iter()
                .take_while(|it| it.ended < ends_at(&transactions[at]));
            within.map(&weight).sum()
        })
        .max()
        .unwrap_or(0)
}

fn in_order(mut transactions: Vec<Transaction>) -> Vec<Transaction> {
    transactions.sort_by_key(|it| it.ended);
    transactions
}

async fn submit(penstock: &Harness, from: &str, count: usize, subject: &str) {
    let mut client = penstock.client().await;
    for _ in 0..count {
        let content = message(from, "bob@example.net", subject, "hello");
        client
            .submit(from, &["bob@example.net"], &content)
            .await
            .expect_code(250);
    }
}

#[tokio::test(start_paused = true)]
async fn no_window_of_any_limit_is_ever_exceeded_not_even_over_restarts() {
    let out = FakeRelay::default()
        .answering_times(
            ".",
            7,
            Answer::from("250 2.0.0 slowly").after(Duration::from_secs(40)),
        )
        .answering_times("RCPT", 5, "451 4.3.0 later")
        .start()
        .await;
    let limits = "limits = { batch-messages = 10, batch-interval = \"5m\", batch-window = \"1m\", per-hour = 30, min-interval = \"2s\", connections = 3 }";
    let mut penstock = Harness::relaying_to(&out, limits).await;
    submit(&penstock, "ann@example.org", 40, "news").await;
    for round in 0..6 {
        tokio::time::sleep(Duration::from_secs(130 * (round + 1))).await;
        submit(&penstock, "jan@example.org", 5, &format!("single {round}")).await;
        penstock.stop().await;
        penstock.run().await;
    }
    penstock.until_idle().await;
    let all = in_order(out.transactions());
    assert_eq!(out.accepted().len(), 70);
    assert!(most(&all, 5 * MINUTE, |_| 1) <= 10, "{:?}", times(&all));
    assert!(most(&all, HOUR, |_| 1) <= 30, "{:?}", times(&all));
    assert!(
        most(&all, Duration::from_secs(2), |_| 1) <= 1,
        "{:?}",
        times(&all)
    );
    assert!(out.most_connections() <= 3, "{}", out.most_connections());
    // And it did not dawdle: 70 at 30 an hour are done in the third hour.
    let took = all.last().unwrap().ended - all[0].ended;
    assert!(took < 3 * HOUR, "{took:?}");
}

fn times(all: &[Transaction]) -> Vec<u64> {
    all.iter().map(|it| it.ended.as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn octets_count_as_they_are_sent_and_a_giant_leaves_alone() {
    let out = FakeRelay::default().without("CHUNKING").start().await;
    let limits = "limits = { batch-messages = 100, batch-bytes = \"100KB\", batch-interval = \"5m\", per-hour = \"unlimited\" }";
    let penstock = Harness::relaying_to(&out, limits).await;
    let mut client = penstock.client().await;
    // Every line begins with a dot: a third more on the wire.
    for _ in 0..6 {
        let content = message(
            "ann@example.org",
            "bob@example.net",
            "dots",
            &".a\r\n".repeat(8_000),
        );
        client
            .submit("ann@example.org", &["bob@example.net"], &content)
            .await
            .expect_code(250);
    }
    let giant = message(
        "jan@example.org",
        "bob@example.net",
        "giant",
        &"0123456789\r\n".repeat(20_000),
    );
    client
        .submit("jan@example.org", &["bob@example.net"], &giant)
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let all = in_order(out.transactions());
    assert_eq!(all.len(), 7);
    let (giants, small): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|it| it.wire.len() > 100_000);
    assert!(
        most(&small, 5 * MINUTE, |it| it.wire.len()) <= 100_000,
        "{:?}",
        times(&small)
    );
    let giant = &giants[0];
    for other in small {
        let apart = giant.ended.abs_diff(other.ended);
        assert!(apart >= 5 * MINUTE, "the giant had company {apart:?} away");
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_reset_passes_a_mailing_of_a_thousand() {
    let out = FakeRelay::default().forgetting_content().start().await;
    let limits =
        "limits = { batch-messages = 50, batch-interval = \"5m\", per-hour = \"unlimited\" }";
    let penstock = Harness::relaying_to(&out, limits).await;
    submit(&penstock, "news@example.org", 1000, "the news").await;
    tokio::time::sleep(7 * MINUTE).await;
    let before = out.count();
    assert!((50..=150).contains(&before), "{before}");
    let mut client = penstock.client().await;
    let content = message(
        "reset@example.org",
        "carl@example.net",
        "your password",
        "hello",
    );
    client
        .submit("reset@example.org", &["carl@example.net"], &content)
        .await
        .expect_code(250);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let went = out
        .accepted()
        .iter()
        .any(|it| it.reverse_path() == "reset@example.org");
    assert!(went, "it waits: {:?}", penstock.queue().await.last());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_behind_a_thousand_are_out_within_two_batches() {
    let out = FakeRelay::default().forgetting_content().start().await;
    let limits =
        "limits = { batch-messages = 250, batch-interval = \"5m\", per-hour = \"unlimited\" }";
    let penstock = Harness::relaying_to(&out, limits).await;
    submit(&penstock, "big@example.org", 1000, "big").await;
    tokio::time::sleep(MINUTE).await;
    submit(&penstock, "small@example.org", 100, "small").await;
    let before = out.count();
    tokio::time::sleep(11 * MINUTE).await;
    let small = out
        .accepted()
        .iter()
        .filter(|it| it.reverse_path() == "small@example.org")
        .count();
    assert_eq!(small, 100, "{before} had gone before");
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_without_a_reason_that_can_be_shown() {
    let out = FakeRelay::default()
        .answering("RCPT TO:<later@", "450 4.2.1 mailbox busy")
        .start()
        .await;
    let limits = "limits = { batch-messages = 5, batch-interval = \"5m\", per-hour = 20, mailing-limit = 30 }";
    let mut penstock = Harness::relaying_to(&out, limits).await;
    submit(&penstock, "news@example.org", 40, "the news").await;
    penstock
        .submit("ann@example.org", &["later@example.net"], "one")
        .await
        .expect_code(250);
    tokio::time::sleep(MINUTE).await;
    let queue = penstock.queue().await;
    assert!(queue.len() > 30, "{queue:?}");
    let word = |message: &serde_json::Value, key: &str| {
        let said = message[key].as_str().unwrap_or_default();
        said.to_owned()
    };
    let told: BTreeSet<(String, String)> = queue
        .iter()
        .map(|it| (word(it, "state"), word(it, "why")))
        .collect();
    let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    // What was put off may be due again by now, and waits like the others.
    let always = [("held", "mailing-limit"), ("waiting", "limit")];
    let perhaps = [("deferred", "retry"), ("waiting", "turn")];
    assert!(always.iter().all(|it| told.contains(it)), "{told:?}");
    let known = |it: &(&str, &str)| always.contains(it) || perhaps.contains(it);
    assert!(told.iter().all(known), "{told:?}");
    assert_eq!(penstock.stop().await, Ended::InGoodOrder);
}

/// Submits 60 at once and lets them go under a batch of 20.
async fn sixty_under_twenty(out: &crate::relay::Relay) -> Harness {
    let penstock = Harness::relaying_to(out, &batch_of(20)).await;
    submit(&penstock, "news@example.org", 60, "the news").await;
    tokio::time::sleep(MINUTE).await;
    assert!((19..=20).contains(&out.count()), "{}", out.count());
    penstock
}

fn batch_of(messages: usize) -> String {
    format!(
        "limits = {{ batch-messages = {messages}, batch-interval = \"5m\", per-hour = \"unlimited\", interactive-share = \"0%\" }}"
    )
}

#[tokio::test(start_paused = true)]
async fn a_limit_lowered_by_a_reload_counts_what_already_left() {
    let out = FakeRelay::default().forgetting_content().start().await;
    let penstock = sixty_under_twenty(&out).await;
    let before = out.count();
    let config = format!(
        "default-relay = \"out\"\n{}",
        relay("out", &out, &batch_of(5))
    );
    penstock.configure(&config, "");
    penstock.ask(serde_json::json!({"reload": {}})).await;
    penstock.until_idle().await;
    let all = in_order(out.transactions());
    assert_eq!(all.len(), 60);
    // Not one more while what left under the old limit is in the window,
    let apart = all[before].ended - all[before - 1].ended;
    assert!(apart > 5 * MINUTE, "{apart:?}");
    // and five at most from then on.
    let later = &all[before..];
    assert!(most(later, 5 * MINUTE, |_| 1) <= 5, "{:?}", times(later));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_index_takes_no_limit_with_it() {
    let out = FakeRelay::default().forgetting_content().start().await;
    let mut penstock = sixty_under_twenty(&out).await;
    for _ in 0..3 {
        penstock.stop().await;
        std::fs::remove_dir_all(penstock.path("state/index")).unwrap();
        penstock.run().await;
        tokio::time::sleep(MINUTE).await;
    }
    penstock.until_idle().await;
    let all = in_order(out.transactions());
    assert_eq!(all.len(), 60);
    assert!(most(&all, 5 * MINUTE, |_| 1) <= 20, "{:?}", times(&all));
    // Three full batches but for what is kept of each.
    let took = all[59].ended - all[0].ended;
    assert!(took < 16 * MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_neither_opens_a_window_nor_closes_one() {
    let out = FakeRelay::default().forgetting_content().start().await;
    let mut penstock = sixty_under_twenty(&out).await;
    for hours in [3, -30, 26, -1, 2] {
        penstock
            .clock()
            .set_wall(jiff::SignedDuration::from_hours(hours));
        tokio::time::sleep(MINUTE).await;
        // What a restart reads of the log was written by either clock.
        penstock.stop().await;
        penstock.run().await;
    }
    penstock.until_idle().await;
    let all = in_order(out.transactions());
    assert_eq!(all.len(), 60);
    assert!(most(&all, 5 * MINUTE, |_| 1) <= 20, "{:?}", times(&all));
    let took = all[59].ended - all[0].ended;
    assert!(took < 16 * MINUTE, "{took:?}");
}
