//! `hints`: what the daemon found that hurts delivery, and how a finding is shown.

use std::process::ExitCode;

use clap::Args;

use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::screen::{Look, Screen, Tone};
use super::words::count;
use crate::control::protocol::{HintReport, Item, Request};

/// Options of `hints`.
#[derive(Debug, Args)]
pub struct HintsArgs {
    /// Only those about this relay
    #[arg(value_name = "RELAY")]
    relay: Option<String>,
}

/// Shows what the daemon knows, the worst first; exits 0 whatever that is.
pub fn hints(context: &mut Context, args: HintsArgs) -> Outcome {
    let mut reports = Vec::new();
    for item in context.ask(&Request::Hints { relay: args.relay })? {
        if let Item::Hint(report) = item? {
            reports.push(*report);
        }
    }
    print(&mut context.screen, &reports)?;
    if reports.is_empty() && !context.screen.look.json {
        context
            .screen
            .line("nothing that would hurt delivery is known of the mail seen since the start")?;
    }
    Ok(())
}

/// The exit code of a check: 1 when something serious was found.
pub fn verdict(reports: &[HintReport]) -> Outcome {
    match reports.iter().any(|it| it.severity == "serious") {
        true => Err(Trouble::said(ExitCode::from(1))),
        false => Ok(()),
    }
}

/// Prints findings, and below them how many there are.
pub fn print(screen: &mut Screen, reports: &[HintReport]) -> std::io::Result<()> {
    for report in reports {
        if screen.look.json {
            screen.json(report)?;
            continue;
        }
        for line in lines(&screen.look, report) {
            screen.line(line)?;
        }
        screen.line("")?;
    }
    if !screen.look.json && !reports.is_empty() {
        screen.say(&sum(reports))?;
    }
    Ok(())
}

/// `3 findings: 1 serious, 2 notices`
fn sum(reports: &[HintReport]) -> String {
    let of = |severity: &str| reports.iter().filter(|it| it.severity == severity).count();
    let parts: Vec<String> = [
        ("serious", "serious"),
        ("warning", "warnings"),
        ("notice", "notices"),
        ("unknown", "unknown"),
    ]
    .into_iter()
    .filter(|(one, _)| of(one) > 0)
    .map(|(one, many)| count(of(one) as u64, one, many))
    .collect();
    let findings = count(reports.len() as u64, "finding", "findings");
    format!("{findings}: {}", parts.join(", "))
}

fn lines(look: &Look, report: &HintReport) -> Vec<String> {
    let tone = match report.severity.as_str() {
        "serious" => Tone::Bad,
        "warning" => Tone::Warning,
        "notice" => Tone::Strong,
        _ => Tone::Faint,
    };
    let by = match &report.relay {
        Some(relay) => format!(" by {relay}"),
        None => String::new(),
    };
    let action = match report.action.as_str() {
        "log" => String::new(),
        action => format!(" ({action})"),
    };
    let head = format!("{}  {}{by}{action}", report.hint, report.subject);
    let room = look.width.saturating_sub(report.severity.len() + 2);
    let mut lines = vec![format!(
        "{}  {}",
        look.tone(tone, &report.severity),
        look.fit(&head, room)
    )];
    lines.extend(look.wrap(&report.found, 2));
    for piece in &report.evidence {
        lines.extend(labelled(look, "seen", piece));
    }
    if report.messages > 0 {
        let seen = format!(
            "{}, last {}",
            count(report.messages, "message", "messages"),
            look.words.relative(report.last_seen)
        );
        lines.extend(labelled(look, "in", &seen));
    }
    lines.extend(labelled(look, "do", &report.remedy));
    if let Some(record) = &report.record {
        lines.extend(record_lines(look, record));
    }
    lines
}

/// Words with a label in front, and nothing below the label.
fn labelled(look: &Look, label: &str, words: &str) -> Vec<String> {
    let mut lines = look.wrap(words, 8);
    if let Some(first) = lines.first_mut() {
        *first = format!("  {}{}", look.cell(label, 6), first.trim_start());
    }
    lines
}

/// A record as it stands in a zone file: on one line, else within parentheses, so that
/// it can be copied from a narrow screen.
fn record_lines(look: &Look, record: &str) -> Vec<String> {
    let indent = " ".repeat(8);
    let record = look.fit(record, usize::MAX);
    if record.len() + indent.len() <= look.width {
        return vec![format!("{indent}{record}")];
    }
    let (head, strings) = record.split_once(" \"").unwrap_or((&record, ""));
    let mut lines = vec![format!("{indent}{head} (")];
    let room = look.width.saturating_sub(indent.len() + 6).max(20);
    for string in strings.trim_end_matches('"').split("\" \"") {
        let mut line = String::new();
        for term in string.split_inclusive(' ') {
            if !line.is_empty() && line.len() + term.len() > room {
                lines.push(format!("{indent}  \"{line}\""));
                line.clear();
            }
            line.push_str(term);
        }
        lines.push(format!("{indent}  \"{line}\""));
    }
    if let Some(last) = lines.last_mut() {
        last.push_str(" )");
    }
    lines
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::super::words::Words;
    use super::*;

    fn look() -> Look {
        Look {
            json: false,
            width: 80,
            colour: false,
            unicode: true,
            words: Words {
                now: "2026-11-21T12:00:00Z".parse().unwrap(),
                zone: TimeZone::UTC,
            },
        }
    }

    #[test]
    fn a_finding_fits_a_narrow_screen_and_its_record_can_still_be_pasted() {
        let record = format!(
            "uwdomein.nl. IN TXT \"v=spf1{}\" \"include:a.example -all\"",
            " include:spf.somewhere.example".repeat(6)
        );
        let report = HintReport {
            hint: "spf-relay-missing".into(),
            severity: "serious".into(),
            subject: "uwdomein.nl".into(),
            relay: Some("own".into()),
            found: "the SPF record of uwdomein.nl does not authorise own: no include of x.example (spf-include)".into(),
            evidence: vec!["uwdomein.nl TXT \"v=spf1 mx -all\"".into()],
            remedy: "Publish instead:".into(),
            record: Some(record.clone()),
            action: "hold".into(),
            messages: 3,
            last_seen: "2026-11-21T11:00:00Z".parse().unwrap(),
        };
        let lines = lines(&look(), &report);
        assert!(
            lines.iter().all(|it| it.chars().count() <= 80),
            "{lines:#?}"
        );
        assert_eq!(
            lines[0],
            "serious  spf-relay-missing  uwdomein.nl by own (hold)"
        );
        let shown = lines.join("\n");
        assert!(shown.contains("  seen  uwdomein.nl TXT"), "{shown}");
        assert!(
            shown.contains("  in    3 messages, last 1 h ago"),
            "{shown}"
        );
        let pasted: String = shown
            .split('(')
            .next_back()
            .unwrap()
            .split('"')
            .skip(1)
            .step_by(2)
            .collect();
        let whole: String = record.split('"').skip(1).step_by(2).collect();
        assert_eq!(pasted, whole);
    }
}
