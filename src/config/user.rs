//! `users.toml`: who sends through which relay.

use std::collections::HashMap;

use argon2::password_hash::phc::PasswordHash;

use super::file::Table;
use super::problem::{nearest, quoted};
use super::{Secret, User, UserAddress};
use crate::mail::{Domain, Mailbox, folded_login};

/// A hash that takes more memory than this to check is a way to stop the daemon.
const HASH_MEMORY_MAXIMUM_KIB: u32 = 1_048_576;
/// The same, for time.
const HASH_PASSES_MAXIMUM: u32 = 64;

/// What was read of an address or login so far, and where it stands.
#[derive(Default)]
struct Seen {
    addresses: HashMap<String, Option<usize>>,
    logins: HashMap<String, Option<usize>>,
}

/// The directory, in the order of the file.
pub(super) fn read_users(root: Table, relays: &[String], default_relay: Option<&str>) -> Vec<User> {
    let mut seen = Seen::default();
    root.tables("user", |table| {
        let user = read_user(table, relays, default_relay)?;
        check_clashes(table, &user, &mut seen);
        Some(user)
    })
}

fn read_user(table: Table, relays: &[String], default_relay: Option<&str>) -> Option<User> {
    if !table.has("address") {
        table.wrong(
            "address",
            "is missing",
            "write address = \"jan@example.nl\", or \"@example.nl\" for a whole domain",
        );
    }
    let address = table.parsed(
        "address",
        "write an address like \"jan@example.nl\", or \"@example.nl\" for a whole domain",
        |text| match text.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(UserAddress::Domain),
            None => Mailbox::parse(text).map(UserAddress::Mailbox),
        },
    );
    if let Some(UserAddress::Mailbox(mailbox)) = &address
        && mailbox.local() == "*"
    {
        table.warn(
            "address",
            &format!("\"{mailbox}\" is somebody who is called *, and not everybody of the domain"),
            &format!("write \"@{}\" for the whole domain", mailbox.domain()),
        );
    }
    let aliases = table
        .list(
            "aliases",
            "write addresses like \"j.jansen@example.nl\"",
            Mailbox::parse,
        )
        .unwrap_or_default();
    let user = User {
        address: address?,
        aliases,
        relay: table.text("relay").map(str::to_owned),
        username: table.parsed(
            "username",
            "write a name without control characters",
            |it| match it.is_empty() || it.chars().any(char::is_control) {
                true => Err("is not a user name"),
                false => Ok(it.to_owned()),
            },
        ),
        password_hash: read_password_hash(table),
    };
    if let UserAddress::Domain(domain) = &user.address {
        for key in ["aliases", "username", "password-hash"] {
            if table.has(key) {
                table.wrong(
                    key,
                    &format!("cannot be given to the whole domain @{domain}"),
                    "delete it here and write a [[user]] with one address",
                );
            }
        }
    } else if user.username.is_some() && !table.has("password-hash") {
        table.warn(
            "username",
            "has no password-hash: nobody can log in with it",
            "run: penstock user set ADDRESS --password, or delete username",
        );
    }
    match &user.relay {
        Some(relay) if !relays.contains(relay) => {
            let names = relays.iter().map(String::as_str);
            table.wrong(
                "relay",
                &format!("there is no relay {}", quoted(relay)),
                &match nearest(relay, names) {
                    Some(near) => format!("write \"{near}\", or add [relays.{relay}]"),
                    None => format!("add [relays.{relay}] to penstock.toml"),
                },
            );
        }
        None if default_relay.is_none() && !table.has("relay") => table.wrong(
            "relay",
            "is not written, and there is no default-relay",
            "write relay = \"...\" here, or default-relay in penstock.toml",
        ),
        _ => {}
    }
    Some(user)
}

/// Never shows the hash: it is what a guesser needs.
fn read_password_hash(table: Table) -> Option<Secret> {
    let key = "password-hash";
    let text = table.text(key)?;
    let remedy = "run: penstock user set ADDRESS --password";
    let costs = PasswordHash::new(text).ok().and_then(|hash| {
        argon2::Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        hash.salt.as_ref()?;
        hash.hash.as_ref()?;
        argon2::Params::try_from(&hash).ok()
    });
    match costs {
        None => table.wrong(key, "is not an argon2 hash like $argon2id$v=19$...", remedy),
        Some(costs)
            if costs.m_cost() > HASH_MEMORY_MAXIMUM_KIB || costs.t_cost() > HASH_PASSES_MAXIMUM =>
        {
            table.wrong(key, "takes over 1 GiB or 64 passes to check", remedy);
        }
        Some(_) => {}
    }
    Some(Secret::new(text.to_owned()))
}

/// An address belongs to one entry, and a login name to one user.
fn check_clashes(table: Table, user: &User, seen: &mut Seen) {
    let own = match &user.address {
        UserAddress::Mailbox(mailbox) => mailbox.folded(),
        UserAddress::Domain(domain) => format!("@{}", domain.ascii()),
    };
    let aliases = user.aliases.iter().map(|it| ("aliases", it.folded()));
    for (key, address) in std::iter::once(("address", own.clone())).chain(aliases) {
        let line = table.line(key);
        if let Some(before) = seen.addresses.insert(address.clone(), line) {
            table.wrong(
                key,
                &format!("{address} already stands {}", at(before)),
                "an address or alias belongs to one [[user]]: delete one of the two",
            );
        }
    }
    if user.password_hash.is_none() {
        return;
    }
    let login = user
        .username
        .as_ref()
        .map_or(own, |name| folded_login(name));
    let key = if user.username.is_some() {
        "username"
    } else {
        "address"
    };
    if let Some(before) = seen.logins.insert(login.clone(), table.line(key)) {
        table.wrong(
            key,
            &format!("the login name {login} already stands {}", at(before)),
            "give each user a username of its own",
        );
    }
}

fn at(line: Option<usize>) -> String {
    line.map_or("above".to_owned(), |line| format!("in line {line}"))
}
