//! What of a relay's certificate is believed, and what an administrator is told otherwise.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::{fingerprint, fingerprint_text};
use crate::mail::text::printable;

/// Why a certificate is not believed. Each says what an administrator can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// It is for another name.
    #[error(
        "the certificate is not for {wanted} but for {presented} (set tls-name if one of these is right)"
    )]
    WrongName {
        /// What was verified.
        wanted: String,
        /// What it is for.
        presented: String,
    },
    /// It is no longer valid.
    #[error(
        "the certificate has expired: have the server's operator renew it (until then fingerprint = \"{actual}\" takes exactly this one)"
    )]
    Expired {
        /// Its fingerprint.
        actual: String,
    },
    /// It is not valid yet, or the clock is wrong.
    #[error("the certificate is not valid yet, or this machine's clock is wrong")]
    NotYetValid,
    /// Nobody whom we trust has signed it.
    #[error(
        "the certificate is signed by nobody who is trusted here (set ca-file, or fingerprint = \"{actual}\" once you have made sure that it is the right one)"
    )]
    UnknownIssuer {
        /// Its fingerprint.
        actual: String,
    },
    /// It is not the one that was pinned.
    #[error("the certificate is not the pinned one: its fingerprint is {actual}")]
    Fingerprint {
        /// Its fingerprint.
        actual: String,
    },
    /// Anything else.
    #[error("the certificate is not usable: {detail}; its fingerprint is {actual}")]
    Other {
        /// What is wrong.
        detail: String,
        /// Its fingerprint.
        actual: String,
    },
}

/// How much is verified.
#[derive(Debug)]
enum Demand {
    /// Chain and name.
    Chain(Arc<WebPkiServerVerifier>),
    /// That it is this very certificate, and that the peer has its key.
    Pinned([u8; 32]),
    /// Nothing: opportunistic TLS without credentials (RFC 7435).
    Nothing,
}

/// Verifies as demanded and says plainly what is wrong.
#[derive(Debug)]
pub(super) struct Verifier {
    demand: Demand,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn chain(webpki: Arc<WebPkiServerVerifier>, provider: Arc<CryptoProvider>) -> Self {
        Self {
            demand: Demand::Chain(webpki),
            provider,
        }
    }

    pub(super) fn pinned(pin: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self {
            demand: Demand::Pinned(pin),
            provider,
        }
    }

    pub(super) fn nothing(provider: Arc<CryptoProvider>) -> Self {
        Self {
            demand: Demand::Nothing,
            provider,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.demand {
            Demand::Nothing => Ok(ServerCertVerified::assertion()),
            Demand::Pinned(pin) if fingerprint(leaf) == *pin => Ok(ServerCertVerified::assertion()),
            Demand::Pinned(_) => Err(wrap(CertificateProblem::Fingerprint {
                actual: fingerprint_text(&fingerprint(leaf)),
            })),
            Demand::Chain(webpki) => webpki
                .verify_server_cert(leaf, intermediates, name, ocsp, now)
                .map_err(|error| wrap(problem(error, leaf, name))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if matches!(self.demand, Demand::Nothing) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if matches!(self.demand, Demand::Nothing) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn wrap(problem: CertificateProblem) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
}

/// Finds the problem again in what the handshake returned.
pub(super) fn unwrap(error: &Error) -> Option<&CertificateProblem> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref()
        }
        _ => None,
    }
}

fn problem(error: Error, leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> CertificateProblem {
    let actual = fingerprint_text(&fingerprint(leaf));
    let wrong_name = |presented: &[String]| {
        let shown = presented.iter().take(10).map(|it| bare_name(it));
        let presented = shown.collect::<Vec<_>>().join(", ");
        CertificateProblem::WrongName {
            wanted: name.to_str().into_owned(),
            presented: match presented.as_str() {
                "" => "no name".to_owned(),
                names => printable(names.as_bytes(), 500),
            },
        }
    };
    match &error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidForName => wrong_name(&[]),
            CertificateError::NotValidForNameContext { presented, .. } => wrong_name(presented),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                CertificateProblem::Expired { actual }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CertificateProblem::NotYetValid
            }
            // A self-signed certificate marked as an authority, what `openssl req -x509`
            // makes, comes out as something else; what can be done about it is the same.
            // A bad signature means an authority that only has the name of a trusted one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                CertificateProblem::UnknownIssuer { actual }
            }
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                CertificateProblem::UnknownIssuer { actual }
            }
            other => CertificateProblem::Other {
                detail: printable(other.to_string().as_bytes(), 200),
                actual,
            },
        },
        other => CertificateProblem::Other {
            detail: printable(other.to_string().as_bytes(), 200),
            actual,
        },
    }
}

/// A name as it stands in the certificate, without what rustls writes around it.
fn bare_name(presented: &str) -> &str {
    let inside = |kind: &str| presented.strip_prefix(kind)?.strip_suffix(')');
    let name = inside("DnsName(").or_else(|| inside("IpAddress("));
    name.map_or(presented, |it| it.trim_matches('"'))
}
