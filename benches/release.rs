//! What a decision costs with 10,000, 100,000 and 1,000,000 messages waiting, over 1,000
//! users and 50 relays: `cargo bench --bench release`.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use divan::{AllocProfiler, Bencher, black_box};
use jiff::Timestamp;
use penstock::clock::Moment;
use penstock::config::{Limits, Preset};
use penstock::mail::{Origin, QueueId};
use penstock::release::{Grant, Ledger, Release};
use penstock::spool::{FlowKey, Released, Waiting};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const WAITING: [u64; 3] = [10_000, 100_000, 1_000_000];
const USERS: u64 = 1_000;
const RELAYS: u64 = 50;

fn main() {
    divan::main();
}

fn limits(batch_messages: u32) -> Limits {
    Limits {
        batch_messages: Some(batch_messages),
        batch_bytes: Some(u64::from(batch_messages) * 160_000),
        per_hour: Some(batch_messages.saturating_mul(12)),
        recipients_per_message: None,
        ..Preset::Bulk.limits()
    }
}

/// A release with much waiting, and a spool that always has more.
struct World {
    release: Release,
    now: Moment,
    next_id: u64,
    running: VecDeque<Grant>,
}

impl World {
    fn new(waiting: u64, batch_messages: u32) -> Self {
        let mut world = Self {
            release: Release::new(Ledger::new()),
            now: Moment {
                uptime: Duration::from_secs(1_000_000),
                wall: Timestamp::from_second(1_790_000_000).expect("a time"),
                boot: 1,
            },
            next_id: 1,
            running: VecDeque::new(),
        };
        let relays: BTreeMap<String, Limits> = (0..RELAYS)
            .map(|it| (format!("relay{it}"), limits(batch_messages)))
            .collect();
        world.release.configure(&relays, world.now);
        for n in 0..waiting {
            world.accept(n % USERS);
        }
        let grants = world.release.plan(world.now);
        world.running.extend(grants);
        world
    }

    fn item(&mut self, flow: FlowKey) -> Waiting {
        self.next_id += 1;
        Waiting {
            id: QueueId::from_number(self.next_id),
            flow,
            wire_bytes: 20_000,
            recipients: 1,
            origin: Origin::Submission,
            accepted: self.now.wall,
            not_before: None,
        }
    }

    fn accept(&mut self, user: u64) {
        let flow = FlowKey {
            relay: format!("relay{}", user % RELAYS),
            user: format!("user{user}@example.nl"),
            mailing: "s-0123456789abcdef".into(),
        };
        let item = self.item(flow);
        self.release.waiting(&item, self.now);
    }

    fn refill(&mut self) {
        for refill in self.release.refills() {
            let items: Vec<Waiting> = (0..refill.limit)
                .map(|_| self.item(refill.flow.clone()))
                .collect();
            self.release.refilled(&refill, &items, self.now);
        }
    }

    /// One transaction ends, the next is chosen.
    fn turn(&mut self) {
        self.now = self.now.after(Duration::from_millis(1));
        if let Some(ended) = self.running.pop_front() {
            let at = self.now;
            self.release.settled(ended.grant, Released::Sent { at }, at);
        }
        let grants = self.release.plan(self.now);
        self.running.extend(grants);
        self.refill();
    }
}

/// A transaction ends and the next one is chosen: settled, plan, and its part of a refill.
#[divan::bench(args = WAITING)]
fn next_after_a_reply(bencher: Bencher, waiting: u64) {
    let mut world = World::new(waiting, 100_000_000);
    bencher.bench_local(|| world.turn());
}

/// A message is accepted while every window is full: waiting, plan.
#[divan::bench(args = WAITING)]
fn accepted_while_the_window_is_full(bencher: Bencher, waiting: u64) {
    let mut world = World::new(waiting, 500);
    while !world.running.is_empty() {
        world.turn();
    }
    let mut user = 0;
    bencher.bench_local(|| {
        user = (user + 1) % USERS;
        world.accept(user);
        black_box(world.release.plan(world.now));
    });
}

/// Nothing happened: plan, wake_at.
#[divan::bench(args = WAITING)]
fn nothing_new(bencher: Bencher, waiting: u64) {
    let mut world = World::new(waiting, 500);
    bencher.bench_local(|| {
        black_box(world.release.plan(world.now));
        black_box(world.release.wake_at());
    });
}

/// `penstock limits` asks about one relay.
#[divan::bench(args = WAITING)]
fn outlook_of_a_relay(bencher: Bencher, waiting: u64) {
    let mut world = World::new(waiting, 500);
    bencher.bench_local(|| black_box(world.release.outlook("relay7", world.now)));
}

/// Everything that a release with so much waiting keeps in memory.
#[divan::bench(args = WAITING, sample_count = 1, sample_size = 1)]
fn memory(waiting: u64) -> Release {
    World::new(waiting, 500).release
}

/// The ledger of 50 relays after a day of full batches, as bytes.
#[divan::bench]
fn ledger_to_bytes(bencher: Bencher) {
    let mut world = World::new(100_000, 500);
    for _ in 0..20_000 {
        world.now = world.now.after(Duration::from_millis(4_000));
        world.turn();
    }
    bencher.bench_local(|| black_box(world.release.ledger().to_bytes(world.now).len()));
}
