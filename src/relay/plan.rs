//! What is said to a server about one message, given what it offers (pure).
//!
//! Nothing that was not offered is ever sent.

use std::collections::BTreeSet;

use super::{Job, RelayError};
use crate::config::ReversePathRule;
use crate::mail::{Body, Domain, ForwardPath, Mailbox, Notify, ReversePath};
use crate::smtp::{Extensions, MailCommand, RecipientCommand};

/// RFC 3461 sections 4.2 and 4.4: encoded, longer ones are dropped rather than refused.
const ORCPT_MAXIMUM: usize = 500;
const ENVID_MAXIMUM: usize = 100;

/// The commands of one transaction.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// MAIL, without CRLF.
    pub(super) mail: String,
    /// RCPT for each recipient that can be named to this server.
    pub(super) recipients: Vec<Named>,
    /// The others, and why.
    pub(super) refused: Vec<(usize, RelayError)>,
    /// Send it by BDAT.
    pub(super) chunking: bool,
    /// The wishes for reports are passed on.
    pub(super) dsn: bool,
}

/// A recipient and its command.
#[derive(Debug, PartialEq)]
pub(super) struct Named {
    /// Its place in the envelope.
    pub(super) recipient: usize,
    /// RCPT, without CRLF.
    pub(super) line: String,
    /// Its domain, for RCPTDOMAINMAX.
    pub(super) domain: Option<String>,
}

/// Plans the transaction, or says why no recipient can get the message here.
///
/// `eight_bit`: the content really has octets above 127.
pub(super) fn plan(job: &Job, offered: &Extensions, eight_bit: bool) -> Result<Plan, RelayError> {
    let envelope = &job.envelope;
    if let Some(Some(limit_bytes)) = offered.size
        && envelope.size_bytes > limit_bytes
    {
        return Err(RelayError::TooLarge {
            size_bytes: envelope.size_bytes,
            limit_bytes,
        });
    }
    if eight_bit && !offered.eight_bit_mime {
        return Err(RelayError::Unsupported { what: "8BITMIME" });
    }
    let reverse_path = reverse_path(job);
    let needs_utf8 = |it: &Mailbox| !it.local().is_ascii();
    let smtputf8 = offered.smtputf8
        && (envelope.smtputf8
            || reverse_path.mailbox().is_some_and(needs_utf8)
            || job
                .recipients
                .iter()
                .filter_map(|it| envelope.recipients.get(*it)?.path.mailbox())
                .any(needs_utf8));
    let mut mail = MailCommand::new(match &reverse_path {
        ReversePath::Null => ReversePath::Null,
        ReversePath::Mailbox(mailbox) => ReversePath::Mailbox(fitting(mailbox, smtputf8)?),
    });
    mail.smtputf8 = smtputf8;
    mail.size = offered.size.map(|_| envelope.size_bytes);
    mail.body = (eight_bit && offered.eight_bit_mime).then_some(Body::EightBitMime);
    if offered.dsn {
        mail.ret = envelope.ret;
        mail.envid = envelope
            .envid
            .clone()
            .filter(|it| crate::mail::xtext::encode(it).len() <= ENVID_MAXIMUM);
    }
    let mut recipients = Vec::new();
    let mut refused = Vec::new();
    let mut domains = BTreeSet::new();
    for place in &job.recipients {
        let Some(recipient) = envelope.recipients.get(*place) else {
            continue;
        };
        let forward_path = match &recipient.path {
            ForwardPath::Postmaster => ForwardPath::Postmaster,
            ForwardPath::Mailbox(mailbox) => match fitting(mailbox, smtputf8) {
                Ok(mailbox) => ForwardPath::Mailbox(mailbox),
                Err(error) => {
                    refused.push((*place, error));
                    continue;
                }
            },
        };
        // RFC 9422 section 4: those beyond the limits have their turn another time.
        let domain = forward_path
            .mailbox()
            .map(|it| it.domain().ascii().to_owned());
        let full = |limit: Option<u32>, used: usize| limit.is_some_and(|it| used >= it as usize);
        let another = domain.as_ref().is_some_and(|it| !domains.contains(it));
        let beyond = full(offered.limits.recipients, recipients.len())
            || another && full(offered.limits.recipient_domains, domains.len());
        // One goes at any rate, or it would be tried without end.
        if beyond && !recipients.is_empty() {
            refused.push((*place, RelayError::Cancelled));
            continue;
        }
        domains.extend(domain.clone());
        let mut command = RecipientCommand::new(forward_path);
        if offered.dsn {
            command.notify = recipient.notify;
            command.orcpt = recipient.orcpt.clone();
            let mut alone = command.clone();
            alone.notify = Notify::Unspecified;
            let bare = RecipientCommand::new(command.forward_path.clone());
            if alone.to_string().len() - bare.to_string().len() > ORCPT_MAXIMUM + " ORCPT=".len() {
                command.orcpt = None;
            }
        }
        recipients.push(Named {
            recipient: *place,
            line: command.to_string(),
            domain,
        });
    }
    Ok(Plan {
        mail: mail.to_string(),
        recipients,
        refused,
        chunking: offered.chunking,
        dsn: offered.dsn,
    })
}

/// What MAIL FROM becomes. A null reverse-path stays null: anything else would let two
/// servers report to each other for ever (RFC 5321 section 4.5.5).
fn reverse_path(job: &Job) -> ReversePath {
    let said = &job.envelope.reverse_path;
    match (&job.relay.reverse_path, said) {
        (_, ReversePath::Null) => ReversePath::Null,
        (ReversePathRule::Keep, _) => said.clone(),
        (ReversePathRule::From, _) => ReversePath::Mailbox(job.envelope.from.clone()),
        (ReversePathRule::Fixed(mailbox), _) => ReversePath::Mailbox(mailbox.clone()),
    }
}

/// The address as this server can take it: without SMTPUTF8 a domain becomes A-labels,
/// and a local part beyond ASCII is the end (RFC 6531 section 3.2, RFC 5891 section 4.4).
fn fitting(mailbox: &Mailbox, smtputf8: bool) -> Result<Mailbox, RelayError> {
    let unsupported = RelayError::Unsupported { what: "SMTPUTF8" };
    if smtputf8 || mailbox.is_ascii() {
        return Ok(mailbox.clone());
    }
    if !mailbox.local().is_ascii() {
        return Err(unsupported);
    }
    Domain::parse(mailbox.domain().ascii())
        .and_then(|domain| Mailbox::new(mailbox.local(), domain))
        .map_err(|_| unsupported)
}
