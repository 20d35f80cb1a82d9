//! A record with everything it includes, whoever sends: how many look-ups it needs, which
//! find nothing, which other records it passes on to.
//!
//! `check_host` stops at the first match; a receiver whose client matches late meets the
//! limits that the walk counts. Names with macros depend on the message: they are counted
//! and named, not followed.

use std::net::IpAddr;
use std::pin::Pin;

use ipnet::IpNet;

use super::evaluate::is_name;
use super::macros::DomainSpec;
use super::record::{Lengths, Mechanism, Qualifier, Record, SyntaxError, is_spf};
use crate::dns::Record as DnsRecord;
use crate::dns::{self, Dns, DnsError, Kind};

/// Questions that one walk may ask: a record that needs more is far beyond its limits,
/// and somebody else's mistake must not keep us busy.
const QUESTIONS_MAXIMUM: usize = 60;

/// What stands at a domain, before anything is followed.
#[derive(Debug, Clone, PartialEq)]
pub enum Published {
    /// No SPF record.
    Nothing,
    /// More than one.
    Several(Vec<String>),
    /// One that cannot be read: its text, and what is wrong.
    Wrong(String, String),
    /// One.
    One(Box<Walk>),
    /// DNS did not answer.
    Unknown(String),
}

/// One record and what it includes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Walk {
    /// The domain that it stands at.
    pub domain: String,
    /// The record's text.
    pub text: String,
    /// How many look-ups it needs when nothing matches.
    pub lookups: usize,
    /// Terms that look for what does not exist, each with the domain of its record.
    pub voids: Vec<(String, String)>,
    /// The records it passes on to.
    pub followed: Vec<Followed>,
    /// Records on the way that are missing or cannot be read.
    pub wrong: Vec<String>,
    /// The way to a term that passes everybody.
    pub passes_all: Option<String>,
    /// Names about which DNS did not answer.
    pub troubled: Vec<String>,
    /// The way to records that would let others send and were not followed: their names
    /// have macros, or there are too many. What looks missing may stand there.
    pub unfollowed: Vec<String>,
    /// Its own terms, in order.
    pub terms: Vec<Term>,
    questions: usize,
}

/// Another domain's record that is passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The other domain.
    pub domain: String,
    /// The domains on the way, the first one and this one included.
    pub path: Vec<String>,
    /// Whether what it passes is passed by all on the way.
    pub passes: bool,
    /// Its record's text.
    pub text: String,
}

/// A term of the record itself, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// As written.
    pub text: String,
    /// Look-ups, those of what it includes among them.
    pub lookups: usize,
    /// It looks for what does not exist.
    pub void: bool,
    /// What `a` and `mx` stand for today.
    pub networks: Vec<IpNet>,
}

/// Looks at what is published at a domain, and follows it.
pub async fn walk(dns: &dyn Dns, domain: &str) -> Published {
    let texts = match spf_texts(dns, domain).await {
        Ok(texts) => texts,
        Err(words) => return Published::Unknown(words),
    };
    let [text] = &texts[..] else {
        return match texts.is_empty() {
            true => Published::Nothing,
            false => Published::Several(texts),
        };
    };
    match walk_text(dns, domain, text).await {
        Ok(walk) => Published::One(Box::new(walk)),
        Err(error) => Published::Wrong(text.clone(), error.to_string()),
    }
}

/// Follows a record as if it stood at a domain.
pub async fn walk_text(dns: &dyn Dns, domain: &str, text: &str) -> Result<Walk, SyntaxError> {
    let record = Record::parse(text)?;
    let mut walk = Walk {
        domain: domain.to_owned(),
        text: text.to_owned(),
        ..Walk::default()
    };
    let path = [domain.to_owned()];
    walk.follow(dns, &path, true, &record).await;
    Ok(walk)
}

/// The SPF records of a domain; the error in words.
async fn spf_texts(dns: &dyn Dns, domain: &str) -> Result<Vec<String>, String> {
    match dns::texts(dns, domain).await {
        Ok(texts) => Ok(texts.into_iter().filter(|it| is_spf(it)).collect()),
        Err(DnsError::NoData | DnsError::NoSuchName) => Ok(Vec::new()),
        Err(error @ DnsError::Trouble(_)) => Err(format!("{domain} TXT: {error}")),
    }
}

impl Walk {
    /// Whether `domain` is among the records that are passed on to.
    pub fn includes(&self, domain: &str) -> Option<&Followed> {
        let found = self.followed.iter().filter(|it| it.domain == domain);
        // By several ways: the best one counts.
        found.max_by_key(|it| it.passes)
    }

    fn follow<'a>(
        &'a mut self,
        dns: &'a dyn Dns,
        path: &'a [String],
        passes: bool,
        record: &'a Record,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let top = path.len() == 1;
            let here = path.last().cloned().unwrap_or_default();
            for directive in &record.directives {
                let before = self.lookups;
                let mut void = false;
                let mut networks = Vec::new();
                self.lookups += usize::from(directive.mechanism.looks_up());
                let passes = passes && directive.qualifier == Qualifier::Pass;
                match &directive.mechanism {
                    Mechanism::All => self.met_all(path, passes, &directive.text),
                    Mechanism::Network(it) if it.prefix_len() == 0 => {
                        self.met_all(path, passes, &directive.text);
                    }
                    Mechanism::Network(_) | Mechanism::Ptr(_) => {}
                    Mechanism::Include(target) => match target.literal() {
                        Some(target) => self.pass_on(dns, path, passes, &target).await,
                        None => self.not_followed(path, passes, &directive.text),
                    },
                    Mechanism::A(target, lengths) => {
                        let target = name_of(target.as_ref(), &here);
                        let found = self.addresses(dns, target).await;
                        void = found.as_ref().is_some_and(Vec::is_empty);
                        networks.extend(
                            found
                                .into_iter()
                                .flatten()
                                .filter_map(|it| net(it, *lengths)),
                        );
                    }
                    Mechanism::Mx(target, lengths) => {
                        let target = name_of(target.as_ref(), &here);
                        let servers = self.servers(dns, target).await;
                        void = servers.as_ref().is_some_and(Vec::is_empty);
                        if top {
                            for server in servers.into_iter().flatten().take(10) {
                                let found = self.addresses(dns, Some(server)).await;
                                networks.extend(
                                    found
                                        .into_iter()
                                        .flatten()
                                        .filter_map(|it| net(it, *lengths)),
                                );
                            }
                        }
                    }
                    Mechanism::Exists(target) => {
                        if let Some(target) = target.literal() {
                            void = self
                                .ask(dns, &target, Kind::A)
                                .await
                                .is_some_and(|it| it.is_empty());
                        }
                    }
                }
                if void {
                    self.voids.push((here.clone(), directive.text.clone()));
                }
                if top {
                    self.terms.push(Term {
                        text: directive.text.clone(),
                        lookups: self.lookups - before,
                        void,
                        networks,
                    });
                }
                if directive.mechanism == Mechanism::All {
                    // Nothing behind it is ever looked at.
                    return;
                }
            }
            if let Some(target) = &record.redirect {
                self.lookups += 1;
                match target.literal() {
                    Some(target) => self.pass_on(dns, path, passes, &target).await,
                    None => self.not_followed(path, passes, "redirect="),
                }
            }
        })
    }

    /// Goes on with the record of another domain.
    async fn pass_on(&mut self, dns: &dyn Dns, path: &[String], passes: bool, target: &str) {
        let way = || format!("{} → {target}", path.join(" → "));
        if path.iter().any(|it| it == target) {
            self.wrong.push(format!("{}: a loop", way()));
            return;
        }
        if self.questions >= QUESTIONS_MAXIMUM {
            return self.not_followed(path, passes, target);
        }
        self.questions += 1;
        if !is_name(target) {
            self.wrong.push(format!("{}: not a domain name", way()));
            return;
        }
        let texts = match spf_texts(dns, target).await {
            Ok(texts) => texts,
            Err(words) => return self.troubled.push(words),
        };
        let [text] = &texts[..] else {
            let what = match texts.len() {
                0 => "no SPF record",
                _ => "several SPF records",
            };
            return self.wrong.push(format!("{}: {what}", way()));
        };
        let path: Vec<String> = path.iter().cloned().chain([target.to_owned()]).collect();
        self.followed.push(Followed {
            domain: target.to_owned(),
            path: path.clone(),
            passes,
            text: text.clone(),
        });
        match Record::parse(text) {
            Ok(record) => self.follow(dns, &path, passes, &record).await,
            Err(error) => self.wrong.push(format!("{}: {error}", path.join(" → "))),
        }
    }

    fn not_followed(&mut self, path: &[String], passes: bool, term: &str) {
        if passes {
            self.unfollowed
                .push(format!("{}: {term}", path.join(" → ")));
        }
    }

    fn met_all(&mut self, path: &[String], passes: bool, term: &str) {
        if passes && self.passes_all.is_none() {
            self.passes_all = Some(format!("{}: {term}", path.join(" → ")));
        }
    }

    /// The addresses of a name, of both kinds; none: unknown.
    async fn addresses(&mut self, dns: &dyn Dns, name: Option<String>) -> Option<Vec<IpAddr>> {
        let name = name?;
        let mut found = Vec::new();
        for kind in [Kind::A, Kind::Aaaa] {
            let records = self.ask(dns, &name, kind).await?;
            found.extend(records.into_iter().filter_map(|it| match it {
                DnsRecord::Address(address) => Some(address),
                _ => None,
            }));
        }
        Some(found)
    }

    /// The mail servers of a name; none: unknown.
    async fn servers(&mut self, dns: &dyn Dns, name: Option<String>) -> Option<Vec<String>> {
        let records = self.ask(dns, &name?, Kind::Mx).await?;
        let servers = records.into_iter().filter_map(|it| match it {
            DnsRecord::Mx { exchange, .. } => Some(exchange),
            _ => None,
        });
        Some(servers.collect())
    }

    /// Records of a name; empty: there are none; none: unknown.
    async fn ask(&mut self, dns: &dyn Dns, name: &str, kind: Kind) -> Option<Vec<DnsRecord>> {
        if self.questions >= QUESTIONS_MAXIMUM {
            return None;
        }
        self.questions += 1;
        if !is_name(name) {
            return Some(Vec::new());
        }
        match dns.look_up(name, kind).await {
            Ok(records) => Some(records),
            Err(DnsError::NoSuchName | DnsError::NoData) => Some(Vec::new()),
            Err(error @ DnsError::Trouble(_)) => {
                self.troubled.push(format!("{name} {kind}: {error}"));
                None
            }
        }
    }
}

/// The name that a mechanism asks for, where no macro stands in it.
fn name_of(target: Option<&DomainSpec>, here: &str) -> Option<String> {
    match target {
        Some(target) => target.literal(),
        None => Some(here.to_owned()),
    }
}

fn net(address: IpAddr, lengths: Lengths) -> Option<IpNet> {
    super::evaluate::network(address, lengths).map(|it| it.trunc())
}
