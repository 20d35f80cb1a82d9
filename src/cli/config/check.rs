//! What `penstock config check` looks at beyond the two files: the administrator's own
//! rules for refusals, and the certificates that the configuration names.

use std::path::Path;

use crate::config::{Certificates, Checked, ConfigError, Problem};
use crate::outcome::Rules;
use crate::outcome::rules::RULES_FILE;
use crate::tls::{ClientTls, ServerTls, TlsError, Trust};

/// Adds what is wrong in the files of `[tls]`, which the daemon would not start with, and
/// in those of `ca-file`, without which it would reach no relay.
pub(super) fn with_certificates(
    path: &Path,
    checked: Result<Checked, ConfigError>,
) -> Result<Checked, ConfigError> {
    let mut checked = checked?;
    let problem = |key: String, error: TlsError| Problem {
        file: path.to_owned(),
        line: None,
        key,
        what: error.to_string(),
        remedy: "put PEM there: a certificate with its chain, and the key that fits it".to_owned(),
    };
    let config = &checked.config;
    let own = config.tls.as_ref().map(ServerTls::from_files);
    if let Some(Err(error)) = own {
        let problems = vec![problem("tls".to_owned(), error)];
        return Err(ConfigError { problems });
    }
    for relay in config.relays.values() {
        let oauth = relay.credentials.as_ref().and_then(|it| it.oauth());
        let endpoint = Certificates {
            ca_file: oauth.and_then(|it| it.ca_file.clone()),
            ..Certificates::default()
        };
        for (key, certificates) in [
            ("ca-file", &relay.certificates),
            ("oauth.ca-file", &endpoint),
        ] {
            if certificates.ca_file.is_some()
                && let Err(error) = ClientTls::new(certificates, Trust::Configured)
            {
                let key = format!("relays.{}.{key}", relay.name);
                let remedy = "put the certificate of the authority there, as PEM".to_owned();
                checked.warnings.push(Problem {
                    remedy,
                    ..problem(key, error)
                });
            }
        }
    }
    Ok(checked)
}

/// Adds what is wrong with the administrator's own rules.
pub(super) fn with_rules(
    path: &Path,
    checked: Result<Checked, ConfigError>,
) -> Result<Checked, ConfigError> {
    let Err(error) = Rules::beside(path) else {
        return checked;
    };
    let words = error.to_string();
    let mut problems = checked.err().map(|it| it.problems).unwrap_or_default();
    let file = path.with_file_name(RULES_FILE);
    let name = format!("{}: ", file.display());
    problems.push(Problem {
        line: None,
        key: String::new(),
        what: words.strip_prefix(&name).unwrap_or(&words).to_owned(),
        remedy: "put it right, or take the file away: the rules that come with Penstock remain"
            .to_owned(),
        file,
    });
    Err(ConfigError { problems })
}

#[cfg(test)]
mod tests {
    use super::super::tests::files;
    use super::*;
    use crate::config;

    #[test]
    fn certificates_that_the_daemon_could_not_use_are_found() {
        let tls = "[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n";
        let roots = "[relays.own]\nserver = \"[x.example]:587\"\nca-file = \"tls.key\"\n\
                     username = \"m\"\n[relays.own.oauth]\nprovider = \"google\"\n\
                     client-id = \"a\"\nca-file = \"tls.key\"\n";
        let pair = || rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (one, other) = (pair(), pair());
        let (directory, path) = files(&format!("{tls}{roots}"));
        let write = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        };
        for (certificate, key, said) in [
            (
                one.cert.pem(),
                other.signing_key.serialize_pem(),
                Some("do not work"),
            ),
            (
                "junk".to_owned(),
                one.signing_key.serialize_pem(),
                Some("no certificate"),
            ),
            (one.cert.pem(), one.signing_key.serialize_pem(), None),
        ] {
            write("tls.crt", &certificate);
            write("tls.key", &key);
            let checked = with_certificates(&path, config::inspect(&path));
            match (said, checked) {
                (Some(said), Err(error)) => {
                    let text = error.to_string();
                    assert!(text.contains(": tls\n") && text.contains(said), "{text}");
                }
                // A key is no certificate of an authority.
                (None, Ok(checked)) => {
                    for key in ["relays.own.ca-file", "relays.own.oauth.ca-file"] {
                        let warned = checked.warnings.iter().any(|it| it.key == key);
                        assert!(warned, "{key}: {:?}", checked.warnings);
                    }
                }
                (_, other) => panic!("{said:?}: {other:?}"),
            }
        }
    }
}
