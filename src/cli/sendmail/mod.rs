//! `sendmail`: the classic command, for programs that know no other way to send.
//!
//! Reads a message on standard input and submits it over SMTP to the daemon on this
//! machine, like any other client: what the daemon answers is how this ends. Nothing is
//! kept here; with no daemon the exit code is 75 and the caller has to try again.

mod address_list;
mod header;
mod input;
mod options;
mod people;
mod server;
mod submit;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use super::beside::aside;
use crate::clock::Clock;
use crate::mail::ReversePath;
use header::Header;
use input::Message;
pub use options::HELP;
use options::{Mode, Options};
use people::{Caller, People};
use server::Server;
use submit::Submission;

/// How much of a message is read that was refused before it ended.
const DRAIN_MAXIMUM: u64 = 100_000_000;

/// Why the message was not taken: an exit code of sysexits.h, and a sentence.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: u8,
    message: String,
}

/// EX_USAGE: the command line makes no sense.
const USAGE: u8 = 64;
/// EX_DATAERR: the message makes no sense.
const DATA_ERROR: u8 = 65;
/// EX_NOUSER: a recipient is refused.
const NO_USER: u8 = 67;
/// EX_UNAVAILABLE: refused for good.
const UNAVAILABLE: u8 = 69;
/// EX_IOERR: standard input cannot be read.
const IO_ERROR: u8 = 74;
/// EX_TEMPFAIL: not now.
const TRY_AGAIN: u8 = 75;
/// EX_NOPERM: the sender may not do this.
const NOT_ALLOWED: u8 = 77;

impl Refusal {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Runs `sendmail` with these arguments, the program's name left out.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match options::read(arguments).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            aside(format!("sendmail: {}", refusal.message));
            drain();
            ExitCode::from(refusal.code)
        }
    }
}

/// Reads what the caller still wants to say: one that is killed by SIGPIPE while it writes
/// never gets to see our exit code.
fn drain() {
    let stdin = io::stdin().lock();
    if !stdin.is_terminal() {
        io::copy(&mut stdin.take(DRAIN_MAXIMUM), &mut io::sink()).ok();
    }
}

fn run(options: Options) -> Result<(), Refusal> {
    match options.mode {
        Mode::Deliver => deliver(&options),
        Mode::Smtp => submit::converse(&Server::find(&options)?),
        // There is no alias database to build: newaliases(1) has nothing to do.
        Mode::Aliases => Ok(()),
        Mode::Help => {
            say(HELP);
            Ok(())
        }
        Mode::Version => {
            say(&format!("penstock sendmail {}", crate::VERSION_AND_COMMIT));
            Ok(())
        }
    }
}

/// Says what was asked for; nobody reads it? Then nobody is told.
fn say(text: &str) {
    writeln!(io::stdout().lock(), "{text}").ok();
}

fn deliver(options: &Options) -> Result<(), Refusal> {
    let server = Server::find(options)?;
    let people = People::of_this_machine(&server.hostname);
    let caller = Caller::current();
    let mut message = Message::new(io::stdin().lock(), options.ignore_dots);
    let mut header = Header::read(&mut message)?;

    let mut recipients = people.recipients(&options.recipients, USAGE)?;
    if options.from_header {
        recipients.extend(people.recipients(&header.recipients(), DATA_ERROR)?);
        header.remove_bcc();
    }
    // Who stands in To and in Cc gets one copy.
    let mut seen = std::collections::HashSet::new();
    recipients.retain(|it| seen.insert(it.clone()));
    if recipients.is_empty() {
        let words = "no recipients: name them, or say -t to take them from the message";
        return Err(Refusal::new(USAGE, words));
    }

    let own = people.mailbox(&caller.name, USAGE)?;
    let reverse_path = match &options.sender {
        None => ReversePath::Mailbox(own.clone()),
        Some(text) => people.reverse_path(text)?,
    };
    header.qualify(&server.hostname);
    if !header.has("from") {
        let name = options.full_name.as_ref().unwrap_or(&caller.full_name);
        header.add_from(reverse_path.mailbox().unwrap_or(&own), name);
    }
    if !header.has("date") {
        header.add_date(Clock::system().now());
    }

    let submission = Submission {
        reverse_path,
        recipients,
        notify: options.notify,
        ret: options.ret,
        envid: options.envid.clone(),
        body: options.body,
        verbose: options.verbose,
    };
    submit::submit(&server, &submission, &header.to_bytes(), &mut message)
}
