//! Configuration: no text of the two files makes the reader panic, what is refused says
//! why, and what is taken can be shown and is no different from itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::config::{Config, changes};

fuzz_target!(|input: &[u8]| {
    let Ok(input) = std::str::from_utf8(input) else {
        return;
    };
    // A form feed, which TOML refuses, parts the two files.
    let (main, users) = input.split_once('\u{c}').unwrap_or((input, ""));
    match Config::parse(main, users) {
        Ok(config) => {
            assert!(!config.sections().is_empty());
            assert_eq!(changes(&config, &config), Vec::<String>::new());
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            assert!(!error.to_string().is_empty());
        }
    }
});
