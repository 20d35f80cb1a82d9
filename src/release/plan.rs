//! Which message may go to a relay now, and if none, why not and until when.
//!
//! [`Lane::decide`] changes nothing: the plan carries out what it says, and an
//! explanation shows it.

use std::sync::Arc;

use crate::clock::Moment;
use crate::config::Limits;
use crate::mail::QueueId;
use crate::spool::FlowKey;

use super::account::{Account, Full};
use super::fair::BATCH_COST;
use super::flow::Head;
use super::history::{Budget, Millis};
use super::schedule::Schedule;
use super::timeline::{millis_down, millis_up};

/// So many users' interactive messages are tried before the relay waits: one that is
/// too large for the room at hand does not keep a small one.
const TRIED: usize = 16;

/// Why a relay's next message does not leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing waits.
    Nothing,
    /// The relay is no longer configured.
    NotConfigured,
    /// The relay is paused.
    Paused,
    /// The relay is open to one flow only, and this is another one.
    Restricted,
    /// All its connections are busy.
    Connections,
    /// `min-interval` since the last release.
    MinInterval,
    /// The next batch has not opened yet.
    NextBatch,
    /// This limit leaves no room (its key in the configuration).
    Limit(&'static str),
    /// A message too large for the room that any batch has waits for its window to be empty.
    Alone,
    /// The next messages are being read from the spool.
    Spool,
    /// Others come before it.
    Turn,
    /// It is on its way.
    UnderWay,
}

/// Why nothing leaves, and when that changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) why: Wait,
    pub(super) until: Option<Millis>,
}

/// What may leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) flow: u32,
    pub(super) budget: Budget,
    pub(super) recipients: u32,
    /// It was chosen as interactive mail, ahead of its turn among everyone.
    pub(super) is_interactive: bool,
}

/// One relay, as far as the release goes.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: Arc<str>,
    /// None: it is not configured (any more).
    pub(super) limits: Option<Limits>,
    pub(super) is_paused: bool,
    /// One message may go although it is paused.
    pub(super) may_probe: bool,
    /// Nothing but this flow may leave.
    pub(super) only: Option<FlowKey>,
    pub(super) schedule: Schedule,
    pub(super) in_flight: u32,
    /// The message that waits for an empty window, and since when: it keeps its turn.
    pub(super) alone: Option<Alone>,
    /// When to look again, if nothing happens before.
    pub(super) wake: Option<Millis>,
    pub(super) is_dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alone {
    flow: u32,
    id: QueueId,
    since: Millis,
}

impl Lane {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            limits: None,
            is_paused: false,
            may_probe: false,
            only: None,
            schedule: Schedule::default(),
            in_flight: 0,
            alone: None,
            wake: None,
            is_dirty: false,
        }
    }

    /// What may leave now, or why nothing does. `account` must have been advanced to now.
    pub(super) fn decide(&self, account: &Account, now: Millis) -> Result<Choice, Waits> {
        let wait = |why, until| Err(Waits { why, until });
        let Some(limits) = &self.limits else {
            return wait(Wait::NotConfigured, None);
        };
        if self.is_paused && !self.may_probe {
            return wait(Wait::Paused, None);
        }
        if self.schedule.waiting.messages == 0 {
            return wait(Wait::Nothing, None);
        }
        if self.in_flight >= limits.connections.max(1) {
            return wait(Wait::Connections, None);
        }
        match account.min_interval(now) {
            Ok(None) => {}
            Ok(until) => return wait(Wait::MinInterval, until),
            Err(()) => return wait(Wait::MinInterval, None),
        }

        let everything = account.fit_all(self.schedule.waiting);
        let most_recipients = limits.recipients_per_message.unwrap_or(u32::MAX).max(1);
        if let Some(only) = &self.only {
            return self.only_flow(only, account, everything.is_ok(), most_recipients);
        }
        let interactive = self.interactive(account, everything.is_ok(), most_recipients, now);
        let later = match interactive {
            Ok(choice) => return Ok(choice),
            Err(until) => until,
        };
        self.general(account, everything, most_recipients, now)
            .map_err(|waits| Waits {
                until: earliest(waits.until, later),
                ..waits
            })
    }

    /// The next message of the one flow that may leave; it leaves like interactive mail.
    fn only_flow(
        &self,
        only: &FlowKey,
        account: &Account,
        all_fits: bool,
        most_recipients: u32,
    ) -> Result<Choice, Waits> {
        let flow = self.schedule.index_of(only);
        let Some((flow, head)) = flow.and_then(|flow| Some((flow, self.head(flow)?))) else {
            return Err(Waits {
                why: Wait::Restricted,
                until: None,
            });
        };
        self.pay(account, all_fits, flow, head, most_recipients)
            .map_err(|full| Waits {
                why: Wait::Limit(full.limit),
                until: full.until,
            })
    }

    /// A message that may leave ahead of its turn: from which budget it is paid.
    fn pay(
        &self,
        account: &Account,
        all_fits: bool,
        flow: u32,
        head: Head,
        most_recipients: u32,
    ) -> Result<Choice, Full> {
        let recipients = head.recipients.min(most_recipients);
        let wanted = u64::from(recipients);
        let fits = |budget| account.fit(budget, head.octets, wanted, wanted);
        let budget = if all_fits && fits(Budget::General).is_ok() {
            Budget::General
        } else {
            fits(Budget::Interactive)?;
            Budget::Interactive
        };
        Ok(Choice {
            flow,
            budget,
            recipients,
            is_interactive: true,
        })
    }

    /// Interactive mail, batch or not: it pays from its share, or from the common budget
    /// while there is enough for everything that waits.
    fn interactive(
        &self,
        account: &Account,
        all_fits: bool,
        most_recipients: u32,
        now: Millis,
    ) -> Result<Choice, Option<Millis>> {
        // Once a message has waited an interval for an empty window, nothing new may fill it.
        let interval = self.limits.as_ref().map(|it| it.batch_interval);
        let patience = interval.map_or(0, millis_up);
        if self.alone().is_some_and(|it| now > it.since + patience) {
            return Err(None);
        }
        let mut later = None;
        for (_, flow) in self.schedule.interactive.in_order().take(TRIED) {
            let Some(head) = self.head(flow) else {
                continue;
            };
            match self.pay(account, all_fits, flow, head, most_recipients) {
                Ok(choice) => return Ok(choice),
                Err(full) => {
                    later = earliest(later, full.until);
                    if full.is_any_size {
                        break;
                    }
                }
            }
        }
        Err(later)
    }

    /// Whoever's turn it is, when a batch is open or may open.
    fn general(
        &self,
        account: &Account,
        everything: Result<(), Full>,
        most_recipients: u32,
        now: Millis,
    ) -> Result<Choice, Waits> {
        let alone = self.alone().map(|it| it.flow);
        let next = alone.or_else(|| self.schedule.everyone.next().map(|it| it.1));
        let Some((flow, head)) = next.and_then(|flow| Some((flow, self.head(flow)?))) else {
            return Err(Waits {
                why: Wait::Spool,
                until: None,
            });
        };
        let wanted = u64::from(head.recipients.min(most_recipients));
        let fits = account.fit(Budget::General, head.octets, wanted, 1);
        if !account.batch_is_open(now)
            && let Some(opening) = account.next_opening().filter(|at| *at > now)
            && let Err(all) = everything
            // A limit that leaves no room even then is the better answer.
            && !fits.is_err_and(|it| it.outlasts(opening))
        {
            return Err(Waits {
                why: Wait::NextBatch,
                until: earliest(Some(opening), all.until),
            });
        }
        match fits {
            Ok(recipients) => Ok(Choice {
                flow,
                budget: Budget::General,
                recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
                is_interactive: false,
            }),
            Err(full) => Err(Waits {
                why: if account.only_alone(head.octets) {
                    Wait::Alone
                } else {
                    Wait::Limit(full.limit)
                },
                until: full.until,
            }),
        }
    }

    /// Keeps the turn of a message that has to leave alone, from when it is its turn.
    pub(super) fn note_alone(&mut self, account: &Account, now: Millis) {
        if let Some(alone) = self.alone() {
            self.alone = Some(alone);
            return;
        }
        self.alone = self.schedule.everyone.next().and_then(|(_, flow)| {
            let head = self.head(flow)?;
            account.only_alone(head.octets).then_some(Alone {
                flow,
                id: head.id,
                since: now,
            })
        });
    }

    /// The message that waits for an empty window, as long as it still waits.
    fn alone(&self) -> Option<Alone> {
        let alone = self.alone?;
        (self.head(alone.flow)?.id == alone.id).then_some(alone)
    }

    fn head(&self, flow: u32) -> Option<Head> {
        self.schedule.flow(flow)?.head().copied()
    }

    /// Takes what was chosen, and charges its user for it.
    pub(super) fn take(&mut self, choice: Choice, now: Moment) -> Option<Head> {
        let head = self.head(choice.flow)?;
        let user = self.schedule.flow(choice.flow)?.user;
        let cost = self.cost(head.octets);
        if choice.budget == Budget::General {
            self.schedule.everyone.charge(user, choice.flow, cost);
        }
        if choice.is_interactive {
            self.schedule.interactive.charge(user, choice.flow, cost);
        }
        self.in_flight += 1;
        self.schedule.take(choice.flow, now)
    }

    /// What a message costs its user: the larger of its shares of a batch.
    pub(super) fn cost(&self, octets: u64) -> u64 {
        /// Where nothing limits the messages of a batch.
        const USUAL: u32 = 500;
        let limits = self.limits.as_ref();
        let messages = limits.and_then(|it| it.batch_messages).unwrap_or(USUAL);
        let share = BATCH_COST / u64::from(messages.max(1));
        let bytes = limits.and_then(|it| it.batch_bytes).map_or(0, |most| {
            let cost = u128::from(octets) * u128::from(BATCH_COST) / u128::from(most.max(1));
            // More than a thousand batches is no size but a mistake in the configuration.
            u64::try_from(cost)
                .unwrap_or(u64::MAX)
                .min(BATCH_COST << 10)
        });
        share.max(bytes).max(1)
    }

    /// Until when a transaction that was granted now may start.
    pub(super) fn start_before(&self, account: &Account, choice: &Choice) -> Option<Millis> {
        match choice.budget {
            Budget::General => account.batch_closes(),
            Budget::Interactive => None,
        }
    }
}

/// The earlier of two times, where none is never.
fn earliest(one: Option<Millis>, other: Option<Millis>) -> Option<Millis> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Now, for comparing with what was recorded: never later than it is.
pub(super) fn present(now: Moment) -> Millis {
    millis_down(now.uptime)
}
