//! The trouble of one relay: when it is paused, why, and when it is tried again.
//!
//! A relay's trouble costs delay, never mail: while it lasts, the relay's mail waits,
//! one message at a time goes as a probe, and the first that gets through ends it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Retry;
use crate::mail::{Envelope, QueueId, Stage};

use super::backoff;
use super::doubt::Doubt;
use super::finding::{Action, Class, Finding};
use super::settlement::{Settlement, Suspicion, Trouble};

/// How many different senders, and how many different recipients, must have been
/// refused with no success between before it is the relay's trouble (PRODUCT section 5).
const WITNESSES: usize = 3;
/// Past pauses that are kept apart; more are joined.
const PAUSES_MAXIMUM: usize = 64;

/// What is known of one relay's trouble, past and present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    pause: Option<Pause>,
    past: Vec<(Timestamp, Timestamp)>,
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
    /// Reads what [`to_value`](Self::to_value) wrote; what cannot be read is a relay
    /// without trouble, which costs at most one more refused connection.
    pub fn from_value(value: &serde_json::Value) -> Self {
        Self::deserialize(value).unwrap_or_default()
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
        let present = self.pause.as_ref().map(|it| (it.since, to));
        self.past
            .iter()
            .copied()
            .chain(present)
            .map(|(start, end)| between(start.max(from), end.min(to)))
            .sum()
    }

    /// Whether it is paused, or was within this time.
    pub fn paused_lately(&self, within: Duration, now: Timestamp) -> bool {
        let ended = |it: &(Timestamp, Timestamp)| between(it.1, now) < within;
        self.pause.is_some() || self.past.iter().any(ended)
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
        self.past.push(spell);
        self.past.sort();
        while self.past.len() > PAUSES_MAXIMUM {
            // Joining across the shortest gap counts that gap as paused: mail expires
            // a little later, never earlier.
            let shortest = (1..self.past.len())
                .min_by_key(|it| between(self.past[it - 1].1, self.past[*it].0))
                .expect("there are more than one");
            let (_, end) = self.past.remove(shortest);
            self.past[shortest - 1].1 = self.past[shortest - 1].1.max(end);
        }
    }
}

impl Pause {
    /// Whether what comes back now was a probe, or could have been one.
    fn is_tried(&self, now: Timestamp) -> bool {
        self.probing || self.next_probe.is_some_and(|it| it <= now)
    }
}

/// From one moment to a later one; nothing when the clock went back.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A moment after another; the end of time when there is no such moment.
pub(super) fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::policy::Policy;
    use super::super::rules::Rules;
    use super::super::settle::settle;
    use super::super::testing::*;
    use super::*;
    use crate::mail::{ReversePath, State};
    use crate::relay::{Delivery, RelayError};

    fn learn(
        health: &mut Health,
        envelope: &Envelope,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Change {
        let policy = Policy {
            retry: &RETRY,
            rules: Rules::compiled_in(),
            health,
        };
        let settlement = settle(envelope, delivery, &policy, now, 0.5);
        health.learn(&settlement, &RETRY, now, 0.5)
    }

    fn no_connection(now: Timestamp) -> Delivery {
        delivery(
            now,
            vec![Err(RelayError::Connect {
                server: "mx".into(),
                detail: "refused".into(),
            })],
        )
    }

    #[test]
    fn trouble_pauses_once_and_probes_come_later_and_later() {
        let message = envelope(&["a@example.org"]);
        let mut health = Health::default();
        assert_eq!(
            learn(&mut health, &message, &no_connection(at(0)), at(0)),
            Change::Paused
        );
        // What was under way at the same time is no probe.
        assert_eq!(
            learn(&mut health, &message, &no_connection(at(0)), at(0)),
            Change::None
        );
        let mut probes = Vec::new();
        let mut now = at(0);
        for _ in 0..7 {
            now = health.wake_at().unwrap();
            assert!(health.probe_due(now));
            probes.push((now.as_second() - at(0).as_second()) / 60);
            assert_eq!(
                learn(&mut health, &message, &no_connection(now), now),
                Change::Postponed
            );
        }
        assert_eq!(probes, [1, 3, 7, 15, 31, 63, 123]);
        let pause = health.pause().unwrap();
        assert_eq!(
            (pause.since, pause.probes, pause.stage.as_str()),
            (at(0), 7, "connect")
        );
        let early = delivery(now, vec![taken()]);
        assert_eq!(learn(&mut health, &message, &early, now), Change::None);
        let now = health.wake_at().unwrap();
        let taken = delivery(now, vec![taken()]);
        assert_eq!(learn(&mut health, &message, &taken, now), Change::Resumed);
        assert!(health.is_well());
        assert_eq!(health.paused_between(at(-10), at(500)), between(at(0), now));
    }

    #[test]
    fn a_refusal_past_the_trouble_proves_that_it_is_over() {
        let mut health = Health::default();
        let message = envelope(&["a@example.org"]);
        let auth = delivery(at(0), vec![refused(Stage::Auth, "535 5.7.8 no")]);
        assert_eq!(learn(&mut health, &message, &auth, at(0)), Change::Paused);
        let unknown = delivery(at(2), vec![refused(Stage::Recipient, "550 5.1.1 unknown")]);
        assert_eq!(
            learn(&mut health, &message, &unknown, at(2)),
            Change::Resumed
        );
    }

    #[test]
    fn a_relay_that_wants_breaks_again_and_again_gets_longer_ones() {
        let message = envelope(&["a@example.org"]);
        let busy = |now| {
            delivery(
                now,
                vec![refused(Stage::Greeting, "421 too many connections")],
            )
        };
        let mut health = Health::default();
        let mut now = at(0);
        let mut minutes = Vec::new();
        for _ in 0..4 {
            assert_eq!(
                learn(&mut health, &message, &busy(now), now),
                Change::Paused
            );
            assert_eq!(health.pause().unwrap().cause, Cause::Rate);
            // Other connections go on delivering: that does not end the break.
            let taken = delivery(now, vec![taken()]);
            assert_eq!(learn(&mut health, &message, &taken, now), Change::None);
            let wake = health.wake_at().unwrap();
            minutes.push((wake.as_second() - now.as_second()) / 60);
            now = wake;
            health.probing(later(now, Duration::from_secs(600)));
            assert!(!health.probe_due(now), "one probe at a time");
            assert_eq!(learn(&mut health, &message, &taken, now), Change::Resumed);
        }
        assert_eq!(minutes, [1, 2, 3, 4]);
        now = at(600);
        learn(&mut health, &message, &busy(now), now);
        assert_eq!(health.wake_at(), Some(at(601)), "all is forgiven");
    }

    fn from(sender: &str, recipient: &str) -> Envelope {
        let mut message = envelope(&[recipient]);
        message.from = crate::mail::Mailbox::parse(sender).unwrap();
        message
    }

    #[test]
    fn three_senders_and_three_recipients_prove_that_relaying_is_denied() {
        let denied = || {
            delivery(
                at(0),
                vec![refused(Stage::Recipient, "550 5.7.1 Unable to relay")],
            )
        };
        let mut health = Health::default();
        for (sender, recipient) in [
            ("a@x.nl", "1@y.nl"),
            ("a@x.nl", "2@y.nl"),
            ("a@x.nl", "3@y.nl"),
            ("b@x.nl", "3@y.nl"),
            ("B@x.nl", "4@y.nl"),
        ] {
            assert_eq!(
                learn(&mut health, &from(sender, recipient), &denied(), at(0)),
                Change::None
            );
        }
        let mut proven = health.clone();
        assert_eq!(
            learn(&mut proven, &from("c@x.nl", "1@y.nl"), &denied(), at(0)),
            Change::Paused
        );
        // One success between, and the count begins again.
        learn(
            &mut health,
            &envelope(&["z@y.nl"]),
            &delivery(at(0), vec![taken()]),
            at(0),
        );
        assert_eq!(
            learn(&mut health, &from("c@x.nl", "1@y.nl"), &denied(), at(0)),
            Change::None
        );
    }

    #[test]
    fn a_refused_report_never_pauses_anything() {
        let mut health = Health::default();
        for number in 0..9 {
            for words in ["550 5.7.1 Unable to relay", "550 5.7.13 account disabled"] {
                let mut message = from(&format!("a{number}@x.nl"), &format!("{number}@y.nl"));
                message.reverse_path = ReversePath::Null;
                let denied = delivery(at(0), vec![refused(Stage::Mail, words)]);
                assert_eq!(learn(&mut health, &message, &denied, at(0)), Change::None);
            }
        }
        assert!(health.is_well());
    }

    #[test]
    fn what_an_administrator_paused_only_an_administrator_resumes() {
        let mut health = Health::default();
        let message = envelope(&["a@example.org"]);
        assert_eq!(
            health.pause_by("anna", "maintenance", at(0)),
            Change::Paused
        );
        let taken = delivery(at(1), vec![taken()]);
        assert_eq!(learn(&mut health, &message, &taken, at(1)), Change::None);
        assert_eq!(
            learn(&mut health, &message, &no_connection(at(1)), at(1)),
            Change::None
        );
        assert_eq!(
            (health.wake_at(), health.probe_due(at(9_999))),
            (None, false)
        );
        assert_eq!(health.resume(at(3)), Change::Resumed);
        assert_eq!(health.resume(at(3)), Change::None);
        assert_eq!(health.paused_between(at(1), at(2)), Duration::from_secs(60));
    }

    /// Settles one message after the other at one relay, each a minute later.
    struct Relay {
        health: Health,
        now: Timestamp,
    }

    impl Relay {
        fn answers(&mut self, message: &mut Envelope, results: Vec<Answer>) -> Change {
            self.now = later(self.now, Duration::from_secs(60))
                .max(self.health.wake_at().unwrap_or_default());
            let policy = Policy {
                retry: &RETRY,
                rules: Rules::compiled_in(),
                health: &self.health,
            };
            let settlement = settle(
                message,
                &delivery(self.now, results),
                &policy,
                self.now,
                0.5,
            );
            *message = settlement.envelope.clone();
            self.health.learn(&settlement, &RETRY, self.now, 0.5)
        }

        fn of(number: u64, sender: &str) -> Envelope {
            let mut message = from(sender, "x@y.nl");
            message.id = QueueId::from_number((1 << 60) + number);
            message
        }
    }

    type Answer = Result<crate::smtp::Reply, RelayError>;

    fn quota() -> Vec<Answer> {
        vec![refused(
            Stage::Recipient,
            "451 4.7.1 Recipient rate limit exceeded",
        )]
    }

    fn not_before(message: &Envelope) -> Option<Timestamp> {
        match message.state {
            State::Waiting { not_before } => not_before,
            State::Held(_) => None,
        }
    }

    #[test]
    fn one_poison_message_pauses_a_relay_once_and_is_never_the_next_probe() {
        let mut relay = Relay {
            health: Health::default(),
            now: at(0),
        };
        let mut poison = Relay::of(1, "a@x.nl");
        assert_eq!(relay.answers(&mut poison, quota()), Change::Paused);
        let probe = relay.health.wake_at().unwrap();
        assert!(
            not_before(&poison).unwrap() > probe,
            "another message goes first"
        );
        assert_eq!(
            poison.first_failure, None,
            "the relay is believed the first time"
        );
        let mut good = Relay::of(2, "a@x.nl");
        assert_eq!(relay.answers(&mut good, vec![taken()]), Change::Resumed);
        assert_eq!(relay.health.call_back(), [poison.id]);
        assert_eq!(relay.health.call_back(), [], "once");
        // The second time it is the message's own, and counts.
        assert_eq!(relay.answers(&mut poison, quota()), Change::None);
        assert!(relay.health.is_well());
        assert_eq!(poison.first_failure, Some(relay.now));
        assert!(not_before(&poison).is_some());
    }

    #[test]
    fn a_mailing_of_poison_pauses_a_relay_once_while_others_get_through() {
        let mut relay = Relay {
            health: Health::default(),
            now: at(0),
        };
        let spam = || vec![refused(Stage::FinalDot, "554 5.7.1 sender ip reputation")];
        assert_eq!(
            relay.answers(&mut Relay::of(1, "a@x.nl"), spam()),
            Change::Paused
        );
        assert_eq!(
            relay.answers(&mut Relay::of(2, "b@x.nl"), vec![taken()]),
            Change::Resumed
        );
        for number in 3..20 {
            let mut next = Relay::of(number, "a@x.nl");
            assert_eq!(relay.answers(&mut next, spam()), Change::None);
            assert!(next.first_failure.is_some() && !next.is_finished());
        }
        // Their first success makes them like everybody.
        relay.answers(&mut Relay::of(20, "a@x.nl"), vec![taken()]);
        assert_eq!(
            relay.answers(&mut Relay::of(21, "a@x.nl"), spam()),
            Change::Paused
        );
    }

    #[test]
    fn while_nobody_gets_through_it_is_the_relay_and_no_mail_fails_for_it() {
        let mut relay = Relay {
            health: Health::default(),
            now: at(0),
        };
        let mut messages: Vec<_> = (1..4).map(|it| Relay::of(it, "a@x.nl")).collect();
        for round in 0..200 {
            let disabled = vec![refused(Stage::Mail, "550 5.7.13 account disabled")];
            let message = &mut messages[round % 3];
            relay.answers(message, disabled);
            assert_eq!(
                (message.first_failure, message.is_finished()),
                (None, false)
            );
            assert!(!relay.health.is_well());
        }
        let mut back = relay.health.call_back();
        back.sort();
        assert_eq!(back, messages.iter().map(|it| it.id).collect::<Vec<_>>());
    }

    #[test]
    fn a_recipient_that_is_refused_beside_one_that_is_taken_pauses_nothing() {
        let mut relay = Relay {
            health: Health::default(),
            now: at(0),
        };
        let mut message = envelope(&["a@x.nl", "b@x.nl"]);
        let mut answers = quota();
        answers.push(taken());
        assert_eq!(relay.answers(&mut message, answers), Change::None);
        assert_eq!(message.first_failure, Some(relay.now));
    }

    #[test]
    fn a_clock_set_back_does_not_stretch_a_pause() {
        let mut health = Health::default();
        learn(
            &mut health,
            &envelope(&["a@example.org"]),
            &no_connection(at(0)),
            at(0),
        );
        health.clock_went_back(RETRY.max, at(-30));
        assert_eq!(
            health.wake_at(),
            Some(at(1)),
            "within an hour it may be meant so"
        );
        health.clock_went_back(RETRY.max, at(-10_000));
        assert!(health.probe_due(at(-10_000)));
    }

    #[test]
    fn a_pause_that_was_renewed_still_counts_as_late() {
        let mut health = Health::default();
        health.pause_by("anna", "", at(0));
        health.resume(at(200));
        let within = Duration::from_secs(4 * 3600);
        assert!(health.paused_lately(within, at(300)));
        assert!(!health.paused_lately(within, at(500)));
        health.pause_by("anna", "", at(600));
        assert!(health.paused_lately(within, at(601)));
    }

    #[test]
    fn mail_takes_along_that_its_old_relay_was_paused() {
        let mut health = Health::default();
        health.pause_by("anna", "", at(10));
        health.resume(at(9_000));
        let mut message = envelope(&["a@example.org"]);
        message.first_failure = Some(at(0));
        message.attempts = 9;
        assert_eq!(health.without_pauses(at(0), at(9_010)), at(8_990));
        message.first_failure = Some(health.without_pauses(at(0), at(9_010)));
        let elsewhere = Health::default().tried_for(&message, at(9_010));
        assert_eq!(
            elsewhere,
            health.tried_for(
                &Envelope {
                    first_failure: Some(at(0)),
                    ..message
                },
                at(9_010)
            )
        );
    }

    #[test]
    fn the_state_reads_back_and_garbage_is_health() {
        let mut health = Health::default();
        learn(
            &mut health,
            &envelope(&["a@example.org"]),
            &no_connection(at(0)),
            at(0),
        );
        assert_eq!(Health::from_value(&health.to_value()), health);
        assert_eq!(
            Health::from_value(&serde_json::json!([1, 2])),
            Health::default()
        );
    }

    #[test]
    fn many_pauses_are_joined_to_the_safe_side() {
        let mut health = Health::default();
        for hour in 0..300 {
            health.pause_by("a", "", at(hour * 60));
            health.resume(at(hour * 60 + 10));
        }
        assert!(health.past.len() <= PAUSES_MAXIMUM);
        assert!(health.paused_between(at(0), at(300 * 60)) >= Duration::from_secs(300 * 600));
    }
}
