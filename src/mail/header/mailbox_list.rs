//! The body of a From or Sender field as a list of mailboxes, read strictly.
//!
//! RFC 5322 section 3.4 with RFC 6532 and RFC 6854 (groups), without what exists only to be
//! misread: source routes, comments inside addresses, quoted local parts that look like
//! something else.

use super::originator::FromError;
use crate::mail::Mailbox;
use crate::mail::text::steers;

/// More mailboxes in one From field than any person meant.
const MAILBOXES_MAXIMUM: usize = 100;
/// Comments nest; nobody nests them this deep.
const DEPTH_MAXIMUM: usize = 16;

/// Reads the body of a From or Sender field: mailboxes and groups of them, at least one
/// mailbox in all, or an empty group (RFC 6854), which names nobody.
pub fn mailbox_list(field: &'static str, body: &[u8]) -> Result<Vec<Mailbox>, FromError> {
    let text = unfolded(field, body)?;
    let mut parser = Parser {
        field,
        text: &text,
        place: 0,
    };
    let mut found = Vec::new();
    let mut in_group = false;
    let mut has_group = false;
    loop {
        parser.skip_blanks_and_comments()?;
        match parser.peek() {
            None => break,
            // Empty elements are obsolete and mean nothing to anybody (section 4.4).
            Some(b',') => parser.place += 1,
            Some(b';') if in_group => {
                parser.place += 1;
                in_group = false;
                parser.end_of_element(false)?;
            }
            Some(_) => match parser.element()? {
                Element::GroupName if in_group => {
                    return Err(parser.error("a group stands inside a group"));
                }
                Element::GroupName => {
                    in_group = true;
                    has_group = true;
                }
                Element::Mailbox(mailbox) => {
                    found.push(mailbox);
                    if found.len() > MAILBOXES_MAXIMUM {
                        return Err(FromError::Count {
                            field,
                            wanted: "at most 100 mailboxes",
                        });
                    }
                    parser.end_of_element(in_group)?;
                }
            },
        }
    }
    if in_group {
        return Err(parser.error("a group does not end with a semicolon"));
    }
    // A lenient program would look for an address in the name of an empty group.
    let names_nobody = has_group && !may_name_somebody(&text);
    if found.is_empty() && !names_nobody {
        return Err(FromError::Count {
            field,
            wanted: "a mailbox, like jan@example.nl",
        });
    }
    Ok(found)
}

/// Takes line folding out (RFC 5322 section 2.2.3); what remains may hold no control
/// character but the tab.
fn unfolded(field: &'static str, body: &[u8]) -> Result<Vec<u8>, FromError> {
    let mut text = Vec::with_capacity(body.len());
    let lines = body.split_inclusive(|it| *it == b'\n');
    for (number, line) in lines.enumerate() {
        let line = super::without_ending(line);
        // Some programs take a line of blanks for the end of the header.
        if number > 0 && line.trim_ascii().is_empty() && !line.is_empty() {
            return Err(FromError::Syntax {
                field,
                what: "one of its lines is blank",
            });
        }
        text.extend_from_slice(line);
    }
    if text.iter().any(|it| it.is_ascii_control() && *it != b'\t') {
        return Err(FromError::Syntax {
            field,
            what: "it holds a control character",
        });
    }
    Ok(text)
}

enum Element {
    Mailbox(Mailbox),
    /// A display name and its colon: a group begins.
    GroupName,
}

struct Parser<'a> {
    field: &'static str,
    text: &'a [u8],
    place: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.place).copied()
    }

    fn error(&self, what: &'static str) -> FromError {
        FromError::Syntax {
            field: self.field,
            what,
        }
    }

    fn blank_inside(&self) -> FromError {
        self.error("a blank or a line break stands inside an address; take it out")
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.place += 1;
        }
    }

    /// RFC 5322 section 3.2.2, CFWS.
    fn skip_blanks_and_comments(&mut self) -> Result<(), FromError> {
        loop {
            self.skip_blanks();
            if self.peek() != Some(b'(') {
                return Ok(());
            }
            let mut depth = 0;
            loop {
                match self.peek() {
                    Some(b'(') if depth == DEPTH_MAXIMUM => {
                        return Err(self.error("comments are nested too deep"));
                    }
                    Some(b'(') => depth += 1,
                    Some(b')') => depth -= 1,
                    Some(b'\\') => self.place += 1,
                    // Simple programs look for the angle brackets first.
                    Some(b'<' | b'>') => {
                        return Err(self.error("there is an angle bracket in a comment"));
                    }
                    Some(_) => {}
                    None => return Err(self.error("a comment does not end")),
                }
                self.place += 1;
                if depth == 0 {
                    break;
                }
            }
        }
    }

    /// One mailbox, or the name of a group with its colon.
    fn element(&mut self) -> Result<Element, FromError> {
        let mut words = 0;
        loop {
            self.skip_blanks_and_comments()?;
            match self.peek() {
                Some(b'<') => return self.angle_address().map(Element::Mailbox),
                Some(b':') if words > 0 => {
                    self.place += 1;
                    return Ok(Element::GroupName);
                }
                Some(b',' | b';') | None => {
                    return Err(self.error(
                        "a name stands without an address; \
                         a name with a comma needs quotes, an address needs an @",
                    ));
                }
                Some(b'@') if words > 0 => {
                    return Err(self.error(
                        "a blank or comment stands before an @; take it out of an address, \
                         and put a name with an @ in quotes",
                    ));
                }
                Some(_) => {}
            }
            let start = self.place;
            self.word()?;
            words += 1;
            if self.peek() != Some(b'@') {
                continue;
            }
            if words > 1 {
                return Err(self.error(
                    "there is an @ in a name; such a name needs quotes, \
                     and the address behind it angle brackets",
                ));
            }
            let mailbox = self.address(start)?;
            self.skip_blanks_and_comments()?;
            // `jan@example.nl <jan@example.nl>`: old programs write it, and whichever
            // of the two is taken, it is the same person.
            if self.peek() == Some(b'<') && self.angle_address()?.folded() != mailbox.folded() {
                return Err(self.error("two addresses stand where one belongs"));
            }
            return Ok(Element::Mailbox(mailbox));
        }
    }

    /// An atom, dots included, or a quoted string.
    fn word(&mut self) -> Result<(), FromError> {
        if self.peek() == Some(b'"') {
            self.place += 1;
            loop {
                match self.peek() {
                    Some(b'"') => break,
                    Some(b'\\') => self.place += 2,
                    Some(_) => self.place += 1,
                    None => return Err(self.error("a quoted name does not end")),
                }
            }
            self.place += 1;
            return Ok(());
        }
        let start = self.place;
        while self
            .peek()
            .is_some_and(|it| is_atom_octet(it) || it == b'.')
        {
            self.place += 1;
        }
        if self.place == start {
            return Err(match self.peek() {
                Some(octet) => FromError::Character {
                    field: self.field,
                    found: octet.into(),
                },
                None => self.error("an address does not end with >"),
            });
        }
        Ok(())
    }

    /// `<local@domain>`; blanks inside the brackets are harmless, comments and source
    /// routes are refused: programs disagree about them.
    fn angle_address(&mut self) -> Result<Mailbox, FromError> {
        self.place += 1;
        self.skip_blanks();
        let start = self.place;
        match self.peek() {
            Some(b'>') => return Err(self.error("there is no address between < and >")),
            Some(b'@') => return Err(self.error("an address has a source route")),
            _ => self.word()?,
        }
        match self.peek() {
            Some(b'@') => {}
            Some(b' ' | b'\t') => return Err(self.blank_inside()),
            _ => return Err(self.error("an address needs an @, like jan@example.nl")),
        }
        let mailbox = self.address(start)?;
        self.skip_blanks();
        if self.peek() != Some(b'>') {
            return Err(self.error("an address does not end with >"));
        }
        self.place += 1;
        Ok(mailbox)
    }

    /// The address whose local part began at `start`; stands at its `@`.
    fn address(&mut self, start: usize) -> Result<Mailbox, FromError> {
        let at = self.place;
        self.place += 1;
        if matches!(self.peek(), Some(b' ' | b'\t')) {
            return Err(self.blank_inside());
        }
        let is_literal = self.peek() == Some(b'[');
        while let Some(octet) = self.peek() {
            let belongs = is_atom_octet(octet)
                || matches!(octet, b'.')
                || (is_literal && matches!(octet, b'[' | b']' | b':'));
            if !belongs {
                break;
            }
            self.place += 1;
        }
        let text = std::str::from_utf8(&self.text[start..self.place])
            .map_err(|_| self.error("an address is not UTF-8"))?;
        let local = &text[..at - start];
        // Programs that decode encoded-words everywhere read another address here.
        if local.contains("=?") || text.chars().any(steers) {
            return Err(self.error("an address holds what is invisible or read as something else"));
        }
        if let Some(quoted) = local.strip_prefix('"').and_then(|it| it.strip_suffix('"'))
            && quoted.contains(|it: char| it.is_ascii() && !is_plain_in_quotes(it))
        {
            return Err(self.error("the part before the @ is quoted and holds special characters"));
        }
        Mailbox::parse(text).map_err(|source| FromError::Address {
            field: self.field,
            source,
        })
    }

    fn end_of_element(&mut self, in_group: bool) -> Result<(), FromError> {
        self.skip_blanks_and_comments()?;
        match self.peek() {
            None | Some(b',') => Ok(()),
            Some(b';') if in_group => Ok(()),
            _ => Err(self.error("something stands behind an address; a comma belongs between two")),
        }
    }
}

/// RFC 5322 section 3.2.3, `atext`, with RFC 6532's letters.
fn is_atom_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet) || octet >= 0x80
}

/// What may stand in a quoted local part: anything that no program takes for syntax.
fn is_plain_in_quotes(letter: char) -> bool {
    letter == ' ' || letter == '.' || is_atom_octet(letter as u8)
}

/// Whether a program could find an address in it that we did not: an `@`, in letters or in
/// an encoded-word (RFC 2047).
pub(super) fn may_name_somebody(text: &[u8]) -> bool {
    text.contains(&b'@') || text.windows(2).any(|it| it == b"=?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> Result<Vec<String>, FromError> {
        mailbox_list("From", text.as_bytes())
            .map(|list| list.iter().map(Mailbox::to_string).collect())
    }

    #[test]
    fn every_honest_way_to_write_a_mailbox_is_read() {
        for text in [
            "jan@example.nl",
            " <jan@example.nl>\r\n",
            "Jan Jansen <jan@example.nl>",
            "J. Jansen <jan@example.nl>",
            "Jan Jansen<jan@example.nl>",
            "\"Jansen, Jan\" <jan@example.nl>",
            "\"Jan \\\"J\\\" <x@y>\" <jan@example.nl>",
            "\"eve@example.net\" <jan@example.nl>",
            "jan@example.nl (Jan Jansen)",
            "(Jan (the \\) first)) jan@example.nl",
            "Jan (of sales) Jansen <jan@example.nl> (again)",
            "=?utf-8?q?J=C3=BCrgen?= <jan@example.nl>",
            "=?utf-8?b?SsO8cmdlbg==?=\r\n =?utf-8?q?x?= <jan@example.nl>",
            "Jürgen <jan@example.nl>",
            "< jan@example.nl >",
            "Jan\r\n\t<jan@example.nl>\r\n",
            "jan@example.nl <JAN@example.nl>",
            "jan@example.nl,",
            ", jan@example.nl",
            "Sales: jan@example.nl;",
            "\"jan\"@example.nl",
        ] {
            let list = list(text).unwrap();
            assert_eq!(list.len(), 1, "{text}");
            assert_eq!(list[0].to_lowercase(), "jan@example.nl", "{text}");
        }
        assert_eq!(
            mailbox_list("From", b"J\xfcrgen <jan@example.nl>").unwrap()[0].local(),
            "jan",
            "Latin-1 in a display name"
        );
        assert_eq!(
            list(
                "a@example.nl, B <b@example.nl>,G: c@example.nl, d@[192.0.2.1];, e@[IPv6:2001:db8::1]"
            ),
            Ok(vec![
                "a@example.nl".into(),
                "b@example.nl".into(),
                "c@example.nl".into(),
                "d@[192.0.2.1]".into(),
                "e@[IPv6:2001:db8::1]".into()
            ])
        );
        assert_eq!(
            list("Jürgen <jürgen@bücher.example>"),
            Ok(vec!["jürgen@bücher.example".into()])
        );
        assert_eq!(
            list("\"jan jansen\"@example.nl"),
            Ok(vec!["\"jan jansen\"@example.nl".into()])
        );
    }

    #[test]
    fn what_two_programs_could_read_as_two_people_is_refused() {
        for text in [
            "",
            " ",
            ",",
            "<>",
            "jan",
            "<jan>",
            "Jan",
            "\"eve@example.net\":;",
            "undisclosed: (eve@example.net);",
            "<a@b.c> <d@e.f>",
            "a@b.c <d@e.f>",
            "a@b.c d@e.f",
            "x a@b.c <d@e.f>",
            "x@y <a@b.c>, <x@y",
            "Jansen, Jan <jan@example.nl>",
            "Jan @ home <jan@example.nl>",
            "<@route:jan@example.nl>",
            "<@a,@b:jan@example.nl>",
            "<jan@example.nl",
            "jan@example.nl>",
            "<<jan@example.nl>>",
            "<jan @example.nl>",
            "<jan@ example.nl>",
            "jan(x)@example.nl",
            "jan@(x)example.nl",
            "jan@example(x).nl",
            "<jan@example.nl(x)>",
            "jan@example.nl (<eve@example.net>)",
            "jan@example.nl (x",
            "jan@example.nl )",
            "\"jan@example.nl",
            "jan@example.nl; eve@example.net",
            "G: jan@example.nl",
            "G: H: jan@example.nl;;",
            ": jan@example.nl;",
            "jan@eve@example.nl",
            "<jan@example.nl>eve@example.net",
            "<jan@example.nl>.example.net",
            "jan@example.nl.example.net <x@y>",
            "\"eve@example.net\"@example.nl",
            "\"a,b\"@example.nl",
            "\"a\\\"b\"@example.nl",
            "\"a<b\"@example.nl",
            "\"\"@example.nl",
            "a.\"b\"@example.nl",
            "\"a\".b@example.nl",
            "\"a\"\"b\"@example.nl",
            "=?utf-8?q?eve=40example.net=3e?=@example.nl",
            "=?x?q?=40eve.net?= <=?x?q?a?=@example.nl>",
            "jan\u{200b}@example.nl",
            "jan\u{202e}@example.nl",
            "jan@exam\u{ad}\u{200d}ple.nl",
            "jan@example..nl",
            "jan@",
            "@example.nl",
            "jan@example.nl\0",
            "jan\0@example.nl",
            "jan@example.nl\r",
            "jan@exam\rple.nl",
            "jan@example.nl\u{b}",
            "a@b.c,\r\n \r\n d@e.f",
            "\r\n \r\n\tjan@example.nl",
            "jan@[192.0.2.1]x",
            "jan@[192.0.2.1",
            "jan\\@example.nl",
        ] {
            assert!(list(text).is_err(), "{text:?}: {:?}", list(text));
        }
        assert!(mailbox_list("From", b"j\xfcrgen@example.nl").is_err());
        assert!(list(&"a@b.c,".repeat(101)).is_err());
    }

    #[test]
    fn an_empty_group_names_nobody() {
        for text in ["undisclosed:;", "Nobody (really): ,;", "a:;, b:;"] {
            assert_eq!(list(text), Ok(Vec::new()), "{text}");
        }
        // What is decoded would be somebody.
        assert!(list("=?utf-8?Q?jan=40example.nl?=:;").is_err());
    }

    #[test]
    fn errors_name_the_field_and_the_remedy() {
        for (text, named) in [
            ("jan @ example.nl", "stands before an @; take it out"),
            ("<jan @example.nl>", "a blank or a line break"),
            ("<jan@\r\n example.nl>", "a blank or a line break"),
            ("<\\jan@example.nl>", ": \\ stands where it must not"),
            (
                "Jan [sales] <jan@example.nl>",
                ": [ stands where it must not",
            ),
        ] {
            let words = list(text).unwrap_err().to_string();
            assert!(words.contains(named), "{text}: {words}");
        }
        assert_eq!(
            list("Jansen, Jan <jan@example.nl>")
                .unwrap_err()
                .to_string(),
            "the From field does not parse: a name stands without an address; \
             a name with a comma needs quotes, an address needs an @"
        );
        assert_eq!(
            list("jan@exa_-.nl").unwrap_err().to_string(),
            "the From field does not parse: the part after the @ is not a valid domain"
        );
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test measures real time")]
    fn hostile_fields_are_read_in_linear_time() {
        let started = std::time::Instant::now();
        for unit in [
            "(", ")", "\"", "\\", "<", ",", "a ", "a@b.c,", "(\\", "((", ":", "a:", "\r\n x",
        ] {
            let text = unit.repeat(256 * 1024 / unit.len());
            let _ = mailbox_list("From", text.as_bytes());
        }
        assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn any_display_name_in_quotes_leaves_the_address_alone(
            name in "[^\\p{Cc}]{0,40}", local in "[a-z0-9.+_=-]{1,20}", comment in "[^\\p{Cc}()<>\\\\]{0,20}"
        ) {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!("\"{quoted}\" <{local}@example.nl> ({comment})");
            prop_assert_eq!(list(&text), Ok(vec![format!("{local}@example.nl")]));
        }

        /// mail-parser is more lenient; where both read an address, they read the same.
        #[test]
        fn another_program_reads_the_same_people(text in "(a@b\\.c|<d@e\\.f>|\"q\"|\"q@r\"|\\(x\\)|,| |:|;|x|y\\.z|@|=\\?|[<>()\\\\]){0,9}") {
            // It takes a quoted local part for a display name and finds nobody.
            let text = text.replace("\"@", "\" ");
            if let Ok(ours) = mailbox_list("From", text.as_bytes()) {
                let message = format!("From: {text}\r\n\r\n");
                let parsed = mail_parser::MessageParser::default().parse(message.as_bytes()).unwrap();
                let theirs: Vec<String> = parsed.from().into_iter()
                    .flat_map(|it| it.iter()).filter_map(|it| it.address.as_deref())
                    .filter_map(|it| Mailbox::parse(it).ok()).map(|it| it.folded()).collect();
                let ours: Vec<String> = ours.iter().map(Mailbox::folded).collect();
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
