//! The access tokens in use, one a relay, and how they are renewed.
//!
//! An endpoint is asked by a task of its own, one at a time for each relay: however many
//! connections want a token they wait for the same answer, and an answer that brings a
//! new refresh token is written down even if nobody waits for it any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::account::{AccessToken, Account, Outcome, account, wait};
use super::answer::{Given, No};
use super::ask::Want;
use super::kept::Bond;
use super::trouble::TokenError;
use super::web::{Said, Web};
use crate::clock::Clock;
use crate::config::{Credentials, Endpoint, Grant, OAuth, Relay, Secret, Timeouts};
use crate::dns::Dns;
use crate::spool::Spool;

/// A login that was not used for so long is used for its own sake: Microsoft's end after
/// 90 days of rest, Google's after six months.
const REST_MAXIMUM: SignedDuration = SignedDuration::from_hours(7 * 24);
/// And that is tried so often.
const TEND_AGAIN: SignedDuration = SignedDuration::from_hours(6);
/// An endpoint that gave no token for now is asked again so often: nobody should read of
/// a trouble that is over.
const MENDED_AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// A login that ends within this time is said to.
const WARN_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);
const WARN_AGAIN: SignedDuration = SignedDuration::from_hours(24);
/// How long the end of the daemon waits for an endpoint.
///
/// As long as its answer may take: one that gives a new refresh token with every answer
/// has ended the old one when it begins to answer.
const CLOSE_PATIENCE: Duration = Duration::from_secs(125);
/// A token that ends so soon is not shown to a relay any more.
const MARGIN: Duration = Duration::from_secs(30);

/// What somebody's login brought, not written down yet.
#[derive(Debug, Clone)]
pub struct Granted {
    pub(super) given: Given,
    /// Uptime when it was asked for.
    pub(super) at: Duration,
}

impl Granted {
    /// What it would be used with: to see first whether the relay takes it.
    pub fn access_token(&self) -> &Secret {
        &self.given.access_token
    }
}

/// How a relay's login stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// On whose word its tokens are given.
    pub grant: Grant,
    /// Since when, and by whom; none: nobody has logged in, or nobody needs to.
    pub since: Option<(Timestamp, String)>,
    /// When the login was last used, to the day.
    pub used: Option<Timestamp>,
    /// When it ends, where the endpoint tells.
    pub expires: Option<Timestamp>,
    /// Why there was no token when one was last asked for.
    pub trouble: Option<TokenError>,
}

/// Where logins are kept.
#[derive(Clone)]
pub enum Keeper {
    /// In the spool's folder.
    Spool(Spool),
    /// In memory.
    #[cfg(test)]
    Memory(Arc<Mutex<HashMap<String, Vec<u8>>>>),
}

/// The tokens; cloned freely.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

pub(super) struct Shared {
    pub(super) web: Web,
    pub(super) clock: Clock,
    pub(super) keeper: Keeper,
    accounts: Mutex<HashMap<String, Account>>,
    tasks: Mutex<JoinSet<()>>,
    /// No endpoint is asked any more.
    closed: AtomicBool,
    /// What the configuration in use wants tokens for; none: nobody has told yet.
    live: Mutex<Option<Wanted>>,
    /// Whoever writes or removes a login holds this.
    pub(super) writing: tokio::sync::Mutex<()>,
}

/// Relays that take tokens, and what their logins hold for.
type Wanted = HashMap<String, (Grant, Bond)>;

/// The login of a relay that takes tokens.
pub(super) fn login_of(relay: &Relay) -> Result<(&Credentials, &OAuth), TokenError> {
    let credentials = relay.credentials.as_ref();
    credentials
        .and_then(|it| Some((it, it.oauth()?)))
        .ok_or_else(|| TokenError::NotLoggedIn {
            relay: relay.name.clone(),
            why: "this relay is not configured for tokens".to_owned(),
        })
}

/// What a no of an endpoint means for a relay.
pub(super) fn refusal(relay: &str, endpoint: &Endpoint, no: No) -> TokenError {
    let host = endpoint.host().to_owned();
    match no {
        No::Refused { code, words } => TokenError::Refused {
            relay: relay.to_owned(),
            host,
            code,
            words,
        },
        No::Passing(words) => TokenError::Passing { host, words },
    }
}

impl Standing {
    /// When the login ends, if that is soon.
    pub fn ends_soon(&self, now: Timestamp) -> Option<Timestamp> {
        self.expires
            .filter(|it| it.duration_since(now) <= WARN_BEFORE)
    }
}

impl Tokens {
    /// Without a token yet.
    pub fn new(dns: Arc<dyn Dns>, clock: Clock, keeper: Keeper) -> Self {
        Self(Arc::new(Shared {
            web: Web::new(dns),
            clock,
            keeper,
            accounts: Mutex::default(),
            tasks: Mutex::default(),
            closed: AtomicBool::new(false),
            live: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }))
    }

    /// Another configuration is in use, from now on: what was begun for the one before is
    /// not kept any more.
    pub fn configured<'a>(&self, relays: impl IntoIterator<Item = &'a Relay>) {
        let wanted = relays.into_iter().filter_map(|relay| {
            let (_, oauth) = login_of(relay).ok()?;
            Some((relay.name.clone(), (oauth.grant, bond_of(relay).ok()?)))
        });
        *self.0.live() = Some(wanted.collect());
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// A token that is good now; not this one, if a relay has refused it.
    pub async fn access(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
        refused: Option<&AccessToken>,
    ) -> Result<AccessToken, TokenError> {
        let bond = bond_of(relay)?;
        let mut old = None;
        let told = loop {
            let now = self.0.clock.uptime();
            let other = {
                let mut accounts = self.0.accounts();
                let account = account(&mut accounts, relay, &bond)?;
                if account.token.as_ref().map(|it| it.number) == refused.map(|it| it.number) {
                    account.token = None;
                }
                if let Some(token) = &account.token {
                    if now < token.renew_at {
                        return Ok(token.clone());
                    }
                    old = Some(token.clone()).filter(|it| now + MARGIN < it.good_until);
                }
                match account.running() {
                    Some(asking)
                        if asking.is_renewal && asking.purpose == account.purpose_number =>
                    {
                        break asking.told;
                    }
                    Some(asking) => asking.told,
                    None => break self.begin(account, relay, timeouts, Want::Renewed),
                }
            };
            wait(other).await.ok();
        };
        match (wait(told).await, old) {
            // A login that has ended does not end what it has brought; relay list shows it.
            (Err(trouble), Some(old)) => {
                debug!(relay = relay.name, %trouble, "the token is used until its end");
                Ok(old)
            }
            (outcome, _) => outcome,
        }
    }

    /// How much longer a token is good.
    pub fn life_left(&self, token: &AccessToken) -> Duration {
        token.good_until.saturating_sub(self.0.clock.uptime())
    }

    /// Sees whether a refresh token that was got elsewhere is good.
    pub async fn prove(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
        refresh_token: Secret,
    ) -> Result<Granted, TokenError> {
        let (_, oauth) = login_of(relay)?;
        let at = self.0.clock.uptime();
        let asked = self.0.refresh(relay, oauth, &refresh_token, timeouts);
        let mut given = asked.await?;
        given.refresh_token.get_or_insert(refresh_token);
        Ok(Granted { given, at })
    }

    /// Takes over what a login brought; durable when this returns.
    ///
    /// When nobody else asks the endpoint: what a renewal under way brings must not replace
    /// what somebody has just logged in with.
    pub async fn keep_login(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
        granted: Granted,
        by: &str,
    ) -> Result<(), TokenError> {
        let by = by.to_owned();
        let bond = bond_of(relay)?;
        let told = loop {
            let other = {
                let mut accounts = self.0.accounts();
                let account = account(&mut accounts, relay, &bond)?;
                match account.running() {
                    Some(asking) => asking.told,
                    None => {
                        let want = Want::Granted { granted, by };
                        break self.begin(account, relay, timeouts, want);
                    }
                }
            };
            wait(other).await.ok();
        };
        wait(told).await.map(|_| ())
    }

    /// How the login of a relay stands; none: it takes no tokens.
    pub async fn standing(&self, relay: &Relay) -> Option<Standing> {
        let (_, oauth) = login_of(relay).ok()?;
        let bond = bond_of(relay).ok()?;
        let looked = {
            let mut accounts = self.0.accounts();
            let account = account(&mut accounts, relay, &bond).ok()?;
            account.looked || oauth.grant == Grant::ClientCredentials
        };
        if !looked {
            let found = self.0.kept(&relay.name, &bond).await;
            let mut accounts = self.0.accounts();
            let account = account(&mut accounts, relay, &bond).ok()?;
            account.looked = true;
            match found {
                Ok(kept) => account.facts = Some(kept.facts),
                Err(trouble) => account.trouble = Some(trouble),
            }
        }
        let mut accounts = self.0.accounts();
        let account = account(&mut accounts, relay, &bond).ok()?;
        let facts = account.facts.as_ref();
        Some(Standing {
            grant: oauth.grant,
            since: facts.map(|it| (it.since, it.by.clone())),
            used: facts.map(|it| it.used),
            expires: facts.and_then(|it| it.expires),
            trouble: account
                .trouble
                .clone()
                .or_else(|| account.unwritten.clone()),
        })
    }

    /// Uses logins that have rested for long, so that none ends for want of use. To be
    /// called every now and then.
    pub async fn tend(&self, relay: &Relay, timeouts: &Timeouts) {
        self.0.save_again(&relay.name).await;
        let now = self.0.clock.now();
        let Some(standing) = self.standing(relay).await else {
            return;
        };
        let rested = standing
            .used
            .is_some_and(|it| now.duration_since(it) >= REST_MAXIMUM);
        let Ok(bond) = bond_of(relay) else { return };
        let mut accounts = self.0.accounts();
        let Ok(account) = account(&mut accounts, relay, &bond) else {
            return;
        };
        let ails = account.trouble.as_ref().is_some_and(TokenError::is_passing);
        let again = if ails { MENDED_AGAIN } else { TEND_AGAIN };
        let lately = account
            .tended
            .is_some_and(|it| now.duration_since(it).abs() < again);
        let warned = account
            .warned
            .is_some_and(|it| now.duration_since(it).abs() < WARN_AGAIN);
        if let (Some(ends), false) = (standing.ends_soon(now), warned) {
            account.warned = Some(now);
            warn!(relay = relay.name, %ends, "the login of a relay ends soon: penstock relay login renews it");
        }
        if (rested || ails) && !lately && account.running().is_none() {
            account.tended = Some(now);
            self.begin(account, relay, timeouts, Want::Renewed);
        }
    }

    /// Certificates are read anew.
    pub fn reloaded(&self) {
        self.0.web.forget();
    }

    /// Forgets what the configuration has no use for: a token that nothing uses is only
    /// there to be stolen.
    pub async fn retain(&self) {
        let _writing = self.0.writing.lock().await;
        let names = match &self.0.keeper {
            Keeper::Spool(spool) => spool.secret_names().await.unwrap_or_default(),
            #[cfg(test)]
            Keeper::Memory(files) => files.lock().unwrap().keys().cloned().collect(),
        };
        let Some(wanted) = self.0.live().clone() else {
            return;
        };
        let is_login = |name: &String| {
            let grant = wanted.get(name).map(|it| it.0);
            grant == Some(Grant::Login)
        };
        for name in names.into_iter().filter(|it| !is_login(it)) {
            match self.0.write(&name, None).await {
                Ok(()) => info!(
                    relay = name,
                    "the login of a relay that has none any more was removed"
                ),
                Err(trouble) => {
                    warn!(relay = name, %trouble, "the login of a relay that has none any more stays")
                }
            }
        }
        self.0
            .accounts()
            .retain(|name, _| wanted.contains_key(name));
    }

    /// Waits until no endpoint is being asked, so that nothing that it gives is lost; not
    /// for one that does not answer. None is asked afterwards.
    pub async fn close(&self) {
        let mut tasks = {
            let mut tasks = self.0.tasks();
            self.0.closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *tasks)
        };
        let ended = async { while tasks.join_next().await.is_some() {} };
        timeout(CLOSE_PATIENCE, ended).await.ok();
        let names: Vec<String> = self.0.accounts().keys().cloned().collect();
        for name in names {
            self.0.save_again(&name).await;
        }
    }

    /// Starts a task that asks the endpoint.
    fn begin(
        &self,
        account: &mut Account,
        relay: &Relay,
        timeouts: &Timeouts,
        want: Want,
    ) -> watch::Receiver<Option<Outcome>> {
        let is_renewal = matches!(want, Want::Renewed);
        let mut tasks = self.0.tasks();
        let (tell, asking) = account.asked(is_renewal);
        if self.0.closed.load(Ordering::Relaxed) {
            // Whoever waits sees that nobody will tell.
            return asking.told;
        }
        let (shared, relay, timeouts) = (self.0.clone(), relay.clone(), *timeouts);
        let told = asking.told;
        let purpose = asking.purpose;
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let outcome = shared.ask(&relay, &timeouts, want).await;
            // That somebody brings a wrong token says nothing about the login there is.
            if outcome.is_ok() || is_renewal {
                shared.learn(&relay, purpose, &outcome);
            }
            tell.send_replace(Some(outcome));
        });
        told
    }

    pub(super) async fn post(
        &self,
        oauth: &OAuth,
        endpoint: &Endpoint,
        form: &[(&str, &str)],
        timeouts: &Timeouts,
    ) -> Result<Said, TokenError> {
        self.0.post(oauth, endpoint, form, timeouts).await
    }

    #[expect(clippy::unused_self, reason = "reads as what it is about")]
    pub(super) fn secrets_of<'a>(&self, oauth: &'a OAuth) -> Vec<&'a Secret> {
        oauth.client_secret.iter().collect()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// What its login must hold for.
pub(super) fn bond_of(relay: &Relay) -> Result<Bond, TokenError> {
    let (credentials, oauth) = login_of(relay)?;
    Ok(Bond::of(relay, credentials, oauth))
}

impl Shared {
    pub(super) fn accounts(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Option<Wanted>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
