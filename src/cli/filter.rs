//! The options that choose messages, the same for every verb.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::context::Context;
use super::edit;
use super::words::{parse_size, parse_span};
use crate::config::problem::nearest;
use crate::config::{Config, User, UserAddress};
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

/// What to say when a filter found nothing: whether that can be a typing error.
pub fn none_matches(context: &Context, filter: &Filter) -> String {
    // Whoever may not read the configuration is told less.
    let unknown = context
        .configuration()
        .ok()
        .and_then(|it| unknown_name(&it.config, filter));
    match unknown {
        Some(words) => format!("no message matches; {words}"),
        None => "no message matches".to_owned(),
    }
}

/// A name in a filter that stands nowhere in the configuration.
fn unknown_name(config: &Config, filter: &Filter) -> Option<String> {
    let written = |it: &&String| !it.contains('*');
    if let Some(relay) = filter.relay.as_ref().filter(written)
        && !config.relays.contains_key(relay)
    {
        let names = config.relays.keys().map(String::as_str);
        let near = nearest(relay, names).map(|it| format!("; did you mean {it}?"));
        return Some(format!(
            "no relay {relay} is configured{}",
            near.unwrap_or_default()
        ));
    }
    let user = filter.user.as_ref().filter(written)?;
    let folded = |it: &str| edit::user::folded(it).unwrap_or_else(|_| it.to_lowercase());
    let wanted = folded(user);
    let entry = |it: &User| match &it.address {
        UserAddress::Mailbox(mailbox) => mailbox.to_string(),
        UserAddress::Domain(domain) => format!("@{domain}"),
    };
    let is = |it: &&User| {
        let login = it.username.as_deref();
        folded(&entry(it)) == wanted || login.is_some_and(|it| folded(it) == wanted)
    };
    if config.users.iter().any(|it| is(&it)) {
        return None;
    }
    let mut users = config.users.iter();
    let owner = users.find(|it| it.aliases.iter().any(|it| it.folded() == wanted));
    Some(match owner {
        Some(owner) => format!(
            "{user} is an alias: --user {}, or --from {user}",
            entry(owner)
        ),
        None => format!("users.toml has no user {user}; for an address there is --from"),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_configured_is_told_from_one_with_nothing_waiting() {
        let config = Config::parse(
            "[relays.own]\nserver = \"a.example\"\n",
            "[[user]]\naddress = \"jan@a.example\"\naliases = [\"j@a.example\"]\nrelay = \"own\"\n",
        )
        .unwrap();
        let of = |relay: Option<&str>, user: Option<&str>| {
            let filter = Filter {
                relay: relay.map(str::to_owned),
                user: user.map(str::to_owned),
                ..Filter::default()
            };
            unknown_name(&config, &filter)
        };
        assert_eq!(
            of(Some("onw"), None).unwrap(),
            "no relay onw is configured; did you mean own?"
        );
        assert_eq!(of(Some("o*"), None), None);
        assert_eq!(of(Some("own"), Some("JAN@a.example")), None);
        let alias = of(None, Some("j@a.example")).unwrap();
        assert!(alias.contains("--user jan@a.example"), "{alias}");
        let nobody = of(None, Some("piet@a.example")).unwrap();
        assert!(nobody.contains("no user piet@a.example"), "{nobody}");
    }
}
