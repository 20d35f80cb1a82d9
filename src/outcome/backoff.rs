//! When to try again: growing, jittered delays.

use std::time::Duration;

use crate::config::Retry;

/// The delay before the next try, when trying has been going on for `elapsed`.
///
/// Adding `first` to what has passed doubles the delay each time without counting: 1, 2,
/// 4, 8 ... minutes, up to `max`. `jitter`, from 0 to 1, moves it by an eighth to either
/// side, so that what failed together does not come back together.
pub fn delay(retry: &Retry, elapsed: Duration, jitter: f64) -> Duration {
    let plain = elapsed.saturating_add(retry.first).min(retry.max);
    let jitter = if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        0.5
    };
    let moved = plain.as_secs_f64() * (0.875 + 0.25 * jitter);
    let moved = Duration::try_from_secs_f64(moved).unwrap_or(retry.max);
    moved.min(retry.max).max(retry.first.min(retry.max))
}

/// Attempts without which no message expires, however late it is.
///
/// A clock that jumps forward makes a message look as if it had been tried for days. Five
/// attempts take a quarter of an hour with the usual delays: time for a clock to be set
/// right, and for a server to come back. Where fewer fit into `expire-after`, as many as fit.
pub fn least_attempts(retry: &Retry) -> u32 {
    const LEAST: u32 = 5;
    let (mut attempts, mut elapsed) = (1, Duration::ZERO);
    while attempts < LEAST && elapsed < retry.expire_after {
        elapsed = elapsed.saturating_add(delay(retry, elapsed, 1.0));
        attempts += 1;
    }
    attempts
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(60),
        max: Duration::from_secs(3600),
        expire_after: Duration::from_secs(4 * 86_400),
        warn_after: Duration::from_secs(4 * 3600),
    };

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut elapsed = Duration::ZERO;
        let mut minutes = Vec::new();
        for _ in 0..9 {
            let next = delay(&RETRY, elapsed, 0.5);
            minutes.push(next.as_secs() / 60);
            elapsed += next;
        }
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn no_more_attempts_are_demanded_than_fit() {
        assert_eq!(least_attempts(&RETRY), 5);
        let short = |seconds| Retry {
            expire_after: Duration::from_secs(seconds),
            ..RETRY
        };
        assert_eq!(least_attempts(&short(6)), 2);
        assert_eq!(least_attempts(&short(0)), 1);
        assert_eq!(least_attempts(&short(180)), 3);
    }

    #[test]
    fn every_delay_stays_within_its_bounds() {
        for jitter in [0.0, 0.3, 1.0, -5.0, 7.0, f64::NAN] {
            for seconds in [0, 1, 59, 3600, u64::MAX] {
                let next = delay(&RETRY, Duration::from_secs(seconds), jitter);
                assert!(next >= RETRY.first && next <= RETRY.max, "{next:?}");
            }
        }
        let odd = Retry {
            first: Duration::from_secs(60),
            max: Duration::from_secs(10),
            ..RETRY
        };
        assert_eq!(delay(&odd, Duration::ZERO, 0.5), odd.max);
    }
}
