//! `relay`: the relays, and trying them.

mod login;
mod standing;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

use super::context::Context;
use super::edit::apply::{ApplyArgs, apply};
use super::edit::relay::RelaySettings;
use super::edit::{self, Draft, password};
use super::exit::{Outcome, Trouble};
use super::screen::{Look, Tone};
use super::words::{grouped, size};
use crate::control::protocol::{Dialogue, Item, RelayStatus, RelayTestReport, Request, Side};
use crate::mail::text::printable;

use standing::{colour, state, tone, verification};

/// What can be done with relays.
#[derive(Debug, Subcommand)]
pub enum RelayVerb {
    /// The relays and how they are
    #[command(visible_alias = "ls")]
    List(SomeArgs),
    /// Send nothing more to a relay; its mail waits
    Pause(PauseArgs),
    /// Try a paused relay at once
    Resume(OneArgs),
    /// Connect, secure and log in, showing all that is said; no mail is sent
    Test(OneArgs),
    /// Log in for a relay that takes tokens instead of a password
    Login(login::LoginArgs),
    /// Send the test message of a relay again, showing what is said when it fails
    Verify(OneArgs),
    /// Confirm a relay with the token of its test message
    Confirm(ConfirmArgs),
    /// Write a new relay into the configuration
    Add(Box<AddArgs>),
    /// Change a relay in the configuration; what is not said stays, the password too
    Set(Box<SetArgs>),
    /// Take a relay that no user names out of the configuration; its mail is held
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
}

/// Options of `relay add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name: letters, digits, dots, hyphens and underscores
    #[arg(value_name = "RELAY")]
    relay: String,
    #[command(flatten)]
    settings: RelaySettings,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Options of `relay set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Its name in penstock.toml
    #[arg(value_name = "RELAY")]
    relay: String,
    #[command(flatten)]
    settings: RelaySettings,
    /// A key to take out, like tls or limits.per-hour; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Options of `relay remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name in penstock.toml
    #[arg(value_name = "RELAY")]
    relay: String,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// A relay, or all.
#[derive(Debug, Args)]
pub struct SomeArgs {
    /// Only this one, with all that is known of it
    #[arg(value_name = "RELAY")]
    relay: Option<String>,
}

/// A relay.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// Its name in penstock.toml
    #[arg(value_name = "RELAY")]
    relay: String,
}

/// A token.
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// What stands in the test message, 40 letters and digits
    #[arg(value_name = "TOKEN")]
    token: String,
}

/// A relay and why.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Its name in penstock.toml
    #[arg(value_name = "RELAY")]
    relay: String,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Does what was asked with relays.
pub fn relay(context: &mut Context, verb: RelayVerb) -> Outcome {
    match verb {
        RelayVerb::List(args) => list(context, args.relay),
        RelayVerb::Pause(args) => {
            let request = Request::RelayPause {
                relay: args.relay,
                note: args.note,
            };
            changed(context, &request)
        }
        RelayVerb::Resume(args) => changed(context, &Request::RelayResume { relay: args.relay }),
        RelayVerb::Test(args) => {
            let request = Request::RelayTest { relay: args.relay };
            tested(context, &request, ["works", "does not work"])
        }
        RelayVerb::Verify(args) => {
            let request = Request::RelayVerify { relay: args.relay };
            tested(
                context,
                &request,
                ["is not verified yet", "does not take its test message"],
            )
        }
        RelayVerb::Login(args) => login::login(context, args),
        RelayVerb::Confirm(args) => confirm(context, args.token),
        RelayVerb::Add(args) => add(context, &args),
        RelayVerb::Set(args) => set(context, &args),
        RelayVerb::Remove(args) => {
            let mut draft = Draft::open(context.config_path())?;
            let users = edit::user::of_relay(&draft.users.after, &args.relay);
            if !users.is_empty() {
                return Err(named_by(&args.relay, &users));
            }
            draft
                .main
                .change(|text| edit::relay::remove(text, &args.relay))?;
            apply(context, &draft, args.apply)
        }
    }
}

/// Why a relay cannot go while users name it, and what goes first.
fn named_by(relay: &str, users: &[String]) -> Trouble {
    let named = users.iter().take(3).map(String::as_str);
    let mut names = named.collect::<Vec<_>>().join(", ");
    if users.len() > 3 {
        names += &format!(" and {} more", users.len() - 3);
    }
    Trouble::configuration(format!(
        "nothing was changed, because users name relay {relay}: {names}\n\
         first: penstock user set {} --relay OTHER (or --default-relay); \
         penstock user list --relay {relay} shows all",
        users[0]
    ))
}

fn add(context: &mut Context, args: &AddArgs) -> Outcome {
    let mut draft = Draft::open(context.config_path())?;
    let settings = &args.settings;
    // Asked for only when it is known that the rest can be done.
    settings.add(&draft.main.after, &args.relay, None)?;
    let elsewhere = settings.password_file.is_some() || settings.password_credential.is_some();
    let elsewhere = elsewhere || settings.takes_tokens();
    let password = match settings.password || (settings.username.is_some() && !elsewhere) {
        true => Some(password::ask(&args.relay, false)?),
        false => None,
    };
    draft
        .main
        .change(|text| settings.add(text, &args.relay, password.as_deref()))?;
    let dry_run = args.apply.dry_run;
    apply(context, &draft, args.apply)?;
    let by_person =
        settings.oauth.is_some() && settings.grant.as_deref() != Some("client-credentials");
    if by_person && !dry_run && !context.screen.look.json {
        let next = format!("now log in: penstock relay login {}", args.relay);
        context.screen.say(&next)?;
    }
    Ok(())
}

fn set(context: &mut Context, args: &SetArgs) -> Outcome {
    let mut draft = Draft::open(context.config_path())?;
    let settings = &args.settings;
    settings.set(&draft.main.after, &args.relay, None, &args.unset)?;
    let password = match settings.password {
        true => Some(password::ask(&args.relay, false)?),
        false => None,
    };
    draft
        .main
        .change(|text| settings.set(text, &args.relay, password.as_deref(), &args.unset))?;
    apply(context, &draft, args.apply)
}

fn list(context: &mut Context, relay: Option<String>) -> Outcome {
    let alone = relay.is_some();
    let mut relays = Vec::new();
    for item in context.ask(&Request::RelayList { relay })? {
        if let Item::Relay(relay) = item? {
            relays.push(*relay);
        }
    }
    show(context, &relays, alone)
}

fn changed(context: &mut Context, request: &Request) -> Outcome {
    let relay = context.ask_one(request, |item| match item {
        Item::Relay(relay) => Some(*relay),
        _ => None,
    })?;
    show(context, &[relay], true)
}

fn show(context: &mut Context, relays: &[RelayStatus], alone: bool) -> Outcome {
    let screen = &mut context.screen;
    if screen.look.json {
        for relay in relays {
            screen.json(relay)?;
        }
        return Ok(());
    }
    let lines = match relays {
        [] => vec![NO_RELAY.to_owned()],
        [relay] if alone => detail(&screen.look, relay),
        relays => list_lines(&screen.look, relays),
    };
    for line in lines {
        screen.line(line)?;
    }
    Ok(())
}

fn confirm(context: &mut Context, token: String) -> Outcome {
    let request = Request::RelayConfirm {
        token,
        dry_run: false,
    };
    let verified = context.ask_one(&request, |item| match item {
        Item::Verified(verified) => Some(verified),
        _ => None,
    })?;
    let screen = &mut context.screen;
    if screen.look.json {
        return Ok(screen.json(&verified)?);
    }
    let text = format!(
        "{} is active: the mail of its users goes through {} from now on",
        verified.relay,
        verified.servers.join(", ")
    );
    Ok(screen.say_in(Tone::Good, &text)?)
}

/// Shows what is said as it is said; fails when the relay does not work. `verdicts` are
/// the words for how it went, well or badly.
fn tested(context: &mut Context, request: &Request, verdicts: [&str; 2]) -> Outcome {
    let mut report = None;
    for item in context.ask(request)? {
        let screen = &mut context.screen;
        match item? {
            Item::Dialogue(said) if screen.look.json => screen.json(&said)?,
            Item::Dialogue(said) => {
                for line in dialogue(&screen.look, &said) {
                    screen.line(line)?;
                }
            }
            Item::RelayTest(ended) => report = Some(ended),
            _ => {}
        }
        // A relay may take its time: what was said so far is to be seen meanwhile.
        context.screen.flush()?;
    }
    let report = report.ok_or_else(|| Trouble::failed("penstockd did not say how it ended"))?;
    let screen = &mut context.screen;
    if screen.look.json {
        screen.json(&report)?;
    } else {
        for line in test_lines(&screen.look, &report, verdicts) {
            screen.line(line)?;
        }
    }
    match report.ok {
        true => Ok(()),
        false => Err(Trouble::said(ExitCode::FAILURE)),
    }
}

fn dialogue(look: &Look, said: &Dialogue) -> Vec<String> {
    let (mark, tone) = match said.side {
        Side::Ours => (">", Tone::Strong),
        Side::Theirs => ("<", Tone::Good),
        Side::Note => ("-", Tone::Faint),
    };
    said.text
        .lines()
        .map(|line| {
            look.tone(
                tone,
                &format!("{mark} {}", printable(line.as_bytes(), 1_000)),
            )
        })
        .collect()
}

fn test_lines(look: &Look, report: &RelayTestReport, verdicts: [&str; 2]) -> Vec<String> {
    let [good, bad] = verdicts;
    let (tone, verdict) = match report.ok {
        true => (Tone::Good, good),
        false => (Tone::Bad, bad),
    };
    let mut lines = vec![look.tone(tone, &format!("{} {verdict}", report.relay))];
    let text = match report.ok {
        true => report.text.clone(),
        // Some words say it themselves: no reply at greeting within 30 s.
        false if report.text.contains(&format!(" at {}", report.stage)) => report.text.clone(),
        false => format!("at {}: {}", report.stage, report.text),
    };
    lines.extend(look.wrap(&text, 2));
    if let Some(remedy) = &report.remedy {
        lines.extend(look.wrap(remedy, 2));
    }
    lines
}

/// Where relays would be shown, and there is none.
pub const NO_RELAY: &str = "no relay is configured; see: penstock relay add --help";

/// The relays in a table, and below it why some of them are not active.
fn list_lines(look: &Look, relays: &[RelayStatus]) -> Vec<String> {
    let mut lines = table(look, relays);
    for relay in relays {
        if let Some(reason) = &relay.reason {
            lines.extend(look.marked("!", &format!("{}: {reason}", relay.relay)));
        } else if let Some(words) = login_trouble(relay) {
            lines.extend(look.marked("!", &format!("{}: {words}", relay.relay)));
        }
    }
    lines
}

/// What is wrong with the login of a relay that is not paused yet: the next message will
/// pause it.
fn login_trouble(relay: &RelayStatus) -> Option<String> {
    let login = relay.oauth.as_ref()?;
    let trouble = login.trouble.as_ref()?;
    Some(match &login.remedy {
        Some(remedy) => format!("{trouble}. {remedy}"),
        None => trouble.clone(),
    })
}

/// The relays in a table.
pub fn table(look: &Look, relays: &[RelayStatus]) -> Vec<String> {
    let mut table = plain_table(look, &["RELAY", "STATE", "WAITING", "HELD", "LAST SUCCESS"]);
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for relay in relays {
        let default = if relay.default { " (default)" } else { "" };
        table.add_row([
            Cell::new(look.fit(&relay.relay, 24) + default),
            coloured(look, state(relay), colour(relay)),
            Cell::new(grouped(relay.waiting)),
            Cell::new(grouped(relay.held)),
            Cell::new(
                relay
                    .last_success
                    .map(|at| look.words.relative(at))
                    .unwrap_or_default(),
            ),
        ]);
    }
    lines_of(&table)
}

/// All that is known of one relay.
fn detail(look: &Look, relay: &RelayStatus) -> Vec<String> {
    let words = &look.words;
    let state = look.tone(tone(relay), state(relay));
    let since = relay.since.map(|at| format!(" since {}", words.both(at)));
    let by = relay.by.as_ref().map(|it| format!(", by {it}"));
    let mut lines = vec![format!(
        "{}  {state}{}{}",
        look.tone(Tone::Strong, &look.fit(&relay.relay, 40)),
        since.unwrap_or_default(),
        by.unwrap_or_default(),
    )];
    let mut say = |label: &str, text: Option<String>| {
        if let Some(text) = text {
            let mut wrapped = look.wrap(&text, 14).into_iter();
            let first = wrapped.next().unwrap_or_default();
            lines.push(format!("{label:<14}{}", first.trim_start()));
            lines.extend(wrapped);
        }
    };
    say("why", relay.reason.clone());
    say("what to do", relay.remedy.clone());
    let login = relay.oauth.as_ref();
    if relay.remedy.is_none() {
        say("what to do", login.and_then(|it| it.remedy.clone()));
    }
    say("tried again", relay.next_probe.map(|at| words.both(at)));
    say(
        "servers",
        Some(relay.servers.join(", ")).filter(|it| !it.is_empty()),
    );
    say("tls", relay.tls.clone());
    say("login", relay.username.clone());
    say("tokens", login.map(|it| login::standing(look, it)));
    say("sender", relay.sender.clone());
    say(
        "limits",
        relay
            .preset
            .as_ref()
            .map(|it| format!("preset {it}; penstock limits {}", relay.relay)),
    );
    say(
        "waiting",
        Some(format!(
            "{} ({})",
            grouped(relay.waiting),
            size(relay.waiting_bytes)
        )),
    );
    say("held", Some(grouped(relay.held)).filter(|_| relay.held > 0));
    say("connections", Some(relay.connections.to_string()));
    say("last success", relay.last_success.map(|at| words.both(at)));
    let failure = relay.last_failure.map(|at| match &relay.last_error {
        Some(error) => format!("{}: {error}", words.both(at)),
        None => words.both(at),
    });
    say("last failure", failure);
    say("verification", verification(look, relay));
    let said = relay.verification.iter().flat_map(|it| &it.conversation);
    for said in said {
        let said = dialogue(look, said);
        lines.extend(said.into_iter().map(|it| format!("  {it}")));
    }
    lines
}

/// A table without lines that fits the screen.
pub fn plain_table(look: &Look, titles: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(look.width).unwrap_or(u16::MAX))
        .force_no_tty();
    if look.colour {
        table.enforce_styling();
    }
    table.set_header(titles.iter().map(|title| match look.colour {
        true => Cell::new(title).add_attribute(Attribute::Bold),
        false => Cell::new(title),
    }));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A cell in its colour, where colours are wanted.
fn coloured(look: &Look, text: &str, colour: Color) -> Cell {
    match look.colour {
        true => Cell::new(text).fg(colour),
        false => Cell::new(text),
    }
}

/// The lines of a table without spaces at their ends.
pub fn lines_of(table: &Table) -> Vec<String> {
    table.lines().map(|it| it.trim_end().to_owned()).collect()
}
