//! TLS towards a relay: at once or after STARTTLS (RFC 3207, 8314).

use std::sync::PoisonError;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::RelayError;
use super::connect::{Dialer, Try, timed_out};
use super::wire::{Stream, Wire};
use crate::config::{Certificates, Host, RelayTls};
use crate::mail::Stage;
use crate::smtp::Extensions;
use crate::tls::{ClientTls, TlsError, Trust, fingerprint, fingerprint_text};

/// What was agreed in a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1_3`.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// The certificate's fingerprint as the configuration writes it.
    pub fingerprint: String,
    /// It was verified, by chain and name or by fingerprint.
    pub verified: bool,
}

impl Dialer {
    /// Whether STARTTLS comes next; an error where it must and cannot.
    pub(super) fn wants_starttls(
        &self,
        attempt: &Try<'_>,
        offered: &Extensions,
    ) -> Result<bool, RelayError> {
        match attempt.server.tls {
            RelayTls::Off | RelayTls::Implicit => Ok(false),
            RelayTls::Required | RelayTls::Opportunistic if offered.starttls => Ok(true),
            RelayTls::Opportunistic => Ok(false),
            RelayTls::Required if attempt.logs_in() => Err(RelayError::NoSecureLogin {
                server: attempt.reached.clone(),
            }),
            RelayTls::Required => Err(RelayError::Tls {
                server: attempt.reached.clone(),
                detail: "the server does not offer STARTTLS".to_owned(),
            }),
        }
    }

    /// Puts TLS on a connection that was promised it.
    pub(super) async fn upgrade(
        &self,
        attempt: &mut Try<'_>,
        wire: &mut Wire,
    ) -> Result<TlsFacts, RelayError> {
        // Octets behind the 220 came in clear, perhaps from somebody in between, and would
        // be taken for replies under TLS: response injection.
        if wire.has_unread() {
            return Err(RelayError::Garbage {
                stage: Stage::StartTls,
                said: "more octets in clear after the reply to STARTTLS: somebody injects replies"
                    .to_owned(),
            });
        }
        let deadline = Instant::now() + attempt.target.timeouts.connect;
        let placeholder = Wire::new(Stream::Closed, None);
        let (stream, transcript) = std::mem::replace(wire, placeholder).into_parts();
        attempt.transcript = transcript;
        let Stream::Plain(stream) = stream else {
            return Err(RelayError::Tls {
                server: attempt.reached.clone(),
                detail: "TLS within TLS".to_owned(),
            });
        };
        let (stream, facts) = self.secure(attempt, stream, deadline).await?;
        *wire = Wire::new(stream, attempt.transcript.take());
        Ok(facts)
    }

    /// The handshake.
    pub(super) async fn secure(
        &self,
        attempt: &mut Try<'_>,
        stream: TcpStream,
        deadline: Instant,
    ) -> Result<(Stream, TlsFacts), RelayError> {
        let failed = |detail: String| RelayError::Tls {
            server: attempt.reached.clone(),
            detail,
        };
        let certificates = &attempt.target.relay.certificates;
        let trust = match attempt.server.tls {
            RelayTls::Opportunistic if !attempt.logs_in() => Trust::Nobody,
            _ => Trust::Configured,
        };
        let client = self
            .client(certificates, trust)
            .await
            .map_err(|error| failed(error.to_string()))?;
        // The name that was configured, not the one that DNS gave for it: whoever can
        // forge an MX record must not get the password.
        let name = match (&certificates.tls_name, &attempt.server.host) {
            (Some(name), _) => name.clone(),
            (None, Host::Mx(name) | Host::Name(name)) => name.ascii().to_owned(),
            (None, Host::Address(address)) => address.to_string(),
        };
        let limit = attempt.target.timeouts.connect;
        let handshake = timeout_at(deadline, client.connect(&name, stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(timed_out(limit))),
        };
        let session = stream.get_ref().1;
        let leaf = session.peer_certificates().and_then(|it| it.first());
        let facts = TlsFacts {
            version: session
                .protocol_version()
                .map(|it| format!("{it:?}"))
                .unwrap_or_default(),
            cipher: session
                .negotiated_cipher_suite()
                .map(|it| format!("{:?}", it.suite()))
                .unwrap_or_default(),
            fingerprint: leaf
                .map(|it| fingerprint_text(&fingerprint(it)))
                .unwrap_or_default(),
            verified: client.is_verified(),
        };
        attempt.note(&format!(
            "{} {}, certificate {} {}",
            facts.version,
            facts.cipher,
            facts.fingerprint,
            if facts.verified {
                "verified"
            } else {
                "not verified"
            }
        ));
        Ok((Stream::Tls(Box::new(stream)), facts))
    }

    async fn client(
        &self,
        certificates: &Certificates,
        trust: Trust,
    ) -> Result<ClientTls, TlsError> {
        let key = (certificates.clone(), trust == Trust::Configured);
        let lock = || self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = lock().get(&key) {
            return Ok(kept.clone());
        }
        // It reads files, the system's roots among them.
        let wanted = key.0.clone();
        let made = tokio::task::spawn_blocking(move || ClientTls::new(&wanted, trust))
            .await
            .map_err(|error| TlsError::Handshake(error.to_string()))??;
        lock().insert(key, made.clone());
        Ok(made)
    }
}
