//! What is said beside the output, on standard error.
//!
//! Never with `eprintln!`, which ends the program where nobody reads: a `sendmail` whose
//! caller has closed its standard error has a message to hand in all the same.

use std::fmt::Display;
use std::io::{self, Write};

/// Says a line; where nobody listens, nobody is told.
pub fn aside(line: impl Display) {
    writeln!(io::stderr().lock(), "{line}").ok();
}
