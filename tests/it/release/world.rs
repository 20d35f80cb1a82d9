//! A simulated world around a `Release`: true time, clocks that may lie, a spool that
//! remembers, a log that may lose its last moments, and relays that take their time.

mod manners;
mod restart;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use penstock::clock::Moment;
use penstock::config::Limits;
use penstock::mail::{Origin, QueueId};
use penstock::release::{Ledger, Refill, Release};
use penstock::spool::{FlowKey, LedgerEvent, Waiting};

use super::observer::Observer;

pub use manners::{Dice, GOOD, Manners, unlimited};
use transactions::Transaction;

#[derive(Debug, Clone)]
struct Message {
    item: Waiting,
    /// True time.
    accepted: u64,
    /// True time from which on it may be tried again.
    due: u64,
    under_way: bool,
}

/// How a message left, for the promises about waiting.
#[derive(Debug, Clone)]
pub struct Left {
    /// The how manieth it was that was accepted.
    pub number: usize,
    pub waited: u64,
    pub left: u64,
    pub user: String,
}

pub struct World {
    pub now: u64,
    booted: u64,
    boot: u64,
    /// Wall time ahead of true time, milliseconds.
    wall: i64,
    /// `wall` at everything that went into the log and survived.
    last_logged: Vec<i64>,
    pub release: Release,
    pub relays: BTreeMap<String, Arc<Limits>>,
    messages: BTreeMap<QueueId, Message>,
    due: BTreeSet<(u64, QueueId)>,
    recent: BTreeMap<FlowKey, Vec<Timestamp>>,
    running: Vec<Transaction>,
    held: Vec<Message>,
    /// Answers of the spool that are on their way, and when they arrive.
    answers: Vec<(u64, Refill, Vec<Waiting>)>,
    log: Vec<(u64, LedgerEvent)>,
    checkpoint: (Option<Vec<u8>>, usize),
    next_id: u64,
    pub observers: BTreeMap<String, Observer>,
    pub manners: Manners,
    pub dice: Dice,
    pub left: Vec<Left>,
    pub plans: u64,
}

const FIRST_ID: u64 = 1_000;
const START: i64 = 1_790_000_000_000;

impl World {
    pub fn new(relays: &[(&str, Limits)]) -> Self {
        let mut world = Self {
            now: 0,
            booted: 0,
            boot: 1,
            wall: 0,
            last_logged: Vec::new(),
            release: Release::new(Ledger::new()),
            relays: BTreeMap::new(),
            messages: BTreeMap::new(),
            due: BTreeSet::new(),
            recent: BTreeMap::new(),
            running: Vec::new(),
            held: Vec::new(),
            answers: Vec::new(),
            log: Vec::new(),
            checkpoint: (None, 0),
            next_id: FIRST_ID,
            observers: BTreeMap::new(),
            manners: GOOD,
            dice: Dice(1),
            left: Vec::new(),
            plans: 0,
        };
        // Not at the very start of the boot's clock.
        world.now = 100_000;
        for (name, limits) in relays {
            world
                .relays
                .insert((*name).into(), Arc::new(limits.clone()));
        }
        world.configure();
        world
    }

    pub fn moment(&self) -> Moment {
        Moment {
            uptime: Duration::from_millis(self.now - self.booted),
            wall: self.wall(),
            boot: self.boot,
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millisecond(START + self.now as i64 + self.wall).unwrap()
    }

    fn configure(&mut self) {
        let relays = self
            .relays
            .iter()
            .map(|(name, limits)| (name.clone(), Limits::clone(limits)))
            .collect();
        self.release.configure(&relays, self.moment());
    }

    /// The ledger is lost: nobody knows what left lately.
    pub fn forget_what_left(&mut self, relay: &str) {
        self.release.assume_spent(relay, self.moment());
    }

    /// A reload with other limits for one relay; none: it is no longer configured.
    pub fn reload(&mut self, relay: &str, limits: Option<Limits>) {
        match limits {
            Some(limits) => self.relays.insert(relay.into(), Arc::new(limits)),
            None => self.relays.remove(relay),
        };
        self.configure();
    }

    /// Sets the wall clock.
    pub fn set_wall(&mut self, by: i64) {
        self.wall += by;
    }

    pub fn accept(&mut self, relay: &str, user: &str, mailing: &str, octets: u64, recipients: u32) {
        let flow = FlowKey {
            relay: relay.into(),
            user: user.into(),
            mailing: mailing.into(),
        };
        let id = QueueId::from_number(self.next_id);
        self.next_id += 1;
        let item = Waiting {
            id,
            flow: flow.clone(),
            wire_bytes: octets,
            recipients,
            origin: Origin::Submission,
            accepted: self.wall(),
            not_before: None,
        };
        let recent = self.recent.entry(flow).or_default();
        recent.push(item.accepted);
        if recent.len() > 21 {
            recent.remove(0);
        }
        self.release.waiting(&item, self.moment());
        let message = Message {
            item,
            accepted: self.now,
            due: self.now,
            under_way: false,
        };
        self.messages.insert(message.item.id, message);
    }

    pub fn accept_many(
        &mut self,
        count: usize,
        relay: &str,
        user: &str,
        mailing: &str,
        octets: u64,
    ) {
        for _ in 0..count {
            self.accept(relay, user, mailing, octets, 1);
        }
    }

    /// Lets everything happen until `until`.
    pub fn run_until(&mut self, until: u64) {
        let mut idle = 0;
        loop {
            let busy = self.act();
            idle = if busy { 0 } else { idle + 1 };
            let wake = self
                .release
                .wake_at()
                .map(|it| self.booted + u64::try_from(it.as_millis()).unwrap());
            if let Some(wake) = wake {
                assert!(wake > self.now, "a wake-up in the past: busy loop");
            }
            let ends = self.running.iter().map(|it| it.ends).min();
            let due = self.due.first().map(|it| it.0.max(self.now + 1));
            assert!(idle < 1_000, "nothing happens, again and again");
            let answer = self.answers.iter().map(|it| it.0).min();
            let next = [wake, ends, due, answer].into_iter().flatten().min();
            match next.filter(|at| *at <= until) {
                Some(next) => self.now = next,
                None => {
                    self.now = self.now.max(until);
                    return;
                }
            }
        }
    }

    /// Lets everything leave; says when the last one did.
    pub fn run_until_empty(&mut self, at_most: u64) -> u64 {
        let end = self.now + at_most;
        while !self.messages.is_empty() {
            assert!(
                self.now < end,
                "{} messages still wait: {:?} of {:#?}",
                self.messages.len(),
                self.messages.values().next(),
                self.release
            );
            self.run_until((self.now + 3_600_000).min(end));
        }
        self.left.iter().map(|it| it.left).max().unwrap_or(self.now)
    }

    /// What happens at this moment.
    fn act(&mut self) -> bool {
        let mut busy = false;
        loop {
            let mut more = self.end_transactions();
            more |= self.tell_due();
            more |= self.refill();
            let grants = self.release.plan(self.moment());
            self.plans += 1;
            more |= !grants.is_empty();
            self.begin(grants);
            more |= self.running.iter().any(|it| it.ends <= self.now);
            busy |= more;
            if !more {
                return busy;
            }
        }
    }

    fn refill(&mut self) -> bool {
        for refill in self.release.refills() {
            let items: Vec<Waiting> = self
                .messages
                .range((
                    std::ops::Bound::Excluded(refill.after),
                    std::ops::Bound::Unbounded,
                ))
                .map(|it| it.1)
                .filter(|it| it.item.flow == refill.flow && it.item.not_before.is_none())
                .take(refill.limit)
                .map(|it| it.item.clone())
                .collect();
            let late = if self.dice.percent(self.manners.late) {
                self.dice.below(2_000)
            } else {
                0
            };
            self.answers.push((self.now + late, refill, items));
        }
        let mut answered = false;
        while let Some(place) = self.answers.iter().position(|it| it.0 <= self.now) {
            let (_, refill, items) = self.answers.remove(place);
            self.release.refilled(&refill, &items, self.moment());
            answered = true;
        }
        answered
    }

    /// Holds one of the messages that wait, if there is one that is not under way.
    pub fn hold(&mut self, which: usize) {
        let resting = self.messages.values().filter(|it| !it.under_way);
        let resting: Vec<QueueId> = resting.map(|it| it.item.id).collect();
        if resting.is_empty() {
            return;
        }
        let id = resting[which % resting.len()];
        let message = self.messages.remove(&id).expect("it is one of them");
        self.due.remove(&(message.due, id));
        self.release.removed(&message.item, self.moment());
        self.held.push(message);
    }

    /// Releases everything that was held, some of it to another relay.
    pub fn release_held(&mut self, relays: &[&str]) {
        for mut message in std::mem::take(&mut self.held) {
            if self.dice.percent(30) {
                let relay = relays[self.dice.below(relays.len() as u64) as usize];
                message.item.flow.relay = relay.into();
            }
            message.item.not_before = None;
            self.release.waiting(&message.item, self.moment());
            self.messages.insert(message.item.id, message);
        }
    }

    fn tell_due(&mut self) -> bool {
        let mut told = false;
        while let Some((at, id)) = self.due.first().copied()
            && at <= self.now
        {
            self.due.pop_first();
            if let Some(message) = self.messages.get(&id) {
                self.release.waiting(&message.item, self.moment());
                told = true;
            }
        }
        told
    }

    /// No relay saw more than its limits, which never changed.
    pub fn check_unchanged(&mut self) -> Result<(), String> {
        for (relay, observer) in &mut self.observers {
            let limits = &self.relays[relay];
            observer
                .check_unchanged(limits)
                .map_err(|it| format!("{relay}: {it}"))?;
        }
        Ok(())
    }

    /// No relay saw more than its limits.
    pub fn check(&mut self) -> Result<(), String> {
        for (relay, observer) in &mut self.observers {
            observer.check().map_err(|it| format!("{relay}: {it}"))?;
        }
        Ok(())
    }
}
