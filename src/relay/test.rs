//! Trying a relay without sending anything: `penstock relay test`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::RelayError;
use super::auth::Mechanism;
use super::connect::{Target, Unconnected};
use super::pool::Pool;
use super::secure::TlsFacts;
use super::transcript::Transcript;
use crate::config::{Relay, Secret, Timeouts};
use crate::smtp::Extensions;

/// How long QUIT may take.
const QUIT_MAXIMUM: Duration = Duration::from_secs(5);

/// What a test of a relay found.
#[derive(Debug, Clone, PartialEq)]
pub struct TestReport {
    /// The server that was reached, `name [address]:port`; empty when none was.
    pub server: String,
    /// What it offers after TLS and login; none when it did not come so far.
    pub offered: Option<Extensions>,
    /// What was agreed; none: in clear.
    pub tls: Option<TlsFacts>,
    /// How we logged in; none: without.
    pub login: Option<Mechanism>,
    /// What went wrong; none: it would take mail.
    pub error: Option<RelayError>,
    /// How long it took.
    pub took: Duration,
    /// What was said, passwords masked.
    pub transcript: Transcript,
}

impl Pool {
    /// Connects, makes TLS, greets, logs in and says QUIT.
    ///
    /// Always on a new connection; it counts against the relay's `connections`.
    pub async fn test(&self, relay: Arc<Relay>, timeouts: Timeouts, hostname: &str) -> TestReport {
        self.test_with(relay, timeouts, hostname, None).await
    }

    /// The same with this access token, if there is one, instead of the relay's own.
    pub async fn test_with(
        &self,
        relay: Arc<Relay>,
        timeouts: Timeouts,
        hostname: &str,
        token: Option<&Secret>,
    ) -> TestReport {
        let started = Instant::now();
        let target = Target {
            relay,
            timeouts,
            hostname: hostname.to_owned(),
        };
        let _slot = self.acquire_fresh(&target).await;
        let transcript = Some(Transcript::default());
        let dialled = match token {
            Some(_) => self.dialer().connect_with(&target, token, transcript).await,
            None => self.dialer().connect(&target, transcript).await,
        };
        match dialled {
            Ok(connection) => {
                let server = connection.server;
                let (offered, tls, login) = (connection.offered, connection.tls, connection.login);
                let transcript = connection.wire.quit(QUIT_MAXIMUM).await;
                TestReport {
                    server,
                    offered: Some(offered),
                    tls,
                    login,
                    error: None,
                    took: started.elapsed(),
                    transcript: transcript.unwrap_or_default(),
                }
            }
            Err(Unconnected {
                error,
                server,
                transcript,
            }) => TestReport {
                server,
                offered: None,
                tls: None,
                login: None,
                error: Some(error),
                took: started.elapsed(),
                transcript: transcript.unwrap_or_default(),
            },
        }
    }
}
