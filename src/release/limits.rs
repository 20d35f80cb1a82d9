//! The ledger: what every relay was given and when, so that no window ever holds more
//! than its limit.
//!
//! A reservation counts as *now*, whatever now is, until its outcome is known; then it
//! counts as of that moment, or not at all when the content never left. Why no window
//! can overflow: take any window, and of the messages in it the one that was reserved
//! last. At that moment every other message of the window was either still reserved or
//! had been recorded at its end or later, inside of the window; all of them counted,
//! and still there was room. This holds wherever between reservation and outcome a
//! message is thought to leave, and it needs no clock but one that never goes back.

use std::collections::HashMap;

use crate::clock::Moment;
use crate::config::Limits;
use crate::spool::{Lease, LedgerEvent, Recovered, Released};

use super::account::Account;
use super::history::{Budget, Load, Millis, Paid};
use super::record::{self, RecordError};
use super::timeline::{Timeline, millis_down, millis_up};

/// What was released to which relay, and what is on its way.
///
/// Relays are known by name: what left through one counts for it whatever its
/// configuration was then, and even while it is not configured at all.
#[derive(Debug)]
pub struct Ledger {
    pub(super) accounts: HashMap<String, Account>,
    pub(super) open: HashMap<u64, Open>,
    pub(super) last_grant: u64,
}

/// A reservation whose outcome is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) relay: String,
    pub(super) paid: Paid,
}

impl Ledger {
    /// A ledger in which nothing ever left.
    pub fn new() -> Self {
        Self {
            accounts: HashMap::new(),
            open: HashMap::new(),
            last_grant: 0,
        }
    }

    /// The ledger as it was, from what the spool remembers: the last one that was
    /// stored, the leases and outcomes after it, and what was open when the process
    /// ended, which counts as of now: nobody knows when it left.
    ///
    /// Store the result at once ([`to_bytes`](Self::to_bytes)): it is the first reading
    /// of the clocks of this boot, and steps of the wall clock after it do no harm.
    pub fn recover(recovered: &Recovered, now: Moment) -> Result<Self, RecordError> {
        let mut readings = Vec::new();
        if let Some(stored) = &recovered.ledger {
            readings.push(record::stored_at(stored)?);
        }
        readings.extend(recovered.later.iter().filter_map(reading));
        let timeline = Timeline::new(readings, now);
        let mut ledger = match &recovered.ledger {
            Some(stored) => record::decode(stored, &timeline)?,
            None => Self::new(),
        };
        let known = ledger.last_grant;
        ledger.replay(&recovered.later, &timeline);
        // Usually in `later` or in the stored ledger, too; a grant counts once.
        for lease in &recovered.open_leases {
            ledger.replay_lease(lease, known, &timeline);
        }
        ledger.end_all(now);
        ledger.last_grant = ledger.last_grant.max(recovered.last_grant);
        Ok(ledger)
    }

    /// As bytes for the log, from which [`recover`](Self::recover) makes it again.
    pub fn to_bytes(&self, now: Moment) -> Vec<u8> {
        record::encode(self, now)
    }

    /// Repeats what happened after the ledger was stored. What is in it already, by its
    /// grant's number, is not counted twice.
    fn replay(&mut self, later: &[LedgerEvent], timeline: &Timeline) {
        let known = self.last_grant;
        for event in later {
            match event {
                LedgerEvent::Leased(lease) => self.replay_lease(lease, known, timeline),
                LedgerEvent::Released { grant, released } => {
                    let left = left_at(released).map(|at| timeline.local(at));
                    self.end(*grant, left, timeline.present());
                }
            }
        }
    }

    /// `known`: the last grant that the stored ledger had seen.
    fn replay_lease(&mut self, lease: &Lease, known: u64, timeline: &Timeline) {
        let at = timeline.local(lease.at);
        for item in &lease.items {
            if item.grant <= known || self.open.contains_key(&item.grant) {
                continue;
            }
            self.last_grant = self.last_grant.max(item.grant);
            let load = Load {
                messages: 1,
                octets: item.wire_bytes,
                recipients: u64::from(item.recipients),
            };
            // Which budget paid is not written down; the general one is the stricter.
            let paid = Paid::by(Budget::General, load);
            self.reserve_as(item.grant, &lease.relay, paid, at);
        }
    }

    /// The process that reserved them is gone: whatever is open counts as of now.
    fn end_all(&mut self, now: Moment) {
        let now = millis_up(now.uptime);
        for grant in self.open.keys().copied().collect::<Vec<_>>() {
            self.end(grant, Some(now), now);
        }
    }

    // For the plan.

    pub(super) fn configure(&mut self, relay: &str, limits: &Limits, now: Moment) {
        self.account(relay).configure(limits, millis_up(now.uptime));
    }

    /// Forgets relays of which nothing is left to know.
    pub(super) fn forget_blank(&mut self, is_configured: impl Fn(&str) -> bool, now: Millis) {
        self.accounts.retain(|relay, account| {
            account.advance(now);
            is_configured(relay) || !account.is_blank()
        });
    }

    pub(super) fn account(&mut self, relay: &str) -> &mut Account {
        if !self.accounts.contains_key(relay) {
            self.accounts.insert(relay.to_owned(), Account::new());
        }
        self.accounts
            .get_mut(relay)
            .expect("it was inserted just now")
    }

    /// Sets budget aside for one transaction and numbers it.
    pub(super) fn reserve(&mut self, relay: &str, budget: Budget, load: Load, now: Moment) -> u64 {
        self.last_grant += 1;
        let grant = self.last_grant;
        let paid = Paid::by(budget, load);
        self.reserve_as(grant, relay, paid, millis_down(now.uptime));
        grant
    }

    fn reserve_as(&mut self, grant: u64, relay: &str, paid: Paid, at: Millis) {
        self.account(relay).reserve(paid, at);
        let relay = relay.to_owned();
        self.open.insert(grant, Open { relay, paid });
    }

    /// Ends a reservation: it left at `left`, or it did not. Unknown ones are ended already.
    pub(super) fn end(&mut self, grant: u64, left: Option<Millis>, now: Millis) {
        if let Some(Open { relay, paid }) = self.open.remove(&grant) {
            self.account(&relay).end(paid, left, now);
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

/// When a transaction left, if it did.
pub(super) fn left_at(released: &Released) -> Option<Moment> {
    match released {
        Released::Sent { at } | Released::InDoubt { at } => Some(*at),
        Released::NotSent => None,
    }
}

/// The reading of the clocks that an event carries.
fn reading(event: &LedgerEvent) -> Option<Moment> {
    match event {
        LedgerEvent::Leased(lease) => Some(lease.at),
        LedgerEvent::Released { released, .. } => left_at(released),
    }
}
