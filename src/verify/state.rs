//! What is known of one relay's verification: pure, because a mistake here sends mail
//! through a relay that nobody has seen deliver.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::binding::Binding;
use super::token::TokenHash;
use crate::config::Relay;
use crate::mail::QueueId;

/// How long a token is good for.
pub const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long after a test message left the next one may be asked for: a mail may take its
/// time, and nobody's mailbox is to be filled by an impatient script.
pub const RESEND_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Tokens that are remembered, used and expired ones too, so that an old link is told
/// what became of it.
const TOKENS_MAXIMUM: usize = 20;
/// What is kept of a conversation with a server: its end, which tells what went wrong.
const LINES_MAXIMUM: usize = 40;
const LINE_MAXIMUM: usize = 300;

/// What is known of one relay's verification; it outlives restarts in the spool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// What all the rest is about.
    binding: Option<Binding>,
    confirmed: Option<Confirmed>,
    test: Option<Test>,
    tokens: Vec<Known>,
    /// Why a confirmation that there was is worth nothing any more.
    lost: Option<String>,
    /// What that confirmation was for.
    lost_for: Option<Binding>,
}

/// Who confirmed it and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Confirmed {
    at: Timestamp,
    by: String,
}

/// The latest test message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Its queue id.
    id: String,
    /// When it was composed.
    pub asked: Timestamp,
    /// Until when its token is good.
    pub expires: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a test message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has not been tried yet.
    Waiting,
    /// The relay took it.
    Sent {
        /// When.
        at: Timestamp,
    },
    /// The relay did not.
    Failed {
        /// When.
        at: Timestamp,
        /// At which point of the dialogue (a [`Stage`](crate::mail::Stage)'s name).
        stage: String,
        /// The server that said no, or was tried last.
        #[serde(default)]
        server: String,
        /// The server's own words.
        words: String,
        /// What somebody could change.
        remedy: String,
        /// It is not tried again by itself.
        is_final: bool,
        /// What was said, passwords masked.
        conversation: Conversation,
    },
}

/// What was said with a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation(pub Vec<(Side, String)>);

/// Who said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// We.
    Ours,
    /// The server.
    Theirs,
    /// Nobody: what was done between the lines.
    Note,
}

impl Conversation {
    /// As much of a dialogue as is worth keeping: its end.
    pub fn of(lines: impl DoubleEndedIterator<Item = (Side, String)>) -> Self {
        let mut kept: Vec<_> = lines
            .rev()
            .take(LINES_MAXIMUM)
            .map(|(side, line)| {
                (
                    side,
                    crate::mail::text::printable(line.as_bytes(), LINE_MAXIMUM),
                )
            })
            .collect();
        kept.reverse();
        Self(kept)
    }
}

/// A token that was given out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    hash: TokenHash,
    expires: Timestamp,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Fate {
    Open,
    /// The relay was confirmed, with this one or another.
    Used,
    /// The relay is another one by now.
    Outdated,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Good.
    Open,
    /// The relay was confirmed already.
    Used,
    /// Too old.
    Expired,
    /// For the relay as it was before its configuration changed.
    Outdated,
}

/// Why no test message goes out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotYet {
    /// The last one left just now; another one may in so long.
    Pause {
        /// Since it left.
        since: Duration,
        /// Until another one may.
        left: Duration,
    },
    /// It is confirmed.
    Confirmed,
}

impl Verification {
    /// Reads what [`to_value`](Self::to_value) wrote; what cannot be read is a relay that
    /// nobody confirmed, which costs one more test message.
    pub fn from_value(value: &serde_json::Value) -> Self {
        Self::deserialize(value).unwrap_or_default()
    }

    /// For the spool's notes.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// For what it was confirmed, if it was.
    pub fn confirmed(&self) -> Option<&Binding> {
        self.confirmed.as_ref().and(self.binding.as_ref())
    }

    /// When and by whom it was confirmed, if it was.
    pub fn confirmation(&self) -> Option<(Timestamp, &str)> {
        self.confirmed.as_ref().map(|it| (it.at, it.by.as_str()))
    }

    /// The latest test message.
    pub fn test(&self) -> Option<&Test> {
        self.test.as_ref()
    }

    /// Why a confirmation that there was is worth nothing any more.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Adapts to the relay as it is configured now: proof about another server, login or
    /// sender is worth nothing. Whether anything changed, and the test message that must
    /// not leave any more.
    pub fn bind(&mut self, relay: &Relay) -> (bool, Option<QueueId>) {
        let now = Binding::of(relay);
        if self.binding == now {
            return (false, None);
        }
        if self.confirmed.is_some() {
            self.lost_for = self.binding.clone();
        }
        if let (Some(was), Some(new)) = (&self.lost_for, &now) {
            // Back to what it was? Then it is not the change that has to be confirmed.
            self.lost = (was != new).then(|| was.difference(new));
        }
        let test = self.test.take();
        let stale = test
            .filter(|it| !matches!(it.outcome, Outcome::Sent { .. }))
            .and_then(|it| it.id.parse().ok());
        self.confirmed = None;
        self.end_tokens(Fate::Outdated);
        self.binding = now;
        (true, stale)
    }

    /// The relay is gone, or needs no verification any more: the test message that must
    /// not leave, if there is one. What was proven stays proven.
    pub fn unwanted(&mut self) -> Option<QueueId> {
        let test = self
            .test
            .take_if(|it| !matches!(it.outcome, Outcome::Sent { .. }))?;
        test.id()
    }

    /// Whether a test message should go out by itself: on load, when nobody confirmed and
    /// no message with a good token is out or on its way. `waits` tells whether a message
    /// is still in the spool.
    pub fn wants_test(&self, waits: bool, now: Timestamp) -> bool {
        if self.confirmed.is_some() || self.binding.is_none() {
            return false;
        }
        match &self.test {
            None => true,
            Some(test) if test.expires <= now => !waits,
            Some(test) => match &test.outcome {
                Outcome::Waiting => !waits,
                Outcome::Failed { is_final, .. } => *is_final || !waits,
                Outcome::Sent { .. } => false,
            },
        }
    }

    /// Whether a test message may go out because somebody asks for it. One that failed
    /// or has not left yet needs no pause: who corrected a mistake wants to see it gone.
    pub fn may_resend(&self, now: Timestamp) -> Result<(), NotYet> {
        if self.confirmed.is_some() {
            return Err(NotYet::Confirmed);
        }
        let Some(Outcome::Sent { at }) = self.test.as_ref().map(|it| &it.outcome) else {
            return Ok(());
        };
        // A clock that went back must not stretch the pause.
        let since = Duration::try_from(now.duration_since(*at)).unwrap_or(RESEND_PAUSE);
        match RESEND_PAUSE.checked_sub(since) {
            Some(left) if !left.is_zero() => Err(NotYet::Pause { since, left }),
            _ => Ok(()),
        }
    }

    /// A test message with this token is about to be accepted. Earlier tokens stay good:
    /// mails overtake one another.
    pub fn composed(&mut self, id: QueueId, token: TokenHash, now: Timestamp) -> Timestamp {
        let expires = now.checked_add(TOKEN_LIFE).unwrap_or(Timestamp::MAX);
        self.tokens.push(Known {
            hash: token,
            expires,
            fate: Fate::Open,
        });
        if self.tokens.len() > TOKENS_MAXIMUM {
            self.tokens.remove(0);
        }
        self.test = Some(Test {
            id: id.to_string(),
            asked: now,
            expires,
            outcome: Outcome::Waiting,
        });
        expires
    }

    /// What became of a test message; of an older one than the latest it is no news.
    pub fn ended(&mut self, id: QueueId, outcome: Outcome) {
        if let Some(test) = &mut self.test
            && test.id == id.to_string()
        {
            test.outcome = outcome;
        }
    }

    /// What a token is to this relay; none: nothing.
    pub fn find(&self, token: &TokenHash, now: Timestamp) -> Option<Found> {
        let known = self.tokens.iter().find(|it| it.hash == *token)?;
        Some(match known.fate {
            Fate::Used => Found::Used,
            Fate::Outdated => Found::Outdated,
            Fate::Open if known.expires <= now => Found::Expired,
            Fate::Open => Found::Open,
        })
    }

    /// Somebody has read the message: the relay is active.
    pub fn confirm(&mut self, by: &str, now: Timestamp) {
        self.confirmed = Some(Confirmed {
            at: now,
            by: by.to_owned(),
        });
        self.lost = None;
        self.lost_for = None;
        self.end_tokens(Fate::Used);
    }

    fn end_tokens(&mut self, fate: Fate) {
        for known in self.tokens.iter_mut().filter(|it| it.fate == Fate::Open) {
            known.fate = fate;
        }
    }
}

impl Test {
    /// Its queue id.
    pub fn id(&self) -> Option<QueueId> {
        self.id.parse().ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::token::Token;
    use super::*;
    use crate::config::Config;

    /// The relay `own`, with some lines instead of or beside the usual ones.
    pub(in crate::verify) fn relay(lines: &str) -> Relay {
        let mut text = String::from("[relays.own]\n");
        for usual in [
            "server = \"[a.example]:587\"",
            "sender = \"mailer@a.example\"",
            "login = \"user secret\"",
            "verify = true",
        ] {
            let key = usual.split(' ').next().unwrap();
            if !lines.lines().any(|it| it.starts_with(&format!("{key} "))) {
                text.push_str(usual);
                text.push('\n');
            }
        }
        text.push_str(lines);
        Config::parse(&text, "").unwrap().relays["own"].clone()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    fn id(number: u64) -> QueueId {
        QueueId::from_number(number)
    }

    /// A relay whose test message left at second 0.
    fn sent() -> (Verification, Token) {
        let mut it = Verification::default();
        assert_eq!(it.bind(&relay("")), (true, None));
        assert!(it.wants_test(false, at(0)));
        let token = Token::random();
        it.composed(id(1), token.hash(), at(0));
        it.ended(id(1), Outcome::Sent { at: at(0) });
        (it, token)
    }

    fn failed(is_final: bool) -> Outcome {
        Outcome::Failed {
            at: at(1),
            stage: "auth".into(),
            server: "smtp.a.example".into(),
            words: "535 5.7.8 no".into(),
            remedy: String::new(),
            is_final,
            conversation: Conversation::default(),
        }
    }

    #[test]
    fn a_token_confirms_once_and_says_so_afterwards() {
        let (mut it, token) = sent();
        assert_eq!(it.confirmed(), None);
        assert_eq!(it.find(&Token::random().hash(), at(1)), None);
        assert_eq!(it.find(&token.hash(), at(1)), Some(Found::Open));
        it.confirm("jan", at(2));
        assert_eq!(it.confirmed(), Binding::of(&relay("")).as_ref());
        assert_eq!(it.find(&token.hash(), at(3)), Some(Found::Used));
        assert_eq!(it.may_resend(at(9_000)), Err(NotYet::Confirmed));
        assert!(!it.wants_test(false, at(9_000)));
    }

    #[test]
    fn a_token_is_good_for_seven_days() {
        let (it, token) = sent();
        let week = 7 * 24 * 3600;
        assert_eq!(it.find(&token.hash(), at(week - 1)), Some(Found::Open));
        assert_eq!(it.find(&token.hash(), at(week)), Some(Found::Expired));
        assert!(!it.wants_test(false, at(week - 1)));
        assert!(it.wants_test(false, at(week)), "on load a new one goes out");
    }

    #[test]
    fn an_earlier_token_stays_good_until_one_of_them_is_used() {
        let (mut it, first) = sent();
        let second = Token::random();
        it.composed(id(2), second.hash(), at(400));
        assert_eq!(it.find(&first.hash(), at(401)), Some(Found::Open));
        it.confirm("jan", at(402));
        for token in [&first, &second] {
            assert_eq!(it.find(&token.hash(), at(403)), Some(Found::Used));
        }
    }

    #[test]
    fn another_server_login_or_sender_must_be_confirmed_again() {
        let (mut it, token) = sent();
        it.confirm("jan", at(1));
        let second = Token::random();
        assert_eq!(it.bind(&relay("")), (false, None), "nothing changed");
        let changed = relay("server = \"[b.example]:587\"");
        assert_eq!(it.bind(&changed), (true, None));
        assert_eq!(it.confirmed(), None);
        assert_eq!(
            it.lost(),
            Some("the server changed from [a.example]:587 to [b.example]:587")
        );
        assert!(it.wants_test(false, at(2)), "without a pause");
        it.composed(id(2), second.hash(), at(2));
        let third = relay("server = \"[c.example]:587\"");
        let mut moved = it.clone();
        moved.bind(&third);
        assert_eq!(
            moved.lost(),
            Some("the server changed from [a.example]:587 to [c.example]:587")
        );
        // Back again before it left: the message for the other server must not go.
        assert_eq!(it.bind(&relay("")), (true, Some(id(2))));
        assert_eq!(it.lost(), None, "it is what it was");
        assert_eq!(it.find(&second.hash(), at(3)), Some(Found::Outdated));
        assert_eq!(it.find(&token.hash(), at(3)), Some(Found::Used));
        assert_eq!(it.confirmed(), None, "a proof that was given up stays so");
    }

    #[test]
    fn a_relay_that_is_taken_out_keeps_its_proof_and_not_its_test_message() {
        let (mut it, token) = sent();
        assert_eq!(it.unwanted(), None, "it is out already");
        assert_eq!(it.find(&token.hash(), at(1)), Some(Found::Open));
        it.composed(id(2), Token::random().hash(), at(1));
        assert_eq!(it.unwanted(), Some(id(2)));
        assert_eq!(it.unwanted(), None);
        it.confirm("jan", at(2));
        assert_eq!(it.unwanted(), None);
        assert!(it.confirmed().is_some());
    }

    #[test]
    fn the_next_test_message_may_be_asked_for_after_five_minutes_or_a_failure() {
        let (mut it, _) = sent();
        assert_eq!(
            it.may_resend(at(60)),
            Err(NotYet::Pause {
                since: Duration::from_secs(60),
                left: Duration::from_secs(240),
            })
        );
        assert_eq!(it.may_resend(at(300)), Ok(()));
        assert_eq!(it.may_resend(at(-9)), Ok(()), "the clock went back");
        it.ended(id(1), failed(true));
        assert_eq!(it.may_resend(at(61)), Ok(()));
    }

    #[test]
    fn on_load_a_test_message_goes_out_when_none_is_on_its_way() {
        let (mut it, _) = sent();
        assert!(
            !it.wants_test(false, at(1)),
            "it left and waits for its reader"
        );
        it.ended(id(7), failed(true));
        assert!(!it.wants_test(false, at(1)), "that was not the latest");
        it.ended(id(1), failed(false));
        assert!(!it.wants_test(true, at(1)), "it is tried again by itself");
        assert!(it.wants_test(false, at(1)), "somebody deleted it");
        it.ended(id(1), failed(true));
        assert!(it.wants_test(false, at(1)));
        assert!(!Verification::default().wants_test(false, at(1)));
    }

    #[test]
    fn what_is_kept_comes_back_and_holds_no_token() {
        let (mut it, token) = sent();
        it.ended(id(1), failed(false));
        let value = it.to_value();
        assert!(!value.to_string().contains(token.expose()));
        assert_eq!(Verification::from_value(&value), it);
        for odd in ["null", "7", "{\"tokens\":3}", "{\"confirmed\":{}}"] {
            let odd: serde_json::Value = serde_json::from_str(odd).unwrap();
            assert_eq!(Verification::from_value(&odd), Verification::default());
        }
    }

    #[test]
    fn neither_resends_nor_a_talkative_server_make_it_grow() {
        let (mut it, _) = sent();
        for number in 0..200 {
            it.composed(id(number), Token::random().hash(), at(0));
        }
        let long = (0..1_000).map(|it| (Side::Theirs, format!("{it} {}", "x".repeat(10_000))));
        let conversation = Conversation::of(long);
        assert_eq!(conversation.0.len(), LINES_MAXIMUM);
        assert!(conversation.0.last().unwrap().1.starts_with("999 "));
        it.ended(
            id(199),
            Outcome::Failed {
                at: at(0),
                stage: "auth".into(),
                server: String::new(),
                words: String::new(),
                remedy: String::new(),
                is_final: true,
                conversation,
            },
        );
        assert!(it.to_value().to_string().len() < 20_000);
    }
}
