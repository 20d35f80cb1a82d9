//! Asking a token endpoint, and keeping what it gives (RFC 6749 sections 4.4 and 6).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};

use super::account::{AccessToken, Outcome};
use super::answer::{self, Given};
use super::kept::{Bond, Facts, Kept};
use super::tokens::{Granted, Keeper, Shared, bond_of, login_of, refusal};
use super::trouble::TokenError;
use super::web::Said;
use crate::config::{Endpoint, Grant, OAuth, Relay, Secret, Timeouts};
use crate::spool::SpoolError;

/// When it was last used is written down so often.
const USED_STEP: SignedDuration = SignedDuration::from_hours(24);
/// A token that could not be renewed and is still good: when it is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// Why the endpoint is asked.
pub(super) enum Want {
    /// The next access token.
    Renewed,
    /// Somebody has logged in.
    Granted { granted: Granted, by: String },
}

impl Shared {
    pub(super) async fn post(
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
    pub(super) async fn ask(&self, relay: &Relay, timeouts: &Timeouts, want: Want) -> Outcome {
        let (_, oauth) = login_of(relay)?;
        let bond = bond_of(relay)?;
        let mut asked = self.clock.uptime();
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
                    if let Err(trouble) = self.keep(&relay.name, kept, true).await {
                        // The token is good, and the mail need not wait for the disk.
                        warn!(relay = relay.name, %trouble, "a login was renewed and cannot be written down");
                    }
                }
                given
            }
            (Grant::Login, Want::Granted { granted, by }) => {
                let given = granted.given;
                asked = granted.at;
                let Some(refresh_token) = given.refresh_token.clone() else {
                    return Err(TokenError::NotLoggedIn {
                        relay: relay.name.clone(),
                        why: "the login brought nothing that could be kept".to_owned(),
                    });
                };
                let mut kept = Kept::new(bond, refresh_token, by, now);
                renew(&mut kept, &given, now);
                self.keep(&relay.name, kept, false).await?;
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

    pub(super) async fn refresh(
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
    pub(super) fn learn(&self, relay: &Relay, purpose: u64, outcome: &Outcome) {
        let (Ok((_, oauth)), Ok(bond)) = (login_of(relay), bond_of(relay)) else {
            return;
        };
        let mut accounts = self.accounts();
        // A token of one account must never be shown to another's server.
        let Some(account) = accounts
            .get_mut(&relay.name)
            .filter(|it| it.purpose_number == purpose && it.is_exactly(&bond, oauth))
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
    pub(super) async fn kept(&self, relay: &str, bond: &Bond) -> Result<Kept, TokenError> {
        let unsaved = self.accounts().get(relay).and_then(|it| it.unsaved.clone());
        if let Some(kept) = unsaved.filter(|it| it.bond == *bond) {
            return Ok(kept);
        }
        let octets = self
            .octets(relay)
            .await?
            .ok_or_else(|| TokenError::NotLoggedIn {
                relay: relay.to_owned(),
                why: "nobody has logged in yet".to_owned(),
            })?;
        let kept = Kept::read(relay, &octets, bond)?;
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get_mut(relay).filter(|it| it.is_for(bond)) {
            account.facts = Some(kept.facts.clone());
            account.looked = true;
        }
        Ok(kept)
    }

    /// Writes a login down, if it is still wanted. Of a renewed one that cannot be written
    /// the one before may be dead: it is kept in mind, and written later.
    async fn keep(&self, relay: &str, kept: Kept, is_renewal: bool) -> Result<(), TokenError> {
        let _writing = self.writing.lock().await;
        self.is_wanted(relay, &kept.bond, is_renewal).await?;
        let written = self.write(relay, Some(kept.write())).await;
        let mut accounts = self.accounts();
        let account = accounts.get_mut(relay).filter(|it| it.is_for(&kept.bond));
        if let Some(account) = account.filter(|_| written.is_ok() || is_renewal) {
            account.facts = Some(kept.facts.clone());
            account.looked = true;
            account.unsaved = written.is_err().then_some(kept);
            account.unwritten = written.clone().err();
        }
        written
    }

    /// Writes down what could not be written, without asking anybody.
    pub(super) async fn save_again(&self, relay: &str) {
        let unsaved = || self.accounts().get(relay).and_then(|it| it.unsaved.clone());
        if unsaved().is_none() {
            return;
        }
        let _writing = self.writing.lock().await;
        let Some(kept) = unsaved() else { return };
        let written = match self.is_wanted(relay, &kept.bond, true).await {
            Ok(()) => self.write(relay, Some(kept.write())).await,
            Err(changed) => Err(changed),
        };
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get_mut(relay).filter(|it| it.is_for(&kept.bond)) {
            if written.is_ok() {
                info!(relay, "the renewed login is written down now");
                account.unsaved = None;
            }
            account.unwritten = written.err();
        }
    }

    /// Whether the configuration has a use for a login. What renews the one on the disk may
    /// always replace it: nobody else has what it is replaced with.
    async fn is_wanted(
        &self,
        relay: &str,
        bond: &Bond,
        is_renewal: bool,
    ) -> Result<(), TokenError> {
        let live = match &*self.live() {
            Some(live) => live.get(relay).cloned(),
            None => return Ok(()),
        };
        let wanted = match live {
            Some((Grant::Login, live)) if live == *bond => true,
            Some((Grant::Login, _)) if is_renewal => {
                let there = self.octets(relay).await?;
                there.is_some_and(|it| Kept::read(relay, &it, bond).is_ok())
            }
            Some(_) | None => false,
        };
        match wanted {
            true => Ok(()),
            false => Err(TokenError::NotLoggedIn {
                relay: relay.to_owned(),
                why: "the relay was changed meanwhile; log in again".to_owned(),
            }),
        }
    }

    async fn octets(&self, relay: &str) -> Result<Option<Vec<u8>>, TokenError> {
        match &self.keeper {
            Keeper::Spool(spool) => spool
                .secret(relay)
                .await
                .map_err(|error| ours("read", &error)),
            #[cfg(test)]
            Keeper::Memory(files) => Ok(files.lock().unwrap().get(relay).cloned()),
        }
    }

    pub(super) async fn write(
        &self,
        relay: &str,
        octets: Option<Vec<u8>>,
    ) -> Result<(), TokenError> {
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
    if let Some(refresh_token) = &given.refresh_token
        && *refresh_token != kept.refresh_token
    {
        kept.refresh_token = refresh_token.clone();
        // What was said of the one before is not true of this one.
        kept.facts.expires = None;
    }
    if let Some(life) = given.refresh_life {
        kept.facts.expires = now.checked_add(life).ok();
    }
}

fn ours(action: &'static str, error: &SpoolError) -> TokenError {
    let detail = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    TokenError::Ours { action, detail }
}
