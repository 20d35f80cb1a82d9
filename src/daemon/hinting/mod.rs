//! Hints while mail flows: when they are looked for, and what is done about them.
//!
//! A message's 250 waits for none of this, except for the hints about the content that
//! the configuration wants held or refused ([`content_check`]): accepted mail is told of
//! over a bounded channel, and what finds no room there is not looked at. One task looks
//! at pairs of From domain and relay when they are first seen, daily, and after a reload,
//! and at the contents of a few messages of every mailing.

mod board;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::accept::{ContentCheck, Live, Verdict};
use crate::clock::Clock;
use crate::config::{Config, HintAction, HintName};
use crate::control::protocol::{HintCount, HintReport};
use crate::dns::Dns;
use crate::hint::{self, Bulk, Finding, Looked, Pair, Severity, content};
use crate::mail::{
    Envelope, ForwardPath, Hold, HoldReason, Mailbox, Mailing, Origin, Past, PastEvent, QueueId,
    Recipient, ReversePath, State,
};
use crate::spool::{self, Spool, SpoolError};

use super::delivery::Delivery;
use super::desk::{Desk, Event};
use super::lifecycle::Lifecycle;
use board::{Board, Due};

/// Messages that may wait to be looked at; more are passed over.
const AHEAD: usize = 512;
/// Pairs that are looked at at once.
const LOOKS_AT_ONCE: usize = 4;
/// Who holds for a hint.
const BY: &str = "penstock";

/// The way to what is known; cloned freely.
#[derive(Clone)]
pub struct Hints {
    board: Arc<Mutex<Board>>,
    accepted: mpsc::Sender<Accepted>,
}

/// A message that was accepted.
pub struct Accepted {
    id: QueueId,
    from: Mailbox,
    relay: String,
    reverse_path: ReversePath,
    to_itself: bool,
    mailing: Mailing,
    at: Timestamp,
}

/// A message that is about to be accepted.
pub struct Coming<'a> {
    /// Who it is from.
    pub from: &'a Mailbox,
    /// The name of its relay.
    pub relay: &'a str,
    /// Its reverse-path as the client said it.
    pub reverse_path: &'a ReversePath,
    /// Whom it goes to.
    pub to: &'a [Recipient],
}

impl Hints {
    /// The hints, and what the task that looks for them reads.
    pub fn new() -> (Self, mpsc::Receiver<Accepted>) {
        let (accepted, receiver) = mpsc::channel(AHEAD);
        let board = Arc::default();
        (Self { board, accepted }, receiver)
    }

    /// Tells of an accepted message, without waiting.
    pub fn accepted(&self, envelope: &Envelope) {
        if envelope.origin != Origin::Submission {
            return;
        }
        let told = self.accepted.try_send(Accepted {
            id: envelope.id,
            from: envelope.from.clone(),
            relay: envelope.relay.clone(),
            reverse_path: envelope.reverse_path.clone(),
            to_itself: to_itself(&envelope.from, &envelope.recipients),
            mailing: envelope.mailing.clone(),
            at: envelope.accepted,
        });
        if told.is_err() {
            debug!(queue_id = %envelope.id, "too much mail at once: no hints are looked for");
        }
    }

    /// Why a message is held from the start, by what is known of its pair.
    pub fn hold(&self, config: &Config, coming: &Coming<'_>, now: Timestamp) -> Option<Hold> {
        let holds = config
            .hints
            .actions
            .values()
            .any(|it| *it == HintAction::Hold);
        let relay = config.relays.get(coming.relay).filter(|_| holds)?;
        let pair = Pair::new(
            coming.from,
            Arc::new(relay.clone()),
            Some(coming.reverse_path),
        );
        let note = self
            .board()
            .hold(&pair, to_itself(coming.from, coming.to), config)?;
        Some(held(note, now))
    }

    /// All that is known, or what concerns one relay; the worst first.
    pub fn reports(&self, config: &Config, relay: Option<&str>) -> Vec<HintReport> {
        self.board().reports(config, relay)
    }

    /// How many findings are serious.
    pub fn serious(&self) -> usize {
        self.board().serious()
    }

    /// How many findings there are of each hint and severity.
    pub fn counts(&self) -> Vec<HintCount> {
        self.board().counts()
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_itself(from: &Mailbox, to: &[Recipient]) -> bool {
    to.iter().any(|it| match &it.path {
        ForwardPath::Mailbox(to) => hint::same_domain::applies(from.domain(), to.domain()),
        // It goes to the relay's own postmaster, wherever that is.
        ForwardPath::Postmaster => false,
    })
}

fn held(note: String, since: Timestamp) -> Hold {
    Hold {
        reason: HoldReason::Hint,
        by: BY.to_owned(),
        since,
        note,
    }
}

/// The look at a content before its message is accepted: only for the hints that the
/// configuration wants held or refused.
pub fn content_check(live: watch::Receiver<Arc<Live>>, clock: Clock) -> Arc<ContentCheck> {
    Arc::new(move |_, octets| {
        let config = live.borrow().config.clone();
        // More came than a look sees: what is open at its end is no fault.
        let is_whole = octets.len() < content::OCTETS_MAXIMUM;
        let found = hint::by_content(&config, octets, is_whole, "this message");
        verdict(&config, &found, clock.now())
    })
}

fn verdict(config: &Config, found: &[Finding], now: Timestamp) -> Verdict {
    let first = |action| {
        found
            .iter()
            .find(|it| config.hints.action(it.hint) == action)
    };
    if let Some(finding) = first(HintAction::Reject) {
        return Verdict::Reject(format!(
            "{} ({}): {}. {}",
            finding.hint.name(),
            finding.evidence.join("; "),
            finding.found,
            finding.remedy
        ));
    }
    match first(HintAction::Hold) {
        Some(finding) => Verdict::Hold(held(board::note(finding), now)),
        None => Verdict::Pass,
    }
}

/// The task that looks.
pub struct Hinting {
    /// What is known.
    pub hints: Hints,
    /// Messages that were accepted.
    pub accepted: mpsc::Receiver<Accepted>,
    /// The configuration in use.
    pub live: watch::Receiver<Arc<Live>>,
    /// The waiting mail.
    pub spool: Spool,
    /// The delivery task, which holds messages.
    pub desk: Desk,
    /// The resolver.
    pub dns: Arc<dyn Dns>,
    /// What the time is.
    pub clock: Clock,
    /// Tells when to stop.
    pub lifecycle: Lifecycle,
}

impl Hinting {
    /// Looks until the daemon stops.
    pub async fn run(mut self) {
        let stopping = self.lifecycle.draining();
        let mut looks: JoinSet<(Due, Looked)> = JoinSet::new();
        loop {
            while looks.len() < LOOKS_AT_ONCE && self.live.borrow().config.hints.dns {
                let now = self.clock.now();
                let Some(due) = self.hints.board().take_due(now) else {
                    break;
                };
                self.look(&mut looks, due);
            }
            let next = match looks.len() < LOOKS_AT_ONCE && self.live.borrow().config.hints.dns {
                true => self.hints.board().next_due(),
                false => None,
            };
            let now = self.clock.now();
            let wake = async {
                match next.map(|it| Duration::try_from(it.duration_since(now)).unwrap_or_default())
                {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                Some(message) = self.accepted.recv() => self.seen(message).await,
                Some(looked) = looks.join_next(), if !looks.is_empty() => {
                    if let Ok((due, found)) = looked {
                        self.looked(&due.pair, found).await;
                    }
                }
                Ok(()) = self.live.changed() => self.configured(),
                () = wake => {}
            }
        }
    }

    fn look(&self, looks: &mut JoinSet<(Due, Looked)>, due: Due) {
        let (dns, live) = (self.dns.clone(), self.live.borrow().clone());
        looks.spawn(async move {
            let config = &live.config;
            let found = hint::by_dns(&*dns, config, &due.pair, due.to_itself, &due.bulk).await;
            (due, found)
        });
    }

    fn configured(&mut self) {
        let config = self.live.borrow_and_update().config.clone();
        let now = self.clock.now();
        self.hints.board().configured(&config, now);
    }

    /// A message was accepted.
    async fn seen(&mut self, message: Accepted) {
        let config = self.live.borrow().config.clone();
        let Some(relay) = config.relays.get(&message.relay).cloned() else {
            return;
        };
        let pair = Pair::new(&message.from, Arc::new(relay), Some(&message.reverse_path));
        let (look, bulk) = {
            let mut board = self.hints.board();
            let (look, bulk) = board.count(&message.relay, &message.mailing, message.at);
            board.seen(
                pair,
                message.id,
                message.to_itself,
                bulk.clone(),
                message.at,
            );
            (look, bulk)
        };
        if bulk != Bulk::No {
            debug!(queue_id = %message.id, "part of a large mailing");
        }
        if look {
            self.look_into(&config, &message).await;
        }
    }

    /// Looks at the content of a message that may have left already.
    async fn look_into(&self, config: &Arc<Config>, message: &Accepted) {
        let is_wanted = |it: &HintName| config.hints.action(*it) != HintAction::Off;
        if !HintName::ALL
            .iter()
            .any(|it| it.is_content() && is_wanted(it))
        {
            return;
        }
        let octets = match beginning(&self.spool, message.id).await {
            Ok(Some(octets)) => octets,
            Ok(None) => return,
            Err(trouble) => {
                debug!(queue_id = %message.id, %trouble, "its content cannot be looked at");
                return;
            }
        };
        let (settings, subject) = (config.clone(), format!("message {}", message.id));
        let looked = tokio::task::spawn_blocking(move || {
            let is_whole = octets.len() < content::OCTETS_MAXIMUM;
            hint::by_content(&settings, &octets, is_whole, &subject)
        });
        let Ok(found) = looked.await else {
            warn!(queue_id = %message.id, "the look at its content failed");
            return;
        };
        let from = message.from.folded();
        let new = self
            .hints
            .board()
            .content(&from, &message.relay, found, message.at);
        for finding in new {
            log(&finding, &message.relay);
        }
    }

    /// A look is over.
    async fn looked(&self, pair: &Pair, found: Looked) {
        let config = self.live.borrow().config.clone();
        let now = self.clock.now();
        let change = self.hints.board().looked(pair, found, &config, now);
        for finding in &change.new {
            log(finding, &pair.relay.name);
        }
        for finding in &change.gone {
            info!(
                hint = finding.hint.name(),
                subject = finding.subject,
                relay = pair.relay.name,
                "a hint is no longer found"
            );
        }
        if !change.hold.is_empty() {
            self.desk.tell(Event::HoldForHint(change.hold)).await.ok();
        }
    }
}

/// Said once for each finding; `penstock hints` has the rest.
fn log(finding: &Finding, relay: &str) {
    let record = finding.record.as_ref().map(ToString::to_string);
    let (hint, subject) = (finding.hint.name(), &finding.subject);
    let (found, remedy) = (&finding.found, &finding.remedy);
    match finding.severity {
        Severity::Serious | Severity::Warning => {
            warn!(
                hint,
                severity = finding.severity.name(),
                subject,
                relay,
                remedy,
                record,
                "{found}"
            );
        }
        Severity::Notice | Severity::Unknown => {
            info!(
                hint,
                severity = finding.severity.name(),
                subject,
                relay,
                remedy,
                record,
                "{found}"
            );
        }
    }
}

/// The beginning of a message in the spool; none: it is gone.
async fn beginning(spool: &Spool, id: QueueId) -> Result<Option<Vec<u8>>, SpoolError> {
    let Some(mut content) = spool.content(id).await? else {
        return Ok(None);
    };
    let mut octets = Vec::new();
    while octets.len() < content::OCTETS_MAXIMUM
        && let Some(block) = content.next().await?
    {
        octets.extend(block);
    }
    octets.truncate(content::OCTETS_MAXIMUM);
    Ok(Some(octets))
}

impl Delivery {
    /// Holds messages that came before their pair was looked at; what has left meanwhile,
    /// or is just being sent, is left alone.
    pub(super) async fn hold_for_hint(&mut self, messages: Vec<(QueueId, String)>) {
        let now = self.office.clock.now();
        for (id, note) in messages {
            if self.sending.contains_key(&id) {
                continue;
            }
            let before = match self.spool.envelope(id).await {
                Ok(Some(before)) if !matches!(before.state, State::Held(_)) => before,
                Ok(_) => continue,
                // Nothing leaves before the index answers.
                Err(trouble) if trouble.is_of_index() => {
                    self.later.held.push((id, note));
                    continue;
                }
                Err(trouble) => {
                    warn!(queue_id = %id, %trouble, "cannot hold a message for a hint");
                    continue;
                }
            };
            let mut next = before.clone();
            next.state = State::Held(held(note.clone(), now));
            next.remember(Past {
                at: now,
                event: PastEvent::Held,
                recipient: None,
                said: None,
                note: format!("by {BY} {note}"),
                rule: None,
            });
            let change = spool::Change {
                envelope: next.clone(),
                by: BY.to_owned(),
                reports: Vec::new(),
            };
            match self.spool.change(vec![change]).await {
                Ok(()) => {
                    info!(queue_id = %id, note, "held for a hint");
                    self.facts.relays.held(&next.relay, 1);
                    self.replaced(&before, &next);
                }
                Err(trouble) => warn!(queue_id = %id, %trouble, "cannot hold a message for a hint"),
            }
        }
    }
}
