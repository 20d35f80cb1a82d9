//! Where the path of MAIL or RCPT begins and ends, whatever brackets and quotes say.

use super::is_space;

/// Splits `FROM:<path> parameters`: what stands between the brackets, and what is behind.
///
/// The `>` that ends the path is the first one outside quotes: `<"a>b"@c>` is one path.
/// Without brackets the path ends at the first space outside quotes.
pub(super) fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let head = rest.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest[keyword.len()..].trim_start_matches(is_space);
    let rest = rest.strip_prefix(':')?.trim_start_matches(is_space);
    match rest.strip_prefix('<') {
        Some(inside) => {
            let end = outside_quotes(inside, |it| it == '>')?;
            let behind = &inside[end + 1..];
            let apart = behind.is_empty() || behind.starts_with(is_space);
            apart.then(|| (inside[..end].trim_matches(is_space), behind))
        }
        None => {
            let end = outside_quotes(rest, is_space).unwrap_or(rest.len());
            // Only `<>` is the null reverse-path; nothing at all is a mistake. A stray
            // bracket would have to be guessed at.
            let bracket = outside_quotes(&rest[..end], |it| it == '>' || it == '<').is_some();
            (end > 0 && !bracket).then(|| (&rest[..end], &rest[end..]))
        }
    }
}

/// Where the first letter of this kind stands that is not inside a quoted string.
fn outside_quotes(text: &str, wanted: impl Fn(char) -> bool) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (place, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted && wanted(letter) => return Some(place),
            _ => {}
        }
    }
    None
}

/// A source route (`@a,@b:c@d`) is accepted and ignored (RFC 5321 appendix C).
pub(super) fn without_route(path: &str) -> &str {
    if !path.starts_with('@') {
        return path;
    }
    let mut bracket = false;
    for (place, letter) in path.char_indices() {
        match letter {
            '[' => bracket = true,
            ']' => bracket = false,
            ':' if !bracket => return &path[place + 1..],
            _ => {}
        }
    }
    path
}
