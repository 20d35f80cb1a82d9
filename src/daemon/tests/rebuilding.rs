//! While the index is read from the log, for minutes if much waits: nobody who asks how
//! things are, and nothing that an administrator does, holds up the delivery task.

use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::control::protocol::{Action, ChangeRequest, Filter, Request, TraceRequest};
use crate::daemon::desk::Event;
use crate::mail::{QueueId, State};
use crate::spool;

use super::*;

/// Every request that there is; `true` for those that tell about messages, and wait.
fn every(token: &str, id: QueueId) -> Vec<(Request, bool)> {
    let relay = || "new".to_owned();
    let id = id.to_string();
    let change = ChangeRequest {
        filter: Filter::default(),
        all: true,
        action: Action::Retry,
        dry_run: false,
        up_to: None,
        note: None,
    };
    let trace = TraceRequest {
        address: Some("jan@example.nl".into()),
        ..TraceRequest::default()
    };
    vec![
        (Request::Status {}, false),
        (
            Request::Queue {
                filter: Filter::default(),
                after: None,
                limit: None,
            },
            true,
        ),
        (Request::Show { id: id.clone() }, true),
        (Request::Cat { id }, true),
        (Request::Trace(trace), true),
        (Request::Change(change), true),
        (Request::Limits { relay: None }, false),
        (
            Request::Limits {
                relay: Some(relay()),
            },
            false,
        ),
        (Request::Mailings { relay: None }, true),
        (Request::Metrics {}, false),
        (
            Request::Top {
                interval_seconds: 3_600,
            },
            false,
        ),
        (Request::RelayList { relay: None }, false),
        (Request::RelayTest { relay: relay() }, false),
        (
            Request::RelayPause {
                relay: relay(),
                note: None,
            },
            false,
        ),
        (Request::RelayVerify { relay: relay() }, false),
        (Request::RelayResume { relay: relay() }, false),
        (
            Request::RelayLogin {
                relay: relay(),
                refresh_token: Some("x".into()),
            },
            false,
        ),
        (
            Request::RelayConfirm {
                token: token.into(),
                dry_run: true,
            },
            false,
        ),
        (
            Request::RelayConfirm {
                token: token.into(),
                dry_run: false,
            },
            false,
        ),
        (
            Request::Route {
                address: "jan@example.nl".into(),
            },
            false,
        ),
        (Request::Hints { relay: None }, false),
        (Request::Reload {}, false),
    ]
}

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with one relay that refuses connections and must be confirmed.
struct Running {
    folder: tempfile::TempDir,
    spool: Spool,
    desk: Desk,
    control: PathBuf,
    confirm: SocketAddr,
    stop: oneshot::Sender<()>,
    _closed: tokio::net::TcpSocket,
    ended: JoinHandle<Ended>,
}

impl Running {
    #[allow(clippy::disallowed_methods, reason = "the test waits for it itself")]
    async fn start(relay: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Bound, so that nobody else gets it; and nobody listens.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let config = format!(
            "{LISTENER}[http]\nadmin = \"unix:{}\"\nconfirm = \"127.0.0.1:0\"\n\
             base-url = \"http://127.0.0.1:1\"\n\
             [relays.{relay}]\nserver = \"{}\"\ntls = \"off\"\nsender = \"jan@example.nl\"\nverify = true\n",
            folder.path().join("http.sock").display(),
            closed.local_addr().unwrap(),
        );
        let daemon = Daemon::start(setup(folder.path(), &config)).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        Self {
            folder,
            spool: daemon.spool.clone(),
            desk: daemon.desk.clone(),
            control: daemon.control().to_owned(),
            confirm: daemon.confirm_address().unwrap(),
            stop,
            _closed: closed,
            ended: tokio::spawn(daemon.run_until(async {
                stopped.await.ok();
            })),
        }
    }

    /// The test message that waits, once it is not just being sent.
    async fn test_message(&self) -> (QueueId, String) {
        let found = tokio::time::timeout(PATIENCE, self.find_test_message());
        found.await.expect("a test message waits")
    }

    async fn find_test_message(&self) -> (QueueId, String) {
        loop {
            self.desk
                .pause("new".into(), "a test".into(), String::new())
                .await
                .unwrap();
            let all = spool::Filter::default();
            let page = self.spool.list(&all, QueueId::MIN, 9).await.unwrap();
            if let Some(waiting) = page.messages.first() {
                let told = self.desk.situations(vec![waiting.clone()]).await.unwrap();
                let mut content = self.spool.content(waiting.id).await.unwrap().unwrap();
                let text = String::from_utf8(content.read(100_000).await.unwrap()).unwrap();
                let (_, token) = text.split_once("penstock relay confirm ").unwrap();
                let token = token.lines().next().unwrap().trim().to_owned();
                if told[0].state != crate::control::protocol::MessageState::Sending {
                    return (waiting.id, token);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a request; the lines of the answer come from what is returned.
    async fn send(&self, request: &Request) -> tokio::io::Lines<BufReader<UnixStream>> {
        let mut client = UnixStream::connect(&self.control).await.unwrap();
        let line = serde_json::to_string(request).unwrap() + "\n";
        client.write_all(line.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(client).lines();
        lines.next_line().await.unwrap().expect("a greeting");
        lines
    }
}

/// The first line that a page answers.
async fn get(mut peer: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    peer.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_and_no_page_holds_up_the_delivery_task_while_the_index_is_read() {
    let penstock = Running::start("new").await;
    let (id, token) = penstock.test_message().await;
    let stalled = penstock.spool.stall_rebuild();
    assert!(!penstock.spool.is_complete());

    let held = Event::HoldForHint(vec![(id, "a test".into())]);
    penstock.desk.tell(held).await.unwrap();
    let mended = penstock.desk.mended("new".into());
    tokio::time::timeout(PATIENCE, mended)
        .await
        .unwrap()
        .unwrap();
    let mut answers = Vec::new();
    for (request, waits) in every(&token, id) {
        let mut lines = penstock.send(&request).await;
        if !waits {
            // An error is an answer, too.
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{request:?} is not answered"));
            let line = line
                .unwrap()
                .unwrap_or_else(|| panic!("{request:?}: nothing"));
            if matches!(request, Request::RelayConfirm { .. }) {
                assert!(line.contains("verified"), "{line}");
            }
        }
        assert!(penstock.desk.is_alive().await, "{request:?} holds it up");
        answers.push((request, lines));
    }
    for path in ["/", "/metrics", "/healthz", "/readyz"] {
        let socket = UnixStream::connect(penstock.folder.path().join("http.sock"));
        let status = get(socket.await.unwrap(), path).await;
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}");
        assert!(penstock.desk.is_alive().await, "{path} holds it up");
    }
    let page = TcpStream::connect(penstock.confirm).await.unwrap();
    let status = get(page, &format!("/confirm/{token}")).await;
    assert!(status.starts_with("HTTP/1.1 "), "{status}");
    assert!(
        penstock.desk.is_alive().await,
        "the public page holds it up"
    );

    drop(stalled);
    penstock.spool.until_complete().await.unwrap();
    // Who waited is answered, and what was put off is done.
    for (request, mut lines) in answers {
        if matches!(request, Request::Top { .. }) {
            continue;
        }
        let mut last = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            last = line;
        }
        let prompt = last.is_empty();
        assert!(
            prompt || last.contains("done") || last.contains("error"),
            "{request:?}: {last}"
        );
    }
    let held = async {
        loop {
            let message = penstock.spool.envelope(id).await.unwrap().unwrap();
            if matches!(message.state, State::Held(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, held).await;
    held.expect("the message is held for the hint");
    penstock.stop.send(()).unwrap();
    assert_eq!(penstock.ended.await.unwrap(), Ended::InGoodOrder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_panics_is_over_and_its_message_is_tried_again_later() {
    // Ordered by this name.
    let penstock = Running::start("panics").await;
    let all = spool::Filter::default();
    let waited = async {
        loop {
            let page = penstock.spool.list(&all, QueueId::MIN, 9).await.unwrap();
            let put_off = page.messages.first().is_some_and(|it| {
                matches!(
                    it.state,
                    State::Waiting {
                        not_before: Some(_)
                    }
                )
            });
            if put_off {
                return page.messages;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let messages = tokio::time::timeout(PATIENCE, waited);
    let messages = messages.await.expect("the message counts as being sent");
    // It counts as an attempt, so the next one waits longer.
    assert_eq!(messages[0].attempts, 1);
    assert!(messages[0].first_failure.is_some());
    let told = penstock.desk.situations(messages).await.unwrap();
    assert_ne!(
        told[0].state,
        crate::control::protocol::MessageState::Sending
    );
    let relays = penstock.desk.relays(None).await.unwrap();
    assert_eq!(relays[0].connections, 0);
    penstock.stop.send(()).unwrap();
    assert_eq!(penstock.ended.await.unwrap(), Ended::InGoodOrder);
}
