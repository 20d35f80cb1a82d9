//! Promises about messages in parts: nobody starves, nobody is asked twice in a round.

use jiff::Timestamp;

use super::settle::released_from_hold;
use super::testing::*;
use super::turns::in_turn;
use crate::mail::{Envelope, HoldReason, Stage, State};
use crate::relay::RelayError;
use crate::smtp::Reply;

/// The next part of a message, and what the relay said to each of its recipients.
fn part(
    message: &Envelope,
    limit: usize,
    now: Timestamp,
    said: impl Fn(usize) -> Result<Reply, RelayError>,
) -> Envelope {
    let places = in_turn(message, limit, now);
    let mut some = delivery(now, (0..places.len()).map(&said).collect());
    for (attempt, place) in some.attempts.iter_mut().zip(places) {
        attempt.recipient = place;
    }
    settled(message, &some, now).envelope
}

#[test]
fn no_part_of_a_message_starves_behind_another() {
    let mut message = envelope(&["a@x.nl", "b@x.nl", "c@x.nl"]);
    let mut tried = Vec::new();
    for step in 0..6 {
        let part = in_turn(&message, 1, at(step));
        tried.push(part[0]);
        let mut one = delivery(at(step), vec![refused(Stage::Recipient, "450 later")]);
        one.attempts[0].recipient = part[0];
        message = settled(&message, &one, at(step)).envelope;
        if step < 2 {
            assert_eq!(later_than(&message), None, "the other parts go at once");
        }
    }
    assert_eq!(tried, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn once_the_relay_takes_them_all_parts_of_a_message_leave_without_a_pause() {
    let places: Vec<String> = (0..7).map(|it| format!("r{it}@x.nl")).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let mut message = envelope(&places);
    let mut now = at(0);
    let mut asked = Vec::new();
    while !message.is_finished() {
        now = later_than(&message).unwrap_or(now).max(now);
        let part = in_turn(&message, 2, now);
        let result = |_| match now < at(1) {
            true => refused(Stage::Recipient, "451 4.7.1 greylisted"),
            false => taken(),
        };
        let mut some = delivery(now, part.iter().map(result).collect());
        for (attempt, place) in some.attempts.iter_mut().zip(&part) {
            attempt.recipient = *place;
        }
        asked.push((now, part));
        message = settled(&message, &some, now).envelope;
    }
    let round = || [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]];
    let first = round().map(|it| (at(0), it));
    let second = round().map(|it| (asked[4].0, it));
    assert!(at(0) < asked[4].0 && asked[4].0 <= at(2));
    assert_eq!(asked, [first, second].concat());
}

#[test]
fn who_was_one_too_many_goes_at_once_though_others_go_before() {
    let places: Vec<String> = (0..12).map(|it| format!("r{it}@x.nl")).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let mut message = envelope(&places);
    // The relay takes five at a time, and we would send ten.
    for _ in 0..4 {
        assert_eq!(later_than(&message), None, "at once");
        message = part(&message, 10, at(0), |place| match place < 5 {
            true => taken(),
            false => refused(Stage::Recipient, "452 4.5.3 Too many recipients"),
        });
    }
    assert!(message.is_finished(), "{message:?}");
}

#[test]
fn a_clock_that_is_set_back_neither_hurries_one_part_nor_starves_the_other() {
    let later = |_| refused(Stage::Recipient, "451 4.7.1 greylisted");
    let day = 24 * 60;
    let mut message = envelope(&["a@x.nl", "b@x.nl"]);
    message = part(&message, 1, at(2 * day), later);
    message = part(&message, 1, at(2 * day), later);
    // A day back: what was due then is tried now, and not every minute from now on.
    let mut asked = [0, 0];
    let mut now = at(day);
    for _ in 0..9 {
        let places = in_turn(&message, 1, now);
        asked[places[0]] += 1;
        message = part(&message, 1, now, later);
        let next = later_than(&message).unwrap_or(now);
        assert!(next <= at(day + 60 * 8), "{message:?}");
        now = next.max(now);
    }
    // Ahead of its time the one, then both in each round.
    assert_eq!(asked, [1 + 4, 4], "{message:?}");
    assert!(now > at(day + 4), "{now}");
}

#[test]
fn all_parts_of_a_message_that_was_held_leave_when_it_is_released() {
    let mut message = envelope(&["a@x.nl", "b@x.nl", "c@x.nl"]);
    for _ in 0..3 {
        message = part(&message, 1, at(0), |_| {
            refused(Stage::Recipient, "550 5.7.1 relaying denied")
        });
    }
    assert_eq!(held(&message), Some(HoldReason::RelayingDenied));
    message = released_from_hold(&message, at(60));
    for _ in 0..3 {
        let next = later_than(&message);
        assert!(next.is_none_or(|it| it <= at(60)), "{message:?}");
        message = part(&message, 1, at(60), |_| taken());
    }
    assert!(message.is_finished(), "{message:?}");
}

#[test]
fn too_many_recipients_beside_some_that_were_taken_is_no_failure() {
    let too_many = || refused(Stage::Recipient, "452 4.5.3 Too many recipients");
    let mut message = envelope(&["a@x.nl", "b@x.nl", "c@x.nl"]);
    for left in [2, 1] {
        let mut results = vec![taken()];
        results.extend((0..left).map(|_| too_many()));
        let mut part = delivery(at(0), results);
        let places = in_turn(&message, 9, at(0));
        for (attempt, place) in part.attempts.iter_mut().zip(places) {
            attempt.recipient = place;
        }
        message = settled(&message, &part, at(0)).envelope;
        assert_eq!(message.waiting().count(), left);
        assert_eq!(message.first_failure, None);
        assert_eq!(
            message.state,
            State::Waiting { not_before: None },
            "the rest at once"
        );
    }
    let alone = settled(
        &envelope(&["a@x.nl"]),
        &delivery(at(0), vec![too_many()]),
        at(0),
    );
    assert_eq!(
        later_than(&alone.envelope),
        Some(at(1)),
        "or it would be asked without end"
    );
}

#[test]
fn a_relay_that_takes_one_recipient_at_a_time_is_not_asked_without_end() {
    let mut message = envelope(&["a@x.nl", "b@x.nl"]);
    let mut tried = Vec::new();
    while later_than(&message).is_none() {
        let places = in_turn(&message, 9, at(0));
        tried.push(places[0]);
        assert!(tried.len() < 9, "{tried:?}");
        let later = refused(Stage::Recipient, "450 4.7.1 greylisted");
        let mut one = delivery(at(0), vec![later, Err(RelayError::Cancelled)]);
        for (attempt, place) in one.attempts.iter_mut().zip(places) {
            attempt.recipient = place;
        }
        message = settled(&message, &one, at(0)).envelope;
    }
    assert_eq!(tried, [0, 1], "each had its turn");
}
