//! The trouble of one relay: when it is paused, why, and when it is tried again.
//!
//! A relay's trouble costs delay, never mail: while it lasts, the relay's mail waits,
//! one message at a time goes as a probe, and the first that gets through ends it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Retry;
use crate::mail::{Envelope, QueueId, Stage, State};

use super::backoff;
use super::doubt::Doubt;
use super::finding::{Action, Class, Finding};
use super::settlement::{Settlement, Suspicion, Trouble};
use super::spells::{Spells, between, later};

/// How many different senders, and how many different recipients, must have been
/// refused with no success between before it is the relay's trouble (PRODUCT section 5).
const WITNESSES: usize = 3;

/// What is known of one relay's trouble, past and present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    pause: Option<Pause>,
    past: Spells,
    refused_senders: BTreeSet<String>,
    refused_recipients: BTreeSet<String>,
    last_break: Option<(Timestamp, Timestamp)>,
    doubt: Doubt,
}

/// Why and since when a relay is paused, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Who or what paused it.
    pub cause: Cause,
    /// What it is about (a [`Class`]'s name); empty when a person paused it.
    pub class: String,
    /// At which point of the dialogue (a [`Stage`]'s name); empty when a person paused it.
    pub stage: String,
    /// The server's own words, or the administrator's note.
    pub words: String,
    /// What somebody could change.
    pub remedy: String,
    /// The rule that judged it.
    pub rule: String,
    /// The administrator's name, or `penstock`.
    pub by: String,
    /// Probes that failed.
    pub probes: u32,
    /// When the next message may go as a probe; none: only when somebody resumes it.
    pub next_probe: Option<Timestamp>,
    /// A probe is on its way.
    #[serde(default)]
    pub probing: bool,
}

/// Who or what paused a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// An administrator.
    Administrator,
    /// Its own trouble.
    Trouble,
    /// It asked for less at once.
    Rate,
}

/// What an event did to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing to tell anybody.
    None,
    /// It is paused now and was not before: say so, once.
    Paused,
    /// It is still paused; the next probe is later.
    Postponed,
    /// It works again.
    Resumed,
}

impl Health {
    /// Reads what [`to_value`](Self::to_value) wrote. What cannot be read is a relay without
    /// trouble, which costs at most one more refused connection; but one that an
    /// administrator paused stays so, for only an administrator knows why.
    pub fn from_value(value: &serde_json::Value, now: Timestamp) -> Self {
        Self::deserialize(value).unwrap_or_else(|_| {
            let mut health = Self::default();
            let pause = &value["pause"];
            if pause["cause"] == "administrator" {
                let by = pause["by"].as_str().unwrap_or("penstock");
                let words = pause["words"].as_str().unwrap_or_default();
                health.pause_by(by, words, now);
            }
            health
        })
    }

    /// For the spool's notes.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The pause it is in, if it is.
    pub fn pause(&self) -> Option<&Pause> {
        self.pause.as_ref()
    }

    /// Whether mail may go to it as if nothing were wrong.
    pub fn is_well(&self) -> bool {
        self.pause.is_none()
    }

    /// Whether one message may go as a probe now.
    pub fn probe_due(&self, now: Timestamp) -> bool {
        self.pause
            .as_ref()
            .and_then(|it| it.next_probe)
            .is_some_and(|it| it <= now)
    }

    /// A next probe later than any that is ever set is left from before the clock was set
    /// back: it is due now. `longest` is the longest wait that is ever set.
    pub fn clock_went_back(&mut self, longest: Duration, now: Timestamp) {
        if let Some(pause) = &mut self.pause
            && pause
                .next_probe
                .is_some_and(|it| between(now, it) > longest)
        {
            pause.next_probe = Some(now);
        }
    }

    /// When a probe is due, if it is paused and not by a person.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.pause.as_ref()?.next_probe
    }

    /// Learns from what became of a message.
    pub fn learn(
        &mut self,
        settlement: &Settlement,
        retry: &Retry,
        now: Timestamp,
        jitter: f64,
    ) -> Change {
        if settlement.delivered {
            self.refused_senders.clear();
            self.refused_recipients.clear();
        }
        let proves = self.pause.as_ref().is_none_or(|it| it.is_tried(now));
        self.doubt.over(&settlement.envelope);
        if let Some(trouble) = &settlement.trouble {
            if trouble.stage >= Stage::Mail {
                self.doubt.met(&settlement.envelope, now);
            }
            return self.trouble(trouble, retry, now, jitter);
        }
        if settlement.delivered && proves {
            self.doubt.passed(&settlement.envelope, now);
        }
        let resumed = match (&self.pause, settlement.reached) {
            (Some(pause), _) if pause.cause == Cause::Administrator => false,
            // What was under way when it was paused proves nothing about now.
            (Some(pause), _) if !pause.is_tried(now) => false,
            (Some(_), _) if settlement.delivered => true,
            // It came past the point where the trouble was.
            (Some(pause), Some(stage)) => {
                Stage::from_name(&pause.stage).is_some_and(|it| it < stage)
            }
            _ => false,
        };
        if resumed && settlement.suspicion.is_none() {
            self.end_pause(now);
            return Change::Resumed;
        }
        if let Some(suspicion) = &settlement.suspicion
            && let Some(trouble) = self.suspect(suspicion)
        {
            return self.trouble(&trouble, retry, now, jitter);
        }
        if let Some(pause) = &mut self.pause
            && pause.is_tried(now)
        {
            // The probe proved nothing either way: the next one comes soon.
            pause.next_probe = Some(later(now, backoff::delay(retry, Duration::ZERO, jitter)));
            pause.probing = false;
        }
        Change::None
    }

    /// The relay has trouble: it is paused, or its next probe comes later still.
    pub fn trouble(
        &mut self,
        trouble: &Trouble,
        retry: &Retry,
        now: Timestamp,
        jitter: f64,
    ) -> Change {
        let change = match &mut self.pause {
            Some(pause) if pause.cause == Cause::Administrator => return Change::None,
            Some(pause) => {
                // Transactions that were under way when it was paused are no probes.
                if !pause.is_tried(now) {
                    return Change::None;
                }
                pause.probes = pause.probes.saturating_add(1);
                Change::Postponed
            }
            None => Change::Paused,
        };
        let since = self.pause.as_ref().map_or(now, |it| it.since);
        let probes = self.pause.as_ref().map_or(0, |it| it.probes);
        let cause = if trouble.slow_down {
            Cause::Rate
        } else {
            Cause::Trouble
        };
        let before = match cause {
            Cause::Rate => self.latest_break(retry, now),
            Cause::Trouble | Cause::Administrator => Duration::ZERO,
        };
        let wait = backoff::delay(retry, between(since, now).saturating_add(before), jitter);
        self.pause = Some(Pause {
            since,
            cause,
            class: trouble.finding.class.name().to_owned(),
            stage: trouble.stage.name().to_owned(),
            words: trouble.words.clone(),
            remedy: trouble.finding.remedy.clone(),
            rule: trouble.finding.rule.clone(),
            by: "penstock".to_owned(),
            probes,
            next_probe: Some(later(now, wait)),
            probing: false,
        });
        change
    }

    /// A relay that wants a break soon after the last one needs a longer one: how long
    /// that was.
    fn latest_break(&self, retry: &Retry, now: Timestamp) -> Duration {
        self.last_break.map_or(Duration::ZERO, |(start, end)| {
            let length = between(start, end);
            let soon = between(end, now) <= length.saturating_mul(2).min(retry.max);
            length * u32::from(soon)
        })
    }

    /// How long a message steps aside that met the relay's trouble after MAIL: longer
    /// than the pause, so that the next probe is another message, if there is one.
    pub(super) fn aside(&self, retry: &Retry, now: Timestamp, jitter: f64) -> Duration {
        let paused = self
            .pause
            .as_ref()
            .map_or(Duration::ZERO, |it| between(it.since, now));
        let longer = paused + self.latest_break(retry, now) + retry.first;
        backoff::delay(retry, longer, jitter)
    }

    /// Whether what looks like the relay's trouble is this message's own: others got
    /// through since it, or its sender, met it first.
    pub(super) fn is_own(&self, envelope: &Envelope, now: Timestamp) -> bool {
        self.doubt.is_own(envelope, now)
    }

    /// The messages that stepped aside for the trouble that is over: they may be tried
    /// at once.
    pub fn call_back(&mut self) -> Vec<QueueId> {
        self.doubt.call_back()
    }

    /// A probe is on its way: no other one until its outcome is known, or until this
    /// moment if it never is.
    pub fn probing(&mut self, until: Timestamp) {
        if let Some(pause) = &mut self.pause
            && pause.next_probe.is_some()
        {
            pause.next_probe = Some(until);
            pause.probing = true;
        }
    }

    /// What went as a probe never reached the relay: another one may go soon.
    pub fn no_probe(&mut self, retry: &Retry, now: Timestamp) {
        if let Some(pause) = self.pause.as_mut().filter(|it| it.probing) {
            pause.next_probe = Some(later(now, retry.first));
            pause.probing = false;
        }
    }

    /// An administrator pauses it, until it is resumed by one.
    pub fn pause_by(&mut self, by: &str, note: &str, now: Timestamp) -> Change {
        let was_well = self.is_well();
        let since = self.pause.as_ref().map_or(now, |it| it.since);
        self.pause = Some(Pause {
            since,
            cause: Cause::Administrator,
            class: String::new(),
            stage: String::new(),
            words: note.to_owned(),
            remedy: "Run penstock relay resume when it may send again.".to_owned(),
            rule: String::new(),
            by: by.to_owned(),
            probes: 0,
            next_probe: None,
            probing: false,
        });
        if was_well {
            Change::Paused
        } else {
            Change::Postponed
        }
    }

    /// An administrator resumes it, or its configuration changed: it is tried at once.
    pub fn resume(&mut self, now: Timestamp) -> Change {
        self.refused_senders.clear();
        self.refused_recipients.clear();
        if self.pause.is_none() {
            return Change::None;
        }
        self.end_pause(now);
        Change::Resumed
    }

    /// How much of the time between two moments the relay was paused.
    pub fn paused_between(&self, from: Timestamp, to: Timestamp) -> Duration {
        let present = self.pause.as_ref();
        let present = present.map_or(Duration::ZERO, |it| between(it.since.max(from), to));
        self.past.within(from, to) + present
    }

    /// Whether it is paused, or was within this time.
    pub fn paused_lately(&self, within: Duration, now: Timestamp) -> bool {
        self.pause.is_some() || self.past.ended_within(within, now)
    }

    /// How long a message has been failing, the relay's pauses left out.
    pub fn tried_for(&self, envelope: &Envelope, now: Timestamp) -> Duration {
        envelope.first_failure.map_or(Duration::ZERO, |first| {
            between(first, now).saturating_sub(self.paused_between(first, now))
        })
    }

    /// The beginning of a failing moved on by the pauses since.
    pub fn without_pauses(&self, first: Timestamp, now: Timestamp) -> Timestamp {
        later(first, self.paused_between(first, now)).min(now.max(first))
    }

    /// When a message that fails now and then is given up; none while that cannot be
    /// told: before it failed, while it is held, and while the relay is paused.
    pub fn gives_up(
        &self,
        envelope: &Envelope,
        retry: &Retry,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let first = envelope.first_failure?;
        if self.pause.is_some() || matches!(envelope.state, State::Held(_)) {
            return None;
        }
        Some(later(self.without_pauses(first, now), retry.expire_after))
    }

    /// The pause as a finding, for reports about mail that waits for it.
    pub fn finding(&self) -> Option<Finding> {
        let pause = self.pause.as_ref()?;
        Some(Finding {
            class: Class::from_name(&pause.class).unwrap_or(Class::Temporary),
            action: Action::PauseRelay,
            remedy: pause.remedy.clone(),
            rule: pause.rule.clone(),
            fallback: false,
        })
    }

    /// Remembers who was refused; the trouble it proves, when it does.
    fn suspect(&mut self, suspicion: &Suspicion) -> Option<Trouble> {
        let room = |set: &BTreeSet<String>| set.len() < WITNESSES;
        if room(&self.refused_senders) {
            self.refused_senders.insert(suspicion.sender.clone());
        }
        for recipient in &suspicion.recipients {
            if room(&self.refused_recipients) {
                self.refused_recipients.insert(recipient.clone());
            }
        }
        (!room(&self.refused_senders) && !room(&self.refused_recipients))
            .then(|| suspicion.trouble.clone())
    }

    fn end_pause(&mut self, now: Timestamp) {
        let Some(pause) = self.pause.take() else {
            return;
        };
        // A clock that went back must not make a pause that ends before it starts.
        let spell = (pause.since, now.max(pause.since));
        if pause.cause == Cause::Rate {
            self.last_break = Some(spell);
        }
        self.past.add(spell);
    }
}

impl Pause {
    /// Whether what comes back now was a probe, or could have been one.
    fn is_tried(&self, now: Timestamp) -> bool {
        self.probing || self.next_probe.is_some_and(|it| it <= now)
    }
}
