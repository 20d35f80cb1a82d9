//! Headers: scanning never panics, pieces change nothing, and who a message is from is one
//! answer that reads back as itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::mail::Mailbox;
use penstock::mail::header::{Header, HeaderEnd};

fuzz_target!(|input: &[u8]| {
    let Some((cut, input)) = input.split_first() else {
        return;
    };
    let whole = HeaderEnd::default().find(input);
    let mut end = HeaderEnd::default();
    let mut before = 0;
    let mut split = None;
    for piece in input.chunks(usize::from(*cut).max(1)) {
        if let Some(place) = end.find(piece) {
            split = Some(before + place);
            break;
        }
        before += piece.len();
    }
    assert_eq!(whole, split);

    let Ok(header) = Header::scan(input) else {
        return;
    };
    assert!(header.length <= input.len());
    for shown in [&header.subject, &header.list_id, &header.feedback_id]
        .into_iter()
        .flatten()
    {
        assert!(!shown.chars().any(char::is_control));
    }
    if let Ok(people) = header.originators() {
        for mailbox in people.from.iter().chain(&people.sender) {
            assert_eq!(Mailbox::parse(&mailbox.to_string()).as_ref(), Ok(mailbox));
        }
        // What decides is named by the message, and by nothing else in it.
        if let Some(identity) = people.identity() {
            assert!(people.from.contains(identity) || people.sender.as_ref() == Some(identity));
        }
    }
});
