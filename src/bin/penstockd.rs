//! The daemon's command line.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use penstock::daemon;

/// Accepts mail from local applications and releases it through each sender's own relay.
///
/// Runs in the foreground until SIGTERM or SIGINT; SIGHUP reloads the configuration.
/// Exit status: 0 stopped as asked, 1 failed, 64 wrong arguments, 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "penstockd", version = penstock::VERSION_AND_COMMIT, max_term_width = 80)]
struct Arguments {
    /// The configuration; users.toml is found through it.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/penstock/penstock.toml"
    )]
    config: PathBuf,

    /// Where log lines go: the journal or standard error as text, or as JSON.
    #[arg(long, value_enum, default_value_t)]
    log: daemon::log::Format,

    /// The least level that is logged (error, warn, info, debug, trace), or a filter.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,

    /// Write the manual page, for whoever makes a package.
    #[arg(long, hide = true)]
    man: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no mistake; all else is EX_USAGE of sysexits.
            let asked = !error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if asked { 0 } else { 64 });
        }
    };
    if arguments.man {
        return manual();
    }
    daemon::log::start(arguments.log, &arguments.log_level);
    daemon::main(&arguments.config)
}

/// penstockd(8), as the arguments above say it.
fn manual() -> ExitCode {
    let page = clap_mangen::Man::new(Arguments::command())
        .section("8")
        .source(format!("penstock {}", penstock::VERSION));
    match page.render(&mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "penstockd: cannot write: {error}").ok();
            ExitCode::from(1)
        }
    }
}
