//! Tests against smtp-proto, a codec written by others for the same standards.
//!
//! Where the two disagree, the disagreement is either listed here with its reason or a bug.

use proptest::prelude::*;
use smtp_proto::request::receiver::DataReceiver;
use smtp_proto::{
    MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, Request,
};

use super::{BareEndings, Command, DataDecoder};
use crate::mail::{Body, Ret};

/// Decodes with smtp-proto; none when it sees no end.
fn theirs(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    let mut octets = wire.iter();
    DataReceiver::new()
        .ingest(&mut octets, &mut content)
        .then(|| (content, wire.len() - octets.len()))
}

fn ours(wire: &[u8]) -> (Option<(Vec<u8>, usize)>, bool) {
    let mut decoder = DataDecoder::new(BareEndings::Refuse);
    let mut content = Vec::new();
    let taken = decoder.feed(wire, &mut content);
    let decoded = decoder.is_ended().then_some((content, taken));
    (decoded, decoder.met_bare_ending())
}

#[test]
fn the_known_deviations_of_the_oracle_are_still_the_same() {
    assert!(
        theirs(b"a\r\n.\r\r\n").is_some(),
        "it ends at CRLF.CRCRLF; we must not"
    );
    assert_eq!(ours(b"a\r\n.\r\r\n").0, None);
    assert!(
        theirs(b".\r\n").is_none(),
        "it does not see an empty message; we do"
    );
    assert_eq!(ours(b".\r\n").0, Some((Vec::new(), 3)));
    let Request::Bdat { chunk_size, .. } =
        Request::parse(&mut b"BDAT 18446744073709551616\r\n".iter()).unwrap_or(Request::Quit)
    else {
        // It may have learned to refuse it, as we do.
        return;
    };
    assert!(
        Command::parse(b"BDAT 18446744073709551616").is_err(),
        "{chunk_size}"
    );
}

proptest! {
    /// Excepted: a first line that begins with a dot (theirs neither unstuffs it nor ends
    /// there), and messages with a bare CR or LF, which we refuse.
    #[test]
    fn messages_end_at_the_same_place_with_the_same_content(wire in "a([a.]{0,3}\r\n|\r\n\\.\r\n|[a.]){0,12}") {
        let (decoded, bare) = ours(wire.as_bytes());
        prop_assert!(!bare);
        prop_assert_eq!(decoded, theirs(wire.as_bytes()));
    }

    /// Excepted: quoted local parts (theirs loses the quotes), addresses without brackets
    /// (only we take them).
    #[test]
    fn mail_commands_mean_the_same(
        address in "[a-z]{1,5}(\\.[a-z]{1,5})?@[a-z]{1,5}\\.example",
        size in proptest::option::of(0u32..),
        body in proptest::option::of(any::<bool>()),
        smtputf8: bool,
        ret in proptest::option::of(any::<bool>()),
        envid in proptest::option::of("[a-zA-Z0-9]{1,9}(\\+2B)?"),
        gap in " {1,3}",
    ) {
        let mut line = format!("mail FROM:<{address}>");
        if let Some(size) = size { line += &format!("{gap}SIZE={size}"); }
        if let Some(eight) = body { line += &format!("{gap}BODY={}", if eight { "8BITMIME" } else { "7BIT" }); }
        if smtputf8 { line += &format!("{gap}SMTPUTF8"); }
        if let Some(full) = ret { line += &format!("{gap}RET={}", if full { "FULL" } else { "HDRS" }); }
        if let Some(envid) = &envid { line += &format!("{gap}ENVID={envid}"); }
        let Ok(Command::Mail(our)) = Command::parse(line.as_bytes()) else { panic!("{line}") };
        line += "\r\n";
        let Ok(Request::Mail { from: their }) = Request::parse(&mut line.as_bytes().iter()) else { panic!("{line}") };
        prop_assert_eq!(our.reverse_path.to_string(), their.address);
        prop_assert_eq!(our.size.unwrap_or(0), their.size as u64);
        prop_assert_eq!(our.envid.as_deref(), their.env_id.as_deref());
        let flags = match our.body { Some(Body::SevenBit) => MAIL_BODY_7BIT, Some(Body::EightBitMime) => MAIL_BODY_8BITMIME, None => 0 }
            | match our.ret { Some(Ret::Full) => MAIL_RET_FULL, Some(Ret::Headers) => MAIL_RET_HDRS, None => 0 }
            | if our.smtputf8 { MAIL_SMTPUTF8 } else { 0 };
        prop_assert_eq!(flags, their.flags);
    }

    /// One way only: what they refuse as a recipient and we take must be one of the
    /// tolerances we chose. Excepted: the dot of the root behind a domain, which we drop.
    #[test]
    fn recipients_mean_the_same(text in "<[a-c@.\"\\\\ ]{0,10}>") {
        let line = format!("RCPT TO:{text}");
        let wire = format!("{line}\r\n");
        let their = Request::parse(&mut wire.as_bytes().iter());
        if let (Ok(Command::Recipient(our)), Ok(Request::Rcpt { to })) = (Command::parse(line.as_bytes()), their) {
            let local = our.forward_path.mailbox().map(|it| it.local().to_owned()).unwrap_or_default();
            if local.bytes().all(|it| it.is_ascii_lowercase() || it == b'.') {
                let theirs = to.address.strip_suffix('.').unwrap_or(&to.address);
                prop_assert_eq!(our.forward_path.to_string(), theirs);
            }
        }
    }
}
