//! `hold`, `release`, `retry`, `reroute`, `delete` and `fail`.
//!
//! Each says first what it would do. A person at a terminal is asked; a program says
//! `--yes`. What came in after the preview is not touched.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::filter::{self, FilterArgs};
use super::screen::Look;
use super::words::{count, size};
use crate::control::protocol::{Action, ChangeReport, ChangeRequest, Item, Request};

/// Not now (sysexits.h, EX_TEMPFAIL).
const TRY_AGAIN: u8 = 75;

/// Options of every verb that changes what waits.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Everything that waits
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// Only say what would be done
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Options of the verbs that can be given a reason.
#[derive(Debug, Args)]
pub struct NotedArgs {
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Options of `reroute`.
#[derive(Debug, Args)]
pub struct RerouteArgs {
    /// The relay that is to send it
    #[arg(long, value_name = "RELAY")]
    via: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Sends what waits by another relay.
pub fn reroute(context: &mut Context, args: RerouteArgs) -> Outcome {
    change(context, Action::Reroute { to: args.via }, args.change, None)
}

/// Does it with a reason.
pub fn noted(context: &mut Context, action: Action, args: NotedArgs) -> Outcome {
    change(context, action, args.change, args.note)
}

/// Previews, asks, does.
pub fn change(
    context: &mut Context,
    action: Action,
    args: ChangeArgs,
    note: Option<String>,
) -> Outcome {
    let verb = action.verb();
    let filter = args.filter.filter();
    if filter.is_empty() && !args.all {
        return Err(Trouble::usage(format!(
            "{verb} what? Name ids or a filter, or say --all; penstock {verb} --help lists them"
        )));
    }
    if !filter.is_empty() && args.all {
        return Err(Trouble::usage("--all and a filter contradict each other"));
    }
    let named = filter.ids.len() as u64;
    let mut request = ChangeRequest {
        action: action.clone(),
        filter,
        all: args.all,
        dry_run: true,
        up_to: None,
        note,
    };
    let preview = run(context, &request)?;
    if preview.messages == 0 {
        // Who names a message means one that is there; who filters may find none.
        let found = preview.unchanged + preview.sending + preview.held;
        match found == 0 && !context.screen.look.json {
            true => {
                let words = filter::none_matches(context, &request.filter);
                context.screen.say(&words)?;
            }
            false => say(context, &action, &preview)?,
        }
        return match named > 0 && found == 0 {
            true => Err(Trouble::said(ExitCode::FAILURE)),
            false => again(named, &preview),
        };
    }
    if args.dry_run {
        return say(context, &action, &preview);
    }
    if !args.yes {
        ask(context, &action, &preview)?;
    }
    request.dry_run = false;
    request.up_to = preview.up_to;
    let report = run(context, &request)?;
    say(context, &action, &report)?;
    again(named, &report)
}

/// Who names a message that is being sent just now may try again; who filters meant what
/// could be changed.
fn again(named: u64, report: &ChangeReport) -> Outcome {
    match named > 0 && report.sending > 0 {
        true => Err(Trouble::said(ExitCode::from(TRY_AGAIN))),
        false => Ok(()),
    }
}

fn run(context: &Context, request: &ChangeRequest) -> Result<ChangeReport, Trouble> {
    context.ask_one(&Request::Change(request.clone()), |item| match item {
        Item::Change(report) => Some(report),
        _ => None,
    })
}

/// Asks the person at the terminal; nobody there, nothing done.
fn ask(context: &mut Context, action: &Action, preview: &ChangeReport) -> Outcome {
    let look = &context.screen.look;
    let what = said(look, action, preview);
    if look.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Trouble::usage(format!(
            "{what}\nnothing done; say --yes to do it"
        )));
    }
    let mut terminal = io::stderr();
    write!(terminal, "{what}\nGo ahead? [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" | "j" | "ja" => Ok(()),
        _ => Err(Trouble::failed("nothing done")),
    }
}

/// Says what was done, or would be.
fn say(context: &mut Context, action: &Action, report: &ChangeReport) -> Outcome {
    let screen = &mut context.screen;
    if screen.look.json {
        return Ok(screen.json(report)?);
    }
    let text = said(&screen.look, action, report);
    Ok(screen.say(&text)?)
}

/// What was done, or would be, and on lines of their own the relays by which nothing
/// leaves, whatever is done to its mail.
fn said(look: &Look, action: &Action, report: &ChangeReport) -> String {
    let mut text = match report.messages {
        0 => nothing(action, report),
        _ => sentence(look, action, report),
    };
    for relay in &report.paused {
        text += &format!("\nrelay {relay} is paused: penstock relay resume {relay}");
    }
    text
}

/// What a message is that needs no change.
const fn already(action: &Action) -> &'static str {
    match action {
        Action::Hold => "held already",
        Action::Release => "not held",
        Action::Retry => "due already",
        Action::Reroute { .. } | Action::Delete | Action::Fail => "already so",
    }
}

fn nothing(action: &Action, report: &ChangeReport) -> String {
    let (one, many) = ("message is", "messages are");
    let mut why = Vec::new();
    if report.unchanged > 0 {
        let unchanged = count(report.unchanged, one, many);
        why.push(format!("{unchanged} {}", already(action)));
    }
    if report.held > 0 {
        why.push(format!(
            "{} held, which penstock release ends",
            count(report.held, one, many)
        ));
    }
    if report.sending > 0 {
        why.push(format!(
            "{} being sent just now: try again",
            count(report.sending, one, many)
        ));
    }
    match why.is_empty() {
        true => "no message matches".into(),
        false => format!("nothing done: {}", why.join("; ")),
    }
}

/// `hold 312 messages of jan@uwdomein.nl, 3.1 MB`, or what was done.
fn sentence(look: &Look, action: &Action, report: &ChangeReport) -> String {
    let (would, did) = match action {
        Action::Hold => ("hold", "held"),
        Action::Release => ("release", "released"),
        Action::Retry if !report.paused.is_empty() => ("retry", "next to be tried:"),
        Action::Retry => ("retry", "to be tried now:"),
        Action::Reroute { .. } => ("reroute", "rerouted"),
        Action::Delete => ("delete", "deleted"),
        Action::Fail => ("fail", "failed"),
    };
    let verb = if report.dry_run { would } else { did };
    let mut text = format!("{verb} {}", count(report.messages, "message", "messages"));
    if !report.senders.is_empty() {
        let senders: Vec<String> = report.senders.iter().map(|it| look.fit(it, 60)).collect();
        // Three are named; who counts more knows that there are others.
        text += &format!(" of {}", senders.join(", "));
    }
    if report.recipients > report.messages {
        text += &format!(
            " to {}",
            count(report.recipients, "recipient", "recipients")
        );
    }
    text += &format!(", {}", size(report.size_bytes));
    match action {
        Action::Reroute { to } => text += &format!(", by relay {to}"),
        Action::Delete => text += "; nobody is told",
        Action::Fail if report.messages == 1 => text += "; its sender gets a report",
        Action::Fail => text += "; their senders get a report",
        Action::Hold | Action::Release | Action::Retry => {}
    }
    let left = left(action, report);
    if !left.is_empty() {
        text += &format!(" ({})", left.join("; "));
    }
    text
}

/// What stays as it was.
fn left(action: &Action, report: &ChangeReport) -> Vec<String> {
    let mut left = Vec::new();
    if report.sending > 0 {
        let sending = count(report.sending, "more is", "more are");
        left.push(format!("{sending} being sent and stay as they are"));
    }
    if report.unchanged > 0 {
        let unchanged = count(report.unchanged, "more is", "more are");
        left.push(format!("{unchanged} {}", already(action)));
    }
    if report.held > 0 {
        let held = match action {
            Action::Reroute { .. } => count(report.held, "of them stays", "of them stay"),
            _ => count(report.held, "more is", "more are"),
        };
        left.push(format!("{held} held: penstock release"));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::tests::look;

    fn report() -> ChangeReport {
        ChangeReport {
            action: "hold".into(),
            dry_run: true,
            messages: 312,
            recipients: 312,
            size_bytes: 3_100_000,
            sending: 0,
            unchanged: 0,
            held: 0,
            paused: vec![],
            first_ids: vec![],
            senders: vec!["jan@uwdomein.nl".into()],
            up_to: None,
        }
    }

    #[test]
    fn a_preview_says_what_whose_and_how_much() {
        let look = look();
        assert_eq!(
            sentence(&look, &Action::Hold, &report()),
            "hold 312 messages of jan@uwdomein.nl, 3.1 MB"
        );
        let done = ChangeReport {
            dry_run: false,
            recipients: 400,
            sending: 1,
            ..report()
        };
        assert_eq!(
            sentence(&look, &Action::Delete, &done),
            "deleted 312 messages of jan@uwdomein.nl to 400 recipients, 3.1 MB; nobody is told \
             (1 more is being sent and stay as they are)"
        );
        let to = Action::Reroute { to: "own".into() };
        assert_eq!(
            sentence(
                &look,
                &to,
                &ChangeReport {
                    messages: 1,
                    recipients: 1,
                    ..report()
                }
            ),
            "reroute 1 message of jan@uwdomein.nl, 3.1 MB, by relay own"
        );
    }

    #[test]
    fn nothing_to_do_says_why() {
        let none = ChangeReport {
            messages: 0,
            ..report()
        };
        assert_eq!(nothing(&Action::Hold, &none), "no message matches");
        assert_eq!(
            nothing(
                &Action::Hold,
                &ChangeReport {
                    unchanged: 2,
                    ..none.clone()
                }
            ),
            "nothing done: 2 messages are held already"
        );
        assert_eq!(
            nothing(
                &Action::Hold,
                &ChangeReport {
                    sending: 1,
                    ..none.clone()
                }
            ),
            "nothing done: 1 message is being sent just now: try again"
        );
        assert_eq!(
            said(
                &look(),
                &Action::Retry,
                &ChangeReport {
                    unchanged: 1,
                    held: 2,
                    paused: vec!["own".into()],
                    ..none
                }
            ),
            "nothing done: 1 message is due already; 2 messages are held, which penstock release \
             ends\nrelay own is paused: penstock relay resume own"
        );
    }

    #[test]
    fn what_stays_where_it_is_is_said_beside_what_was_done() {
        let look = look();
        let done = ChangeReport {
            dry_run: false,
            messages: 3,
            recipients: 3,
            unchanged: 4,
            held: 1,
            paused: vec!["own".into()],
            ..report()
        };
        assert_eq!(
            said(&look, &Action::Retry, &done),
            "next to be tried: 3 messages of jan@uwdomein.nl, 3.1 MB (4 more are due already; \
             1 more is held: penstock release)\nrelay own is paused: penstock relay resume own"
        );
        let to = Action::Reroute { to: "own".into() };
        let said = sentence(&look, &to, &done);
        assert!(
            said.contains("1 of them stays held: penstock release"),
            "{said}"
        );
    }
}
