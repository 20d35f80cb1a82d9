//! `trace`: what became of a message, waiting or finished.

use clap::Args;

use super::beside::aside;
use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::offline;
use super::screen::{Look, Tone};
use crate::control::client::ClientError;
use crate::control::protocol::{Item, Request, TraceEvent, TraceRequest};
use crate::control::trace::{MOST, USUAL_LIMIT, limit};
use crate::mail::{Mailbox, QueueId};

/// Options of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A queue id, an address (as sender or recipient), or a <Message-ID>
    #[arg(value_name = "ID|ADDRESS|<MESSAGE-ID>", value_parser = target)]
    target: TraceRequest,
    /// The latest so many messages, at most 10,000 [default: 1000]
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Reads what to look for.
fn target(text: &str) -> Result<TraceRequest, String> {
    if let Ok(id) = text.parse::<QueueId>() {
        return Ok(TraceRequest {
            id: Some(id.to_string()),
            ..Default::default()
        });
    }
    if let Some(inside) = text.strip_prefix('<').and_then(|it| it.strip_suffix('>')) {
        return Ok(TraceRequest {
            message_id: Some(inside.into()),
            ..Default::default()
        });
    }
    match Mailbox::parse(text) {
        Ok(mailbox) => Ok(TraceRequest {
            address: Some(mailbox.to_string()),
            ..Default::default()
        }),
        Err(error) => Err(format!(
            "neither a queue id, nor an address ({error}), nor a <Message-ID>"
        )),
    }
}

/// Shows what happened, oldest first.
pub fn trace(context: &mut Context, args: TraceArgs) -> Outcome {
    let request = TraceRequest {
        limit: args.limit,
        ..args.target
    };
    let answer = match context.ask(&Request::Trace(request.clone())) {
        Err(none @ ClientError::NoDaemon { .. }) => {
            let spool = offline::open(context, none)?;
            return offline::trace(context, &spool, &request);
        }
        answer => answer?,
    };
    let mut shown = Shown::default();
    for item in answer {
        if let Item::Event(event) = item? {
            print(context, &event, &mut shown)?;
        }
    }
    end(&shown, args.limit)
}

/// What was written so far.
#[derive(Debug, Default)]
pub struct Shown {
    messages: usize,
    last_id: String,
}

/// Writes one event; the message it happened to is named once.
pub fn print(context: &mut Context, event: &TraceEvent, shown: &mut Shown) -> Outcome {
    let screen = &mut context.screen;
    let new = shown.last_id != event.id;
    if new {
        shown.last_id.clone_from(&event.id);
        shown.messages += 1;
    }
    if screen.look.json {
        return Ok(screen.json(event)?);
    }
    for line in lines(&screen.look, event, new) {
        screen.line(line)?;
    }
    Ok(())
}

/// Says when there may be more; fails when nothing was found.
pub fn end(shown: &Shown, asked: Option<u64>) -> Outcome {
    if shown.messages == 0 {
        return Err(Trouble::failed(
            "nothing known; finished mail is remembered for 7 days",
        ));
    }
    if let Some(words) = cut_short(shown.messages, asked) {
        aside(words);
    }
    Ok(())
}

/// What to say when the limit was reached that nobody asked for.
fn cut_short(messages: usize, asked: Option<u64>) -> Option<String> {
    let most = limit(asked);
    let reached = messages >= most && asked.is_none_or(|it| it > MOST);
    reached.then(|| match asked {
        None => format!("the latest {USUAL_LIMIT} messages; -n for more"),
        Some(_) => format!("the latest {MOST} messages, and no more at once"),
    })
}

fn lines(look: &Look, event: &TraceEvent, new: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if new {
        lines.push(format!(
            "{}  {}  via {}",
            look.tone(Tone::Strong, &event.id),
            look.fit(&event.from, look.width.saturating_sub(40)),
            look.fit(&event.relay, 20),
        ));
    }
    let tone = match event.event.as_str() {
        "delivered" => Tone::Good,
        "failed" | "expired" => Tone::Bad,
        "deferred" | "held" | "in-doubt" => Tone::Warning,
        _ => Tone::Faint,
    };
    let to = event
        .to
        .as_ref()
        .map(|it| format!("  {}", look.fit(it, 50)));
    lines.push(format!(
        "  {}  {}{}",
        look.words.precise(event.at),
        look.tone(tone, &event.event),
        to.unwrap_or_default(),
    ));
    let code = event.code.map(|it| it.to_string());
    let server = event.server.as_ref().map(|it| format!("{it}:"));
    let words: Vec<&str> = [
        server.as_deref(),
        code.as_deref(),
        event.enhanced.as_deref(),
        Some(event.text.as_str()),
    ]
    .into_iter()
    .flatten()
    .filter(|it| !it.is_empty())
    .collect();
    if !words.is_empty() {
        lines.extend(look.wrap(&words.join(" "), 6));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::tests::look;

    #[test]
    fn a_target_is_an_id_an_address_or_a_message_id() {
        assert_eq!(
            target("1K9XW3Q5G0000").unwrap().id.as_deref(),
            Some("1k9xw3q5g0000")
        );
        assert_eq!(
            target("jan@uwdomein.nl").unwrap().address.as_deref(),
            Some("jan@uwdomein.nl")
        );
        assert_eq!(target("<a@b>").unwrap().message_id.as_deref(), Some("a@b"));
        assert!(target("jan").is_err());
    }

    #[test]
    fn who_did_not_say_how_many_is_told_that_there_may_be_more() {
        assert_eq!(cut_short(999, None), None);
        assert_eq!(
            cut_short(1_000, None).unwrap(),
            "the latest 1000 messages; -n for more"
        );
        assert_eq!(cut_short(5, Some(5)), None);
        assert!(cut_short(10_000, Some(20_000)).is_some());
    }

    #[test]
    fn an_event_says_when_what_to_whom_and_in_whose_words() {
        let event = TraceEvent {
            id: "1k9xw3q5g0000".into(),
            at: "2026-11-21T13:01:15Z".parse().unwrap(),
            event: "delivered".into(),
            from: "jan@uwdomein.nl".into(),
            to: Some("bob@example.net".into()),
            relay: "own".into(),
            server: Some("smtp.uwdomein.nl".into()),
            code: Some(250),
            enhanced: Some("2.0.0".into()),
            text: "ok".into(),
            size_bytes: 4096,
            message_id: String::new(),
        };
        assert_eq!(
            lines(&look(), &event, true),
            [
                "1k9xw3q5g0000  jan@uwdomein.nl  via own",
                "  14:01:15  delivered  bob@example.net",
                "      smtp.uwdomein.nl: 250 2.0.0 ok",
            ]
        );
        assert_eq!(lines(&look(), &event, false).len(), 2);
    }
}
