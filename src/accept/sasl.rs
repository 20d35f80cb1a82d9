//! The words of AUTH PLAIN (RFC 4616) and AUTH LOGIN, decoded and bounded.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::config::Secret;

/// Old clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longer names and passwords are nobody's.
const WORD_MAXIMUM: usize = 1_024;

/// A name and a password, not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name as the client said it.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// As whom it wants to act (PLAIN only); none: as itself.
    pub authorization: Option<String>,
}

/// Reads the one response of PLAIN: `authorization NUL username NUL password`.
///
/// To act for somebody else is not offered; that is said to whoever knows the password.
pub fn plain(response: &[u8]) -> Option<Login> {
    let said = word(response, 3 * WORD_MAXIMUM)?;
    let mut parts = said.split('\0');
    let (authorization, username, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || username.is_empty() {
        return None;
    }
    let login = login(username, password)?;
    Some(Login {
        authorization: Some(authorization.to_owned()).filter(|it| !it.is_empty()),
        ..login
    })
}

/// Puts the two answers of LOGIN together.
pub fn login(username: &str, password: &str) -> Option<Login> {
    let short = username.len() <= WORD_MAXIMUM && password.len() <= WORD_MAXIMUM;
    (short && !username.is_empty()).then(|| Login {
        username: username.to_owned(),
        password: Secret::new(password.to_owned()),
        authorization: None,
    })
}

/// One answer of LOGIN.
pub fn answer(response: &[u8]) -> Option<String> {
    word(response, WORD_MAXIMUM)
}

fn word(response: &[u8], limit: usize) -> Option<String> {
    let decoded = BASE64.decode(response.trim_ascii()).ok()?;
    String::from_utf8(decoded)
        .ok()
        .filter(|it| it.len() <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD
            .encode(text)
            .into_bytes()
    }

    #[test]
    fn plain_is_read_as_rfc_4616_says() {
        let read = |text: &str| {
            plain(&encode(text)).map(|it| (it.username, it.password.expose().to_owned()))
        };
        let jan = || Some(("jan".to_owned(), "geheim".to_owned()));
        assert_eq!(read("\0jan\0geheim"), jan());
        assert_eq!(read("JAN\0jan\0geheim"), jan());
        assert_eq!(read("\0jan\0"), Some(("jan".into(), String::new())));
        let another = plain(&encode("piet\0jan\0geheim")).unwrap();
        assert_eq!(another.authorization.as_deref(), Some("piet"));
        assert_eq!(plain(&encode("\0jan\0x")).unwrap().authorization, None);
        assert_eq!(read("\0\0geheim"), None);
        assert_eq!(read("jan\0geheim"), None);
        assert_eq!(read("\0jan\0geheim\0x"), None);
        assert_eq!(plain(b"***"), None);
        assert_eq!(plain(b"/////w=="), None, "not UTF-8");
        assert_eq!(read(&format!("\0jan\0{}", "x".repeat(2000))), None);
        assert_eq!(
            plain(b"AGphbgBnZWhlaW0").map(|it| it.username),
            Some("jan".into()),
            "no padding"
        );
    }
}
