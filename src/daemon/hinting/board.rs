//! What is known of the pairs and messages that went through: values and decisions only.
//!
//! It lives in memory and is found out anew after a restart; its size is bounded
//! whatever addresses clients send with.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{Config, HintAction, HintName};
use crate::control::protocol::{HintCount, HintReport};
use crate::hint::{Bulk, Finding, Looked, Pair, Seen, Severity};
use crate::mail::{Mailing, QueueId};

/// Pairs that are known at once; the one not seen for the longest time goes first.
const PAIRS_MAXIMUM: usize = 1_000;
/// Findings about contents, by hint, From and relay.
const CONTENTS_MAXIMUM: usize = 1_000;
/// Mailings whose messages are counted.
const MAILINGS_MAXIMUM: usize = 10_000;
/// Messages of a pair that are held when its first look finds something to hold for.
const PENDING_MAXIMUM: usize = 500;
/// From one look to the next.
const DAILY: Duration = Duration::from_secs(86_400);
/// When DNS did not answer.
const SOON: Duration = Duration::from_secs(900);
/// Messages of one mailing within an hour that make it a large one.
const LARGE_MAILING: u64 = 100;
const HOUR: Duration = Duration::from_secs(3_600);
/// Messages of a mailing whose content is looked at in an hour: the others are alike.
const LOOKED_AT: u64 = 3;

/// What tells pairs apart: From domain, relay, domain of the reverse-path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    from: String,
    relay: String,
    sender: Option<String>,
}

impl Key {
    /// The key of a pair.
    pub fn of(pair: &Pair) -> Self {
        Self {
            from: pair.from.ascii().to_owned(),
            relay: pair.relay.name.clone(),
            sender: pair.sender.as_ref().map(|it| it.ascii().to_owned()),
        }
    }
}

/// A pair and what is known of it.
#[derive(Debug)]
struct Known {
    pair: Pair,
    to_itself: Seen,
    bulk: Bulk,
    findings: Vec<Finding>,
    messages: u64,
    last_seen: Timestamp,
    /// When it is looked at next.
    due: Timestamp,
    /// Somebody looks at it just now.
    looking: bool,
    /// It was looked at.
    looked: bool,
    pending: Vec<Pending>,
}

/// A message that came before anything was known of its pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    id: QueueId,
    to_itself: bool,
}

/// A finding about contents.
#[derive(Debug)]
struct Content {
    finding: Finding,
    relay: String,
    messages: u64,
    last_seen: Timestamp,
}

/// What is counted of a mailing.
#[derive(Debug)]
struct Counted {
    messages: u64,
    since: Timestamp,
}

/// A look that is due: what it is about.
#[derive(Debug, Clone)]
pub struct Due {
    /// The pair.
    pub pair: Pair,
    /// Whether mail to its own domain was seen.
    pub to_itself: Seen,
    /// What makes its mail a large amount.
    pub bulk: Bulk,
}

/// What came of a look.
#[derive(Debug, Default, PartialEq)]
pub struct Change {
    /// What was not known before.
    pub new: Vec<Finding>,
    /// What is not so any more.
    pub gone: Vec<Finding>,
    /// Messages to be held, and why.
    pub hold: Vec<(QueueId, String)>,
}

/// What is known.
#[derive(Debug, Default)]
pub struct Board {
    pairs: BTreeMap<Key, Known>,
    contents: BTreeMap<(HintName, String, String), Content>,
    mailings: BTreeMap<(String, String), Counted>,
}

impl Board {
    /// A message of this pair was accepted.
    pub fn seen(&mut self, pair: Pair, id: QueueId, to_itself: bool, bulk: Bulk, at: Timestamp) {
        let key = Key::of(&pair);
        if !self.pairs.contains_key(&key) && self.pairs.len() >= PAIRS_MAXIMUM {
            let oldest = self.pairs.iter().min_by_key(|(_, it)| it.last_seen);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.pairs.remove(&oldest);
            }
        }
        let known = self.pairs.entry(key).or_insert_with(|| Known {
            bulk: Bulk::configured(&pair.relay),
            pair,
            to_itself: Seen::No,
            findings: Vec::new(),
            messages: 0,
            last_seen: at,
            due: at,
            looking: false,
            looked: false,
            pending: Vec::new(),
        });
        known.messages += 1;
        known.last_seen = at;
        if to_itself && known.to_itself != Seen::Yes {
            known.to_itself = Seen::Yes;
            known.due = at;
        }
        if bulk != Bulk::No && known.bulk == Bulk::No {
            known.bulk = bulk;
            known.due = at;
        }
        let waits = !known.looked || known.due <= at;
        if waits && known.pending.len() < PENDING_MAXIMUM {
            known.pending.push(Pending { id, to_itself });
        }
    }

    /// Counts a message of a mailing; gives whether its content is worth a look, and
    /// what it makes of the amount.
    pub fn count(&mut self, relay: &str, mailing: &Mailing, at: Timestamp) -> (bool, Bulk) {
        let is_over = |since: Timestamp| at.duration_since(since).unsigned_abs() >= HOUR;
        if self.mailings.len() >= MAILINGS_MAXIMUM {
            self.mailings.retain(|_, it| !is_over(it.since));
        }
        let key = (relay.to_owned(), mailing.key.clone());
        if self.mailings.len() >= MAILINGS_MAXIMUM && !self.mailings.contains_key(&key) {
            // More at once than anybody has: their contents are looked at all the same.
            return (true, Bulk::No);
        }
        let counted = self.mailings.entry(key).or_insert(Counted {
            messages: 0,
            since: at,
        });
        if is_over(counted.since) {
            *counted = Counted {
                messages: 0,
                since: at,
            };
        }
        counted.messages += 1;
        let bulk = match counted.messages > LARGE_MAILING {
            true => Bulk::Mailing(mailing.label.clone(), counted.messages),
            false => Bulk::No,
        };
        (counted.messages <= LOOKED_AT, bulk)
    }

    /// The next pair to look at; it counts as looked at until [`looked`](Self::looked).
    pub fn take_due(&mut self, now: Timestamp) -> Option<Due> {
        let known = self
            .pairs
            .values_mut()
            .filter(|it| !it.looking && it.due <= now)
            .min_by_key(|it| it.due)?;
        known.looking = true;
        // Whatever comes while somebody looks makes it due again by itself.
        known.due = Timestamp::MAX;
        Some(Due {
            pair: known.pair.clone(),
            to_itself: known.to_itself,
            bulk: known.bulk.clone(),
        })
    }

    /// When the next pair is due; none: there is none.
    pub fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.pairs.values().filter(|it| !it.looking);
        waiting.map(|it| it.due).min()
    }

    /// What a look found.
    pub fn looked(
        &mut self,
        pair: &Pair,
        found: Looked,
        config: &Config,
        now: Timestamp,
    ) -> Change {
        let Some(known) = self.pairs.get_mut(&Key::of(pair)) else {
            return Change::default();
        };
        known.looking = false;
        known.looked = true;
        let next = now.checked_add(if found.is_partial { SOON } else { DAILY });
        let found = found.findings;
        known.due = known.due.min(next.unwrap_or(Timestamp::MAX));
        // The same finding in other words is no news.
        let same = |one: &Finding, other: &Finding| {
            (one.hint, &one.subject, one.severity) == (other.hint, &other.subject, other.severity)
        };
        let missing = |it: &Finding, among: &[Finding]| !among.iter().any(|other| same(it, other));
        let new = found
            .iter()
            .filter(|it| missing(it, &known.findings))
            .cloned();
        let gone = known
            .findings
            .iter()
            .filter(|it| missing(it, &found))
            .cloned();
        let mut change = Change {
            new: new.collect(),
            gone: gone.collect(),
            hold: Vec::new(),
        };
        known.findings = found;
        for message in std::mem::take(&mut known.pending) {
            if let Some(note) = reason(&known.findings, config, message.to_itself) {
                change.hold.push((message.id, note));
            }
        }
        change
    }

    /// Why a message of this pair is held as soon as it is accepted; none: it is not.
    pub fn hold(&self, pair: &Pair, to_itself: bool, config: &Config) -> Option<String> {
        let known = self.pairs.get(&Key::of(pair))?;
        reason(&known.findings, config, to_itself)
    }

    /// What was found in the content of a message.
    pub fn content(
        &mut self,
        from: &str,
        relay: &str,
        found: Vec<Finding>,
        at: Timestamp,
    ) -> Vec<Finding> {
        let mut new = Vec::new();
        for finding in found {
            let key = (finding.hint, from.to_owned(), relay.to_owned());
            if let Some(known) = self.contents.get_mut(&key) {
                known.messages += 1;
                known.last_seen = at;
                known.finding = finding;
                continue;
            }
            if self.contents.len() >= CONTENTS_MAXIMUM {
                let oldest = self.contents.iter().min_by_key(|(_, it)| it.last_seen);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    self.contents.remove(&oldest);
                }
            }
            new.push(finding.clone());
            self.contents.insert(
                key,
                Content {
                    finding,
                    relay: relay.to_owned(),
                    messages: 1,
                    last_seen: at,
                },
            );
        }
        new
    }

    /// Another configuration is in use: every pair is looked at again.
    pub fn configured(&mut self, config: &Config, now: Timestamp) {
        let before = std::mem::take(&mut self.pairs);
        for (_, mut known) in before {
            let Some(relay) = config.relays.get(&known.pair.relay.name) else {
                continue;
            };
            known.pair.relay = std::sync::Arc::new(relay.clone());
            if known.bulk == Bulk::No {
                known.bulk = Bulk::configured(relay);
            }
            known.due = now;
            known.looking = false;
            self.pairs.insert(Key::of(&known.pair), known);
        }
        let off = |hint| config.hints.action(hint) == HintAction::Off;
        self.contents
            .retain(|(hint, ..), it| !off(*hint) && config.relays.contains_key(&it.relay));
    }

    /// All that is known, or what concerns one relay; the worst first.
    pub fn reports(&self, config: &Config, relay: Option<&str>) -> Vec<HintReport> {
        let mut all: Vec<(Severity, HintReport)> = Vec::new();
        let say = |finding: &Finding, relay: &str, messages, last_seen| {
            let report = HintReport {
                hint: finding.hint.name().to_owned(),
                severity: finding.severity.name().to_owned(),
                subject: finding.subject.clone(),
                relay: Some(relay.to_owned()),
                found: finding.found.clone(),
                evidence: finding.evidence.clone(),
                remedy: finding.remedy.clone(),
                record: finding.record.as_ref().map(ToString::to_string),
                action: config.hints.action(finding.hint).name().to_owned(),
                messages,
                last_seen,
            };
            (finding.severity, report)
        };
        for known in self.pairs.values() {
            let findings = known.findings.iter();
            all.extend(
                findings.map(|it| say(it, &known.pair.relay.name, known.messages, known.last_seen)),
            );
        }
        for content in self.contents.values() {
            all.push(say(
                &content.finding,
                &content.relay,
                content.messages,
                content.last_seen,
            ));
        }
        all.retain(|(_, it)| relay.is_none() || it.relay.as_deref() == relay);
        all.sort_by(|(one, a), (other, b)| {
            let key = |it: &HintReport| (it.subject.clone(), it.relay.clone(), it.hint.clone());
            one.cmp(other).then_with(|| key(a).cmp(&key(b)))
        });
        all.into_iter().map(|(_, it)| it).collect()
    }

    /// How many findings are serious.
    pub fn serious(&self) -> usize {
        let is_serious = |it: &&Finding| it.severity == Severity::Serious;
        self.findings().filter(is_serious).count()
    }

    /// How many findings there are of each hint and severity.
    pub fn counts(&self) -> Vec<HintCount> {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for it in self.findings() {
            *counts
                .entry((it.hint.name(), it.severity.name()))
                .or_default() += 1;
        }
        let count = |((hint, severity), findings): ((&str, &str), u64)| HintCount {
            hint: hint.to_owned(),
            severity: severity.to_owned(),
            findings,
        };
        counts.into_iter().map(count).collect()
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        let pairs = self.pairs.values().flat_map(|it| &it.findings);
        pairs.chain(self.contents.values().map(|it| &it.finding))
    }
}

/// The first finding that mail is held for; what nobody knows holds nothing.
fn reason(findings: &[Finding], config: &Config, to_itself: bool) -> Option<String> {
    let holds = |it: &&Finding| {
        config.hints.action(it.hint) == HintAction::Hold
            && it.severity != Severity::Unknown
            && (it.hint != HintName::SameDomain || to_itself)
    };
    findings.iter().find(holds).map(note)
}

/// A finding in the note of a hold: what it is and what to do.
pub fn note(finding: &Finding) -> String {
    let record = match &finding.record {
        Some(record) => format!(" {record}"),
        None => String::new(),
    };
    format!(
        "{}: {}. {}{record}",
        finding.hint.name(),
        finding.found,
        finding.remedy
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mail::Mailbox;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn config(hints: &str) -> Config {
        let text = format!("{hints}\n[relays.own]\nserver = \"a.example\"\n");
        Config::parse(&text, "").unwrap()
    }

    fn pair(config: &Config, from: &str) -> Pair {
        let from = Mailbox::parse(from).unwrap();
        Pair::new(&from, Arc::new(config.relays["own"].clone()), None)
    }

    fn finding(hint: HintName, severity: Severity) -> Finding {
        Finding {
            hint,
            severity,
            subject: "a.example".into(),
            found: "found".into(),
            evidence: vec![],
            remedy: "Do.".into(),
            record: None,
        }
    }

    fn looked(findings: Vec<Finding>, is_partial: bool) -> Looked {
        Looked {
            findings,
            is_partial,
        }
    }

    fn id(number: u64) -> QueueId {
        format!("1k9xw3q5g{number:04}").parse().unwrap()
    }

    #[test]
    fn a_pair_is_looked_at_when_first_seen_then_daily_and_soon_after_trouble() {
        let config = config("");
        let pair = pair(&config, "jan@a.example");
        let mut board = Board::default();
        for number in 0..3 {
            board.seen(pair.clone(), id(number), false, Bulk::No, at(0));
        }
        assert!(board.take_due(at(0)).is_some());
        assert!(board.take_due(at(0)).is_none(), "only once at a time");
        assert_eq!(board.next_due(), None);
        let missing = finding(HintName::SpfMissing, Severity::Serious);
        let change = board.looked(&pair, looked(vec![missing.clone()], false), &config, at(1));
        assert_eq!(change.new, std::slice::from_ref(&missing));
        assert_eq!(change.hold, []);
        assert_eq!(board.next_due(), Some(at(1 + 24 * 60)));
        assert!(board.take_due(at(60)).is_none());
        assert!(board.take_due(at(2 + 24 * 60)).is_some());
        let unknown = finding(HintName::SpfMissing, Severity::Unknown);
        let change = board.looked(&pair, looked(vec![unknown], true), &config, at(3 + 24 * 60));
        assert_eq!(change.gone, [missing]);
        assert_eq!(board.next_due(), Some(at(18 + 24 * 60)));
        let report = &board.reports(&config, Some("own"))[0];
        assert_eq!((report.severity.as_str(), report.messages), ("unknown", 3));
        let found = vec![finding(HintName::NoSubject, Severity::Warning)];
        for from in ["jan@a.example", "piet@a.example"] {
            board.content(from, "own", found.clone(), at(0));
        }
        let counts = board.counts();
        let counts: Vec<_> = counts
            .iter()
            .map(|it| (it.hint.as_str(), it.severity.as_str(), it.findings))
            .collect();
        assert_eq!(
            counts,
            [("no-subject", "warning", 2), ("spf-missing", "unknown", 1)]
        );
        assert!(board.reports(&config, Some("other")).is_empty());
    }

    #[test]
    fn mail_is_held_for_what_was_found_and_never_for_what_is_unknown() {
        let config = config(
            "[hints.spf-missing]\naction = \"hold\"\n[hints.same-domain]\naction = \"hold\"",
        );
        let pair = pair(&config, "jan@a.example");
        let mut board = Board::default();
        board.seen(pair.clone(), id(1), false, Bulk::No, at(0));
        board.seen(pair.clone(), id(2), true, Bulk::No, at(0));
        assert_eq!(
            board.hold(&pair, true, &config),
            None,
            "nothing is known yet"
        );
        board.take_due(at(0)).unwrap();
        let same = finding(HintName::SameDomain, Severity::Warning);
        let unknown = finding(HintName::SpfMissing, Severity::Unknown);
        let change = board.looked(&pair, looked(vec![same, unknown], true), &config, at(0));
        assert_eq!(change.hold, [(id(2), "same-domain: found. Do.".to_owned())]);
        assert_eq!(board.hold(&pair, false, &config), None);
        assert!(board.hold(&pair, true, &config).is_some());
        // What an administrator released is not held again by the next look.
        board.configured(&config, at(1));
        board.take_due(at(1)).unwrap();
        let missing = finding(HintName::SpfMissing, Severity::Serious);
        assert_eq!(
            board
                .looked(&pair, looked(vec![missing], false), &config, at(1))
                .hold,
            []
        );
        assert!(board.hold(&pair, false, &config).is_some());
    }

    #[test]
    fn of_a_mailing_a_few_contents_are_looked_at_and_a_large_one_is_known_by_its_number() {
        let mut board = Board::default();
        let mailing = Mailing {
            key: "k".into(),
            label: "News".into(),
        };
        let told: Vec<(bool, Bulk)> = (0..101)
            .map(|_| board.count("own", &mailing, at(0)))
            .collect();
        assert_eq!(told.iter().filter(|(look, _)| *look).count(), 3);
        assert_eq!(told[99].1, Bulk::No);
        assert_eq!(told[100].1, Bulk::Mailing("News".into(), 101));
        assert_eq!(board.count("own", &mailing, at(61)), (true, Bulk::No));
    }

    #[test]
    fn addresses_that_clients_make_up_do_not_fill_the_memory() {
        let config = config("");
        let mut board = Board::default();
        for number in 0..PAIRS_MAXIMUM as i64 + 10 {
            let pair = pair(&config, &format!("x@d{number}.example"));
            board.seen(pair, id(1), false, Bulk::No, at(number));
            let mailing = Mailing {
                key: number.to_string(),
                label: String::new(),
            };
            board.count("own", &mailing, at(0));
            let from = format!("x@d{number}.example");
            let found = vec![finding(HintName::NoSubject, Severity::Warning)];
            board.content(&from, "own", found, at(number));
        }
        assert_eq!(board.pairs.len(), PAIRS_MAXIMUM);
        assert_eq!(board.contents.len(), CONTENTS_MAXIMUM);
        assert!(!board.pairs.keys().any(|it| it.from == "d0.example"));
    }

    #[test]
    fn after_a_reload_every_pair_is_due_and_those_without_a_relay_are_forgotten() {
        let before = config("");
        let mut board = Board::default();
        let pair = pair(&before, "jan@a.example");
        board.seen(pair.clone(), id(1), false, Bulk::No, at(0));
        board.take_due(at(0)).unwrap();
        board.looked(&pair, Looked::default(), &before, at(0));
        board.configured(&before, at(5));
        assert_eq!(board.next_due(), Some(at(5)));
        let without = Config::parse("[relays.other]\nserver = \"a.example\"\n", "").unwrap();
        board.configured(&without, at(6));
        assert_eq!(board.next_due(), None);
    }
}
