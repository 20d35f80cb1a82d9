//! Memory that all clients share: each may have a little, and what is beyond that comes out
//! of one purse, so that many at once cannot take it all.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is taken out at once: not at every octet.
const STEP_KIB: usize = 16;

/// What is left for all, and what each has without paying.
#[derive(Debug)]
pub struct Purse {
    kib: Arc<Semaphore>,
    free: usize,
}

/// What one client took out; comes back when dropped.
pub type Paid = Option<OwnedSemaphorePermit>;

impl Purse {
    /// So many octets each, and so many KiB for all beyond that.
    pub fn new(free: usize, kib: usize) -> Self {
        Self {
            kib: Arc::new(Semaphore::new(kib)),
            free,
        }
    }

    /// Makes sure that this many octets may be held; false: the purse is empty.
    pub fn pay(&self, octets: usize, paid: &mut Paid) -> bool {
        let owed = octets.saturating_sub(self.free).div_ceil(1024);
        let before = paid.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if owed <= before {
            return true;
        }
        let more = u32::try_from((owed - before).max(STEP_KIB)).unwrap_or(u32::MAX);
        match self.kib.clone().try_acquire_many_owned(more) {
            Ok(permit) => {
                match paid {
                    Some(paid) => paid.merge(permit),
                    None => *paid = Some(permit),
                }
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_little_and_all_have_no_more_than_the_purse() {
        let purse = Purse::new(1_000, 40);
        let (mut one, mut two, mut three) = (None, None, None);
        assert!(purse.pay(1_000, &mut one) && one.is_none());
        assert!(purse.pay(2_000, &mut one) && purse.pay(17_000, &mut one));
        assert!(purse.pay(2_000, &mut two));
        assert!(!purse.pay(17_000, &mut three) && purse.pay(900, &mut three));
        drop(one);
        assert!(purse.pay(17_000, &mut three));
    }
}
