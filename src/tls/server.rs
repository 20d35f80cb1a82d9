//! What listeners show: a configured certificate, or one made here.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::TlsAcceptor;

use super::{TlsError, certificates, fingerprint, provider, read};
use crate::config::TlsFiles;

/// Certificate and key in one file: a crash cannot leave two that do not fit.
const SELF_SIGNED: &str = "self-signed.pem";

/// The certificate and key of the listeners; cloned freely. To reload, open it anew.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    fingerprint: [u8; 32],
    self_signed: bool,
}

impl ServerTls {
    /// The configured files, or else a self-signed pair kept in the state directory.
    pub fn open(
        files: Option<&TlsFiles>,
        state_directory: &Path,
        hostname: &str,
    ) -> Result<Self, TlsError> {
        match files {
            Some(files) => Self::from_files(files),
            None => Self::self_signed(state_directory, hostname),
        }
    }

    /// From PEM files.
    pub fn from_files(files: &TlsFiles) -> Result<Self, TlsError> {
        let chain = read(&files.certificate)?;
        let key = read(&files.key)?;
        Self::from_pem(&chain, &files.certificate, &key, &files.key)
    }

    /// A pair made for this name, kept in this directory, readable for its owner only.
    ///
    /// It is made anew when it is missing, damaged or for another name.
    pub fn self_signed(directory: &Path, hostname: &str) -> Result<Self, TlsError> {
        let path = directory.join(SELF_SIGNED);
        if let Ok(pem) = std::fs::read(&path)
            && is_for(&pem, hostname)
            && let Ok(kept) = Self::from_pem(&pem, &path, &pem, &path)
        {
            return Ok(Self {
                self_signed: true,
                ..kept
            });
        }
        let pem = make(&path, hostname)?;
        keep(&path, pem.as_bytes())?;
        let made = Self::from_pem(pem.as_bytes(), &path, pem.as_bytes(), &path)?;
        Ok(Self {
            self_signed: true,
            ..made
        })
    }

    fn from_pem(
        chain: &[u8],
        chain_path: &Path,
        key: &[u8],
        key_path: &Path,
    ) -> Result<Self, TlsError> {
        let chain = certificates(chain, chain_path)?;
        let fingerprint = fingerprint(&chain[0]);
        let unusable = |path: &Path, detail: String| TlsError::Unusable {
            path: path.into(),
            detail,
        };
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable(key_path, format!("no private key in it: {error}")))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Handshake(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| {
                unusable(
                    chain_path,
                    format!("certificate and key do not work: {error}"),
                )
            })?;
        Ok(Self {
            config: Arc::new(config),
            fingerprint,
            self_signed: false,
        })
    }

    /// What accepts handshakes.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Whether the pair was made here, so that clients cannot verify it.
    pub fn is_self_signed(&self) -> bool {
        self.self_signed
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls")
            .field("fingerprint", &super::fingerprint_text(&self.fingerprint))
            .field("self_signed", &self.self_signed)
            .finish_non_exhaustive()
    }
}

/// Whether the certificate is for this name.
fn is_for(pem: &[u8], hostname: &str) -> bool {
    let Ok(chain) = certificates(pem, &PathBuf::new()) else {
        return false;
    };
    let Ok(name) = ServerName::try_from(certifiable(hostname)) else {
        return false;
    };
    rustls::server::ParsedCertificate::try_from(&chain[0])
        .and_then(|it| rustls::client::verify_server_name(&it, &name))
        .is_ok()
}

/// The host name, or `localhost` for what no certificate can be made out for.
fn certifiable(hostname: &str) -> String {
    match ServerName::try_from(hostname) {
        Ok(_) => hostname.to_owned(),
        Err(_) => "localhost".to_owned(),
    }
}

fn make(path: &Path, hostname: &str) -> Result<String, TlsError> {
    let unusable = |error: rcgen::Error| TlsError::Unusable {
        path: path.into(),
        detail: format!("cannot make a certificate: {error}"),
    };
    let mut names = vec![certifiable(hostname)];
    if names[0] != "localhost" {
        names.push("localhost".to_owned());
    }
    let key = rcgen::KeyPair::generate().map_err(unusable)?;
    let mut parameters = rcgen::CertificateParams::new(names).map_err(unusable)?;
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(rcgen::DnType::CommonName, certifiable(hostname));
    parameters.distinguished_name = subject;
    let certificate = parameters.self_signed(&key).map_err(unusable)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

/// Not by way of a rename: a file cut short by a crash is damaged, and made anew.
fn keep(path: &Path, pem: &[u8]) -> Result<(), TlsError> {
    let write = || -> std::io::Result<()> {
        // The mode counts only for a file that is created.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(pem)?;
        file.sync_all()
    };
    write().map_err(|source| TlsError::File {
        action: "write",
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_self_signed_pair_is_kept_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = ServerTls::self_signed(directory.path(), "app.example").unwrap();
        let again = ServerTls::self_signed(directory.path(), "app.example").unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert!(first.is_self_signed() && again.is_self_signed());
        let path = directory.path().join(SELF_SIGNED);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_pair_or_one_for_another_name_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SELF_SIGNED);
        std::fs::write(&path, "-----BEGIN CERT").unwrap();
        let first = ServerTls::self_signed(directory.path(), "app.example").unwrap();
        let other = ServerTls::self_signed(directory.path(), "other.example").unwrap();
        assert_ne!(first.fingerprint(), other.fingerprint());
        let odd = ServerTls::self_signed(directory.path(), "not a name").unwrap();
        let again = ServerTls::self_signed(directory.path(), "not a name").unwrap();
        assert_eq!(odd.fingerprint(), again.fingerprint());
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let pair = make(Path::new("x"), "a.example").unwrap();
        let other = make(Path::new("x"), "a.example").unwrap();
        let good = write("good.pem", &pair);
        let other = write("other.pem", &other);
        let empty = write("empty.pem", "");
        let open = |certificate: &PathBuf, key: &PathBuf| {
            let files = TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            };
            ServerTls::open(Some(&files), directory.path(), "a.example")
        };
        assert!(open(&good, &good).is_ok());
        for (certificate, key, said) in [
            (&good, &other, "good.pem: certificate and key do not work"),
            (&empty, &good, "empty.pem: no certificate"),
            (&good, &empty, "empty.pem: no private key"),
        ] {
            let error = open(certificate, key).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let missing = open(&directory.path().join("missing"), &good).unwrap_err();
        assert!(matches!(missing, TlsError::File { action: "read", .. }));
    }
}
