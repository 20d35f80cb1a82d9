//! The intake alone: the real `accept` and spool, and nothing behind them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use penstock::accept::{
    Assignment, Bound, CrowdLimits, Hooks, Live, ServeError, Shared, Verdict, serve,
};
use penstock::clock::Clock;
use penstock::config::Config;
use penstock::mail::{Envelope, Mailing, QueueId};
use penstock::route::Directory;
use penstock::spool::{Reserve, Spool, SpoolOptions};
use penstock::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificates::Authority;
use crate::client::Client;

/// An intake with a spool behind it, and nothing behind that.
pub struct Intake {
    pub address: SocketAddr,
    pub spool: Spool,
    pub shared: Arc<Shared>,
    pub live: watch::Sender<Arc<Live>>,
    pub stop: watch::Sender<bool>,
    pub served: JoinHandle<Result<(), ServeError>>,
    pub accepted: Arc<Mutex<Vec<Envelope>>>,
    pub authority: Authority,
    pub users: String,
    _folder: tempfile::TempDir,
}

/// What a test wants otherwise.
#[derive(Default)]
pub struct Wanted {
    pub listener: &'static str,
    pub top: &'static str,
    pub limits: CrowdLimits,
    pub verdict: Option<Verdict>,
    /// Octets that the spool keeps free.
    pub min_free: Option<u64>,
}

fn users() -> String {
    let cheap = Params::new(64, 1, 1, None).unwrap();
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap)
        .hash_password(b"geheim")
        .unwrap();
    format!(
        "[[user]]\naddress = \"jan@example.nl\"\naliases = [\"j.jansen@example.nl\"]\n\
         relay = \"own\"\npassword-hash = \"{hash}\"\n\
         [[user]]\naddress = \"@example.nl\"\nrelay = \"own\"\n"
    )
}

pub fn live(listener: &str, top: &str, users: &str, tls: Option<ServerTls>) -> Arc<Live> {
    let text = format!(
        "hostname = \"app01.example.nl\"\n{top}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [relays.own]\nserver = \"[192.0.2.1]:25\"\n"
    );
    let config = Config::parse(&text, users).unwrap();
    Arc::new(Live {
        directory: Arc::new(Directory::new(&config)),
        config: Arc::new(config),
        tls,
    })
}

impl Intake {
    pub async fn start(wanted: Wanted) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let files = penstock::config::TlsFiles {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
        };
        authority
            .sign(&["localhost"])
            .write(&files.certificate, &files.key);
        let tls = ServerTls::from_files(&files).unwrap();
        let users = users();
        let (live, live_now) = watch::channel(live(wanted.listener, wanted.top, &users, Some(tls)));
        let clock = Clock::following_tokio("2026-11-21T12:00:00Z".parse().unwrap());
        let mut options = SpoolOptions::at(folder.path().join("spool"));
        // Not the default, a share of a disk that others fill.
        options.min_free = Reserve::Bytes(wanted.min_free.unwrap_or(1 << 20));
        let (spool, _) = Spool::open(options, clock.clone()).unwrap();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let seen = accepted.clone();
        let hooks = Hooks {
            assign: Arc::new(|it| Assignment {
                mailing: Mailing {
                    key: "m".into(),
                    label: it.header.subject.clone().unwrap_or_default(),
                },
                hold: None,
            }),
            take_back: Arc::new(|_, _| {}),
            content_check: wanted.verdict.map(|verdict| {
                let check = move |_: &_, _: &[u8]| verdict.clone();
                Arc::new(check) as Arc<penstock::accept::ContentCheck>
            }),
            is_active: Arc::new(|_| true),
            accepted: Arc::new(move |envelope, _| seen.lock().unwrap().push(envelope.clone())),
        };
        let shared = Shared::new(
            live_now,
            spool.clone(),
            clock,
            hooks,
            wanted.limits,
            Duration::from_secs(30),
        );
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let bound = Bound {
            socket,
            configured: "127.0.0.1:0".parse().unwrap(),
        };
        #[allow(clippy::disallowed_methods, reason = "the test is the lifecycle")]
        let served = tokio::spawn(serve(bound, shared.clone(), stopped));
        Self {
            address,
            spool,
            shared,
            live,
            stop,
            served,
            accepted,
            authority,
            users,
            _folder: folder,
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub fn envelopes(&self) -> Vec<Envelope> {
        self.accepted.lock().unwrap().clone()
    }

    pub async fn content(&self, id: QueueId) -> String {
        let mut reader = self.spool.content(id).await.unwrap().unwrap();
        String::from_utf8(reader.read(usize::MAX).await.unwrap()).unwrap()
    }

    pub async fn only_content(&self) -> String {
        let envelopes = self.envelopes();
        assert_eq!(envelopes.len(), 1, "{envelopes:?}");
        self.content(envelopes[0].id).await
    }
}

/// As it is without a word in the configuration.
pub fn plain() -> Wanted {
    Wanted::default()
}

/// With these lines in `[[listen]]`.
pub fn with(listener: &'static str) -> Wanted {
    Wanted {
        listener,
        ..Wanted::default()
    }
}
