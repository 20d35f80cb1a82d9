//! A person logs in on any machine with a browser, for a relay on this one (RFC 8628).
//!
//! The daemon asks for a code, a person enters it on the provider's page, and the daemon
//! asks until the provider has an answer. No secret passes through the person's hands.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::answer::{self, Begun, Given, No};
use super::tokens::{Granted, Tokens, login_of, refusal};
use super::trouble::TokenError;
use crate::config::{OAuth, Provider, Relay, Timeouts};

/// How much longer to wait when the endpoint says `slow_down` (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// One that cannot be reached is asked less and less often, down to that.
const INTERVAL_MAXIMUM: Duration = Duration::from_secs(60);

/// What a person has to do.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The page to open.
    pub page: String,
    /// The same with the code in it, where the provider has one.
    pub whole_page: Option<String>,
    /// The code to enter there.
    pub user_code: String,
    /// Until when.
    pub expires: Timestamp,
    begun: Begun,
    until: Instant,
}

impl Tokens {
    /// Begins a login.
    pub async fn begin_login(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
    ) -> Result<Prompt, TokenError> {
        let (_, oauth) = login_of(relay)?;
        let Some(endpoint) = &oauth.device_url else {
            return Err(TokenError::NotLoggedIn {
                relay: relay.name.clone(),
                why: no_device_flow(relay, oauth),
            });
        };
        let mut form = vec![("client_id", oauth.client_id.as_str())];
        // RFC 8628 section 3.1: an application with a secret shows it here, too.
        if let Some(secret) = &oauth.client_secret {
            form.push(("client_secret", secret.expose()));
        }
        if !oauth.scope.is_empty() {
            form.push(("scope", &oauth.scope));
        }
        let started = Instant::now();
        let said = self.post(oauth, endpoint, &form, timeouts).await?;
        let begun = answer::begun(&said, &self.secrets_of(oauth))
            .map_err(|no| refusal(&relay.name, endpoint, no))?;
        let expires = self.clock().now().checked_add(begun.life);
        Ok(Prompt {
            page: begun.page.clone(),
            whole_page: begun.whole_page.clone(),
            user_code: begun.user_code.clone(),
            expires: expires.unwrap_or(Timestamp::MAX),
            until: started + begun.life,
            begun,
        })
    }

    /// Waits until somebody has logged in, or will not; dropping it gives up.
    pub async fn finish_login(
        &self,
        relay: &Relay,
        timeouts: &Timeouts,
        prompt: Prompt,
    ) -> Result<Granted, TokenError> {
        let (_, oauth) = login_of(relay)?;
        let mut interval = prompt.begun.interval;
        let longer = |it: Duration| it.max((it * 2).min(INTERVAL_MAXIMUM));
        let refused = |no| refusal(&relay.name, &oauth.token_url, no);
        loop {
            let next = Instant::now() + interval;
            if next >= prompt.until {
                sleep_until(prompt.until).await;
                return Err(refused(No::Refused {
                    code: "expired_token".to_owned(),
                    words: "nobody entered the code in time".to_owned(),
                }));
            }
            sleep_until(next).await;
            let at = self.clock().uptime();
            let mut form = vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", prompt.begun.device_code.expose()),
                ("client_id", oauth.client_id.as_str()),
            ];
            if let Some(secret) = &oauth.client_secret {
                form.push(("client_secret", secret.expose()));
            }
            let said = match self.post(oauth, &oauth.token_url, &form, timeouts).await {
                Ok(said) => said,
                // RFC 8628 section 3.5: after a time-out less often, but on.
                Err(trouble) => {
                    debug!(relay = relay.name, %trouble, "asked for a login in vain");
                    interval = longer(interval);
                    continue;
                }
            };
            let mut secrets = self.secrets_of(oauth);
            secrets.push(&prompt.begun.device_code);
            match (answer::given(&said, &secrets), answer::code(&said)) {
                (Ok(given), _) => return granted(given, at).map_err(refused),
                (Err(_), Some(code)) if code == "authorization_pending" => {}
                (Err(_), Some(code)) if code == "slow_down" => {
                    interval += SLOWER;
                }
                (Err(No::Passing(words)), _) => {
                    debug!(relay = relay.name, words, "asked for a login in vain");
                    interval = longer(interval);
                }
                (Err(no @ No::Refused { .. }), _) => return Err(refused(no)),
            }
        }
    }
}

fn granted(given: Given, at: Duration) -> Result<Granted, No> {
    match given.refresh_token.is_some() {
        true => Ok(Granted { given, at }),
        false => Err(No::Refused {
            code: "no refresh token".to_owned(),
            words: "the login worked, and came without what would renew it; the scope has to ask \
                for that (at Microsoft: offline_access)"
                .to_owned(),
        }),
    }
}

fn no_device_flow(relay: &Relay, oauth: &OAuth) -> String {
    let name = &relay.name;
    let how = format!(
        "get a refresh token elsewhere (docs/relays.md) and hand it over: penstock relay login {name} --refresh-token-file FILE"
    );
    match oauth.provider {
        Some(Provider::Google) => {
            format!("Google gives no token for mail to a login by code; {how}")
        }
        Some(Provider::Microsoft) | None => {
            format!("no device-url is configured for {name}; {how}")
        }
    }
}
