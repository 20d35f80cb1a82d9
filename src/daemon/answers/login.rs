//! `penstock relay login`: a person logs in for a relay that takes tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{Grant, Relay, Secret};
use crate::control::protocol::{FailureKind, Item, LoggedIn, LoginPrompt, RelayTestReport};
use crate::control::{Gone, Responder};
use crate::oauth::TokenError;
use crate::relay::RelayError;

use super::{Answers, Trouble, bad_request, no_such_relay};
use crate::daemon::desk::Stopping;
use crate::daemon::relay_test;

/// How long the relay is tried before a login is kept; its connections may all be busy.
const TEST_PATIENCE: Duration = Duration::from_secs(60);

impl Answers {
    pub(super) async fn relay_login(
        &self,
        name: &str,
        refresh_token: Option<String>,
        to: &Responder,
        stopping: &CancellationToken,
    ) -> Result<(), Trouble> {
        let relay = self.relay_with_login(name)?;
        let timeouts = self.live.borrow().config.timeouts;
        let tokens = &self.office.tokens;
        let by = to.peer().user.clone();
        let granted = match refresh_token {
            Some(token) => {
                let token = Secret::new(token.trim().to_owned());
                let proven = tokens.prove(&relay, &timeouts, token).await;
                proven.map_err(|it| told(&it))?
            }
            None => {
                let begun = tokens.begin_login(&relay, &timeouts).await;
                let prompt = begun.map_err(|it| told(&it))?;
                to.item(Item::Login(LoginPrompt {
                    relay: name.to_owned(),
                    username: username(&relay),
                    page: prompt.page.clone(),
                    whole_page: prompt.whole_page.clone(),
                    code: prompt.user_code.clone(),
                    expires: prompt.expires,
                }))
                .await?;
                let granted = tokio::select! {
                    granted = tokens.finish_login(&relay, &timeouts, prompt) => granted,
                    () = to.gone() => return Err(Gone.into()),
                    () = stopping.cancelled() => return Err(Stopping.into()),
                };
                granted.map_err(|it| told(&it))?
            }
        };
        // A login of another mailbox's person is good, and no token of it is: it must not
        // replace one that works.
        let token = Some(granted.access_token());
        let tested = relay_test::run_with(&self.office, Arc::new(relay.clone()), token);
        let tested = tokio::time::timeout(TEST_PATIENCE, tested).await.ok();
        let rules = self.office.rules.borrow().clone();
        let refused = tested.as_ref().and_then(|it| it.error.as_ref());
        let refused = refused.is_some_and(RelayError::refuses_login);
        let tested = tested.map(|it| relay_test::verdict(name, &it, &rules));
        if let Some(report) = tested.as_ref().filter(|_| refused) {
            let standing = tokens.standing(&relay).await;
            return Err(not_kept(
                report,
                standing.is_some_and(|it| it.since.is_some()),
            ));
        }
        let kept = tokens.keep_login(&relay, &timeouts, granted, &by);
        kept.await.map_err(|it| told(&it))?;
        info!(relay = name, by, username = username(&relay), "logged in");
        // Whether or not anybody still listens: its mail waits for nothing else.
        self.desk.mended(name.to_owned()).await?;
        // Without a login its test message has failed, or was never tried.
        if !self.office.confirmations.is_active(&relay) {
            self.desk.verify(name.to_owned()).await?.ok();
        }
        let standing = tokens.standing(&relay).await;
        to.item(Item::LoggedIn(LoggedIn {
            relay: name.to_owned(),
            username: username(&relay),
            at: self.clock.now(),
            expires: standing.and_then(|it| it.expires),
        }))
        .await?;
        if let Some(report) = tested {
            to.item(Item::RelayTest(report)).await?;
        }
        Ok(())
    }

    /// The relay, if somebody can log in for it.
    fn relay_with_login(&self, name: &str) -> Result<Relay, Trouble> {
        let found = self.live.borrow().config.relays.get(name).cloned();
        let relay = found.ok_or_else(|| no_such_relay(name))?;
        let oauth = relay.credentials.as_ref().and_then(|it| it.oauth());
        match oauth.map(|it| it.grant) {
            Some(Grant::Login) => Ok(relay),
            Some(Grant::ClientCredentials) => Err(bad_request(format!(
                "nobody has to log in for {name}: its application does (grant = \
                 \"client-credentials\"); to try it: penstock relay test {name}"
            ))),
            None => Err(bad_request(format!(
                "{name} takes no tokens: it has no table [relays.{name}.oauth] (if it has by now: \
                 penstock reload); to change its password: penstock relay set {name} --password"
            ))),
        }
    }
}

fn username(relay: &Relay) -> String {
    let credentials = relay.credentials.as_ref();
    credentials
        .map(|it| it.username.clone())
        .unwrap_or_default()
}

/// The relay refused what somebody logged in with.
fn not_kept(report: &RelayTestReport, has_another: bool) -> Trouble {
    let kept = match has_another {
        true => "The login there was before stays as it is.",
        false => "Nothing was kept.",
    };
    let remedy = report.remedy.as_deref().unwrap_or_default();
    let words = format!(
        "{} does not take this login: {}\n{remedy}\n{kept}",
        report.relay, report.text
    );
    Trouble::Failure(FailureKind::Failed, words)
}

fn told(trouble: &TokenError) -> Trouble {
    let kind = match trouble.is_passing() {
        true => FailureKind::TryAgain,
        false => FailureKind::Failed,
    };
    let words = match trouble {
        // The remedy would be what was just tried.
        TokenError::NotLoggedIn { why, .. } => why.clone(),
        other => format!("{other}\n{}", other.remedy()),
    };
    Trouble::Failure(kind, words)
}
