//! What hints by DNS are about: a From domain and the relay that its mail takes.

use std::sync::Arc;

use crate::config::{Relay, ReversePathRule};
use crate::mail::{Domain, Mailbox, ReversePath};

/// A From domain, a relay, and whose reverse-path its mail has.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The domain of From.
    pub from: Domain,
    /// The relay.
    pub relay: Arc<Relay>,
    /// The domain of the reverse-path as it will leave; none: a null reverse-path.
    pub sender: Option<Domain>,
}

impl Pair {
    /// The pair of a message, from its From, and its reverse-path as the client said it;
    /// none said: as if it were the From address.
    pub fn new(from: &Mailbox, relay: Arc<Relay>, said: Option<&ReversePath>) -> Self {
        let sender = match (&relay.reverse_path, said) {
            // A report stays one, whatever the rule says.
            (_, Some(ReversePath::Null)) => None,
            (ReversePathRule::Fixed(address), _) => Some(address.domain().clone()),
            (ReversePathRule::Keep, Some(ReversePath::Mailbox(address))) => {
                Some(address.domain().clone())
            }
            (ReversePathRule::Keep | ReversePathRule::From, _) => Some(from.domain().clone()),
        };
        Self {
            from: from.domain().clone(),
            relay,
            sender,
        }
    }

    /// Where the reverse-path comes from, for evidence.
    pub fn sender_words(&self) -> String {
        let relay = &self.relay.name;
        match &self.relay.reverse_path {
            ReversePathRule::Keep => {
                format!("relay {relay}: reverse-path = \"keep\"; the application says it")
            }
            ReversePathRule::From => format!("relay {relay}: reverse-path = \"from\""),
            ReversePathRule::Fixed(address) => {
                format!("relay {relay}: reverse-path = \"{address}\"")
            }
        }
    }
}
