//! The user directory: addresses, aliases, domains and logins, ready to look up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{NoRoute, Route};
use crate::config::{Config, User, UserAddress};
use crate::mail::{Mailbox, Rule, folded_login};

/// Every user by everything that names one.
///
/// One hash look-up a question, so that 100,000 users cost no more than ten. Where two
/// entries claim the same name the first one written has it; the configuration check
/// refuses such a file anyway.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// By folded address, aliases included.
    addresses: HashMap<String, Arc<User>>,
    /// By domain as A-labels.
    domains: HashMap<String, Arc<User>>,
    /// By folded login name; only who has a password.
    logins: HashMap<String, Arc<User>>,
    default_relay: Option<String>,
    /// Relays that must be verified before they are used.
    verified_only: HashSet<String>,
}

impl Directory {
    /// The directory of one configuration.
    pub fn new(config: &Config) -> Self {
        let mut directory = Self {
            default_relay: config.default_relay.clone(),
            verified_only: config
                .relays
                .values()
                .filter(|it| it.verify)
                .map(|it| it.name.clone())
                .collect(),
            ..Self::default()
        };
        for user in &config.users {
            directory.add(Arc::new(user.clone()));
        }
        directory
    }

    fn add(&mut self, user: Arc<User>) {
        match &user.address {
            UserAddress::Domain(domain) => {
                self.domains
                    .entry(domain.ascii().to_owned())
                    .or_insert_with(|| user.clone());
            }
            UserAddress::Mailbox(mailbox) => {
                self.addresses
                    .entry(mailbox.folded())
                    .or_insert_with(|| user.clone());
            }
        }
        for alias in &user.aliases {
            self.addresses
                .entry(alias.folded())
                .or_insert_with(|| user.clone());
        }
        if user.password_hash.is_some() {
            let name = match (&user.username, &user.address) {
                (Some(username), _) => folded_login(username),
                (None, UserAddress::Mailbox(mailbox)) => mailbox.folded(),
                (None, UserAddress::Domain(_)) => return,
            };
            self.logins.entry(name).or_insert(user);
        }
    }

    /// The relay for mail from an address, and which rule says so.
    ///
    /// `is_active` tells whether a relay that wants verification has it; it is asked
    /// about no other. A relay that is not active is replaced by the default relay if
    /// that one is; otherwise its mail waits for it (PRODUCT section 8).
    pub fn route(
        &self,
        from: &Mailbox,
        is_active: &dyn Fn(&str) -> bool,
    ) -> Result<Route, NoRoute> {
        let Some((user, rule)) = self.find(from) else {
            let relay = self.default_relay.clone().ok_or_else(|| NoRoute::Unknown {
                address: from.clone(),
            })?;
            return Ok(Route {
                relay,
                user: String::new(),
                rule: Rule::Default,
            });
        };
        let name = entry_name(user);
        let relay = user.relay.as_ref().or(self.default_relay.as_ref());
        let Some(relay) = relay.cloned() else {
            return Err(NoRoute::WithoutRelay {
                address: from.clone(),
                user: name,
            });
        };
        let may_send = |it: &str| !self.verified_only.contains(it) || is_active(it);
        if let Some(stand_in) = &self.default_relay
            && *stand_in != relay
            && !may_send(&relay)
            && may_send(stand_in)
        {
            return Ok(Route {
                relay: stand_in.clone(),
                user: name,
                rule: Rule::Unverified(relay),
            });
        }
        Ok(Route {
            relay,
            user: name,
            rule,
        })
    }

    /// The user whose login name this is, compared without regard to case.
    ///
    /// Only users with a password have one.
    pub fn login(&self, username: &str) -> Option<&Arc<User>> {
        self.logins.get(&folded_login(username))
    }

    /// Some user with a password, always the same one: what a login with an unknown name
    /// is checked against, so that it costs the same.
    pub fn any_login(&self) -> Option<&Arc<User>> {
        self.logins.values().next()
    }

    /// The user whose address this is, and how it matched: exactly or as an alias, else
    /// without its `+tag`, else by its domain.
    pub fn find(&self, address: &Mailbox) -> Option<(&Arc<User>, Rule)> {
        if let Some(user) = self.addresses.get(&address.folded()) {
            return Some((user, Rule::Address(entry_name(user))));
        }
        if let Some(plain) = without_tag(address)
            && let Some(user) = self.addresses.get(&plain.folded())
        {
            return Some((user, Rule::WithoutTag(entry_name(user))));
        }
        let user = self.domains.get(address.domain().ascii())?;
        Some((user, Rule::Domain(entry_name(user))))
    }
}

/// An entry of the directory as it is written there.
pub fn entry_name(user: &User) -> String {
    match &user.address {
        UserAddress::Mailbox(mailbox) => mailbox.to_string(),
        UserAddress::Domain(domain) => format!("@{domain}"),
    }
}

/// The address without `+tag` (RFC 5233); none if it has no tag.
fn without_tag(address: &Mailbox) -> Option<Mailbox> {
    let (local, _tag) = address.local().split_once('+')?;
    Mailbox::new(local, address.domain().clone()).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::mail::Domain;

    /// A directory for tests: users as `(address or @domain, aliases, relay, password)`.
    pub(crate) fn directory(
        default_relay: Option<&str>,
        users: &[(&str, &[&str], Option<&str>, bool)],
    ) -> Directory {
        let mut directory = Directory {
            default_relay: default_relay.map(str::to_owned),
            ..Directory::default()
        };
        for (address, aliases, relay, password) in users {
            directory.add(Arc::new(User {
                address: match address.strip_prefix('@') {
                    Some(domain) => UserAddress::Domain(Domain::parse(domain).unwrap()),
                    None => UserAddress::Mailbox(address.parse().unwrap()),
                },
                aliases: aliases.iter().map(|it| it.parse().unwrap()).collect(),
                relay: relay.map(str::to_owned),
                username: None,
                password_hash: password.then(|| Secret::new("$argon2id$".into())),
            }));
        }
        directory
    }

    /// A directory of these users, without a default relay.
    pub(crate) fn directory_of(users: Vec<User>) -> Directory {
        let mut directory = Directory::default();
        users.into_iter().for_each(|it| directory.add(Arc::new(it)));
        directory
    }

    fn route(directory: &Directory, from: &str) -> (String, Rule) {
        let route = directory.route(&from.parse().unwrap(), &|_| true).unwrap();
        (route.relay, route.rule)
    }

    #[test]
    fn the_closest_entry_wins() {
        let directory = directory(
            Some("default"),
            &[
                ("@example.nl", &[], Some("domain"), false),
                (
                    "jan@example.nl",
                    &["j.jansen@example.nl"],
                    Some("jan"),
                    false,
                ),
                ("jan+erp@example.nl", &[], Some("erp"), false),
                ("piet@example.nl", &[], None, false),
                ("@bücher.example", &[], Some("books"), false),
            ],
        );
        let is = |relay: &str, rule| (relay.to_owned(), rule);
        let jan = || "jan@example.nl".to_owned();
        assert_eq!(
            route(&directory, "JAN@Example.NL"),
            is("jan", Rule::Address(jan()))
        );
        assert_eq!(
            route(&directory, "J.Jansen@example.nl"),
            is("jan", Rule::Address(jan()))
        );
        assert_eq!(
            route(&directory, "jan+erp@example.nl"),
            is("erp", Rule::Address("jan+erp@example.nl".into()))
        );
        assert_eq!(
            route(&directory, "jan+x+erp@example.nl"),
            is("jan", Rule::WithoutTag(jan()))
        );
        assert_eq!(
            route(&directory, "kees+x@example.nl"),
            is("domain", Rule::Domain("@example.nl".into()))
        );
        assert_eq!(
            route(&directory, "+x@example.nl"),
            is("domain", Rule::Domain("@example.nl".into()))
        );
        assert_eq!(
            route(&directory, "piet@example.nl"),
            is("default", Rule::Address("piet@example.nl".into()))
        );
        assert_eq!(
            route(&directory, "info@XN--bcher-kva.example"),
            is("books", Rule::Domain("@bücher.example".into()))
        );
        assert_eq!(
            route(&directory, "x@sub.example.nl"),
            is("default", Rule::Default)
        );
    }

    #[test]
    fn without_any_relay_the_refusal_names_the_remedy() {
        let directory = directory(None, &[("jan@example.nl", &[], None, false)]);
        let refusal = |from: &str| {
            directory
                .route(&from.parse().unwrap(), &|_| true)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refusal("x@example.net"),
            "no relay for <x@example.net>; add it to users.toml"
        );
        assert!(refusal("jan@example.nl").contains("default-relay"));
    }

    #[test]
    fn an_unverified_relay_is_replaced_by_an_active_default_visibly() {
        let mut directory = directory(
            Some("default"),
            &[("jan@example.nl", &[], Some("new"), false)],
        );
        directory.verified_only.insert("new".into());
        let jan: Mailbox = "jan@example.nl".parse().unwrap();
        let with = |directory: &Directory, active: &[&str]| {
            let route = directory.route(&jan, &|it| active.contains(&it)).unwrap();
            (route.relay, route.rule)
        };
        let own = ("new".to_owned(), Rule::Address("jan@example.nl".into()));
        let stand_in = ("default".to_owned(), Rule::Unverified("new".into()));
        assert_eq!(with(&directory, &["new"]), own);
        assert_eq!(
            with(&directory, &[]),
            stand_in,
            "a relay without verify is active"
        );
        directory.verified_only.insert("default".into());
        assert_eq!(with(&directory, &["default"]), stand_in);
        assert_eq!(with(&directory, &[]), own, "nobody can stand in: it waits");
    }

    #[test]
    fn a_user_is_found_however_the_accents_of_the_address_were_typed() {
        let composed = "j\u{fc}rgen@example.nl";
        let directory = directory(Some("x"), &[(composed, &[], None, true)]);
        let decomposed = "Ju\u{308}rgen@example.nl".parse().unwrap();
        assert!(directory.find(&decomposed).is_some());
        assert!(directory.login("JU\u{308}RGEN@example.nl").is_some());
    }

    #[test]
    fn a_login_is_found_by_address_or_username_if_it_has_a_password() {
        let mut directory = directory(
            None,
            &[
                ("jan@example.nl", &[], Some("x"), true),
                ("piet@example.nl", &[], Some("x"), false),
            ],
        );
        let mut kees = User::clone(
            directory
                .find(&"jan@example.nl".parse().unwrap())
                .unwrap()
                .0,
        );
        kees.address = UserAddress::Mailbox("kees@example.nl".parse().unwrap());
        kees.username = Some("Kees".into());
        directory.add(Arc::new(kees));
        assert!(directory.login("JAN@EXAMPLE.NL").is_some());
        assert!(directory.login("kees").is_some());
        assert!(directory.login("kees@example.nl").is_none());
        assert!(directory.login("piet@example.nl").is_none());
        assert!(directory.login("").is_none());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test measures real time")]
    fn a_hundred_thousand_users_cost_no_more_than_ten() {
        let directory = |users: usize| {
            let mut directory = Directory::default();
            for number in 0..users {
                let address = format!("user{number}@example.nl").parse().unwrap();
                directory.add(Arc::new(User {
                    address: UserAddress::Mailbox(address),
                    aliases: Vec::new(),
                    relay: Some("own".into()),
                    username: None,
                    password_hash: None,
                }));
            }
            let last = format!("user{}+tag@example.nl", users - 1);
            (directory, last.parse::<Mailbox>().unwrap())
        };
        let settings = [directory(10), directory(100_000)];
        let mut times = [Vec::new(), Vec::new()];
        // By turns, so that a busy machine is as slow for the one as for the other.
        for _ in 0..31 {
            for ((directory, from), times) in settings.iter().zip(&mut times) {
                let started = std::time::Instant::now();
                for _ in 0..200 {
                    assert!(directory.route(from, &|_| true).is_ok());
                }
                times.push(started.elapsed());
            }
        }
        let [few, many] = times.map(|mut it| {
            it.sort();
            it[it.len() / 2]
        });
        // Looking at each of them would cost a thousand times as much.
        assert!(many < few * 20, "{few:?} and {many:?}");
    }
}
