//! From a draft to the running daemon: checked, shown, written, reloaded.

use clap::Args;
use serde_json::json;
use unicode_width::UnicodeWidthStr;

use super::Draft;
use crate::cli::context::Context;
use crate::cli::exit::{Outcome, Trouble};
use crate::cli::screen::Tone;
use crate::config::{self, Problem};
use crate::control::client::ClientError;
use crate::control::protocol::{Item, ReloadReport, Request};

/// Options of every verb that changes the configuration.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ApplyArgs {
    /// Only show what would be written
    #[arg(long)]
    pub dry_run: bool,
    /// Write, and leave the daemon as it is until the next reload
    #[arg(long)]
    pub no_reload: bool,
}

/// What the daemon made of it.
enum Reloaded {
    NotAsked,
    NoDaemon,
    Done(ReloadReport),
    Failed(Trouble),
}

/// Checks the draft as a whole, shows the difference, writes it and reloads the daemon.
pub fn apply(context: &mut Context, draft: &Draft, args: ApplyArgs) -> Outcome {
    let before = config::inspect(context.config_path())
        .map(|it| it.warnings)
        .unwrap_or_default();
    let checked = draft.check().map_err(|error| {
        Trouble::configuration(format!("nothing was changed, because then\n{error}"))
    })?;
    let said = |it: &Problem| {
        before
            .iter()
            .any(|old| (&old.key, &old.what) == (&it.key, &it.what))
    };
    let warnings: Vec<&Problem> = checked.warnings.iter().filter(|it| !said(it)).collect();
    let difference = draft.difference();
    let changes = !difference.is_empty();
    if !context.screen.look.json {
        show(context, &difference, &warnings)?;
    }
    let written = changes && !args.dry_run;
    if written {
        draft.write()?;
    }
    let reloaded = match written && !args.no_reload {
        true => reload(context),
        false => Reloaded::NotAsked,
    };
    if context.screen.look.json {
        let difference: Vec<_> = difference
            .iter()
            .map(|(file, lines)| json!({ "file": file, "lines": lines }))
            .collect();
        let warnings: Vec<String> = warnings.iter().map(|it| it.to_string()).collect();
        context.screen.json(&json!({
            "written": written,
            "reloaded": matches!(reloaded, Reloaded::Done(_)),
            "difference": difference,
            "warnings": warnings,
        }))?;
    }
    let verdict = match (&reloaded, changes, args.dry_run) {
        (_, false, _) => "nothing is different",
        (_, true, true) => "checked; not written",
        (Reloaded::NotAsked, ..) => "written; it takes effect at the next reload",
        (Reloaded::NoDaemon, ..) => "written; penstockd does not run, it takes effect at its start",
        (Reloaded::Done(_), ..) => "written, and in effect",
        (Reloaded::Failed(_), ..) => "written, but penstockd did not take it",
    };
    if !context.screen.look.json {
        context.screen.say(verdict)?;
        if let Reloaded::Done(report) = &reloaded {
            for restart in &report.needs_restart {
                let text = format!("after a restart only: {restart}");
                context.screen.say_in(Tone::Warning, &text)?;
            }
        }
    }
    match reloaded {
        Reloaded::Failed(trouble) => Err(trouble),
        _ => Ok(()),
    }
}

fn show(
    context: &mut Context,
    difference: &[(&std::path::Path, Vec<String>)],
    warnings: &[&Problem],
) -> Outcome {
    let screen = &mut context.screen;
    for (file, lines) in difference {
        screen.line(file.display().to_string())?;
        for line in lines {
            let shown = screen.look.fit(line, 500);
            let tone = match line.as_bytes().first() {
                Some(b'+') => Tone::Good,
                Some(b'-') => Tone::Bad,
                _ => Tone::Faint,
            };
            // Folded and not cut: it is to be read before it is written.
            let folded = match (shown.get(..1), shown.width() + 2 > screen.look.width) {
                (Some(mark), true) => screen.look.marked(&format!("  {mark}"), &shown[1..]),
                _ => vec![format!("  {shown}")],
            };
            for line in folded {
                screen.line(screen.look.tone(tone, &line))?;
            }
        }
    }
    for warning in warnings {
        screen.line(format!("warning: {warning}"))?;
    }
    Ok(())
}

fn reload(context: &Context) -> Reloaded {
    let answer = match context.ask(&Request::Reload {}) {
        Ok(answer) => answer,
        Err(ClientError::NoDaemon { .. }) => return Reloaded::NoDaemon,
        Err(error) => return Reloaded::Failed(error.into()),
    };
    for item in answer {
        match item {
            Ok(Item::Reload(report)) => return Reloaded::Done(report),
            Ok(_) => {}
            Err(error) => return Reloaded::Failed(error.into()),
        }
    }
    Reloaded::Failed(Trouble::failed(
        "penstockd answered without saying anything",
    ))
}
