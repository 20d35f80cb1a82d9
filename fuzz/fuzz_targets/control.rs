//! The control socket: no request line panics, one that is read prints to itself, and what
//! a daemon could answer reads back as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::control::protocol::{Item, Line, Request};

fuzz_target!(|line: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(line) {
        let printed = serde_json::to_string(&request).expect("a request prints");
        let again: Request = serde_json::from_str(&printed).expect("and is read again");
        assert_eq!(again, request, "{printed}");
        assert!(!request.verb().is_empty());
        // Whoever may only look is not taken for one who changes.
        let looks = matches!(request.verb(), "status" | "queue" | "show" | "limits");
        assert!(!(looks && request.is_logged()));
    }
    match serde_json::from_slice::<Line>(line) {
        // Numbers with a fraction may differ in their last digit.
        Ok(Line::Item(Item::Top(_) | Item::Status(_) | Item::Limits(_) | Item::Hint(_)))
        | Err(_) => {}
        Ok(answer) => {
            let printed = serde_json::to_string(&answer).expect("an answer prints");
            let again: Line = serde_json::from_str(&printed).expect("and is read again");
            assert_eq!(again, answer, "{printed}");
        }
    }
});
