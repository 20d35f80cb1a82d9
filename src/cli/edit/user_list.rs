//! `user import`: a list of users, as spreadsheets write it, into users.toml.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, bail};
use toml_edit::DocumentMut;

use super::text;
use super::user::{UserSettings, entry, folded};
use crate::config::problem::nearest;

/// The columns that are understood.
const COLUMNS: [&str; 4] = ["address", "relay", "aliases", "username"];

/// What an import does.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported {
    /// The new text of users.toml.
    pub users: String,
    /// Users that were not there.
    pub added: usize,
    /// Users that were, and are different now.
    pub changed: usize,
    /// Users that were like this already.
    pub unchanged: usize,
}

/// Adds the users of a list, and changes those that are there; nobody is removed.
///
/// The first line names the columns: `address`, and perhaps `relay` (blank: the default),
/// `aliases` (spaces, commas or semicolons part them) and `username`. Commas, semicolons
/// or tabs part the columns.
pub fn import(users: &str, list: &str) -> anyhow::Result<Imported> {
    let list = list.trim_start_matches('\u{feff}');
    let first = list.lines().next().unwrap_or_default();
    let delimiter = [b';', b'\t']
        .into_iter()
        .find(|it| first.as_bytes().contains(it))
        .unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .flexible(false)
        .from_reader(list.as_bytes());
    let columns = columns(reader.headers().context("cannot read the first line")?)?;

    let mut imported = Imported {
        users: String::new(),
        added: 0,
        changed: 0,
        unchanged: 0,
    };
    let known = known(users)?;
    let mut listed = HashSet::new();
    let mut changes = Vec::new();
    let mut blocks = String::new();
    for row in reader.records() {
        let row = row.context("cannot read the list")?;
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |column: &str| {
            let place = columns.get(column)?;
            row.get(*place).filter(|it| !it.is_empty())
        };
        let Some(address) = cell("address") else {
            bail!("line {line} of the list has no address");
        };
        let wanted = folded(address).with_context(|| format!("line {line} of the list"))?;
        let settings = UserSettings {
            relay: cell("relay").map(str::to_owned),
            // A list without that column says nothing about relays.
            default_relay: columns.contains_key("relay") && cell("relay").is_none(),
            alias: cell("aliases")
                .unwrap_or_default()
                .split(|it: char| it.is_whitespace() || matches!(it, ',' | ';'))
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect(),
            username: cell("username").map(str::to_owned),
            ..UserSettings::default()
        };
        if !listed.insert(wanted.clone()) {
            bail!("line {line} of the list: {address} is there twice");
        }
        match known.get(&wanted) {
            Some(place) => changes.push((line, *place, settings)),
            None => {
                let block = settings
                    .add("", address, None)
                    .with_context(|| format!("line {line} of the list"))?;
                blocks.push_str(&block);
                blocks.push('\n');
                imported.added += 1;
            }
        }
    }
    imported.users = text::change(users, |document| {
        for (line, place, settings) in changes {
            let user = entry(document, place)?;
            let before = user.to_string();
            settings
                .put(user, None)
                .with_context(|| format!("line {line} of the list"))?;
            match user.to_string() == before {
                true => imported.unchanged += 1,
                false => imported.changed += 1,
            }
        }
        Ok(())
    })?;
    if imported.added > 0 {
        imported.users = text::append(&imported.users, &blocks);
    }
    Ok(imported)
}

/// The addresses of users.toml, and the place of each.
fn known(users: &str) -> anyhow::Result<HashMap<String, usize>> {
    let mut known = HashMap::new();
    text::change(users, |document: &mut DocumentMut| {
        let entries = document.get("user").and_then(|it| it.as_array_of_tables());
        for (place, user) in entries.into_iter().flatten().enumerate() {
            let address = user.get("address").and_then(|it| it.as_str());
            if let Some(address) = address.and_then(|it| folded(it).ok()) {
                known.insert(address, place);
            }
        }
        Ok(())
    })?;
    Ok(known)
}

/// Which column is where.
fn columns(header: &csv::StringRecord) -> anyhow::Result<HashMap<String, usize>> {
    let mut columns = HashMap::new();
    for (place, name) in header.iter().enumerate() {
        let name = name.to_lowercase();
        if !COLUMNS.contains(&name.as_str()) {
            match nearest(&name, COLUMNS) {
                Some(near) => bail!("the column {name:?} is not known; did you mean {near}?"),
                None => bail!(
                    "the column {name:?} is not known; the first line must name the columns: {}",
                    COLUMNS.join(", ")
                ),
            }
        }
        columns.insert(name, place);
    }
    if !columns.contains_key("address") {
        bail!("the first line names no column address");
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "# us\n[[user]]\naddress = \"jan@a.example\"\nrelay = \"own\" # yes\n";

    #[test]
    fn a_list_adds_and_changes_users_and_keeps_comments() {
        let list = "\u{feff}Address;Relay;Aliases\r\njan@A.example;other;\r\n\
            \"piet@a.example\";own;p@a.example pp@a.example\r\n@b.example;;\r\n";
        let imported = import(USERS, list).unwrap();
        assert_eq!(
            (imported.added, imported.changed, imported.unchanged),
            (2, 1, 0)
        );
        assert_eq!(
            imported.users,
            "# us\n[[user]]\naddress = \"jan@a.example\"\nrelay = \"other\" # yes\n\n\
             [[user]]\naddress = \"piet@a.example\"\naliases = [\"p@a.example\", \"pp@a.example\"]\nrelay = \"own\"\n\n\
             [[user]]\naddress = \"@b.example\"\n"
        );
        let again = import(&imported.users, list).unwrap();
        assert_eq!((again.added, again.changed, again.unchanged), (0, 0, 3));
        assert_eq!(again.users, imported.users);
    }

    #[test]
    fn a_blank_relay_is_the_default_and_a_missing_column_says_nothing() {
        let import = |list| import(USERS, list).unwrap();
        let blank = import("address,relay\njan@a.example,\n");
        assert_eq!(blank.changed, 1);
        assert_eq!(blank.users, "# us\n[[user]]\naddress = \"jan@a.example\"\n");
        let silent = import("address,username\njan@a.example,\n");
        assert_eq!((silent.unchanged, silent.users.as_str()), (1, USERS));
    }

    #[test]
    fn aliases_are_parted_as_people_part_them() {
        for cell in [
            "p@a.example pp@a.example",
            "p@a.example, pp@a.example",
            "p@a.example;pp@a.example;",
        ] {
            let list = format!("address,aliases\npiet@a.example,\"{cell}\"\n");
            let users = import("", &list).unwrap().users;
            assert!(
                users.contains("aliases = [\"p@a.example\", \"pp@a.example\"]"),
                "{users}"
            );
        }
    }

    #[test]
    fn a_list_that_is_not_understood_changes_nothing() {
        for (list, expected) in [
            ("", "names no column address"),
            (
                "jan@a.example,own\n",
                "the first line must name the columns",
            ),
            ("adress,relay\n", "did you mean address?"),
            (
                "address,password\na@b.example,x\n",
                "the column \"password\" is not known",
            ),
            ("address,relay\na@b.example\n", "cannot read the list"),
            ("address,relay\n,own\n", "line 2 of the list has no address"),
            ("address\njan\n", "line 2 of the list"),
            (
                "address\na@b.example\nA@b.example\n",
                "line 3 of the list: A@b.example is there twice",
            ),
        ] {
            let error = import(USERS, list).unwrap_err().to_string();
            assert!(error.contains(expected), "{list}: {error}");
        }
    }
}
