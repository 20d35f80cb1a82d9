//! Why something waits, how far the limits are used, and when it will be done.
//!
//! The reason comes from the very decision that keeps it waiting. The times are what
//! the limits dictate when nothing else arrives, every attempt succeeds and the relay
//! is quick; with users and mailings sharing as they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::Moment;
use crate::spool::{FlowKey, Waiting};

use super::Release;
use super::account::LimitUse;
use super::flow::Flow;
use super::forecast::Forecast;
use super::history::{Load, Millis};
use super::plan::{Lane, Wait, Waits, present};

/// How one relay stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Its name.
    pub relay: Arc<str>,
    /// What may leave for it, apart from the limits; what waits for a retry or is held
    /// is not counted.
    pub waiting: Load,
    /// Transactions under way.
    pub in_flight: u32,
    /// Why the next message does not leave at this moment; none: it may.
    pub wait: Option<Wait>,
    /// When that changes by itself, if it does.
    pub until: Option<Timestamp>,
    /// Every limit and how far it is used.
    pub limits: Vec<LimitUse>,
    /// Until when the present batch may start transactions; none: no batch is open.
    pub batch_closes: Option<Timestamp>,
    /// From when on the next batch may open whatever waits; none: at once.
    pub next_batch: Option<Timestamp>,
    /// When everything will have left; none when it is paused, not configured, or
    /// nothing waits.
    pub empty_at: Option<Timestamp>,
}

/// How one mailing stands.
#[derive(Debug, Clone, PartialEq)]
pub struct MailingOutlook {
    /// Which.
    pub flow: Arc<FlowKey>,
    /// Its words for people; empty when they are only in the spool.
    pub label: String,
    /// What waits of it.
    pub waiting: Load,
    /// Whether it is interactive: it passes mailings.
    pub is_interactive: bool,
    /// When it will have left; none when its relay is paused or not configured.
    pub done_at: Option<Timestamp>,
}

/// Why one message waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Explanation {
    /// What it waits for.
    pub wait: Wait,
    /// When that changes by itself, if it does.
    pub until: Option<Timestamp>,
    /// When it will have left at the latest, as far as can be said now.
    pub leaves_by: Option<Timestamp>,
}

impl Release {
    /// How a relay stands; none when nobody ever heard of it.
    pub fn outlook(&mut self, relay: &str, now: Moment) -> Option<Outlook> {
        let lane = &self.lanes[*self.by_name.get(relay)?];
        let present = present(now);
        let account = self.ledger.account(relay);
        account.advance(present);
        let decision = lane.decide(account, present);
        let time = |at: Millis| wall(at, now);
        let waits = decision.err();
        Some(Outlook {
            relay: lane.name.clone(),
            waiting: lane.schedule.waiting,
            in_flight: lane.in_flight,
            wait: waits.map(|it| it.why),
            until: waits.and_then(|it| it.until).map(time),
            limits: account.usage(present),
            batch_closes: account
                .batch_closes()
                .filter(|_| account.batch_is_open(present))
                .map(time),
            next_batch: account.next_opening().filter(|at| *at > present).map(time),
            empty_at: (lane.flows_freely() && lane.schedule.waiting.messages > 0).then(|| {
                let general = lane.ordinary(present);
                let forecast = Forecast::of(account, present);
                time(forecast.leaves_by(general, lane.schedule.waiting))
            }),
        })
    }

    /// How the mailings of a relay stand, those done first coming first.
    pub fn mailings(&mut self, relay: &str, now: Moment) -> Vec<MailingOutlook> {
        let Some(lane) = self.by_name.get(relay).map(|it| &self.lanes[*it]) else {
            return Vec::new();
        };
        let present = present(now);
        let account = self.ledger.account(relay);
        account.advance(present);
        let shares = Shares::of(lane, present);
        let forecast = Forecast::of(account, present);
        let flows = lane.schedule.flows().filter(|it| it.waiting.messages > 0);
        let mut mailings: Vec<MailingOutlook> = flows
            .map(|flow| MailingOutlook {
                flow: flow.key.clone(),
                label: flow.label.to_string(),
                waiting: flow.waiting,
                is_interactive: flow.is_interactive(present),
                done_at: lane
                    .flows_freely()
                    .then(|| wall(shares.done(lane, flow, &forecast), now)),
            })
            .collect();
        mailings.sort_by(|one, other| (one.done_at, &one.flow).cmp(&(other.done_at, &other.flow)));
        mailings
    }

    /// Why a message that may leave (it is neither held nor waiting for a retry) is
    /// still here.
    pub fn explain(&mut self, item: &Waiting, now: Moment) -> Explanation {
        let nothing = Explanation {
            wait: Wait::Nothing,
            until: None,
            leaves_by: None,
        };
        let Some(index) = self.by_name.get(&*item.flow.relay) else {
            return Explanation {
                wait: Wait::NotConfigured,
                ..nothing
            };
        };
        let lane = &self.lanes[*index];
        if lane.schedule.is_in_flight(item.id) {
            return Explanation {
                wait: Wait::UnderWay,
                ..nothing
            };
        }
        let present = present(now);
        let account = self.ledger.account(&item.flow.relay);
        account.advance(present);
        let Some(flow) = lane.schedule.flow_by_key(&item.flow) else {
            return nothing;
        };
        let forecast = Forecast::of(account, present);
        let done = Shares::of(lane, present).done(lane, flow, &forecast);
        let leaves_by = lane.flows_freely().then(|| wall(done, now));
        let waits = match lane.decide(account, present) {
            Err(waits) => waits,
            Ok(_) => Waits {
                why: Wait::Turn,
                until: None,
            },
        };
        // A limit concerns the message whose turn it is; the others wait for that one.
        let next = lane.schedule.everyone.next();
        let next = next.and_then(|(_, flow)| lane.schedule.flow(flow)?.head());
        let is_its_limit = next.is_some_and(|head| head.id == item.id);
        let wait = match waits.why {
            Wait::Limit(_) | Wait::Alone if !is_its_limit => Wait::Turn,
            why => why,
        };
        Explanation {
            wait,
            until: waits.until.map(|at| wall(at, now)),
            leaves_by,
        }
    }
}

impl Lane {
    /// What waits and is not interactive.
    fn ordinary(&self, now: Millis) -> Load {
        let flows = self.schedule.flows().filter(|it| !it.is_interactive(now));
        flows.fold(Load::default(), |sum, it| sum.plus(it.waiting))
    }

    fn flows_freely(&self) -> bool {
        self.limits.is_some() && !self.is_paused && self.only.is_none()
    }
}

/// A moment of this boot's clock as wall time.
fn wall(at: Millis, now: Moment) -> Timestamp {
    let ahead = jiff::SignedDuration::from_millis(at - present(now));
    now.wall.checked_add(ahead).unwrap_or(Timestamp::MAX)
}

/// What everybody has waiting, so that it can be said how much leaves until somebody's
/// last message does: users get equal parts, and each user's mailings do.
struct Shares {
    /// Of every user the cost of what waits, ascending; with it the sums so far.
    users: Vec<UserShare>,
    /// Of every user the costs of its mailings, ascending.
    flows: BTreeMap<u32, Vec<f64>>,
    /// What is not interactive of it all.
    general: Load,
}

struct UserShare {
    cost: f64,
    /// What all users up to this one have waiting.
    below: [f64; 3],
    /// What a unit of cost of this user and all after it brings along.
    above: [f64; 3],
}

impl Shares {
    fn of(lane: &Lane, now: Millis) -> Self {
        let mut flows: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        let mut loads: BTreeMap<u32, Load> = BTreeMap::new();
        for flow in lane.schedule.flows().filter(|it| it.waiting.messages > 0) {
            flows.entry(flow.user).or_default().push(lane.weight(flow));
            let load = loads.entry(flow.user).or_default();
            *load = load.plus(flow.waiting);
        }
        let mut users: Vec<(f64, [f64; 3])> = Vec::new();
        for (user, costs) in &mut flows {
            costs.sort_by(f64::total_cmp);
            users.push((costs.iter().sum(), amounts(loads[user])));
        }
        users.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut sum = [0.0; 3];
        let mut shares: Vec<UserShare> = users
            .iter()
            .map(|(cost, load)| {
                sum = add(sum, *load, 1.0);
                UserShare {
                    cost: *cost,
                    below: sum,
                    above: [0.0; 3],
                }
            })
            .collect();
        let mut rate = [0.0; 3];
        for (share, (cost, load)) in shares.iter_mut().zip(&users).rev() {
            rate = add(rate, *load, 1.0 / cost.max(f64::MIN_POSITIVE));
            share.above = rate;
        }
        Self {
            users: shares,
            flows,
            general: lane.ordinary(now),
        }
    }

    /// When the last message of a flow leaves.
    fn done(&self, lane: &Lane, flow: &Flow, forecast: &Forecast<'_>) -> Millis {
        let own = lane.weight(flow);
        let costs = self.flows.get(&flow.user).map_or(&[][..], Vec::as_slice);
        // So much its user gets until then,
        let level: f64 = costs.iter().map(|it| it.min(own)).sum();
        // and everybody else as much, if they have it.
        let place = self.users.partition_point(|it| it.cost <= level);
        let mut all = place
            .checked_sub(1)
            .map_or([0.0; 3], |before| self.users[before].below);
        if let Some(rest) = self.users.get(place) {
            all = add(all, rest.above, level);
        }
        let [messages, octets, recipients] = all.map(|it| it.ceil() as u64);
        let load = Load {
            messages,
            octets,
            recipients,
        };
        let load = load.at_most(lane.schedule.waiting);
        forecast.leaves_by(load.at_most(self.general), load)
    }
}

impl Lane {
    fn weight(&self, flow: &Flow) -> f64 {
        let each = flow.waiting.octets / flow.waiting.messages.max(1);
        self.cost(each) as f64 * flow.waiting.messages as f64
    }
}

fn amounts(load: Load) -> [f64; 3] {
    load.parts().map(|it| it as f64)
}

fn add(mut sum: [f64; 3], load: [f64; 3], times: f64) -> [f64; 3] {
    for (sum, load) in sum.iter_mut().zip(load) {
        *sum += load * times;
    }
    sum
}
