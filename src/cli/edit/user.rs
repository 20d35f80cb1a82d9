//! `user add`, `user set` and `user remove`, as changes to the text of users.toml.

use anyhow::{anyhow, bail};
use clap::Args;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike};

use super::text;
use crate::mail::{Domain, Mailbox};

/// What can be said of a user; what is not said stays as it is.
#[derive(Debug, Clone, Default, Args)]
pub struct UserSettings {
    /// The relay, a name in penstock.toml
    #[arg(long, conflicts_with = "default_relay")]
    pub relay: Option<String>,
    /// Take the default relay
    #[arg(long)]
    pub default_relay: bool,
    /// A further address of the same user; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub alias: Vec<String>,
    /// An alias to take away; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub remove_alias: Vec<String>,
    /// The name to log in with, if not the address; '' for the address again
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Ask for a password to log in with, or read it from standard input
    #[arg(long, conflicts_with = "no_password")]
    pub password: bool,
    /// Take the password away: the addresses need no login any more; the username stays
    #[arg(long)]
    pub no_password: bool,
}

impl UserSettings {
    /// Writes a new user.
    pub fn add(&self, users: &str, address: &str, hash: Option<&str>) -> anyhow::Result<String> {
        let wanted = folded(address)?;
        let mut there = None;
        text::change(users, |document| {
            there = find(document, &wanted);
            Ok(())
        })?;
        match there {
            Some(Found { alias: false, .. }) => {
                bail!(
                    "there is a user {address} already; to change it: penstock user set {address}"
                )
            }
            Some(Found { owner, .. }) => bail!("{address} is an alias of {owner}"),
            None => {}
        }
        let block = text::lines(&[("address".to_owned(), address.into())]);
        let added = text::append(users, &format!("[[user]]\n{block}"));
        self.set(&added, address, hash)
    }

    /// Changes a user.
    pub fn set(&self, users: &str, address: &str, hash: Option<&str>) -> anyhow::Result<String> {
        let wanted = folded(address)?;
        text::change(users, |document| {
            let place = place(document, &wanted, address)?;
            self.put(entry(document, place)?, hash)
        })
    }

    /// Writes what was said into the user's table.
    pub fn put(&self, user: &mut Table, hash: Option<&str>) -> anyhow::Result<()> {
        self.put_aliases(user)?;
        if let Some(relay) = &self.relay {
            text::put(user, "relay", relay.into());
        }
        if self.default_relay {
            user.remove("relay");
        }
        match self.username.as_deref() {
            Some("") => drop(user.remove("username")),
            Some(username) => text::put(user, "username", username.into()),
            None => {}
        }
        if let Some(hash) = hash {
            text::put(user, "password-hash", hash.into());
        }
        if self.no_password {
            user.remove("password-hash");
        }
        Ok(())
    }

    fn put_aliases(&self, user: &mut dyn TableLike) -> anyhow::Result<()> {
        if self.alias.is_empty() && self.remove_alias.is_empty() {
            return Ok(());
        }
        if !user.contains_key("aliases") {
            text::put(user, "aliases", Array::new().into());
        }
        let aliases = user
            .get_mut("aliases")
            .and_then(Item::as_array_mut)
            .ok_or_else(|| anyhow!("aliases is not a list"))?;
        for alias in &self.remove_alias {
            let wanted = folded(alias)?;
            let before = aliases.len();
            aliases
                .retain(|it| it.as_str().and_then(|it| folded(it).ok()).as_ref() != Some(&wanted));
            if aliases.len() == before {
                bail!("{alias} is no alias of this user");
            }
        }
        for alias in &self.alias {
            let wanted = folded(alias)?;
            let known = aliases
                .iter()
                .any(|it| it.as_str().and_then(|it| folded(it).ok()).as_ref() == Some(&wanted));
            if !known {
                aliases.push(alias.as_str());
            }
        }
        Ok(())
    }
}

/// The users who name this relay, in order.
pub fn of_relay(users: &str, relay: &str) -> Vec<String> {
    let root = users.parse::<toml::Table>().unwrap_or_default();
    let users = root.get("user").and_then(toml::Value::as_array);
    let users = users.into_iter().flatten();
    let named = users.filter(|it| it.get("relay").and_then(toml::Value::as_str) == Some(relay));
    named
        .filter_map(|it| Some(it.get("address")?.as_str()?.to_owned()))
        .collect()
}

/// Takes a user out.
pub fn remove(users: &str, address: &str) -> anyhow::Result<String> {
    let wanted = folded(address)?;
    let mut found = 0;
    text::change(users, |document| {
        found = place(document, &wanted, address)?;
        Ok(())
    })?;
    let found = found.to_string();
    text::cut(users, |path| path == ["user", found.as_str()])
}

/// Where an address stands in users.toml.
struct Found {
    place: usize,
    owner: String,
    alias: bool,
}

fn find(document: &DocumentMut, wanted: &str) -> Option<Found> {
    let users = document.get("user")?.as_array_of_tables()?;
    let is = |text: Option<&str>| text.and_then(|it| folded(it).ok()).as_deref() == Some(wanted);
    users.iter().enumerate().find_map(|(place, user)| {
        let owner = user.get("address").and_then(Item::as_str);
        let aliases = user.get("aliases").and_then(Item::as_array);
        let alias = aliases.is_some_and(|it| it.iter().any(|it| is(it.as_str())));
        (is(owner) || alias).then(|| Found {
            place,
            owner: owner.unwrap_or_default().to_owned(),
            alias: !is(owner),
        })
    })
}

/// The place of the user with this very address, not an alias.
fn place(document: &DocumentMut, wanted: &str, address: &str) -> anyhow::Result<usize> {
    match find(document, wanted) {
        Some(Found {
            place,
            alias: false,
            ..
        }) => Ok(place),
        Some(Found { owner, .. }) => bail!("{address} is an alias of {owner}: name that"),
        None => bail!("there is no user {address}; see: penstock user list"),
    }
}

/// The table of the user at a place.
pub fn entry(document: &mut DocumentMut, place: usize) -> anyhow::Result<&mut Table> {
    document
        .get_mut("user")
        .and_then(Item::as_array_of_tables_mut)
        .and_then(|it| it.get_mut(place))
        .ok_or_else(|| anyhow!("there is no such [[user]]"))
}

/// The one spelling of an address or a @domain.
pub fn folded(address: &str) -> anyhow::Result<String> {
    let folded = match address.strip_prefix('@') {
        Some(domain) => Domain::parse(domain).map(|it| format!("@{}", it.ascii())),
        None => Mailbox::parse(address).map(|it| it.folded()),
    };
    folded.map_err(|error| anyhow!("{address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const MAIN: &str = "default-relay = \"own\"\n[relays.own]\nserver = \"a.example\"\n";
    const USERS: &str = "# all of us\n\n# Jan\n[[user]]\naddress = \"Jan@a.example\" # he\nrelay = \"own\"\n\n\
        # the rest\n[[user]]\naddress = \"@a.example\"\n";

    fn settings(change: impl FnOnce(&mut UserSettings)) -> UserSettings {
        let mut settings = UserSettings::default();
        change(&mut settings);
        settings
    }

    #[test]
    fn a_user_is_added_changed_and_removed_and_comments_stay() {
        let new = settings(|it| {
            it.relay = Some("own".into());
            it.alias = vec!["p@a.example".into()];
        });
        let added = new.add(USERS, "piet@a.example", None).unwrap();
        assert_eq!(
            added,
            format!(
                "{USERS}\n[[user]]\naddress = \"piet@a.example\"\naliases = [\"p@a.example\"]\nrelay = \"own\"\n"
            )
        );
        assert_eq!(Config::parse(MAIN, &added).unwrap().users.len(), 3);
        assert_eq!(
            remove(&added, "PIET@A.example").unwrap().trim_end(),
            USERS.trim_end()
        );

        let changed = settings(|it| {
            it.default_relay = true;
            it.alias = vec!["j@a.example".into(), "J@a.example".into()];
        })
        .set(USERS, "jan@a.example", Some("$argon2id$x"))
        .unwrap();
        assert!(changed.contains(
            "address = \"Jan@a.example\" # he\naliases = [\"j@a.example\"]\npassword-hash = \"$argon2id$x\"\n\n# the rest\n"
        ), "{changed}");
        let less = settings(|it| {
            it.remove_alias = vec!["j@a.example".into()];
            it.no_password = true;
        });
        let less = less.set(&changed, "jan@a.example", None).unwrap();
        assert!(less.contains("aliases = []\n\n# the rest"), "{less}");
        assert_eq!(
            remove(USERS, "jan@a.example").unwrap(),
            "# all of us\n\n# the rest\n[[user]]\naddress = \"@a.example\"\n"
        );
    }

    #[test]
    fn a_password_goes_without_the_name_that_belongs_to_it() {
        let users =
            "[[user]]\naddress = \"jan@a.example\"\nusername = \"jan\"\npassword-hash = \"x\"\n";
        let open = settings(|it| it.no_password = true);
        let open = open.set(users, "jan@a.example", None).unwrap();
        assert_eq!(open, users.replace("password-hash = \"x\"\n", ""));
        let bare = settings(|it| it.username = Some(String::new()));
        let bare = bare.set(&open, "jan@a.example", None).unwrap();
        assert_eq!(bare, "[[user]]\naddress = \"jan@a.example\"\n");
    }

    #[test]
    fn the_users_of_a_relay_are_named() {
        assert_eq!(of_relay(USERS, "own"), ["Jan@a.example"]);
        assert!(of_relay(USERS, "other").is_empty());
    }

    #[test]
    fn what_is_there_or_not_there_is_said() {
        let nothing = UserSettings::default();
        let error = |it: anyhow::Result<String>| it.unwrap_err().to_string();
        assert!(error(nothing.add(USERS, "JAN@a.example", None)).contains("penstock user set"));
        assert!(error(nothing.set(USERS, "piet@a.example", None)).contains("there is no user"));
        assert!(error(nothing.set(USERS, "piet", None)).contains("needs an @"));
        let aliased = settings(|it| it.alias = vec!["j@a.example".into()]);
        let users = aliased.set(USERS, "jan@a.example", None).unwrap();
        assert!(error(remove(&users, "j@a.example")).contains("alias of Jan@a.example"));
        assert!(error(nothing.add(&users, "j@a.example", None)).contains("alias of Jan@a.example"));
        assert!(nothing.add("", "@b.example", None).is_ok());
    }
}
