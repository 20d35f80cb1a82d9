//! What can be seen of the spool with the daemon stopped. Nothing is changed.

use std::io::Read;

use super::beside::aside;
use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::queue::List;
use super::show::{self, Sink};
use super::trace;
use crate::control;
use crate::control::client::ClientError;
use crate::control::describe::{self, Meaning, Situation};
use crate::control::protocol::{Filter, TraceRequest};
use crate::control::trace::End;
use crate::mail::{Diagnostic, Envelope, Mailbox, QueueId};
use crate::outcome::{Rules, classify_again};
use crate::spool::{self, Lookup, Offline, SpoolError};

/// The spool of a daemon that does not run; `none` is how asking it failed.
pub fn open(context: &Context, none: ClientError) -> Result<Offline, Trouble> {
    let path = match context.state_directory() {
        Ok(path) => path,
        Err(why) => return Err(Trouble::from(none).and(why)),
    };
    let shown = path.display();
    match Offline::open(&path) {
        Ok(spool) => {
            aside(format!(
                "penstock: penstockd does not run; this is what {shown} holds"
            ));
            if spool.damaged_records() > 0 {
                let many = spool.damaged_records();
                aside(format!(
                    "penstock: damaged records that were passed over: {many}"
                ));
            }
            Ok(spool)
        }
        Err(SpoolError::InUse { .. }) => Err(Trouble::no_daemon(format!(
            "{none}\nbut {shown} is in use: it may be starting or stopping, or listen on another socket (--socket)"
        ))),
        Err(error) => {
            let trouble = Trouble::from(none);
            let cause = std::error::Error::source(&error).map(|it| format!(": {it}"));
            Err(trouble.and(format!(
                "nor can its spool be read: {error}{}",
                cause.unwrap_or_default()
            )))
        }
    }
}

/// Lists what waits.
pub fn queue(
    context: &mut Context,
    spool: &Offline,
    filter: &Filter,
    limit: Option<u64>,
) -> Outcome {
    let now = context.screen.look.words.now;
    let mut left = limit.unwrap_or(u64::MAX);
    let mut list = List::default();
    for envelope in spool.list(&spool::Filter::default()) {
        let envelope = envelope?;
        let situation = situation(&envelope, context);
        if left == 0 {
            break;
        }
        if describe::chooses(filter, &envelope, situation.state, now) {
            left -= 1;
            list.row(context, &describe::summary(&envelope, situation))?;
        }
    }
    list.end(context, filter)
}

/// Shows everything about a message but its content.
pub fn show(context: &mut Context, spool: &Offline, id: &str) -> Outcome {
    let envelope = spool.envelope(parsed(id)?)?.ok_or_else(|| not_here(id))?;
    let situation = situation(&envelope, context);
    // Whoever may read the spool and not the rules is answered by those that are ours.
    let rules = Rules::beside(context.config_path());
    let rules = rules.unwrap_or_else(|_| Rules::compiled_in().clone());
    let meaning = |said: &Diagnostic| meaning(&rules, said);
    show::print(context, &describe::detail(&envelope, situation, &meaning))
}

/// Writes the content of a message.
pub fn cat(context: &mut Context, spool: &Offline, id: &str) -> Outcome {
    let mut content = spool.content(parsed(id)?)?.ok_or_else(|| not_here(id))?;
    let mut sink = Sink::standard();
    let mut piece = vec![0; 48 * 1024];
    loop {
        match content.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => sink.write(context, &piece[..length])?,
            Err(error) => return Err(Trouble::failed(format!("cannot read {id}: {error}"))),
        }
    }
}

/// Shows what happened, oldest message first.
pub fn trace(context: &mut Context, spool: &Offline, request: &TraceRequest) -> Outcome {
    let lookup = match (&request.id, &request.address, &request.message_id) {
        (Some(id), ..) => Lookup::Id(parsed(id)?),
        (_, Some(address), _) => Lookup::Address(
            Mailbox::parse(address).map_err(|error| Trouble::usage(error.to_string()))?,
        ),
        (.., message_id) => Lookup::MessageId(message_id.clone().unwrap_or_default()),
    };
    let limit = control::trace::limit(request.limit);
    let finished = spool.history(&lookup, limit)?;
    let mut waiting = Vec::new();
    for envelope in spool.list(&spool::Filter::default()) {
        let envelope = envelope?;
        if lookup.matches(&envelope) {
            waiting.push(envelope);
        }
    }
    let ended = finished.iter().map(|it| {
        let end = End {
            at: it.at,
            by: &it.by,
        };
        (&it.envelope, Some(end))
    });
    let told = ended.chain(waiting.iter().map(|it| (it, None))).collect();
    let mut shown = trace::Shown::default();
    for event in control::trace::events(told, limit) {
        trace::print(context, &event, &mut shown)?;
    }
    trace::end(&shown, request.limit)
}

fn parsed(id: &str) -> Result<QueueId, Trouble> {
    id.parse()
        .map_err(|error: crate::mail::queue_id::NotAQueueId| Trouble::usage(error.to_string()))
}

fn not_here(id: &str) -> Trouble {
    Trouble::failed(format!(
        "{id} does not wait here; penstock trace {id} tells what became of it"
    ))
}

/// Nothing leaves while the daemon is stopped, and that is why everything else waits.
fn situation(envelope: &Envelope, context: &Context) -> Situation {
    let mut situation = Situation::of(envelope, context.screen.look.words.now);
    if situation.why == "unknown" {
        situation.why = "stopped".into();
        situation.text = "penstockd is stopped".into();
    }
    situation
}

fn meaning(rules: &Rules, said: &Diagnostic) -> Option<Meaning> {
    if said.code.is_some_and(|code| (200..300).contains(&code)) {
        return None;
    }
    let finding = classify_again(rules, said);
    Some(Meaning {
        class: finding.class.name().into(),
        remedy: finding.remedy,
    })
}

impl From<SpoolError> for Trouble {
    fn from(error: SpoolError) -> Self {
        let cause = std::error::Error::source(&error).map(|it| format!(": {it}"));
        Self::failed(format!("{error}{}", cause.unwrap_or_default()))
    }
}
