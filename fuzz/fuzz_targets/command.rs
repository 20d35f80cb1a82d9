//! Command lines: reading never panics, and what was read prints to itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::smtp::{Command, Reply, ReplyParser};

fuzz_target!(|line: &[u8]| {
    match Command::parse(line) {
        Ok(command) => {
            let printed = match &command {
                Command::Mail(mail) => mail.to_string(),
                Command::Recipient(recipient) => recipient.to_string(),
                _ => return,
            };
            assert_eq!(Command::parse(printed.as_bytes()), Ok(command), "{printed}");
        }
        Err(error) => {
            // Whatever the client said, the answer to it is one reply.
            let reply: Reply = error.reply();
            let wire = reply.to_wire();
            let (consumed, read) = ReplyParser::new().feed(&wire);
            assert_eq!(consumed, wire.len());
            assert!(matches!(read, Some(Ok(it)) if it.code == reply.code));
        }
    }
});
