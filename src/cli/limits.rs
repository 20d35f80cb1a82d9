//! `limits` and `mailings`: what may still leave, and what comes next.

use clap::Args;

use super::context::Context;
use super::exit::Outcome;
use super::relay::{lines_of, plain_table};
use super::screen::{Look, Tone};
use super::words::{count, grouped, size, span};
use crate::control::protocol::{
    Item, LimitsReport, MailingReport, RelayState, Request, WindowReport,
};

/// A relay, or all.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Only this one
    #[arg(value_name = "RELAY")]
    relay: Option<String>,
}

/// Shows what is used and what is left of the limits.
pub fn limits(context: &mut Context, args: RelayArgs) -> Outcome {
    let mut first = true;
    for item in context.ask(&Request::Limits { relay: args.relay })? {
        let Item::Limits(report) = item? else {
            continue;
        };
        let screen = &mut context.screen;
        if screen.look.json {
            screen.json(&report)?;
            continue;
        }
        if !std::mem::take(&mut first) {
            screen.line("")?;
        }
        for line in lines(&screen.look, &report) {
            screen.line(line)?;
        }
    }
    Ok(())
}

/// Shows the mailings that wait or ended within the hour.
pub fn mailings(context: &mut Context, args: RelayArgs) -> Outcome {
    let mut table = plain_table(
        &context.screen.look,
        &[
            "MAILING", "FROM", "RELAY", "ACCEPTED", "WAITING", "HELD", "LAST",
        ],
    );
    let mut any = false;
    for item in context.ask(&Request::Mailings { relay: args.relay })? {
        let Item::Mailing(mailing) = item? else {
            continue;
        };
        any = true;
        if context.screen.look.json {
            context.screen.json(&mailing)?;
        } else {
            table.add_row(mailing_row(&context.screen.look, &mailing));
        }
    }
    if context.screen.look.json {
        return Ok(());
    }
    if !any {
        return Ok(context.screen.line("no mailing within the last hour")?);
    }
    for line in lines_of(&table) {
        context.screen.line(line)?;
    }
    Ok(())
}

fn mailing_row(look: &Look, mailing: &MailingReport) -> [String; 7] {
    let accepted = match mailing.limit {
        Some(limit) => format!("{} of {}", grouped(mailing.accepted), grouped(limit)),
        None => grouped(mailing.accepted),
    };
    [
        look.fit(&mailing.mailing, 30),
        look.fit(&mailing.from, 30),
        look.fit(&mailing.relay, 20),
        accepted,
        grouped(mailing.waiting),
        grouped(mailing.held),
        look.words.relative(mailing.last_accepted),
    ]
}

/// The columns of a bar.
const BAR: usize = 20;

/// One relay's limits.
pub fn lines(look: &Look, report: &LimitsReport) -> Vec<String> {
    let words = &look.words;
    let state = match report.state {
        RelayState::Active => String::new(),
        state => format!(", {}", look.tone(Tone::Bad, state.name())),
    };
    let mut lines = vec![format!(
        "{} ({}{state}): {} waiting, {}",
        look.tone(Tone::Strong, &look.fit(&report.relay, 40)),
        report.preset,
        grouped(report.waiting),
        size(report.waiting_bytes),
    )];
    for window in &report.windows {
        lines.push(window_line(look, window));
    }
    lines.push(format!(
        "  {:<22}  {}  {} of {}",
        "connections",
        look.bar(report.connections, report.connections_limit, BAR),
        report.connections,
        report.connections_limit,
    ));
    if report.min_interval_ms > 0 {
        let seconds = report.min_interval_ms as f64 / 1000.0;
        lines.push(format!(
            "  {:<22}  {seconds} s between two messages",
            "min-interval"
        ));
    }
    let mut next = Vec::new();
    if report.batch_open {
        next.push("a batch is leaving now".into());
    }
    next.extend(
        report
            .next_batch
            .map(|at| format!("the next batch opens {}", words.both(at))),
    );
    next.extend(
        report
            .empty_at
            .map(|at| format!("empty about {}", words.both(at))),
    );
    if next.is_empty() && report.waiting == 0 {
        next.push("nothing waits; a message would leave at once while there is room".into());
    }
    if !next.is_empty() {
        lines.extend(look.wrap(&next.join("; "), 2));
    }
    for user in &report.users {
        lines.push(format!(
            "  {}  {}, {}",
            look.cell(&user.from, look.width.saturating_sub(40).min(40)),
            count(user.waiting, "message", "messages"),
            size(user.waiting_bytes),
        ));
    }
    lines
}

fn window_line(look: &Look, window: &WindowReport) -> String {
    let amount = |number: u64| match window.limit.contains("bytes") {
        true => size(number),
        false => grouped(number),
    };
    let full = window.used >= window.allowed;
    let bar = look.bar(window.used, window.allowed, BAR);
    let bar = if full {
        look.tone(Tone::Warning, &bar)
    } else {
        bar
    };
    let seconds = i64::try_from(window.window_seconds).unwrap_or(i64::MAX);
    let room = match window.room_at {
        Some(at) if full => format!(", room {}", look.words.both(at)),
        _ => String::new(),
    };
    format!(
        "  {:<22}  {bar}  {} of {} in {}{room}",
        window.limit,
        amount(window.used),
        amount(window.allowed),
        span(seconds),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::tests::look;
    use crate::control::protocol::UserShare;

    #[test]
    fn limits_show_what_is_used_what_is_left_and_what_comes_next() {
        let at = |text: &str| Some(text.parse().unwrap());
        let report = LimitsReport {
            relay: "own".into(),
            preset: "standard".into(),
            state: RelayState::Active,
            windows: vec![
                WindowReport {
                    limit: "batch-messages".into(),
                    window_seconds: 300,
                    allowed: 500,
                    used: 500,
                    room_at: at("2026-11-21T13:05:00Z"),
                },
                WindowReport {
                    limit: "batch-bytes".into(),
                    window_seconds: 300,
                    allowed: 80_000_000,
                    used: 20_000_000,
                    room_at: at("2026-11-21T13:05:00Z"),
                },
            ],
            min_interval_ms: 1500,
            connections: 1,
            connections_limit: 4,
            waiting: 900,
            waiting_bytes: 9_000_000,
            batch_open: false,
            next_batch: at("2026-11-21T13:05:00Z"),
            empty_at: at("2026-11-21T13:10:00Z"),
            interactive_share: 0.05,
            users: vec![UserShare {
                from: "jan@uwdomein.nl".into(),
                waiting: 900,
                waiting_bytes: 9_000_000,
            }],
        };
        assert_eq!(
            lines(&look(), &report),
            [
                "own (standard): 900 waiting, 9 MB",
                "  batch-messages          ████████████████████  500 of 500 in 5 min, room 14:05 (in 3 min)",
                "  batch-bytes             █████░░░░░░░░░░░░░░░  20 MB of 80 MB in 5 min",
                "  connections             █████░░░░░░░░░░░░░░░  1 of 4",
                "  min-interval            1.5 s between two messages",
                "  the next batch opens 14:05 (in 3 min); empty about 14:10 (in 8 min)",
                "  jan@uwdomein.nl                           900 messages, 9 MB",
            ]
        );
    }
}
