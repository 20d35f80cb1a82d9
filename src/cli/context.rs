//! What every verb needs: the screen, and the way to the daemon.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::exit::Trouble;
use super::screen::Screen;
use crate::config;
use crate::config::plain;
use crate::config::read::Checked;
use crate::control;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::{Failure, FailureKind, Item, Request};

/// Where the configuration is unless somebody says otherwise.
const CONFIGURATION: &str = "/etc/penstock/penstock.toml";
/// Where the spool is when no configuration says otherwise.
const STATE_DIRECTORY: &str = "/var/lib/penstock";

/// What every verb needs.
pub struct Context {
    /// Standard output.
    pub screen: Screen,
    socket: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl Context {
    /// A context from what was said on the command line; the environment is asked next.
    pub fn new(screen: Screen, socket: Option<PathBuf>, config: Option<PathBuf>) -> Self {
        let said = |name| std::env::var_os(name).filter(|it| !it.is_empty());
        Self {
            screen,
            socket: socket.or_else(|| said("PENSTOCK_SOCKET").map(Into::into)),
            config: config.or_else(|| said("PENSTOCK_CONFIG").map(Into::into)),
        }
    }

    /// The configuration file.
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIGURATION))
    }

    /// The configuration in use, for verbs that do without the daemon.
    pub fn configuration(&self) -> Result<Checked, Trouble> {
        config::read::inspect(self.config_path())
            .map_err(|error| Trouble::configuration(error.to_string()))
    }

    /// The daemon's state directory, or why it cannot be known.
    ///
    /// A configuration that is wrong in other places still tells where the spool is, so
    /// only that is read. One that cannot be read tells nothing: the usual directory may
    /// be that of another daemon.
    pub fn state_directory(&self) -> Result<PathBuf, String> {
        let path = self.config_path();
        let unknown = |why: String, remedy: &str| {
            let shown = path.display();
            format!("cannot tell from {shown} where the spool is: {why}\n{remedy}")
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // Without a configuration nobody has moved it.
            Err(error) if error.kind() == ErrorKind::NotFound && self.config.is_none() => {
                return Ok(STATE_DIRECTORY.into());
            }
            Err(error) => {
                let remedy = match error.kind() {
                    ErrorKind::NotFound => "name the daemon's configuration with --config",
                    ErrorKind::PermissionDenied => {
                        "run this as root, or as a member of the group penstock"
                    }
                    _ => "correct the path or the file",
                };
                return Err(unknown(plain(&error), remedy));
            }
        };
        let file = text.parse::<toml::Table>().map_err(|_| {
            let remedy = "penstock config check shows the line";
            unknown("it is not TOML".to_owned(), remedy)
        })?;
        let written = file.get("spool").and_then(|it| it.get("path"));
        let written = written.and_then(toml::Value::as_str);
        let beside = path.parent().unwrap_or(Path::new("."));
        Ok(beside.join(written.unwrap_or(STATE_DIRECTORY)))
    }

    /// Asks the daemon.
    pub fn ask(&self, request: &Request) -> Result<Answer, ClientError> {
        self.connect()?.ask(request)
    }

    /// Asks the daemon for the one item that `pick` knows.
    pub fn ask_one<T>(
        &self,
        request: &Request,
        pick: impl Fn(Item) -> Option<T>,
    ) -> Result<T, Trouble> {
        let mut found = None;
        for item in self.ask(request)? {
            found = found.or(pick(item?));
        }
        found.ok_or_else(|| Trouble::failed("penstockd answered without saying anything"))
    }

    /// The likeliest socket on which somebody listens.
    fn connect(&self) -> Result<Client, ClientError> {
        if let Some(socket) = &self.socket {
            return Client::connect(socket);
        }
        let state = self.state_directory();
        // Whoever names another configuration means its daemon, not the machine's.
        if self.config_path() != Path::new(CONFIGURATION) {
            let state = state.map_err(|why| {
                ClientError::Refused(Failure::new(FailureKind::BadConfiguration, why))
            })?;
            return Client::connect(&control::listening_path(&state));
        }
        // An administrator may use the socket without being allowed to read that file.
        let state = state.unwrap_or_else(|_| STATE_DIRECTORY.into());
        let [run, state] = control::candidate_paths(&state);
        match Client::connect(&run) {
            Err(usual @ ClientError::NoDaemon { .. }) => match Client::connect(&state) {
                // Without rights to the state directory nobody can tell; the first is usual.
                Err(ClientError::NoDaemon { .. } | ClientError::Denied { .. }) => Err(usual),
                other => other,
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::Screen;

    fn context(config: &Path) -> Context {
        Context::new(Screen::standard(false), None, Some(config.into()))
    }

    #[test]
    fn a_configuration_that_cannot_be_read_leads_to_no_other_spool() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("penstock.toml");
        let missing = context(&file).state_directory().unwrap_err();
        assert!(missing.contains("--config"), "{missing}");
        let Err(ClientError::Refused(failure)) = context(&file).ask(&Request::Reload {}) else {
            panic!()
        };
        assert_eq!(failure.kind, FailureKind::BadConfiguration);
        for (text, found) in [
            ("", Some(PathBuf::from(STATE_DIRECTORY))),
            (
                "[spool]\npath = \"state\"\nnonsense = 1\n",
                Some(folder.path().join("state")),
            ),
            ("[spool\n", None),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(context(&file).state_directory().ok(), found, "{text}");
        }
    }
}
