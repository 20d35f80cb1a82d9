//! What of a relay's certificate is believed, and what an administrator is told otherwise.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
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
    /// It names nobody where names are looked for.
    #[error(
        "the certificate names no host: it has no subjectAltName, and the common name (CN) is not looked at (RFC 9525); have the server's operator make one for {wanted} (until then fingerprint = \"{actual}\" takes exactly this one)"
    )]
    NoName {
        /// What was verified.
        wanted: String,
        /// Its fingerprint.
        actual: String,
    },
    /// An authority's certificate, used as the server's own: what `openssl req -x509` makes.
    #[error(
        "the certificate is a CA certificate (CA:TRUE), which cannot be a server's own, not even with ca-file{also}: set fingerprint = \"{actual}\" once you have made sure that it is the right one, or have the server's operator make one without CA:TRUE"
    )]
    Authority {
        /// Its fingerprint.
        actual: String,
        /// What is wrong with its name besides; empty: nothing.
        also: String,
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
    let wanted = name.to_str().into_owned();
    let wrong_name = |presented: &[String]| match names(presented) {
        presented if presented.is_empty() => CertificateProblem::NoName {
            wanted: wanted.clone(),
            actual: actual.clone(),
        },
        presented => CertificateProblem::WrongName {
            wanted: wanted.clone(),
            presented,
        },
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
            // A bad signature means an authority that only has the name of a trusted one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                CertificateProblem::UnknownIssuer { actual }
            }
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                let also = misnamed(leaf, name);
                CertificateProblem::Authority { actual, also }
            }
            other => CertificateProblem::Other {
                detail: plain_words(&format!("{other:?}")),
                actual,
            },
        },
        other => CertificateProblem::Other {
            detail: printable(other.to_string().as_bytes(), 200),
            actual,
        },
    }
}

/// The names of a certificate, on one line.
fn names(presented: &[String]) -> String {
    let shown = presented.iter().take(10).map(|it| bare_name(it));
    printable(shown.collect::<Vec<_>>().join(", ").as_bytes(), 500)
}

/// What is wrong with the name of a certificate whose name was not looked at yet.
fn misnamed(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> String {
    let checked = ParsedCertificate::try_from(leaf).and_then(|it| verify_server_name(&it, name));
    let Err(Error::InvalidCertificate(error)) = checked else {
        return String::new();
    };
    let presented = match &error {
        CertificateError::NotValidForNameContext { presented, .. } => names(presented),
        CertificateError::NotValidForName => String::new(),
        _ => return String::new(),
    };
    let wanted = name.to_str();
    match presented.as_str() {
        "" => format!(", and names no host (it has no subjectAltName; {wanted} is wanted)"),
        presented => format!(", and is not for {wanted} but for {presented}"),
    }
}

/// What a library calls an error, in words: `UnhandledCriticalExtension` becomes
/// `unhandled critical extension`, and what it adds for programmers is left out.
fn plain_words(debug: &str) -> String {
    if debug.contains("UnsupportedSignatureAlgorithm") {
        return "it is signed in a way that is not accepted any more (SHA-1, MD5, or a key of an \
                unusual kind), so its operator must make a new one"
            .to_owned();
    }
    let wrapping = ["", "Other", "OtherError", "Some"];
    let mut named = debug.split(|it: char| !it.is_ascii_alphanumeric());
    let name = named
        .find(|it| !wrapping.contains(it))
        .unwrap_or("no reason");
    let mut words = String::new();
    for letter in name.strip_suffix("Context").unwrap_or(name).chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// A name as it stands in the certificate, without what rustls writes around it.
fn bare_name(presented: &str) -> &str {
    let inside = |kind: &str| presented.strip_prefix(kind)?.strip_suffix(')');
    let name = inside("DnsName(").or_else(|| inside("IpAddress("));
    name.map_or(presented, |it| it.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_library_reaches_an_administrator() {
        for (debug, expected) in [
            ("BadEncoding", "bad encoding"),
            ("UnhandledCriticalExtension", "unhandled critical extension"),
            (
                "InvalidPurposeContext { required: ServerAuth, presented: [] }",
                "invalid purpose",
            ),
            (
                "Other(OtherError(PathLenConstraintViolated))",
                "path len constraint violated",
            ),
        ] {
            assert_eq!(plain_words(debug), expected);
        }
        let unsupported = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![42, 134],
            public_key_algorithm_id: vec![42],
        };
        let found = problem(
            Error::InvalidCertificate(unsupported),
            &CertificateDer::from(vec![0]),
            &ServerName::try_from("mx.example").unwrap(),
        );
        let said = found.to_string();
        assert!(said.contains("not accepted any more"), "{said}");
        assert!(!said.contains('{') && !said.contains("Context"), "{said}");
    }
}
