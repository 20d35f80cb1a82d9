//! Records of the spool: words read back as what was written of them, and a scan of a
//! damaged segment covers all of it and misses no frame that is whole.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::spool::probe::{self, HEADER};

/// A submitter cannot know the mark of a segment; here the fuzzer cannot.
fn mark(input: &[u8]) -> u64 {
    input.iter().fold(0xcbf2_9ce4_8422_2325, |sum, it| {
        (sum ^ u64::from(*it)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// `kind version words`: a record, or with an unknown kind a line of the history.
fn words(input: &[u8]) {
    let [kind, version, words @ ..] = input else {
        return;
    };
    // The note of a kind of its own may hold numbers that print another way each time.
    let exact = !matches!(kind, 8 | 9);
    let rewrite = |words: &[u8]| match kind {
        0..=10 => probe::rewrite(*kind, version % 3, words),
        _ => probe::rewrite_finished(words),
    };
    if let Some(once) = rewrite(words) {
        let again = rewrite(&once).expect("what was written can be read");
        if exact {
            assert_eq!(once, again);
        }
    }
}

/// Frames parted by `\n`, words and contents by a tab; before them a count of octets to
/// cut off the end, and places with what is done to them.
fn segment(input: &[u8]) {
    let [cut, count, rest @ ..] = input else {
        return;
    };
    let (damage, rest) = rest.split_at((usize::from(count % 8) * 3).min(rest.len()));
    let frames: Vec<(&[u8], &[u8])> = rest
        .split(|it| *it == b'\n')
        .map(|it| {
            let tab = it.iter().position(|it| *it == b'\t').unwrap_or(it.len());
            it.split_at(tab)
        })
        .collect();
    let mark = mark(input);
    let (mut octets, places) = probe::segment(mark, &frames);
    let written = octets.clone();
    for damage in damage.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([damage[0], damage[1]]));
        if let Some(octet) = octets.get_mut(place) {
            *octet ^= damage[2];
        }
    }
    octets.truncate(octets.len() - usize::from(*cut).min(octets.len()));
    let regions = probe::scan(mark, &octets).expect("memory can be read");
    let mut at = 0;
    for region in &regions {
        assert_eq!(region.offset, at, "a gap, or twice the same");
        assert!(region.length > 0);
        at += region.length;
    }
    assert_eq!(at, octets.len() as u64);
    for (place, (words, contents)) in places.into_iter().zip(&frames) {
        let behind = place + HEADER + words.len();
        let whole = behind + contents.len() <= octets.len();
        if whole && octets[place..behind] == written[place..behind] {
            let found = regions.iter().find(|it| it.offset == place as u64);
            let found = found.and_then(|it| it.words.as_deref());
            assert_eq!(found, Some(*words), "a whole frame was missed");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, input)) => segment(input),
        Some((_, input)) => words(input),
        None => {}
    }
});
