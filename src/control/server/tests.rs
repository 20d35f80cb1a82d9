use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as Client;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{Content, Item};

/// A served socket, and what the daemon would get from it.
struct Served {
    directory: TempDir,
    requests: mpsc::Receiver<(Request, Responder)>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Served {
    #[allow(clippy::disallowed_methods, reason = "a test's own task")]
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let bound = Bound::open(&directory.path().join("control.sock")).unwrap();
        let (sender, requests) = mpsc::channel(4);
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(bound, sender, stopped));
        Self {
            directory,
            requests,
            stop,
            serving,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn connect(&self) -> Client {
        Client::connect(self.path()).unwrap()
    }

    /// Says `text` and returns all that is answered, as `nc -N -U` would.
    fn typed(&self, text: &str) -> tokio::task::JoinHandle<String> {
        let mut client = self.connect();
        let text = text.to_owned();
        tokio::task::spawn_blocking(move || {
            // Whoever has heard enough may have closed already.
            client.write_all(text.as_bytes()).ok();
            client.shutdown(Shutdown::Write).ok();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        })
    }
}

fn greeting() -> String {
    format!(
        "{{\"penstock\":\"{}\",\"protocol\":1}}\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn piece(text: &str) -> Item {
    Item::Content(Content {
        base64: text.into(),
    })
}

#[tokio::test]
async fn a_request_can_be_typed_and_its_answer_read() {
    let mut served = Served::start();
    let typed = served.typed("{\"show\":{\"id\":\"x\"}}\n");
    let (request, responder) = served.requests.recv().await.unwrap();
    assert_eq!(request, Request::Show { id: "x".into() });
    assert_eq!(responder.peer().uid, rustix::process::getuid().as_raw());
    responder.item(piece("a")).await.unwrap();
    responder.item(piece("b")).await.unwrap();
    responder.done().await;
    assert_eq!(
        typed.await.unwrap(),
        greeting()
            + "{\"content\":{\"base64\":\"a\"}}\n{\"content\":{\"base64\":\"b\"}}\n{\"done\":{}}\n"
    );
}

#[tokio::test]
async fn what_is_no_request_or_too_long_gets_an_error_line() {
    let served = Served::start();
    let answer = served.typed("EHLO there\r\n").await.unwrap();
    assert!(
        answer.contains(r#"{"error":{"kind":"bad-request","message":"not a request"#),
        "{answer}"
    );
    // Just the limit and no end in sight; a client that sent even more could be cut off
    // while it still writes.
    let answer = served.typed(&"x".repeat(REQUEST_MAXIMUM)).await.unwrap();
    assert!(answer.contains("longer than 65536 octets"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_is_dropped_is_marked_incomplete() {
    let mut served = Served::start();
    let typed = served.typed("{\"status\":{}}");
    let (_, responder) = served.requests.recv().await.unwrap();
    responder.item(piece("a")).await.unwrap();
    drop(responder);
    let answer = typed.await.unwrap();
    assert!(answer.ends_with("{\"error\":{\"kind\":\"failed\",\"message\":\"penstockd ended its answer early; see its log\"}}\n"), "{answer}");
}

#[tokio::test]
async fn a_thousand_that_ask_for_nothing_keep_nobody_out_who_asks() {
    let mut served = Served::start();
    let path = served.path();
    // From another thread: connecting waits while the queue of the socket is full.
    let crowd = tokio::task::spawn_blocking(move || {
        let connect = || Client::connect(&path).unwrap();
        (0..1_000).map(|_| connect()).collect::<Vec<_>>()
    });
    let mut idle = crowd.await.unwrap();
    let typed = served.typed("{\"reload\":{}}\n");
    let (request, responder) = served.requests.recv().await.unwrap();
    assert_eq!(request, Request::Reload {});
    responder.done().await;
    assert!(typed.await.unwrap().ends_with("{\"done\":{}}\n"));
    // Whoever made room is told why.
    let mut first = idle.swap_remove(0);
    let told = tokio::task::spawn_blocking(move || {
        let mut told = String::new();
        first.read_to_string(&mut told).unwrap();
        told
    });
    let told = told.await.unwrap();
    assert!(told.starts_with(&greeting()), "{told}");
    assert!(told.contains("no request came"), "{told}");
}

#[tokio::test]
async fn one_more_than_can_be_answered_is_told_so() {
    let mut served = Served::start();
    let mut asking = Vec::new();
    let mut answering = Vec::new();
    for _ in 0..crate::control::crowd::CONNECTIONS {
        let mut client = served.connect();
        client.write_all(b"{\"status\":{}}\n").unwrap();
        asking.push(client);
        answering.push(served.requests.recv().await.unwrap());
    }
    let path = served.path();
    let refused = tokio::task::spawn_blocking(move || {
        let asked = client::Client::connect(&path)
            .unwrap()
            .ask(&Request::Status {})
            .unwrap();
        asked.last().unwrap().unwrap_err()
    });
    let ClientError::Refused(failure) = refused.await.unwrap() else {
        panic!()
    };
    assert_eq!(failure.kind, FailureKind::TryAgain);
    // One has its answer: there is room again.
    let (_, responder) = answering.swap_remove(0);
    responder.done().await;
    let mut answered = asking.swap_remove(0);
    let answered = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        answered.read_to_string(&mut text).unwrap();
        text
    });
    assert!(answered.await.unwrap().ends_with("{\"done\":{}}\n"));
    loop {
        let mut typed = served.typed("{\"reload\":{}}\n");
        tokio::select! {
            taken = served.requests.recv() => {
                let (_, responder) = taken.unwrap();
                responder.done().await;
                assert!(typed.await.unwrap().ends_with("{\"done\":{}}\n"));
                break;
            }
            refused = &mut typed => assert!(refused.unwrap().contains("too many")),
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_stops_only_its_own_answer() {
    let mut served = Served::start();
    let mut stuck = served.connect();
    stuck.write_all(b"{\"queue\":{}}\n").unwrap();
    let (_, endless) = served.requests.recv().await.unwrap();
    let big = "x".repeat(10_000);
    // The answer stands still once the socket and the lines ahead are full.
    let streaming = async {
        loop {
            if endless.item(piece(&big)).await.is_err() {
                break;
            }
        }
    };
    tokio::pin!(streaming);
    assert!(
        timeout(Duration::from_millis(300), &mut streaming)
            .await
            .is_err()
    );
    let typed = served.typed("{\"status\":{}}\n");
    let (_, other) = served.requests.recv().await.unwrap();
    other.done().await;
    assert!(typed.await.unwrap().ends_with("{\"done\":{}}\n"));
    // It leaves without having read: whoever answers hears of it.
    drop(stuck);
    timeout(Duration::from_secs(10), streaming).await.unwrap();
}

#[tokio::test]
async fn the_client_reads_items_and_the_refusal_at_the_end() {
    let mut served = Served::start();
    let path = served.path();
    let asking = tokio::task::spawn_blocking(move || {
        let client = client::Client::connect(&path).unwrap();
        let request = Request::Cat { id: "x".into() };
        client.ask(&request).unwrap().collect::<Vec<_>>()
    });
    let (_, responder) = served.requests.recv().await.unwrap();
    responder.item(piece("a")).await.unwrap();
    responder
        .fail(FailureKind::Failed, "the disk is gone")
        .await;
    let answer = asking.await.unwrap();
    assert_eq!(answer.len(), 2);
    assert_eq!(*answer[0].as_ref().unwrap(), piece("a"));
    assert_eq!(
        answer[1].as_ref().unwrap_err().to_string(),
        "the disk is gone"
    );
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group_and_goes_when_the_daemon_stops() {
    let served = Served::start();
    let mode = fs::metadata(served.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    served.stop.send(true).unwrap();
    served.serving.await.unwrap();
    assert!(!served.directory.path().join("control.sock").exists());
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_used_one_is_not() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = Bound::open(&path).unwrap();
    assert!(matches!(
        Bound::open(&path),
        Err(ControlError::InUse { .. })
    ));
    drop(first);
    let file = directory.path().join("a-file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(
        Bound::open(&file),
        Err(ControlError::NotASocket { .. })
    ));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn a_socket_from_systemd_is_served_and_left_in_its_place() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let bound = Bound::adopt(listener.into()).unwrap();
    let (sender, _requests) = mpsc::channel(1);
    let (stop, stopped) = watch::channel(true);
    serve(bound, sender, stopped).await;
    drop(stop);
    assert!(path.exists());
}

#[test]
fn without_a_daemon_the_client_says_so() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.sock");
    assert!(matches!(
        client::Client::connect(&path),
        Err(ClientError::NoDaemon { .. })
    ));
}

#[test]
fn a_token_is_never_logged_and_a_preview_is_not_a_change() {
    let confirm = |dry_run| Request::RelayConfirm {
        token: "t".into(),
        dry_run,
    };
    assert!(confirm(false).is_logged() && !confirm(true).is_logged());
    assert_eq!(
        shown(&confirm(false)),
        r#"{"relay-confirm":{"token":"***"}}"#
    );
    let login = Request::RelayLogin {
        relay: "own".into(),
        refresh_token: Some("t".into()),
    };
    assert!(login.is_logged());
    assert_eq!(
        shown(&login),
        r#"{"relay-login":{"relay":"own","refresh_token":"***"}}"#
    );
    let mut request: Request =
        serde_json::from_str(r#"{"change":{"action":"hold","all":true,"dry_run":true}}"#).unwrap();
    assert!(!request.is_logged());
    let Request::Change(change) = &mut request else {
        panic!()
    };
    change.dry_run = false;
    assert!(request.is_logged());
}

#[tokio::test]
async fn a_client_that_left_is_told_from_one_that_only_stopped_writing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = theirs.into_std().unwrap();
    assert!(!is_gone(&ours));
    theirs.shutdown(Shutdown::Write).unwrap();
    assert!(!is_gone(&ours));
    drop(theirs);
    assert!(is_gone(&ours));
}
