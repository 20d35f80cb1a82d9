//! TLS on both sides: what listeners show, and what of a relay's certificate is believed.
//!
//! The cryptography is *ring*'s, named explicitly everywhere: a process-wide default
//! would depend on which library was linked first.

mod client;
mod server;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

pub use client::{ClientTls, Trust};
pub use server::ServerTls;
pub use verifier::CertificateProblem;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds no certificate, no key, or none that fit together.
    #[error("{}: {detail}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The system has no root certificates.
    #[error(
        "the system has no root certificates (package ca-certificates), and no ca-file or fingerprint is configured: {0}"
    )]
    NoRoots(String),
    /// The name to verify is neither a host name nor an address.
    #[error("{0} is not a name that a certificate could be made out for")]
    Name(String),
    /// The peer's certificate is not to be believed.
    #[error(transparent)]
    Certificate(CertificateProblem),
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The connection was lost in the handshake.
    #[error("the connection was lost in the TLS handshake: {0}")]
    Closed(std::io::Error),
}

/// The fingerprint of a certificate as it is written in the configuration.
pub fn fingerprint_text(fingerprint: &[u8; 32]) -> String {
    let digits: String = fingerprint.iter().map(|it| format!("{it:02x}")).collect();
    format!("sha256:{digits}")
}

/// SHA-256 of a certificate as it went over the wire.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate.as_ref()).into()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File {
        action: "read",
        path: path.into(),
        source,
    })
}

/// All certificates of a PEM file; an error when there is none.
fn certificates(
    pem: &[u8],
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |detail: String| TlsError::Unusable {
        path: path.into(),
        detail,
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(format!("not PEM: {error}")))?;
    if found.is_empty() {
        return Err(unusable("no certificate in it".to_owned()));
    }
    Ok(found)
}
