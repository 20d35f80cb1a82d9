//! `limits` and `mailings`: what may still leave, and what comes next.

use clap::Args;

use super::context::Context;
use super::exit::Outcome;
use super::relay::NO_RELAY;
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
    if first && !context.screen.look.json {
        context.screen.say(NO_RELAY)?;
    }
    Ok(())
}

/// Shows the mailings that wait or ended within the hour.
pub fn mailings(context: &mut Context, args: RelayArgs) -> Outcome {
    let mut any = false;
    for item in context.ask(&Request::Mailings { relay: args.relay })? {
        let Item::Mailing(mailing) = item? else {
            continue;
        };
        any = true;
        let screen = &mut context.screen;
        if screen.look.json {
            screen.json(&mailing)?;
            continue;
        }
        let of = format!("{} by {}", mailing.from, mailing.relay);
        for line in mailing_lines(&screen.look, &mailing, &of) {
            screen.line(line)?;
        }
    }
    if !any && !context.screen.look.json {
        context.screen.line("no mailing within the last hour")?;
    }
    Ok(())
}

/// The columns of what a limit is called.
const NAME: usize = 19;
/// The columns of a bar.
const BAR: usize = 10;

/// One relay's limits, and who and what waits under them.
pub fn lines(look: &Look, report: &LimitsReport) -> Vec<String> {
    let state = match report.state {
        RelayState::Active => String::new(),
        state => format!(", {}", look.tone(Tone::Bad, state.name())),
    };
    let mut lines = vec![format!(
        "{} ({}{state}): {} waiting, {}",
        look.fit(&report.relay, 30),
        report.preset,
        grouped(report.waiting),
        size(report.waiting_bytes),
    )];
    for window in &report.windows {
        lines.push(window_line(look, window));
    }
    lines.push(format!(
        "  {:<NAME$} {} {} of {}",
        "connections",
        look.bar(report.connections, report.connections_limit, BAR),
        report.connections,
        report.connections_limit,
    ));
    if report.min_interval_ms > 0 {
        let seconds = report.min_interval_ms as f64 / 1000.0;
        lines.push(format!(
            "  {:<NAME$} {seconds} s between two messages",
            "min-interval"
        ));
    }
    lines.extend(look.wrap(&outlook(look, report), 2));
    for user in &report.users {
        lines.push(format!(
            "  {}  {}, {}",
            look.cell(&user.from, look.width.saturating_sub(40).min(40)),
            count(user.waiting, "message", "messages"),
            size(user.waiting_bytes),
        ));
    }
    for mailing in &report.mailings {
        let lined = mailing_lines(look, mailing, &mailing.from);
        lines.extend(lined.into_iter().map(|it| format!("  {it}")));
    }
    lines
}

/// What comes next, and why not now.
fn outlook(look: &Look, report: &LimitsReport) -> String {
    let words = &look.words;
    if report.waiting == 0 && report.state == RelayState::Active {
        return "nothing waits; a message leaves at once while there is room".into();
    }
    let mut next = Vec::new();
    match &report.why {
        Some(why) => next.push(format!("not now: {why}")),
        None if report.batch_open => next.push("a batch is leaving now".into()),
        None => {}
    }
    // When the next batch opens and when the reason ends are mostly the same moment.
    let until = report.until.filter(|it| Some(*it) != report.next_batch);
    next.extend(until.map(|at| format!("until {}", words.both(at))));
    let opens = report.next_batch;
    next.extend(opens.map(|at| format!("the next batch opens {}", words.both(at))));
    let empty = report.empty_at;
    next.extend(empty.map(|at| format!("empty about {}", words.both(at))));
    next.join("; ")
}

fn window_line(look: &Look, window: &WindowReport) -> String {
    let amount = |number: u64| match window.limit.contains("bytes") {
        true => size(number),
        false => grouped(number),
    };
    let full = window.left == 0;
    let bar = look.bar(window.used, window.allowed, BAR);
    let bar = match full {
        true => look.tone(Tone::Warning, &bar),
        false => bar,
    };
    let seconds = i64::try_from(window.window_seconds).unwrap_or(i64::MAX);
    let left = match window.room_at {
        Some(at) if full => format!("room {}", look.words.relative(at)),
        _ => format!("{} left", amount(window.left)),
    };
    format!(
        "  {:<NAME$} {bar} {} of {} in {}, {left}",
        window.limit,
        amount(window.used),
        amount(window.allowed),
        span(seconds),
    )
}

/// How far a mailing came: what it is, then its bar.
fn mailing_lines(look: &Look, mailing: &MailingReport, of: &str) -> Vec<String> {
    let half = look.width.saturating_sub(6) / 2;
    let name = format!(
        "{}  {}",
        look.fit(&mailing.mailing, half),
        look.tone(Tone::Faint, &look.fit(of, half))
    );
    // What was moved here from another relay was accepted there.
    let all = mailing
        .accepted
        .max(mailing.done + mailing.waiting + mailing.held);
    let mut facts = format!("{} of {}", grouped(mailing.done), grouped(all));
    if mailing.held > 0 {
        let held = format!("{} held", grouped(mailing.held));
        facts += &format!(", {}", look.tone(Tone::Warning, &held));
    }
    facts += &match mailing.finished_at {
        Some(at) => format!(", done about {}", look.words.both(at)),
        None if mailing.waiting > 0 => format!(", {} waiting", grouped(mailing.waiting)),
        None => format!(", last {}", look.words.relative(mailing.last_accepted)),
    };
    let bar = look.bar(mailing.done, all, BAR);
    let mut lines = vec![name, format!("  {bar} {facts}")];
    if mailing.held > 0 {
        // Mailings with the same subject have the same key: only with its From is it this one.
        let (key, from) = (&mailing.key, &mailing.from);
        let mut remedy = format!("  penstock release --mailing {key} --from {from}");
        if remedy.chars().count() + 2 > look.width {
            remedy = format!("  its key is {key}");
        }
        lines.push(look.tone(Tone::Faint, &remedy));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::tests::look;
    use crate::control::protocol::UserShare;
    use unicode_width::UnicodeWidthStr;

    fn at(text: &str) -> Option<jiff::Timestamp> {
        Some(format!("2026-11-21T{text}Z").parse().unwrap())
    }

    fn window(limit: &str, used: u64, allowed: u64, seconds: u64) -> WindowReport {
        WindowReport {
            limit: limit.into(),
            window_seconds: seconds,
            allowed,
            used,
            left: allowed - used,
            room_at: at("13:05:00"),
        }
    }

    fn mailing() -> MailingReport {
        MailingReport {
            key: "s-1".into(),
            mailing: "The news of November".into(),
            from: "jan@uwdomein.nl".into(),
            relay: "own".into(),
            accepted: 10_250,
            done: 9_100,
            waiting: 900,
            held: 250,
            limit: Some(10_000),
            last_accepted: "2026-11-21T12:00:00Z".parse().unwrap(),
            interactive: false,
            finished_at: at("13:10:00"),
        }
    }

    fn report() -> LimitsReport {
        LimitsReport {
            relay: "own".into(),
            preset: "standard".into(),
            state: RelayState::Active,
            windows: vec![
                window("batch-messages", 500, 500, 300),
                window("batch-bytes", 20_000_000, 80_000_000, 300),
                window("recipients-per-day", 1_000_000, 2_000_000, 86_400),
            ],
            min_interval_ms: 1500,
            connections: 1,
            connections_limit: 4,
            waiting: 900,
            waiting_bytes: 9_000_000,
            batch_open: false,
            why: Some("the next batch has not opened yet".into()),
            until: at("13:05:00"),
            next_batch: at("13:05:00"),
            empty_at: at("13:10:00"),
            interactive_share: 0.05,
            users: vec![UserShare {
                from: "jan@uwdomein.nl".into(),
                waiting: 900,
                waiting_bytes: 9_000_000,
            }],
            mailings: vec![mailing()],
        }
    }

    #[test]
    fn limits_show_what_is_used_what_is_left_what_comes_next_and_why_not_now() {
        assert_eq!(
            lines(&look(), &report()),
            [
                "own (standard): 900 waiting, 9 MB",
                "  batch-messages      ██████████ 500 of 500 in 5 min, room in 3 min",
                "  batch-bytes         ██░░░░░░░░ 20 MB of 80 MB in 5 min, 60 MB left",
                "  recipients-per-day  █████░░░░░ 1,000,000 of 2,000,000 in 24 h, 1,000,000 left",
                "  connections         ██░░░░░░░░ 1 of 4",
                "  min-interval        1.5 s between two messages",
                "  not now: the next batch has not opened yet; the next batch opens 14:05 (in 3",
                "  min); empty about 14:10 (in 8 min)",
                "  jan@uwdomein.nl                           900 messages, 9 MB",
                "  The news of November  jan@uwdomein.nl",
                "    ████████░░ 9,100 of 10,250, 250 held, done about 14:10 (in 8 min)",
                "    penstock release --mailing s-1 --from jan@uwdomein.nl",
            ]
        );
    }

    #[test]
    fn a_mailing_that_is_over_or_has_no_relay_says_so() {
        let over = MailingReport {
            done: 10_250,
            waiting: 0,
            held: 0,
            finished_at: None,
            ..mailing()
        };
        let lined = mailing_lines(&look(), &over, "jan@uwdomein.nl by own");
        assert_eq!(lined[0], "The news of November  jan@uwdomein.nl by own");
        assert_eq!(
            lined[1],
            "  ██████████ 10,250 of 10,250, last 1 h 2 min ago"
        );
        let stuck = MailingReport {
            finished_at: None,
            ..mailing()
        };
        let lined = mailing_lines(&look(), &stuck, "");
        assert_eq!(
            lined[1],
            "  ████████░░ 9,100 of 10,250, 250 held, 900 waiting"
        );
    }

    #[test]
    fn a_mailing_that_was_moved_here_is_not_done_before_it_has_begun() {
        let moved = MailingReport {
            accepted: 0,
            done: 0,
            waiting: 3,
            held: 0,
            finished_at: None,
            ..mailing()
        };
        let lined = mailing_lines(&look(), &moved, "");
        assert_eq!(lined[1], "  ░░░░░░░░░░ 0 of 3, 3 waiting");
    }

    #[test]
    fn no_line_is_wider_than_eighty_columns_whatever_the_names_are() {
        let mut report = report();
        report.relay = "a-relay-with-a-very-long-name-indeed-that-goes-on-and-on".into();
        report.users[0].from = format!("{}@example.nl", "x".repeat(120));
        report.mailings[0].mailing = "é".repeat(200);
        report.mailings[0].from = format!("{}@example.nl", "y".repeat(120));
        for line in lines(&look(), &report) {
            assert!(line.width() <= 80, "{}: {line}", line.width());
        }
    }
}
