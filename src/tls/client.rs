//! TLS towards a relay.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::verifier::{Verifier, unwrap};
use super::{TlsError, certificates, provider, read};
use crate::config::Certificates;

/// What is demanded of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// As configured: the system's roots, a file of roots, or a pinned certificate.
    Configured,
    /// Nothing; only for opportunistic TLS without credentials.
    Nobody,
}

/// How TLS is made with one relay; cloned freely.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
    trust: Trust,
}

impl ClientTls {
    /// With the demands of a relay. Reads its `ca-file`, and once the system's roots.
    pub fn new(certificates: &Certificates, trust: Trust) -> Result<Self, TlsError> {
        let provider = provider();
        let verifier = match (trust, &certificates.fingerprint, &certificates.ca_file) {
            (Trust::Nobody, ..) => Verifier::nothing(Arc::clone(&provider)),
            (Trust::Configured, Some(pin), _) => Verifier::pinned(*pin, Arc::clone(&provider)),
            (Trust::Configured, None, file) => {
                let roots = match file {
                    Some(path) => roots_of(path)?,
                    None => system_roots()?,
                };
                let webpki =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                        .build()
                        .map_err(|error| TlsError::NoRoots(error.to_string()))?;
                Verifier::chain(webpki, Arc::clone(&provider))
            }
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Handshake(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            trust,
        })
    }

    /// Whether the peer is known to be who it should be once the handshake succeeded.
    pub fn is_verified(&self) -> bool {
        self.trust == Trust::Configured
    }

    /// Makes the handshake with a peer that should have this name or address.
    pub async fn connect<S>(&self, name: &str, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        self.connector
            .connect(server, stream)
            .await
            .map_err(meaning)
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

fn meaning(error: std::io::Error) -> TlsError {
    let inner = error
        .get_ref()
        .and_then(|it| it.downcast_ref::<rustls::Error>());
    match inner {
        Some(inner) => match unwrap(inner) {
            Some(problem) => TlsError::Certificate(problem.clone()),
            None => TlsError::Handshake(said(inner)),
        },
        None => TlsError::Closed(error),
    }
}

/// The library's words, and for the commonest mistake a better one.
fn said(error: &rustls::Error) -> String {
    match error {
        // Text where a TLS record should be: a server that speaks plain SMTP on this port.
        rustls::Error::InvalidMessage(_) => format!(
            "the server does not answer with TLS; wrong port, or tls = \"implicit\" where STARTTLS is meant? ({error})"
        ),
        other => other.to_string(),
    }
}

fn roots_of(path: &std::path::Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(&read(path)?, path)?);
    if added == 0 {
        return Err(TlsError::Unusable {
            path: path.into(),
            detail: "no usable certificate in it".to_owned(),
        });
    }
    Ok(Arc::new(roots))
}

/// The system's roots, read once: there are hundreds of files. A failure is not
/// remembered, so that installing the package helps without a restart.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors = found.errors.iter().map(ToString::to_string);
        return Err(TlsError::NoRoots(errors.collect::<Vec<_>>().join("; ")));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::tls::CertificateProblem;

    struct Authority {
        issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
        pem: String,
    }

    fn authority() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Authority {
            issuer: rcgen::Issuer::new(parameters, key),
            pem,
        }
    }

    /// A server's certificate from this authority (or self-signed), valid until this year.
    fn server(authority: Option<&Authority>, name: &str, until: i32) -> (TlsAcceptor, [u8; 32]) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = match authority {
            Some(authority) => parameters.signed_by(&key, &authority.issuer).unwrap(),
            None => parameters.self_signed(&key).unwrap(),
        };
        let der = certificate.der().clone();
        let pin = crate::tls::fingerprint(&der);
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![der],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        (TlsAcceptor::from(Arc::new(config)), pin)
    }

    async fn meet(
        acceptor: &TlsAcceptor,
        certificates: &Certificates,
        trust: Trust,
        name: &str,
    ) -> Result<(), TlsError> {
        let client = ClientTls::new(certificates, trust).unwrap();
        let (near, far) = tokio::io::duplex(65_536);
        let serve = async {
            if let Ok(mut stream) = acceptor.accept(far).await {
                let _ = stream.write_all(b"hello").await;
            }
        };
        let talk = async {
            let mut stream = client.connect(name, near).await?;
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"hello");
            Ok(())
        };
        tokio::join!(serve, talk).1
    }

    fn problem(result: Result<(), TlsError>) -> CertificateProblem {
        match result {
            Err(TlsError::Certificate(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    fn ca_file(directory: &Path, pem: &str) -> Certificates {
        let path = directory.join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        Certificates {
            ca_file: Some(path),
            ..Certificates::default()
        }
    }

    #[tokio::test]
    async fn a_certificate_of_the_configured_authority_and_name_is_believed() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority();
        let trusted = ca_file(directory.path(), &authority.pem);
        let (acceptor, _) = server(Some(&authority), "mx.example", 2090);
        meet(&acceptor, &trusted, Trust::Configured, "mx.example")
            .await
            .unwrap();
        let (by_address, _) = server(Some(&authority), "192.0.2.1", 2090);
        meet(&by_address, &trusted, Trust::Configured, "192.0.2.1")
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn every_other_certificate_is_refused_with_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority();
        let trusted = ca_file(directory.path(), &authority.pem);
        let (good, _) = server(Some(&authority), "mx.example", 2090);
        let wrong = problem(meet(&good, &trusted, Trust::Configured, "other.example").await);
        assert!(
            wrong.to_string().contains("not for other.example but for"),
            "{wrong}"
        );
        assert!(wrong.to_string().contains("mx.example"), "{wrong}");

        let (expired, _) = server(Some(&authority), "mx.example", 2001);
        let found = problem(meet(&expired, &trusted, Trust::Configured, "mx.example").await);
        assert!(
            matches!(found, CertificateProblem::Expired { .. }),
            "{found}"
        );

        let (stranger, pin) = server(None, "mx.example", 2090);
        let found = problem(meet(&stranger, &trusted, Trust::Configured, "mx.example").await);
        assert_eq!(
            found,
            CertificateProblem::UnknownIssuer {
                actual: crate::tls::fingerprint_text(&pin)
            }
        );
    }

    /// What `openssl req -x509` makes, and what old guides make without a subjectAltName.
    #[tokio::test]
    async fn an_authority_as_a_servers_own_and_a_name_in_the_cn_alone_are_called_so() {
        let directory = tempfile::tempdir().unwrap();
        let made = |names: &[&str], is_ca: bool| {
            let key = rcgen::KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|it| it.to_string()).collect();
            let mut parameters = rcgen::CertificateParams::new(names).unwrap();
            if is_ca {
                parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }
            let name = "mx.example";
            let kind = rcgen::DnType::CommonName;
            parameters.distinguished_name.push(kind, name);
            let certificate = parameters.self_signed(&key).unwrap();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
            (TlsAcceptor::from(Arc::new(config)), certificate.pem())
        };
        for (names, is_ca, expected, unexpected) in [
            (&["mx.example"][..], true, "(CA:TRUE)", "is not for"),
            (
                &["other.example"][..],
                true,
                "ca-file, and is not for mx.example but for other.example: set fingerprint",
                "nobody who is trusted",
            ),
            (&[][..], true, "and names no host", "nobody who is trusted"),
            (
                &[][..],
                false,
                "no subjectAltName, and the common name",
                "tls-name",
            ),
        ] {
            let (acceptor, pem) = made(names, is_ca);
            let trusted = ca_file(directory.path(), &pem);
            let met = meet(&acceptor, &trusted, Trust::Configured, "mx.example").await;
            let said = problem(met).to_string();
            assert!(said.contains(expected), "{names:?} {is_ca}: {said}");
            assert!(!said.contains(unexpected), "{names:?} {is_ca}: {said}");
            assert!(said.contains("sha256:"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_pinned_certificate_is_believed_whatever_its_name_and_no_other() {
        let (acceptor, pin) = server(None, "some.name", 2001);
        let pinned = |pin| Certificates {
            fingerprint: Some(pin),
            ..Certificates::default()
        };
        meet(&acceptor, &pinned(pin), Trust::Configured, "mx.example")
            .await
            .unwrap();
        let found =
            problem(meet(&acceptor, &pinned([7; 32]), Trust::Configured, "mx.example").await);
        assert!(
            found
                .to_string()
                .contains(&crate::tls::fingerprint_text(&pin)),
            "{found}"
        );
    }

    /// A server that shows another's certificate without having its key.
    #[tokio::test]
    async fn a_pin_without_its_key_is_refused() {
        let genuine = rcgen::generate_simple_self_signed(["mx.example".to_owned()]).unwrap();
        let thief = rcgen::KeyPair::generate().unwrap();
        let der = genuine.cert.der().clone();
        let pin = crate::tls::fingerprint(&der);
        let key = PrivateKeyDer::try_from(thief.serialize_der()).unwrap();
        let provider = provider();
        let signing = provider.key_provider.load_private_key(key).unwrap();
        #[derive(Debug)]
        struct Always(Arc<rustls::sign::CertifiedKey>);
        impl rustls::server::ResolvesServerCert for Always {
            fn resolve(
                &self,
                _: rustls::server::ClientHello<'_>,
            ) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(Arc::clone(&self.0))
            }
        }
        let certified = rustls::sign::CertifiedKey::new(vec![der], signing);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let certificates = Certificates {
            fingerprint: Some(pin),
            ..Certificates::default()
        };
        let met = meet(&acceptor, &certificates, Trust::Configured, "mx.example").await;
        assert!(matches!(met, Err(TlsError::Handshake(_))), "{met:?}");
    }

    #[tokio::test]
    async fn opportunistic_tls_takes_what_it_gets() {
        let (acceptor, _) = server(None, "some.name", 2001);
        let nobody = Certificates::default();
        meet(&acceptor, &nobody, Trust::Nobody, "mx.example")
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_server_that_speaks_plain_text_is_explained() {
        let client = ClientTls::new(&Certificates::default(), Trust::Nobody).unwrap();
        let (near, mut far) = tokio::io::duplex(65_536);
        far.write_all(b"220 mx.example ESMTP\r\n").await.unwrap();
        let error = client.connect("mx.example", near).await.unwrap_err();
        assert!(
            error.to_string().contains("does not answer with TLS"),
            "{error}"
        );
    }
}
