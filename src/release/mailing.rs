//! Which mailing a message is part of, and whether the mailing has become too large.
//!
//! A mailing is what its label says it is (List-Id, Feedback-ID, X-Mailing-ID, the first
//! of them that is there), else all mail of one From with the same subject, where
//! subjects that differ only in their numbers, their case, their blanks or a `Re:` count
//! as the same. Software that writes every subject anew ("Dear Jan, ...") would escape
//! that: more than 20 different unlabelled subjects within an hour are one mailing, until
//! an hour passes without unlabelled mail. A mailing ends an hour after its last message.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Moment;
use crate::mail::header::Header;
use crate::mail::{Mailbox, Mailing, text};
use crate::spool::FlowSummary;

/// A mailing ends so long after its last message.
const LASTS: Duration = Duration::from_secs(60 * 60);
/// More different unlabelled subjects than this are one mailing.
const MOST_SUBJECTS: usize = 20;
/// More different labels of one From than this are one mailing, too: whoever labels every
/// message anew has no labels.
const MOST_LABELS: usize = 100;
/// So many mailings are known at most; beyond it those are forgotten that ended, and then
/// those that are quiet for longest.
const MOST_MAILINGS: usize = 50_000;
/// Characters of a label.
const LABEL_LENGTH: usize = 60;
/// The key of the mailing of those who label or title every message differently.
const VARIOUS: &str = "various";

/// The mailings that go on, by From.
#[derive(Debug, Default)]
pub struct Mailings {
    senders: HashMap<String, HashMap<String, Live>>,
    known: usize,
}

#[derive(Debug, Clone, Copy)]
struct Live {
    accepted: u64,
    last: Duration,
}

/// What a message says about its mailing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Labels<'a> {
    /// List-Id (RFC 2919).
    pub list_id: Option<&'a str>,
    /// Feedback-ID.
    pub feedback_id: Option<&'a str>,
    /// X-Mailing-ID.
    pub x_mailing_id: Option<&'a str>,
    /// The subject, decoded.
    pub subject: Option<&'a str>,
}

impl<'a> Labels<'a> {
    /// Those of a header section.
    pub fn of(header: &'a Header) -> Self {
        Self {
            list_id: header.list_id.as_deref(),
            feedback_id: header.feedback_id.as_deref(),
            x_mailing_id: header.x_mailing_id.as_deref(),
            subject: header.subject.as_deref(),
        }
    }
}

/// The mailing of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Which.
    pub mailing: Mailing,
    /// With this message it has more than `mailing-limit`: the message is to be held.
    pub is_excess: bool,
}

impl Mailings {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says which mailing a message is part of, and counts it there. `limit` is the
    /// `mailing-limit` of its relay.
    pub fn assign(
        &mut self,
        from: &Mailbox,
        labels: &Labels<'_>,
        limit: Option<u32>,
        now: Moment,
    ) -> Assigned {
        if self.known >= MOST_MAILINGS {
            self.make_room(now.uptime);
        }
        let sender = self.senders.entry(from.folded()).or_default();
        let before = sender.len();
        sender.retain(|_, live| live.is_going_on(now.uptime));

        let mut mailing = named(labels);
        if !sender.contains_key(&mailing.key) || is_subject(&mailing.key) {
            let alike = |key: &String| is_subject(key) == is_subject(&mailing.key);
            let others = sender
                .keys()
                .filter(|key| **key != mailing.key && *key != VARIOUS && alike(key))
                .count();
            let most = if is_subject(&mailing.key) {
                MOST_SUBJECTS
            } else {
                MOST_LABELS
            };
            let merged = is_subject(&mailing.key) && sender.contains_key(VARIOUS);
            if merged || others >= most {
                mailing = various(sender);
            }
        }
        let live = sender.entry(mailing.key.clone()).or_insert(Live {
            accepted: 0,
            last: now.uptime,
        });
        live.accepted += 1;
        live.last = live.last.max(now.uptime);
        let is_excess = limit.is_some_and(|limit| live.accepted > u64::from(limit));
        self.known = self.known + sender.len() - before;
        Assigned { mailing, is_excess }
    }

    /// Forgets one message that was counted and could not be stored.
    pub fn take_back(&mut self, from: &Mailbox, mailing: &Mailing) {
        let sender = self.senders.get_mut(&from.folded());
        if let Some(live) = sender.and_then(|it| it.get_mut(&mailing.key)) {
            live.accepted = live.accepted.saturating_sub(1);
        }
    }

    /// Takes over what the spool remembers of a flow, after a restart.
    pub fn recall(&mut self, summary: &FlowSummary, now: Moment) {
        let Some(last) = summary.recent.last() else {
            return;
        };
        let age = now.wall.as_millisecond() - last.as_millisecond();
        let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
        // Before the boot there was no uptime; a little too young is no harm.
        let last = now.uptime.saturating_sub(age);
        if age > LASTS {
            return;
        }
        let sender = self.senders.entry(summary.key.user.clone()).or_default();
        let before = sender.len();
        let live = sender
            .entry(summary.key.mailing.clone())
            .or_insert(Live { accepted: 0, last });
        live.accepted += summary.accepted;
        live.last = live.last.max(last);
        self.known = self.known + sender.len() - before;
    }

    /// Takes over what was counted while the spool could not tell its flows yet. What
    /// [`recall`](Self::recall) counted later has those messages in it already.
    pub fn overlay(&mut self, since: Self) {
        for (user, mailings) in since.senders {
            let sender = self.senders.entry(user).or_default();
            let before = sender.len();
            for (key, counted) in mailings {
                let live = sender.entry(key).or_insert(counted);
                live.accepted = live.accepted.max(counted.accepted);
                live.last = live.last.max(counted.last);
            }
            self.known = self.known + sender.len() - before;
        }
    }

    /// Forgets what ended, and if that is not enough, what is quiet for longest.
    fn make_room(&mut self, now: Duration) {
        let all = self.senders.values().flat_map(HashMap::values);
        let mut times: Vec<Duration> = all.map(|it| it.last).collect();
        times.sort_unstable();
        let oldest_kept = times[times.len() / 4];
        self.senders.retain(|_, mailings| {
            mailings.retain(|_, live| live.is_going_on(now) && live.last > oldest_kept);
            !mailings.is_empty()
        });
        self.known = self.senders.values().map(HashMap::len).sum();
    }
}

impl Live {
    fn is_going_on(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) <= LASTS
    }
}

/// The mailing that a message's own words name.
fn named(labels: &Labels<'_>) -> Mailing {
    let label = [
        ('l', labels.list_id.map(list_id)),
        ('f', labels.feedback_id.map(str::trim)),
        ('x', labels.x_mailing_id.map(str::trim)),
    ]
    .into_iter()
    .find_map(|(kind, label)| Some((kind, label.filter(|it| !it.is_empty())?)));
    let subject = labels.subject.unwrap_or("").trim();
    let (key, label) = match label {
        Some((kind, label)) => (key(kind, &label.to_lowercase()), label),
        None => (key('s', &normalised(subject)), subject),
    };
    let label = match label {
        "" => "(no subject)".into(),
        label => text::printable(label.as_bytes(), LABEL_LENGTH),
    };
    Mailing { key, label }
}

/// The one mailing of a From whose messages name too many; it has what the unlabelled
/// ones before it had.
fn various(sender: &mut HashMap<String, Live>) -> Mailing {
    if !sender.contains_key(VARIOUS) {
        let unlabelled = sender.iter().filter(|(key, _)| is_subject(key));
        let live = unlabelled.fold(None, |sum: Option<Live>, (_, live)| {
            Some(Live {
                accepted: sum.map_or(0, |it| it.accepted) + live.accepted,
                last: sum.map_or(live.last, |it| it.last.max(live.last)),
            })
        });
        if let Some(live) = live {
            sender.insert(VARIOUS.into(), live);
        }
    }
    Mailing {
        key: VARIOUS.into(),
        label: "(various subjects)".into(),
    }
}

fn is_subject(key: &str) -> bool {
    key.starts_with("s-")
}

/// Short, printable, and the same after every restart.
fn key(kind: char, text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut key = format!("{kind}-");
    for octet in &digest[..8] {
        key.push_str(&format!("{octet:02x}"));
    }
    key
}

/// RFC 2919: an identifier in angle brackets, behind words for people.
fn list_id(field: &str) -> &str {
    field
        .rsplit_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or(field, |(id, _)| id)
        .trim()
}

/// What subjects have in common that differ only in numbers, case, blanks and a prefix.
fn normalised(subject: &str) -> String {
    let mut subject = subject.trim();
    while let Some((prefix, rest)) = subject.split_once(':') {
        let prefix = prefix.trim().to_lowercase();
        let is_reply = [
            "re", "fw", "fwd", "aw", "wg", "antw", "doorst", "sv", "vs", "tr", "rv",
        ]
        .contains(&prefix.as_str());
        if !is_reply {
            break;
        }
        subject = rest.trim_start();
    }
    let mut words = String::new();
    for word in subject.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        for letter in word.chars().flat_map(char::to_lowercase) {
            match letter {
                letter if letter.is_numeric() && words.ends_with('#') => {}
                letter if letter.is_numeric() => words.push('#'),
                letter => words.push(letter),
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{Amount, FlowKey};
    use jiff::Timestamp;

    fn at(seconds: u64) -> Moment {
        Moment {
            uptime: Duration::from_secs(100_000 + seconds),
            wall: Timestamp::from_second(1_790_000_000 + seconds as i64).unwrap(),
            boot: 1,
        }
    }

    fn from() -> Mailbox {
        Mailbox::parse("Jan@example.nl").unwrap()
    }

    fn subject(subject: &str) -> Labels<'_> {
        Labels {
            subject: Some(subject),
            ..Labels::default()
        }
    }

    #[test]
    fn a_label_names_the_mailing_and_else_the_subject_does() {
        let mut mailings = Mailings::new();
        let mut key = |labels: Labels<'_>| mailings.assign(&from(), &labels, None, at(0)).mailing;
        let list = key(Labels {
            list_id: Some("News for you <news.example.nl>"),
            feedback_id: Some("1:2:3"),
            subject: Some("May"),
            ..Labels::default()
        });
        let same = key(Labels {
            list_id: Some("<NEWS.example.nl>"),
            subject: Some("June"),
            ..Labels::default()
        });
        assert_eq!(list.key, same.key);
        assert_eq!(list.label, "news.example.nl");
        let other = key(subject("June"));
        assert_ne!(list.key, other.key);
        assert_eq!(other.label, "June");
        assert_eq!(key(Labels::default()).label, "(no subject)");
    }

    #[test]
    fn subjects_that_differ_in_numbers_case_blanks_or_a_prefix_are_the_same() {
        let mut mailings = Mailings::new();
        let mut key = |text| {
            mailings
                .assign(&from(), &subject(text), None, at(0))
                .mailing
                .key
        };
        let invoice = key("Invoice 2026-001");
        assert_eq!(invoice, key("INVOICE  1999-12"));
        assert_eq!(invoice, key("Re: AW: invoice 7-8"));
        assert_ne!(invoice, key("Invoice: 7-8"));
    }

    #[test]
    fn more_than_twenty_subjects_an_hour_are_one_mailing_with_all_of_their_messages() {
        let mut mailings = Mailings::new();
        let words = |n: usize| format!("Dear {}", "abcdefghijklmnopqrstuvwxyz".repeat(n + 1));
        let mut keys = Vec::new();
        for n in 0..60 {
            let assigned = mailings.assign(&from(), &subject(&words(n)), Some(50), at(n as u64));
            assert_eq!(assigned.is_excess, n >= 50, "{n}");
            keys.push(assigned.mailing.key);
        }
        assert!(keys[20..].iter().all(|it| *it == VARIOUS));
        assert!(keys[..20].iter().all(|it| *it != VARIOUS));
        // Another From is not concerned; and an hour of silence ends it.
        let other = Mailbox::parse("ann@example.nl").unwrap();
        let key = mailings
            .assign(&other, &subject("Hello"), None, at(60))
            .mailing
            .key;
        assert_ne!(key, VARIOUS);
        let later = mailings.assign(&from(), &subject("Hello"), Some(50), at(3_700));
        assert_ne!(later.mailing.key, VARIOUS);
        assert!(!later.is_excess);
    }

    #[test]
    fn what_could_not_be_stored_does_not_count() {
        let mut mailings = Mailings::new();
        let assign =
            |mailings: &mut Mailings| mailings.assign(&from(), &subject("News"), Some(2), at(0));
        for _ in 0..10 {
            let assigned = assign(&mut mailings);
            assert!(!assigned.is_excess);
            mailings.take_back(&from(), &assigned.mailing);
        }
        let excess: Vec<bool> = (0..3).map(|_| assign(&mut mailings).is_excess).collect();
        assert_eq!(excess, [false, false, true]);
    }

    #[test]
    fn the_excess_of_a_mailing_is_told_until_an_hour_after_its_last_message() {
        let mut mailings = Mailings::new();
        let mut excess = |seconds| {
            mailings
                .assign(&from(), &subject("News"), Some(3), at(seconds))
                .is_excess
        };
        assert_eq!([excess(0), excess(1), excess(2)], [false; 3]);
        assert!(excess(3_000));
        assert!(excess(6_600));
        assert!(!excess(10_201));
    }

    #[test]
    fn a_restart_keeps_the_count() {
        let mut mailings = Mailings::new();
        let key = mailings
            .assign(&from(), &subject("News"), None, at(0))
            .mailing
            .key;
        let summary = FlowSummary {
            key: FlowKey {
                relay: "own".into(),
                user: from().folded(),
                mailing: key,
            },
            label: "News".into(),
            ready: Amount::default(),
            deferred: Amount::default(),
            held: Amount::default(),
            accepted: 10,
            recent: vec![at(0).wall],
        };
        let mut after = Mailings::new();
        after.recall(&summary, at(60));
        let next = after.assign(&from(), &subject("News"), Some(10), at(61));
        assert!(next.is_excess);
    }

    #[test]
    fn any_number_of_senders_and_labels_costs_bounded_memory() {
        let mut mailings = Mailings::new();
        for n in 0..120_000u64 {
            let from = Mailbox::parse(&format!("u{n}@example.nl")).unwrap();
            mailings.assign(&from, &subject("x"), None, at(n / 1000));
        }
        assert!(mailings.known <= MOST_MAILINGS);
        for n in 0..10_000u64 {
            let label = format!("campaign-{n}");
            let labels = Labels {
                feedback_id: Some(&label),
                ..Labels::default()
            };
            mailings.assign(&from(), &labels, None, at(200));
        }
        assert!(mailings.senders[&from().folded()].len() <= MOST_LABELS + 1);
    }
}
