//! Which messages: one grammar for every verb that takes several.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Chooses messages; every member that is set must match, and an empty filter matches all.
///
/// Addresses and names match without regard to case; `*` stands for any text, and an
/// address that begins with `@` for everyone at that domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Any of these ids; empty: every id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// The directory's entry that matched, or the login that submitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The address that decided its route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Any of its recipients that is not settled yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Its relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Its mailing: the key, or the label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailing: Option<String>,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<MessageState>,
    /// Accepted longer ago than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_seconds: Option<u64>,
    /// Larger than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub larger_than_bytes: Option<u64>,
    /// What was last said about any recipient that is not settled yet contains this; with
    /// `*`, it matches this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether a message may leave, as an administrator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageState {
    /// For its turn, or for room within its relay's limits.
    Waiting,
    /// For its next attempt, after one that failed for the time being.
    Deferred,
    /// Its relay is being talked to about it.
    Sending,
    /// For its relay, which is paused, not verified or not configured.
    Paused,
    /// For somebody to release it.
    Held,
}

impl MessageState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Deferred,
        Self::Sending,
        Self::Paused,
        Self::Held,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Deferred => "deferred",
            Self::Sending => "sending",
            Self::Paused => "paused",
            Self::Held => "held",
        }
    }
}

/// The side of a message that a [`Filter`] looks at.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its id.
    pub id: &'a str,
    /// The directory's entry that matched.
    pub user: Option<&'a str>,
    /// The login that submitted it.
    pub login: Option<&'a str>,
    /// The address that decided its route.
    pub from: &'a str,
    /// Its recipients that are not settled yet.
    pub recipients: &'a [String],
    /// Its relay.
    pub relay: &'a str,
    /// Its mailing's key.
    pub mailing_key: &'a str,
    /// Its mailing's label.
    pub mailing: &'a str,
    /// Its state.
    pub state: MessageState,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Octets of its content.
    pub size_bytes: u64,
    /// What was last said about those.
    pub errors: &'a [String],
}

impl Filter {
    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it chooses this message.
    pub fn matches(&self, it: &Candidate<'_>, now: Timestamp) -> bool {
        let is = |wanted: &Option<String>, had: &str| match wanted {
            None => true,
            Some(wanted) => matches(wanted, had),
        };
        let any_id =
            self.ids.is_empty() || self.ids.iter().any(|id| id.eq_ignore_ascii_case(it.id));
        let user = self.user.as_deref().is_none_or(|wanted| {
            [it.user, it.login]
                .into_iter()
                .flatten()
                .any(|had| matches(wanted, had))
        });
        let to = self
            .to
            .as_deref()
            .is_none_or(|wanted| it.recipients.iter().any(|had| matches(wanted, had)));
        let error = self
            .error
            .as_deref()
            .is_none_or(|wanted| it.errors.iter().any(|had| contains(wanted, had)));
        let age_seconds = now.duration_since(it.accepted).as_secs();
        any_id
            && user
            && is(&self.from, it.from)
            && to
            && is(&self.relay, it.relay)
            && (is(&self.mailing, it.mailing_key) || is(&self.mailing, it.mailing))
            && self.state.is_none_or(|wanted| wanted == it.state)
            && self
                .older_than_seconds
                .is_none_or(|than| u64::try_from(age_seconds).is_ok_and(|age| age > than))
            && self
                .larger_than_bytes
                .is_none_or(|than| it.size_bytes > than)
            && error
    }
}

/// Whether the whole of `had` is what is wanted.
fn matches(wanted: &str, had: &str) -> bool {
    let (wanted, had) = (wanted.to_lowercase(), had.to_lowercase());
    match wanted.strip_prefix('@') {
        // `@domain` is a directory's entry by that name, or everyone there.
        Some(_) if !had.starts_with('@') => wildcard(&format!("*{wanted}"), &had),
        _ => wildcard(&wanted, &had),
    }
}

/// Whether `had` contains what is wanted, or matches it when it has a `*`.
fn contains(wanted: &str, had: &str) -> bool {
    let (wanted, had) = (wanted.to_lowercase(), had.to_lowercase());
    if wanted.contains('*') {
        wildcard(&wanted, &had)
    } else {
        had.contains(&wanted)
    }
}

/// Whether the pieces of `pattern` between its `*` occur in `text` in order, the first at
/// its start and the last at its end.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.find(piece) {
            Some(place) => rest = &rest[place + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn chosen(filter: Filter) -> bool {
        let recipients = ["bob@example.net".to_owned(), "Ann@Example.org".to_owned()];
        let errors = ["550 5.1.1 no such user".to_owned()];
        let message = Candidate {
            id: "1k9xw3q5g0000",
            user: Some("@uwdomein.nl"),
            login: Some("erp"),
            from: "Jan@uwdomein.nl",
            recipients: &recipients,
            relay: "own",
            mailing_key: "s-123",
            mailing: "Vacatures week 47",
            state: MessageState::Deferred,
            accepted: "2026-11-21T10:00:00Z".parse().unwrap(),
            size_bytes: 1000,
            errors: &errors,
        };
        filter.matches(&message, now())
    }

    fn from(text: &str) -> Filter {
        Filter {
            from: Some(text.into()),
            ..Filter::default()
        }
    }

    #[test]
    fn an_empty_filter_matches_everything() {
        assert!(Filter::default().is_empty());
        assert!(chosen(Filter::default()));
    }

    #[test]
    fn addresses_match_by_case_folded_text_wildcard_or_domain() {
        for yes in [
            "jan@uwdomein.nl",
            "JAN@*",
            "@uwdomein.nl",
            "*",
            "j*@*.nl",
            "*n@*",
        ] {
            assert!(chosen(from(yes)), "{yes}");
        }
        for no in [
            "jan",
            "@domein.nl",
            "an@uwdomein.nl",
            "jan@uwdomein.nl*x",
            "",
            "x*",
        ] {
            assert!(!chosen(from(no)), "{no}");
        }
    }

    #[test]
    fn one_text_is_not_counted_twice_by_a_wildcard() {
        assert!(!wildcard("ab*ba", "aba"));
        assert!(wildcard("ab*ba", "abba"));
        assert!(wildcard("a**a", "aa"));
        assert!(!wildcard("é*", "e"));
    }

    #[test]
    fn every_member_must_match() {
        let all = Filter {
            ids: vec!["0000000000000".into(), "1K9XW3Q5G0000".into()],
            user: Some("erp".into()),
            from: Some("jan@uwdomein.nl".into()),
            to: Some("@example.org".into()),
            relay: Some("own".into()),
            mailing: Some("vacatures*".into()),
            state: Some(MessageState::Deferred),
            older_than_seconds: Some(3600),
            larger_than_bytes: Some(999),
            error: Some("no such USER".into()),
        };
        assert!(chosen(all.clone()));
        let one_wrong = [
            Filter {
                ids: vec!["0000000000000".into()],
                ..all.clone()
            },
            Filter {
                user: Some("jan".into()),
                ..all.clone()
            },
            Filter {
                from: Some("piet@uwdomein.nl".into()),
                ..all.clone()
            },
            Filter {
                to: Some("carl@example.org".into()),
                ..all.clone()
            },
            Filter {
                relay: Some("carerix".into()),
                ..all.clone()
            },
            Filter {
                mailing: Some("vacatures".into()),
                ..all.clone()
            },
            Filter {
                state: Some(MessageState::Held),
                ..all.clone()
            },
            Filter {
                older_than_seconds: Some(7200),
                ..all.clone()
            },
            Filter {
                larger_than_bytes: Some(1000),
                ..all.clone()
            },
            Filter {
                error: Some("spam".into()),
                ..all.clone()
            },
        ];
        for filter in one_wrong {
            assert!(!chosen(filter.clone()), "{filter:?}");
        }
        assert!(chosen(Filter {
            user: Some("@uwdomein.nl".into()),
            ..all.clone()
        }));
        assert!(chosen(Filter {
            mailing: Some("s-123".into()),
            ..all
        }));
    }

    #[test]
    fn a_message_from_the_future_is_not_old() {
        let filter = Filter {
            older_than_seconds: Some(0),
            ..Filter::default()
        };
        let future = Candidate {
            id: "",
            user: None,
            login: None,
            from: "",
            recipients: &[],
            relay: "",
            mailing_key: "",
            mailing: "",
            state: MessageState::Waiting,
            size_bytes: 0,
            errors: &[],
            accepted: "2026-11-21T13:00:00Z".parse().unwrap(),
        };
        assert!(!filter.matches(&future, now()));
    }
}
