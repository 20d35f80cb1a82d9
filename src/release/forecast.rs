//! When mail will have left, as far as the limits alone dictate it.

use super::account::Account;
use super::history::{Load, Millis, Paid, WINDOWS};

/// What leaves the windows of one account, and what they will hold then.
///
/// The times are those of mail that is sent as soon as it may be: what is sent when
/// something left a window makes room again when it leaves the window itself, so after
/// one length of a window everything repeats itself.
pub(super) struct Forecast<'a> {
    account: &'a Account,
    now: Millis,
    /// Of every window what it holds from a time on, now first.
    holds: [Vec<(Millis, Paid)>; WINDOWS],
}

impl<'a> Forecast<'a> {
    /// From `now` on, to which the account is advanced.
    pub(super) fn of(account: &'a Account, now: Millis) -> Self {
        let mut window = 0..;
        let holds = [(); WINDOWS].map(|()| {
            let window = window.next().unwrap_or_default();
            let mut held = account.used(window);
            let mut steps = vec![(now, held)];
            steps.extend(account.leaving(window).map(|(at, paid)| {
                held = held.minus(paid);
                (at, held)
            }));
            steps
        });
        Self {
            account,
            now,
            holds,
        }
    }

    /// When the last of all this leaves at the earliest, were it all that waits. So much of
    /// it is `general`; the rest may use the share that is kept for interactive mail, too.
    pub(super) fn leaves_by(&self, general: Load, all: Load) -> Millis {
        let mut latest = self.now;
        let wanted = [general.parts(), all.parts()];
        for window in 0..WINDOWS {
            for (place, (most, kept)) in self.account.limits(window).into_iter().enumerate() {
                let Some(most) = most else {
                    continue;
                };
                let of = |held: &Paid| [held.general, held.total()].map(|it| it.parts()[place]);
                for (who, capacity) in [most - kept, most].into_iter().enumerate() {
                    let at = self.used_up(window, capacity, wanted[who][place], |it| of(it)[who]);
                    latest = latest.max(at);
                }
            }
        }
        let apart = i64::try_from(all.messages.saturating_sub(1)).unwrap_or(Millis::MAX);
        let apart = apart.saturating_mul(self.account.apart());
        latest.max(self.now.saturating_add(apart))
    }

    /// When so much will have left through a window that holds `capacity`.
    fn used_up(
        &self,
        window: usize,
        capacity: u64,
        wanted: u64,
        held: impl Fn(&Paid) -> u64,
    ) -> Millis {
        let capacity = capacity.max(1);
        let Some(before_last) = wanted.checked_sub(1) else {
            return self.now;
        };
        let rounds = i64::try_from(before_last / capacity).unwrap_or(Millis::MAX);
        let last = before_last % capacity + 1;
        let first = self.room_at(window, |paid| capacity.saturating_sub(held(paid)) >= last);
        let length = self.account.length(window);
        let mut at = first.unwrap_or(self.now.saturating_add(length));
        // A batch opens for all of its mail at once.
        if window == 0 && (at > self.now || rounds > 0) {
            at = at.max(self.account.next_opening().unwrap_or(at));
        }
        at.saturating_add(rounds.saturating_mul(length))
    }

    /// From when on a window holds little enough; none: not before what is under way has
    /// ended.
    pub(super) fn room_at(&self, window: usize, enough: impl Fn(&Paid) -> bool) -> Option<Millis> {
        let steps = &self.holds[window];
        let place = steps.partition_point(|(_, held)| !enough(held));
        steps.get(place).map(|it| it.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::history::{Budget, Entry};
    use super::*;
    use crate::config::{Limits, Preset};

    const HOUR: Millis = 3_600_000;

    fn messages(number: u64) -> Load {
        Load {
            messages: number,
            octets: number,
            recipients: number,
        }
    }

    /// An account of so many messages an hour after these (how many left, and how long ago).
    fn account(per_hour: u32, left: &[(Millis, u64)]) -> Account {
        let mut left = left.to_vec();
        left.sort_by_key(|(ago, _)| -ago);
        let entries = left.iter().map(|(ago, number)| Entry {
            at: -ago,
            paid: Paid::by(Budget::General, messages(*number)),
        });
        let mut account = Account::restored(entries, None, None, 0);
        let limits = Limits {
            per_hour: Some(per_hour),
            interactive_share: 0.0,
            ..Preset::Unlimited.limits()
        };
        account.configure(&limits, 0);
        account.advance(0);
        account
    }

    #[test]
    fn a_queue_is_empty_when_enough_has_left_the_window_and_not_at_the_first() {
        // 19 an hour for everybody: two left long ago, the others lately.
        let account = account(20, &[(3_500_000, 2), (100_000, 17)]);
        let forecast = Forecast::of(&account, 0);
        let empty = |number| forecast.leaves_by(messages(number), messages(number));
        assert_eq!(empty(2), HOUR - 3_500_000 + 1);
        assert_eq!(empty(3), HOUR - 100_000 + 1);
        assert_eq!(empty(19 + 2), 2 * HOUR - 3_500_000 + 1);
        // Interactive mail may use what is kept, too.
        let interactive = forecast.leaves_by(messages(0), messages(1));
        assert_eq!(interactive, 0);
    }

    #[test]
    fn a_limit_that_was_lowered_has_room_when_enough_has_left() {
        let account = account(10, &[(3_000_000, 5), (2_000_000, 80), (1_000_000, 6)]);
        let room = account.usage(0)[0].frees_in.unwrap();
        assert_eq!(room.as_millis(), 1_600_001);
        let empty = Forecast::of(&account, 0).leaves_by(messages(1), messages(1));
        assert!(empty >= 1_600_001, "not empty before there is room");
    }

    proptest! {
        #[test]
        fn it_says_what_sending_as_soon_as_possible_comes_to(
            left in prop::collection::vec((0..HOUR, 1u64..5), 0..10),
            per_hour in 2u32..20,
            waiting in 1u64..60,
        ) {
            let account = account(per_hour, &left);
            let said = Forecast::of(&account, 0).leaves_by(messages(waiting), messages(waiting));
            // One message is kept for interactive mail.
            let most = per_hour as usize - 1;
            let mut sent: Vec<Millis> = Vec::new();
            for (ago, number) in &left {
                sent.extend((0..*number).map(|_| -ago));
            }
            sent.sort();
            for _ in 0..waiting {
                let in_the_way = sent.len().checked_sub(most).map(|it| sent[it] + HOUR + 1);
                sent.push(in_the_way.unwrap_or(0).max(0));
            }
            let last = sent.last().copied().unwrap_or(0);
            // A millisecond each time around.
            prop_assert!((said - last).abs() <= waiting as Millis, "{said} {last}");
        }
    }
}
