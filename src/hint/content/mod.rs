//! What a message alone says against itself: figures of its MIME structure, and the hints
//! that follow from them.
//!
//! Pure, and bounded on whatever comes: the caller gives at most
//! [`OCTETS_MAXIMUM`] octets, parts and nesting are cut off, and every scan goes once
//! from front to back.

mod attachment;
mod html;

use mail_parser::{Message, MessagePart, MimeHeaders, PartType};

use super::finding::{Finding, Severity};
use crate::config::HintName;
use crate::mail::Mailbox;
use crate::mail::count::count;
use crate::mail::mime;
use crate::mail::text::printable;

/// What of a message is looked at.
pub const OCTETS_MAXIMUM: usize = 256 * 1024;
/// Parts that are looked at, those of attached messages included.
const PARTS_MAXIMUM: usize = 1_000;
/// Messages within messages.
const DEPTH_MAXIMUM: usize = 5;
/// HTML that is looked at, all parts together.
const HTML_MAXIMUM: usize = 512 * 1024;
/// Fewer words beside a single picture are next to nothing.
const LOGO_WORDS: usize = 6;
/// Words that a picture needs beside it.
const PICTURE_WORDS: usize = 20;
/// With so many words there is text enough for any number of pictures.
const ENOUGH_WORDS: usize = 200;

/// The figures of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// It has a subject with something in it.
    pub has_subject: bool,
    /// Words that are read, of the HTML if there is any.
    pub words: usize,
    /// Pictures that are seen.
    pub pictures: usize,
    /// It has a body in HTML.
    pub has_html: bool,
    /// It has a body in plain text.
    pub has_text: bool,
    /// What is wrong with the HTML, the first few.
    pub faults: Vec<String>,
    /// How much is wrong with it.
    pub faults_in_all: usize,
    /// Scripts, and what starts them.
    pub scripts: Vec<String>,
    /// Attachments that receivers refuse unseen, with why.
    pub dangerous: Vec<String>,
}

/// The hints that follow from a message, or from the beginning of one.
pub fn findings(octets: &[u8], is_whole: bool, subject: &str) -> Vec<Finding> {
    hints(&figures(octets, is_whole), subject)
}

/// Reads the figures of a message, or of the beginning of one.
pub fn figures(octets: &[u8], is_whole: bool) -> Figures {
    let is_whole = is_whole && octets.len() <= OCTETS_MAXIMUM;
    let octets = &octets[..octets.len().min(OCTETS_MAXIMUM)];
    let mut figures = Figures::default();
    let Some(message) = mime::message(octets) else {
        return figures;
    };
    figures.has_subject = message.subject().is_some_and(|it| !it.trim().is_empty());
    let mut reading = Reading {
        figures,
        is_whole,
        parts: 0,
        html: 0,
        image_parts: 0,
        html_words: 0,
        text_words: 0,
    };
    reading.message(&message, 0);
    reading.finish()
}

/// The addresses in To, Cc and Bcc, at most so many.
pub fn recipients(octets: &[u8], most: usize) -> Vec<Mailbox> {
    let octets = &octets[..octets.len().min(OCTETS_MAXIMUM)];
    let Some(message) = mime::fields(octets) else {
        return Vec::new();
    };
    let fields = [message.to(), message.cc(), message.bcc()];
    let addresses = fields.into_iter().flatten().flat_map(|it| it.iter());
    addresses
        .filter_map(|it| Mailbox::parse(it.address()?).ok())
        .take(most)
        .collect()
}

struct Reading {
    figures: Figures,
    is_whole: bool,
    parts: usize,
    html: usize,
    image_parts: usize,
    html_words: usize,
    text_words: usize,
}

impl Reading {
    fn message(&mut self, message: &Message<'_>, depth: usize) {
        for part in &message.parts {
            self.parts += 1;
            if self.parts > PARTS_MAXIMUM {
                return;
            }
            self.part(part, depth);
        }
    }

    fn part(&mut self, part: &MessagePart<'_>, depth: usize) {
        let danger = attachment::danger(part);
        self.figures.dangerous.extend(danger.into_iter().take(5));
        self.figures.dangerous.truncate(10);
        let attached = part
            .content_disposition()
            .is_some_and(|it| it.ctype().eq_ignore_ascii_case("attachment"));
        // Bodies are those of the message itself; attachments count wherever they are.
        let is_body = depth == 0 && !attached;
        match &part.body {
            PartType::Html(text) if is_body => self.html(text),
            PartType::Text(text) if is_body && is_plain(part) => {
                self.figures.has_text = true;
                self.text_words += html::words(text);
            }
            PartType::Binary(_) | PartType::InlineBinary(_) if is_body && is_image(part) => {
                self.image_parts += 1;
            }
            PartType::Message(message) if depth < DEPTH_MAXIMUM => {
                self.message(message, depth + 1);
            }
            _ => {}
        }
    }

    fn html(&mut self, text: &str) {
        self.figures.has_html = true;
        let room = HTML_MAXIMUM.saturating_sub(self.html);
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.html += end;
        let read = html::read(&text[..end], self.is_whole && end == text.len());
        self.html_words += read.words;
        self.figures.pictures += read.pictures;
        self.figures.faults_in_all += read.faults_in_all;
        let say = |it: String| printable(it.as_bytes(), 80);
        self.figures.faults.extend(read.faults.into_iter().map(say));
        self.figures.faults.truncate(5);
        self.figures
            .scripts
            .extend(read.scripts.into_iter().map(say));
        self.figures.scripts.truncate(5);
    }

    fn finish(self) -> Figures {
        let mut figures = self.figures;
        figures.words = match figures.has_html {
            true => self.html_words,
            false => self.text_words,
        };
        // What HTML shows it names; a picture beside plain text is seen as well.
        figures.pictures = figures.pictures.max(self.image_parts);
        figures
    }
}

fn is_plain(part: &MessagePart<'_>) -> bool {
    part.content_type().is_none_or(|it| {
        it.ctype().eq_ignore_ascii_case("text")
            && it
                .subtype()
                .is_none_or(|it| it.eq_ignore_ascii_case("plain"))
    })
}

fn is_image(part: &MessagePart<'_>) -> bool {
    part.content_type()
        .is_some_and(|it| it.ctype().eq_ignore_ascii_case("image"))
}

/// What the figures mean.
pub fn hints(figures: &Figures, subject: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |hint, severity, found: &str, evidence: Vec<String>, remedy: &str| {
        findings.push(Finding {
            hint,
            severity,
            subject: subject.to_owned(),
            found: found.to_owned(),
            evidence,
            remedy: remedy.to_owned(),
            record: None,
        });
    };
    if !figures.has_subject {
        say(
            HintName::NoSubject,
            Severity::Warning,
            "the message has no subject",
            vec!["Subject: none, or empty".to_owned()],
            "Have the application write a subject.",
        );
    }
    let (words, pictures) = (figures.words, figures.pictures);
    let counted = format!(
        "{}, {}",
        count(pictures as u64, "picture", "pictures"),
        count(words as u64, "word", "words")
    );
    if pictures == 1 && words < LOGO_WORDS {
        say(
            HintName::OnlyLogo,
            Severity::Warning,
            "the message is a picture and next to nothing else",
            vec![counted],
            "Write what the picture says as text, too: filters cannot read it, and many readers \
             do not load it.",
        );
    } else if pictures > 0 && words < ENOUGH_WORDS && words < pictures * PICTURE_WORDS {
        let severity = match pictures {
            1 => Severity::Notice,
            _ => Severity::Warning,
        };
        say(
            HintName::FewWords,
            severity,
            "the message has little text beside its pictures",
            vec![counted],
            "Write more text, or use fewer pictures: 20 words a picture are a fair measure.",
        );
    }
    if figures.faults_in_all > 0 {
        let mut evidence = figures.faults.clone();
        let more = figures.faults_in_all - evidence.len().min(figures.faults_in_all);
        if more > 0 {
            evidence.push(format!("and {more} more"));
        }
        say(
            HintName::FaultyHtml,
            Severity::Notice,
            "the HTML of the message is faulty; programs will show it in different ways",
            evidence,
            "Have the template checked by an HTML validator, and close what was opened.",
        );
    }
    if !figures.scripts.is_empty() {
        say(
            HintName::Scripts,
            Severity::Serious,
            "the HTML of the message holds scripts or refers to them; no mail program runs \
             them, and filters take them for an attack",
            figures.scripts.clone(),
            "Take them out of the template; link to a page that holds them.",
        );
    }
    if !figures.dangerous.is_empty() {
        say(
            HintName::DangerousAttachment,
            Severity::Serious,
            "the message carries an attachment that receivers refuse unseen",
            figures.dangerous.clone(),
            "Send a link to it, or a PDF.",
        );
    }
    if figures.has_html && !figures.has_text {
        say(
            HintName::HtmlWithoutText,
            Severity::Notice,
            "the message has HTML and no text beside it",
            vec![format!(
                "text/html with {}, no text/plain",
                count(words as u64, "word", "words")
            )],
            "Have the application send multipart/alternative with the same as plain text.",
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hinted(message: &str) -> Vec<(&'static str, String)> {
        let message = message.replace('\n', "\r\n");
        let found = findings(message.as_bytes(), true, "x");
        found
            .into_iter()
            .map(|it| (it.hint.name(), it.evidence.join("; ")))
            .collect()
    }

    fn html(body: &str) -> String {
        format!(
            "From: a@b.example\nSubject: hi\nMIME-Version: 1.0\n\
             Content-Type: multipart/alternative; boundary=x\n\n--x\n\
             Content-Type: text/plain\n\nhello\n--x\nContent-Type: text/html\n\n{body}\n--x--\n"
        )
    }

    #[test]
    fn an_ordinary_message_has_nothing_against_it() {
        let words = "word ".repeat(60);
        let body = format!(
            "<html><head><title>t</title><style>p {{ x }}</style></head><body><p>{words}\
             <li>one<li>two<br><img src=\"cid:1\" alt=\"a > b\"><!--[if mso]><div><![endif]-->\
             <a href='https://a.example/?a=1&b=2'>x</a></body></html>"
        );
        assert_eq!(hinted(&html(&body)), []);
        assert_eq!(hinted("From: a@b.example\nSubject: x\n\nhello\n"), []);
    }

    #[test]
    fn the_figures_that_led_to_a_hint_are_said() {
        assert_eq!(
            hinted("From: a@b.example\nSubject:  \n\nhello\n"),
            [("no-subject", "Subject: none, or empty".into())]
        );
        let body = "<p>one two three four five six seven eight nine ten eleven twelve\
                    <img src=a.png>";
        assert_eq!(
            hinted(&html(body)),
            [("few-words", "1 picture, 12 words".into())]
        );
        assert_eq!(
            hinted(&html("<img src=a.png><p>Best&nbsp;wishes")),
            [("only-logo", "1 picture, 2 words".into())]
        );
        let body = "<div><b>a</div></span>";
        assert_eq!(
            hinted(&html(body)),
            [(
                "faulty-html",
                "<b> is never closed; </span> closes nothing".into()
            )]
        );
        let only = "From: a@b.example\nSubject: x\nContent-Type: text/html\n\n<p>hello there\n";
        assert_eq!(
            hinted(only),
            [(
                "html-without-text",
                "text/html with 2 words, no text/plain".into()
            )]
        );
    }

    #[test]
    fn scripts_are_found_however_they_are_started() {
        for (body, meant) in [
            ("<SCRIPT src=x.js></SCRIPT>", "<script>"),
            ("<p onclick=\"x()\">a</p>", "onclick on <p>"),
            (
                "<a href=' JavaScript:x()'>a</a>",
                "javascript: in href of <a>",
            ),
            ("<iframe src=x></iframe>", "<iframe>"),
            ("<img/onerror=x src=y>", "onerror on <img>"),
        ] {
            let found = hinted(&html(&format!("{} {body}", "word ".repeat(30))));
            assert_eq!(found, [("scripts", meant.to_owned())], "{body}");
        }
        // Words about scripts are no scripts.
        let body = format!("{} onclick=\"x\" javascript:x", "word ".repeat(30));
        assert_eq!(hinted(&html(&body)), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn whatever_comes_is_read_to_its_end(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<", ">", "\"", "'", "<div", "<!--", "-->", "</", "<script", "</script>",
                    "=", " on", "Content-Type: ", "multipart/mixed; boundary=", "x", "--x", "\r\n",
                    "--x--", "text/html", "message/rfc822", "\u{202e}", "&nbsp;", "\0", "PK\u{3}\u{4}",
                ]),
                0..200,
            ),
            octets in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut message = b"Subject: x\r\nContent-Type: text/html\r\n\r\n".to_vec();
            message.extend(pieces.concat().bytes());
            message.extend(&octets);
            let figures = figures(&message, true);
            prop_assert!(figures.faults.len() <= 5 && figures.dangerous.len() <= 10);
            super::figures(&octets, false);
            super::figures(pieces.concat().as_bytes(), true);
        }
    }
}
