//! `queue`: what waits, and why.

use clap::Args;

use super::context::Context;
use super::exit::Outcome;
use super::filter::{self, FilterArgs};
use super::offline;
use super::screen::{Look, Tone};
use super::words::{count, short_size, size};
use crate::control::client::ClientError;
use crate::control::protocol::{Filter, Item, MessageState, MessageSummary, Request};

/// Options of `queue`.
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// Show at most this many
    #[arg(long, short = 'n', value_name = "NUMBER")]
    limit: Option<u64>,
    /// Only what is held, with the reasons: the same as --state held
    #[arg(long, conflicts_with = "state")]
    held: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Lists what waits, first in, first out.
pub fn queue(context: &mut Context, args: QueueArgs) -> Outcome {
    let mut filter = args.filter.filter();
    if args.held {
        filter.state = Some(MessageState::Held);
    }
    let request = Request::Queue {
        filter: filter.clone(),
        after: None,
        limit: args.limit,
    };
    let answer = match context.ask(&request) {
        Err(none @ ClientError::NoDaemon { .. }) => {
            let spool = offline::open(context, none)?;
            return offline::queue(context, &spool, &filter, args.limit);
        }
        answer => answer?,
    };
    let mut list = List::default();
    for item in answer {
        if let Item::Message(message) = item? {
            list.row(context, &message)?;
        }
    }
    list.end(context, &filter)
}

/// A list of messages that is written while it comes, so that its length costs no memory.
#[derive(Default)]
pub struct List {
    messages: u64,
    recipients: u64,
    size_bytes: u64,
    columns: Option<Columns>,
}

impl List {
    /// Writes one message.
    pub fn row(&mut self, context: &mut Context, message: &MessageSummary) -> Outcome {
        let screen = &mut context.screen;
        if screen.look.json {
            return Ok(screen.json(message)?);
        }
        let columns = match self.columns {
            Some(columns) => columns,
            None => {
                let columns = Columns::within(screen.look.width);
                let header = columns.header(&screen.look);
                screen.line(header)?;
                *self.columns.insert(columns)
            }
        };
        self.messages += 1;
        self.recipients += message.recipients;
        self.size_bytes += message.size_bytes;
        let row = columns.row(&screen.look, message);
        Ok(screen.line(row)?)
    }

    /// Writes the sum below the list, or why there is none.
    pub fn end(self, context: &mut Context, filter: &Filter) -> Outcome {
        if context.screen.look.json {
            return Ok(());
        }
        if self.messages == 0 {
            let words = match filter.is_empty() {
                true => "nothing waits".to_owned(),
                false => filter::none_matches(context, filter),
            };
            return Ok(context.screen.say(&words)?);
        }
        let screen = &mut context.screen;
        Ok(screen.say(&format!(
            "{}, {}, {}",
            count(self.messages, "message", "messages"),
            count(self.recipients, "recipient", "recipients"),
            size(self.size_bytes),
        ))?)
    }
}

/// The widths of the columns that depend on the screen.
#[derive(Debug, Clone, Copy)]
struct Columns {
    from: usize,
    to: usize,
    /// Left out where there is no room.
    relay: usize,
    why: usize,
}

/// Of a queue id.
const ID: usize = 13;
/// Of an age and of a size.
const AGE: usize = 3;
const SIZE: usize = 5;
/// What the fixed columns and the spaces behind them use.
const FIXED: usize = ID + 2 + AGE + 2 + SIZE + 2;
/// The longest reason, `sender-not-allowed`.
const WHY: usize = 18;

impl Columns {
    fn within(width: usize) -> Self {
        let mut room = width - FIXED - WHY - 2;
        // From about 100 columns on the relay has room; it is part of the reason otherwise.
        let relay = if room >= 50 { 10 } else { 0 };
        if relay > 0 {
            room -= relay + 2;
        }
        // Addresses of more than 40 letters are rare; what is left explains the reason.
        let address = ((room - 2) / 2).min(40);
        let why = WHY + (room - 2 - 2 * address);
        Self {
            from: address,
            to: address,
            relay,
            why,
        }
    }

    fn header(&self, look: &Look) -> String {
        let text = self.join(
            look,
            [
                look.cell("ID", ID),
                look.right("AGE", AGE),
                look.right("SIZE", SIZE),
                look.cell("FROM", self.from),
                look.cell("TO", self.to),
            ],
            "RELAY",
        );
        look.tone(Tone::Strong, &format!("{text}WHY"))
    }

    fn row(&self, look: &Look, message: &MessageSummary) -> String {
        let text = self.join(
            look,
            [
                look.cell(&message.id, ID),
                look.right(&look.words.age(message.accepted), AGE),
                look.right(&short_size(message.size_bytes), SIZE),
                look.cell(&message.from, self.from),
                recipients(look, message, self.to),
            ],
            &message.relay,
        );
        let why = match self.why {
            ..60 => short_why(look, message),
            _ => long_why(look, message),
        };
        let why = look.fit(&why, self.why);
        text + &look.tone(tone(message.state), &why)
    }

    fn join(&self, look: &Look, cells: [String; 5], relay: &str) -> String {
        let mut text = cells.join("  ");
        text.push_str("  ");
        if self.relay > 0 {
            text.push_str(&look.cell(relay, self.relay));
            text.push_str("  ");
        }
        text
    }
}

/// `bob@example.net +2`, with the number never cut off.
fn recipients(look: &Look, message: &MessageSummary, width: usize) -> String {
    match message.recipients {
        0 | 1 => look.cell(&message.to, width),
        many => {
            let more = format!(" +{}", many - 1);
            let shown = look.fit(&message.to, width.saturating_sub(more.len())) + &more;
            look.cell(&shown, width)
        }
    }
}

/// `limit 14:05`: the reason in a word and when it may pass.
fn short_why(look: &Look, message: &MessageSummary) -> String {
    match message.next {
        Some(next) if next > look.words.now => {
            format!("{} {}", message.why, look.words.time(next))
        }
        _ => message.why.clone(),
    }
}

/// The reason in a sentence, where the screen is wide.
fn long_why(look: &Look, message: &MessageSummary) -> String {
    let mut why = short_why(look, message);
    let more = message.error.as_deref().unwrap_or(&message.why_text);
    if !more.is_empty() {
        why = format!("{why}: {more}");
    }
    why
}

/// How a state looks.
pub fn tone(state: MessageState) -> Tone {
    match state {
        MessageState::Waiting => Tone::Faint,
        MessageState::Sending => Tone::Good,
        MessageState::Deferred => Tone::Warning,
        MessageState::Paused | MessageState::Held => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::tests::look;

    fn message() -> MessageSummary {
        MessageSummary {
            id: "1k9xw3q5g0000".into(),
            accepted: "2026-11-21T12:00:00Z".parse().unwrap(),
            from: "jan@uwdomein.nl".into(),
            to: "a.very.long.name@department.example.net".into(),
            recipients: 3,
            size_bytes: 4096,
            user: None,
            relay: "own".into(),
            mailing: "Vacatures".into(),
            mailing_key: "s-1".into(),
            state: MessageState::Deferred,
            why: "retry".into(),
            why_text: "the last attempt failed for the time being".into(),
            next: Some("2026-11-21T13:05:00Z".parse().unwrap()),
            attempts: 1,
            error: Some("450 4.7.1 greylisted".into()),
        }
    }

    fn shown(width: usize, message: &MessageSummary) -> [String; 2] {
        let look = Look { width, ..look() };
        let columns = Columns::within(width);
        [columns.header(&look), columns.row(&look, message)]
    }

    #[test]
    fn a_row_tells_who_to_whom_and_why_in_eighty_columns() {
        assert_eq!(
            shown(80, &message()),
            [
                "ID             AGE   SIZE  FROM             TO               WHY",
                "1k9xw3q5g0000   1h     4k  jan@uwdomein.nl  a.very…e.net +2  retry 14:05",
            ]
        );
    }

    #[test]
    fn no_row_is_wider_than_the_screen() {
        let mut wide = message();
        wide.why = "sender-not-allowed".into();
        wide.why_text = "x".repeat(500);
        wide.error = None;
        for width in 60..300 {
            for line in shown(width, &wide) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn a_wide_screen_shows_the_relay_and_its_words() {
        let [header, row] = shown(200, &message());
        assert!(header.contains("RELAY"));
        assert!(row.contains("  own  "), "{row}");
        assert!(row.ends_with("retry 14:05: 450 4.7.1 greylisted"), "{row}");
    }
}
