//! The listeners for browsers, as the daemon runs them: bound before a configuration is
//! taken, closed when it names them no more.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::config::{Http, HttpAddress};
use crate::http::{self, Requests};

use super::StartError;
use super::lifecycle::Lifecycle;

/// The pages that are served.
pub struct Pages {
    requests: Requests,
    lifecycle: Lifecycle,
    admin: Option<(HttpAddress, watch::Sender<bool>)>,
    confirm: Option<(SocketAddr, SocketAddr, watch::Sender<bool>)>,
}

/// What is bound and not served yet.
#[derive(Default)]
pub struct Ready {
    admin: Option<http::Bound>,
    confirm: Option<TcpListener>,
}

impl Pages {
    /// None yet.
    pub fn new(requests: Requests, lifecycle: Lifecycle) -> Self {
        Self {
            requests,
            lifecycle,
            admin: None,
            confirm: None,
        }
    }

    /// Binds what is wanted and does not run yet.
    pub async fn prepare(&self, wanted: &Http) -> Result<Ready, StartError> {
        let mut ready = Ready::default();
        let running = self.admin.as_ref().map(|it| &it.0);
        if let Some(address) = wanted.admin.as_ref().filter(|it| Some(*it) != running) {
            ready.admin = Some(match address {
                HttpAddress::Unix(path) => http::Bound::unix(path)?,
                HttpAddress::Loopback(address) => {
                    let bound = TcpListener::bind(address).await;
                    http::Bound::Loopback(bound.map_err(|source| StartError::System {
                        action: "serve http.admin",
                        source,
                    })?)
                }
            });
        }
        let running = self.confirm.as_ref().map(|it| it.0);
        if let Some(address) = wanted.confirm.filter(|it| Some(*it) != running) {
            let bound = TcpListener::bind(address).await;
            ready.confirm = Some(bound.map_err(|source| StartError::System {
                action: "serve http.confirm",
                source,
            })?);
        }
        Ok(ready)
    }

    /// Serves what was prepared, and closes what is not wanted any more.
    pub fn change(&mut self, wanted: &Http, ready: Ready) {
        if self.admin.as_ref().map(|it| &it.0) != wanted.admin.as_ref()
            && let Some((_, stop)) = self.admin.take()
        {
            stop.send_replace(true);
        }
        if self.confirm.as_ref().map(|it| it.0) != wanted.confirm
            && let Some((_, _, stop)) = self.confirm.take()
        {
            stop.send_replace(true);
        }
        if let (Some(bound), Some(address)) = (ready.admin, &wanted.admin) {
            let (stop, stopping) = watch::channel(false);
            self.admin = Some((address.clone(), stop));
            let requests = self.requests.clone();
            self.lifecycle
                .spawn_vital("the server of http.admin", async move {
                    let served = http::serve(bound, requests, stopping).await;
                    served.map_err(|error| format!("ended: {error}"))
                });
        }
        if let (Some(listener), Some(configured)) = (ready.confirm, wanted.confirm) {
            let (stop, stopping) = watch::channel(false);
            let bound = listener.local_addr().unwrap_or(configured);
            info!(address = %bound, "serving the confirmation page");
            self.confirm = Some((configured, bound, stop));
            let requests = self.requests.clone();
            self.lifecycle
                .spawn_vital("the server of http.confirm", async move {
                    let served = http::confirm::serve(listener, requests, stopping).await;
                    served.map_err(|error| format!("ended: {error}"))
                });
        }
    }

    /// Where the confirmation page is really served.
    pub fn confirm_address(&self) -> Option<SocketAddr> {
        self.confirm.as_ref().map(|it| it.1)
    }

    /// Closes all of them.
    pub fn stop(&mut self) {
        self.change(&Http::default(), Ready::default());
    }
}
