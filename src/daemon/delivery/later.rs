//! What waits for the index: changes to messages that could not be looked up while it is
//! read from the log. The delivery task does not wait for that; it comes back to them.

use crate::mail::QueueId;

use super::Delivery;

/// What is done once the index answers.
#[derive(Default)]
pub(in crate::daemon) struct Later {
    /// Messages that stepped aside for the trouble of a relay, which is over.
    pub(in crate::daemon) called_back: Vec<(String, Vec<QueueId>)>,
    /// Messages that are to be held for a hint, and why.
    pub(in crate::daemon) held: Vec<(QueueId, String)>,
    /// Test messages that must not leave any more, and why.
    pub(in crate::daemon) withdrawn: Vec<(QueueId, &'static str)>,
}

impl Delivery {
    /// Does what could not be done before; what still cannot waits on.
    pub(super) async fn catch_up(&mut self) {
        let Later {
            called_back,
            held,
            withdrawn,
        } = std::mem::take(&mut self.later);
        for (relay, ids) in called_back {
            self.call_back(&relay, ids).await;
        }
        if !held.is_empty() {
            self.hold_for_hint(held).await;
        }
        for (id, why) in withdrawn {
            self.withdraw(id, why).await;
        }
    }
}
