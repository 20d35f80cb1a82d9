//! The look into one image: what a power cut left against what was claimed before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use penstock::clock::Clock;
use penstock::mail::{Envelope, Origin, QueueId};
use penstock::release;
use penstock::spool::{Filter, Lookup, Reserve, Spool, SpoolOptions};

use super::recorded::recipient_of;
use crate::ledger::{USERS, content_of, number_of, user_of};
use crate::relay::without_trace;

pub const NAME: &str = "powercut::image::one_image";
/// The directory; set only by the test.
pub const PLACE: &str = "PENSTOCK_POWERCUT_IMAGE";
/// The claims that were made before the cut.
pub const CLAIMS: &str = "PENSTOCK_POWERCUT_CLAIMS";
/// Where each look writes what it found.
pub const LOOKS: &str = "PENSTOCK_POWERCUT_LOOKS";

/// What was claimed before the cut; [`recorded`](super::recorded) has the lines.
#[derive(Debug, Default)]
struct Claims {
    promised: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    /// Their end was durable.
    finished: BTreeSet<u64>,
    /// Their final dot was durable: what was submitted after it has its 250.
    dotted: BTreeSet<u64>,
}

impl Claims {
    fn read(text: &str) -> Self {
        let mut it = Self::default();
        let mut sent = BTreeMap::new();
        let mut begun = BTreeMap::new();
        for (place, line) in text.lines().enumerate() {
            let Some((what, number)) = line.split_once(' ') else {
                if line == "cut" {
                    (sent, begun) = Default::default();
                }
                continue;
            };
            let number: u64 = number.parse().unwrap();
            match what {
                "B" => {
                    begun.insert(number, place);
                }
                "S" => {
                    it.promised.insert(number);
                    let since = begun.get(&number).copied().unwrap_or(0);
                    sent.retain(|dotted, at| {
                        let later = *at > since;
                        if !later {
                            it.dotted.insert(*dotted);
                        }
                        later
                    });
                }
                "D" => {
                    it.delivered.insert(number);
                    sent.insert(number, place);
                }
                "F" => {
                    it.finished.insert(number);
                }
                other => panic!("{other}"),
            }
        }
        it
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    images: usize,
    promised: usize,
    pub present: usize,
    /// Delivered once, and there.
    repeated: usize,
    /// Of these, those that say so.
    in_doubt: usize,
    rebuilt: usize,
}

impl Look {
    /// The sum of lines that looks wrote.
    pub fn sum(lines: &str) -> Self {
        let mut sum = Self::default();
        for line in lines.lines() {
            let numbers: Vec<usize> = line.split(' ').map(|it| it.parse().unwrap()).collect();
            let [promised, present, repeated, in_doubt, rebuilt] = numbers[..] else {
                panic!("{line}");
            };
            sum.images += 1;
            sum.promised += promised;
            sum.present += present;
            sum.repeated += repeated;
            sum.in_doubt += in_doubt;
            sum.rebuilt += rebuilt;
        }
        sum
    }

    fn write(&self) {
        let Some(path) = std::env::var_os(LOOKS) else {
            return;
        };
        let file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(path);
        let line = format!(
            "{} {} {} {} {}\n",
            self.promised, self.present, self.repeated, self.in_doubt, self.rebuilt
        );
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} images good: {} promises, {} messages present, {} of them to be sent again ({} in doubt, the others cut before their dot was synced), {} images after a crash",
            self.images, self.promised, self.present, self.repeated, self.in_doubt, self.rebuilt
        )
    }
}

#[tokio::test]
#[ignore = "looks into one image, for the test of power cuts"]
async fn one_image() {
    let (Some(place), Some(claims)) = (std::env::var_os(PLACE), std::env::var_os(CLAIMS)) else {
        return;
    };
    let claims = Claims::read(&std::fs::read_to_string(claims).unwrap());
    let mut options = SpoolOptions::at(PathBuf::from(place));
    options.min_free = Reserve::Bytes(0);
    let clock = Clock::following_tokio("2026-11-21T12:30:00Z".parse().unwrap()).on_boot("look");
    let (spool, recovered) = Spool::open(options, clock.clone()).unwrap();
    spool.until_complete().await.unwrap();
    assert_eq!(recovered.damaged_records, 0, "{recovered:?}");
    assert_eq!(spool.status().await.damaged_records, 0);
    let ledger = release::Ledger::recover(&recovered, clock.moment());
    assert!(ledger.is_ok(), "the limit ledger cannot be read");

    let mut look = Look {
        images: 1,
        promised: claims.promised.len(),
        rebuilt: usize::from(recovered.crashed),
        ..Look::default()
    };
    let mut present = BTreeSet::new();
    for envelope in waiting(&spool).await {
        let number = check(&spool, &envelope).await;
        assert!(
            !(envelope.origin == Origin::Submission && claims.finished.contains(&number)),
            "{number} would be sent again although its end was durable"
        );
        let in_doubt = is_in_doubt(&envelope);
        assert!(
            in_doubt || !claims.dotted.contains(&number),
            "{number} would be sent again, its final dot was durable, and nobody doubts it"
        );
        look.present += 1;
        look.repeated += usize::from(claims.delivered.contains(&number));
        look.in_doubt += usize::from(claims.delivered.contains(&number) && in_doubt);
        let twice = !present.insert(number);
        assert!(!twice, "{number} waits twice");
    }
    let ended = ended(&spool).await;
    let lost: Vec<&u64> = claims
        .promised
        .iter()
        .filter(|it| !present.contains(it) && !ended.contains(it))
        .collect();
    assert!(
        lost.is_empty(),
        "lost: {lost:?} of {} promised, {} present, {} in the history",
        claims.promised.len(),
        present.len(),
        ended.len()
    );
    let forgotten: Vec<&u64> = claims.finished.difference(&ended).collect();
    assert!(
        forgotten.is_empty(),
        "not in the history any more: {forgotten:?}"
    );
    spool.close().await.unwrap();
    look.write();
}

/// Every message that waits.
async fn waiting(spool: &Spool) -> Vec<Envelope> {
    let everything = Filter::default();
    let page = spool.list(&everything, QueueId::MIN, usize::MAX).await;
    page.unwrap().messages
}

/// The number of a message, if all about it is as it was submitted; for a report that
/// of the message it is about.
async fn check(spool: &Spool, envelope: &Envelope) -> u64 {
    let id = envelope.id;
    let mut reader = spool.content(id).await.unwrap().expect("its content");
    let mut content = Vec::new();
    loop {
        let block = reader.read(64 * 1024).await.unwrap();
        if block.is_empty() {
            break;
        }
        content.extend(block);
    }
    let number = number_of(&content).expect("a message of the test, or a report about one");
    assert_eq!(envelope.relay, format!("relay{}", number % USERS));
    let recipient = match envelope.origin {
        Origin::Submission => {
            assert!(
                without_trace(&content) == content_of(number),
                "{number} is damaged"
            );
            recipient_of(number)
        }
        _ => user_of(number),
    };
    let recipients: Vec<String> = envelope
        .recipients
        .iter()
        .map(|it| it.path.to_string())
        .collect();
    assert_eq!(recipients.len(), 1);
    assert!(
        recipients[0].contains(&recipient),
        "{number}: {recipients:?}"
    );
    number
}

fn is_in_doubt(envelope: &Envelope) -> bool {
    let said = envelope.recipients.iter().filter_map(|it| it.last.as_ref());
    said.into_iter().any(|it| it.in_doubt)
}

/// The numbers of the messages that the history has.
async fn ended(spool: &Spool) -> BTreeSet<u64> {
    let mut ended = BTreeSet::new();
    for user in 0..USERS {
        let user = Lookup::Address(user_of(user).parse().unwrap());
        let found = spool.history(&user, usize::MAX).await.unwrap();
        let ids = found.iter().map(|it| &it.envelope.message_id);
        ended.extend(ids.filter_map(|it| it.strip_suffix("@app.test")?.parse::<u64>().ok()));
    }
    ended
}
