//! Whatever happens, no relay gets more than its limits, and everything leaves.

use std::time::Duration;

use penstock::config::Limits;
use proptest::prelude::*;

use super::world::{Dice, Manners, World, unlimited};

#[derive(Debug, Clone)]
enum Event {
    Accept {
        relay: usize,
        user: u8,
        mailing: u8,
        count: u8,
        octets: u64,
        recipients: u32,
    },
    Wait(u64),
    Crash {
        down: u64,
        reboot: Option<i64>,
    },
    SetWall(i64),
    Reload {
        relay: usize,
        limits: Option<usize>,
    },
    Checkpoint,
    Hold(usize),
    ReleaseHeld,
    Pause(usize),
    Resume(usize),
}

const RELAYS: [&str; 2] = ["own", "carerix"];

fn limits() -> impl Strategy<Value = Limits> {
    let some = |range: std::ops::Range<u32>| prop::option::weighted(0.6, range);
    (
        (
            prop::option::weighted(0.8, 1u32..12),
            prop::option::weighted(0.6, 200u64..5_000),
            1u64..400,
            1u64..120,
        ),
        (
            some(3..40),
            some(5..80),
            some(1..6),
            some(4..60),
            some(6..90),
        ),
        (
            prop_oneof![3 => Just(0u64), 1 => 1u64..20_000],
            1u32..5,
            prop_oneof![Just(0.0), Just(0.05), 0.0..1.0],
        ),
    )
        .prop_map(|(batch, counts, rest)| Limits {
            batch_messages: batch.0,
            batch_bytes: batch.1,
            batch_interval: Duration::from_secs(batch.2),
            batch_window: Duration::from_secs(batch.3),
            per_hour: counts.0,
            per_day: counts.1,
            recipients_per_message: counts.2,
            recipients_per_hour: counts.3,
            recipients_per_day: counts.4,
            min_interval: Duration::from_millis(rest.0),
            connections: rest.1,
            interactive_share: rest.2,
            ..unlimited()
        })
}

fn event() -> impl Strategy<Value = Event> {
    let relay = 0..RELAYS.len();
    prop_oneof![
        8 => (relay.clone(), 0u8..4, 0u8..3, 1u8..90, 1u64..3_000, prop_oneof![4 => Just(1u32), 1 => 1u32..12])
            .prop_map(|(relay, user, mailing, count, octets, recipients)| Event::Accept {
                relay, user, mailing, count, octets, recipients,
            }),
        6 => prop_oneof![0u64..2_000, 0u64..100_000, 0u64..4_000_000, 0u64..90_000_000].prop_map(Event::Wait),
        2 => (0u64..600_000, prop::option::of(prop_oneof![Just(0i64), 0i64..7_200_000]))
            .prop_map(|(down, reboot)| Event::Crash { down, reboot }),
        2 => prop_oneof![-7_200_000i64..7_200_000, -90_000_000i64..90_000_000].prop_map(Event::SetWall),
        2 => (relay.clone(), prop::option::weighted(0.9, 0usize..4))
            .prop_map(|(relay, limits)| Event::Reload { relay, limits }),
        2 => Just(Event::Checkpoint),
        3 => (0usize..200).prop_map(Event::Hold),
        1 => Just(Event::ReleaseHeld),
        1 => relay.clone().prop_map(Event::Pause),
        1 => relay.prop_map(Event::Resume),
    ]
}

fn manners() -> impl Strategy<Value = Manners> {
    (
        prop_oneof![Just(0u64), 1u64..2_000, 1u64..200_000],
        prop_oneof![Just(0u64), 0u64..30],
        0u64..10,
        prop_oneof![Just(0u64), 0u64..20],
        prop_oneof![Just(0u64), 0u64..100],
    )
        .prop_map(|(slow, refuses, silent, unstarted, late)| Manners {
            slow,
            refuses,
            silent,
            unstarted,
            late,
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|it| it.parse().ok()).unwrap_or(96),
        max_shrink_iters: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_window_of_any_limit_is_ever_overrun_and_everything_leaves(
        configured in prop::collection::vec(limits(), 4),
        events in prop::collection::vec(event(), 1..40),
        manners in manners(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(&[(RELAYS[0], configured[0].clone()), (RELAYS[1], configured[1].clone())]);
        world.manners = manners;
        world.dice = Dice(seed);
        for event in events {
            match event {
                Event::Accept { relay, user, mailing, count, octets, recipients } => {
                    for _ in 0..count {
                        world.accept(RELAYS[relay], &format!("u{user}@example.nl"), &format!("s-{mailing}"), octets, recipients);
                    }
                }
                Event::Wait(length) => world.run_until(world.now + length),
                Event::Crash { down, reboot } => world.crash(down, reboot),
                Event::SetWall(by) => world.set_wall(by),
                Event::Reload { relay, limits } => world.reload(RELAYS[relay], limits.map(|it| configured[it].clone())),
                Event::Hold(which) => world.hold(which),
                Event::ReleaseHeld => world.release_held(&RELAYS),
                Event::Checkpoint => world.checkpoint(),
                Event::Pause(relay) => world.release.pause(RELAYS[relay]),
                Event::Resume(relay) => world.release.resume(RELAYS[relay]),
            }
        }
        // In the end there is peace: every message leaves.
        world.release_held(&RELAYS);
        world.manners = Manners { refuses: 0, silent: 0, ..manners };
        for (relay, limits) in RELAYS.iter().zip(&configured) {
            world.reload(relay, Some(limits.clone()));
            world.release.resume(relay);
        }
        world.run_until_empty(10_000 * 86_400_000);
        prop_assert_eq!(world.check(), Ok(()));
    }
}
