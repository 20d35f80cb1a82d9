//! Reading mail data.

use super::BareEndings;

/// Where a text decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After a line's end. `true`: a CRLF as such (or the command DATA itself, RFC 5321
    /// section 4.1.1.4), so that a dot may end the message; `false`: a repaired one.
    Start(bool),
    /// A dot at the start of a line: stuffed, or the end, or neither.
    Dot(bool),
    /// Within a line.
    Text,
    /// After one CR. What it is depends on what follows.
    Cr,
    /// After a dot at the start of a line and one CR. `true`: an LF would end the message.
    DotCr(bool),
    /// After two CRs or more: the last two are still to be told.
    Crs,
    /// After the end.
    End,
}

/// The machine behind [`DataDecoder`] and [`TextDecoder`].
#[derive(Debug)]
struct Decoder {
    place: Place,
    stuffed: bool,
    endings: BareEndings,
    bare: bool,
}

const CRLF: &[u8] = b"\r\n";

impl Decoder {
    fn new(stuffed: bool, endings: BareEndings) -> Self {
        Self {
            place: Place::Start(true),
            stuffed,
            endings,
            bare: false,
        }
    }

    /// Decodes octets until the end of the message; says how many it took.
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut consumed = 0;
        while consumed < input.len() && self.place != Place::End {
            if self.place == Place::Text {
                // Nearly all octets pass here, in one piece up to the next CR or LF.
                let rest = &input[consumed..];
                let run = rest
                    .iter()
                    .position(|it| *it == b'\r' || *it == b'\n')
                    .unwrap_or(rest.len());
                self.emit(&rest[..run], out);
                consumed += run;
                if run == rest.len() {
                    break;
                }
            }
            self.step(input[consumed], out);
            consumed += 1;
        }
        consumed
    }

    fn step(&mut self, octet: u8, out: &mut Vec<u8>) {
        use Place::{Cr, Crs, Dot, DotCr, End, Start, Text};
        self.place = match (self.place, octet) {
            (Start(may_end), b'.') if self.stuffed => Dot(may_end),
            // The one way to the end.
            (DotCr(true), b'\n') => End,
            // A dot alone on a line whose start or end was repaired: content.
            (DotCr(false), b'\n') => self.text(b".\r\n", Start(true), out),
            (DotCr(_), b'\r') => self.text(b".", Crs, out),
            (DotCr(_), other) => {
                self.text(b".", Text, out);
                self.repair(out);
                return self.step(other, out);
            }
            (Dot(may_end), b'\r') => DotCr(may_end),
            (Dot(_), b'\n') => {
                self.text(b".", Text, out);
                self.repair(out);
                self.place
            }
            // The stuffed dot goes, and nothing else.
            (Dot(_), other) => self.text(&[other], Text, out),
            (Cr, b'\n') => self.text(CRLF, Start(true), out),
            (Cr, b'\r') => Crs,
            (Cr, other) => {
                self.repair(out);
                return self.step(other, out);
            }
            // `<CR><CR><LF>` is what a text-mode file makes of CRLF: one line's end.
            (Crs, b'\n') => {
                self.bare = true;
                self.text(CRLF, Start(true), out)
            }
            (Crs, b'\r') => {
                self.repair(out);
                Crs
            }
            (Crs, other) => {
                self.repair(out);
                self.repair(out);
                return self.step(other, out);
            }
            (Start(_) | Text, b'\r') => Cr,
            (Start(_) | Text, b'\n') => {
                self.repair(out);
                self.place
            }
            (Start(_) | Text, other) => self.text(&[other], Text, out),
            (End, _) => End,
        };
    }

    fn text(&mut self, octets: &[u8], next: Place, out: &mut Vec<u8>) -> Place {
        self.emit(octets, out);
        next
    }

    /// A bare CR or LF: from here on the next dot cannot end the message.
    fn repair(&mut self, out: &mut Vec<u8>) {
        self.bare = true;
        self.emit(CRLF, out);
        self.place = Place::Start(false);
    }

    /// A message that will be refused is swallowed: nothing of it is kept.
    fn emit(&self, octets: &[u8], out: &mut Vec<u8>) {
        if !(self.bare && self.endings == BareEndings::Refuse) {
            out.extend_from_slice(octets);
        }
    }
}

/// Reads the content that follows DATA: takes stuffed dots off and finds the one end.
#[derive(Debug)]
pub struct DataDecoder(Decoder);

impl DataDecoder {
    /// For the content of one message.
    pub fn new(endings: BareEndings) -> Self {
        Self(Decoder::new(true, endings))
    }

    /// Takes octets until the message ends; appends its content to `out` and says how
    /// many octets were taken. What is left then are commands.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        self.0.feed(input, out)
    }

    /// Whether `<CRLF>.<CRLF>` has been read.
    pub fn is_ended(&self) -> bool {
        self.0.place == Place::End
    }

    /// Whether a bare CR or LF was met. With [`BareEndings::Refuse`] the message is then
    /// swallowed up to its real end and must be refused.
    pub fn met_bare_ending(&self) -> bool {
        self.0.bare
    }
}

/// Checks or repairs the line endings of content that comes in chunks (BDAT), or from a
/// file: there are no stuffed dots, and somebody else knows where it ends.
///
/// BDAT could carry bare CR and LF, but the relay may have to be sent the message by
/// DATA, where they are forbidden.
#[derive(Debug)]
pub struct TextDecoder(Decoder);

impl TextDecoder {
    /// For the content of one message.
    pub fn new(endings: BareEndings) -> Self {
        Self(Decoder::new(false, endings))
    }

    /// Takes all octets and appends the content to `out`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.0.feed(input, out);
    }

    /// After the last octet: a CR may be waiting for the LF that never came.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self.0.place {
            Place::Cr => self.0.repair(out),
            Place::Crs => {
                self.0.repair(out);
                self.0.repair(out);
            }
            _ => {}
        }
    }

    /// Whether a bare CR or LF was met.
    pub fn met_bare_ending(&self) -> bool {
        self.0.bare
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::framing::{DataEncoder, WireSize};
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    struct Decoded {
        content: Vec<u8>,
        /// How many octets the message took; none: it did not end.
        end: Option<usize>,
        bare: bool,
    }

    fn decode(wire: &[u8], size: usize, endings: BareEndings) -> Decoded {
        decode_pieces(wire.chunks(size), endings)
    }

    fn decode_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        endings: BareEndings,
    ) -> Decoded {
        let mut decoder = DataDecoder::new(endings);
        let mut content = Vec::new();
        let mut taken = 0;
        for piece in pieces {
            let consumed = decoder.feed(piece, &mut content);
            taken += consumed;
            if decoder.is_ended() {
                break;
            }
            assert_eq!(consumed, piece.len());
        }
        let end = decoder.is_ended().then_some(taken);
        Decoded {
            content,
            end,
            bare: decoder.met_bare_ending(),
        }
    }

    /// The standard, word by word, on the whole of the octets: no machine, no splits.
    fn reference(wire: &[u8], endings: BareEndings) -> Option<Decoded> {
        let all = [b"\r\n", wire].concat();
        let dot = all.windows(5).position(|it| it == b"\r\n.\r\n")?;
        let end = Some(dot + 3);
        // The CRLF before the dot belongs to the content, the one put in front does not.
        let body = &all[2..(dot + 2).max(2)];
        let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
        let mut bare = false;
        let mut place = 0;
        while place < body.len() {
            let crs = body[place..].iter().take_while(|it| **it == b'\r').count();
            let lf = body.get(place + crs) == Some(&b'\n');
            let ends = match (crs, lf) {
                (0, false) => {
                    lines.last_mut().unwrap().push(body[place]);
                    place += 1;
                    continue;
                }
                (1, true) => 1,
                (0, true) => {
                    bare = true;
                    1
                }
                (_, true) => {
                    bare = true;
                    crs - 1
                }
                (_, false) => {
                    bare = true;
                    crs
                }
            };
            lines.extend(std::iter::repeat_n(Vec::new(), ends));
            place += crs + usize::from(lf);
        }
        for line in &mut lines {
            if line.len() > 1 && line[0] == b'.' {
                line.remove(0);
            }
        }
        let content = if bare && endings == BareEndings::Refuse {
            Vec::new()
        } else {
            lines.join(&b"\r\n"[..])
        };
        Some(Decoded { content, end, bare })
    }

    fn check(wire: &[u8]) {
        for endings in [BareEndings::Refuse, BareEndings::Repair] {
            let whole = decode(wire, wire.len().max(1), endings);
            match reference(wire, endings) {
                // What was seen before the first bare ending may have been kept already.
                Some(mut expected) => {
                    if expected.bare && endings == BareEndings::Refuse {
                        expected.content.clone_from(&whole.content);
                    }
                    assert_eq!(
                        whole,
                        expected,
                        "{:?} {endings:?}",
                        wire.escape_ascii().to_string()
                    );
                }
                None => assert_eq!(whole.end, None, "{:?}", wire.escape_ascii().to_string()),
            }
            for cut in 1..wire.len() {
                let (first, rest) = wire.split_at(cut);
                assert_eq!(
                    decode_pieces([first, rest], endings),
                    whole,
                    "{:?} | {:?}",
                    first.escape_ascii().to_string(),
                    rest.escape_ascii().to_string()
                );
            }
            for size in 1..wire.len() {
                assert_eq!(
                    decode(wire, size, endings),
                    whole,
                    "{:?} by {size}",
                    wire.escape_ascii().to_string()
                );
            }
        }
    }

    #[test]
    fn every_short_message_is_read_as_the_standard_says_at_every_split() {
        const LETTERS: &[u8] = b"\r\n.\0a";
        for length in 0..=7u32 {
            for mut number in 0..5usize.pow(length) {
                let wire: Vec<u8> = (0..length)
                    .map(|_| {
                        let letter = LETTERS[number % 5];
                        number /= 5;
                        letter
                    })
                    .collect();
                check(&wire);
            }
        }
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_ends_a_message() {
        for trick in [
            &b"\r\n.\n"[..],
            b"\n.\r\n",
            b"\n.\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\r\n.\r\r\n",
            b"\n.\n\r\n",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\n.\r\0\n",
            b"\r\n.\r.\n",
            b"\n\r.\r\n",
            b"\r\n..\r\n",
            b"\r\n. \r\n",
            b"\r\n.\x0b\r\n",
            b"\r\n\xe2\x80\xa4\r\n",
        ] {
            let wire = [b"hello", trick, b"MAIL FROM:<x@y>\r\n.\r\nNOOP\r\n"].concat();
            for endings in [BareEndings::Refuse, BareEndings::Repair] {
                for size in 1..=wire.len() {
                    let decoded = decode(&wire, size, endings);
                    assert_eq!(
                        decoded.end,
                        Some(wire.len() - 6),
                        "{:?}",
                        trick.escape_ascii().to_string()
                    );
                }
            }
        }
    }

    #[test]
    fn repaired_content_has_no_bare_ending_and_loses_nothing() {
        let repaired = |wire: &[u8]| decode(wire, 3, BareEndings::Repair).content;
        assert_eq!(repaired(b"a\nb\rc\r\n.\r\n"), b"a\r\nb\r\nc\r\n");
        assert_eq!(repaired(b"a\n.\nb\r\n.\r\n"), b"a\r\n.\r\nb\r\n");
        assert_eq!(repaired(b"a\r\r\nb\r\n.\r\n"), b"a\r\nb\r\n");
        assert_eq!(repaired(b"a\n..b\n.c\r\n.\r\n"), b"a\r\n.b\r\nc\r\n");
    }

    #[test]
    fn a_refused_message_is_swallowed_not_kept() {
        let wire = [b"a\nb", &vec![b'x'; 100_000][..], b"\r\n.\r\n"].concat();
        let decoded = decode(&wire, 4_096, BareEndings::Refuse);
        assert_eq!(
            decoded,
            Decoded {
                content: b"a".to_vec(),
                end: Some(wire.len()),
                bare: true
            }
        );
    }

    #[test]
    fn an_empty_message_ends_at_its_first_dot() {
        assert_eq!(decode(b".\r\n", 1, BareEndings::Refuse).end, Some(3));
    }

    #[test]
    fn chunks_may_hold_what_looks_like_an_end() {
        let mut decoder = TextDecoder::new(BareEndings::Refuse);
        let mut content = Vec::new();
        for octet in b"a\r\n.\r\n..b\r\n" {
            decoder.feed(&[*octet], &mut content);
        }
        decoder.finish(&mut content);
        assert_eq!(
            (&content[..], decoder.met_bare_ending()),
            (&b"a\r\n.\r\n..b\r\n"[..], false)
        );
        for bad in [&b"a\nb"[..], b"a\r", b"a\rb", b"a\r\r", b"a\r\r\n"] {
            let mut decoder = TextDecoder::new(BareEndings::Refuse);
            decoder.feed(bad, &mut Vec::new());
            decoder.finish(&mut Vec::new());
            assert!(decoder.met_bare_ending(), "{bad:?}");
        }
    }

    /// Text whose lines end in CRLF, the last perhaps not at all; with many dots.
    fn clean_text() -> impl Strategy<Value = Vec<u8>> {
        let line = proptest::collection::vec(
            prop_oneof![3 => Just(b'.'), 1 => Just(0u8), 3 => any::<u8>()],
            0..6,
        );
        (proptest::collection::vec(line, 0..6), any::<bool>()).prop_map(|(lines, ended)| {
            let mut text = lines.join(&b"\r\n"[..]);
            // Keep to what a decoder lets through.
            text.retain(|it| *it != 255);
            let mut clean = Vec::new();
            for piece in text.split(|it| *it == b'\n') {
                clean.extend(piece.iter().filter(|it| **it != b'\r'));
                clean.extend_from_slice(b"\r\n");
            }
            if !ended {
                clean.truncate(clean.len() - 2);
            }
            clean
        })
    }

    proptest! {
        #[test]
        fn long_messages_are_read_as_the_standard_says(wire in "[\r\n.a\u{0}]{0,60}") {
            check(wire.as_bytes());
        }

        #[test]
        fn splits_anywhere_change_nothing(
            wire in "[\r\n.a\u{0}]{1,60}",
            cuts in proptest::collection::vec(any::<bool>(), 60),
            repair: bool,
        ) {
            let endings = if repair { BareEndings::Repair } else { BareEndings::Refuse };
            let wire = wire.as_bytes();
            let mut place = 0;
            let pieces = wire.chunk_by(|_, _| {
                place += 1;
                !cuts[place - 1]
            });
            let pieces: Vec<&[u8]> = pieces.collect();
            prop_assert_eq!(decode_pieces(pieces, endings), decode(wire, wire.len(), endings));
        }

        /// Towards the relay, by the reference: one message, whatever the client put in.
        #[test]
        fn what_was_repaired_leaves_as_one_message(wire in "[\r\n.a\u{0}]{0,40}", feed in 1usize..9) {
            let wire = [wire.as_bytes(), b"\r\n.\r\n"].concat();
            let taken = decode(&wire, wire.len(), BareEndings::Repair);
            let mut encoder = DataEncoder::new();
            let mut out = Vec::new();
            for piece in taken.content.chunks(feed) {
                encoder.feed(piece, &mut out);
            }
            out.extend_from_slice(encoder.finish());
            let expected = Decoded { content: taken.content, end: Some(out.len()), bare: false };
            prop_assert_eq!(reference(&out, BareEndings::Refuse), Some(expected));
        }

        #[test]
        fn what_is_encoded_decodes_to_itself_at_every_split(text in clean_text(), feed in 1usize..9, read in 1usize..9) {
            let mut encoder = DataEncoder::new();
            let mut wire = Vec::new();
            let mut size = WireSize::new();
            for piece in text.chunks(feed) {
                encoder.feed(piece, &mut wire);
                size.feed(piece);
            }
            wire.extend_from_slice(encoder.finish());
            prop_assert_eq!(size.total(), wire.len() as u64);
            let decoded = decode(&wire, read, BareEndings::Refuse);
            let mut expected = text.clone();
            if !expected.is_empty() && !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(decoded, Decoded { content: expected, end: Some(wire.len()), bare: false });
        }
    }
}
