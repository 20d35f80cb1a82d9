//! `check`: what would hurt delivery, before anything is sent; works without the daemon.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;

use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::hints::{print, verdict};
use crate::clock::Clock;
use crate::config::{Config, Relay, UserAddress};
use crate::control::protocol::HintReport;
use crate::dns::Resolver;
use crate::hint::{self, Bulk, Finding, Pair, Seen, content};
use crate::mail::header::Header;
use crate::mail::{Domain, Mailbox};
use crate::route::Directory;

/// Addresses of a message's header that are looked at.
const RECIPIENTS_MAXIMUM: usize = 100;

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A From address and recipients, or a file with a message (or -), or nothing: all
    /// that is configured
    #[arg(value_name = "FROM|TO|FILE.eml")]
    what: Vec<String>,
    /// As if this relay carried it, and not the one that the directory says
    #[arg(long, value_name = "RELAY")]
    relay: Option<String>,
    /// Ask this name server and not the system's, like 192.0.2.53 or [2001:db8::53]:53
    #[arg(long, value_name = "ADDRESS", value_parser = name_server)]
    dns: Option<SocketAddr>,
}

fn name_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse()
        .or_else(|_| bare.parse().map(|address| SocketAddr::new(address, 53)))
        .map_err(|_| "not an address, with or without a port".to_owned())
}

/// What is looked into.
struct Question {
    from: Mailbox,
    relay: Arc<Relay>,
    to_itself: Seen,
}

/// Checks addresses, a message, or the whole configuration.
pub fn check(context: &mut Context, args: CheckArgs) -> Outcome {
    let config = context.configuration()?.config;
    let asked = Asked::read(&args.what)?;
    let directory = Directory::new(&config);
    if let Some(relay) = &args.relay
        && !config.relays.contains_key(relay)
    {
        return Err(no_such_relay(relay));
    }
    let questions = match &asked.from {
        Some(from) => vec![Question {
            relay: relay_for(&config, &directory, from, args.relay.as_deref())?,
            from: from.clone(),
            to_itself: asked.to_itself(from),
        }],
        None if asked.message.is_some() => Vec::new(),
        None => everything(&config, &directory, args.relay.as_deref())?,
    };
    if questions.is_empty() && asked.message.is_none() {
        return Err(Trouble::failed(
            "there is nothing to check: no user and no relay with a sender is configured",
        )
        .and("name a From address: penstock check jan@example.nl"));
    }
    let asks = config.hints.dns || args.dns.is_some();
    let questions = if asks { questions } else { Vec::new() };
    let resolver = match args.dns {
        Some(server) => Resolver::with_server(server),
        None => Resolver::system(),
    };
    let resolver = resolver.map_err(|error| Trouble::failed(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut reports = Vec::new();
    if let Some((octets, is_whole)) = &asked.message {
        let found = hint::by_content(&config, octets, *is_whole, &asked.name);
        reports.extend(found.into_iter().map(|it| report(&config, it, None)));
    }
    for question in &questions {
        let pair = Pair::new(&question.from, question.relay.clone(), None);
        let bulk = Bulk::configured(&question.relay);
        let found = runtime.block_on(hint::by_dns(
            &resolver,
            &config,
            &pair,
            question.to_itself,
            &bulk,
        ));
        let relay = Some(question.relay.name.clone());
        reports.extend(
            found
                .findings
                .into_iter()
                .map(|it| report(&config, it, relay.clone())),
        );
    }
    if !context.screen.look.json {
        if !asks {
            context
                .screen
                .say("DNS was not asked: [hints] dns = false; or name a server with --dns")?;
        }
        if asked.message.is_some() && asked.from.is_none() {
            context.screen.say(&format!(
                "checked: the content of {}; it has no From, so nothing else",
                asked.name
            ))?;
        }
        for question in &questions {
            context.screen.line(context.screen.look.fit(
                &format!(
                    "checked: {} by relay {}",
                    question.from, question.relay.name
                ),
                context.screen.look.width,
            ))?;
        }
        if reports.is_empty() {
            context
                .screen
                .line("nothing was found that would hurt delivery")?;
        } else {
            context.screen.line("")?;
        }
    }
    print(&mut context.screen, &reports)?;
    verdict(&reports)
}

/// What the command line names.
#[derive(Default)]
struct Asked {
    from: Option<Mailbox>,
    to: Vec<Mailbox>,
    /// The beginning of a message, and whether it is all of it.
    message: Option<(Vec<u8>, bool)>,
    name: String,
}

impl Asked {
    fn read(words: &[String]) -> Result<Self, Trouble> {
        let mut asked = Self::default();
        for word in words {
            match Mailbox::parse(word) {
                Ok(address) if asked.from.is_none() => asked.from = Some(address),
                Ok(address) => asked.to.push(address),
                Err(_) if asked.message.is_some() => {
                    return Err(Trouble::usage(format!(
                        "{word} is not an address, and one message is enough"
                    )));
                }
                Err(wrong) => {
                    asked.message = Some(message(word, &wrong.to_string())?);
                    asked.name.clone_from(word);
                }
            }
        }
        if let Some((octets, _)) = &asked.message {
            let header = Header::scan(octets).map_err(|error| {
                Trouble::failed(format!("{} is not a message: {error}", asked.name))
            })?;
            if asked.from.is_none() {
                asked.from = match header.identity() {
                    Ok(from) => from.cloned(),
                    Err(error) => {
                        return Err(Trouble::failed(format!(
                            "{} would be refused: {error}",
                            asked.name
                        )));
                    }
                };
            }
            asked
                .to
                .extend(content::recipients(octets, RECIPIENTS_MAXIMUM));
        }
        Ok(asked)
    }

    fn to_itself(&self, from: &Mailbox) -> Seen {
        let same = |it: &Mailbox| hint::same_domain::applies(from.domain(), it.domain());
        match (self.to.is_empty(), self.to.iter().any(same)) {
            (true, _) => Seen::Possible,
            (false, true) => Seen::Yes,
            (false, false) => Seen::No,
        }
    }
}

/// The beginning of a message in a file, and whether it is all of it.
fn message(name: &str, wrong: &str) -> Result<(Vec<u8>, bool), Trouble> {
    let mut octets = Vec::new();
    let limit = content::OCTETS_MAXIMUM as u64 + 1;
    let read = match name {
        "-" => io::stdin().lock().take(limit).read_to_end(&mut octets),
        _ => match File::open(name) {
            Ok(file) => file.take(limit).read_to_end(&mut octets),
            Err(error) => {
                return Err(Trouble::usage(format!(
                    "{name} is neither an address ({wrong}) nor a file that can be read: {error}"
                )));
            }
        },
    };
    read.map_err(|error| Trouble::failed(format!("cannot read {name}: {error}")))?;
    let is_whole = octets.len() <= content::OCTETS_MAXIMUM;
    octets.truncate(content::OCTETS_MAXIMUM);
    Ok((octets, is_whole))
}

fn relay_for(
    config: &Config,
    directory: &Directory,
    from: &Mailbox,
    wanted: Option<&str>,
) -> Result<Arc<Relay>, Trouble> {
    let name = match wanted {
        Some(name) => name.to_owned(),
        None => {
            let route = directory.route(from, &|_| true);
            route
                .map_err(|error| Trouble::failed(error.to_string()))?
                .relay
        }
    };
    let found = config.relays.get(&name).cloned().map(Arc::new);
    found.ok_or_else(|| no_such_relay(&name))
}

fn no_such_relay(name: &str) -> Trouble {
    Trouble::failed(format!(
        "no relay is called {name}; penstock config show has their names"
    ))
}

/// Every From domain of the configuration with the relay that carries it.
fn everything(
    config: &Config,
    directory: &Directory,
    wanted: Option<&str>,
) -> Result<Vec<Question>, Trouble> {
    let mut addresses: Vec<Mailbox> = Vec::new();
    for user in &config.users {
        match &user.address {
            UserAddress::Mailbox(address) => addresses.push(address.clone()),
            UserAddress::Domain(domain) => addresses.extend(anybody(domain)),
        }
        addresses.extend(user.aliases.iter().cloned());
    }
    addresses.extend(config.relays.values().filter_map(|it| it.sender.clone()));
    addresses.extend(config.admin.clone());
    let mut seen = BTreeSet::new();
    let mut questions = Vec::new();
    for from in addresses {
        let Ok(route) = directory.route(&from, &|_| true) else {
            continue;
        };
        let pair = (from.domain().ascii().to_owned(), route.relay.clone());
        if wanted.is_some_and(|it| it != route.relay) || !seen.insert(pair) {
            continue;
        }
        questions.push(Question {
            relay: relay_for(config, directory, &from, Some(&route.relay))?,
            from,
            to_itself: Seen::Possible,
        });
    }
    Ok(questions)
}

/// Somebody of a domain, for an entry that means everybody.
fn anybody(domain: &Domain) -> Option<Mailbox> {
    Mailbox::new("postmaster", domain.clone()).ok()
}

/// A finding as it is shown.
fn report(config: &Config, finding: Finding, relay: Option<String>) -> HintReport {
    HintReport {
        hint: finding.hint.name().to_owned(),
        severity: finding.severity.name().to_owned(),
        subject: finding.subject,
        relay,
        found: finding.found,
        evidence: finding.evidence,
        remedy: finding.remedy,
        record: finding.record.map(|it| it.to_string()),
        action: config.hints.action(finding.hint).name().to_owned(),
        messages: 0,
        last_seen: Clock::system().now(),
    }
}
