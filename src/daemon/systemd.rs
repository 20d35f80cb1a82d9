//! What the service manager is told, if there is one (sd_notify(3)).

use std::time::Duration;

use tracing::warn;

/// Tells the service manager, if there is one.
pub(super) fn tell_systemd(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot tell systemd how things are");
    }
}

/// How often a service manager that waits for our end is told that we are at it.
const TELL_AGAIN: Duration = Duration::from_secs(20);
/// How long it is to wait from then on.
const TELL_AGAIN_WITHIN_MICROSECONDS: u32 = 60_000_000;

/// Waits for the end of something that may take long, and keeps the service manager from
/// taking us for dead meanwhile: `final-dot` may be longer than `TimeoutStopSec`.
pub(super) async fn telling_that_we_live<T>(task: impl Future<Output = T>) -> T {
    let mut task = std::pin::pin!(task);
    loop {
        tokio::select! {
            done = &mut task => return done,
            () = tokio::time::sleep(TELL_AGAIN) => tell_systemd(&[
                sd_notify::NotifyState::Watchdog,
                sd_notify::NotifyState::ExtendTimeoutUsec(TELL_AGAIN_WITHIN_MICROSECONDS),
            ]),
        }
    }
}
