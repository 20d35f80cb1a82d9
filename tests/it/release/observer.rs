//! What a relay sees, and whether it is more than its limits: by counting everything,
//! again and again. Shares no code with the ledger.

use std::sync::Arc;

use penstock::config::Limits;

/// One transaction as the relay saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When, in milliseconds of true time.
    pub at: u64,
    /// Which number its grant had: the order of the decisions.
    pub grant: u64,
    /// Octets on the wire.
    pub octets: u64,
    /// Recipients.
    pub recipients: u64,
    /// The limits in force when it was decided.
    pub limits: Arc<Limits>,
}

/// Everything one relay saw.
#[derive(Debug, Default)]
pub struct Observer {
    pub seen: Vec<Seen>,
}

impl Observer {
    /// Every window of every limit: for each message, every window of the limit's length
    /// that holds it, and in that window all that was decided no later.
    ///
    /// Under unchanged limits that is every window. Where limits were lowered between,
    /// what was decided under the old ones counts for the new ones, not the other way round.
    pub fn check(&mut self) -> Result<(), String> {
        self.seen.sort_by_key(|it| it.at);
        for judged in &self.seen {
            let limits = &judged.limits;
            let interval = limits.batch_interval.as_millis() as u64;
            let n = |limit: Option<u32>| limit.map(u64::from);
            let windows = [
                (
                    "batch",
                    interval,
                    n(limits.batch_messages),
                    limits.batch_bytes,
                    None,
                ),
                (
                    "hour",
                    3_600_000,
                    n(limits.per_hour),
                    None,
                    n(limits.recipients_per_hour),
                ),
                (
                    "day",
                    86_400_000,
                    n(limits.per_day),
                    None,
                    n(limits.recipients_per_day),
                ),
            ];
            for (name, length, messages, octets, recipients) in windows {
                if messages.is_none() && octets.is_none() && recipients.is_none() {
                    continue;
                }
                self.check_windows(judged, name, length, messages, octets, recipients)?;
            }
            let apart = limits.min_interval.as_millis() as u64;
            let near = self
                .seen
                .iter()
                .find(|other| other.grant < judged.grant && other.at.abs_diff(judged.at) < apart);
            if let Some(other) = near {
                return Err(format!("min-interval: {other:?} and {judged:?}"));
            }
            let most = limits.recipients_per_message.map_or(u64::MAX, u64::from);
            if judged.recipients > most {
                return Err(format!("recipients-per-message: {judged:?}"));
            }
        }
        Ok(())
    }

    /// The same where the limits never changed, for many messages: one walk per window.
    pub fn check_unchanged(&mut self, limits: &Limits) -> Result<(), String> {
        self.seen.sort_by_key(|it| it.at);
        let apart = limits.min_interval.as_millis() as u64;
        if let Some(near) = self.seen.windows(2).find(|it| it[1].at - it[0].at < apart) {
            return Err(format!("min-interval: {near:?}"));
        }
        let interval = limits.batch_interval.as_millis() as u64;
        let n = |limit: Option<u32>| limit.map_or(u64::MAX, u64::from);
        for (length, messages, octets, recipients) in [
            (
                interval,
                n(limits.batch_messages),
                limits.batch_bytes.unwrap_or(u64::MAX),
                u64::MAX,
            ),
            (
                3_600_000,
                n(limits.per_hour),
                u64::MAX,
                n(limits.recipients_per_hour),
            ),
            (
                86_400_000,
                n(limits.per_day),
                u64::MAX,
                n(limits.recipients_per_day),
            ),
        ] {
            let (mut first, mut bytes, mut people) = (0, 0u64, 0u64);
            for (last, it) in self.seen.iter().enumerate() {
                bytes += it.octets;
                people += it.recipients;
                while self.seen[first].at + length < it.at {
                    bytes -= self.seen[first].octets;
                    people -= self.seen[first].recipients;
                    first += 1;
                }
                let count = (last + 1 - first) as u64;
                if count > messages || (bytes > octets && count > 1) || people > recipients {
                    return Err(format!(
                        "{length} ms window to {}: {count} messages, {bytes} octets, {people} recipients",
                        it.at
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_windows(
        &self,
        judged: &Seen,
        name: &str,
        length: u64,
        messages: Option<u64>,
        octets: Option<u64>,
        recipients: Option<u64>,
    ) -> Result<(), String> {
        let from = self.seen.partition_point(|it| it.at + length < judged.at);
        let to = self.seen.partition_point(|it| it.at <= judged.at);
        // A window that matters begins with some message.
        for first in &self.seen[from..to] {
            let end = self.seen.partition_point(|it| it.at <= first.at + length);
            let start = self.seen.partition_point(|it| it.at < first.at);
            let inside = self.seen[start..end]
                .iter()
                .filter(|it| it.grant <= judged.grant);
            let (mut count, mut bytes, mut people) = (0u64, 0u64, 0u64);
            for it in inside {
                count += 1;
                bytes += it.octets;
                people += it.recipients;
            }
            let alone = count == 1;
            let breach = messages.is_some_and(|most| count > most)
                || octets.is_some_and(|most| bytes > most && !alone)
                || recipients.is_some_and(|most| people > most);
            if breach {
                return Err(format!(
                    "{name} window from {} ({length} ms): {count} messages, {bytes} octets, {people} recipients; judged {judged:?}",
                    first.at
                ));
            }
        }
        Ok(())
    }

    /// How many were seen from `from` on, for `length` milliseconds.
    pub fn count(&self, from: u64, length: u64) -> usize {
        let to = from + length;
        self.seen
            .iter()
            .filter(|it| it.at >= from && it.at < to)
            .count()
    }
}
