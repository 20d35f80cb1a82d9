//! What the release under limits promises, one test a promise.

use std::time::Duration;

use penstock::config::Limits;
use penstock::release::Wait;

use super::world::{Dice, GOOD, Manners, World, unlimited};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// 500 messages and 80 MB every 5 minutes, each batch within 1 minute.
fn usual() -> Limits {
    Limits {
        batch_messages: Some(500),
        batch_bytes: Some(80_000_000),
        ..unlimited()
    }
}

fn quick() -> Manners {
    Manners { slow: 200, ..GOOD }
}

fn last_of(world: &World, user: &str) -> u64 {
    let left = world.left.iter().filter(|it| it.user == user);
    left.map(|it| it.left).max().expect("something of it left")
}

#[test]
fn one_and_a_hundred_pass_ten_thousand_which_take_what_the_limit_dictates() {
    for share in [0.0, 0.05] {
        let limits = Limits {
            interactive_share: share,
            ..usual()
        };
        let mut world = World::new(&[("own", limits)]);
        world.manners = quick();
        let start = world.now;
        world.accept_many(10_000, "own", "bulk@example.nl", "s-news", 20_000);
        // The first batch is out, and the window full.
        world.run_until(start + 90_000);
        let queued = world.now;
        world.accept_many(100, "own", "colleague@example.nl", "s-survey", 20_000);
        world.run_until(queued + 1_000);
        world.accept("own", "one@example.nl", "s-reset", 5_000, 1);
        world.run_until(queued + 2_000);
        let one = last_of(&world, "one@example.nl");
        assert!(one <= queued + 1_250, "the one waited {} ms", one - queued);

        let end = world.run_until_empty(10 * HOUR);
        let hundred = last_of(&world, "colleague@example.nl") - queued;
        assert!(hundred <= 2 * 5 * MINUTE, "the hundred took {hundred} ms");
        // 10,101 messages are 21 batches: 20 intervals.
        let dictated = if share == 0.0 { 20 } else { 21 } * 5 * MINUTE;
        let took = end - start;
        assert!(
            took <= dictated + dictated * 3 / 100,
            "took {took} ms of {dictated}"
        );
        world.check_unchanged().unwrap();
    }
}

#[test]
fn the_hundred_behind_ten_thousand_are_out_within_two_batches() {
    let mut world = World::new(&[("own", usual())]);
    world.manners = quick();
    world.accept_many(10_000, "own", "bulk@example.nl", "s-news", 20_000);
    world.accept_many(100, "own", "colleague@example.nl", "s-survey", 20_000);
    let start = world.now;
    world.run_until(start + 5 * MINUTE);
    assert!(last_of(&world, "colleague@example.nl") <= start + MINUTE);
    assert_eq!(
        world
            .left
            .iter()
            .filter(|it| it.user.starts_with('c'))
            .count(),
        100
    );
}

#[test]
fn octets_and_messages_dictate_the_rate_whichever_is_less() {
    for (octets, per_hour) in [(160_000, 6_000.0), (320_000, 3_000.0), (1_000, 6_000.0)] {
        let mut world = World::new(&[("own", usual())]);
        world.manners = quick();
        world.accept_many(20_000, "own", "bulk@example.nl", "s-news", octets);
        let start = world.now;
        world.run_until(start + 3 * HOUR);
        let seen = world.observers["own"].count(start, 3 * HOUR) as f64 / 3.0;
        assert!(
            seen >= per_hour * 0.97 && seen <= per_hour,
            "{octets} octets: {seen} an hour"
        );
        world.check_unchanged().unwrap();
    }
}

#[test]
fn after_the_ledger_was_lost_every_limit_counts_as_used_up() {
    let a_day = |limits: Limits| {
        let mut world = World::new(&[("own", limits)]);
        world.manners = quick();
        world.forget_what_left("own");
        let lost = world.now;
        world.accept("own", "one@example.nl", "s", 5_000, 1);
        world.run_until(lost + 24 * HOUR - 10 * MINUTE);
        assert!(world.left.is_empty(), "left within the day");
        world.run_until_empty(HOUR);
    };
    a_day(Limits {
        per_hour: Some(50),
        per_day: Some(1_000),
        ..usual()
    });
    a_day(Limits {
        recipients_per_hour: Some(500),
        recipients_per_day: Some(1_000),
        ..usual()
    });
}

#[test]
fn a_lone_message_leaves_at_once() {
    let mut world = World::new(&[("own", usual())]);
    for minute in 0..200 {
        world.run_until(100_000 + minute * 7_000);
        world.accept("own", "erp@example.nl", "s-invoice", 10_000, 1);
        let accepted = world.now;
        world.run_until(accepted);
        assert_eq!(last_of(&world, "erp@example.nl"), accepted);
    }
}

#[test]
fn a_password_reset_passes_a_mailing_in_every_window() {
    let limits = Limits {
        per_hour: Some(6_000),
        interactive_share: 0.05,
        ..usual()
    };
    let mut world = World::new(&[("own", limits)]);
    world.manners = quick();
    world.accept_many(10_000, "own", "bulk@example.nl", "s-news", 20_000);
    for n in 0..60 {
        let at = 100_000 + (n + 1) * 67_000;
        world.run_until(at);
        world.accept("own", "web@example.nl", &format!("s-reset-{n}"), 4_000, 1);
        world.run_until(at + 500);
        let left = last_of(&world, "web@example.nl");
        assert!(
            left >= at && left <= at + 250,
            "reset {n}: {left} after {at}"
        );
    }
    world.check_unchanged().unwrap();
}

#[test]
fn a_message_larger_than_a_batch_leaves_alone_even_between_steady_interactive_mail() {
    let mut world = World::new(&[("own", usual())]);
    world.accept_many(1_000, "own", "bulk@example.nl", "s-news", 20_000);
    world.accept("own", "plans@example.nl", "s-plan", 200_000_000, 1);
    let start = world.now;
    for n in 0..120 {
        world.run_until(start + n * 20_000);
        world.accept("own", "web@example.nl", &format!("s-{n}"), 4_000, 1);
    }
    let left = last_of(&world, "plans@example.nl");
    assert!(left <= start + 3 * 5 * MINUTE + 5_000, "{}", left - start);
    world.run_until_empty(10 * HOUR);
    world.check_unchanged().unwrap();
}

#[test]
fn many_recipients_go_in_parts_each_once() {
    let limits = Limits {
        recipients_per_message: Some(10),
        recipients_per_hour: Some(25),
        ..unlimited()
    };
    let mut world = World::new(&[("own", limits)]);
    world.accept("own", "erp@example.nl", "s-all", 1_000, 64);
    let start = world.now;
    world.run_until_empty(10 * HOUR);
    let parts: Vec<u64> = world.observers["own"]
        .seen
        .iter()
        .map(|it| it.recipients)
        .collect();
    assert_eq!(parts.iter().sum::<u64>(), 64);
    assert!(parts.iter().all(|it| *it <= 10), "{parts:?}");
    let last = last_of(&world, "erp@example.nl");
    assert!(last - start <= 3 * HOUR, "{}", last - start);
    world.check_unchanged().unwrap();
}

#[test]
fn min_interval_holds_between_any_two() {
    let limits = Limits {
        min_interval: Duration::from_secs(3),
        ..unlimited()
    };
    let mut world = World::new(&[("own", limits)]);
    world.manners = Manners {
        slow: 5_000,
        ..GOOD
    };
    world.accept_many(100, "own", "erp@example.nl", "s-a", 1_000);
    world.run_until_empty(HOUR);
    world.check_unchanged().unwrap();
}

#[test]
fn min_interval_holds_over_restarts_and_reboots() {
    for reboot in [None, Some(0), Some(7_200_000)] {
        let limits = Limits {
            min_interval: Duration::from_mins(1),
            ..unlimited()
        };
        let mut world = World::new(&[("own", limits)]);
        world.manners = GOOD;
        for number in 0..10 {
            world.accept("own", "erp@example.nl", &format!("s-{number}"), 1_000, 1);
            while world.left.len() == number {
                assert!(world.now < HOUR, "number {number} never leaves");
                world.run_until(world.now + 100);
            }
            world.checkpoint();
            world.crash(500, reboot);
        }
        world.check_unchanged().unwrap();
    }
}

#[test]
fn a_clock_that_a_reboot_sets_back_makes_nobody_wait_for_it_to_catch_up() {
    let limits = Limits {
        batch_messages: Some(1),
        ..unlimited()
    };
    let mut world = World::new(&[("own", limits)]);
    world.manners = GOOD;
    world.accept_many(2, "own", "erp@example.nl", "s-a", 1_000);
    world.run_until(world.now + 60_000);
    assert_eq!(world.left.len(), 1);
    world.checkpoint();
    world.crash(1_000, Some(24 * HOUR as i64));
    let booted = world.now;
    let last = world.run_until_empty(HOUR);
    assert!(last - booted <= 310_000, "{} ms", last - booted);
    world.check_unchanged().unwrap();
}

/// docs/limits.md derives it: no message waits longer than `(2 A / (1 - k) + 2 + 3 o) P`,
/// where `A = n (f (2 a + 2 m) + 4 m)` batches at most leave before it.
#[test]
fn nothing_waits_longer_than_the_derived_bound() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let limits = Limits {
            batch_messages: Some(20 + dice.below(30) as u32),
            batch_bytes: Some(1_000_000),
            interactive_share: 0.1,
            ..unlimited()
        };
        let per_batch = f64::from(limits.batch_messages.unwrap());
        let cost = |octets: u64| (octets as f64 / 1e6).max(1.0 / per_batch);
        let mut world = World::new(&[("own", limits)]);
        world.manners = Manners {
            slow: 2_000,
            ..GOOD
        };
        world.dice = Dice(seed);
        let (users, mailings) = (1 + dice.below(6), 1 + dice.below(4));
        let largest = [2_000, 200_000, 899_000, 3_000_000][dice.below(4) as usize];

        // What is ahead of each message in its own flow when it is accepted.
        let mut flows: Vec<Vec<(u64, f64)>> = vec![Vec::new(); (users * mailings) as usize];
        let mut alone = 0.0;
        let mut bounds = Vec::new();
        for n in 0..400 {
            let (user, mailing) = (dice.below(users), dice.below(mailings));
            let octets = 100 + dice.below(largest);
            alone += f64::from(u8::from(octets > 900_000));
            let flow = &mut flows[(user * mailings + mailing) as usize];
            let ahead: f64 = flow.iter().map(|it| it.1).sum();
            flow.push((n, cost(octets)));
            world.accept(
                "own",
                &format!("u{user}"),
                &format!("s-{mailing}"),
                octets,
                1,
            );
            bounds.push(ahead);
            if dice.percent(30) {
                world.run_until(world.now + dice.below(60_000));
            }
        }
        world.run_until_empty(1_000 * HOUR);
        world.check_unchanged().unwrap();
        let (n, f, m) = (users as f64, mailings as f64, cost(largest + 100));
        for left in &world.left {
            let ahead = bounds[left.number];
            let before = n * (f * (2.0 * ahead + 2.0 * m) + 4.0 * m);
            let period = 300_000.0 * (1.0 + 1.0 / 240.0) + 2_001.0;
            let bound = (2.0 * before / 0.9 + 2.0 + 3.0 * alone) * period;
            assert!(
                (left.waited as f64) < bound,
                "seed {seed}: {} ms of {bound}",
                left.waited
            );
        }
    }
}

/// The same bound where others never run out and more keep coming: who is not served in
/// turn would wait for ever.
#[test]
fn nobody_is_put_off_by_others_who_never_run_out() {
    const BATCH: f64 = 20.0;
    const PERIOD: u64 = 300_000 + 300_000 / 240 + 2_001;
    for seed in 0..8 {
        let limits = Limits {
            batch_messages: Some(BATCH as u32),
            interactive_share: 0.1,
            ..unlimited()
        };
        let mut world = World::new(&[("own", limits)]);
        world.manners = Manners {
            slow: 2_000,
            ..GOOD
        };
        world.dice = Dice(seed);
        for (user, mailing) in [("a", "s-a"), ("b", "s-b"), ("x", "s-own")] {
            world.accept_many(4_000, "own", user, mailing, 1_000);
        }
        let (mut accepted, mut most_users) = (12_000, 0);
        let mut first = 0;
        for round in 0..150 {
            if round % 2 == 0 {
                world.accept_many(30, "own", &format!("new{round}"), "s-new", 1_000);
                accepted += 30;
            }
            if round == 10 + seed {
                first = accepted;
                // More than would be interactive.
                world.accept_many(22, "own", "x", "s-x", 1_000);
                accepted += 22;
            }
            let mailings = world.release.mailings("own", world.moment());
            let users: std::collections::BTreeSet<_> =
                mailings.iter().map(|it| it.flow.user.clone()).collect();
            most_users = most_users.max(users.len());
            world.run_until(world.now + PERIOD);
        }
        world.check_unchanged().unwrap();
        let (n, f, m, k) = (most_users as f64, 2.0, 1.0 / BATCH, 0.1);
        for place in 0..22 {
            let ahead = place as f64 / BATCH;
            let before = n * (f * (2.0 * ahead + 2.0 * m) + 4.0 * m);
            let bound = (2.0 * before / (1.0 - k) + 2.0) * PERIOD as f64;
            let left = world.left.iter().find(|it| it.number == first + place);
            let Some(left) = left else {
                panic!("seed {seed}: the {place}th is still there, its bound is {bound} ms");
            };
            let waited = left.waited as f64;
            assert!(
                waited < bound,
                "seed {seed}, {place}: {waited} ms of {bound}"
            );
        }
    }
}

#[test]
fn whatever_waits_has_a_reason_and_a_time() {
    let limits = Limits {
        per_hour: Some(1_200),
        ..usual()
    };
    let mut world = World::new(&[("own", limits.clone())]);
    world.manners = quick();
    let start = world.now;
    world.accept_many(3_000, "own", "bulk@example.nl", "s-news", 20_000);
    world.run_until(start + 2 * MINUTE);
    let now = world.moment();
    let outlook = world.release.outlook("own", now).unwrap();
    assert_eq!(outlook.wait, Some(Wait::NextBatch));
    assert_eq!(outlook.waiting.messages, 2_501);
    let use_of = |key| outlook.limits.iter().find(|it| it.limit == key).unwrap();
    assert_eq!(
        (use_of("batch-messages").used, use_of("batch-messages").most),
        (499, 500)
    );
    assert_eq!((use_of("per-hour").used, use_of("per-hour").kept), (499, 1));
    // The next batch opens five minutes after the first one did.
    let opens = outlook.next_batch.unwrap();
    assert_eq!(Some(opens), outlook.until);
    assert_eq!(
        opens.as_millisecond() - now.wall.as_millisecond(),
        3 * MINUTE as i64
    );

    let estimate = outlook.empty_at.unwrap().as_millisecond() - now.wall.as_millisecond();
    let mailings = world.release.mailings("own", now);
    assert_eq!(mailings.len(), 1);
    assert_eq!(mailings[0].done_at, outlook.empty_at);
    assert!(!mailings[0].is_interactive);

    // Then the hour is full.
    world.run_until(start + 20 * MINUTE);
    let now = world.moment();
    let outlook = world.release.outlook("own", now).unwrap();
    assert_eq!(outlook.wait, Some(Wait::Limit("per-hour")));

    world.release.pause("own");
    let outlook = world.release.outlook("own", now).unwrap();
    assert_eq!((outlook.wait, outlook.empty_at), (Some(Wait::Paused), None));
    world.release.resume("own");
    world.reload("own", None);
    let outlook = world.release.outlook("own", world.moment()).unwrap();
    assert_eq!(outlook.wait, Some(Wait::NotConfigured));
    world.reload("own", Some(limits));

    let end = world.run_until_empty(10 * HOUR);
    let took = (end - start - 2 * MINUTE) as i64;
    assert!((took - estimate).abs() < estimate / 10, "{took} {estimate}");
}

#[test]
fn a_mailing_is_told_when_it_will_be_done_though_others_share() {
    let mut world = World::new(&[("own", usual())]);
    world.manners = quick();
    world.accept_many(4_000, "own", "bulk@example.nl", "s-news", 20_000);
    world.accept_many(1_000, "own", "ann@example.nl", "s-survey", 20_000);
    let start = world.now;
    world.run_until(start + 1_000);
    let mailings = world.release.mailings("own", world.moment());
    let told: Vec<(String, i64)> = mailings
        .iter()
        .map(|it| (it.flow.user.clone(), it.done_at.unwrap().as_millisecond()))
        .collect();
    let zero = world.moment().wall.as_millisecond() - 1_000;
    world.run_until_empty(10 * HOUR);
    for (user, told) in told {
        let took = (last_of(&world, &user) - start) as i64;
        let told = told - zero;
        let near = 5 * MINUTE as i64 + 90_000;
        assert!((took - told).abs() <= near, "{user}: {took} {told}");
    }
}

#[test]
fn what_is_released_from_a_hold_while_the_spool_is_asked_is_not_lost() {
    let mut world = World::new(&[("own", usual())]);
    world.manners = Manners { late: 100, ..GOOD };
    world.accept_many(200, "own", "bulk@example.nl", "s-news", 20_000);
    for which in [0, 0, 50, 100] {
        world.hold(which);
    }
    // After a restart everything has to be asked for.
    world.crash(1_000, None);
    world.run_until(world.now);
    world.release_held(&["own"]);
    world.run_until_empty(HOUR);
    assert_eq!(world.left.len(), 200);
}
