//! `user`: the directory in users.toml, listed and changed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::context::Context;
use super::edit::apply::{ApplyArgs, apply};
use super::edit::user::UserSettings;
use super::edit::{Draft, password, user, user_list, utf8};
use super::exit::{Outcome, Trouble};
use super::relay::{lines_of, plain_table};
use crate::config::{User, UserAddress};

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub enum UserVerb {
    /// The users and their relays
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Write a new user, or a whole @domain
    Add(SetArgs),
    /// Change a user; what is not said stays
    Set(SetArgs),
    /// Take a user out; the mail that waits keeps its relay
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Add and change the users of a list, as spreadsheets write it
    Import(ImportArgs),
}

/// Options of `user list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only the users of this relay
    #[arg(long)]
    relay: Option<String>,
}

/// Options of `user add` and `user set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The address, or @domain for everyone else there
    #[arg(value_name = "ADDRESS")]
    address: String,
    #[command(flatten)]
    settings: UserSettings,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Options of `user remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The addresses
    #[arg(value_name = "ADDRESS", required = true)]
    addresses: Vec<String>,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Options of `user import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The list; its first line names the columns: address, relay (blank: the default),
    /// aliases (spaces, commas or semicolons part them), username
    #[arg(value_name = "LIST.csv")]
    list: PathBuf,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Does what was asked with users.
pub fn user(context: &mut Context, verb: UserVerb) -> Outcome {
    if let UserVerb::List(args) = verb {
        return list(context, args);
    }
    let mut draft = Draft::open(context.config_path())?;
    let how = match verb {
        UserVerb::List(_) => ApplyArgs::default(),
        UserVerb::Add(args) => {
            // Asked for only when it is known that the rest can be done.
            args.settings.add(&draft.users.after, &args.address, None)?;
            let hash = new_hash(&args)?;
            draft
                .users
                .change(|text| args.settings.add(text, &args.address, hash.as_deref()))?;
            args.apply
        }
        UserVerb::Set(args) => {
            args.settings.set(&draft.users.after, &args.address, None)?;
            let hash = new_hash(&args)?;
            draft
                .users
                .change(|text| args.settings.set(text, &args.address, hash.as_deref()))?;
            args.apply
        }
        UserVerb::Remove(args) => {
            for address in &args.addresses {
                draft.users.change(|text| user::remove(text, address))?;
            }
            args.apply
        }
        UserVerb::Import(args) => {
            let list = std::fs::read(&args.list).map_err(|error| {
                Trouble::failed(format!("cannot read {}: {error}", args.list.display()))
            })?;
            let list = utf8(&args.list, list).map_err(Trouble::failed)?;
            let imported = user_list::import(&draft.users.after, &list)?;
            if !context.screen.look.json {
                context.screen.line(format!(
                    "{} new, {} changed, {} as they were",
                    imported.added, imported.changed, imported.unchanged
                ))?;
            }
            draft.users.change(|_| Ok(imported.users))?;
            args.apply
        }
    };
    apply(context, &draft, how)
}

fn new_hash(args: &SetArgs) -> anyhow::Result<Option<String>> {
    if !args.settings.password {
        return Ok(None);
    }
    let password = password::ask(&args.address, true)?;
    password::hash(&password).map(Some)
}

fn list(context: &mut Context, args: ListArgs) -> Outcome {
    let config = context.configuration()?.config;
    let default = config.default_relay.as_deref();
    let users: Vec<&User> = config
        .users
        .iter()
        .filter(|it| {
            let relay = it.relay.as_deref().or(default);
            args.relay.is_none() || args.relay.as_deref() == relay
        })
        .collect();
    let screen = &mut context.screen;
    if screen.look.json {
        for user in users {
            let login = user.password_hash.as_ref().map(|_| login_name(user));
            screen.json(&json!({
                "address": address(user),
                "relay": user.relay.as_deref().or(default),
                "default_relay": user.relay.is_none(),
                "aliases": user.aliases.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "login": login,
            }))?;
        }
        return Ok(());
    }
    if users.is_empty() {
        return Ok(screen.line("no user; see: penstock user add --help")?);
    }
    let look = &screen.look;
    let mut table = plain_table(look, &["ADDRESS", "RELAY", "LOGIN", "ALIASES"]);
    for user in users {
        let relay = match &user.relay {
            Some(relay) => look.fit(relay, 24),
            None => format!("{} (default)", look.fit(default.unwrap_or("none"), 24)),
        };
        let login = match user.password_hash {
            Some(_) => look.fit(&login_name(user), 30),
            None => String::new(),
        };
        let aliases: Vec<String> = user.aliases.iter().map(ToString::to_string).collect();
        table.add_row([
            Cell::new(look.fit(&address(user), 40)),
            Cell::new(relay),
            Cell::new(login),
            Cell::new(look.fit(&aliases.join(" "), 60)),
        ]);
    }
    for line in lines_of(&table) {
        screen.line(line)?;
    }
    Ok(())
}

fn address(user: &User) -> String {
    match &user.address {
        UserAddress::Mailbox(mailbox) => mailbox.to_string(),
        UserAddress::Domain(domain) => format!("@{domain}"),
    }
}

fn login_name(user: &User) -> String {
    user.username.clone().unwrap_or_else(|| address(user))
}
