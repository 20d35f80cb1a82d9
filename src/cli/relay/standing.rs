//! How a relay is: in words, and as a light.

use comfy_table::Color;

use super::login::is_missing;
use crate::cli::screen::{Look, Tone};
use crate::control::protocol::{RelayState, RelayStatus, VerificationState};

/// How a relay is: red, amber or green.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Light {
    Red,
    Amber,
    Green,
}

impl Light {
    fn of(relay: &RelayStatus) -> Self {
        let test = relay.verification.as_ref().map(|it| it.state);
        match (relay.state, test) {
            (RelayState::Active, _) if lacks_login(relay) => Self::Red,
            (RelayState::Active, _) => Self::Green,
            (
                RelayState::Unverified,
                Some(VerificationState::Waiting | VerificationState::Sent),
            ) => Self::Amber,
            (RelayState::Unverified | RelayState::Paused | RelayState::Missing, _) => Self::Red,
        }
    }
}

/// The state in a word or two: what the colour says, too.
pub fn state(relay: &RelayStatus) -> &'static str {
    let test = relay.verification.as_ref().map(|it| it.state);
    match (relay.state, test) {
        (RelayState::Unverified, Some(VerificationState::Failed)) => "test failed",
        (RelayState::Unverified, Some(VerificationState::Expired)) => "test expired",
        (RelayState::Active, _) if lacks_login(relay) => "no login",
        (state, _) => state.name(),
    }
}

/// It is not paused only because it had no mail since nobody is logged in.
fn lacks_login(relay: &RelayStatus) -> bool {
    relay.oauth.as_ref().is_some_and(is_missing)
}

pub fn tone(relay: &RelayStatus) -> Tone {
    match Light::of(relay) {
        Light::Green => Tone::Good,
        Light::Amber => Tone::Warning,
        Light::Red => Tone::Bad,
    }
}

pub fn colour(relay: &RelayStatus) -> Color {
    match Light::of(relay) {
        Light::Green => Color::DarkGreen,
        Light::Amber => Color::DarkYellow,
        Light::Red => Color::DarkRed,
    }
}

/// How its verification stands, in words.
pub fn verification(look: &Look, relay: &RelayStatus) -> Option<String> {
    let report = relay.verification.as_ref()?;
    let at = report.at.map(|it| look.words.both(it));
    let at = at.unwrap_or_else(|| "never".to_owned());
    let until = report.expires.map(|it| look.words.both(it));
    let until = until.unwrap_or_default();
    Some(match report.state {
        VerificationState::Waiting => format!("the test message of {at} has not left yet"),
        VerificationState::Sent => {
            format!("the test message left {at}; to be confirmed until {until}")
        }
        VerificationState::Failed => format!("the test message failed {at}"),
        VerificationState::Expired => format!("the test message was not confirmed until {until}"),
        VerificationState::Confirmed => match &report.by {
            Some(by) => format!("confirmed {at} by {by}"),
            None => format!("confirmed {at}"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::VerificationReport;

    fn relay(state: RelayState, test: Option<VerificationState>) -> RelayStatus {
        RelayStatus {
            relay: "own".into(),
            servers: vec![],
            state,
            reason: None,
            remedy: None,
            by: None,
            since: None,
            next_probe: None,
            username: None,
            sender: None,
            tls: None,
            preset: None,
            default: false,
            connections: 0,
            waiting: 0,
            waiting_bytes: 0,
            held: 0,
            last_success: None,
            last_failure: None,
            last_error: None,
            verification: test.map(|state| VerificationReport {
                state,
                at: None,
                by: None,
                expires: None,
                conversation: vec![],
            }),
            oauth: None,
        }
    }

    #[test]
    fn the_light_is_red_amber_or_green_and_the_word_says_the_same() {
        use RelayState::{Active, Missing, Paused, Unverified};
        use VerificationState::{Confirmed, Expired, Failed, Sent, Waiting};
        for (relay_state, test, light, word) in [
            (Active, None, Light::Green, "active"),
            (Active, Some(Confirmed), Light::Green, "active"),
            (Unverified, Some(Waiting), Light::Amber, "unverified"),
            (Unverified, Some(Sent), Light::Amber, "unverified"),
            (Unverified, Some(Failed), Light::Red, "test failed"),
            (Unverified, Some(Expired), Light::Red, "test expired"),
            (Paused, Some(Confirmed), Light::Red, "paused"),
            (Missing, None, Light::Red, "missing"),
        ] {
            let relay = relay(relay_state, test);
            assert_eq!((Light::of(&relay), state(&relay)), (light, word));
        }
    }
}
