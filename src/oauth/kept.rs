//! A login as it lies on the disk: the refresh token, and for what it is good.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::TokenError;
use crate::config::{Credentials, OAuth, Relay, Secret};

/// The version of the file.
const VERSION: u32 = 1;

/// What a login holds for: its tokens go to these servers for this mailbox, and its
/// refresh token to this endpoint for this application. Any other must be logged in to
/// again, lest a slip of the configuration hands one mailbox's token to another's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bond {
    servers: Vec<String>,
    username: String,
    client_id: String,
    token_url: String,
}

/// A person's login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bond: Bond,
    pub(super) refresh_token: Secret,
    pub(super) facts: Facts,
}

/// What may be shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// When somebody logged in.
    pub(super) since: Timestamp,
    /// Who ran `relay login`.
    pub(super) by: String,
    /// When it was last used, to the day.
    pub(super) used: Timestamp,
    /// When it ends, where the endpoint tells.
    pub(super) expires: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct KeptFile {
    version: u32,
    bond: Bond,
    refresh_token: String,
    facts: Facts,
}

impl Bond {
    pub(super) fn of(relay: &Relay, credentials: &Credentials, oauth: &OAuth) -> Self {
        Self {
            servers: relay.servers.iter().map(ToString::to_string).collect(),
            username: credentials.username.clone(),
            client_id: oauth.client_id.clone(),
            token_url: oauth.token_url.to_string(),
        }
    }

    /// What is different in `new`, in words.
    fn difference(&self, new: &Self) -> String {
        let pairs = [
            ("server", self.servers.join(", "), new.servers.join(", ")),
            ("username", self.username.clone(), new.username.clone()),
            ("client-id", self.client_id.clone(), new.client_id.clone()),
            ("token-url", self.token_url.clone(), new.token_url.clone()),
        ];
        let changed = pairs.iter().filter(|(_, old, new)| old != new);
        changed
            .map(|(what, old, new)| format!("{what} changed from {old} to {new}"))
            .collect::<Vec<_>>()
            .join(", and ")
    }
}

impl Kept {
    /// Reads a file, and refuses one that is for something else.
    pub(super) fn read(relay: &str, octets: &[u8], bond: &Bond) -> Result<Self, TokenError> {
        let file: KeptFile =
            serde_json::from_slice(octets).map_err(|_| TokenError::NotLoggedIn {
                relay: relay.to_owned(),
                // Not the library's words: they quote what they cannot read.
                why: "the stored login cannot be read: it must be made again".to_owned(),
            })?;
        if file.version != VERSION {
            return Err(TokenError::Ours {
                action: "read",
                detail: format!("it was written by another version ({})", file.version),
            });
        }
        if file.bond != *bond {
            return Err(TokenError::NotLoggedIn {
                relay: relay.to_owned(),
                why: format!(
                    "the login is for another account: {}",
                    file.bond.difference(bond)
                ),
            });
        }
        Ok(Self {
            bond: file.bond,
            refresh_token: Secret::new(file.refresh_token),
            facts: file.facts,
        })
    }

    /// The file.
    pub(super) fn write(&self) -> Vec<u8> {
        let file = KeptFile {
            version: VERSION,
            bond: self.bond.clone(),
            refresh_token: self.refresh_token.expose().to_owned(),
            facts: self.facts.clone(),
        };
        serde_json::to_vec_pretty(&file).unwrap_or_default()
    }
}
