//! The ledger: what the applications were promised against what the relay got.
//!
//! The message of a number is made from that number alone, so that one that arrives can
//! be checked to the last octet without anything being kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::Client;
use crate::relay::Transaction;

/// Users of the run; user 1 sends as `user1@app.test` and has the login `login1`.
pub const USERS: u64 = 3;

pub fn user_of(number: u64) -> String {
    format!("user{}@app.test", number % USERS)
}

pub fn login_of(number: u64) -> String {
    format!("login{}", number % USERS)
}

/// The content of message `number`: mostly small, some above the 256 KiB that are buffered.
pub fn content_of(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let lines = match number % 50 {
        0 => 8_000,
        1..6 => 300,
        _ => 10 + next() % 20,
    };
    let from = user_of(number);
    let mut text = format!(
        "From: {from}\r\nTo: t{number}@example.net\r\nSubject: number {number}\r\n\
         Date: Sat, 21 Nov 2026 12:00:00 +0100\r\nMessage-ID: <{number}@app.test>\r\n\
         X-Token: {number}\r\n\r\n"
    );
    for _ in 0..lines {
        let width = next() % 60;
        // Lines that begin with dots are what stuffing is for.
        let dots = if next() % 8 == 0 { "..." } else { "" };
        text.push_str(&format!(
            "{dots}{:016x}{:.<w$}\r\n",
            next(),
            "",
            w = width as usize
        ));
    }
    text.into_bytes()
}

/// What happens to a message on its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its client is about to submit it.
    Begun,
    /// Its client read the 250.
    Promised,
}

/// Who hears of every step.
type Told = Box<dyn Fn(Step, u64) + Send + Sync>;

/// Who was promised what; shared by all clients of a run.
pub struct Ledger {
    next: AtomicU64,
    acknowledged: Mutex<BTreeMap<u64, String>>,
    recipient: fn(u64) -> String,
    told: OnceLock<Told>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(0, recipient_of)
    }
}

/// The recipient of message `number`, unless a run says otherwise.
pub fn recipient_of(number: u64) -> String {
    format!("t{number}@example.net")
}

impl Ledger {
    /// A ledger whose messages are counted from `first` and go to these recipients.
    pub fn new(first: u64, recipient: fn(u64) -> String) -> Self {
        Self {
            next: AtomicU64::new(first),
            acknowledged: Mutex::default(),
            recipient,
            told: OnceLock::new(),
        }
    }

    /// Numbers given out so far.
    pub fn submitted(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Acknowledged messages by number, with their queue ids.
    pub fn acknowledged(&self) -> BTreeMap<u64, String> {
        self.acknowledged.lock().unwrap().clone()
    }

    fn one_more(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Tells each step as it is taken.
    pub fn on_step(&self, told: impl Fn(Step, u64) + Send + Sync + 'static) {
        assert!(self.told.set(Box::new(told)).is_ok(), "only one listens");
    }

    fn tell(&self, step: Step, number: u64) {
        if let Some(told) = self.told.get() {
            told(step, number);
        }
    }

    fn promise(&self, number: u64, queue_id: String) {
        self.tell(Step::Promised, number);
        self.acknowledged.lock().unwrap().insert(number, queue_id);
    }
}

/// Clients that submit without a pause until they are stopped or the daemon dies.
pub struct Load {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub fn start(address: SocketAddr, clients: usize, ledger: &Arc<Ledger>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let (ledger, stop) = (ledger.clone(), stop.clone());
            set.spawn(async move {
                // An error is the daemon's end: what was not acknowledged is not promised.
                while !stop.load(Ordering::SeqCst) && submit(address, &ledger, &stop).await.is_ok()
                {
                }
            });
        }
        Self { clients: set, stop }
    }

    /// Lets every client finish its message.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
    }
}

/// One connection with a few messages.
async fn submit(address: SocketAddr, ledger: &Ledger, stop: &AtomicBool) -> std::io::Result<()> {
    let mut client = Client::dial(address).await?;
    client.try_reply().await?;
    client.try_send(b"EHLO app.test\r\n").await?;
    client.try_reply().await?;
    for _ in 0..20 {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let number = ledger.one_more();
        let recipient = (ledger.recipient)(number);
        ledger.tell(Step::Begun, number);
        let answer = client
            .try_submit(&user_of(number), &[&recipient], &content_of(number))
            .await?;
        if answer.code == 250 {
            ledger.promise(number, answer.queue_id());
        } else {
            assert_eq!(answer.code / 100, 4, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    client.try_send(b"QUIT\r\n").await
}

/// What came out of a comparison.
#[derive(Debug, Default)]
pub struct Balance {
    pub acknowledged: usize,
    pub delivered: usize,
    /// Arrived more than once.
    pub repeated: Vec<u64>,
    /// Promised and not there.
    pub missing: Vec<(u64, String)>,
    /// There, and not what was sent, or by the wrong login.
    pub wrong: Vec<String>,
}

/// Holds the ledger against what relays accepted.
pub fn balance<'a>(
    ledger: &Ledger,
    transactions: impl IntoIterator<Item = &'a Transaction>,
) -> Balance {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    let mut it = Balance::default();
    for transaction in transactions.into_iter().filter(|it| it.accepted()) {
        match check(transaction, ledger.submitted()) {
            Ok(number) => *times.entry(number).or_default() += 1,
            Err(what) => it.wrong.push(what),
        }
    }
    let acknowledged = ledger.acknowledged();
    it.acknowledged = acknowledged.len();
    it.delivered = times.len();
    it.repeated = times
        .iter()
        .filter(|(_, n)| **n > 1)
        .map(|(it, _)| *it)
        .collect();
    it.missing = acknowledged
        .into_iter()
        .filter(|(number, _)| !times.contains_key(number))
        .collect();
    it
}

/// The number that a message bears.
pub fn number_of(content: &[u8]) -> Option<u64> {
    let header = String::from_utf8_lossy(&content[..content.len().min(4096)]);
    let token = header.split("X-Token: ").nth(1)?;
    token.split("\r\n").next()?.parse().ok()
}

/// The number of a delivered message, if all about it is as it was submitted.
fn check(transaction: &Transaction, submitted: u64) -> Result<u64, String> {
    let number = number_of(&transaction.content)
        .ok_or_else(|| format!("no token in {}", transaction.text()))?;
    if number >= submitted {
        return Err(format!("{number} was never submitted"));
    }
    if transaction.without_trace() != content_of(number) {
        return Err(format!("{number} changed on the way"));
    }
    if transaction.login != Some(login_of(number)) {
        return Err(format!(
            "{number} went by the login {:?}",
            transaction.login
        ));
    }
    if transaction.reverse_path() != user_of(number)
        || transaction.forward_paths() != [format!("t{number}@example.net")]
    {
        return Err(format!(
            "{number} has the envelope {:?} {:?}",
            transaction.mail, transaction.recipients
        ));
    }
    Ok(number)
}

#[test]
fn the_ledger_notices_what_is_missing_changed_repeated_or_sent_by_another() {
    let ledger = Ledger::default();
    for _ in 0..5 {
        let number = ledger.one_more();
        ledger.promise(number, format!("id{number}"));
    }
    let transaction = |number: u64| {
        let mut content = b"Received: by penstock\r\n\twith x\r\n".to_vec();
        content.extend(content_of(number));
        Transaction {
            at: Duration::ZERO,
            ended: Duration::ZERO,
            replied: Duration::ZERO,
            connection: 0,
            tls: true,
            login: Some(login_of(number)),
            mail: format!("<{}> SIZE=1", user_of(number)),
            recipients: vec![format!("<t{number}@example.net>")],
            wire: Vec::new(),
            content,
            reply: "250 ok".into(),
        }
    };
    let good: Vec<Transaction> = (0..5).map(transaction).collect();
    let fine = balance(&ledger, &good);
    assert!(
        fine.missing.is_empty() && fine.wrong.is_empty() && fine.repeated.is_empty(),
        "{fine:?}"
    );

    let mut bad = good.clone();
    bad[0].content.pop();
    bad[1].login = Some(login_of(2));
    bad[2].recipients = vec!["<other@example.net>".into()];
    bad[3].reply.clear();
    bad.push(transaction(4));
    bad.push(transaction(9));
    let found = balance(&ledger, &bad);
    assert_eq!(found.wrong.len(), 4, "{found:?}");
    assert_eq!(found.missing.len(), 4);
    assert_eq!(found.repeated, [4]);
}
