//! The options that choose messages, the same for every verb.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::words::{parse_size, parse_span};
use crate::control::protocol::{Filter, MessageState};
use crate::mail::QueueId;

/// Which messages. All that is given must match; `*` stands for any text.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which messages (all must match; * stands for any text)")]
pub struct FilterArgs {
    /// Messages with these queue ids
    #[arg(value_name = "ID", value_parser = queue_id)]
    ids: Vec<String>,
    /// Of this entry of users.toml, or submitted with this login
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// From this address, or @DOMAIN
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// With this recipient still to go, or @DOMAIN
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// For this relay
    #[arg(long, value_name = "RELAY")]
    relay: Option<String>,
    /// Of this mailing: its label or its key
    #[arg(long, value_name = "MAILING")]
    mailing: Option<String>,
    /// In this state
    #[arg(long, value_name = "STATE", value_parser = state())]
    state: Option<MessageState>,
    /// Accepted longer ago than this, like 90s, 15m, 2h or 4d
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    older_than: Option<u64>,
    /// Larger than this, like 500kB or 10MB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    larger_than: Option<u64>,
    /// Whose last error contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
}

impl FilterArgs {
    /// The filter as the daemon takes it.
    pub fn filter(self) -> Filter {
        Filter {
            ids: self.ids,
            user: self.user,
            from: self.from,
            to: self.to,
            relay: self.relay,
            mailing: self.mailing,
            state: self.state,
            older_than_seconds: self.older_than,
            larger_than_bytes: self.larger_than,
            error: self.error,
        }
    }
}

/// Reads a queue id; the daemon gets it as it prints them.
pub fn queue_id(text: &str) -> Result<String, String> {
    text.parse::<QueueId>()
        .map(|id| id.to_string())
        .map_err(|error| error.to_string())
}

fn state() -> impl TypedValueParser<Value = MessageState> {
    PossibleValuesParser::new(MessageState::ALL.map(MessageState::name)).map(|text| {
        MessageState::ALL
            .into_iter()
            .find(|it| it.name() == text)
            .expect("clap lets only these names through")
    })
}
