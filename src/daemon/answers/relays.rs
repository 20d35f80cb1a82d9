//! `relay list`, `test`, `verify`, `confirm` and `route`: the relays, and trying them.

use std::sync::Arc;
use std::time::Duration;

use crate::control::Responder;
use crate::control::protocol::{FailureKind, Item, RelayTestReport, RouteReport, Verified};
use crate::daemon::verifying::{NoTest, Unconfirmed, Verifying};
use crate::daemon::{relay_test, verifying};
use crate::mail::Stage;
use crate::verify::{self, Token};

use super::{Answers, Trouble, no_such_relay, not_found, parse_address};

/// How long `relay verify` waits for its test message to be tried.
const VERIFY_PATIENCE: Duration = Duration::from_secs(60);

impl Answers {
    pub(super) async fn relays(
        &self,
        relay: Option<String>,
        to: &Responder,
    ) -> Result<(), Trouble> {
        let found = self.desk.relays(relay.clone()).await?;
        if let (Some(relay), true) = (relay, found.is_empty()) {
            return Err(no_such_relay(&relay));
        }
        for status in found {
            to.item(Item::Relay(Box::new(status))).await?;
        }
        Ok(())
    }

    pub(super) fn known_relay(&self, relay: &str) -> Result<(), Trouble> {
        match self.live.borrow().config.relays.contains_key(relay) {
            true => Ok(()),
            false => Err(no_such_relay(relay)),
        }
    }

    pub(super) async fn relay_test(&self, relay: &str, to: &Responder) -> Result<(), Trouble> {
        let found = self.live.borrow().config.relays.get(relay).cloned();
        let Some(configured) = found else {
            return Err(no_such_relay(relay));
        };
        let report = relay_test::run(&self.office, Arc::new(configured)).await;
        for line in relay_test::dialogue(&report) {
            to.item(Item::Dialogue(line)).await?;
        }
        let rules = self.office.rules.borrow().clone();
        to.item(Item::RelayTest(relay_test::verdict(relay, &report, &rules)))
            .await?;
        Ok(())
    }

    /// Sends the test message of a relay, and shows what comes of it.
    pub(super) async fn relay_verify(&self, relay: &str, to: &Responder) -> Result<(), Trouble> {
        self.known_relay(relay)?;
        let verifying = match self.desk.verify(relay.to_owned()).await? {
            Ok(verifying) => verifying,
            Err(reason) => {
                let kind = match reason {
                    NoTest::NotWanted(_) => FailureKind::BadRequest,
                    NoTest::Pause { .. } => FailureKind::TryAgain,
                    NoTest::Confirmed { .. } | NoTest::Paused { .. } | NoTest::Trouble(_) => {
                        FailureKind::Failed
                    }
                };
                return Err(Trouble::Failure(kind, reason.to_string()));
            }
        };
        let Verifying { sender, id, ended } = verifying;
        let ended = tokio::time::timeout(VERIFY_PATIENCE, ended).await;
        let mut report = RelayTestReport {
            relay: relay.to_owned(),
            ok: true,
            server: None,
            stage: Stage::FinalDot.name().to_owned(),
            text: format!(
                "the test message left for {sender}; open the link in it and press the button, or \
                 run penstock relay confirm with its token, within 7 days"
            ),
            remedy: None,
        };
        match ended {
            Ok(Ok(verify::Outcome::Sent { .. })) => {}
            Ok(Ok(verify::Outcome::Failed {
                stage,
                server,
                words,
                remedy,
                conversation,
                ..
            })) => {
                for line in verifying::dialogue(&conversation) {
                    to.item(Item::Dialogue(line)).await?;
                }
                report.ok = false;
                report.stage = stage;
                report.server = Some(server).filter(|it| !it.is_empty());
                report.text = words;
                report.remedy = Some(remedy);
            }
            Ok(Ok(verify::Outcome::Waiting) | Err(_)) | Err(_) => {
                report.text = format!(
                    "the test message to {sender} is written and has not left yet; \
                     penstock show {id} tells what it waits for"
                );
            }
        }
        to.item(Item::RelayTest(report)).await?;
        Ok(())
    }

    /// What a token is for; with a name, that one confirms it.
    pub(super) async fn relay_confirm(
        &self,
        token: &str,
        by: Option<String>,
    ) -> Result<Verified, Trouble> {
        let unknown = || Trouble::Failure(FailureKind::NotFound, Unconfirmed::Unknown.to_string());
        let token = Token::parse(token).ok_or_else(unknown)?;
        match self.desk.confirm(token.hash(), by).await? {
            Ok(confirmed) => Ok(Verified {
                relay: confirmed.relay,
                servers: confirmed.servers,
                sender: confirmed.sender,
                at: confirmed.at,
            }),
            Err(Unconfirmed::Unknown) => Err(unknown()),
            Err(Unconfirmed::Trouble(words)) => Err(Trouble::Failure(FailureKind::TryAgain, words)),
            Err(refused) => Err(Trouble::Failure(FailureKind::Failed, refused.to_string())),
        }
    }

    pub(super) async fn route(&self, address: &str, to: &Responder) -> Result<(), Trouble> {
        let mailbox = parse_address(address)?;
        let live = self.live.borrow().clone();
        let route = live
            .directory
            .route(&mailbox, &|name| self.office.is_active(&live, name))
            .map_err(|refusal| not_found(refusal.to_string()))?;
        let state = self
            .desk
            .relays(Some(route.relay.clone()))
            .await?
            .pop()
            .map(|it| it.state);
        let report = RouteReport {
            address: mailbox.to_string(),
            relay: route.relay,
            user: (!route.user.is_empty()).then_some(route.user),
            rule: route.rule.to_string(),
            state,
        };
        to.item(Item::Route(report)).await?;
        Ok(())
    }
}
