//! What is known of each relay besides its limits, and what follows when it changes.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::outcome::{self, Cause, Health};
use crate::spool::RetryPlace;
use crate::verify::{self, Verification};

use crate::daemon::alarm::{Alarm, AlarmError};
use crate::daemon::alarms::Kind;
use crate::daemon::overdue::Warned;

use super::Delivery;
use super::dispatch::PROBE_PATIENCE;
use super::watch::paused_for;

/// The kind of the spool's notes about a relay's health.
pub(super) const HEALTH: &str = "health";

/// What is known of one relay besides its limits.
#[derive(Default)]
pub(in crate::daemon) struct RelayBook {
    /// Its trouble, past and present.
    pub health: Health,
    /// Whether somebody has read its test message.
    pub verification: Verification,
    /// Who wants to know how its test message ends.
    pub watchers: Vec<oneshot::Sender<verify::Outcome>>,
    /// Transactions under way.
    pub sending: u64,
    /// When it last took a message.
    pub last_success: Option<Timestamp>,
    /// When it last refused something or was not reached, and the words.
    pub last_failure: Option<(Timestamp, String)>,
    /// When to look for due retries again.
    pub(super) next_retry: Option<Timestamp>,
    /// Since when something may leave for it and nothing does (uptime).
    pub(super) idle_since: Option<Duration>,
    /// Where the last look for due retries ended, if there are more.
    pub(super) retries_seen: Option<RetryPlace>,
    /// Whose senders were told that they wait.
    pub(in crate::daemon) warned: Warned,
}

impl Delivery {
    pub(in crate::daemon) fn book(&mut self, relay: &str) -> &mut RelayBook {
        self.relays.entry(relay.to_owned()).or_default()
    }

    /// A relay was paused, resumed, or its next probe moved: say so and remember it.
    pub(in crate::daemon) async fn health_changed(&mut self, relay: &str, change: outcome::Change) {
        let now = self.office.clock.now();
        let book = self.book(relay);
        let pause = book.health.pause().cloned();
        let mut value = book.health.to_value();
        match (change, pause) {
            (outcome::Change::None, _) => return,
            (outcome::Change::Paused, Some(pause)) => {
                self.release.pause(relay);
                let alarm = Alarm::paused(relay, &pause);
                let text = paused_for(relay, &pause);
                let (class, remedy, words) = (pause.class, pause.remedy, pause.words);
                let next_probe = pause.next_probe.map(|it| it.to_string());
                match pause.cause {
                    Cause::Administrator => info!(relay, by = pause.by, words, "relay paused"),
                    Cause::Trouble | Cause::Rate => {
                        warn!(
                            relay,
                            class,
                            stage = pause.stage,
                            words,
                            remedy,
                            next_probe,
                            "relay paused: its mail waits"
                        );
                        if pause.cause == Cause::Trouble {
                            self.raise(Kind::RelayPaused, Some(relay), &text, alarm);
                        }
                    }
                }
            }
            (outcome::Change::Postponed, Some(pause)) => {
                self.release.pause(relay);
                debug!(relay, probes = pause.probes, "the relay still has trouble");
            }
            (_, _) => {
                self.release.resume(relay);
                let book = self.book(relay);
                book.next_retry = Some(now);
                let aside = book.health.call_back();
                value = book.health.to_value();
                info!(relay, "relay resumed");
                self.call_back(relay, aside).await;
                self.clear(Kind::RelayPaused, Some(relay));
            }
        }
        if let Err(trouble) = self.spool.note(HEALTH, relay, Some(value)).await {
            warn!(%trouble, relay, "cannot remember how the relay is");
        }
    }

    /// Mails what the administrator should know. What the spool does not take, its disk
    /// being full, is tried again with the next round.
    pub(super) async fn mail_alarms(&mut self) {
        for alarm in std::mem::take(&mut self.alarms) {
            match self.office.mail(&alarm).await {
                Ok(Some(envelope)) => self.waits_again(&envelope),
                Ok(None) => {}
                Err(trouble @ AlarmError::NoRelay) => {
                    warn!(%trouble, alarm = alarm.subject, "cannot mail an alarm");
                }
                Err(trouble @ AlarmError::Spool(_)) => {
                    warn!(%trouble, alarm = alarm.subject, "cannot mail an alarm yet");
                    // The latest words about one thing are enough.
                    self.unmailed.retain(|it| it.subject != alarm.subject);
                    self.unmailed.push(alarm);
                }
            }
        }
    }

    /// Lets one message go to each paused relay whose probe is due.
    pub(super) fn send_probes(&mut self) {
        let now = self.office.clock.now();
        let longest = self.live.config.retry.max.max(PROBE_PATIENCE);
        for (relay, book) in &mut self.relays {
            book.health.clock_went_back(longest, now);
            if book.health.probe_due(now) && book.sending == 0 {
                self.release.probe(relay);
            }
        }
    }
}
