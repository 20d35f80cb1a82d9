//! What every verb needs: the screen, and the way to the daemon.

use std::fs;
use std::path::{Path, PathBuf};

use super::exit::Trouble;
use super::screen::Screen;
use crate::config;
use crate::config::read::Checked;
use crate::control;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::{Item, Request};

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

    /// The daemon's state directory, as far as it can be known.
    ///
    /// A configuration that is wrong or has secrets that are not for us still tells where
    /// the spool is, so only that is read.
    pub fn state_directory(&self) -> PathBuf {
        let path = self.config_path();
        let written = fs::read_to_string(path)
            .ok()
            .and_then(|text| text.parse::<toml::Table>().ok())
            .and_then(|file| Some(file.get("spool")?.get("path")?.as_str()?.to_owned()));
        let beside = path.parent().unwrap_or(Path::new("."));
        beside.join(written.as_deref().unwrap_or(STATE_DIRECTORY))
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
        let [run, state] = control::candidate_paths(&self.state_directory());
        // Whoever names another configuration means its daemon, not the machine's.
        if self.config_path() != Path::new(CONFIGURATION) {
            return Client::connect(&control::listening_path(&self.state_directory()));
        }
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
