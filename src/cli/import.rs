//! `import postfix DIR`: the relays, logins and senders of a Postfix, as ours.
//!
//! Says what was understood and what was not; writes only when asked to.

mod next_hop;
mod plan;
mod postfix;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use toml_edit::{Array, InlineTable, Value};

use super::context::Context;
use super::edit::apply::{ApplyArgs, apply};
use super::edit::user::folded;
use super::edit::{Draft, text};
use super::exit::Outcome;
use super::screen::Tone;
use plan::{Limit, Plan, PlannedRelay};
use postfix::MainFile;

/// Whose configuration is read.
#[derive(Debug, Subcommand)]
pub enum ImportVerb {
    /// The relays, logins and senders in Postfix's main.cf and its tables
    Postfix(PostfixArgs),
}

/// Options of `import postfix`.
#[derive(Debug, Args)]
pub struct PostfixArgs {
    /// The directory of main.cf: /etc/postfix, or a copy of it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Write it into penstock.toml and users.toml
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Does what was asked.
pub fn import(context: &mut Context, verb: ImportVerb) -> Outcome {
    let ImportVerb::Postfix(args) = verb;
    let main = MainFile::open(&args.directory)?;
    let mut draft = Draft::open(context.config_path())?;
    let mut plan = plan::plan(&main, &relay_names(&draft.main.after));
    write_into(&mut draft, &mut plan)?;

    let screen = &mut context.screen;
    if screen.look.json {
        screen.json(&json!({ "understood": plan.understood, "left": plan.left }))?;
    } else {
        for (title, tone, lines) in [
            ("understood", Tone::Good, &plan.understood),
            ("not taken over, or worth a look", Tone::Warning, &plan.left),
        ] {
            if lines.is_empty() {
                continue;
            }
            screen.line(screen.look.tone(tone, title))?;
            for line in lines {
                for line in screen.look.wrap(line, 2) {
                    screen.line(line)?;
                }
            }
        }
    }
    let how = ApplyArgs {
        dry_run: args.apply.dry_run || !args.write,
        ..args.apply
    };
    apply(context, &draft, how)?;
    if !args.write && !context.screen.look.json {
        context.screen.line("to write it: the same with --write")?;
    }
    Ok(())
}

/// Writes a plan into the draft; what stands there already is kept, and said.
fn write_into(draft: &mut Draft, plan: &mut Plan) -> anyhow::Result<()> {
    for (table, key, value) in &plan.values {
        let there = has_key(&draft.main.after, table, key);
        if there {
            plan.left
                .push(format!("{key}: there is one already, and it is kept"));
            continue;
        }
        draft.main.change(|main| put(main, table, key, value))?;
    }
    if let Some(name) = &plan.default_relay {
        match has_key(&draft.main.after, "", "default-relay") {
            true => plan.left.push(format!(
                "default-relay: there is one already; to change it: penstock relay set {name} --default"
            )),
            false => draft
                .main
                .change(|main| text::put_top(main, "default-relay", name))?,
        }
    }
    for relay in &plan.relays {
        draft
            .main
            .change(|main| Ok(text::append(main, &relay_block(relay))))?;
    }
    let known = addresses(&draft.users.after);
    let mut blocks = String::new();
    for (address, relay) in &plan.users {
        if folded(address).is_ok_and(|it| known.contains(&it)) {
            plan.left
                .push(format!("user {address}: is there already, and is kept"));
            continue;
        }
        let mut pairs = vec![("address".to_owned(), Value::from(address.as_str()))];
        if let Some(relay) = relay {
            pairs.push(("relay".to_owned(), relay.as_str().into()));
        }
        blocks.push_str(&format!("[[user]]\n{}\n", text::lines(&pairs)));
    }
    if !blocks.is_empty() {
        draft
            .users
            .change(|users| Ok(text::append(users, &blocks)))?;
    }
    Ok(())
}

fn relay_block(relay: &PlannedRelay) -> String {
    let mut pairs: Vec<(String, Value)> = Vec::new();
    for (key, value) in &relay.keys {
        pairs.push(((*key).to_owned(), value.as_str().into()));
        if *key == "server" && !relay.fallback.is_empty() {
            let list: Array = relay.fallback.iter().map(String::as_str).collect();
            pairs.push(("fallback".to_owned(), list.into()));
        }
    }
    if !relay.limits.is_empty() {
        let mut limits = InlineTable::new();
        for (key, value) in &relay.limits {
            let value = match value {
                Limit::Number(number) => Value::from(i64::from(*number)),
                Limit::Text(text) => Value::from(text.as_str()),
            };
            limits.insert(*key, value);
        }
        pairs.push(("limits".to_owned(), limits.into()));
    }
    format!(
        "[relays.{}]\n{}",
        text::key(&relay.name),
        text::lines(&pairs)
    )
}

fn put(main: &str, table: &str, key: &str, value: &str) -> anyhow::Result<String> {
    if table.is_empty() {
        return text::put_top(main, key, value);
    }
    let there = main
        .parse::<toml::Table>()
        .is_ok_and(|it| it.contains_key(table));
    match there {
        true => text::change(main, |document| {
            text::put(text::table_at(document, &[table])?, key, value.into());
            Ok(())
        }),
        false => {
            let line = text::lines(&[(key.to_owned(), value.into())]);
            Ok(text::append(main, &format!("[{table}]\n{line}")))
        }
    }
}

fn has_key(main: &str, table: &str, key: &str) -> bool {
    let Ok(root) = main.parse::<toml::Table>() else {
        return false;
    };
    match table {
        "" => root.contains_key(key),
        table => root.get(table).is_some_and(|it| it.get(key).is_some()),
    }
}

fn relay_names(main: &str) -> BTreeSet<String> {
    let root = main.parse::<toml::Table>().unwrap_or_default();
    let relays = root.get("relays").and_then(toml::Value::as_table);
    relays
        .map(|it| it.keys().cloned().collect())
        .unwrap_or_default()
}

fn addresses(users: &str) -> BTreeSet<String> {
    let root = users.parse::<toml::Table>().unwrap_or_default();
    let users = root.get("user").and_then(toml::Value::as_array);
    let users = users.into_iter().flatten();
    let strings = users.flat_map(|user| {
        let aliases = user.get("aliases").and_then(toml::Value::as_array);
        let aliases = aliases.into_iter().flatten();
        user.get("address").into_iter().chain(aliases)
    });
    strings.filter_map(|it| folded(it.as_str()?).ok()).collect()
}
