//! What is known of one relay's token while the daemon runs.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::kept::{Bond, Facts, Kept};
use super::tokens::login_of;
use super::trouble::TokenError;
use crate::config::{OAuth, Relay, Secret};

/// A token for one relay, and how long it may be used.
#[derive(Debug, Clone)]
pub struct AccessToken {
    pub(super) secret: Secret,
    /// Tells it from the one before.
    pub(super) number: u64,
    /// Uptime from which it is renewed first.
    pub(super) renew_at: Duration,
    /// Uptime at which it ends.
    pub(super) good_until: Duration,
}

impl AccessToken {
    /// The token itself.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// What came of asking for one.
pub(super) type Outcome = Result<AccessToken, TokenError>;

/// What is known of one relay's token.
#[derive(Default)]
pub(super) struct Account {
    /// The relay as it was when all this was learned; another one starts anew.
    purpose: Option<(Bond, OAuth)>,
    /// Tells it from every other purpose of any account, those that are gone too: a task
    /// may come back when its account was dropped and made again.
    pub(super) purpose_number: u64,
    pub(super) token: Option<AccessToken>,
    asking: Option<Asking>,
    /// A login that could not be written down: the one on the disk may be dead.
    pub(super) unsaved: Option<Kept>,
    /// Why it could not.
    pub(super) unwritten: Option<TokenError>,
    /// What may be shown of the login.
    pub(super) facts: Option<Facts>,
    /// The disk was asked for the facts.
    pub(super) looked: bool,
    /// Why there was no token when one was last asked for.
    pub(super) trouble: Option<TokenError>,
    /// When its login was last used for its own sake.
    pub(super) tended: Option<Timestamp>,
    /// When it was last said that it ends.
    pub(super) warned: Option<Timestamp>,
}

/// A task that asks the endpoint.
#[derive(Clone)]
pub(super) struct Asking {
    /// For the purpose with this number.
    pub(super) purpose: u64,
    /// With the login there is: what comes of another one is for whoever brought it.
    pub(super) is_renewal: bool,
    pub(super) told: watch::Receiver<Option<Outcome>>,
}

/// The next purpose's number.
static PURPOSE: AtomicU64 = AtomicU64::new(1);

/// The account of a relay as it is configured now.
pub(super) fn account<'a>(
    accounts: &'a mut MutexGuard<'_, HashMap<String, Account>>,
    relay: &Relay,
    bond: &Bond,
) -> Result<&'a mut Account, TokenError> {
    let (_, oauth) = login_of(relay)?;
    let account = accounts.entry(relay.name.clone()).or_default();
    if !account.is_exactly(bond, oauth) {
        *account = Account {
            purpose: Some((bond.clone(), oauth.clone())),
            purpose_number: PURPOSE.fetch_add(1, Ordering::Relaxed),
            // Still under way: what it may write must be on the disk before ours.
            asking: account.asking.take(),
            ..Account::default()
        };
    }
    Ok(account)
}

impl Account {
    /// Whether what is learned of this login is about the relay as it is now.
    pub(super) fn is_for(&self, bond: &Bond) -> bool {
        self.purpose.as_ref().is_some_and(|it| it.0 == *bond)
    }

    /// Whether it is, and what is asked of the endpoint is the same, too.
    pub(super) fn is_exactly(&self, bond: &Bond, oauth: &OAuth) -> bool {
        let purpose = self.purpose.as_ref();
        purpose.is_some_and(|it| it.0 == *bond && it.1 == *oauth)
    }

    /// The task that asks the endpoint, while it does.
    pub(super) fn running(&mut self) -> Option<Asking> {
        let over = |it: &Asking| it.told.borrow().is_some() || it.told.has_changed().is_err();
        if self.asking.as_ref().is_some_and(over) {
            self.asking = None;
        }
        self.asking.clone()
    }

    /// A task begins; what it tells goes to whoever waits with this.
    pub(super) fn asked(&mut self, is_renewal: bool) -> (watch::Sender<Option<Outcome>>, Asking) {
        let (tell, told) = watch::channel(None);
        let asking = Asking {
            purpose: self.purpose_number,
            is_renewal,
            told,
        };
        self.asking = Some(asking.clone());
        (tell, asking)
    }
}

/// What the task told.
pub(super) async fn wait(mut told: watch::Receiver<Option<Outcome>>) -> Outcome {
    let outcome = told.wait_for(Option::is_some).await;
    let outcome = outcome.ok().and_then(|it| it.clone());
    outcome.unwrap_or_else(|| {
        Err(TokenError::Ours {
            action: "renew",
            detail: "penstockd is stopping".to_owned(),
        })
    })
}
