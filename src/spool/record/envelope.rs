//! The written form of an envelope.

use serde::{Deserialize, Serialize};

use crate::mail::{
    Body, Diagnostic, Envelope, ForwardPath, Hold, HoldReason, Mailbox, Mailing, Notify, Origin,
    Past, PastEvent, QueueId, Recipient, RecipientStatus, Ret, ReversePath, Rule, Stage, State,
};

use super::{RecordError, malformed, time};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct EnvelopeForm {
    id: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    origin: OriginForm,
    accepted: i64,
    /// Empty: the null reverse-path.
    reverse_path: String,
    from: String,
    rule: RuleForm,
    relay: String,
    mailing: String,
    #[serde(default, skip_serializing_if = "is_default")]
    label: String,
    #[serde(default, skip_serializing_if = "is_default")]
    login: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    client: String,
    #[serde(default, skip_serializing_if = "is_default")]
    message_id: String,
    #[serde(default, skip_serializing_if = "is_default")]
    eight_bit: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    smtputf8: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    ret: Option<RetForm>,
    #[serde(default, skip_serializing_if = "is_default")]
    envid: Option<String>,
    size: u64,
    wire: u64,
    recipients: Vec<RecipientForm>,
    #[serde(default, skip_serializing_if = "is_default")]
    not_before: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<HoldForm>,
    #[serde(default, skip_serializing_if = "is_default")]
    attempts: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    first_failure: Option<i64>,
    #[serde(default, skip_serializing_if = "is_default")]
    warned: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    past: Vec<PastForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PastForm {
    at: i64,
    event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<DiagnosticForm>,
    #[serde(default, skip_serializing_if = "is_default")]
    note: String,
    /// Left out of a record of 0.1.0's first builds, and skipped by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<RuleForm>,
}

impl From<&Past> for PastForm {
    fn from(it: &Past) -> Self {
        Self {
            at: it.at.as_millisecond(),
            event: it.event.name().to_owned(),
            recipient: it.recipient,
            said: it.said.as_ref().map(DiagnosticForm::from),
            note: it.note.clone(),
            rule: it.rule.as_ref().map(RuleForm::from),
        }
    }
}

impl PastForm {
    /// None for an event of a later version: it is only left out of the trace.
    fn into_past(self) -> Result<Option<Past>, RecordError> {
        let Some(event) = PastEvent::from_name(&self.event) else {
            return Ok(None);
        };
        Ok(Some(Past {
            at: time(self.at)?,
            event,
            recipient: self.recipient,
            said: self.said.map(DiagnosticForm::into_diagnostic).transpose()?,
            note: self.note,
            rule: self.rule.map(RuleForm::into_rule),
        }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RecipientForm {
    path: String,
    #[serde(default, skip_serializing_if = "is_default")]
    notify: NotifyForm,
    #[serde(default, skip_serializing_if = "is_default")]
    orcpt: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    status: StatusForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<DiagnosticForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DiagnosticForm {
    at: i64,
    stage: String,
    #[serde(default, skip_serializing_if = "is_default")]
    server: String,
    #[serde(default, skip_serializing_if = "is_default")]
    code: Option<u16>,
    #[serde(default, skip_serializing_if = "is_default")]
    enhanced: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    text: String,
    #[serde(default, skip_serializing_if = "is_default")]
    in_doubt: bool,
}

#[derive(Serialize, Deserialize)]
struct HoldForm {
    reason: String,
    by: String,
    since: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    note: String,
}

#[derive(Serialize, Deserialize, Default, PartialEq, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum OriginForm {
    #[default]
    Submission,
    Report,
    Warning,
    Verification,
    Alarm,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RuleForm {
    Address(String),
    WithoutTag(String),
    Domain(String),
    Default,
    Own,
    Unverified(String),
    Rerouted,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum RetForm {
    Full,
    Headers,
}

#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum NotifyForm {
    #[default]
    Unspecified,
    Never,
    /// Success, failure, delay.
    On(bool, bool, bool),
}

#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum StatusForm {
    #[default]
    Waiting,
    Delivered,
    Failed,
    Expired,
    Deleted,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<&Envelope> for EnvelopeForm {
    fn from(it: &Envelope) -> Self {
        let (not_before, held) = match &it.state {
            State::Waiting { not_before } => (*not_before, None),
            State::Held(hold) => (None, Some(HoldForm::from(hold))),
        };
        Self {
            id: it.id.number(),
            origin: match it.origin {
                Origin::Submission => OriginForm::Submission,
                Origin::Report => OriginForm::Report,
                Origin::Warning => OriginForm::Warning,
                Origin::Verification => OriginForm::Verification,
                Origin::Alarm => OriginForm::Alarm,
            },
            accepted: it.accepted.as_millisecond(),
            reverse_path: it.reverse_path.to_string(),
            from: it.from.to_string(),
            rule: RuleForm::from(&it.rule),
            relay: it.relay.clone(),
            mailing: it.mailing.key.clone(),
            label: it.mailing.label.clone(),
            login: it.login.clone(),
            client: it.client.clone(),
            message_id: it.message_id.clone(),
            eight_bit: it.body == Body::EightBitMime,
            smtputf8: it.smtputf8,
            ret: it.ret.map(|it| match it {
                Ret::Full => RetForm::Full,
                Ret::Headers => RetForm::Headers,
            }),
            envid: it.envid.clone(),
            size: it.size_bytes,
            wire: it.wire_bytes,
            recipients: it.recipients.iter().map(RecipientForm::from).collect(),
            not_before: not_before.map(|it| it.as_millisecond()),
            held,
            attempts: it.attempts,
            first_failure: it.first_failure.map(|it| it.as_millisecond()),
            warned: it.warned,
            past: it.past.iter().map(PastForm::from).collect(),
        }
    }
}

impl EnvelopeForm {
    pub(super) fn into_envelope(self) -> Result<Envelope, RecordError> {
        let state = match self.held {
            Some(hold) => State::Held(hold.into_hold()?),
            None => State::Waiting {
                not_before: self.not_before.map(time).transpose()?,
            },
        };
        let recipients = self.recipients.into_iter();
        let recipients: Vec<Recipient> = recipients
            .map(RecipientForm::into_recipient)
            .collect::<Result<_, _>>()?;
        let past = self.past.into_iter().map(PastForm::into_past);
        let past: Vec<Option<Past>> = past.collect::<Result<_, _>>()?;
        let past = past.into_iter().flatten().collect();
        if recipients.is_empty() {
            return Err(malformed("no recipients"));
        }
        Ok(Envelope {
            id: QueueId::from_number(self.id),
            origin: match self.origin {
                OriginForm::Submission => Origin::Submission,
                OriginForm::Report => Origin::Report,
                OriginForm::Warning => Origin::Warning,
                OriginForm::Verification => Origin::Verification,
                OriginForm::Alarm => Origin::Alarm,
            },
            accepted: time(self.accepted)?,
            reverse_path: ReversePath::parse(&self.reverse_path)
                .map_err(|_| malformed("reverse-path"))?,
            from: Mailbox::parse(&self.from).map_err(|_| malformed("from"))?,
            rule: self.rule.into_rule(),
            relay: self.relay,
            mailing: Mailing {
                key: self.mailing,
                label: self.label,
            },
            login: self.login,
            client: self.client,
            message_id: self.message_id,
            body: if self.eight_bit {
                Body::EightBitMime
            } else {
                Body::SevenBit
            },
            smtputf8: self.smtputf8,
            ret: self.ret.map(|it| match it {
                RetForm::Full => Ret::Full,
                RetForm::Headers => Ret::Headers,
            }),
            envid: self.envid,
            size_bytes: self.size,
            wire_bytes: self.wire,
            recipients,
            state,
            attempts: self.attempts,
            first_failure: self.first_failure.map(time).transpose()?,
            warned: self.warned,
            past,
        })
    }
}

impl From<&Recipient> for RecipientForm {
    fn from(it: &Recipient) -> Self {
        Self {
            path: it.path.to_string(),
            notify: match it.notify {
                Notify::Unspecified => NotifyForm::Unspecified,
                Notify::Never => NotifyForm::Never,
                Notify::On {
                    success,
                    failure,
                    delay,
                } => NotifyForm::On(success, failure, delay),
            },
            orcpt: it.orcpt.clone(),
            status: match it.status {
                RecipientStatus::Waiting => StatusForm::Waiting,
                RecipientStatus::Delivered => StatusForm::Delivered,
                RecipientStatus::Failed => StatusForm::Failed,
                RecipientStatus::Expired => StatusForm::Expired,
                RecipientStatus::Deleted => StatusForm::Deleted,
            },
            last: it.last.as_ref().map(DiagnosticForm::from),
        }
    }
}

impl RecipientForm {
    fn into_recipient(self) -> Result<Recipient, RecordError> {
        Ok(Recipient {
            path: ForwardPath::parse(&self.path).map_err(|_| malformed("forward-path"))?,
            notify: match self.notify {
                NotifyForm::Unspecified => Notify::Unspecified,
                NotifyForm::Never => Notify::Never,
                NotifyForm::On(success, failure, delay) => Notify::On {
                    success,
                    failure,
                    delay,
                },
            },
            orcpt: self.orcpt,
            status: match self.status {
                StatusForm::Waiting => RecipientStatus::Waiting,
                StatusForm::Delivered => RecipientStatus::Delivered,
                StatusForm::Failed => RecipientStatus::Failed,
                StatusForm::Expired => RecipientStatus::Expired,
                StatusForm::Deleted => RecipientStatus::Deleted,
            },
            last: self.last.map(DiagnosticForm::into_diagnostic).transpose()?,
        })
    }
}

impl From<&Diagnostic> for DiagnosticForm {
    fn from(it: &Diagnostic) -> Self {
        Self {
            at: it.at.as_millisecond(),
            stage: it.stage.name().to_owned(),
            server: it.server.clone(),
            code: it.code,
            enhanced: it.enhanced.map(|it| it.to_string()),
            text: it.text.clone(),
            in_doubt: it.in_doubt,
        }
    }
}

impl DiagnosticForm {
    fn into_diagnostic(self) -> Result<Diagnostic, RecordError> {
        Ok(Diagnostic {
            at: time(self.at)?,
            stage: Stage::from_name(&self.stage).ok_or_else(|| malformed("stage"))?,
            server: self.server,
            code: self.code,
            // A relay's status is kept as it was read; one that reads no longer is
            // not worth a message.
            enhanced: self.enhanced.and_then(|it| it.parse().ok()),
            text: self.text,
            in_doubt: self.in_doubt,
        })
    }
}

impl From<&Hold> for HoldForm {
    fn from(it: &Hold) -> Self {
        Self {
            reason: it.reason.name().to_owned(),
            by: it.by.clone(),
            since: it.since.as_millisecond(),
            note: it.note.clone(),
        }
    }
}

impl HoldForm {
    fn into_hold(self) -> Result<Hold, RecordError> {
        Ok(Hold {
            reason: HoldReason::from_name(&self.reason).ok_or_else(|| malformed("hold"))?,
            by: self.by,
            since: time(self.since)?,
            note: self.note,
        })
    }
}

impl From<&Rule> for RuleForm {
    fn from(it: &Rule) -> Self {
        match it.clone() {
            Rule::Address(it) => Self::Address(it),
            Rule::WithoutTag(it) => Self::WithoutTag(it),
            Rule::Domain(it) => Self::Domain(it),
            Rule::Default => Self::Default,
            Rule::Own => Self::Own,
            Rule::Unverified(it) => Self::Unverified(it),
            Rule::Rerouted => Self::Rerouted,
        }
    }
}

impl RuleForm {
    fn into_rule(self) -> Rule {
        match self {
            Self::Address(it) => Rule::Address(it),
            Self::WithoutTag(it) => Rule::WithoutTag(it),
            Self::Domain(it) => Rule::Domain(it),
            Self::Default => Rule::Default,
            Self::Own => Rule::Own,
            Self::Unverified(it) => Rule::Unverified(it),
            Self::Rerouted => Rule::Rerouted,
        }
    }
}
