//! Logging in (RFC 4954): which mechanism, and what it says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

use super::RelayError;
use super::wire::Wire;
use crate::config::{AuthMethod, Secret};
use crate::mail::Stage;
use crate::mail::text::{hide, printable};
use crate::smtp::{Extensions, Reply};
use std::time::Duration;

/// With its initial response, AUTH is a command line like any other (RFC 4954 section 4).
const INITIAL_LINE_MAXIMUM: usize = 510;

/// What is said to log in.
pub(super) struct Login<'a> {
    /// The user name; for XOAUTH2, the mailbox.
    pub(super) username: &'a str,
    /// The password; for XOAUTH2, the access token.
    pub(super) password: &'a Secret,
}

/// A mechanism that we can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The old two-question login.
    Login,
    /// RFC 2195.
    CramMd5,
    /// OAuth 2 bearer tokens.
    XOauth2,
}

impl Mechanism {
    /// Its SASL name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::CramMd5 => "CRAM-MD5",
            Self::XOauth2 => "XOAUTH2",
        }
    }
}

/// The mechanism to use; none when none is wanted.
///
/// CRAM-MD5 hides a password from a listener but makes the server keep it in clear;
/// under TLS that is a bad bargain, so it comes last.
pub(super) fn choose(
    method: AuthMethod,
    offered: &Extensions,
) -> Result<Option<Mechanism>, RelayError> {
    let wanted: &[Mechanism] = match method {
        AuthMethod::None => return Ok(None),
        AuthMethod::Auto => &[Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5],
        AuthMethod::Plain => &[Mechanism::Plain],
        AuthMethod::Login => &[Mechanism::Login],
        AuthMethod::CramMd5 => &[Mechanism::CramMd5],
        AuthMethod::XOauth2 => &[Mechanism::XOauth2],
    };
    let found = wanted.iter().find(|it| offered.offers_auth(it.name()));
    match found {
        Some(mechanism) => Ok(Some(*mechanism)),
        None => Err(RelayError::AuthUnavailable {
            offered: match offered.auth.join(" ").as_str() {
                "" => "none".to_owned(),
                names => crate::mail::text::printable(names.as_bytes(), 200),
            },
        }),
    }
}

/// Logs in, or says who refused it and how.
pub(super) async fn log_in(
    wire: &mut Wire,
    mechanism: Mechanism,
    login: &Login<'_>,
    limit: Duration,
) -> Result<Reply, RelayError> {
    wire.mask(secrets(login));
    match mechanism {
        Mechanism::Plain => single(wire, mechanism, plain(login), login, limit).await,
        Mechanism::XOauth2 => {
            wire.veil_challenges();
            single(wire, mechanism, xoauth2(login), login, limit).await
        }
        Mechanism::Login => {
            // Servers word the two questions as they like; their order is always this.
            let reply = ask(wire, "AUTH LOGIN", limit).await?;
            if !challenged(&reply)? {
                return Ok(reply);
            }
            let reply = say(wire, &BASE64.encode(login.username), limit).await?;
            if !challenged(&reply)? {
                return Ok(reply);
            }
            let password = BASE64.encode(login.password.expose());
            finish(say(wire, &password, limit).await?)
        }
        Mechanism::CramMd5 => {
            let reply = ask(wire, "AUTH CRAM-MD5", limit).await?;
            if !challenged(&reply)? {
                return Ok(reply);
            }
            let challenge = reply.lines.first().map(|it| it.trim()).unwrap_or_default();
            let Ok(challenge) = BASE64.decode(challenge) else {
                return Err(RelayError::Garbage {
                    stage: Stage::Auth,
                    said: "a CRAM-MD5 challenge that is not base64".to_owned(),
                });
            };
            finish(say(wire, &cram_md5(login, &challenge), limit).await?)
        }
    }
}

/// A mechanism with one response, sent along with the command where it fits.
async fn single(
    wire: &mut Wire,
    mechanism: Mechanism,
    response: String,
    login: &Login<'_>,
    limit: Duration,
) -> Result<Reply, RelayError> {
    let command = format!("AUTH {}", mechanism.name());
    let line = format!("{command} {response}");
    let reply = if line.len() <= INITIAL_LINE_MAXIMUM {
        let shown = format!("{command} ***");
        wire.command(Stage::Auth, &line, &shown, limit).await?
    } else {
        let reply = ask(wire, &command, limit).await?;
        if !challenged(&reply)? {
            return Ok(reply);
        }
        say(wire, &response, limit).await?
    };
    if mechanism != Mechanism::XOauth2 {
        return finish(reply);
    }
    // XOAUTH2 explains a refusal in a challenge; an empty answer brings the refusal.
    let mut explained = None;
    let mut reply = reply;
    if reply.code == 334 {
        explained = explanation(&reply, |text| {
            wire.hide(text);
            hide(text, login.password.expose());
            hide(text, &BASE64.encode(login.password.expose()));
        });
        reply = wire
            .command(Stage::Auth, "", "(an empty line)", limit)
            .await?;
    }
    if reply.is_permanent() {
        let explained = explained.map(|it| format!(": {it}")).unwrap_or_default();
        reply.lines.push(format!("({TOKEN_REFUSED}{explained})"));
    }
    finish(reply)
}

/// Said behind a server's own words when it was a token that it refused; the rules about
/// refusals know it.
const TOKEN_REFUSED: &str = "Penstock: the server refuses the access token";

/// What the JSON in a challenge says (the same from Google and Microsoft):
/// `{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}`.
/// A server that puts there what it was sent must not put it into a log.
fn explanation(challenge: &Reply, hide: impl Fn(&mut String)) -> Option<String> {
    let octets = BASE64.decode(challenge.lines.first()?.trim()).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&octets).ok()?;
    let said: Vec<String> = ["status", "schemes", "scope"]
        .iter()
        .filter_map(|key| {
            let value = json.get(key)?;
            let mut value = value.as_str().map_or(value.to_string(), str::to_owned);
            if *key == "status" {
                value.retain(|it| it.is_ascii_digit());
                value.truncate(3);
            }
            hide(&mut value);
            (!value.is_empty()).then(|| format!("{key} {}", printable(value.as_bytes(), 100)))
        })
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

async fn ask(wire: &mut Wire, command: &str, limit: Duration) -> Result<Reply, RelayError> {
    wire.command(Stage::Auth, command, command, limit).await
}

async fn say(wire: &mut Wire, secret: &str, limit: Duration) -> Result<Reply, RelayError> {
    wire.command(Stage::Auth, secret, "***", limit).await
}

/// Whether the server asks on (334); false: it is satisfied already.
fn challenged(reply: &Reply) -> Result<bool, RelayError> {
    match reply.code {
        334 => Ok(true),
        _ => finish(reply.clone()).map(|_| false),
    }
}

fn finish(reply: Reply) -> Result<Reply, RelayError> {
    let stage = Stage::Auth;
    if reply.is_positive() {
        Ok(reply)
    } else if reply.is_intermediate() {
        Err(RelayError::Garbage {
            stage,
            said: format!("the login goes on without end: {}", reply.code),
        })
    } else {
        Err(RelayError::Refused { stage, reply })
    }
}

fn plain(login: &Login<'_>) -> String {
    let Login { username, password } = login;
    BASE64.encode(format!("\0{username}\0{}", password.expose()))
}

fn xoauth2(login: &Login<'_>) -> String {
    let Login { username, password } = login;
    let token = password.expose();
    BASE64.encode(format!("user={username}\x01auth=Bearer {token}\x01\x01"))
}

fn cram_md5(login: &Login<'_>, challenge: &[u8]) -> String {
    let mut mac = Hmac::<Md5>::new_from_slice(login.password.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(challenge);
    let digest = mac.finalize().into_bytes();
    let digits: String = digest.iter().map(|it| format!("{it:02x}")).collect();
    BASE64.encode(format!("{} {digits}", login.username))
}

/// The password in every form in which we send it.
fn secrets(login: &Login<'_>) -> [String; 4] {
    let password = login.password.expose();
    [
        plain(login),
        xoauth2(login),
        BASE64.encode(password),
        password.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn offers(names: &[&str]) -> Extensions {
        Extensions {
            auth: names.iter().map(|it| (*it).to_owned()).collect(),
            ..Extensions::default()
        }
    }

    #[test]
    fn cram_md5_is_used_only_where_nothing_else_is_offered() {
        let chosen = |names: &[&str]| choose(AuthMethod::Auto, &offers(names)).unwrap();
        assert_eq!(
            chosen(&["CRAM-MD5", "LOGIN", "PLAIN"]),
            Some(Mechanism::Plain)
        );
        assert_eq!(chosen(&["CRAM-MD5", "LOGIN"]), Some(Mechanism::Login));
        assert_eq!(chosen(&["GSSAPI", "CRAM-MD5"]), Some(Mechanism::CramMd5));
    }

    #[test]
    fn a_mechanism_that_is_not_offered_is_not_tried() {
        assert_eq!(choose(AuthMethod::None, &offers(&["PLAIN"])), Ok(None));
        for (method, names, said) in [
            (AuthMethod::Auto, &["GSSAPI", "NTLM"][..], "GSSAPI NTLM"),
            (AuthMethod::Login, &["PLAIN"], "PLAIN"),
            (AuthMethod::Plain, &[], "none"),
        ] {
            let offered = said.to_owned();
            assert_eq!(
                choose(method, &offers(names)),
                Err(RelayError::AuthUnavailable { offered })
            );
        }
    }

    /// The example of RFC 2195 section 2.
    #[test]
    fn cram_md5_answers_as_the_standard_does() {
        let login = Login {
            username: "tim",
            password: &Secret::new("tanstaaftanstaaf".into()),
        };
        let challenge = b"<1896.697170952@postoffice.reston.mci.net>";
        assert_eq!(
            cram_md5(&login, challenge),
            "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"
        );
    }

    #[test]
    fn a_reason_for_a_refused_token_is_told_in_words_or_not_at_all() {
        let challenge = |text: &str| Reply {
            code: 334,
            enhanced: None,
            lines: vec![BASE64.encode(text)],
        };
        let told = |text: &str| explanation(&challenge(text), |_| ());
        assert_eq!(
            told(r#"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#),
            Some("status 400, schemes Bearer, scope https://mail.google.com/".into())
        );
        assert_eq!(told(r#"{"status":401}"#), Some("status 401".into()));
        assert_eq!(
            told("{\"status\":\"4\u{1b}[2J\"}"),
            None,
            "no JSON has such a character"
        );
        let escaped = told(r#"{"status":"4\u001b[2J"}"#).unwrap();
        assert_eq!(escaped, "status 42");
        // Who echoes the token there, shortened, does not get it into a log.
        let echoed = challenge(r#"{"status":"401","scope":"ya29.s3cr3t..."}"#);
        let token = "ya29.s3cr3t-and-more";
        assert_eq!(
            explanation(&echoed, |it| hide(it, token)),
            Some("status 401, scope ***...".into())
        );
        for nonsense in ["", "no", "{}", "[1]", "null"] {
            assert_eq!(told(nonsense), None, "{nonsense}");
        }
        let mut reply = challenge("");
        reply.lines = vec!["not base64 at all".into()];
        assert_eq!(explanation(&reply, |_| ()), None);
        reply.lines.clear();
        assert_eq!(explanation(&reply, |_| ()), None);
    }
}
