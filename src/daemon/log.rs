//! Where log lines go: to the journal with their fields, or to standard error.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// The journal when systemd listens on standard error, else plain.
    #[default]
    Auto,
    /// One line of text an event.
    Plain,
    /// One JSON object an event.
    Json,
}

/// Sends log lines to where `format` says, those of `level` and above.
///
/// The level is a word (`info`) or a filter of tracing (`info,penstock::relay=debug`);
/// what does not parse falls back to `info`, with a warning.
pub fn start(format: Format, level: &str) {
    let parsed = EnvFilter::try_new(level);
    let unparsed = parsed.is_err();
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let plain = || {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_target(false)
            // It would say on standard error that standard error cannot be written to.
            .log_internal_errors(false)
    };
    let journal = (format == Format::Auto && stderr_is_the_journal())
        .then(|| tracing_journald::layer().ok())
        .flatten();
    let started = match (format, journal) {
        (_, Some(journal)) => registry
            .with(journal.with_field_prefix(Some("PENSTOCK".into())))
            .try_init(),
        (Format::Json, None) => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .log_internal_errors(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
        (Format::Auto | Format::Plain, None) => registry.with(plain()).try_init(),
    };
    if let Err(error) = started {
        writeln!(
            std::io::stderr(),
            "penstockd: log lines go nowhere: {error}"
        )
        .ok();
    }
    if unparsed {
        tracing::warn!(
            level,
            "the log level is not a word like info or debug: info is used"
        );
    }
}

/// Whether standard error is the stream that systemd announces in `JOURNAL_STREAM`.
fn stderr_is_the_journal() -> bool {
    let Ok(announced) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    announced == format!("{}:{}", stderr.dev(), stderr.ino())
}
