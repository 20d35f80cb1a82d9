//! Alarms: what is raised when something happens, and what is looked for because it does not.

use std::time::Duration;

use tracing::{info, warn};

use crate::daemon::alarm::{Alarm, Room};
use crate::daemon::alarms::{Kind, Raised};
use crate::outcome::Pause;
use crate::release::Wait;

use super::Delivery;

/// When nothing has left for so long although something may, somebody should know: longer
/// than the reply to a final dot may take.
const IDLE_PATIENCE: Duration = Duration::from_secs(15 * 60);

impl Delivery {
    /// Raises an alarm: said in the log when it is new, mailed unless that was done within
    /// the hour.
    pub(super) fn raise(&mut self, kind: Kind, relay: Option<&str>, text: &str, alarm: Alarm) {
        let now = self.office.clock.now();
        let raised = self.facts.alarms().raise(kind, relay, text.to_owned(), now);
        if raised != Raised::Already {
            warn!(alarm = kind.name(), relay, "alarm: {text}");
        }
        if raised == Raised::Mailed {
            self.alarms.push(alarm);
        }
    }

    /// An alarm is over, if it stood.
    pub(super) fn clear(&self, kind: Kind, relay: Option<&str>) {
        if self.facts.alarms().clear(kind, relay) {
            info!(alarm = kind.name(), relay, "the alarm is over");
        }
    }

    /// Looks after what nobody says: a disk that fills up, mail that may leave and does not.
    pub(super) async fn watch(&mut self) {
        let spool = self.spool.status().await;
        let room = Room {
            free: spool.free_bytes,
            refused_below: spool.reserve_bytes,
        };
        match room.is_low() {
            true => {
                let alarm = Alarm::disk_low(room, self.spool.path());
                self.raise(Kind::DiskLow, None, &room.to_string(), alarm);
            }
            false => self.clear(Kind::DiskLow, None),
        }
        let uptime = self.office.clock.uptime();
        for relay in self.relays.keys().cloned().collect::<Vec<_>>() {
            if !self.live.config.relays.contains_key(&relay) {
                self.clear(Kind::RelayPaused, Some(&relay));
            }
            if !self.may_leave(&relay) {
                self.book(&relay).idle_since = None;
                self.clear(Kind::NothingLeaves, Some(&relay));
                continue;
            }
            let since = *self.book(&relay).idle_since.get_or_insert(uptime);
            let idle = uptime.saturating_sub(since);
            if idle >= IDLE_PATIENCE {
                let minutes = idle.as_secs() / 60;
                let text = format!(
                    "mail may leave by the relay {relay} and none did for {minutes} minutes"
                );
                self.raise(
                    Kind::NothingLeaves,
                    Some(&relay),
                    &text,
                    Alarm::nothing_leaves(&relay, minutes),
                );
            }
        }
    }

    /// Whether something may leave for a relay: limits, batches and pauses allow it.
    pub(in crate::daemon) fn may_leave(&mut self, relay: &str) -> bool {
        let outlook = self.release.outlook(relay, self.office.clock.moment());
        outlook.is_some_and(|it| {
            it.waiting.messages > 0
                && matches!(
                    it.wait,
                    None | Some(Wait::Connections | Wait::Spool | Wait::Turn | Wait::UnderWay)
                )
        })
    }
}

/// The alarm about a paused relay, in a sentence.
pub(super) fn paused_for(relay: &str, pause: &Pause) -> String {
    let words = pause.words.replace('\n', " / ");
    format!("the relay {relay} is paused: {words}")
}
