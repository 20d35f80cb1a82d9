//! The access tokens in use, one a relay, and how they are renewed.
//!
//! An endpoint is asked by a task of its own, one at a time for each relay: however many
//! connections want a token they wait for the same answer, and an answer that brings a
//! new refresh token is written down even if nobody waits for it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::answer::{self, Given, No};
use super::kept::{Bond, Facts, Kept};
use super::trouble::TokenError;
use super::web::{Said, Web};
use crate::clock::Clock;
use crate::config::{Credentials, Endpoint, Grant, OAuth, Relay, Secret, Timeouts};
use crate::dns::Dns;
use crate::spool::Spool;

/// When it was last used is written down so often.
const USED_STEP: SignedDuration = SignedDuration::from_hours(24);
/// A login that was not used for so long is used for its own sake: Microsoft's end after
/// 90 days of rest, Google's after six months.
const REST_MAXIMUM: SignedDuration = SignedDuration::from_hours(7 * 24);
/// And that is tried so often.
const TEND_AGAIN: SignedDuration = SignedDuration::from_hours(6);
/// A token that could not be renewed and is still good: when it is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// A token that ends so soon is not shown to a relay any more.
const MARGIN: Duration = Duration::from_secs(30);

/// A token for one relay, and how long it may be used.
#[derive(Debug, Clone)]
pub struct AccessToken {
    secret: Secret,
    number: u64,
    /// Uptime from which it is renewed first.
    renew_at: Duration,
    /// Uptime at which it ends.
    good_until: Duration,
}

/// What somebody's login brought, not written down yet.
#[derive(Debug, Clone)]
pub struct Granted(pub(super) Given);

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

struct Shared {
    web: Web,
    clock: Clock,
    keeper: Keeper,
    accounts: Mutex<HashMap<String, Account>>,
    tasks: Mutex<JoinSet<()>>,
}

type Outcome = Result<AccessToken, TokenError>;

/// What is known of one relay's token.
#[derive(Default)]
struct Account {
    /// The relay as it was when all this was learned; another one starts anew.
    purpose: Option<(Bond, OAuth)>,
    /// Counts purposes and tokens.
    count: u64,
    token: Option<AccessToken>,
    asking: Option<Asking>,
    /// A login that could not be written down: the one on the disk may be dead.
    unsaved: Option<Kept>,
    facts: Option<Facts>,
    /// The disk was asked for the facts.
    looked: bool,
    trouble: Option<TokenError>,
    tended: Option<Timestamp>,
}

/// A task that asks the endpoint.
#[derive(Clone)]
struct Asking {
    /// For the purpose with this number.
    purpose: u64,
    told: watch::Receiver<Option<Outcome>>,
}

/// Why the endpoint is asked.
enum Want {
    /// The next access token.
    Renewed,
    /// Somebody brings a refresh token from elsewhere.
    Brought { refresh_token: Secret, by: String },
    /// Somebody has logged in.
    Granted { granted: Granted, by: String },
}

impl AccessToken {
    /// The token itself.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

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

impl Tokens {
    /// Without a token yet.
    pub fn new(dns: Arc<dyn Dns>, clock: Clock, keeper: Keeper) -> Self {
        Self(Arc::new(Shared {
            web: Web::new(dns),
            clock,
            keeper,
            accounts: Mutex::default(),
            tasks: Mutex::default(),
        }))
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
        let now = self.0.clock.uptime();
        let bond = bond_of(relay)?;
        let mut old = None;
        let told = loop {
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
                    Some(asking) if asking.purpose == account.purpose_number() => {
                        break asking.told;
                    }
                    Some(asking) => asking.told,
                    None => break self.begin(account, relay, timeouts, Want::Renewed),
                }
            };
            wait(other).await.ok();
        };
        match (wait(told).await, old) {
            (Err(trouble), Some(old)) if trouble.is_passing() => {
                debug!(relay = relay.name, %trouble, "the token is used until its end");
                Ok(old)
            }
            (outcome, _) => outcome,
        }
    }

    /// Takes over what a login brought; durable when this returns.
    pub async fn keep_login(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
        granted: Granted,
        by: &str,
    ) -> Result<(), TokenError> {
        let by = by.to_owned();
        self.change(relay, timeouts, Want::Granted { granted, by })
            .await
    }

    /// Takes over a refresh token that was got elsewhere, once it has proven good.
    pub async fn bring_login(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
        refresh_token: Secret,
        by: &str,
    ) -> Result<(), TokenError> {
        let by = by.to_owned();
        self.change(relay, timeouts, Want::Brought { refresh_token, by })
            .await
    }

    /// Changes the login when nobody else asks the endpoint: what a renewal under way
    /// brings must not replace what somebody has just logged in with.
    async fn change(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
        want: Want,
    ) -> Result<(), TokenError> {
        let bond = bond_of(relay)?;
        let told = loop {
            let other = {
                let mut accounts = self.0.accounts();
                let account = account(&mut accounts, relay, &bond)?;
                match account.running() {
                    Some(asking) => asking.told,
                    None => break self.begin(account, relay, timeouts, want),
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
            trouble: account.trouble.clone(),
        })
    }

    /// Uses logins that have rested for long, so that none ends for want of use. To be
    /// called every now and then.
    pub async fn tend(&self, relay: &Relay, timeouts: &Timeouts) {
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
        let lately = account
            .tended
            .is_some_and(|it| now.duration_since(it).abs() < TEND_AGAIN);
        if rested && !lately && account.running().is_none() {
            account.tended = Some(now);
            self.begin(account, relay, timeouts, Want::Renewed);
        }
    }

    /// Certificates are read anew.
    pub fn reloaded(&self) {
        self.0.web.forget();
    }

    /// Forgets the logins of all but these relays: a token that nothing uses is only
    /// there to be stolen.
    pub async fn retain(&self, relays: &[&Relay]) {
        let wanted = |name: &String| relays.iter().any(|it| it.name == *name);
        let names = match &self.0.keeper {
            Keeper::Spool(spool) => spool.secret_names().await.unwrap_or_default(),
            #[cfg(test)]
            Keeper::Memory(files) => files.lock().unwrap().keys().cloned().collect(),
        };
        for name in names.into_iter().filter(|it| !wanted(it)) {
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
        self.0.accounts().retain(|name, _| wanted(name));
    }

    /// Waits until no endpoint is being asked, so that nothing that it gives is lost.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.0.tasks());
        while tasks.join_next().await.is_some() {}
    }

    /// Starts a task that asks the endpoint.
    fn begin(
        &self,
        account: &mut Account,
        relay: &Relay,
        timeouts: &Timeouts,
        want: Want,
    ) -> watch::Receiver<Option<Outcome>> {
        let (tell, told) = watch::channel(None);
        let purpose = account.purpose_number();
        account.asking = Some(Asking {
            purpose,
            told: told.clone(),
        });
        let (shared, relay, timeouts) = (self.0.clone(), relay.clone(), *timeouts);
        let mut tasks = self.0.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let outcome = shared.ask(&relay, &timeouts, want).await;
            shared.learn(&relay, purpose, &outcome);
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

fn bond_of(relay: &Relay) -> Result<Bond, TokenError> {
    let (credentials, oauth) = login_of(relay)?;
    Ok(Bond::of(relay, credentials, oauth))
}

/// The account of a relay as it is configured now.
fn account<'a>(
    accounts: &'a mut MutexGuard<'_, HashMap<String, Account>>,
    relay: &Relay,
    bond: &Bond,
) -> Result<&'a mut Account, TokenError> {
    let (_, oauth) = login_of(relay)?;
    let account = accounts.entry(relay.name.clone()).or_default();
    let same = account
        .purpose
        .as_ref()
        .is_some_and(|it| it.0 == *bond && it.1 == *oauth);
    if !same {
        *account = Account {
            purpose: Some((bond.clone(), oauth.clone())),
            count: account.count + 1,
            // Still under way: what it may write must be on the disk before ours.
            asking: account.asking.take(),
            ..Account::default()
        };
    }
    Ok(account)
}

async fn wait(mut told: watch::Receiver<Option<Outcome>>) -> Outcome {
    let outcome = told.wait_for(Option::is_some).await;
    let outcome = outcome.ok().and_then(|it| it.clone());
    outcome.unwrap_or_else(|| {
        Err(TokenError::Ours {
            action: "renew",
            detail: "penstockd is stopping".to_owned(),
        })
    })
}

impl Account {
    /// The task that asks the endpoint, while it does.
    fn running(&mut self) -> Option<Asking> {
        let over = |it: &Asking| it.told.borrow().is_some() || it.told.has_changed().is_err();
        if self.asking.as_ref().is_some_and(over) {
            self.asking = None;
        }
        self.asking.clone()
    }

    fn purpose_number(&self) -> u64 {
        self.count
    }
}

impl Shared {
    fn accounts(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post(
        &self,
        oauth: &OAuth,
        endpoint: &Endpoint,
        form: &[(&str, &str)],
        timeouts: &Timeouts,
    ) -> Result<Said, TokenError> {
        let ca_file = oauth.ca_file.as_ref();
        let said = self.web.post(endpoint, ca_file, form, timeouts).await;
        said.map_err(|words| TokenError::Passing {
            host: endpoint.host().to_owned(),
            words,
        })
    }

    /// Asks for a token, and writes down what came along before anybody uses it.
    async fn ask(&self, relay: &Relay, timeouts: &Timeouts, want: Want) -> Outcome {
        let (_, oauth) = login_of(relay)?;
        let bond = bond_of(relay)?;
        let asked = self.clock.uptime();
        let now = self.clock.now();
        let given = match (oauth.grant, want) {
            (Grant::ClientCredentials, _) => {
                let form = [("grant_type", "client_credentials")];
                self.request(relay, oauth, &form, &[], timeouts).await?
            }
            (Grant::Login, Want::Renewed) => {
                let mut kept = self.kept(&relay.name, &bond).await?;
                let given = self
                    .refresh(relay, oauth, &kept.refresh_token, timeouts)
                    .await?;
                let unsaved = self
                    .accounts()
                    .get(&relay.name)
                    .is_some_and(|it| it.unsaved.is_some());
                let rotated = given
                    .refresh_token
                    .as_ref()
                    .is_some_and(|it| *it != kept.refresh_token);
                let long_ago = now.duration_since(kept.facts.used) >= USED_STEP;
                if rotated || unsaved || long_ago {
                    kept.facts.used = now;
                    renew(&mut kept, &given, now);
                    self.keep(&relay.name, kept).await?;
                }
                given
            }
            (Grant::Login, Want::Brought { refresh_token, by }) => {
                let given = self.refresh(relay, oauth, &refresh_token, timeouts).await?;
                let mut kept = Kept::new(bond, refresh_token, by, now);
                renew(&mut kept, &given, now);
                self.keep(&relay.name, kept).await?;
                given
            }
            (Grant::Login, Want::Granted { granted, by }) => {
                let given = granted.0;
                let Some(refresh_token) = given.refresh_token.clone() else {
                    return Err(TokenError::NotLoggedIn {
                        relay: relay.name.clone(),
                        why: "the login brought nothing that could be kept".to_owned(),
                    });
                };
                let mut kept = Kept::new(bond, refresh_token, by, now);
                renew(&mut kept, &given, now);
                self.keep(&relay.name, kept).await?;
                given
            }
        };
        debug!(
            relay = relay.name,
            host = oauth.token_url.host(),
            life_s = given.life.as_secs(),
            "a new access token"
        );
        Ok(AccessToken {
            secret: given.access_token,
            number: rand::random(),
            renew_at: asked + given.life.mul_f64(0.8),
            good_until: asked + given.life,
        })
    }

    async fn refresh(
        &self,
        relay: &Relay,
        oauth: &OAuth,
        refresh_token: &Secret,
        timeouts: &Timeouts,
    ) -> Result<Given, TokenError> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        self.request(relay, oauth, &form, &[refresh_token], timeouts)
            .await
    }

    async fn request(
        &self,
        relay: &Relay,
        oauth: &OAuth,
        form: &[(&str, &str)],
        secrets: &[&Secret],
        timeouts: &Timeouts,
    ) -> Result<Given, TokenError> {
        let mut form = form.to_vec();
        form.push(("client_id", &oauth.client_id));
        if let Some(secret) = &oauth.client_secret {
            form.push(("client_secret", secret.expose()));
        }
        if !oauth.scope.is_empty() {
            form.push(("scope", &oauth.scope));
        }
        let said = self.post(oauth, &oauth.token_url, &form, timeouts).await?;
        let secrets: Vec<&Secret> = secrets
            .iter()
            .copied()
            .chain(&oauth.client_secret)
            .collect();
        answer::given(&said, &secrets).map_err(|no| refusal(&relay.name, &oauth.token_url, no))
    }

    /// Remembers what came of asking.
    fn learn(&self, relay: &Relay, purpose: u64, outcome: &Outcome) {
        let mut accounts = self.accounts();
        let Some(account) = accounts
            .get_mut(&relay.name)
            .filter(|it| it.purpose_number() == purpose)
        else {
            return;
        };
        match outcome {
            Ok(token) => {
                account.token = Some(token.clone());
                account.trouble = None;
            }
            Err(trouble) => {
                // The relay's pause says it, too, when there is mail; a login that is
                // only looked after has nobody else to say it.
                if !trouble.is_passing() && account.trouble.as_ref() != Some(trouble) {
                    let remedy = trouble.remedy();
                    warn!(relay = relay.name, %trouble, remedy, "no access token");
                }
                account.trouble = Some(trouble.clone());
                let again = self.clock.uptime() + RENEW_AGAIN;
                if let Some(token) = &mut account.token {
                    token.renew_at = token.renew_at.max(again.min(token.good_until));
                }
            }
        }
    }

    /// The login of a relay.
    async fn kept(&self, relay: &str, bond: &Bond) -> Result<Kept, TokenError> {
        let unsaved = self.accounts().get(relay).and_then(|it| it.unsaved.clone());
        if let Some(kept) = unsaved.filter(|it| it.bond == *bond) {
            return Ok(kept);
        }
        let octets = match &self.keeper {
            Keeper::Spool(spool) => spool
                .secret(relay)
                .await
                .map_err(|error| ours("read", &error))?,
            #[cfg(test)]
            Keeper::Memory(files) => files.lock().unwrap().get(relay).cloned(),
        };
        let octets = octets.ok_or_else(|| TokenError::NotLoggedIn {
            relay: relay.to_owned(),
            why: "nobody has logged in yet".to_owned(),
        })?;
        let kept = Kept::read(relay, &octets, bond)?;
        if let Some(account) = self.accounts().get_mut(relay) {
            account.facts = Some(kept.facts.clone());
            account.looked = true;
        }
        Ok(kept)
    }

    /// Writes a login down; one that cannot be written is kept in mind.
    async fn keep(&self, relay: &str, kept: Kept) -> Result<(), TokenError> {
        let written = self.write(relay, Some(kept.write())).await;
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get_mut(relay) {
            account.facts = Some(kept.facts.clone());
            account.looked = true;
            account.unsaved = written.is_err().then_some(kept);
        }
        written
    }

    async fn write(&self, relay: &str, octets: Option<Vec<u8>>) -> Result<(), TokenError> {
        match &self.keeper {
            Keeper::Spool(spool) => spool
                .keep_secret(relay, octets)
                .await
                .map_err(|error| ours("keep", &error)),
            #[cfg(test)]
            Keeper::Memory(files) => {
                let mut files = files.lock().unwrap();
                match octets {
                    Some(octets) => files.insert(relay.to_owned(), octets),
                    None => files.remove(relay),
                };
                Ok(())
            }
        }
    }
}

impl Kept {
    fn new(bond: Bond, refresh_token: Secret, by: String, now: Timestamp) -> Self {
        Self {
            bond,
            refresh_token,
            facts: Facts {
                since: now,
                by,
                used: now,
                expires: None,
            },
        }
    }
}

/// Takes over what came with an access token.
fn renew(kept: &mut Kept, given: &Given, now: Timestamp) {
    if let Some(refresh_token) = &given.refresh_token {
        kept.refresh_token = refresh_token.clone();
    }
    if let Some(life) = given.refresh_life {
        kept.facts.expires = now.checked_add(life).ok();
    }
}

fn ours(action: &'static str, error: &crate::spool::SpoolError) -> TokenError {
    let detail = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    TokenError::Ours { action, detail }
}
