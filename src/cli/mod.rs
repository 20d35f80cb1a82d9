//! `penstock`, the companion of the daemon, for the people who look after it.
//!
//! One file a group of verbs. Every verb prints tables for people, cut to the screen, and
//! with `--json` one whole object a line for programs. What a verb needs to know it asks
//! the daemon over the control socket ([`crate::control`]); lists are written while they
//! arrive, so their length costs no memory.

mod beside;
mod change;
mod check;
pub mod config;
mod context;
mod demo;
pub mod edit;
mod exit;
mod explain;
mod filter;
mod hints;
mod import;
mod limits;
mod offline;
mod queue;
mod relay;
mod route;
mod screen;
mod sendmail;
mod shell;
mod show;
mod status;
mod top;
mod trace;
mod user;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::control::protocol::Action;
use change::{ChangeArgs, NotedArgs, RerouteArgs};
use context::Context;
use exit::{Outcome, Trouble};
use screen::Screen;

/// Looks after penstockd: what waits and why, the relays and their limits.
#[derive(Debug, Parser)]
#[command(name = "penstock", version = crate::VERSION_AND_COMMIT, disable_help_subcommand = true)]
#[command(max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// For programs: one JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// The daemon's control socket [default: /run/penstock/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration file [default: /etc/penstock/penstock.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How the daemon is, and what somebody should look at
    Status,
    /// What waits, and why
    Queue(queue::QueueArgs),
    /// Everything about one message: its recipients, what relays said, why it waits
    Show(show::OneArgs),
    /// The content of one message, as it is sent
    Cat(show::OneArgs),
    /// What became of a message, of the last 7 days
    Trace(trace::TraceArgs),
    /// Keep messages until they are released
    Hold(NotedArgs),
    /// Let held messages go
    Release(ChangeArgs),
    /// Try messages now instead of later
    Retry(ChangeArgs),
    /// Send messages by another relay
    Reroute(RerouteArgs),
    /// Drop messages; nobody is told
    Delete(NotedArgs),
    /// Give messages up; their senders get a report
    Fail(NotedArgs),
    /// What is used and left of the relays' limits, and when the next batch opens
    Limits(limits::RelayArgs),
    /// The mailings that wait or ended within the hour
    Mailings(limits::RelayArgs),
    /// The relays
    #[command(subcommand)]
    Relay(relay::RelayVerb),
    /// The users: who sends through which relay
    #[command(subcommand)]
    User(user::UserVerb),
    /// Take over the configuration of another program
    #[command(subcommand)]
    Import(import::ImportVerb),
    /// Queue, relays and limits, live
    Top(top::TopArgs),
    /// Which relay a From address gets, and why
    Route(route::RouteArgs),
    /// What would hurt delivery: of addresses, of a message, or of all that is configured
    Check(check::CheckArgs),
    /// What hurts delivery of the mail that goes through now
    Hints(hints::HintsArgs),
    /// What a refusal means and what to do: penstock explain "553 sorry, ..."
    Explain(explain::ExplainArgs),
    /// The configuration: checked, or with every value that takes effect
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Have the daemon read its configuration again
    Reload,
    /// The classic command: reads a message and submits it (also under the name sendmail)
    #[command(disable_help_flag = true)]
    Sendmail {
        /// Options and recipients; sendmail --help lists them
        #[arg(
            value_name = "OPTION|RECIPIENT",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        arguments: Vec<OsString>,
    },
    /// Show Penstock at work, in a folder of its own that vanishes afterwards
    Demo(demo::DemoArgs),
    /// What a shell needs to complete verbs and options
    Completions(shell::CompletionsArgs),
    /// This manual, for man(1): penstock man | man -l -
    Man(shell::ManArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Check both files as the daemon would; exits 78 if it would not start with them
    Check,
    /// Every value as it takes effect, and where limits come from; secrets as ***
    Show,
}

/// Runs `penstock` with the arguments of this process.
pub fn main() -> ExitCode {
    let words = match called_as(std::env::args_os().collect()) {
        Called::Penstock(words) => words,
        Called::Sendmail(arguments) => return sendmail::main(arguments),
        // There is no alias database to build.
        Called::NewAliases => return ExitCode::SUCCESS,
    };
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody reads it? Then nobody is told.
            error.print().ok();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(64),
            };
        }
    };
    let screen = Screen::standard(arguments.json);
    let mut context = Context::new(screen, arguments.socket, arguments.config);
    let outcome = run(&mut context, arguments.verb);
    // What was found out before something went wrong is still worth seeing, and comes first.
    let shown = context.screen.flush().map_err(Trouble::from);
    match outcome.and(shown) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => trouble.report("penstock"),
    }
}

/// What this program was called as.
#[derive(Debug, PartialEq, Eq)]
enum Called {
    /// Itself, with all words of the command line.
    Penstock(Vec<OsString>),
    /// `sendmail`, by that name or with that verb, with its arguments. Its options are
    /// older than ours and read differently, `--json` and `-h` included.
    Sendmail(Vec<OsString>),
    /// `newaliases`, which other mail systems install beside it.
    NewAliases,
}

fn called_as(words: Vec<OsString>) -> Called {
    let queue = |options: &[OsString]| {
        let mut queue: Vec<OsString> = vec!["penstock".into(), "queue".into()];
        queue.extend_from_slice(options);
        Called::Penstock(queue)
    };
    let name = words.first().and_then(|it| Path::new(it).file_name());
    match name.and_then(|it| it.to_str()) {
        Some("sendmail") if words[1..] == ["-bp"] => queue(&[]),
        Some("sendmail") => Called::Sendmail(words[1..].to_vec()),
        Some("newaliases") => Called::NewAliases,
        Some("mailq") => queue(&words[1..]),
        _ if words.get(1).is_some_and(|it| it == "sendmail") => {
            Called::Sendmail(words[2..].to_vec())
        }
        _ => Called::Penstock(words),
    }
}

fn run(context: &mut Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Config(verb) => configuration(context, verb),
        Verb::Status => status::status(context),
        Verb::Demo(args) => demo::demo(context, &args),
        Verb::Queue(args) => queue::queue(context, args),
        Verb::Show(args) => show::show(context, args),
        Verb::Cat(args) => show::cat(context, args),
        Verb::Trace(args) => trace::trace(context, args),
        Verb::Hold(args) => change::noted(context, Action::Hold, args),
        Verb::Release(args) => change::change(context, Action::Release, args, None),
        Verb::Retry(args) => change::change(context, Action::Retry, args, None),
        Verb::Reroute(args) => change::reroute(context, args),
        Verb::Delete(args) => change::noted(context, Action::Delete, args),
        Verb::Fail(args) => change::noted(context, Action::Fail, args),
        Verb::Limits(args) => limits::limits(context, args),
        Verb::Mailings(args) => limits::mailings(context, args),
        Verb::Relay(verb) => relay::relay(context, verb),
        Verb::User(verb) => user::user(context, verb),
        Verb::Import(verb) => import::import(context, verb),
        Verb::Top(args) => top::top(context, args),
        Verb::Route(args) => route::route(context, args),
        Verb::Check(args) => check::check(context, args),
        Verb::Hints(args) => hints::hints(context, args),
        Verb::Explain(args) => explain::explain(context, args),
        Verb::Reload => status::reload(context),
        Verb::Sendmail { mut arguments } => {
            // It looks where the daemon listens in the configuration that was named.
            let config = context.config_path().as_os_str().to_owned();
            arguments.splice(0..0, ["--config".into(), config]);
            Err(Trouble::said(sendmail::main(arguments)))
        }
        Verb::Completions(args) => shell::completions(context, args, Arguments::command()),
        Verb::Man(args) => shell::man(context, args, Arguments::command()),
    }
}

/// The configuration's verbs print by themselves and say how they end.
fn configuration(context: &Context, verb: ConfigVerb) -> Outcome {
    let (path, json) = (context.config_path(), context.screen.look.json);
    match verb {
        ConfigVerb::Check => Err(Trouble::said(config::check(path, json)?)),
        ConfigVerb::Show => Err(Trouble::said(config::show(path, json)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a line as a shell takes them, up to a pipe or a redirection.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let (mut word, mut quote, mut begun) = (String::new(), None, false);
        for letter in line.chars() {
            match (quote, letter) {
                (Some(end), it) if it == end => quote = None,
                (None, '\'' | '"') => (quote, begun) = (Some(letter), true),
                (None, '|' | '>' | '<') => break,
                (None, ' ') => {
                    if std::mem::take(&mut begun) {
                        words.push(std::mem::take(&mut word));
                    }
                }
                (_, it) => {
                    word.push(it);
                    begun = true;
                }
            }
        }
        if begun {
            words.push(word);
        }
        words
    }

    #[test]
    fn links_with_the_names_of_the_classic_commands_do_what_these_do() {
        let called = |line: &str| called_as(line.split(' ').map(OsString::from).collect());
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            called("/usr/sbin/sendmail -t"),
            Called::Sendmail(words("-t"))
        );
        assert_eq!(
            called("penstock sendmail -t"),
            Called::Sendmail(words("-t"))
        );
        assert_eq!(called("/usr/bin/newaliases"), Called::NewAliases);
        let queue = Called::Penstock(words("penstock queue --json"));
        assert_eq!(called("/usr/bin/mailq --json"), queue);
        assert_eq!(
            called("sendmail -bp"),
            Called::Penstock(words("penstock queue"))
        );
        assert_eq!(called("penstock queue --json"), queue);
    }

    #[test]
    fn every_call_on_the_pages_is_understood_whole() {
        let mut calls = 0;
        for page in [
            include_str!("../../docs/verbs.md"),
            include_str!("../../docs/cli.md"),
        ] {
            for line in page.lines() {
                let Some(call) = line.strip_prefix("$ penstock ") else {
                    continue;
                };
                let asked = words(&format!("penstock {call}"));
                if let Err(wrong) = Arguments::command().try_get_matches_from(asked) {
                    let shown = !wrong.use_stderr();
                    assert!(shown, "{call}: {wrong}");
                }
                calls += 1;
            }
        }
        assert!(calls > 50, "{calls}");
    }
}
