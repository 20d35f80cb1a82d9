//! `status` and `reload`: how the daemon is.

use super::context::Context;
use super::exit::Outcome;
use super::relay;
use super::screen::{Look, Tone};
use super::words::{count, grouped, size};
use crate::control::protocol::{Item, QueueCounts, ReloadReport, Request, StatusReport};

/// Shows how things are.
pub fn status(context: &mut Context) -> Outcome {
    let report = context.ask_one(&Request::Status {}, |item| match item {
        Item::Status(report) => Some(report),
        _ => None,
    })?;
    let screen = &mut context.screen;
    if screen.look.json {
        return Ok(screen.json(&report)?);
    }
    for line in lines(&screen.look, &report) {
        screen.line(line)?;
    }
    Ok(())
}

/// Has the daemon read its configuration again.
pub fn reload(context: &mut Context) -> Outcome {
    let report = context.ask_one(&Request::Reload {}, |item| match item {
        Item::Reload(report) => Some(report),
        _ => None,
    })?;
    let screen = &mut context.screen;
    if screen.look.json {
        return Ok(screen.json(&report)?);
    }
    for line in reload_lines(&screen.look, &report) {
        screen.line(line)?;
    }
    Ok(())
}

fn reload_lines(look: &Look, report: &ReloadReport) -> Vec<String> {
    let mut lines = Vec::new();
    for change in &report.changes {
        lines.extend(look.wrap(change, 0));
    }
    for restart in &report.needs_restart {
        let marked = look.marked("!", &format!("after a restart only: {restart}"));
        lines.extend(marked.iter().map(|it| look.tone(Tone::Warning, it)));
    }
    for warning in &report.warnings {
        let marked = look.marked("!", &format!("warning: {warning}"));
        lines.extend(marked.iter().map(|it| look.tone(Tone::Warning, it)));
    }
    if report.changes.is_empty() && report.needs_restart.is_empty() {
        lines.push("reloaded; nothing is different".into());
    }
    lines
}

/// The label of a line stands in this many columns.
const LABEL: usize = 12;

fn lines(look: &Look, report: &StatusReport) -> Vec<String> {
    let words = &look.words;
    let mut lines = vec![format!(
        "{} on {}, since {}",
        look.tone(Tone::Strong, &format!("penstock {}", report.version)),
        look.fit(&report.hostname, 60),
        words.both(report.started),
    )];
    if report.problems.is_empty() {
        lines.push(look.tone(Tone::Good, "all is well"));
    }
    for problem in &report.problems {
        let marked = look.marked("!", problem);
        lines.extend(marked.iter().map(|it| look.tone(Tone::Bad, it)));
    }
    let mut say = |label: &str, text: String| {
        let mut wrapped = look.wrap(&text, LABEL).into_iter();
        let first = wrapped.next().unwrap_or_default();
        lines.push(format!("{label:<LABEL$}{}", first.trim_start()));
        lines.extend(wrapped);
    };
    say("queue", queue(look, &report.queue));
    let traffic = &report.traffic;
    say(
        "since start",
        format!(
            "{} accepted, {} refused; {} delivered, {} deferred, {} failed",
            grouped(traffic.accepted),
            grouped(traffic.refused),
            grouped(traffic.delivered),
            grouped(traffic.deferred),
            grouped(traffic.failed),
        ),
    );
    for listener in &report.listeners {
        say(
            "listens on",
            format!(
                "{}, TLS {}, AUTH {}; {}",
                listener.address,
                listener.tls,
                listener.auth,
                count(listener.clients, "client", "clients"),
            ),
        );
    }
    let spool = &report.spool;
    let accepting = if spool.accepting {
        ""
    } else {
        ", TAKES NO MAIL"
    };
    say(
        "spool",
        format!(
            "{}: {} used, {} free{accepting}",
            spool.path,
            size(spool.used_bytes),
            size(spool.free_bytes),
        ),
    );
    if spool.in_doubt > 0 {
        let doubtful = count(spool.in_doubt, "message", "messages");
        say(
            "in doubt",
            format!("{doubtful} may have been sent twice or not at all"),
        );
    }
    let reread = words.both(report.configured);
    say(
        "configured",
        match &report.configuration_error {
            None => reread,
            Some(error) => format!("{reread}; NOT as it is on disk now: {error}"),
        },
    );
    if !report.relays.is_empty() {
        lines.push(String::new());
        lines.extend(relay::table(look, &report.relays));
    }
    lines
}

/// `312 messages, 3.1 MB: 300 waiting, 12 held; the oldest since 3 h`.
pub fn queue(look: &Look, queue: &QueueCounts) -> String {
    if queue.messages == 0 {
        return "empty".into();
    }
    let states = [
        (queue.waiting, "waiting"),
        (queue.sending, "sending"),
        (queue.deferred, "deferred"),
        (queue.paused, "paused"),
        (queue.held, "held"),
    ];
    let states: Vec<String> = states
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, state)| format!("{} {state}", grouped(*number)))
        .collect();
    let oldest = queue
        .oldest
        .map(|at| format!("; the oldest of {}", look.words.both(at)));
    format!(
        "{}, {}: {}{}",
        count(queue.messages, "message", "messages"),
        size(queue.size_bytes),
        states.join(", "),
        oldest.unwrap_or_default(),
    )
}
