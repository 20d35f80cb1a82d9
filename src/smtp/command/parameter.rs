//! Parameters of MAIL and RCPT: their values, each as its standard says.

use crate::mail::text::printable;
use crate::mail::xtext;
use crate::mail::{Body, Notify, Ret};

use super::{CommandError, is_space};

/// RFC 1870 section 3: `SIZE` has at most 20 digits.
pub(super) const SIZE_DIGITS_MAXIMUM: usize = 20;
/// RFC 3461 section 4.4.
const ENVID_MAXIMUM: usize = 100;
/// RFC 3461 section 4.2.
const ORCPT_MAXIMUM: usize = 500;

/// Hands each `KEYWORD` or `KEYWORD=value` on, the keyword in capitals; refuses doubles.
pub(super) fn for_each_parameter(
    parameters: &str,
    mut take: impl FnMut(&str, Option<&str>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut seen: Vec<String> = Vec::new();
    for word in parameters.split(is_space).filter(|it| !it.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let right = keyword
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'-')
            && !keyword.is_empty()
            && !keyword.starts_with('-');
        if !right {
            return Err(CommandError::Syntax(
                "a parameter is KEYWORD or KEYWORD=value",
            ));
        }
        let keyword = keyword.to_ascii_uppercase();
        if value == Some("") {
            return Err(CommandError::Parameter(printable(keyword.as_bytes(), 20)));
        }
        if seen.contains(&keyword) {
            return Err(CommandError::DuplicateParameter(printable(
                keyword.as_bytes(),
                20,
            )));
        }
        take(&keyword, value)?;
        seen.push(keyword);
    }
    Ok(())
}

/// More than 64 bits is a size all the same, and too large for anybody.
pub(super) fn size(value: &str) -> Result<u64, CommandError> {
    let right = value.len() <= SIZE_DIGITS_MAXIMUM && value.bytes().all(|it| it.is_ascii_digit());
    if !right {
        return Err(CommandError::Parameter("SIZE".to_owned()));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

pub(super) fn body(value: &str) -> Result<Body, CommandError> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        // BINARYMIME is not offered: lines would lose their meaning.
        _ => Err(CommandError::Parameter("BODY".to_owned())),
    }
}

pub(super) fn ret(value: &str) -> Result<Ret, CommandError> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(Ret::Full),
        "HDRS" => Ok(Ret::Headers),
        _ => Err(CommandError::Parameter("RET".to_owned())),
    }
}

pub(super) fn envid(value: &str) -> Result<String, CommandError> {
    Some(value)
        .filter(|it| it.len() <= ENVID_MAXIMUM)
        .and_then(xtext::decode)
        .ok_or_else(|| CommandError::Parameter("ENVID".to_owned()))
}

pub(super) fn notify(value: &str) -> Result<Notify, CommandError> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            // NEVER stands alone (RFC 3461 section 4.1).
            _ => return Err(CommandError::Parameter("NOTIFY".to_owned())),
        }
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

pub(super) fn orcpt(value: &str) -> Result<String, CommandError> {
    let bad = || CommandError::Parameter("ORCPT".to_owned());
    let (kind, address) = value.split_once(';').ok_or_else(bad)?;
    let kind_right = !kind.is_empty()
        && kind.len() <= 40
        && kind
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'-');
    if !kind_right || address.is_empty() || value.len() > ORCPT_MAXIMUM {
        return Err(bad());
    }
    let address = if kind.eq_ignore_ascii_case("utf-8") {
        xtext::decode_utf8_address(address)
    } else {
        xtext::decode(address)
    };
    Ok(format!("{kind};{}", address.ok_or_else(bad)?))
}
