//! The messages that a filter chooses.

use jiff::{SignedDuration, Timestamp};

use crate::control::describe::{self, Situation};
use crate::control::protocol::{Filter, MessageState};
use crate::mail::{Domain, Envelope, Mailbox, QueueId};
use crate::spool::{self, StateFilter, Unreadable};

use super::{Answers, Trouble, parse_id};

/// Messages that are read from the spool together.
pub const PAGE: usize = 256;

/// The messages that a filter chooses, page by page, each with why it waits.
pub struct Pages<'a> {
    answers: &'a Answers,
    filter: &'a Filter,
    coarse: spool::Filter,
    after: QueueId,
    pub up_to: QueueId,
    ended: bool,
    /// Of which nothing can be read, as far as the filter does not ask for their words.
    pub unreadable: Vec<Unreadable>,
}

impl<'a> Pages<'a> {
    pub fn new(answers: &'a Answers, filter: &'a Filter, after: QueueId) -> Self {
        let config = answers.live.borrow().config.clone();
        let is_relay = |name: &str| config.relays.contains_key(name);
        let coarse = coarse(filter, &is_relay, answers.clock.now());
        Self {
            answers,
            filter,
            coarse,
            after,
            up_to: QueueId::MAX,
            ended: false,
            unreadable: Vec::new(),
        }
    }

    /// The next page; it may be empty although more follow. None: that was all.
    pub async fn next(&mut self) -> Result<Option<Vec<(Envelope, Situation)>>, Trouble> {
        if self.ended {
            return Ok(None);
        }
        let messages = if self.filter.ids.is_empty() {
            let page = self
                .answers
                .spool
                .list(&self.coarse, self.after, PAGE)
                .await?;
            match page.next {
                Some(next) if next < self.up_to => self.after = next,
                _ => self.ended = true,
            }
            let by_state = Filter {
                state: self.filter.state,
                ..Filter::default()
            };
            let states = [None, Some(MessageState::Held)];
            if *self.filter == by_state && states.contains(&self.filter.state) {
                self.unreadable.extend(page.unreadable);
            }
            page.messages
        } else {
            self.ended = true;
            let mut named = Vec::new();
            for id in &self.filter.ids {
                named.extend(self.answers.spool.envelope(parse_id(id)?).await?);
            }
            named.sort_by_key(|it| it.id);
            named.dedup_by_key(|it| it.id);
            named
        };
        // The delivery task knows why each waits; what is not meant it need not look at.
        let now = self.answers.clock.now();
        let any_state = Filter {
            state: None,
            ..self.filter.clone()
        };
        let unknown = MessageState::Waiting;
        let messages: Vec<_> = messages
            .into_iter()
            .filter(|it| it.id <= self.up_to)
            .filter(|it| describe::chooses(&any_state, it, unknown, now))
            .collect();
        if messages.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let situations = self.answers.desk.situations(messages.clone()).await?;
        let is_meant = |state| self.filter.state.is_none_or(|it| it == state);
        Ok(Some(
            messages
                .into_iter()
                .zip(situations)
                .filter(|(_, situation)| is_meant(situation.state))
                .collect(),
        ))
    }
}

/// What the spool's index can tell without a look into messages: it may choose more than
/// the filter does, and never less.
fn coarse(filter: &Filter, is_relay: &dyn Fn(&str) -> bool, now: Timestamp) -> spool::Filter {
    let plain = |text: &Option<String>| text.clone().filter(|it| !it.contains('*'));
    let mailbox = |text: &Option<String>| Mailbox::parse(&plain(text)?).ok();
    let domain = |text: &Option<String>| {
        let domain = Domain::parse(plain(text)?.strip_prefix('@')?).ok()?;
        Some(domain.ascii().to_owned())
    };
    spool::Filter {
        relay: plain(&filter.relay).filter(|it| is_relay(it)),
        flows: None,
        state: match filter.state {
            Some(MessageState::Held) => Some(StateFilter::Held),
            Some(MessageState::Deferred) => Some(StateFilter::Deferred),
            Some(MessageState::Waiting | MessageState::Sending | MessageState::Paused) | None => {
                None
            }
        },
        from: mailbox(&filter.from),
        from_domain: domain(&filter.from),
        to: mailbox(&filter.to),
        to_domain: domain(&filter.to),
        accepted_before: filter.older_than_seconds.and_then(|it| {
            let age = SignedDuration::from_secs(i64::try_from(it).ok()?);
            now.checked_sub(age).ok()
        }),
        larger_than: filter.larger_than_bytes,
        mailing: None,
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{
        Body, ForwardPath, Hold, HoldReason, Mailing, Notify, Origin, Recipient, RecipientStatus,
        ReversePath, Rule, State,
    };

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn envelope(from: &str, to: &str, state: State) -> Envelope {
        Envelope {
            id: QueueId::from_number(1),
            origin: Origin::Submission,
            accepted: "2026-11-21T11:00:00.5Z".parse().unwrap(),
            reverse_path: ReversePath::Null,
            from: Mailbox::parse(from).unwrap(),
            rule: Rule::Default,
            relay: "own".into(),
            mailing: Mailing {
                key: "s-1".into(),
                label: "Vacatures".into(),
            },
            login: None,
            client: "127.0.0.1".into(),
            message_id: "m@uwdomein.nl".into(),
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            size_bytes: 4096,
            wire_bytes: 4100,
            recipients: vec![Recipient {
                path: ForwardPath::parse(to).unwrap(),
                notify: Notify::Unspecified,
                orcpt: None,
                status: RecipientStatus::Waiting,
                last: None,
            }],
            state,
            attempts: 1,
            first_failure: None,
            warned: false,
            past: Vec::new(),
        }
    }

    #[test]
    fn the_index_never_leaves_out_what_a_filter_chooses() {
        let held = State::Held(Hold {
            reason: HoldReason::Administrator,
            by: "piet".into(),
            since: now(),
            note: String::new(),
        });
        let later = now() + SignedDuration::from_mins(5);
        let states = [
            held,
            State::Waiting { not_before: None },
            State::Waiting {
                not_before: Some(later),
            },
        ];
        let addresses = ["Jan@UwDomein.nl", "\"a b\"@x.example", "jan@bücher.example"];
        let wanted = [
            "jan@uwdomein.nl",
            "JAN@*",
            "@uwdomein.NL",
            "@*.nl",
            "\"a b\"@x.example",
            "@x.example",
            "jan@bücher.example",
            "@BÜCHER.example",
            "@xn--bcher-kva.example",
            "nonsense",
            "@",
        ];
        let mut chosen = 0;
        for state in states {
            for address in addresses {
                let envelope = envelope(address, address, state.clone());
                let situation = Situation::of(&envelope, now());
                let mut filters = Vec::new();
                for it in wanted {
                    let it = Some(it.to_owned());
                    filters.push(Filter {
                        from: it.clone(),
                        ..Filter::default()
                    });
                    filters.push(Filter {
                        to: it,
                        ..Filter::default()
                    });
                }
                filters.extend(MessageState::ALL.map(|it| Filter {
                    state: Some(it),
                    ..Filter::default()
                }));
                filters.extend([0, 3_598, 3_599, 3_600, u64::MAX].map(|it| Filter {
                    older_than_seconds: Some(it),
                    ..Filter::default()
                }));
                filters.extend([0, 4_095, 4_096, u64::MAX].map(|it| Filter {
                    larger_than_bytes: Some(it),
                    ..Filter::default()
                }));
                filters.extend(["own", "OWN", "o*", "other"].map(|it| Filter {
                    relay: Some(it.into()),
                    ..Filter::default()
                }));
                for filter in filters {
                    if describe::chooses(&filter, &envelope, situation.state, now()) {
                        chosen += 1;
                        let coarse = coarse(&filter, &|it| it == "own", now());
                        assert!(coarse.matches(&envelope), "{filter:?} {address}");
                    }
                }
            }
        }
        assert!(chosen > 100, "{chosen}");
    }
}
