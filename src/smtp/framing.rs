//! Framing: command lines with a limit, mail data with one end.
//!
//! Mail data ends at `<CRLF>.<CRLF>` and nowhere else. A server that also ends it at
//! `<LF>.<LF>` and the like lets one message smuggle in another; so here no repair of
//! line endings, and no split of reads, can ever end a message.

/// Command lines, CRLF included: 512 octets (RFC 5321 section 4.5.3.1.4), and for MAIL
/// SIZE 26, BODY 17, SMTPUTF8 10, AUTH 500, RET 8, ENVID 107; for RCPT NOTIFY 28 and
/// ORCPT 507. One limit for all, and a little air.
pub const COMMAND_LINE_MAXIMUM: usize = 2_048;
/// Lines of an AUTH exchange, CRLF included (RFC 4954 section 4).
pub const AUTH_LINE_MAXIMUM: usize = 12_288;
/// An overlong line is read this far for its end; beyond, nobody means a command.
const DRAIN_MAXIMUM: usize = 1 << 20;

/// What to do about a CR or LF that is not part of a CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareEndings {
    /// The line, or the message, is refused (RFC 5321 section 2.3.8).
    Refuse,
    /// It becomes CRLF; it never ends a message.
    Repair,
}

/// What [`CommandLines`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line, its end taken off.
    Complete(Vec<u8>),
    /// A line beyond the limit has ended; nothing of it was kept: 500 5.5.6, once.
    TooLong,
    /// A line ended in a bare LF, which is refused: 500 5.5.2, and end the connection,
    /// for what follows may be somebody else's words.
    BareLf,
    /// An overlong line that does not end: end the connection.
    Endless,
}

/// Cuts what arrives into command lines.
#[derive(Debug)]
pub struct CommandLines {
    line: Vec<u8>,
    limit: usize,
    endings: BareEndings,
    /// Octets of an overlong line passed over so far; none: the line is not overlong.
    drained: Option<usize>,
    last_was_cr: bool,
}

impl CommandLines {
    /// For a new connection.
    pub fn new(endings: BareEndings) -> Self {
        Self {
            line: Vec::new(),
            limit: COMMAND_LINE_MAXIMUM,
            endings,
            drained: None,
            last_was_cr: false,
        }
    }

    /// Sets the limit for the lines to come, CRLF included.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether no part of a line waits for its rest.
    pub fn is_between(&self) -> bool {
        self.line.is_empty() && self.drained.is_none()
    }

    /// Takes octets up to the end of one line; says how many, and the line if it is complete.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Option<Line>) {
        let (piece, ended) = match input.iter().position(|it| *it == b'\n') {
            Some(place) => (&input[..=place], true),
            None => (input, false),
        };
        let cr_before = match piece {
            [.., cr, b'\n'] => *cr == b'\r',
            _ => self.last_was_cr,
        };
        self.last_was_cr = piece.last().map_or(self.last_was_cr, |it| *it == b'\r');
        self.keep(piece);
        if !ended {
            let endless = self.drained.is_some_and(|it| it > DRAIN_MAXIMUM);
            return (piece.len(), endless.then_some(Line::Endless));
        }
        let overlong = self.drained.take().is_some();
        let mut line = std::mem::take(&mut self.line);
        let found = match (overlong, cr_before, self.endings) {
            (_, false, BareEndings::Refuse) => Line::BareLf,
            (true, ..) => Line::TooLong,
            (false, crlf, _) => {
                line.truncate(line.len() - if crlf { 2 } else { 1 });
                Line::Complete(line)
            }
        };
        (piece.len(), Some(found))
    }

    /// Adds to the line, or drops it once it is beyond the limit.
    fn keep(&mut self, piece: &[u8]) {
        match &mut self.drained {
            Some(drained) => *drained = drained.saturating_add(piece.len()),
            None if self.line.len() + piece.len() > self.limit => {
                self.drained = Some(self.line.len() + piece.len());
                self.line = Vec::new();
            }
            None => self.line.extend_from_slice(piece),
        }
    }
}

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

/// Writes content as DATA sends it: dots stuffed, and the end.
///
/// Content is what a decoder of this module let through: its lines end in CRLF, except
/// perhaps the last.
#[derive(Debug)]
pub struct DataEncoder {
    line_start: bool,
    last_was_cr: bool,
}

impl Default for DataEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl DataEncoder {
    /// For the content of one message.
    pub fn new() -> Self {
        Self {
            line_start: true,
            last_was_cr: false,
        }
    }

    /// Appends the next piece of the content, encoded.
    pub fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len() + 16);
        while !input.is_empty() {
            if self.line_start && input[0] == b'.' {
                out.push(b'.');
            }
            let (piece, line_ends) = self.piece(input);
            out.extend_from_slice(piece);
            self.last_was_cr = piece.last() == Some(&b'\r');
            self.line_start = line_ends;
            input = &input[piece.len()..];
        }
    }

    /// Up to and with the next CRLF that has a dot behind it, or that ends the input.
    fn piece<'a>(&self, input: &'a [u8]) -> (&'a [u8], bool) {
        let mut from = 0;
        while let Some(place) = input[from..].iter().position(|it| *it == b'\n') {
            let place = from + place;
            let cr_before = if place == 0 {
                self.last_was_cr
            } else {
                input[place - 1] == b'\r'
            };
            if cr_before && matches!(input.get(place + 1), None | Some(b'.')) {
                return (&input[..=place], true);
            }
            from = place + 1;
        }
        (input, false)
    }

    /// What ends the message: `.` CRLF, and before it CRLF if the content does not end so.
    pub fn finish(&self) -> &'static [u8] {
        if self.line_start {
            b".\r\n"
        } else {
            b"\r\n.\r\n"
        }
    }
}

/// Counts the octets of content as DATA sends it, without sending it.
#[derive(Debug, Default)]
pub struct WireSize {
    encoder: DataEncoder,
    octets: u64,
    scratch: Vec<u8>,
}

impl WireSize {
    /// For the content of one message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the next piece of the content.
    pub fn feed(&mut self, input: &[u8]) {
        for piece in input.chunks(65_536) {
            self.scratch.clear();
            self.encoder.feed(piece, &mut self.scratch);
            self.octets += self.scratch.len() as u64;
        }
    }

    /// The whole, the final dot included.
    pub fn total(&self) -> u64 {
        self.octets + self.encoder.finish().len() as u64
    }
}
