//! A bound on waiting: when DNS has failed a few times, the rest is not asked any more.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dns::{Answer, Dns, DnsError, Kind};

/// Questions of one look that may remain unanswered. Each may take 15 seconds, and a name
/// server that is down does not come back in between.
const TROUBLE_MAXIMUM: usize = 3;

/// Asks for one look, and remembers whether that went well.
pub struct Patience<'a> {
    dns: &'a dyn Dns,
    troubles: AtomicUsize,
}

impl<'a> Patience<'a> {
    /// With all the patience there is.
    pub fn new(dns: &'a dyn Dns) -> Self {
        Self {
            dns,
            troubles: AtomicUsize::new(0),
        }
    }

    /// Whether something remained unanswered.
    pub fn met_trouble(&self) -> bool {
        self.troubles.load(Ordering::Relaxed) > 0
    }
}

impl Dns for Patience<'_> {
    fn look_up<'a>(&'a self, name: &'a str, kind: Kind) -> Answer<'a> {
        Box::pin(async move {
            if self.troubles.load(Ordering::Relaxed) >= TROUBLE_MAXIMUM {
                return Err(DnsError::Trouble(
                    "not asked after others failed".to_owned(),
                ));
            }
            let answer = self.dns.look_up(name, kind).await;
            if matches!(answer, Err(DnsError::Trouble(_))) {
                self.troubles.fetch_add(1, Ordering::Relaxed);
            }
            answer
        })
    }
}
