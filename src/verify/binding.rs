//! What a confirmation holds for, and which relays have one.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::config::Relay;

/// What was proven to deliver: these servers, with this login, from this address.
///
/// Fallback servers count: mail and password go there, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    servers: Vec<String>,
    username: Option<String>,
    sender: String,
}

impl Binding {
    /// The binding of a relay as it is configured; none without a `sender`, which the
    /// configuration demands beside `verify = true`.
    pub fn of(relay: &Relay) -> Option<Self> {
        Some(Self {
            servers: relay.servers.iter().map(ToString::to_string).collect(),
            username: relay.credentials.as_ref().map(|it| it.username.clone()),
            sender: relay.sender.as_ref()?.to_string(),
        })
    }

    /// The relay account's own address.
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// What is different in `new`, in words: `the server changed from [a]:587 to [b]:587`.
    pub fn difference(&self, new: &Self) -> String {
        let named = |it: &Option<String>| it.clone().unwrap_or_else(|| "none".to_owned());
        let pairs = [
            ("server", self.servers.join(", "), new.servers.join(", ")),
            ("user name", named(&self.username), named(&new.username)),
            ("sender", self.sender.clone(), new.sender.clone()),
        ];
        let changed = pairs.iter().filter(|(_, old, new)| old != new);
        changed
            .map(|(what, old, new)| format!("the {what} changed from {old} to {new}"))
            .collect::<Vec<_>>()
            .join(", and ")
    }
}

/// Which relays are confirmed and for what: asked by everybody who routes, written by
/// the delivery task alone.
#[derive(Debug, Clone, Default)]
pub struct Confirmations(Arc<RwLock<BTreeMap<String, Binding>>>);

impl Confirmations {
    /// Whether mail may go to a relay: it wants no verification, or has it as it is now.
    pub fn is_active(&self, relay: &Relay) -> bool {
        if !relay.verify {
            return true;
        }
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&relay.name)
            .is_some_and(|it| Binding::of(relay).as_ref() == Some(it))
    }

    /// A relay is confirmed as it is, or is not any more.
    pub fn set(&self, relay: &str, confirmed: Option<Binding>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match confirmed {
            Some(binding) => known.insert(relay.to_owned(), binding),
            None => known.remove(relay),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::relay;
    use super::*;

    #[test]
    fn a_confirmation_holds_for_server_user_name_and_sender_and_for_nothing_else() {
        let own = relay("");
        let confirmations = Confirmations::default();
        assert!(!confirmations.is_active(&own));
        confirmations.set("own", Binding::of(&own));
        assert!(confirmations.is_active(&own));
        let mut other = own.clone();
        other.name = "other".to_owned();
        assert!(!confirmations.is_active(&other));
        for (changed, words) in [
            (
                relay("server = \"[b.example]:587\""),
                "the server changed from [a.example]:587 to [b.example]:587",
            ),
            (
                relay("fallback = [\"[b.example]:587\"]"),
                "the server changed from [a.example]:587 to [a.example]:587, [b.example]:587",
            ),
            (
                relay("login = \"else secret\""),
                "the user name changed from user to else",
            ),
            (
                relay("sender = \"b@a.example\""),
                "the sender changed from mailer@a.example to b@a.example",
            ),
        ] {
            assert!(!confirmations.is_active(&changed), "{words}");
            let (old, new) = (Binding::of(&own).unwrap(), Binding::of(&changed).unwrap());
            assert_eq!(old.difference(&new), words);
        }
        for same in [
            relay("login = \"user another-password\""),
            relay("limits = { per-hour = 3 }"),
            relay("reverse-path = \"from\""),
        ] {
            assert!(confirmations.is_active(&same));
        }
        assert!(confirmations.is_active(&relay("server = \"[b.example]:587\"\nverify = false")));
    }
}
