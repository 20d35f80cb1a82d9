//! What a delivery needs: the message, its recipients, and whom to tell before the dot.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Relay, Timeouts};
use crate::mail::Envelope;

/// A future without a name.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Called right before the final dot (or the last octets of BDAT) goes out, with the
/// places of the recipients that the relay accepted. An error keeps the dot back.
pub type BeforeDot = Arc<dyn Fn(Vec<usize>) -> Boxed<'static, Result<(), String>> + Send + Sync>;

/// One message for one relay: one transaction.
#[derive(Clone)]
pub struct Job {
    /// The relay, as configured now.
    pub relay: Arc<Relay>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// The name to greet with.
    pub hostname: String,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// The places in the envelope of the recipients to send to: the limits may allow fewer
    /// than wait.
    pub recipients: Vec<usize>,
    /// The content.
    pub content: Arc<dyn Content>,
    /// What must be done before the dot.
    pub before_dot: BeforeDot,
    /// The clock's uptime after which MAIL is not sent any more: the batch has closed.
    /// Waiting for a connection counts.
    pub start_before: Option<Duration>,
    /// Cancelled: no transaction starts any more. One that has started goes on, for it
    /// is safe only at its end; whoever cannot wait drops the future.
    pub cancel: CancellationToken,
}

impl Job {
    /// Whether its turn has passed.
    pub(super) fn is_too_late(&self, clock: &Clock) -> bool {
        self.start_before.is_some_and(|it| clock.uptime() > it)
    }

    /// Resolves when its turn has passed.
    pub(super) async fn too_late(&self, clock: &Clock) {
        let Some(closes) = self.start_before else {
            return std::future::pending().await;
        };
        // The clock also counts while the machine sleeps, the timer may not.
        while !self.is_too_late(clock) {
            let left = closes.saturating_sub(clock.uptime());
            tokio::time::sleep(left.max(Duration::from_millis(1))).await;
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("relay", &self.relay.name)
            .field("id", &self.envelope.id)
            .field("recipients", &self.recipients)
            .finish_non_exhaustive()
    }
}

/// Where the content of a message comes from: the spool, or memory.
pub trait Content: Send + Sync {
    /// Octets in all.
    fn size_bytes(&self) -> u64;

    /// Reads it from its first octet; may be called more than once.
    fn open(&self) -> Boxed<'_, Result<Box<dyn Blocks>, String>>;
}

/// A content that is being read.
pub trait Blocks: Send {
    /// The next octets; none at the end.
    fn next(&mut self) -> Boxed<'_, Result<Option<Vec<u8>>, String>>;
}

/// A content in memory.
impl Content for Vec<u8> {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn open(&self) -> Boxed<'_, Result<Box<dyn Blocks>, String>> {
        let blocks: Box<dyn Blocks> = Box::new(Once(Some(self.clone())));
        Box::pin(std::future::ready(Ok(blocks)))
    }
}

struct Once(Option<Vec<u8>>);

impl Blocks for Once {
    fn next(&mut self) -> Boxed<'_, Result<Option<Vec<u8>>, String>> {
        let block = self.0.take().filter(|it| !it.is_empty());
        Box::pin(std::future::ready(Ok(block)))
    }
}
