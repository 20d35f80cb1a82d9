//! Waiting mail follows the directory: its user has another relay by now.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use crate::accept::Live;
use crate::mail::{Envelope, Origin, Past, PastEvent, QueueId, Rule};
use crate::route::Route;
use crate::spool::{self, Filter, FlowKey, SpoolError};

use super::delivery::Delivery;
use super::look::{Found, Look, Search};
use super::transaction::Office;

/// Messages that are moved at a time.
const STEP: usize = 200;

/// Flows whose messages are being moved.
pub(super) struct Following {
    flows: Arc<HashSet<FlowKey>>,
    look: Look,
}

impl Delivery {
    /// Has the messages of all flows moved whose user has another relay by now: in one
    /// look through what waits, however many they are.
    pub(super) fn follow_directory(&mut self) {
        if let Some(following) = &self.following {
            if following.look.is_under_way() {
                return;
            }
            if following.look.end().is_none() {
                self.moves.extend(following.flows.iter().cloned());
                self.follow_from = self.next_round;
            }
            self.following = None;
        }
        if self.moves.is_empty() || Instant::now() < self.follow_from {
            return;
        }
        let flows: HashSet<FlowKey> = std::mem::take(&mut self.moves).into_iter().collect();
        let flows = Arc::new(flows);
        let (office, live) = (self.office.clone(), self.office.live.borrow().clone());
        let look = self.look(Search {
            filter: Filter {
                flows: Some(flows.clone()),
                ..Filter::default()
            },
            after: QueueId::MIN,
            step: STEP,
            keep: Arc::new(move |it| way(&office, &live, it).is_some()),
            found: Box::new(Found::Strays),
            is_enough: Box::new(|| false),
        });
        self.following = Some(Following { flows, look });
    }

    /// Moves these messages, as far as they still have to go elsewhere.
    pub(super) async fn follow(&mut self, ids: Vec<QueueId>) -> Result<(), SpoolError> {
        let live = self.office.live.borrow().clone();
        let mut pairs = Vec::new();
        for id in ids {
            // One that is being sent and comes back is looked at again.
            if self.sending.contains_key(&id) {
                continue;
            }
            let Some(before) = self.spool.envelope(id).await? else {
                continue;
            };
            let Some(route) = way(&self.office, &live, &before) else {
                continue;
            };
            let mut next = before.clone();
            next.relay = route.relay;
            // What is our own stays that.
            if before.rule != Rule::Own {
                next.rule = route.rule;
            }
            next.remember(Past {
                at: self.office.clock.now(),
                event: PastEvent::Rerouted,
                recipient: None,
                said: None,
                note: format!(
                    "follows the directory from {} to {}",
                    before.relay, next.relay
                ),
                rule: Some(before.rule.clone()),
            });
            let next = self.moved(&before, next, self.office.clock.now());
            pairs.push((before, next));
        }
        if pairs.is_empty() {
            return Ok(());
        }
        let changes = pairs.iter().map(|(_, next)| spool::Change {
            envelope: next.clone(),
            by: "penstock".to_owned(),
            reports: Vec::new(),
        });
        self.spool.change(changes.collect()).await?;
        for (before, next) in pairs {
            info!(queue_id = %next.id, from = before.relay, to = next.relay, "follows the directory to another relay");
            self.replaced(&before, &next);
        }
        Ok(())
    }
}

/// Where a message has to go instead, if it has to.
fn way(office: &Office, live: &Live, before: &Envelope) -> Option<Route> {
    // Our own mail stays where we put it, unless that relay is gone; and what an
    // administrator rerouted stays there.
    let stays = match before.rule {
        Rule::Own => {
            before.origin == Origin::Verification || live.config.relays.contains_key(&before.relay)
        }
        Rule::Rerouted => true,
        _ => false,
    };
    if stays || before.is_finished() {
        return None;
    }
    let is_active = |name: &str| office.is_active(live, name);
    let route = live.directory.route(&before.from, &is_active).ok()?;
    (route.relay != before.relay).then_some(route)
}
