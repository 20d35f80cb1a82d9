//! One form to one endpoint, and its answer: bounded in time and size, and no further
//! than where it was sent.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use url::form_urlencoded;

use crate::config::{Certificates, Endpoint, Timeouts};
use crate::dns::{Dns, addresses};
use crate::mail::text::printable;
use crate::tls::{ClientTls, Trust};

/// An answer with every token that anybody hands out is far shorter.
const ANSWER_MAXIMUM: usize = 256 * 1024;
/// Addresses of one endpoint that are tried.
const ADDRESSES_MAXIMUM: usize = 6;
/// However patient one is with relays: mail waits for the answer.
const PATIENCE_MAXIMUM: Duration = Duration::from_secs(60);

/// What an endpoint said.
pub struct Said {
    /// Of HTTP (RFC 9110 section 15).
    pub status: u16,
    /// Its Content-Type.
    pub kind: String,
    /// At most as much of it as is read.
    pub body: Vec<u8>,
}

/// Posts forms.
pub(super) struct Web {
    dns: Arc<dyn Dns>,
    tls: Mutex<HashMap<Option<PathBuf>, ClientTls>>,
}

impl Web {
    pub(super) fn new(dns: Arc<dyn Dns>) -> Self {
        Self {
            dns,
            tls: Mutex::default(),
        }
    }

    /// Certificates are read anew.
    pub(super) fn forget(&self) {
        self.tls().clear();
    }

    /// Posts a form. Redirects are not followed: an answer from elsewhere, or the secrets
    /// sent there, are nobody's wish.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        ca_file: Option<&PathBuf>,
        form: &[(&str, &str)],
        timeouts: &Timeouts,
    ) -> Result<Said, String> {
        let connected_by = Instant::now() + timeouts.connect.min(PATIENCE_MAXIMUM);
        let late = |_| "no answer in time".to_owned();
        let found = timeout_at(connected_by, self.find(endpoint))
            .await
            .map_err(|_| "DNS does not answer in time".to_owned())??;
        let mut trouble = "it has no address".to_owned();
        for address in found {
            // One that swallows everything must not take the time of the others.
            let tried_by = connected_by.min(Instant::now() + timeouts.connect / 3);
            let stream = match timeout_at(tried_by, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    trouble = format!("[{}]:{}: {}", address.ip(), address.port(), words(&error));
                    continue;
                }
                Err(_) => {
                    trouble = format!("[{}]:{}: no answer in time", address.ip(), address.port());
                    continue;
                }
            };
            if !endpoint.is_https() {
                let answered_by = Instant::now() + timeouts.command.min(PATIENCE_MAXIMUM);
                let asked = exchange(stream, endpoint, form);
                return timeout_at(answered_by, asked).await.map_err(late)?;
            }
            let client = self.client(ca_file).await?;
            let secured = timeout_at(connected_by, client.connect(endpoint.host(), stream)).await;
            let stream = match secured {
                Ok(Ok(stream)) => stream,
                // Nothing was sent yet.
                Ok(Err(error)) => {
                    trouble = format!("no TLS: {error}");
                    continue;
                }
                Err(_) => {
                    trouble = "no TLS in time".to_owned();
                    continue;
                }
            };
            let answered_by = Instant::now() + timeouts.command.min(PATIENCE_MAXIMUM);
            let asked = exchange(stream, endpoint, form);
            return timeout_at(answered_by, asked).await.map_err(late)?;
        }
        Err(trouble)
    }

    async fn find(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, String> {
        let found: Vec<IpAddr> = match endpoint.address() {
            Some(address) => vec![address],
            None => addresses(&*self.dns, endpoint.host())
                .await
                .map_err(|error| printable(error.to_string().as_bytes(), 200))?,
        };
        // In clear nothing leaves this machine, whatever a name is said to mean.
        let found = found
            .into_iter()
            .filter(|it| endpoint.is_https() || it.is_loopback());
        let all = found.take(ADDRESSES_MAXIMUM);
        Ok(all.map(|it| SocketAddr::new(it, endpoint.port())).collect())
    }

    async fn client(&self, ca_file: Option<&PathBuf>) -> Result<ClientTls, String> {
        let key = ca_file.cloned();
        if let Some(kept) = self.tls().get(&key) {
            return Ok(kept.clone());
        }
        // It reads files, the system's roots among them.
        let wanted = Certificates {
            ca_file: key.clone(),
            ..Certificates::default()
        };
        let made = tokio::task::spawn_blocking(move || ClientTls::new(&wanted, Trust::Configured))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        self.tls().insert(key, made.clone());
        Ok(made)
    }

    fn tls(&self) -> std::sync::MutexGuard<'_, HashMap<Option<PathBuf>, ClientTls>> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request and its whole answer on a connection of its own.
async fn exchange<S>(stream: S, endpoint: &Endpoint, form: &[(&str, &str)]) -> Result<Said, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let request = Request::post(endpoint.path())
        .header(HOST, endpoint.authority())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("penstock/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let told = |error: hyper::Error| printable(chain(&error).as_bytes(), 200);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(told)?;
    // The connection moves the octets; how it ends is told to whoever waits for them.
    let moved = async {
        connection.await.ok();
        std::future::pending().await
    };
    let answered = async {
        let answer = sender.send_request(request).await.map_err(told)?;
        let status = answer.status().as_u16();
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let kind = kind.to_owned();
        let body = Limited::new(answer.into_body(), ANSWER_MAXIMUM)
            .collect()
            .await
            .map_err(|error| printable(error.to_string().as_bytes(), 200))?;
        Ok(Said {
            status,
            kind,
            body: body.to_bytes().to_vec(),
        })
    };
    tokio::select! {
        biased;
        answered = answered => answered,
        never = moved => never,
    }
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

fn words(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
