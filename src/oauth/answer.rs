//! What an endpoint's answer means (RFC 6749 section 5, RFC 8628 section 3).

use std::time::Duration;

use serde::Deserialize;
use url::form_urlencoded;

use super::Said;
use crate::config::Secret;
use crate::mail::text::{hide, printable};

/// Where an answer does not tell how long a token lives.
const LIFE: Duration = Duration::from_secs(300);
/// No token or code is believed to live longer.
const LIFE_MAXIMUM: Duration = Duration::from_secs(400 * 86_400);
/// Characters of an endpoint's description that are kept.
const WORDS_MAXIMUM: usize = 500;
/// Longer than any token. A longer one would not fit an AUTH line (RFC 4954 section 4).
const TOKEN_MAXIMUM: usize = 8_000;

/// A token was given.
#[derive(Debug, Clone)]
pub struct Given {
    /// Not empty, printable ASCII, at most 8,000 octets.
    pub access_token: Secret,
    /// How long it is good.
    pub life: Duration,
    /// A refresh token for the next time, where one came along.
    pub refresh_token: Option<Secret>,
    /// How long that one is good, where the endpoint tells.
    pub refresh_life: Option<Duration>,
}

/// No token was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    /// For good, with this code and description.
    Refused {
        /// `error`, such as `invalid_grant` (RFC 6749 section 5.2).
        code: String,
        /// `error_description`, cut and printable.
        words: String,
    },
    /// Not now.
    Passing(String),
}

/// A person can begin to log in.
#[derive(Debug, Clone)]
pub struct Begun {
    /// What the endpoint is asked with until the person is done.
    pub device_code: Secret,
    /// What the person enters.
    pub user_code: String,
    /// Where the person enters it: `verification_uri`.
    pub page: String,
    /// The same with the code in it, where the endpoint gives one.
    pub whole_page: Option<String>,
    /// How long the code is good.
    pub life: Duration,
    /// The pause between two questions, at least a second.
    pub interval: Duration,
}

#[derive(Deserialize)]
struct GivenFile {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Number>,
    refresh_token: Option<String>,
    refresh_token_expires_in: Option<Number>,
}

#[derive(Deserialize)]
struct BegunFile {
    device_code: String,
    user_code: String,
    verification_uri: Option<String>,
    verification_uri_complete: Option<String>,
    /// What Google says instead; some say both.
    verification_url: Option<String>,
    verification_url_complete: Option<String>,
    expires_in: Option<Number>,
    interval: Option<Number>,
}

#[derive(Deserialize)]
struct NoFile {
    error: String,
    error_description: Option<String>,
}

/// Some endpoints write numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(f64),
    Text(String),
}

impl Number {
    /// As a span of seconds; none where it is nothing of that kind.
    fn seconds(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Plain(number) => *number,
            Self::Text(text) => text.trim().parse().ok()?,
        };
        let it = Duration::try_from_secs_f64(seconds).ok()?;
        Some(it.min(LIFE_MAXIMUM))
    }
}

fn seconds(number: Option<&Number>, usual: Duration) -> Duration {
    number.and_then(Number::seconds).unwrap_or(usual)
}

/// Reads an answer of the token endpoint. `secrets` never stand in what is told of it.
pub fn given(said: &Said, secrets: &[&Secret]) -> Result<Given, No> {
    if said.status != 200 {
        return Err(no(said, secrets));
    }
    let Ok(file) = serde_json::from_slice::<GivenFile>(&said.body) else {
        // Some say no with 200.
        return Err(no(said, secrets));
    };
    let kind = file.token_type.as_deref().unwrap_or("Bearer");
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err(strange("a token that is no bearer token"));
    }
    let good = |it: &String| {
        !it.is_empty() && it.len() <= TOKEN_MAXIMUM && it.bytes().all(|it| it.is_ascii_graphic())
    };
    // A control character would end the field or the line that it is sent in.
    if !good(&file.access_token) {
        return Err(strange("an access token that cannot be one"));
    }
    let printable = |it: &String| !it.is_empty() && !it.chars().any(char::is_control);
    Ok(Given {
        access_token: Secret::new(file.access_token),
        life: seconds(file.expires_in.as_ref(), LIFE),
        refresh_token: file.refresh_token.filter(printable).map(Secret::new),
        refresh_life: file
            .refresh_token_expires_in
            .as_ref()
            .and_then(Number::seconds)
            .filter(|it| !it.is_zero()),
    })
}

/// Reads an answer of the device endpoint.
pub fn begun(said: &Said, secrets: &[&Secret]) -> Result<Begun, No> {
    if said.status != 200 {
        return Err(no(said, secrets));
    }
    let Ok(file) = serde_json::from_slice::<BegunFile>(&said.body) else {
        return Err(no(said, secrets));
    };
    let shown = |it: &str| printable(it.as_bytes(), 500);
    let page = |it: &str| it.starts_with("https://") || it.starts_with("http://");
    let uri = file.verification_uri.or(file.verification_url);
    let uri = uri.unwrap_or_default();
    if !page(&uri) || file.user_code.is_empty() || file.device_code.is_empty() {
        return Err(strange("a login without a page or a code"));
    }
    Ok(Begun {
        page: shown(&uri),
        whole_page: file
            .verification_uri_complete
            .or(file.verification_url_complete)
            .filter(|it| page(it))
            .map(|it| shown(&it)),
        user_code: shown(&file.user_code),
        device_code: Secret::new(file.device_code),
        life: seconds(file.expires_in.as_ref(), Duration::from_secs(900)),
        // RFC 8628 section 3.2; whoever says 0 does not mean it.
        interval: seconds(file.interval.as_ref(), Duration::from_secs(5))
            .max(Duration::from_secs(1)),
    })
}

fn strange(words: &str) -> No {
    No::Passing(format!("it answered {words}"))
}

/// What a no means: only a code of RFC 6749 with a status of the 4xx ends a login; an
/// endpoint out of order, or a proxy's page in its stead, does not.
fn no(said: &Said, secrets: &[&Secret]) -> No {
    let status = said.status;
    let Ok(file) = serde_json::from_slice::<NoFile>(&said.body) else {
        return No::Passing(match (300..400).contains(&status) {
            true => format!("status {status}, a redirect, which is not followed"),
            false => format!("status {status}, no OAuth answer{}", quoted(said, secrets)),
        });
    };
    let code = printable(hidden(&file.error, secrets).as_bytes(), 60);
    let words = hidden(&file.error_description.unwrap_or_default(), secrets);
    // Microsoft's go on with ids and a time behind the line break.
    let words: Vec<&str> = words.lines().map(str::trim).collect();
    let words = printable(words.join(" ").as_bytes(), WORDS_MAXIMUM);
    let later = matches!(
        code.as_str(),
        "temporarily_unavailable" | "server_error" | "slow_down" | "authorization_pending"
    );
    if later || status >= 500 || status == 429 || status == 408 {
        return No::Passing(format!("status {status}, {code}: {words}"));
    }
    No::Refused { code, words }
}

/// The first line of a page that somebody wrote for people. An answer that is no page, or
/// is about tokens, may have one in it: of that the length and the kind must do.
fn quoted(said: &Said, secrets: &[&Secret]) -> String {
    let text = String::from_utf8_lossy(&said.body);
    let kind = said.kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let lower = text.to_ascii_lowercase();
    let is_page = matches!(kind.as_str(), "text/html" | "text/plain")
        && !(200..300).contains(&said.status)
        && !["token", "code"].iter().any(|it| lower.contains(it));
    match text.lines().find(|it| !it.trim().is_empty()) {
        Some(line) if is_page => {
            let line = hidden(line, secrets);
            format!(": {}", printable(line.as_bytes(), 100))
        }
        _ => {
            let kind = if kind.is_empty() { "unknown" } else { &kind };
            let length = said.body.len();
            let kind = printable(hidden(kind, secrets).as_bytes(), 60);
            format!(" ({length} octets, content type {kind})")
        }
    }
}

/// An endpoint that quotes what it was sent, as it is or as it was written in the form,
/// must not put it into a log.
fn hidden(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().map(|it| it.expose()) {
        let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        for form in [secret, &encoded] {
            hide(&mut text, form);
        }
    }
    text
}

/// The code of a definite or a waiting no, for the device flow.
pub fn code(said: &Said) -> Option<String> {
    let file = serde_json::from_slice::<NoFile>(&said.body).ok()?;
    Some(printable(file.error.as_bytes(), 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, body: &str) -> Said {
        Said {
            status,
            kind: "text/html; charset=utf-8".to_owned(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted_where_a_token_may_be_in_it() {
        for (status, kind, body) in [
            (200, "text/plain", "access_token=s3cr3t&token_type=bearer"),
            (
                200,
                "application/json",
                "\u{feff}{\"access_token\":\"s3cr3t\"}",
            ),
            (200, "", r#"{"access_token":"s3cr3t","expires_in":true}"#),
            (200, "text/html", "s3cr3t"),
            (400, "text/plain", "refresh_token=s3cr3t is bad"),
            (400, "text/html", "<p>device Code s3cr3t"),
            (500, "application/x-www-form-urlencoded", "a=s3cr3t"),
        ] {
            let said = Said {
                kind: kind.to_owned(),
                ..said(status, body)
            };
            for told in [
                given(&said, &[]).unwrap_err(),
                begun(&said, &[]).unwrap_err(),
            ] {
                let told = format!("{told:?}");
                assert!(!told.contains("s3cr3t"), "{told}");
                assert!(told.contains("octets, content type"), "{told}");
            }
        }
        let busy = given(&said(503, "\n<h1>We are busy</h1>"), &[]).unwrap_err();
        let words = "status 503, no OAuth answer: <h1>We are busy</h1>";
        assert_eq!(busy, No::Passing(words.to_owned()));
    }

    #[test]
    fn what_was_sent_is_not_shown_encoded_or_shortened_either() {
        let secret = Secret::new("0.AX+s3cr/t=~x".into());
        for echo in [
            "0.AX+s3cr/t=~x",
            "0.AX%2Bs3cr%2Ft%3D%7Ex",
            "0.AX+s3c...",
            "0.AX%2Bs3",
        ] {
            let body = format!(r#"{{"error":"invalid_grant","error_description":"[{echo}] no"}}"#);
            let told = given(&said(400, &body), &[&secret]).unwrap_err();
            let No::Refused { words, .. } = told else {
                panic!("{told:?}");
            };
            assert!(!words.contains("s3c") && words.ends_with("] no"), "{words}");
        }
    }

    #[test]
    fn only_a_definite_answer_ends_a_login() {
        let secret = Secret::new("r-e-f-r-e-s-h".into());
        for (status, body, passing) in [
            (
                400,
                r#"{"error":"invalid_grant","error_description":"r-e-f-r-e-s-h is dead"}"#,
                false,
            ),
            (401, r#"{"error":"invalid_client"}"#, false),
            (200, r#"{"error":"bad_verification_code"}"#, false),
            (400, r#"{"error":"temporarily_unavailable"}"#, true),
            (503, r#"{"error":"invalid_grant"}"#, true),
            (429, r#"{"error":"invalid_request"}"#, true),
            (500, "<html>r-e-f-r-e-s-h</html>", true),
            (404, "not here", true),
            (407, "<html>proxy", true),
            (302, "", true),
            (200, "{}", true),
            (200, r#"{"access_token":"a\r\nb"}"#, true),
            (200, r#"{"access_token":""}"#, true),
            (200, r#"{"access_token":"a","token_type":"mac"}"#, true),
            (200, "[[[[", true),
        ] {
            let told = given(&said(status, body), &[&secret]).unwrap_err();
            assert_eq!(matches!(told, No::Passing(_)), passing, "{status} {body}");
            assert!(!format!("{told:?}").contains("r-e-f"), "{told:?}");
        }
    }

    #[test]
    fn lives_are_read_however_they_are_written_and_never_without_end() {
        for (text, seconds) in [
            ("3600", 3_600),
            ("\"3599\"", 3_599),
            ("-1", 300),
            ("1e300", 300),
            ("null", 300),
            ("99999999999", 400 * 86_400),
        ] {
            let body = format!(r#"{{"access_token":"a","expires_in":{text}}}"#);
            let it = given(&said(200, &body), &[]).unwrap();
            assert_eq!(it.life.as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn a_page_that_is_no_page_is_never_shown() {
        let body = |page: &str| {
            format!(r#"{{"device_code":"d","user_code":"\u001b[2JX","verification_url":"{page}"}}"#)
        };
        let it = begun(&said(200, &body("https://a.example/device")), &[]).unwrap();
        assert_eq!(it.page, "https://a.example/device");
        assert!(!it.user_code.contains('\x1b'));
        assert!(begun(&said(200, &body("javascript:alert(1)")), &[]).is_err());
        // Who says it in both ways says it.
        let both = r#"{"device_code":"d","user_code":"X","verification_uri":"https://a.example/",
            "verification_url":"https://a.example/"}"#;
        assert_eq!(
            begun(&said(200, both), &[]).unwrap().page,
            "https://a.example/"
        );
    }
}
