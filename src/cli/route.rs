//! `route`: where mail from an address or a message goes, and which rule says so.

use std::fs::File;
use std::io::{self, Read};

use clap::Args;

use super::beside::aside;
use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::screen::Tone;
use crate::control::client::ClientError;
use crate::control::protocol::{Item, RelayState, Request, RouteReport};
use crate::mail::Mailbox;
use crate::mail::header::mailbox_list::mailbox_list;
use crate::mail::header::{HEADER_MAXIMUM, Header};
use crate::route::Directory;

/// Options of `route`.
#[derive(Debug, Args)]
pub struct RouteArgs {
    /// A From address, or a file with a message, or - for standard input
    #[arg(value_name = "ADDRESS|FILE.eml|-")]
    from: String,
}

/// Shows where mail goes: as the daemon sends it, or, with the daemon stopped, as the
/// configuration on disk says.
pub fn route(context: &mut Context, args: RouteArgs) -> Outcome {
    let address = sender(&args.from)?;
    let request = Request::Route {
        address: address.to_string(),
    };
    let asked = context.ask(&request);
    let report = match asked {
        Err(ClientError::NoDaemon { .. }) => {
            let config = context.configuration()?.config;
            let report = by_configuration(&Directory::new(&config), &address)?;
            if !context.screen.look.json {
                aside("penstock: penstockd does not run; this is what the configuration says");
            }
            report
        }
        asked => {
            let mut found = None;
            for item in asked? {
                if let Item::Route(report) = item? {
                    found = Some(report);
                }
            }
            found.ok_or_else(|| Trouble::failed("penstockd answered without saying anything"))?
        }
    };
    print(context, &report)
}

/// The address that decides: the one given, or the one in the message's header.
fn sender(from: &str) -> Result<Mailbox, Trouble> {
    let mut header = Vec::new();
    let limit = HEADER_MAXIMUM as u64 + 4;
    let read = match from {
        "-" => io::stdin().lock().take(limit).read_to_end(&mut header),
        _ => match Mailbox::parse(from) {
            Ok(address) => return Ok(address),
            Err(wrong) => match File::open(from) {
                Ok(file) => file.take(limit).read_to_end(&mut header),
                Err(_) => {
                    return in_a_field(from).ok_or_else(|| {
                        Trouble::usage(format!("{from} is neither a file nor an address: {wrong}"))
                    });
                }
            },
        },
    };
    read.map_err(|error| Trouble::failed(format!("cannot read {from}: {error}")))?;
    let header = Header::scan(&header)
        .map_err(|error| Trouble::failed(format!("{from} is not a message: {error}")))?;
    match header.identity() {
        Ok(Some(address)) => Ok(address.clone()),
        Ok(None) => Err(Trouble::failed(format!(
            "{from} has no From field; such mail is routed by its reverse-path: penstock route ADDRESS"
        ))),
        Err(error) => Err(Trouble::failed(format!("{from} would be refused: {error}"))),
    }
}

/// The mailbox of what was copied from a From field, name and angle brackets included.
fn in_a_field(text: &str) -> Option<Mailbox> {
    let found = mailbox_list("From", text.as_bytes()).ok()?;
    found.into_iter().next()
}

/// What the directory says, every relay taken for active.
fn by_configuration(directory: &Directory, address: &Mailbox) -> Result<RouteReport, Trouble> {
    let route = directory
        .route(address, &|_| true)
        .map_err(|error| Trouble::failed(error.to_string()))?;
    Ok(RouteReport {
        address: address.to_string(),
        relay: route.relay,
        user: Some(route.user).filter(|it| !it.is_empty()),
        rule: route.rule.to_string(),
        state: None,
    })
}

fn print(context: &mut Context, report: &RouteReport) -> Outcome {
    let screen = &mut context.screen;
    if screen.look.json {
        return Ok(screen.json(report)?);
    }
    let state = match report.state {
        None | Some(RelayState::Active) => String::new(),
        Some(state) => {
            let text = format!(", which is {}", state.name());
            screen.look.tone(Tone::Warning, &text)
        }
    };
    Ok(screen.line(format!(
        "{} goes by relay {}{state}\nbecause of {}",
        screen.look.fit(&report.address, 300),
        screen.look.fit(&report.relay, 100),
        screen.look.fit(&report.rule, 300),
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_the_name_that_stands_before_it_in_a_message() {
        for text in ["Jan <jan@example.nl>", "<jan@example.nl>", "jan@example.nl"] {
            let found = sender(text).map(|it| it.to_string());
            assert_eq!(found.ok().as_deref(), Some("jan@example.nl"), "{text}");
        }
        assert!(sender("Jan <jan>").is_err());
    }
}
