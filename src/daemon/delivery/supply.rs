//! What the release is told of the spool: what waits, what comes after it, what is due
//! again.

use jiff::Timestamp;
use tracing::warn;

use crate::accept::Live;
use crate::mail::{Mailbox, QueueId};
use crate::route::Route;
use crate::spool::FlowKey;

use super::{Delivery, EVENTS_TOGETHER, RETRY_AGAIN, ROUND};

/// Due retries of one flow that the release is told of at a time: enough to keep a relay
/// busy, few enough that a mailing that failed leaves room for a message that did.
const FLOW_RETRIES: usize = 100;

impl Delivery {
    /// The flows that wait in the spool.
    pub(super) async fn restore(&mut self) {
        // Until it is known what waits.
        self.rebuilding = true;
        if !self.spool.is_complete() {
            return;
        }
        let now = self.office.clock.moment();
        match self.spool.flows().await {
            Ok(flows) => {
                self.rebuilding = false;
                for flow in &flows {
                    self.release.restore(flow, now);
                    self.book(&flow.key.relay).next_retry = Some(now.wall);
                }
                self.sort_flows(flows.into_iter().map(|it| it.key));
            }
            Err(trouble) => warn!(%trouble, "cannot read what waits yet"),
        }
    }

    /// Finds the flows whose user has another relay in the directory by now.
    pub(in crate::daemon) fn sort_flows(&mut self, flows: impl IntoIterator<Item = FlowKey>) {
        let live = self.live.clone();
        for flow in flows {
            if let Ok(from) = Mailbox::from_folded(&flow.user)
                && let Some(route) = self.route(&live, &from)
                && route.relay != flow.relay
            {
                self.moves.insert(flow);
            }
        }
    }

    /// The same of all that waits.
    pub(in crate::daemon) async fn sort_all_flows(&mut self) {
        match self.spool.flows().await {
            Ok(flows) => self.sort_flows(flows.into_iter().map(|it| it.key)),
            // Then all flows are read again once the index answers, and sorted.
            Err(trouble) => {
                warn!(%trouble, "cannot read what waits; it keeps its relay for now");
                self.rebuilding = true;
            }
        }
    }

    /// Where mail from an address goes now.
    pub(in crate::daemon) fn route(&self, live: &Live, from: &Mailbox) -> Option<Route> {
        let is_active = |name: &str| self.office.is_active(live, name);
        live.directory.route(from, &is_active).ok()
    }

    /// What the channel had no room for.
    pub(super) async fn missed(&mut self) {
        for (flow, first) in self.desk.take_missed() {
            let mut after = QueueId::from_number(first.number().saturating_sub(1));
            loop {
                let read = self.spool.ready(&flow, after, EVENTS_TOGETHER).await;
                let items = match read {
                    Ok(items) => items,
                    Err(trouble) => {
                        warn!(%trouble, "cannot read what was accepted");
                        // Then all flows are read again, these among them.
                        self.rebuilding = true;
                        return;
                    }
                };
                let now = self.office.clock.moment();
                for item in &items {
                    self.release.waiting(item, now);
                }
                match items.last() {
                    Some(last) if items.len() == EVENTS_TOGETHER => after = last.id,
                    _ => break,
                }
            }
        }
    }

    /// Gives the release the messages that it has run out of; whether that was possible.
    ///
    /// What cannot be read now is not taken for nothing: everything is looked over again
    /// once the index answers.
    pub(super) async fn refill(&mut self) -> bool {
        loop {
            let refills = self.release.refills();
            if refills.is_empty() {
                return true;
            }
            let mut refills = refills.into_iter();
            while let Some(refill) = refills.next() {
                let read = self
                    .spool
                    .ready(&refill.flow, refill.after, refill.limit)
                    .await;
                let now = self.office.clock.moment();
                match read {
                    Ok(items) => self.release.refilled(&refill, &items, now),
                    Err(trouble) => {
                        warn!(%trouble, "cannot read what waits");
                        for unanswered in std::iter::once(refill).chain(refills) {
                            self.release.unanswered(&unanswered, now);
                        }
                        self.rebuilding = true;
                        return false;
                    }
                }
            }
        }
    }

    /// Tells the release of messages whose next attempt is later than any that is ever
    /// set: the clock was set back since, and they are due.
    pub(super) async fn fetch_left_behind(&mut self) {
        let now = self.office.clock.moment();
        let longest = self.live.config.retry.max + ROUND;
        let from = now.wall.checked_add(longest).unwrap_or(Timestamp::MAX);
        let relays: Vec<String> = self.relays.keys().cloned().collect();
        for relay in relays {
            let room = self.release.retry_room(&relay);
            let spool = &self.spool;
            match spool.retries_from(&relay, from, room, FLOW_RETRIES).await {
                Ok(items) => {
                    for item in &items {
                        self.release.waiting(item, now);
                    }
                }
                Err(trouble) => {
                    warn!(%trouble, relay, "cannot read which retries the clock left behind");
                }
            }
        }
    }

    /// Tells the release of messages whose next attempt is due.
    pub(super) async fn fetch_retries(&mut self) {
        let now = self.office.clock.moment();
        let due: Vec<String> = self
            .relays
            .iter()
            .filter(|(_, book)| book.next_retry.is_some_and(|at| at <= now.wall))
            .map(|(relay, _)| relay.clone())
            .collect();
        for relay in due {
            let room = self.release.retry_room(&relay);
            // Those that the release knows already come again with every look from the
            // beginning: a long line is gone through to its end first.
            let after = self.book(&relay).retries_seen.take();
            let spool = &self.spool;
            let items = match room {
                0 => Ok((Vec::new(), after)),
                _ => {
                    spool
                        .retries_due(&relay, now.wall, after, room, FLOW_RETRIES)
                        .await
                }
            };
            let next = spool.next_retry(&relay).await;
            let again = now.wall.checked_add(RETRY_AGAIN).unwrap_or(Timestamp::MAX);
            match (items, next) {
                (Ok((items, seen)), Ok(next)) => {
                    for item in &items {
                        self.release.waiting(item, now);
                    }
                    self.book(&relay).retries_seen = seen;
                    self.book(&relay).next_retry = next.map(|at| match at <= now.wall {
                        true => again,
                        false => at,
                    });
                }
                (Err(trouble), _) | (_, Err(trouble)) => {
                    warn!(%trouble, relay, "cannot read which retries are due");
                    self.book(&relay).next_retry = Some(again);
                }
            }
        }
    }
}
