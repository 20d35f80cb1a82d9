//! `show` and `cat`: one message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::filter::queue_id;
use super::offline;
use super::queue::tone;
use super::screen::{Look, Tone};
use super::words::size;
use crate::control::client::ClientError;
use crate::control::protocol::{Item, MessageDetail, RecipientDetail, Request, Said};
use crate::mail::text::steers;

/// A message by its id.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// Its queue id
    #[arg(value_name = "ID", value_parser = queue_id)]
    id: String,
}

/// Shows everything about a message but its content.
pub fn show(context: &mut Context, args: OneArgs) -> Outcome {
    let id = args.id;
    match context.ask(&Request::Show { id: id.clone() }) {
        Err(none @ ClientError::NoDaemon { .. }) => {
            let spool = offline::open(context, none)?;
            offline::show(context, &spool, &id)
        }
        answer => {
            for item in answer? {
                if let Item::Detail(detail) = item? {
                    print(context, &detail)?;
                }
            }
            Ok(())
        }
    }
}

/// Writes everything about a message but its content.
pub fn print(context: &mut Context, detail: &MessageDetail) -> Outcome {
    let screen = &mut context.screen;
    if screen.look.json {
        return Ok(screen.json(detail)?);
    }
    for line in lines(&screen.look, detail) {
        screen.line(line)?;
    }
    Ok(())
}

/// Writes the content of a message, as it is sent.
pub fn cat(context: &mut Context, args: OneArgs) -> Outcome {
    let id = args.id;
    let answer = match context.ask(&Request::Cat { id: id.clone() }) {
        Err(none @ ClientError::NoDaemon { .. }) => {
            let spool = offline::open(context, none)?;
            return offline::cat(context, &spool, &id);
        }
        answer => answer?,
    };
    let mut sink = Sink::standard();
    for item in answer {
        if let Item::Content(piece) = item? {
            let octets = STANDARD
                .decode(&piece.base64)
                .map_err(|error| Trouble::failed(format!("penstockd sent no base 64: {error}")))?;
            sink.write(context, &octets)?;
        }
    }
    Ok(())
}

/// Where content goes: a file gets its octets, a terminal nothing that steers it.
pub struct Sink {
    terminal: bool,
}

impl Sink {
    /// Standard output.
    pub fn standard() -> Self {
        use std::io::IsTerminal;
        Self {
            terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Writes a piece.
    pub fn write(&mut self, context: &mut Context, octets: &[u8]) -> Outcome {
        if self.terminal {
            return Ok(context.screen.raw(harmless(octets).as_bytes())?);
        }
        Ok(context.screen.raw(octets)?)
    }
}

/// The text with everything escaped that a terminal would obey; a letter that a piece cuts
/// in two shows as two replacement characters, which a terminal can bear.
fn harmless(octets: &[u8]) -> String {
    let mut shown = String::with_capacity(octets.len());
    for letter in String::from_utf8_lossy(octets).chars() {
        match letter {
            '\r' => {}
            '\n' | '\t' => shown.push(letter),
            letter if steers(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// The label of a line stands in this many columns.
const LABEL: usize = 14;

fn lines(look: &Look, detail: &MessageDetail) -> Vec<String> {
    let summary = &detail.summary;
    let words = &look.words;
    let mut lines = Vec::new();
    let state = look.tone(tone(summary.state), summary.state.name());
    let next = summary.next.map(|at| format!(", next {}", words.both(at)));
    lines.push(format!(
        "{}  {state}{}",
        look.tone(Tone::Strong, &summary.id),
        next.unwrap_or_default()
    ));
    let mut say = |label: &str, text: &str| {
        let mut wrapped = look.wrap(text, LABEL).into_iter();
        let first = wrapped.next().unwrap_or_default();
        lines.push(format!(
            "{}{}",
            look.tone(Tone::Faint, &format!("{label:<LABEL$}")),
            first.trim_start()
        ));
        lines.extend(wrapped);
    };
    say("why", &format!("{} ({})", summary.why_text, summary.why));
    if let Some(hold) = &detail.hold {
        say(
            "held",
            &format!("by {} since {}", hold.by, words.both(hold.since)),
        );
    }
    say("from", &summary.from);
    match detail.reverse_path.as_str() {
        "" => say("reverse-path", "<> (nobody gets reports about it)"),
        path if path != summary.from => say("reverse-path", path),
        _ => {}
    }
    say("relay", &format!("{} ({})", summary.relay, detail.rule));
    let login = detail
        .login
        .as_ref()
        .map(|it| format!(", logged in as {it}"));
    say(
        "accepted",
        &format!(
            "{} from {}{}",
            words.both(summary.accepted),
            detail.client,
            login.unwrap_or_default()
        ),
    );
    let utf8 = if detail.smtputf8 { ", SMTPUTF8" } else { "" };
    say(
        "size",
        &format!("{}, {}{utf8}", size(summary.size_bytes), detail.body),
    );
    if !detail.message_id.is_empty() {
        say("message-id", &format!("<{}>", detail.message_id));
    }
    say(
        "mailing",
        &format!("{} (key {})", summary.mailing, summary.mailing_key),
    );
    if detail.origin != "submission" {
        say("origin", &detail.origin);
    }
    if let Some(envid) = &detail.envid {
        say("envid", envid);
    }
    if summary.attempts > 0 {
        say("attempts", &summary.attempts.to_string());
    }
    if let Some(first) = detail.first_failure {
        let expires = detail
            .expires
            .map(|at| format!("; given up {}", words.both(at)));
        let warned = if detail.warned {
            "; the sender was warned"
        } else {
            ""
        };
        say(
            "first failure",
            &format!(
                "{}{warned}{}",
                words.both(first),
                expires.unwrap_or_default()
            ),
        );
    }
    let mut before: Option<&Said> = None;
    for recipient in &detail.recipient_list {
        lines.push(recipient_line(look, recipient));
        match &recipient.said {
            // To a message for many it is often said once for all.
            Some(said) if before.is_some_and(|it| is_the_same(it, said)) => {
                lines.push(format!("{:LABEL$}the same was said", ""));
            }
            Some(said) => lines.extend(said_lines(look, said)),
            None => {}
        }
        before = recipient.said.as_ref();
    }
    lines
}

fn is_the_same(one: &Said, other: &Said) -> bool {
    let at = one.at;
    Said {
        at,
        ..other.clone()
    } == *one
}

fn recipient_line(look: &Look, recipient: &RecipientDetail) -> String {
    let status = recipient.status.as_str();
    let tone = match status {
        "delivered" => Tone::Good,
        "failed" | "expired" => Tone::Bad,
        _ => Tone::Faint,
    };
    let notify = recipient.notify.as_ref().map(|it| format!(", notify {it}"));
    format!(
        "{}{}  {}{}",
        look.tone(Tone::Faint, &format!("{:<LABEL$}", "to")),
        look.fit(&recipient.address, look.width - LABEL - 20),
        look.tone(tone, status),
        notify.unwrap_or_default(),
    )
}

/// What a relay said, its words unchanged, and what they mean.
fn said_lines(look: &Look, said: &Said) -> Vec<String> {
    let server = match said.server.as_str() {
        "" => "penstock".into(),
        server => look.fit(server, 60),
    };
    let mut lines = vec![format!(
        "{:LABEL$}{server} at {}, {}:",
        "",
        said.stage,
        look.words.both(said.at)
    )];
    let code = said.code.map(|it| format!("{it} "));
    let enhanced = said.enhanced.as_ref().map(|it| format!("{it} "));
    let words = format!(
        "{}{}{}",
        code.unwrap_or_default(),
        enhanced.unwrap_or_default(),
        said.text
    );
    lines.extend(look.wrap(&words, LABEL + 2));
    if said.in_doubt {
        lines.extend(look.wrap(
            "In doubt: the message was sent and its reply never came; it may have been delivered.",
            LABEL + 2,
        ));
    }
    if let Some(remedy) = &said.remedy {
        let class = said.class.as_deref().unwrap_or("refused");
        lines.extend(look.wrap(&format!("{class}: {remedy}"), LABEL + 2));
    }
    lines
}
