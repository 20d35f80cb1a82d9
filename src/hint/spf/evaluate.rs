//! `check_host()` of RFC 7208: what a receiver makes of one address.
//!
//! Ours, and not a library's: the result alone does not tell an administrator what to
//! change. This one also says which term decided, over which includes, and it asks the
//! resolver that everything else here asks (see docs/dependencies.md for what was
//! measured). Explanations (`exp=`) are read and not fetched: nobody is refused by this.

use std::net::IpAddr;
use std::pin::Pin;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::macros::{DomainSpec, Values};
use super::record::{Lengths, Mechanism, Qualifier, Record, is_spf};
use crate::dns::Record as DnsRecord;
use crate::dns::{self, Dns, DnsError, Kind};

/// Terms that look something up (RFC 7208 section 4.6.4).
pub const LOOKUPS_MAXIMUM: usize = 10;
/// Of those, the ones that find nothing.
pub const VOIDS_MAXIMUM: usize = 2;
/// Mail servers of one `mx`, and names of one `ptr`.
const NAMES_MAXIMUM: usize = 10;

/// Whose mail is judged.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// The address it comes from.
    pub address: IpAddr,
    /// The local part of its reverse-path.
    pub local: &'a str,
    /// The domain of its reverse-path.
    pub domain: &'a str,
    /// The name it greets with.
    pub helo: &'a str,
}

/// What a receiver concludes (RFC 7208 section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is no record.
    None,
    /// The record says nothing about the address.
    Neutral,
    /// The address may send.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// DNS did not answer.
    TempError,
    /// The record is wrong.
    PermError,
}

impl Outcome {
    /// The word of the standard.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What came of it, and by which term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The result.
    pub outcome: Outcome,
    /// The domains on the way and the term that decided, or what was wrong.
    pub because: String,
}

/// Judges an address by the record of `domain`, which is the domain of the reverse-path
/// unless that is null.
pub async fn check_host(dns: &dyn Dns, domain: &str, client: Client<'_>) -> Evaluation {
    let mut work = Work {
        dns,
        client: Client {
            address: client.address.to_canonical(),
            local: match client.local {
                "" => "postmaster",
                local => local,
            },
            ..client
        },
        lookups: 0,
        voids: 0,
        validated: None,
    };
    match work
        .judge(domain.trim_end_matches('.').to_ascii_lowercase())
        .await
    {
        Ok(verdict) => Evaluation {
            outcome: verdict.outcome,
            because: verdict.because,
        },
        Err(stop) => Evaluation {
            outcome: stop.outcome,
            because: stop.because,
        },
    }
}

struct Work<'a> {
    dns: &'a dyn Dns,
    client: Client<'a>,
    lookups: usize,
    voids: usize,
    /// The names of the address that lead back to it, once they were asked for.
    validated: Option<Vec<String>>,
}

struct Verdict {
    outcome: Outcome,
    because: String,
}

/// A temperror or a permerror: nothing else is looked at.
struct Stop {
    outcome: Outcome,
    because: String,
}

fn permanent(because: impl Into<String>) -> Stop {
    Stop {
        outcome: Outcome::PermError,
        because: because.into(),
    }
}

fn temporary(name: &str, error: &DnsError) -> Stop {
    Stop {
        outcome: Outcome::TempError,
        because: format!("{name}: {error}"),
    }
}

type Judged<'a> = Pin<Box<dyn Future<Output = Result<Verdict, Stop>> + Send + 'a>>;

impl Work<'_> {
    /// Boxed, because records include one another.
    fn judge(&mut self, domain: String) -> Judged<'_> {
        Box::pin(async move {
            let verdict = |outcome, because: String| Ok(Verdict { outcome, because });
            if !is_name(&domain) {
                return verdict(Outcome::None, format!("{domain} is not a domain"));
            }
            let texts = match dns::texts(self.dns, &domain).await {
                Ok(texts) => texts,
                Err(error @ DnsError::Trouble(_)) => return Err(temporary(&domain, &error)),
                Err(DnsError::NoSuchName | DnsError::NoData) => Vec::new(),
            };
            let mut records = texts.into_iter().filter(|it| is_spf(it));
            let Some(text) = records.next() else {
                return verdict(Outcome::None, format!("{domain} has no SPF record"));
            };
            if records.next().is_some() {
                return Err(permanent(format!("{domain} has several SPF records")));
            }
            let record =
                Record::parse(&text).map_err(|error| permanent(format!("{domain}: {error}")))?;
            for directive in &record.directives {
                let matched = self.matches(&domain, &directive.mechanism).await?;
                if let Some(through) = matched {
                    let outcome = match directive.qualifier {
                        Qualifier::Pass => Outcome::Pass,
                        Qualifier::Neutral => Outcome::Neutral,
                        Qualifier::SoftFail => Outcome::SoftFail,
                        Qualifier::Fail => Outcome::Fail,
                    };
                    return verdict(outcome, format!("{domain}: {}{through}", directive.text));
                }
            }
            let Some(target) = &record.redirect else {
                return verdict(Outcome::Neutral, format!("{domain}: nothing matches"));
            };
            self.count()?;
            let target = self.expand(target, &domain).await;
            let verdict = self.judge(target.clone()).await?;
            match verdict.outcome {
                Outcome::None => Err(permanent(format!(
                    "{domain} redirects to {target}, which has no SPF record"
                ))),
                outcome => Ok(Verdict {
                    outcome,
                    because: format!("{domain}: redirect={target} → {}", verdict.because),
                }),
            }
        })
    }

    /// Whether a mechanism matches: none, or what is to be said behind its text.
    async fn matches(
        &mut self,
        domain: &str,
        mechanism: &Mechanism,
    ) -> Result<Option<String>, Stop> {
        if mechanism.looks_up() {
            self.count()?;
        }
        let yes = |it: bool| it.then(String::new);
        Ok(match mechanism {
            Mechanism::All => Some(String::new()),
            Mechanism::Network(network) => yes(network.contains(&self.client.address)),
            Mechanism::Include(target) => {
                let target = self.expand(target, domain).await;
                let verdict = self.judge(target.clone()).await?;
                match verdict.outcome {
                    Outcome::Pass => Some(format!(" → {}", verdict.because)),
                    Outcome::None => {
                        return Err(permanent(format!(
                            "{domain} includes {target}, which has no SPF record"
                        )));
                    }
                    _ => None,
                }
            }
            Mechanism::A(target, lengths) => {
                let name = self.target(target.as_ref(), domain).await;
                let addresses = self.addresses(&name, true).await?;
                yes(self.is_among(&addresses, *lengths))
            }
            Mechanism::Mx(target, lengths) => {
                let name = self.target(target.as_ref(), domain).await;
                yes(self.matches_mx(&name, *lengths).await?)
            }
            Mechanism::Ptr(target) => {
                let name = self.target(target.as_ref(), domain).await;
                let ending = format!(".{name}");
                let names = self.validated().await;
                yes(names.iter().any(|it| *it == name || it.ends_with(&ending)))
            }
            Mechanism::Exists(target) => {
                let name = self.expand(target, domain).await;
                // Always by A records, whatever the client's address is.
                yes(!self.look_up(&name, Kind::A, true).await?.is_empty())
            }
        })
    }

    async fn matches_mx(&mut self, name: &str, lengths: Lengths) -> Result<bool, Stop> {
        let servers: Vec<String> = self
            .look_up(name, Kind::Mx, true)
            .await?
            .into_iter()
            .filter_map(|it| match it {
                DnsRecord::Mx { exchange, .. } => Some(exchange),
                _ => None,
            })
            .collect();
        if servers.len() > NAMES_MAXIMUM {
            return Err(permanent(format!("{name} has more than 10 mail servers")));
        }
        for server in servers {
            let addresses = self.addresses(&server, false).await?;
            if self.is_among(&addresses, lengths) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of the client's address that lead back to it, at most ten.
    async fn validated(&mut self) -> Vec<String> {
        if let Some(known) = &self.validated {
            return known.clone();
        }
        let mut validated = Vec::new();
        // An error here is no match, never a temperror (RFC 7208 section 5.5).
        let names = dns::names(self.dns, self.client.address).await;
        for name in names.unwrap_or_default().into_iter().take(NAMES_MAXIMUM) {
            let name = name.to_ascii_lowercase();
            let addresses = self.addresses(&name, false).await;
            if addresses.is_ok_and(|it| it.contains(&self.client.address)) {
                validated.push(name);
            }
        }
        self.validated = Some(validated.clone());
        validated
    }

    /// The addresses of a name, of the client's kind.
    async fn addresses(&mut self, name: &str, counts: bool) -> Result<Vec<IpAddr>, Stop> {
        let kind = match self.client.address {
            IpAddr::V4(_) => Kind::A,
            IpAddr::V6(_) => Kind::Aaaa,
        };
        let records = self.look_up(name, kind, counts).await?;
        Ok(records
            .into_iter()
            .filter_map(|it| match it {
                DnsRecord::Address(address) => Some(address),
                _ => None,
            })
            .collect())
    }

    /// Records of a name; none where there are none. Those of the names behind an `mx`
    /// or a `ptr` do not count as void: the limit is one of terms.
    async fn look_up(
        &mut self,
        name: &str,
        kind: Kind,
        counts: bool,
    ) -> Result<Vec<DnsRecord>, Stop> {
        // What is no name cannot exist; asking for it would say no more.
        if !is_name(name) {
            return Ok(Vec::new());
        }
        match self.dns.look_up(name, kind).await {
            Ok(records) => Ok(records),
            Err(error @ DnsError::Trouble(_)) => Err(temporary(name, &error)),
            Err(DnsError::NoSuchName | DnsError::NoData) => {
                self.voids += usize::from(counts);
                if self.voids > VOIDS_MAXIMUM {
                    return Err(permanent(format!(
                        "more than {VOIDS_MAXIMUM} look-ups find nothing; the last one asks for {name} {kind}"
                    )));
                }
                Ok(Vec::new())
            }
        }
    }

    fn count(&mut self) -> Result<(), Stop> {
        self.lookups += 1;
        match self.lookups > LOOKUPS_MAXIMUM {
            true => Err(permanent(format!("more than {LOOKUPS_MAXIMUM} look-ups"))),
            false => Ok(()),
        }
    }

    fn is_among(&self, addresses: &[IpAddr], lengths: Lengths) -> bool {
        addresses.iter().any(|address| {
            network(*address, lengths).is_some_and(|it| it.contains(&self.client.address))
        })
    }

    async fn target(&mut self, target: Option<&DomainSpec>, domain: &str) -> String {
        match target {
            Some(target) => self.expand(target, domain).await,
            None => domain.to_owned(),
        }
    }

    async fn expand(&mut self, spec: &DomainSpec, domain: &str) -> String {
        let validated = match spec.needs_validated() {
            true => self.best_name(domain).await,
            false => String::new(),
        };
        spec.expand(&Values {
            address: self.client.address,
            local: self.client.local,
            sender_domain: self.client.domain,
            domain,
            helo: self.client.helo,
            validated: &validated,
        })
    }

    /// What `%{p}` stands for (RFC 7208 section 7.3).
    async fn best_name(&mut self, domain: &str) -> String {
        let names = self.validated().await;
        let ending = format!(".{domain}");
        let exact = names.iter().find(|it| *it == domain);
        let below = || names.iter().find(|it| it.ends_with(&ending));
        let best = exact.or_else(below).or(names.first());
        best.map_or("unknown".to_owned(), Clone::clone)
    }
}

/// The network that an address of `a` or `mx` stands for.
pub fn network(address: IpAddr, lengths: Lengths) -> Option<IpNet> {
    Some(match address {
        IpAddr::V4(four) => IpNet::from(Ipv4Net::new(four, lengths.four).ok()?),
        IpAddr::V6(six) => IpNet::from(Ipv6Net::new(six, lengths.six).ok()?),
    })
}

/// Whether DNS could have such a name, one with at least two labels.
pub fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253
        && name.contains('.')
        && name.is_ascii()
        && !name.starts_with('[')
        && name.split('.').all(|it| !it.is_empty() && it.len() <= 63)
}
