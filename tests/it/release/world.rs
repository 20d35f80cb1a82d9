//! A simulated world around a `Release`: true time, clocks that may lie, a spool that
//! remembers, a log that may lose its last moments, and relays that take their time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use penstock::clock::Moment;
use penstock::config::{Limits, Preset};
use penstock::mail::{Origin, QueueId};
use penstock::release::{Grant, Ledger, Refill, Release};
use penstock::spool::{
    Amount, FlowKey, FlowSummary, Lease, Leased, LedgerEvent, Recovered, Released, Waiting,
};

use super::observer::{Observer, Seen};

/// Limits of nothing, with intervals as usual and no share for interactive mail.
pub fn unlimited() -> Limits {
    Limits {
        preset: Preset::Unlimited,
        batch_messages: None,
        batch_bytes: None,
        batch_interval: Duration::from_secs(300),
        batch_window: Duration::from_secs(60),
        per_hour: None,
        per_day: None,
        recipients_per_message: None,
        recipients_per_hour: None,
        recipients_per_day: None,
        min_interval: Duration::ZERO,
        connections: 4,
        messages_per_connection: None,
        mailing_limit: None,
        interactive_share: 0.0,
        overridden: Vec::new(),
    }
}

/// A small generator of numbers (splitmix64): a world is the same for the same seed.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// How a relay behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Milliseconds of a transaction, at most.
    pub slow: u64,
    /// Percent refused before the content.
    pub refuses: u64,
    /// Percent whose reply never comes.
    pub silent: u64,
    /// Percent of grants that the delivery does not begin.
    pub unstarted: u64,
    /// Percent of the spool's answers that come late.
    pub late: u64,
}

/// Quick and always content.
pub const GOOD: Manners = Manners {
    slow: 0,
    refuses: 0,
    silent: 0,
    unstarted: 0,
    late: 0,
};

#[derive(Debug, Clone)]
struct Message {
    item: Waiting,
    /// True time.
    accepted: u64,
    /// True time from which on it may be tried again.
    due: u64,
    under_way: bool,
}

#[derive(Debug)]
struct Transaction {
    grant: Grant,
    /// In force when it was decided.
    limits: Arc<Limits>,
    ends: u64,
    /// When the relay takes it, if it does.
    taken: Option<u64>,
    released: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    Sent,
    NotSent,
    InDoubt,
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

    fn write(&mut self, event: LedgerEvent) {
        // What was given back carries no reading of the clocks.
        let is_read = !matches!(
            event,
            LedgerEvent::Released {
                released: Released::NotSent,
                ..
            }
        );
        let before = self.last_logged.last().copied().filter(|_| !is_read);
        self.last_logged.push(before.unwrap_or(self.wall));
        self.log.push((self.now, event));
    }

    fn begin(&mut self, grants: Vec<Grant>) {
        let at = self.moment();
        for grant in &grants {
            let item = Leased {
                grant: grant.grant,
                id: grant.id,
                recipients: grant.recipients,
                wire_bytes: grant.wire_bytes,
            };
            self.write(LedgerEvent::Leased(Lease {
                relay: grant.relay.to_string(),
                at,
                items: vec![item],
            }));
        }
        for grant in grants {
            if let Some(before) = grant.start_before {
                assert!(before >= at.uptime, "granted after its batch closed");
            }
            if self.dice.percent(self.manners.unstarted) {
                self.write(LedgerEvent::Released {
                    grant: grant.grant,
                    released: Released::NotSent,
                });
                self.release.unstarted(grant.grant, self.moment());
                continue;
            }
            let here = self.messages.get_mut(&grant.id);
            let here = here.filter(|it| it.item.flow == *grant.flow);
            let Some(message) = here else {
                // An answer of the spool was late, and it was held or moved meanwhile.
                assert!(self.manners.late > 0, "granted what does not wait");
                self.write(LedgerEvent::Released {
                    grant: grant.grant,
                    released: Released::NotSent,
                });
                self.release
                    .settled(grant.grant, Released::NotSent, self.moment());
                continue;
            };
            assert!(!message.under_way, "granted twice at once");
            assert!(message.item.recipients >= grant.recipients && grant.recipients > 0);
            message.under_way = true;
            let took = self.dice.below(self.manners.slow + 1);
            let ends = self.now + took;
            let taken = self.now + self.dice.below(took + 1);
            let roll = self.dice.below(100);
            let (taken, released) = if roll < self.manners.refuses {
                (None, Ends::NotSent)
            } else if roll < self.manners.refuses + self.manners.silent {
                // It may have taken it all the same.
                (Some(taken), Ends::InDoubt)
            } else {
                (Some(taken), Ends::Sent)
            };
            self.running.push(Transaction {
                limits: self.relays[&*grant.relay].clone(),
                grant,
                ends,
                taken,
                released,
            });
        }
    }

    fn observe(&mut self, grant: &Grant, limits: Arc<Limits>, at: u64) {
        let seen = Seen {
            at,
            grant: grant.grant,
            octets: grant.wire_bytes,
            recipients: u64::from(grant.recipients),
            limits,
        };
        let observer = self.observers.entry(grant.relay.to_string()).or_default();
        observer.seen.push(seen);
    }

    fn end_transactions(&mut self) -> bool {
        let mut ended = false;
        while let Some(place) = self.running.iter().position(|it| it.ends <= self.now) {
            ended = true;
            let transaction = self.running.swap_remove(place);
            let grant = transaction.grant;
            let at = self.moment();
            let released = match transaction.released {
                Ends::Sent => Released::Sent { at },
                Ends::NotSent => Released::NotSent,
                Ends::InDoubt => Released::InDoubt { at },
            };
            self.write(LedgerEvent::Released {
                grant: grant.grant,
                released,
            });
            self.release.settled(grant.grant, released, at);
            if let Some(taken) = transaction.taken {
                self.observe(&grant, transaction.limits, taken);
                self.delivered(&grant);
                continue;
            }
            let later = self.now + 30_000 + self.dice.below(600_000);
            let message = self.messages.get_mut(&grant.id).expect("it was under way");
            message.under_way = false;
            message.due = later;
            message.item.not_before =
                Some(Timestamp::from_millisecond(START + later as i64 + self.wall).unwrap());
            self.due.insert((later, grant.id));
        }
        ended
    }

    fn delivered(&mut self, grant: &Grant) {
        let message = self.messages.get_mut(&grant.id).expect("it was under way");
        message.under_way = false;
        message.item.recipients -= grant.recipients;
        message.item.not_before = None;
        let item = message.item.clone();
        let accepted = message.accepted;
        if item.recipients == 0 {
            self.messages.remove(&grant.id);
            let waited = self.now - accepted;
            self.left.push(Left {
                number: (item.id.number() - FIRST_ID) as usize,
                waited,
                left: self.now,
                user: item.flow.user,
            });
        } else {
            self.release.waiting(&item, self.moment());
        }
    }

    /// The spool begins a new segment.
    pub fn checkpoint(&mut self) {
        let bytes = self.release.ledger().to_bytes(self.moment());
        self.checkpoint = (Some(bytes), self.log.len());
        self.last_logged.push(self.wall);
    }

    /// The process dies; what was under way may or may not have been taken. It comes
    /// back `down` later, perhaps after a boot with the wall clock set back by `back`.
    pub fn crash(&mut self, down: u64, reboot: Option<i64>) {
        // What was written in the last 100 ms and did not have to be synced may be lost.
        while let Some((at, LedgerEvent::Released { .. })) = self.log.last()
            && *at + 100 >= self.now
            && self.log.len() > self.checkpoint.1
            && self.dice.percent(50)
        {
            self.log.pop();
            self.last_logged.pop();
        }
        for transaction in std::mem::take(&mut self.running) {
            let taken = transaction.taken.is_some() && self.dice.percent(60);
            if taken {
                let begun = transaction.taken.unwrap().min(self.now);
                self.observe(&transaction.grant, transaction.limits.clone(), begun);
                // It is in doubt, and not sent again.
                let message = self.messages.get_mut(&transaction.grant.id).unwrap();
                message.item.recipients -= transaction.grant.recipients;
            }
        }
        self.messages.retain(|_, it| it.item.recipients > 0);
        self.now += down;
        if let Some(back) = reboot {
            self.boot += 1;
            self.booted = self.now.saturating_sub(7_000);
            // A step forward that nothing in the log has seen is the documented exception.
            let logged = self.last_logged.last().copied().unwrap_or(self.wall);
            self.wall = (self.wall - back).min(logged);
        }
        let mut open: BTreeMap<u64, Lease> = BTreeMap::new();
        let mut last_grant = 0;
        for (_, event) in &self.log {
            match event {
                LedgerEvent::Leased(lease) => {
                    last_grant = last_grant.max(lease.items[0].grant);
                    open.insert(lease.items[0].grant, lease.clone());
                }
                LedgerEvent::Released { grant, .. } => {
                    open.remove(grant);
                }
            }
        }
        let later = self.log[self.checkpoint.1..].iter().map(|it| it.1.clone());
        let recovered = Recovered {
            ledger: self.checkpoint.0.clone(),
            later: later.collect(),
            open_leases: open.into_values().collect(),
            last_grant,
            crashed: true,
            ..Recovered::default()
        };
        let ledger = Ledger::recover(&recovered, self.moment()).expect("it was stored well");
        self.release = Release::new(ledger);
        self.answers.clear();
        self.configure();
        self.restore();
        // After a boot this is a must: it is the first reading of the new boot's clocks.
        if reboot.is_some() || self.dice.percent(50) {
            self.checkpoint();
        }
    }

    fn restore(&mut self) {
        let mut summaries: BTreeMap<FlowKey, FlowSummary> = BTreeMap::new();
        self.due.clear();
        for (id, message) in &mut self.messages {
            message.under_way = false;
            let flow = &message.item.flow;
            let summary = summaries
                .entry(flow.clone())
                .or_insert_with(|| FlowSummary {
                    key: flow.clone(),
                    label: String::new(),
                    ready: Amount::default(),
                    deferred: Amount::default(),
                    held: Amount::default(),
                    accepted: 0,
                    recent: self.recent.get(flow).cloned().unwrap_or_default(),
                });
            if message.item.not_before.is_some() {
                self.due.insert((message.due, *id));
            } else {
                summary.ready.messages += 1;
                summary.ready.recipients += u64::from(message.item.recipients);
                summary.ready.wire_bytes += message.item.wire_bytes;
            }
        }
        let now = self.moment();
        for summary in summaries.values() {
            self.release.restore(summary, now);
        }
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
