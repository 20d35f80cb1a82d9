//! Writing mail data.

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
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len() + 16);
        self.encode(input, |octets| out.extend_from_slice(octets));
    }

    /// Hands on the next piece of the content, encoded, in slices.
    fn encode(&mut self, mut input: &[u8], mut write: impl FnMut(&[u8])) {
        while !input.is_empty() {
            if self.line_start && input[0] == b'.' {
                write(b".");
            }
            let (piece, line_ends) = self.piece(input);
            write(piece);
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
}

impl WireSize {
    /// For the content of one message.
    pub fn new() -> Self {
        Self::default()
    }

    /// The octets of a whole content, the final dot included.
    pub fn of(content: &[u8]) -> u64 {
        let mut size = Self::new();
        size.feed(content);
        size.total()
    }

    /// Counts the next piece of the content.
    pub fn feed(&mut self, input: &[u8]) {
        let octets = &mut self.octets;
        self.encoder.encode(input, |it| *octets += it.len() as u64);
    }

    /// The whole, the final dot included.
    pub fn total(&self) -> u64 {
        self.octets + self.encoder.finish().len() as u64
    }
}
