//! Releasing under limits: which waiting message may leave for its relay, and when.
//!
//! [`Release`] is told what waits, what became of what it let go, and what time it is;
//! it answers with [`Grant`]s, each one transaction that may start now. It reads no
//! clock and touches no disk and no socket: the delivery task owns it, writes its
//! grants down as leases before it acts on them, and hands the [`Ledger`] to the spool
//! to be stored with the log.
//!
//! The owner's part: at the start [`Ledger::recover`], [`Release::configure`] and
//! [`Release::restore`] for every flow; then, after every event and at
//! [`Release::wake_at`], answer [`Release::refills`] from the spool and carry out
//! [`Release::plan`]: a lease is durable before MAIL, MAIL goes out before
//! [`Grant::start_before`] or the grant goes back with [`Release::unstarted`], and the
//! relay's last word is told with [`Release::settled`] as soon as it is known.
//!
//! What it promises, and docs/limits.md derives: no sliding window ever holds more than
//! its limit; a lone message leaves at once; users and their mailings share evenly;
//! nothing waits for ever.

mod account;
pub mod explain;
mod fair;
mod flow;
mod forecast;
mod history;
pub mod limits;
pub mod mailing;
pub mod plan;
mod record;
pub mod schedule;
mod timeline;

#[cfg(test)]
mod refill_tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::config::Limits;
use crate::mail::QueueId;
use crate::spool::{FlowKey, FlowSummary, Released, Waiting};

use flow::Head;
use history::Millis;
use plan::{Choice, Lane, present};
use timeline::millis_up;

pub use account::LimitUse;
pub use explain::{Explanation, MailingOutlook, Outlook};
pub use history::{Budget, Load};
pub use limits::Ledger;
pub use mailing::Mailings;
pub use plan::Wait;
pub use record::RecordError;
pub use schedule::Refill;

/// One transaction that may start now; its budget is reserved.
///
/// It must be answered with [`Release::settled`] or [`Release::unstarted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its number, which never comes again: what leases are known by.
    pub grant: u64,
    /// Through which relay.
    pub relay: Arc<str>,
    /// Which message.
    pub id: QueueId,
    /// Of which flow.
    pub flow: Arc<FlowKey>,
    /// To how many of its unsettled recipients at most; the caller says which.
    pub recipients: u32,
    /// Octets on the wire.
    pub wire_bytes: u64,
    /// Who pays: what pays with the interactive share should not queue behind the rest.
    pub budget: Budget,
    /// The uptime after which its MAIL may no longer be sent: the batch has closed.
    pub start_before: Option<Duration>,
}

/// Decides what leaves.
#[derive(Debug)]
pub struct Release {
    ledger: Ledger,
    lanes: Vec<Lane>,
    by_name: HashMap<Arc<str>, usize>,
    grants: HashMap<u64, Granted>,
    /// Relays with something new, to be looked at by the next plan.
    dirty: Vec<usize>,
    /// When to look at which relay again.
    wakes: BTreeSet<(Millis, usize)>,
}

/// A grant that is not answered yet.
#[derive(Debug)]
struct Granted {
    lane: usize,
    flow: Arc<FlowKey>,
    head: Head,
    choice: Choice,
    at: Millis,
}

impl Release {
    /// A release over a ledger, with nothing waiting and no relay configured.
    pub fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            lanes: Vec::new(),
            by_name: HashMap::new(),
            grants: HashMap::new(),
            dirty: Vec::new(),
            wakes: BTreeSet::new(),
        }
    }

    /// The relays and their limits from now on, all of them. What already left counts
    /// against the new limits; what waits for a relay that is missing here keeps waiting.
    pub fn configure(&mut self, relays: &BTreeMap<String, Limits>, now: Moment) {
        for (name, limits) in relays {
            let lane = self.lane(name);
            self.lanes[lane].limits = Some(limits.clone());
            self.ledger.configure(name, limits, now);
        }
        for index in 0..self.lanes.len() {
            if !relays.contains_key(&*self.lanes[index].name) {
                self.lanes[index].limits = None;
            }
            self.touch(index);
        }
        self.ledger
            .forget_blank(|relay| relays.contains_key(relay), present(now));
    }

    /// What waits in a flow, as the spool counts it: at the start, and again after it could
    /// not be asked. Its messages are then asked for with [`refills`](Self::refills).
    pub fn restore(&mut self, summary: &FlowSummary, now: Moment) {
        let lane = self.lane(&summary.key.relay);
        self.lanes[lane].schedule.restore(summary, now);
        self.touch(lane);
    }

    /// A message may leave from now on: accepted, due again, released from a hold, moved
    /// here, or with recipients left after a part of it went. Telling it twice is harmless.
    pub fn waiting(&mut self, item: &Waiting, now: Moment) {
        let lane = self.lane(&item.flow.relay);
        self.lanes[lane].schedule.add(item, now);
        self.touch(lane);
    }

    /// A message may no longer leave this way: held, deleted, or moved (then tell
    /// [`waiting`](Self::waiting) with its new flow). One that is on its way is not
    /// stopped.
    pub fn removed(&mut self, item: &Waiting, now: Moment) {
        let lane = self.lane(&item.flow.relay);
        self.lanes[lane].schedule.remove(item, now);
        self.touch(lane);
    }

    /// The flows of which more messages are needed: for each ask the spool and answer
    /// with [`refilled`](Self::refilled). Each is named once until it is answered.
    pub fn refills(&mut self) -> Vec<Refill> {
        let refills = self.lanes.iter_mut().map(|it| it.schedule.refills());
        refills.flatten().collect()
    }

    /// The spool's answer to a refill.
    pub fn refilled(&mut self, refill: &Refill, items: &[Waiting], now: Moment) {
        let lane = self.lane(&refill.flow.relay);
        self.lanes[lane].schedule.refilled(refill, items, now);
        self.touch(lane);
    }

    /// The spool could not answer a refill: the flow asks again.
    pub fn unanswered(&mut self, refill: &Refill, now: Moment) {
        let lane = self.lane(&refill.flow.relay);
        self.lanes[lane].schedule.unanswered(refill, now);
        self.touch(lane);
    }

    /// How many due retries of a relay should be fetched from the spool and told with
    /// [`waiting`](Self::waiting) at most; the rest comes when these have gone.
    pub fn retry_room(&self, relay: &str) -> usize {
        let lane = self.by_name.get(relay).map(|it| &self.lanes[*it]);
        lane.map_or(1, |it| it.schedule.retry_room())
    }

    /// Pauses a relay: nothing leaves until [`resume`](Self::resume).
    pub fn pause(&mut self, relay: &str) {
        let lane = self.lane(relay);
        self.lanes[lane].is_paused = true;
        self.lanes[lane].may_probe = false;
        self.touch(lane);
    }

    /// Ends a pause.
    pub fn resume(&mut self, relay: &str) {
        let lane = self.lane(relay);
        self.lanes[lane].is_paused = false;
        self.lanes[lane].may_probe = false;
        self.touch(lane);
    }

    /// Lets one message go to a paused relay, under its limits, to see whether the trouble
    /// is over; the next one only after another call.
    pub fn probe(&mut self, relay: &str) {
        let lane = self.lane(relay);
        self.lanes[lane].may_probe = self.lanes[lane].is_paused;
        self.touch(lane);
    }

    /// Opens a relay to one flow only, whatever else waits for it; none: to all.
    pub fn restrict(&mut self, relay: &str, only: Option<FlowKey>) {
        let lane = self.lane(relay);
        self.lanes[lane].only = only;
        self.touch(lane);
    }

    /// What left through a relay lately is not known any more: every limit counts as used
    /// up at this moment.
    pub fn assume_spent(&mut self, relay: &str, now: Moment) {
        let lane = self.lane(relay);
        let Some(limits) = &self.lanes[lane].limits else {
            return;
        };
        let messages = [limits.batch_messages, limits.per_hour, limits.per_day];
        let recipients = [limits.recipients_per_hour, limits.recipients_per_day];
        let most = |of: &[Option<u32>]| u64::from(of.iter().flatten().copied().max().unwrap_or(0));
        let load = Load {
            messages: most(&messages),
            octets: limits.batch_bytes.unwrap_or(0),
            recipients: most(&recipients),
        };
        let grant = self.ledger.reserve(relay, Budget::General, load, now);
        self.ledger
            .end(grant, Some(present(now)), millis_up(now.uptime));
        self.touch(lane);
    }

    /// The transactions that may start now, in order. Their budget is reserved.
    pub fn plan(&mut self, now: Moment) -> Vec<Grant> {
        let present = present(now);
        while let Some((at, lane)) = self.wakes.first().copied()
            && at <= present
        {
            self.wakes.pop_first();
            self.lanes[lane].wake = None;
            self.touch(lane);
        }
        let mut grants = Vec::new();
        for index in std::mem::take(&mut self.dirty) {
            self.lanes[index].is_dirty = false;
            self.lanes[index].schedule.forget_old(present);
            while let Some(grant) = self.grant(index, now) {
                grants.push(grant);
            }
        }
        grants
    }

    /// When [`plan`](Self::plan) should be asked again (uptime) if nothing happens before;
    /// none: only when something happens.
    pub fn wake_at(&self) -> Option<Duration> {
        if !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        let at = self.wakes.first()?.0;
        Some(Duration::from_millis(u64::try_from(at).unwrap_or(0)))
    }

    /// How a granted transaction ended. When the message still has recipients that may be
    /// tried now, tell [`waiting`](Self::waiting) afterwards; when later, then later.
    pub fn settled(&mut self, grant: u64, released: Released, now: Moment) {
        let Some(granted) = self.end(grant, released, now) else {
            return;
        };
        self.lanes[granted.lane].schedule.end(granted.head.id);
    }

    /// A granted transaction was not begun: budget, turn and place in the queue come back.
    pub fn unstarted(&mut self, grant: u64, now: Moment) {
        let Some(granted) = self.end(grant, Released::NotSent, now) else {
            return;
        };
        let lane = &mut self.lanes[granted.lane];
        let flow = lane.schedule.put_back(&granted.flow, granted.head, now);
        let cost = lane.cost(granted.head.octets);
        let Some(user) = lane.schedule.flow(flow).map(|it| it.user) else {
            return;
        };
        if granted.choice.budget == Budget::General {
            lane.schedule.everyone.refund(user, flow, cost);
        }
        if granted.choice.is_interactive {
            lane.schedule.interactive.refund(user, flow, cost);
        }
    }

    /// The ledger, for [`Spool::checkpoint_ledger`](crate::spool::Spool::checkpoint_ledger).
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn end(&mut self, grant: u64, released: Released, now: Moment) -> Option<Granted> {
        let granted = self.grants.remove(&grant)?;
        let left = limits::left_at(&released).map(|at| millis_up(at.uptime).max(granted.at));
        self.ledger.end(grant, left, millis_up(now.uptime));
        self.lanes[granted.lane].in_flight -= 1;
        self.touch(granted.lane);
        Some(granted)
    }

    /// Lets one relay's next message go, or notes when to look again.
    fn grant(&mut self, index: usize, now: Moment) -> Option<Grant> {
        let lane = &mut self.lanes[index];
        let present = present(now);
        let account = self.ledger.account(&lane.name);
        account.advance(present);
        let choice = match lane.decide(account, present) {
            Ok(choice) => choice,
            Err(waits) => {
                lane.note_alone(account, present);
                self.wakes.extend(waits.until.map(|at| (at, index)));
                if let Some(old) = std::mem::replace(&mut lane.wake, waits.until)
                    && Some(old) != waits.until
                {
                    self.wakes.remove(&(old, index));
                }
                return None;
            }
        };
        let flow = lane.schedule.flow(choice.flow)?.key.clone();
        let head = lane.take(choice, now)?;
        lane.may_probe = false;
        let load = Load {
            messages: 1,
            octets: head.octets,
            recipients: u64::from(choice.recipients),
        };
        let name = lane.name.clone();
        let grant = self.ledger.reserve(&name, choice.budget, load, now);
        let closes = lane.start_before(self.ledger.account(&name), &choice);
        let granted = Granted {
            lane: index,
            flow: flow.clone(),
            head,
            choice,
            at: present,
        };
        self.grants.insert(grant, granted);
        Some(Grant {
            grant,
            relay: name,
            id: head.id,
            flow,
            recipients: choice.recipients,
            wire_bytes: head.octets,
            budget: choice.budget,
            start_before: closes.map(|at| Duration::from_millis(u64::try_from(at).unwrap_or(0))),
        })
    }

    fn lane(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let lane = Lane::new(name);
        self.by_name.insert(lane.name.clone(), self.lanes.len());
        self.lanes.push(lane);
        self.lanes.len() - 1
    }

    fn touch(&mut self, lane: usize) {
        if !std::mem::replace(&mut self.lanes[lane].is_dirty, true) {
            self.dirty.push(lane);
        }
    }
}
