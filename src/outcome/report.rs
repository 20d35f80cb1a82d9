//! Whether somebody is told, who, and in which words.

use jiff::Timestamp;

use crate::mail::dsn::{self, Group, Notification, Part};
use crate::mail::text::printable;
use crate::mail::{
    Body, EnhancedStatus, Envelope, Mailbox, Mailing, Notify, Origin, QueueId, Recipient,
    RecipientStatus, Ret, ReversePath, Rule, State,
};
use crate::smtp::WireSize;

use super::finding::Finding;
use super::verdict::is_lacking;

/// Contents up to this size are returned whole; of larger ones the header.
pub const RETURNED_MAXIMUM_BYTES: u64 = 64 * 1024;
/// No more of a header than this is returned.
pub const HEADER_MAXIMUM_BYTES: usize = 64 * 1024;
/// Recipients that one report names; what is beyond is counted.
const RECIPIENTS_MAXIMUM: usize = 1_000;

/// A report to be written: what became of some recipients of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What became of them.
    pub kind: ReportKind,
    /// Whom it is about, never empty.
    pub items: Vec<Item>,
}

/// What a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportKind {
    /// They never get it.
    Failed,
    /// They have not got it yet.
    Delayed,
    /// The relay took it and cannot tell more (RFC 3461 section 5.2.1).
    Relayed,
}

/// One recipient of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its place in the envelope.
    pub recipient: usize,
    /// What the refusal means, where there was one.
    pub finding: Option<Finding>,
}

/// How a report is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Way<'a> {
    /// The report's own name in the spool.
    pub id: QueueId,
    /// This host's name.
    pub hostname: &'a str,
    /// The relay it leaves by: `bounces-via`, else the relay of the message.
    pub relay: &'a str,
    /// The From address of the report: what that relay lets us use.
    pub author: Mailbox,
    /// When it is written.
    pub now: Timestamp,
    /// When a delayed message will be given up, where that is known.
    pub gives_up: Option<Timestamp>,
}

impl Report {
    /// One kind of report about some recipients, as far as their sender may be told.
    pub fn of(envelope: &Envelope, kind: ReportKind, items: Vec<Item>) -> Option<Self> {
        Self::gather(envelope, items.into_iter().map(|it| (kind, it)).collect()).pop()
    }

    /// Sorts what happened by kind, and drops what nobody may be told: no report is ever
    /// sent about a message with a null reverse-path (RFC 5321 section 6.1), nor one
    /// that NOTIFY does not ask for (RFC 3461 section 4.1), nor about a relay's test
    /// message, whose verdict is shown where it was asked for.
    pub(super) fn gather(envelope: &Envelope, happened: Vec<(ReportKind, Item)>) -> Vec<Self> {
        if envelope.reverse_path == ReversePath::Null || envelope.origin == Origin::Verification {
            return Vec::new();
        }
        let wanted = |kind: ReportKind, notify: Notify| match kind {
            ReportKind::Failed => notify.failure(),
            ReportKind::Delayed => notify.delay(),
            ReportKind::Relayed => notify.success(),
        };
        [ReportKind::Failed, ReportKind::Delayed, ReportKind::Relayed]
            .into_iter()
            .filter_map(|kind| {
                let items: Vec<Item> = happened
                    .iter()
                    .filter(|(it, item)| {
                        *it == kind && wanted(kind, envelope.recipients[item.recipient].notify)
                    })
                    .map(|(_, item)| item.clone())
                    .collect();
                (!items.is_empty()).then_some(Self { kind, items })
            })
            .collect()
    }

    /// Whether the whole content of the message is wanted, to return it; otherwise its
    /// header is enough ([`HEADER_MAXIMUM_BYTES`]).
    ///
    /// RET speaks of failures only; other reports return the header (RFC 3461 section 4.3).
    pub fn returns_content(&self, envelope: &Envelope) -> bool {
        self.kind == ReportKind::Failed
            && envelope.ret != Some(Ret::Headers)
            && envelope.size_bytes <= RETURNED_MAXIMUM_BYTES
            // A relay that cannot carry 8-bit content would refuse the report for it.
            && (envelope.body == Body::SevenBit
                || envelope.ret == Some(Ret::Full) && !self.needs_more(envelope))
    }

    /// Whether the message failed because the relay, or what was reached of it, lacks what
    /// it needs: returned whole, the report would need the same.
    fn needs_more(&self, envelope: &Envelope) -> bool {
        let said = |it: &Item| envelope.recipients[it.recipient].last.as_ref();
        let mut said = self.items.iter().filter_map(said);
        said.any(|it| it.code.is_none() && it.enhanced.is_some_and(is_lacking))
    }

    /// Writes the report: its envelope and its content. `returned` is the content of the
    /// message, or as much of its beginning as was read.
    pub fn compose(
        &self,
        envelope: &Envelope,
        returned: &[u8],
        way: &Way<'_>,
    ) -> (Envelope, Vec<u8>) {
        let whole = self.returns_content(envelope) && returned.len() as u64 == envelope.size_bytes;
        let part = if whole {
            Part::Message(returned)
        } else {
            Part::Header(dsn::header_of(returned, HEADER_MAXIMUM_BYTES))
        };
        let shown = &self.items[..self.items.len().min(RECIPIENTS_MAXIMUM)];
        let groups: Vec<Group> = shown
            .iter()
            .map(|item| self.group(&envelope.recipients[item.recipient], way))
            .collect();
        let words = self.words(envelope, way);
        // Nobody is told about a message with a null reverse-path: see `gather`.
        let to = envelope.reverse_path.mailbox().unwrap_or(&envelope.from);
        let notification = Notification {
            message_id: format!("{}@{}", way.id, way.hostname),
            date: way.now,
            author: way.author.clone(),
            to,
            subject: self.subject(),
            in_reply_to: &envelope.message_id,
            words: &words,
            reporting_mta: way.hostname,
            envelope_id: envelope.envid.as_deref(),
            arrival: envelope.accepted,
            log_id: envelope.id.to_string(),
            groups: &groups,
            returned: part,
            smtputf8: envelope.smtputf8,
        };
        let written = notification.write();
        let report = Envelope {
            id: way.id,
            origin: match self.kind {
                ReportKind::Delayed => Origin::Warning,
                ReportKind::Failed | ReportKind::Relayed => Origin::Report,
            },
            accepted: way.now,
            reverse_path: ReversePath::Null,
            from: envelope.from.clone(),
            rule: Rule::Own,
            relay: way.relay.to_owned(),
            mailing: Mailing {
                key: "reports".to_owned(),
                label: "reports".to_owned(),
            },
            login: None,
            client: "local".to_owned(),
            message_id: notification.message_id.clone(),
            body: written.body,
            smtputf8: written.smtputf8,
            ret: None,
            envid: None,
            size_bytes: written.octets.len() as u64,
            wire_bytes: WireSize::of(&written.octets),
            recipients: envelope
                .reverse_path
                .mailbox()
                .map(|it| Recipient {
                    path: crate::mail::ForwardPath::Mailbox(it.clone()),
                    notify: Notify::Unspecified,
                    orcpt: None,
                    status: RecipientStatus::Waiting,
                    last: None,
                })
                .into_iter()
                .collect(),
            state: State::Waiting { not_before: None },
            attempts: 0,
            first_failure: None,
            warned: false,
            past: Vec::new(),
        };
        (report, written.octets)
    }

    fn subject(&self) -> &'static str {
        match self.kind {
            ReportKind::Failed => "Your message could not be delivered",
            ReportKind::Delayed => "Your message is delayed",
            ReportKind::Relayed => "Your message was passed on",
        }
    }

    /// The fields about one recipient (RFC 3464 section 2.3).
    fn group<'a>(&self, recipient: &'a Recipient, way: &Way<'_>) -> Group<'a> {
        let last = recipient.last.as_ref();
        let wanted_class = match self.kind {
            ReportKind::Failed if recipient.status == RecipientStatus::Expired => 4,
            ReportKind::Failed => 5,
            ReportKind::Delayed => 4,
            ReportKind::Relayed => 2,
        };
        let said = last
            .and_then(|it| it.enhanced)
            .filter(|it| it.class == wanted_class);
        let status = said.unwrap_or(match (self.kind, recipient.status) {
            (ReportKind::Failed, RecipientStatus::Expired) => EnhancedStatus::new(4, 4, 7),
            _ => EnhancedStatus::new(wanted_class, 0, 0),
        });
        Group {
            original: recipient.orcpt.as_deref(),
            recipient: recipient.path.to_string(),
            action: match self.kind {
                ReportKind::Failed => "failed",
                ReportKind::Delayed => "delayed",
                ReportKind::Relayed => "relayed",
            },
            status,
            remote_mta: last.map_or("", |it| it.server.as_str()),
            diagnostic: last
                .filter(|it| it.code.is_some())
                .map(|it| said_by(it.code, it.enhanced, &it.text)),
            last_attempt: last.map(|it| it.at),
            will_retry_until: way.gives_up.filter(|_| self.kind == ReportKind::Delayed),
        }
    }

    /// The part for people.
    fn words(&self, envelope: &Envelope, way: &Way<'_>) -> String {
        let mut words = String::new();
        let mut say = |line: &str| {
            words.push_str(line);
            words.push('\n');
        };
        say(&format!(
            "This is the mail service Penstock on {}.",
            way.hostname
        ));
        say("");
        match self.kind {
            ReportKind::Failed => {
                say("Your message could not be delivered to the recipients below.");
                say("It will not be tried again.");
            }
            ReportKind::Delayed => {
                say("Your message has not reached the recipients below yet.");
                say("It is still being tried: you need not send it again.");
                if let Some(until) = way.gives_up {
                    say(&format!(
                        "If it fails until about {}, you get another report.",
                        minute(until)
                    ));
                }
            }
            ReportKind::Relayed => {
                say("Your message was handed to the next mail server for the recipients");
                say("below. That server does not tell about its delivery, so this is the");
                say("only notice you get.");
            }
        }
        for item in self.items.iter().take(RECIPIENTS_MAXIMUM) {
            let recipient = &envelope.recipients[item.recipient];
            say("");
            say(&format!(
                "To: {}",
                printable(recipient.path.to_string().as_bytes(), 320)
            ));
            if recipient.status == RecipientStatus::Expired {
                say("  It was tried for too long without success.");
            }
            if let Some(finding) = &item.finding {
                say(&format!("  Reason: {}.", finding.class.phrase()));
                say(&format!("  What to do: {}", finding.remedy));
            }
            let Some(last) = &recipient.last else {
                continue;
            };
            if last.in_doubt {
                say("  At one attempt the connection was lost at the very end: the recipient");
                say("  may have got the message all the same.");
            }
            if self.kind == ReportKind::Relayed {
                continue;
            }
            match (last.code, last.server.is_empty()) {
                (Some(_), false) => say(&format!("  The server {} said:", last.server)),
                (Some(_), true) => say("  The server said:"),
                (None, _) => say("  What happened:"),
            }
            for line in said_by(last.code, last.enhanced, &last.text).lines() {
                say(&format!("    {line}"));
            }
        }
        if self.items.len() > RECIPIENTS_MAXIMUM {
            say("");
            say(&format!(
                "and {} more.",
                self.items.len() - RECIPIENTS_MAXIMUM
            ));
        }
        say("");
        say(&format!(
            "Your message was accepted at {} as {}.",
            minute(envelope.accepted),
            envelope.id
        ));
        words
    }
}

/// `550 5.1.1 words`, as the server said it.
fn said_by(code: Option<u16>, enhanced: Option<EnhancedStatus>, text: &str) -> String {
    let mut said = String::new();
    if let Some(code) = code {
        said.push_str(&format!("{code} "));
        let shown = enhanced.map(|it| it.to_string());
        if let Some(status) = shown.filter(|it| !text.starts_with(it.as_str())) {
            said.push_str(&format!("{status} "));
        }
    }
    said.push_str(text);
    said
}

fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::pause::Health;
    use super::super::policy::Policy;
    use super::super::rules::Rules;
    use super::super::settle::settle;
    use super::super::settlement::Settlement;
    use super::super::testing::*;
    use super::*;
    use crate::mail::Stage;

    fn settled(envelope: &Envelope, delivery: &crate::relay::Delivery) -> Settlement {
        let policy = Policy {
            retry: &RETRY,
            rules: Rules::compiled_in(),
            health: &Health::default(),
        };
        settle(envelope, delivery, &policy, at(1), 0.5)
    }

    fn way() -> Way<'static> {
        Way {
            id: QueueId::from_number((1 << 60) + 1),
            hostname: "app01.example.nl",
            relay: "carerix",
            author: Mailbox::parse("postmaster@app01.example.nl").unwrap(),
            now: at(1),
            gives_up: Some(at(4 * 1440)),
        }
    }

    #[test]
    fn what_the_relay_could_not_carry_is_not_returned_to_it() {
        let mut message = envelope(&["a@example.org"]);
        message.body = Body::EightBitMime;
        message.ret = Some(Ret::Full);
        let returns = |result| {
            let it = settled(&message, &delivery(at(1), vec![result]));
            it.reports[0].returns_content(&it.envelope)
        };
        assert!(returns(refused(Stage::Recipient, "550 5.1.1 unknown")));
        let unsupported = crate::relay::RelayError::Unsupported { what: "8BITMIME" };
        assert!(!returns(Err(unsupported)));
    }

    #[test]
    fn a_failure_is_reported_with_reason_remedy_and_the_servers_words() {
        let content = b"Subject: x\r\n\r\nbody\r\n";
        let mut message = envelope(&["a@example.org", "b@example.org"]);
        message.size_bytes = content.len() as u64;
        let it = settled(
            &message,
            &delivery(
                at(1),
                vec![
                    refused(Stage::Recipient, "550 5.1.1 no such user\nreally"),
                    taken(),
                ],
            ),
        );
        let [report] = &it.reports[..] else {
            panic!("{:?}", it.reports)
        };
        let (envelope, written) = report.compose(&it.envelope, content, &way());
        let text = String::from_utf8(written).unwrap();
        for words in [
            "To: <jan@example.nl>\r\n",
            "Reason: the recipient does not exist.",
            "What to do: ",
            "    550 5.1.1 no such user\r\n",
            "Final-Recipient: rfc822; a@example.org",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user really",
            "Remote-MTA: dns; mx.relay.example\r\n",
            "body",
        ] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
        assert!(!text.contains("b@example.org"), "{text}");
        assert_eq!(envelope.reverse_path, ReversePath::Null);
        assert_eq!(envelope.relay, "carerix");
        assert_eq!(envelope.recipients.len(), 1);
        assert_eq!(envelope.recipients[0].path.to_string(), "jan@example.nl");
    }

    #[test]
    fn what_expired_is_not_said_to_be_tried_again() {
        let later = |words| delivery(at(0), vec![refused(Stage::Recipient, words)]);
        for words in [
            "450 no",
            "451 4.3.0 no",
            "450 4.7.1 Greylisted",
            "451 Please try again later.",
            "452 4.3.1 Insufficient system storage",
        ] {
            let mut message = envelope(&["a@example.org"]);
            message = settled(&message, &later(words)).envelope;
            message.first_failure = Some(at(-4 * 1440));
            message.attempts = 50;
            message.warned = true;
            let it = settled(&message, &later(words));
            let (_, written) = it.reports[0].compose(&it.envelope, b"x: y\r\n\r\n", &way());
            let text = String::from_utf8(written).unwrap();
            assert!(text.contains("It will not be tried again."), "{text}");
            assert!(!text.contains("Penstock does"), "{text}");
            assert!(!text.contains("Penstock tries"), "{text}");
            assert!(!text.contains("Nothing needs"), "{text}");
        }
    }

    #[test]
    fn notify_decides_and_a_null_reverse_path_gets_nothing() {
        let failed = || delivery(at(1), vec![refused(Stage::Recipient, "550 5.1.1 no")]);
        for (notify, reports) in [
            (Notify::Unspecified, 1),
            (Notify::Never, 0),
            (
                Notify::On {
                    success: true,
                    failure: false,
                    delay: true,
                },
                0,
            ),
            (
                Notify::On {
                    success: false,
                    failure: true,
                    delay: false,
                },
                1,
            ),
        ] {
            let mut message = envelope(&["a@example.org"]);
            message.recipients[0].notify = notify;
            assert_eq!(
                settled(&message, &failed()).reports.len(),
                reports,
                "{notify:?}"
            );
        }
        let mut message = envelope(&["a@example.org"]);
        message.reverse_path = ReversePath::Null;
        assert!(settled(&message, &failed()).reports.is_empty());
    }

    #[test]
    fn success_is_reported_as_relayed_unless_the_relay_reports_itself() {
        let mut message = envelope(&["a@example.org"]);
        message.recipients[0].notify = Notify::On {
            success: true,
            failure: true,
            delay: false,
        };
        message.ret = Some(Ret::Full);
        let mut done = delivery(at(1), vec![taken()]);
        let it = settled(&message, &done);
        assert_eq!(it.reports[0].kind, ReportKind::Relayed);
        let content = b"Subject: x\r\n\r\nbody\r\n";
        let (_, written) = it.reports[0].compose(&it.envelope, content, &way());
        let text = String::from_utf8(written).unwrap();
        assert!(text.contains("Action: relayed\r\nStatus: 2.0.0"), "{text}");
        assert!(!text.contains("body"), "RET speaks of failures only");
        done.dsn_passed_on = true;
        assert!(settled(&message, &done).reports.is_empty());
    }

    #[test]
    fn large_contents_and_ret_hdrs_return_the_header_alone() {
        let mut content = b"Subject: x\r\n\r\n".to_vec();
        content.extend_from_slice(&b"body\r\n".repeat(20_000));
        let mut message = envelope(&["a@example.org"]);
        message.size_bytes = content.len() as u64;
        let failed = delivery(at(1), vec![refused(Stage::Recipient, "550 5.1.1 no")]);
        let it = settled(&message, &failed);
        let (_, written) = it.reports[0].compose(&it.envelope, &content, &way());
        assert!(written.len() < 5_000);
        let small = b"Subject: x\r\n\r\nbody\r\n";
        message.size_bytes = small.len() as u64;
        message.ret = Some(Ret::Headers);
        let it = settled(&message, &failed);
        let (_, written) = it.reports[0].compose(&it.envelope, small, &way());
        assert!(!String::from_utf8(written).unwrap().contains("body"));
    }
}
