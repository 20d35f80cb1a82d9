//! Replies: reading never panics, splits change nothing, and nothing read grows without end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::smtp::{Extensions, Reply, ReplyError, ReplyParser};

fn all(input: &[u8], piece: usize) -> Vec<Result<Reply, ReplyError>> {
    let mut parser = ReplyParser::new();
    let mut found = Vec::new();
    for mut piece in input.chunks(piece) {
        while !piece.is_empty() {
            let (consumed, read) = parser.feed(piece);
            assert!(consumed > 0);
            piece = &piece[consumed..];
            if let Some(read) = read {
                let failed = read.is_err();
                found.push(read);
                if failed {
                    return found;
                }
            }
        }
    }
    found
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, input)) = input.split_first() else {
        return;
    };
    let whole = all(input, input.len().max(1));
    let split = all(input, usize::from(*piece).max(1));
    assert_eq!(whole.len(), split.len());
    for (whole, split) in whole.iter().zip(&split) {
        // Only how much of an overlong line had come differs.
        assert_eq!(whole.as_ref().ok(), split.as_ref().ok());
    }
    for reply in whole.into_iter().flatten() {
        assert!((200..600).contains(&reply.code));
        assert!(!reply.text().contains(|it: char| it.is_control() && it != '\n'));
        let _ = Extensions::parse(&reply).lines();
        let wire = reply.to_wire();
        let (consumed, read) = ReplyParser::new().feed(&wire);
        assert_eq!(consumed, wire.len());
        assert!(matches!(read, Some(Ok(it)) if it.code == reply.code));
    }
});
