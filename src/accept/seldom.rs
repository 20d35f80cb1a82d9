//! What happens often and is said seldom: whoever knocks a thousand times a second must
//! not fill the log as well.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// At most one line in this time.
const BETWEEN: Duration = Duration::from_secs(60);

/// Counts, and says now and then how often it happened.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    untold: u64,
    told: Option<Instant>,
}

impl Seldom {
    /// It happened; how often since it was last told, when it is time to tell.
    pub fn tell(&self) -> Option<u64> {
        let now = Instant::now();
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.untold += 1;
        let is_time = count.told.is_none_or(|it| now - it >= BETWEEN);
        is_time.then(|| {
            count.told = Some(now);
            std::mem::take(&mut count.untold)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_rest_are_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.tell(), Some(1));
        assert_eq!([seldom.tell(), seldom.tell()], [None, None]);
        tokio::time::advance(BETWEEN).await;
        assert_eq!(seldom.tell(), Some(3));
        assert_eq!(seldom.tell(), None);
    }
}
