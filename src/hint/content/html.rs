//! HTML, read once from front to back: words, pictures, scripts, and what is not closed.
//!
//! Not a browser's parser: it forgives what mail templates do everywhere (paragraphs and
//! cells that are not closed) and counts only what programs show in different ways.

/// Elements whose end tag may not be left out; the others are not watched.
const CLOSED: [&str; 38] = [
    "a",
    "abbr",
    "article",
    "aside",
    "b",
    "big",
    "blockquote",
    "button",
    "center",
    "cite",
    "code",
    "div",
    "em",
    "fieldset",
    "font",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "i",
    "label",
    "nav",
    "ol",
    "pre",
    "section",
    "select",
    "small",
    "span",
    "strong",
    "table",
    "textarea",
    "u",
    "ul",
];
/// Elements that run or load what is not mail.
const ACTIVE: [&str; 5] = ["script", "iframe", "object", "embed", "applet"];
/// Open elements that are remembered; deeper nesting is a fault of its own.
const DEPTH_MAXIMUM: usize = 256;
/// Faults after which nobody learns anything from more.
const FAULTS_MAXIMUM: usize = 100;
/// Examples that are kept.
const EXAMPLES: usize = 5;

/// What was read.
#[derive(Debug, Default)]
pub struct Html {
    /// Words that are seen.
    pub words: usize,
    /// Pictures, those of one pixel left out.
    pub pictures: usize,
    /// What runs, or starts something that does.
    pub scripts: Vec<String>,
    /// The first faults.
    pub faults: Vec<String>,
    /// All of them.
    pub faults_in_all: usize,
}

/// Reads HTML; of a text that was cut off, what is open at its end is no fault.
pub fn read(text: &str, is_whole: bool) -> Html {
    let mut reading = Reading {
        html: Html::default(),
        open: Vec::new(),
        too_deep: false,
        hidden: false,
    };
    let mut rest = text;
    let mut cut = false;
    while let Some(at) = rest.find('<') {
        reading.text(&rest[..at]);
        match reading.markup(&rest[at..]) {
            Some(length) => rest = &rest[at + length..],
            None => {
                cut = true;
                rest = "";
            }
        }
    }
    reading.text(rest);
    if is_whole && !cut {
        for name in std::mem::take(&mut reading.open).into_iter().rev() {
            reading.fault(format!("<{name}> is never closed"));
        }
    }
    if !is_whole && cut {
        // The fault may be ours: what would have ended it was cut off.
        reading.html.faults_in_all -= 1;
        reading.html.faults.truncate(reading.html.faults_in_all);
    }
    reading.html
}

struct Reading<'a> {
    html: Html,
    open: Vec<&'a str>,
    too_deep: bool,
    /// Within `<head>`: its title is not seen.
    hidden: bool,
}

impl<'a> Reading<'a> {
    fn text(&mut self, text: &str) {
        if !self.hidden {
            self.html.words += words(text);
        }
    }

    fn fault(&mut self, what: String) {
        self.html.faults_in_all += 1;
        if self.html.faults.len() < EXAMPLES {
            self.html.faults.push(what);
        }
    }

    /// Reads what begins with `<`; gives its length, or none where its end is missing.
    fn markup(&mut self, text: &'a str) -> Option<usize> {
        if let Some(comment) = text.strip_prefix("<!--") {
            let end = comment.find("-->");
            if end.is_none() {
                self.fault("a comment is never closed".to_owned());
            }
            return end.map(|it| it + 7);
        }
        let octets = text.as_bytes();
        match octets.get(1) {
            Some(b'!' | b'?') => return self.end(text, text.find('>')),
            Some(b'/') => {
                let end = self.end(text, text.find('>'))?;
                self.closed(name(&text[2..]));
                return Some(end);
            }
            Some(letter) if letter.is_ascii_alphabetic() => {}
            // A sign of its own, as in `a < b`.
            _ => return Some(1),
        }
        let name = name(&text[1..]);
        let tag = Tag::read(&text[1 + name.len()..]);
        let Some(length) = tag.length else {
            let what = match tag.open_quote {
                true => format!("a quote in <{name}> is never closed"),
                false => format!("<{name} has no >"),
            };
            self.fault(what);
            return None;
        };
        let end = 1 + name.len() + length;
        self.opened(name, &tag);
        let lower = name.to_ascii_lowercase();
        if matches!(lower.as_str(), "script" | "style" | "title") && !tag.closes_itself {
            // Raw text up to its end tag.
            let Some(raw) = find_end_tag(&text[end..], &lower) else {
                self.fault(format!("<{lower}> is never closed"));
                return None;
            };
            return Some(end + raw);
        }
        Some(end)
    }

    fn end(&mut self, text: &str, found: Option<usize>) -> Option<usize> {
        if found.is_none() {
            let begin: String = text.chars().take(12).collect();
            self.fault(format!("{begin} has no >"));
        }
        found.map(|it| it + 1)
    }

    fn opened(&mut self, name: &'a str, tag: &Tag) {
        let is = |it: &str| name.eq_ignore_ascii_case(it);
        if is("head") {
            self.hidden = true;
        } else if is("body") {
            self.hidden = false;
        } else if is("img") && !tag.is_pixel {
            self.html.pictures += 1;
        }
        if self.html.scripts.len() < EXAMPLES {
            if let Some(active) = ACTIVE.iter().find(|it| is(it)) {
                self.html.scripts.push(format!("<{active}>"));
            } else if let Some(starter) = &tag.starter {
                let lower = name.to_ascii_lowercase();
                self.html
                    .scripts
                    .push(starter.replace('\0', &format!("<{lower}>")));
            }
        }
        let watched = !tag.closes_itself && CLOSED.iter().any(|it| is(it));
        if !watched || self.html.faults_in_all >= FAULTS_MAXIMUM {
            return;
        }
        if self.open.len() >= DEPTH_MAXIMUM {
            if !std::mem::replace(&mut self.too_deep, true) {
                self.fault(format!(
                    "elements stand {DEPTH_MAXIMUM} deep in one another"
                ));
            }
            return;
        }
        self.open.push(name);
    }

    fn closed(&mut self, name: &str) {
        if name.eq_ignore_ascii_case("head") {
            self.hidden = false;
        }
        let watched = CLOSED.iter().any(|it| name.eq_ignore_ascii_case(it));
        if !watched || self.too_deep || self.html.faults_in_all >= FAULTS_MAXIMUM {
            return;
        }
        match self
            .open
            .iter()
            .rposition(|it| it.eq_ignore_ascii_case(name))
        {
            Some(place) => {
                for inner in self.open.split_off(place).into_iter().skip(1).rev() {
                    self.fault(format!("<{inner}> is never closed"));
                }
            }
            None => self.fault(format!("</{name}> closes nothing")),
        }
    }
}

/// What stands between a tag's name and its `>`.
struct Tag {
    /// Up to behind the `>`.
    length: Option<usize>,
    open_quote: bool,
    closes_itself: bool,
    /// A picture of one pixel: it is not meant to be seen.
    is_pixel: bool,
    /// An attribute that starts a script; `\0` stands for the element.
    starter: Option<String>,
}

impl Tag {
    fn read(text: &str) -> Self {
        let octets = text.as_bytes();
        let mut tag = Self {
            length: None,
            open_quote: false,
            closes_itself: false,
            is_pixel: false,
            starter: None,
        };
        let mut pixels = 0;
        let mut at = 0;
        while at < octets.len() {
            match octets[at] {
                b'>' => {
                    tag.length = Some(at + 1);
                    tag.closes_itself = at > 0 && octets[at - 1] == b'/';
                    tag.is_pixel = pixels >= 2;
                    return tag;
                }
                it if it.is_ascii_whitespace() || it == b'/' => at += 1,
                _ => {
                    let Some((key, value, next)) = attribute(text, at) else {
                        tag.open_quote = true;
                        return tag;
                    };
                    pixels += usize::from(
                        (key.eq_ignore_ascii_case("width") || key.eq_ignore_ascii_case("height"))
                            && matches!(value.trim_end_matches("px"), "0" | "1"),
                    );
                    tag.met(key, value);
                    at = next;
                }
            }
        }
        tag
    }

    fn met(&mut self, key: &str, value: &str) {
        if self.starter.is_some() {
            return;
        }
        let handler = key.len() > 3
            && key.as_bytes()[..2].eq_ignore_ascii_case(b"on")
            && key.bytes().all(|it| it.is_ascii_alphabetic());
        if handler {
            self.starter = Some(format!("{} on \0", key.to_ascii_lowercase()));
            return;
        }
        let links = ["href", "src", "action", "background", "formaction"];
        if links.iter().any(|it| key.eq_ignore_ascii_case(it)) {
            let value = value.trim_start();
            for scheme in ["javascript:", "vbscript:"] {
                let begins = value
                    .get(..scheme.len())
                    .is_some_and(|it| it.eq_ignore_ascii_case(scheme));
                if begins {
                    self.starter = Some(format!("{scheme} in {} of \0", key.to_ascii_lowercase()));
                }
            }
        }
    }
}

/// Key, value, and the place behind them; none where a quote is not closed.
fn attribute(text: &str, start: usize) -> Option<(&str, &str, usize)> {
    let octets = text.as_bytes();
    let ends_name = |it: u8| it.is_ascii_whitespace() || matches!(it, b'=' | b'>' | b'/');
    let mut at = start + 1;
    while at < octets.len() && !ends_name(octets[at]) {
        at += 1;
    }
    let key = text.get(start..at).unwrap_or_default();
    let mut value = at;
    while value < octets.len() && octets[value].is_ascii_whitespace() {
        value += 1;
    }
    if octets.get(value) != Some(&b'=') {
        return Some((key, "", at));
    }
    value += 1;
    while value < octets.len() && octets[value].is_ascii_whitespace() {
        value += 1;
    }
    if let Some(quote @ (b'"' | b'\'')) = octets.get(value) {
        let inside = value + 1;
        let end = octets[inside..].iter().position(|it| it == quote)?;
        let value = text.get(inside..inside + end).unwrap_or_default();
        return Some((key, value, inside + end + 1));
    }
    let begin = value;
    while value < octets.len() && !octets[value].is_ascii_whitespace() && octets[value] != b'>' {
        value += 1;
    }
    Some((key, text.get(begin..value).unwrap_or_default(), value))
}

/// The name at the beginning of a text.
fn name(text: &str) -> &str {
    let ends = |it: char| it.is_ascii_whitespace() || matches!(it, '>' | '/' | '<');
    &text[..text.find(ends).unwrap_or(text.len())]
}

/// The place of `</name`, in whatever case.
fn find_end_tag(text: &str, name: &str) -> Option<usize> {
    let octets = text.as_bytes();
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let begin = from + at + 2;
        let there = octets.get(begin..begin + name.len());
        if there.is_some_and(|it| it.eq_ignore_ascii_case(name.as_bytes())) {
            return Some(from + at);
        }
        from = begin;
    }
    None
}

/// Runs of letters and digits with white space between; `&nbsp;` is white space.
pub fn words(text: &str) -> usize {
    let mut words = 0;
    let mut in_word = false;
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        if letter.is_whitespace() {
            in_word = false;
        } else if letter == '&' && is_space(&text[place..]) {
            in_word = false;
            letters
                .by_ref()
                .take_while(|(_, it)| *it != ';')
                .for_each(drop);
        } else if letter.is_alphanumeric() && !in_word {
            in_word = true;
            words += 1;
        }
    }
    words
}

/// An entity that stands for nothing to be read.
fn is_space(text: &str) -> bool {
    [
        "&nbsp;", "&#160;", "&zwnj;", "&#8203;", "&shy;", "&#847;", "&emsp;", "&ensp;",
    ]
    .iter()
    .any(|it| text.starts_with(it))
}
