//! The first command of README.md, without a terminal.

use std::process::{Command, Stdio};

#[test]
#[ignore = "half a minute; .ci/run runs it"]
fn the_demonstration_proves_its_limit_in_plain_lines_of_eighty_columns() {
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .arg("demo")
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    // The first mail: in on a local port, and out through the right relay.
    assert!(
        text.contains("jan@noord.example to kees@example.net as noord-account"),
        "{text}"
    );
    for words in [
        "of 500 in the worst second of all",
        "the reset left",
        "the colleague's 100 were out within",
        "every message went through its own relay with its own login",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}
