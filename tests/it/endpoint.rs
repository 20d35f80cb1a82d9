//! A token endpoint: an HTTP server of its own that hands out tokens like a provider does,
//! does as it is told, and remembers what it was asked. It shares no code with Penstock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::certificates::Pair;
use crate::machine;

/// Instead of a status: nothing is answered, or an answer without end.
pub const SILENCE: u16 = 0;
pub const ENDLESS: u16 = 1;

/// One form that it was sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub path: String,
    pub form: BTreeMap<String, String>,
}

impl Asked {
    pub fn field(&self, name: &str) -> &str {
        self.form.get(name).map_or("", String::as_str)
    }
}

/// How it hands out tokens.
#[derive(Debug)]
pub struct Manners {
    /// Seconds that an access token lives.
    pub life: u64,
    /// A refresh token is good once, and brings the next one.
    pub rotates: bool,
    /// The secret that the application must show, if any.
    pub client_secret: Option<String>,
    /// Whom a device login makes one, when somebody enters the code.
    pub person: String,
    /// Seconds that a refresh token lives, as it says.
    pub refresh_life: Option<u64>,
    /// What a device login says before it says yes.
    pub answers: VecDeque<&'static str>,
    /// What is asked is taken in, and answered when this is over.
    pub held: bool,
    /// Instead of all that: status and body.
    pub trouble: Option<(u16, String)>,
}

#[derive(Debug)]
struct Book {
    manners: Manners,
    asked: Vec<Asked>,
    /// Good refresh tokens, and whose they are.
    refresh: BTreeMap<String, String>,
    /// Every access token that was given, and for whom.
    access: BTreeMap<String, String>,
    revoked: BTreeSet<String>,
    count: u64,
}

/// An endpoint that runs until it is dropped.
pub struct Endpoint {
    pub addr: SocketAddr,
    book: Arc<Mutex<Book>>,
    accepting: AbortHandle,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Endpoint {
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), None).await
    }

    /// At this address, under TLS with this certificate.
    #[allow(clippy::disallowed_methods, reason = "ended when it is dropped")]
    pub async fn start_at(at: SocketAddr, certificate: Option<Pair>) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let book = Arc::new(Mutex::new(Book {
            manners: Manners {
                life: 3600,
                rotates: false,
                client_secret: None,
                person: "mailer@example.nl".into(),
                refresh_life: None,
                answers: VecDeque::new(),
                held: false,
                trouble: None,
            },
            asked: Vec::new(),
            refresh: BTreeMap::new(),
            access: BTreeMap::new(),
            revoked: BTreeSet::new(),
            count: 0,
        }));
        let shared = book.clone();
        let acceptor = certificate.map(|it| it.acceptor());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (book, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &book).await;
                            }
                        }
                        None => serve(stream, &book).await,
                    }
                });
            }
        });
        Self {
            addr,
            book,
            accepting: task.abort_handle(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.book().manners);
    }

    /// `[relays.NAME.oauth]` for it.
    pub fn table(&self, name: &str, rest: &str) -> String {
        let at = self.addr;
        format!(
            "[relays.{name}.oauth]\ntoken-url = \"http://{at}/token\"\nclient-id = \"app-1\"\n\
             scope = \"mail offline\"\n{rest}\n"
        )
    }

    /// Waits until it was asked so often.
    pub async fn until_asked(&self, times: usize) {
        let pause = std::time::Duration::from_millis(10);
        let what = format!("asked {times} times");
        machine::until(&what, pause, async || self.asked().len() >= times).await;
    }

    /// Gives somebody a refresh token, elsewhere.
    pub fn refresh_token(&self, person: &str) -> String {
        self.book().new_refresh(person)
    }

    /// All logins end.
    pub fn revoke_all(&self) {
        self.book().refresh.clear();
    }

    /// No relay takes the access tokens that were given until now.
    pub fn distrust_all(&self) {
        let mut book = self.book();
        let all: Vec<String> = book.access.keys().cloned().collect();
        book.revoked.extend(all);
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.book().asked.clone()
    }

    /// What it was asked of one kind.
    pub fn asked_for(&self, grant: &str) -> Vec<Asked> {
        let all = self.asked();
        let end = |it: &Asked| it.field("grant_type").ends_with(grant);
        all.into_iter().filter(end).collect()
    }

    /// Everything that must be seen nowhere.
    pub fn secrets(&self) -> Vec<String> {
        let book = self.book();
        let mut all: Vec<String> = book.refresh.keys().cloned().collect();
        all.extend(book.access.keys().cloned());
        all.extend(book.manners.client_secret.clone());
        for asked in &book.asked {
            for key in ["refresh_token", "device_code", "client_secret"] {
                all.extend(asked.form.get(key).cloned());
            }
        }
        all
    }

    /// For a relay: whether this is a good token for this mailbox.
    pub fn judge(&self) -> impl Fn(&str, &str) -> bool + Send + Sync + use<> {
        let book = self.book.clone();
        move |mailbox, token| {
            let book = book.lock().unwrap();
            !book.revoked.contains(token) && book.access.get(token).is_some_and(|it| it == mailbox)
        }
    }
}

impl Book {
    fn new_refresh(&mut self, person: &str) -> String {
        self.count += 1;
        let token = format!("1.{}-s3cr3t-refresh", self.count);
        self.refresh.insert(token.clone(), person.to_owned());
        token
    }

    fn answer(&mut self, asked: &Asked) -> (u16, Value) {
        if let Some((status, body)) = &self.manners.trouble {
            return (*status, Value::String(body.clone()));
        }
        let no =
            |error: &str, words: &str| (400, json!({"error": error, "error_description": words}));
        if asked.field("client_id") != "app-1" {
            return no("invalid_client", "no such application");
        }
        let shown = asked.form.get("client_secret");
        if self.manners.client_secret.is_some() && shown != self.manners.client_secret.as_ref() {
            return no(
                "invalid_client",
                "AADSTS7000222: The client secret keys are expired.",
            );
        }
        if asked.path == "/device" {
            return (
                200,
                json!({"device_code": "device-s3cr3t", "user_code": "ABCD-EFGH", "expires_in": 900,
                    "interval": 5, "verification_uri": "https://login.example/device"}),
            );
        }
        let person = match asked.field("grant_type") {
            "client_credentials" => self.manners.person.clone(),
            "urn:ietf:params:oauth:grant-type:device_code" => {
                if let Some(error) = self.manners.answers.pop_front() {
                    return no(error, "");
                }
                self.manners.person.clone()
            }
            "refresh_token" => {
                let token = asked.field("refresh_token");
                let Some(person) = self.refresh.get(token).cloned() else {
                    let words = format!("AADSTS700082: The refresh token {token} has expired.");
                    return no("invalid_grant", &words);
                };
                if self.manners.rotates {
                    self.refresh.remove(token);
                }
                person
            }
            _ => return no("unsupported_grant_type", ""),
        };
        self.count += 1;
        let access = format!("access-{}-s3cr3t-{}", self.count, "x".repeat(600));
        self.access.insert(access.clone(), person.clone());
        let mut given = json!({"access_token": access, "token_type": "Bearer", "expires_in": self.manners.life});
        let first = asked.field("grant_type").ends_with("device_code");
        let rotated = asked.field("grant_type") == "refresh_token" && self.manners.rotates;
        if first || rotated {
            given["refresh_token"] = self.new_refresh(&person).into();
            given["refresh_token_expires_in"] = self.manners.refresh_life.into();
        }
        (200, given)
    }
}

/// One request and its answer.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, book: &Mutex<Book>) {
    let mut octets = Vec::new();
    let (head, body) = loop {
        let mut some = [0; 4096];
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return,
            Ok(count) => octets.extend(&some[..count]),
        }
        let text = String::from_utf8_lossy(&octets).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|it| it.split_once(": "))
            .find(|it| it.0.eq_ignore_ascii_case("content-length"))
            .map_or(0, |it| it.1.parse::<usize>().unwrap());
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let asked = Asked {
        at: Instant::now(),
        path,
        form: body.split('&').filter_map(pair).collect(),
    };
    let (status, answer) = {
        let mut book = book.lock().unwrap();
        let answer = book.answer(&asked);
        book.asked.push(asked);
        answer
    };
    while book.lock().unwrap().manners.held {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    match status {
        SILENCE => return std::future::pending().await,
        ENDLESS => {
            let head = "HTTP/1.1 200 X\r\nConnection: close\r\n\r\n[";
            stream.write_all(head.as_bytes()).await.ok();
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
            return;
        }
        _ => {}
    }
    let text = match answer {
        Value::String(text) => text,
        json => json.to_string(),
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Location: http://127.0.0.1:9/\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

/// `a+b=%41` → (`a b`, `A`).
fn pair(text: &str) -> Option<(String, String)> {
    let plain = |text: &str| {
        let mut octets = Vec::new();
        let mut left = text.bytes();
        while let Some(octet) = left.next() {
            octets.push(match octet {
                b'+' => b' ',
                b'%' => {
                    let digits = [left.next()?, left.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            });
        }
        String::from_utf8(octets).ok()
    };
    let (key, value) = text.split_once('=')?;
    Some((plain(key)?, plain(value)?))
}
