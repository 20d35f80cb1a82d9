//! Answers of a token endpoint: what is read of them is bounded, can be sent and printed,
//! and no secret that the endpoint echoes stands in what is told of it.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use penstock::config::Secret;
use penstock::oauth::Said;
use penstock::oauth::answer::{self, No};

/// As the application's own secret, which an endpoint may quote.
const SECRET: &str = "0.AXoA-q~Qw/3rT=y&p";
/// As it stands in a form (RFC 6749 appendix B).
const IN_A_FORM: &str = "0.AXoA-q%7EQw%2F3rT%3Dy%26p";
const KINDS: [&str; 4] = ["application/json", "text/html; charset=utf-8", "text/plain", ""];
const YEARS: Duration = Duration::from_secs(400 * 86_400);

fn check(no: &No) {
    let said = match no {
        No::Refused { code, words } => format!("{code} {words}"),
        No::Passing(words) => words.clone(),
    };
    assert!(said.chars().count() < 800, "{said:?}");
    assert!(!said.chars().any(char::is_control), "{said:?}");
    assert!(!said.contains(SECRET) && !said.contains(IN_A_FORM), "{said:?}");
}

fuzz_target!(|input: &[u8]| {
    let [status, kind, body @ ..] = input else {
        return;
    };
    let text = String::from_utf8_lossy(body).replace("{S}", SECRET);
    let said = Said {
        // Two in three are what an endpoint in order says.
        status: [200, 400, u16::from(*status) + 100][usize::from(*status) % 3],
        kind: match kind % 8 {
            7 => text.chars().take(40).collect(),
            it => KINDS[usize::from(it) % 4].to_owned(),
        },
        body: text.replace("{F}", IN_A_FORM).into_bytes(),
    };
    let secret = Secret::new(SECRET.to_owned());
    match answer::given(&said, &[&secret]) {
        Ok(given) => {
            let token = given.access_token.expose();
            assert!(!token.is_empty() && token.bytes().all(|it| it.is_ascii_graphic()));
            assert!(given.life <= YEARS && given.refresh_life.is_none_or(|it| it <= YEARS));
        }
        Err(no) => check(&no),
    }
    match answer::begun(&said, &[&secret]) {
        Ok(begun) => {
            let shown = [Some(&begun.page), Some(&begun.user_code), begun.whole_page.as_ref()];
            for shown in shown.into_iter().flatten() {
                assert!(!shown.chars().any(char::is_control), "{shown:?}");
                assert!(shown.chars().count() <= 500, "{shown:?}");
            }
            assert!(begun.life <= YEARS && begun.interval <= YEARS);
            assert!(begun.interval >= Duration::from_secs(1));
        }
        Err(no) => check(&no),
    }
    answer::code(&said);
});
