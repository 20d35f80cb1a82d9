//! Mail data: one end, at every split, and what was decoded encodes to what decodes to it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::smtp::{BareEndings, CommandLines, DataDecoder, DataEncoder, WireSize};

fn decode(wire: &[u8], piece: usize, endings: BareEndings) -> (Vec<u8>, Option<usize>, bool) {
    let mut decoder = DataDecoder::new(endings);
    let mut content = Vec::new();
    let mut taken = 0;
    for piece in wire.chunks(piece) {
        taken += decoder.feed(piece, &mut content);
        if decoder.is_ended() {
            break;
        }
    }
    let end = decoder.is_ended().then_some(taken);
    (content, end, decoder.met_bare_ending())
}

fuzz_target!(|input: &[u8]| {
    let [piece, repair, wire @ ..] = input else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    let endings = if repair % 2 == 0 {
        BareEndings::Refuse
    } else {
        BareEndings::Repair
    };
    let whole = decode(wire, wire.len().max(1), endings);
    assert_eq!(whole, decode(wire, piece, endings));
    let (content, end, bare) = whole;
    // The end is the first CRLF.CRLF, counting the CRLF of the command DATA.
    let behind_data = [b"\r\n", wire].concat();
    let first = behind_data.windows(5).position(|it| it == b"\r\n.\r\n");
    assert_eq!(end, first.map(|it| it + 3));
    if end.is_some() && (endings == BareEndings::Repair || !bare) {
        let mut encoder = DataEncoder::new();
        let mut size = WireSize::new();
        let mut encoded = Vec::new();
        for piece in content.chunks(piece) {
            encoder.feed(piece, &mut encoded);
            size.feed(piece);
        }
        encoded.extend_from_slice(encoder.finish());
        assert_eq!(size.total(), encoded.len() as u64);
        let again = decode(&encoded, piece, BareEndings::Refuse);
        assert_eq!(again, (content, Some(encoded.len()), false));
    }
    let mut lines = CommandLines::new(endings);
    for mut piece in wire.chunks(piece) {
        while !piece.is_empty() {
            let (consumed, _) = lines.feed(piece);
            assert!(consumed > 0);
            piece = &piece[consumed..];
        }
    }
});
