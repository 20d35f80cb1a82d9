//! Which alarms stand: each is said once when it begins and once when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::control::protocol::AlarmReport;

/// Alarms of one kind about one relay are mailed at least this far apart: a relay that
/// comes and goes must not fill a mailbox.
const MAIL_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The disk has little room left.
    DiskLow,
    /// Mail may leave, and does not.
    NothingLeaves,
    /// A relay has trouble.
    RelayPaused,
}

impl Kind {
    /// The word for it, in the log, the metrics and on the control socket.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DiskLow => "disk-low",
            Self::NothingLeaves => "nothing-leaves",
            Self::RelayPaused => "relay-paused",
        }
    }
}

/// What it is about, and the relay that has it.
type Key = (Kind, Option<String>);

/// The alarms that stand.
#[derive(Debug, Default)]
pub struct Alarms {
    standing: BTreeMap<Key, Standing>,
    /// When each was mailed last; kept when it is over.
    mailed: BTreeMap<Key, Timestamp>,
}

#[derive(Debug)]
struct Standing {
    since: Timestamp,
    text: String,
}

/// What to do about an alarm that was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// Nothing: it stands already.
    Already,
    /// Say it in the log.
    Said,
    /// Say it in the log, and mail it.
    Mailed,
}

impl Alarms {
    /// Raises an alarm, or says differently why it stands.
    pub fn raise(
        &mut self,
        kind: Kind,
        relay: Option<&str>,
        text: String,
        now: Timestamp,
    ) -> Raised {
        let key = (kind, relay.map(str::to_owned));
        if let Some(standing) = self.standing.get_mut(&key) {
            standing.text = text;
            return Raised::Already;
        }
        self.standing
            .insert(key.clone(), Standing { since: now, text });
        let last = self.mailed.get(&key);
        if last.is_some_and(|it| now.duration_since(*it).unsigned_abs() < MAIL_PAUSE) {
            return Raised::Said;
        }
        self.mailed.insert(key, now);
        Raised::Mailed
    }

    /// One that stood before the last start: it was said and mailed then.
    pub fn recall(&mut self, kind: Kind, relay: &str, text: String, since: Timestamp) {
        let key = (kind, Some(relay.to_owned()));
        self.standing.insert(key, Standing { since, text });
    }

    /// It is over; whether it stood.
    pub fn clear(&mut self, kind: Kind, relay: Option<&str>) -> bool {
        let key = (kind, relay.map(str::to_owned));
        self.standing.remove(&key).is_some()
    }

    /// Those that stand, in the words of the protocol.
    pub fn report(&self) -> Vec<AlarmReport> {
        let told = |((kind, relay), standing): (&Key, &Standing)| AlarmReport {
            alarm: kind.name().to_owned(),
            relay: relay.clone(),
            since: standing.since,
            text: standing.text.clone(),
        };
        self.standing.iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    #[test]
    fn an_alarm_is_said_once_and_mailed_at_most_once_an_hour() {
        let mut alarms = Alarms::default();
        let mut paused = |at| alarms.raise(Kind::RelayPaused, Some("own"), "refused".into(), at);
        assert_eq!(paused(minute(0)), Raised::Mailed);
        assert_eq!(paused(minute(90)), Raised::Already);
        assert!(alarms.clear(Kind::RelayPaused, Some("own")));
        assert!(!alarms.clear(Kind::RelayPaused, Some("own")));
        let mut again = |at| alarms.raise(Kind::RelayPaused, Some("own"), "refused".into(), at);
        assert_eq!(again(minute(59)), Raised::Said);
        alarms.clear(Kind::RelayPaused, Some("own"));
        let mut later = |at| alarms.raise(Kind::RelayPaused, Some("own"), "refused".into(), at);
        assert_eq!(later(minute(60)), Raised::Mailed);
    }

    #[test]
    fn relays_have_their_alarms_apart_and_the_latest_words_are_shown() {
        let mut alarms = Alarms::default();
        for (relay, text) in [("own", "535"), ("other", "421"), ("own", "454")] {
            alarms.raise(Kind::RelayPaused, Some(relay), text.into(), minute(0));
        }
        let told: Vec<(Option<String>, String)> = alarms
            .report()
            .into_iter()
            .map(|it| (it.relay, it.text))
            .collect();
        assert_eq!(
            told,
            [
                (Some("other".into()), "421".into()),
                (Some("own".into()), "454".into())
            ]
        );
    }
}
