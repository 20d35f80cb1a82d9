//! What becomes of grants: transactions that take their time and end well or not.

use std::sync::Arc;

use jiff::Timestamp;
use penstock::config::Limits;
use penstock::release::Grant;
use penstock::spool::{Lease, Leased, LedgerEvent, Released};

use super::{FIRST_ID, Left, START, World};
use crate::release::observer::Seen;

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) grant: Grant,
    /// In force when it was decided.
    pub(super) limits: Arc<Limits>,
    pub(super) ends: u64,
    /// When the relay takes it, if it does.
    pub(super) taken: Option<u64>,
    pub(super) released: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Sent,
    NotSent,
    InDoubt,
}

impl World {
    pub(super) fn begin(&mut self, grants: Vec<Grant>) {
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

    pub(super) fn observe(&mut self, grant: &Grant, limits: Arc<Limits>, at: u64) {
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

    pub(super) fn end_transactions(&mut self) -> bool {
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

    pub(super) fn delivered(&mut self, grant: &Grant) {
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
}
