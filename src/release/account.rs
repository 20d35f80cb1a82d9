//! One relay's budget: its limits, what left, and what is on its way.

use std::time::Duration;

use crate::config::Limits;

use super::forecast::Forecast;
use super::history::{Budget, DAY, Entry, History, Load, Millis, Paid, WINDOWS};
use super::timeline::{millis_down, millis_up};

const HOUR: Millis = 60 * 60 * 1000;
/// Until a relay is configured: what `batch-interval` usually is.
const USUAL_INTERVAL: Millis = 5 * 60 * 1000;

/// What each limit is called, by window and by what it counts.
const NAMES: [[&str; 3]; WINDOWS] = [
    ["batch-messages", "batch-bytes", ""],
    ["per-hour", "", "recipients-per-hour"],
    ["per-day", "", "recipients-per-day"],
];

/// A limit that leaves no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// Its key in the configuration.
    pub(super) limit: &'static str,
    /// It counts messages: a smaller one has no room either.
    pub(super) is_any_size: bool,
    /// When enough has left its window by itself; none: not before something that is
    /// under way has ended.
    pub(super) until: Option<Millis>,
}

impl Full {
    /// Whether it leaves no room even in the batch that opens then.
    pub(super) fn outlasts(&self, opening: Millis) -> bool {
        !NAMES[0].contains(&self.limit) && self.until.is_none_or(|it| it > opening)
    }
}

/// How far one limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitUse {
    /// Its key in the configuration.
    pub limit: &'static str,
    /// The limit.
    pub most: u64,
    /// What the window holds now, transactions under way included.
    pub used: u64,
    /// How much of the limit is kept for interactive mail.
    pub kept: u64,
    /// How much of `used` that share paid.
    pub interactive: u64,
    /// When the first of `used` leaves the window, or, where it is more than the limit, so
    /// much of it that there is room; none: it is empty, or what is in the way is still
    /// under way.
    pub frees_in: Option<Duration>,
}

/// One relay's budget.
#[derive(Debug, Clone)]
pub(super) struct Account {
    history: History,
    /// Reserved, and not known yet to have left or not: counts as now.
    open: Paid,
    last_release: Option<Millis>,
    opened: Option<Millis>,
    rules: Rules,
}

#[derive(Debug, Clone)]
struct Rules {
    windows: [Rule; WINDOWS],
    interval: Millis,
    batch_window: Millis,
    min_interval: Millis,
}

/// The limits of one window.
#[derive(Debug, Clone, Copy, Default)]
struct Rule {
    messages: Part,
    octets: Part,
    recipients: Part,
}

/// One limit, and how much of it is kept for interactive mail.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    most: Option<u64>,
    kept: u64,
}

impl Part {
    /// `least`: what is kept at any rate, be the share zero.
    fn new(most: Option<u64>, share: f64, least: u64) -> Self {
        let kept = most.map_or(0, |most| {
            // Exact up to 2^53, and only the size of the share depends on it.
            let share = (most as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
            // Something is left for everyone else, or they would wait for ever.
            share.max(least).min(most.saturating_sub(1))
        });
        Self { most, kept }
    }

    /// How much more of it may leave; `first`: interactive mail has used nothing yet.
    fn room(self, budget: Budget, general: u64, interactive: u64, first: bool) -> u64 {
        let Some(most) = self.most else {
            return u64::MAX;
        };
        let own = match budget {
            Budget::General => (most - self.kept).saturating_sub(general),
            // The share is at least one message, however large.
            Budget::Interactive if first => u64::MAX,
            Budget::Interactive => self.kept.saturating_sub(interactive),
        };
        own.min(most.saturating_sub(general.saturating_add(interactive)))
    }
}

impl Rule {
    fn room(&self, budget: Budget, used: Paid) -> Load {
        let (general, interactive) = (used.general, used.interactive);
        let first = interactive.messages == 0;
        let octets = |part: Part| {
            if used.total().messages == 0 {
                // A message larger than `batch-bytes`, or than what the share leaves of
                // it, goes alone in an otherwise empty window.
                return u64::MAX;
            }
            part.room(budget, general.octets, interactive.octets, first)
        };
        Load {
            messages: self
                .messages
                .room(budget, general.messages, interactive.messages, first),
            octets: octets(self.octets),
            recipients: self.recipients.room(
                budget,
                general.recipients,
                interactive.recipients,
                first,
            ),
        }
    }

    fn parts(&self) -> [Part; 3] {
        [self.messages, self.octets, self.recipients]
    }
}

impl Account {
    pub(super) fn new() -> Self {
        let lengths = [USUAL_INTERVAL, HOUR, DAY];
        Self {
            history: History::new(lengths),
            open: Paid::default(),
            last_release: None,
            opened: None,
            rules: Rules {
                windows: [Rule::default(); WINDOWS],
                interval: USUAL_INTERVAL,
                batch_window: USUAL_INTERVAL,
                min_interval: 0,
            },
        }
    }

    /// The limits from now on; what already left counts against them.
    pub(super) fn configure(&mut self, limits: &Limits, now: Millis) {
        let share = limits.interactive_share;
        let messages = |most: Option<u32>| Part::new(most.map(u64::from), share, 1);
        let interval = millis_up(limits.batch_interval).max(1);
        let windows = [
            Rule {
                messages: messages(limits.batch_messages),
                octets: Part::new(limits.batch_bytes, share, 0),
                recipients: Part::default(),
            },
            Rule {
                messages: messages(limits.per_hour),
                recipients: messages(limits.recipients_per_hour),
                octets: Part::default(),
            },
            Rule {
                messages: messages(limits.per_day),
                recipients: messages(limits.recipients_per_day),
                octets: Part::default(),
            },
        ];
        self.rules = Rules {
            windows,
            interval,
            batch_window: millis_down(limits.batch_window).min(interval),
            min_interval: millis_up(limits.min_interval),
        };
        self.history.set_lengths([interval, HOUR, DAY], now);
    }

    /// Brings the windows up to now; the questions below answer as of the last call.
    pub(super) fn advance(&mut self, now: Millis) {
        self.history.advance(now);
    }

    /// How many recipients of a message of `octets` may leave now: at least `least`,
    /// at most `wanted`.
    pub(super) fn fit(
        &self,
        budget: Budget,
        octets: u64,
        wanted: u64,
        least: u64,
    ) -> Result<u64, Full> {
        let enough = |room: Load| {
            [
                room.messages >= 1,
                room.octets >= octets,
                room.recipients >= least,
            ]
        };
        self.check(budget, enough)?;
        let recipients = (0..WINDOWS).map(|window| self.room(window, budget).recipients);
        Ok(recipients.min().unwrap_or(wanted).min(wanted))
    }

    /// Whether all of this may leave now.
    pub(super) fn fit_all(&self, all: Load) -> Result<(), Full> {
        self.check(Budget::General, |room| {
            [
                room.messages >= all.messages,
                room.octets >= all.octets,
                room.recipients >= all.recipients,
            ]
        })
    }

    /// Whether a message of this size can only leave alone.
    pub(super) fn only_alone(&self, octets: u64) -> bool {
        let part = self.rules.windows[0].octets;
        part.most.is_some_and(|most| octets > most - part.kept)
    }

    fn room(&self, window: usize, budget: Budget) -> Load {
        let used = self.used(window);
        self.rules.windows[window].room(budget, used)
    }

    /// Whether every window has enough room; else the limit that is full for longest.
    fn check(&self, budget: Budget, enough: impl Fn(Load) -> [bool; 3]) -> Result<(), Full> {
        let mut longest: Option<Full> = None;
        for (window, rule) in self.rules.windows.iter().enumerate() {
            let Some(lacking) = enough(self.room(window, budget)).iter().position(|it| !it) else {
                continue;
            };
            let suffices = |used| enough(rule.room(budget, used)).iter().all(|it| *it);
            let mut used = self.used(window);
            // What an empty window has no room for is not worth searching for.
            let until = suffices(self.open)
                .then(|| {
                    self.history.leaving(window).find_map(|(at, paid)| {
                        used = used.minus(paid);
                        suffices(used).then_some(at)
                    })
                })
                .flatten();
            let full = Full {
                limit: NAMES[window][lacking],
                is_any_size: lacking == 0,
                until,
            };
            let longer = longest.is_none_or(|other| match (other.until, until) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(other), Some(until)) => until > other,
            });
            if longer {
                longest = Some(full);
            }
        }
        longest.map_or(Ok(()), Err)
    }

    /// Whether a batch is open, so that what has room may start.
    pub(super) fn batch_is_open(&self, now: Millis) -> bool {
        self.opened
            .is_some_and(|opened| now >= opened && now <= opened + self.rules.batch_window)
    }

    /// Until when a transaction of the present batch may start.
    pub(super) fn batch_closes(&self) -> Option<Millis> {
        self.opened.map(|opened| opened + self.rules.batch_window)
    }

    /// From when on a batch may open whatever waits; none: at once.
    pub(super) fn next_opening(&self) -> Option<Millis> {
        self.opened.map(|opened| opened + self.rules.interval)
    }

    /// From when on `min-interval` allows a release: `Ok(None)` at once, `Err` not before
    /// what is under way has ended.
    pub(super) fn min_interval(&self, now: Millis) -> Result<Option<Millis>, ()> {
        if self.rules.min_interval == 0 {
            return Ok(None);
        }
        // A reservation counts as now until its outcome is known.
        if self.open.total().messages > 0 {
            return Err(());
        }
        let allowed = self.last_release.map(|it| it + self.rules.min_interval);
        Ok(allowed.filter(|it| *it > now))
    }

    /// Sets budget aside; it counts as now until [`end`](Self::end).
    pub(super) fn reserve(&mut self, paid: Paid, now: Millis) {
        self.open = self.open.plus(paid);
        if paid.general.messages > 0 && !self.batch_is_open(now) {
            self.opened = Some(now);
        }
    }

    /// Takes a stored reservation up again, which opens no batch.
    pub(super) fn reopen(&mut self, paid: Paid) {
        self.open = self.open.plus(paid);
    }

    /// Ends a reservation: it left at `left`, or it did not.
    pub(super) fn end(&mut self, paid: Paid, left: Option<Millis>, now: Millis) {
        self.open = self.open.minus(paid);
        if let Some(left) = left {
            let left = left.min(now);
            self.history.record(left, paid, now);
            self.last_release = self.last_release.max(Some(left));
        }
    }

    /// Whether nothing that left could still matter to anybody.
    pub(super) fn is_blank(&self) -> bool {
        self.history.is_empty() && self.open == Paid::default()
    }

    /// How far every limit is used, as of the last `advance`, which was to `now`.
    pub(super) fn usage(&self, now: Millis) -> Vec<LimitUse> {
        let forecast = Forecast::of(self, now);
        let mut usage = Vec::new();
        for (window, rule) in self.rules.windows.iter().enumerate() {
            let used = self.used(window);
            let interactive = used.interactive.parts();
            for (place, part) in rule.parts().into_iter().enumerate() {
                let Some(most) = part.most else {
                    continue;
                };
                let of = |paid: &Paid| paid.total().parts()[place];
                let used = of(&used);
                // Full, or over a limit that was lowered: there is room when it is below.
                let enough = used.min(most);
                let frees = forecast.room_at(window, |paid| of(paid) < enough);
                let frees_in = frees.and_then(|at| u64::try_from(at - now).ok());
                usage.push(LimitUse {
                    limit: NAMES[window][place],
                    most,
                    used,
                    kept: part.kept,
                    interactive: interactive[place],
                    frees_in: frees_in.map(Duration::from_millis),
                });
            }
        }
        usage
    }

    // For the forecast.

    /// What a window holds, with what is under way.
    pub(super) fn used(&self, window: usize) -> Paid {
        self.history.used(window).plus(self.open)
    }

    /// What leaves a window, and when, earliest first.
    pub(super) fn leaving(&self, window: usize) -> impl Iterator<Item = (Millis, Paid)> + '_ {
        self.history.leaving(window)
    }

    /// Of messages, octets and recipients: how many a window takes, and how many of them
    /// are kept for interactive mail.
    pub(super) fn limits(&self, window: usize) -> [(Option<u64>, u64); 3] {
        self.rules.windows[window]
            .parts()
            .map(|it| (it.most, it.kept))
    }

    /// How long a window is.
    pub(super) fn length(&self, window: usize) -> Millis {
        [self.rules.interval, HOUR, DAY][window]
    }

    /// The least time between two releases.
    pub(super) fn apart(&self) -> Millis {
        self.rules.min_interval
    }

    // For the log.

    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.history.entries()
    }

    pub(super) fn last_release(&self) -> Option<Millis> {
        self.last_release
    }

    pub(super) fn opened(&self) -> Option<Millis> {
        self.opened
    }

    /// What a stored account says, oldest entry first.
    pub(super) fn restored(
        entries: impl IntoIterator<Item = Entry>,
        last_release: Option<Millis>,
        opened: Option<Millis>,
        now: Millis,
    ) -> Self {
        let mut account = Self::new();
        for entry in entries {
            account.history.record(entry.at, entry.paid, now);
        }
        account.last_release = last_release;
        account.opened = opened;
        account
    }
}
