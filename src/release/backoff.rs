//! How long to wait before trying again.

use std::time::Duration;

use crate::config::Retry;

/// The delay before attempt number `attempts + 1`, where `attempts` have failed so far.
///
/// It doubles from `first` to `max`. `jitter`, 0 to 1, moves it by a fifth either way, so
/// that what failed together is not tried together; it is never below `first` nor above
/// `max`.
pub fn delay(retry: &Retry, attempts: u32, jitter: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    let grown = retry.first.saturating_mul(1 << doublings).min(retry.max);
    let spread = 0.8
        + 0.4
            * if jitter.is_finite() {
                jitter.clamp(0.0, 1.0)
            } else {
                0.5
            };
    grown
        .mul_f64(spread)
        .clamp(retry.first.min(retry.max), retry.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(60),
        max: Duration::from_secs(3600),
        expire_after: Duration::from_secs(345_600),
        warn_after: Duration::from_secs(14_400),
    };

    #[test]
    fn the_delay_grows_from_a_minute_to_an_hour() {
        let minutes: Vec<u64> = (1..=9)
            .map(|attempts| delay(&RETRY, attempts, 0.5).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn jitter_stays_within_the_bounds() {
        for attempts in 0..100 {
            for jitter in [0.0, 0.3, 1.0, 7.0, -1.0, f64::NAN] {
                let delay = delay(&RETRY, attempts, jitter);
                assert!(delay >= RETRY.first && delay <= RETRY.max, "{delay:?}");
            }
        }
        assert!(delay(&RETRY, 20, 0.0) < delay(&RETRY, 20, 1.0));
    }
}
