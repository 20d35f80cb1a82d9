//! Names in memory: what tests ask instead of the world.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Dns, DnsError, Kind, Record, reverse_name};

/// Longer chains of aliases are mistakes.
const ALIASES_MAXIMUM: usize = 8;

/// A [`Dns`] that knows what it was told, at once.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    records: BTreeMap<(String, Kind), Vec<Record>>,
    troubled: BTreeSet<String>,
    aliases: BTreeMap<String, String>,
}

impl Zone {
    /// With one more MX record; `.` as exchange makes a null MX.
    pub fn mx(self, name: &str, preference: u16, exchange: &str) -> Self {
        let exchange = exchange.to_owned();
        self.with(
            name,
            Kind::Mx,
            Record::Mx {
                preference,
                exchange,
            },
        )
    }

    /// With one more address.
    ///
    /// # Panics
    /// When the text is no address: the test is wrong.
    pub fn address(self, name: &str, address: &str) -> Self {
        let address: std::net::IpAddr = address.parse().expect("an address in a test");
        let kind = if address.is_ipv4() {
            Kind::A
        } else {
            Kind::Aaaa
        };
        self.with(name, kind, Record::Address(address))
    }

    /// With one more TXT record.
    pub fn text(self, name: &str, text: &str) -> Self {
        self.with(name, Kind::Txt, Record::Text(text.to_owned()))
    }

    /// With one more PTR record.
    ///
    /// # Panics
    /// When the text is no address: the test is wrong.
    pub fn pointer(self, address: &str, name: &str) -> Self {
        let reverse = reverse_name(address.parse().expect("an address in a test"));
        self.with(&reverse, Kind::Ptr, Record::Name(name.to_owned()))
    }

    /// With one more PTR record under a name that is already reversed.
    pub fn name(self, reverse: &str, name: &str) -> Self {
        self.with(reverse, Kind::Ptr, Record::Name(name.to_owned()))
    }

    /// With a name that is another one's alias (CNAME).
    pub fn alias(mut self, name: &str, target: &str) -> Self {
        let key = name.to_ascii_lowercase();
        self.aliases.insert(key, target.to_ascii_lowercase());
        self
    }

    /// With a name about which nobody answers, beyond the records it has.
    pub fn trouble(mut self, name: &str) -> Self {
        self.troubled.insert(name.to_ascii_lowercase());
        self
    }

    fn with(mut self, name: &str, kind: Kind, record: Record) -> Self {
        let key = (name.to_ascii_lowercase(), kind);
        self.records.entry(key).or_default().push(record);
        self
    }

    fn answer(&self, name: &str, kind: Kind) -> Result<Vec<Record>, DnsError> {
        let mut name = name.trim_end_matches('.').to_ascii_lowercase();
        for _ in 0..ALIASES_MAXIMUM {
            match self.aliases.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        if self.aliases.contains_key(&name) {
            return Err(DnsError::Trouble("an alias of itself".to_owned()));
        }
        if let Some(records) = self.records.get(&(name.clone(), kind)) {
            return Ok(records.clone());
        }
        if self.troubled.contains(&name) {
            return Err(DnsError::Trouble("no answer".to_owned()));
        }
        let exists = self.records.keys().any(|(it, _)| {
            *it == name || it.strip_suffix(&name).is_some_and(|it| it.ends_with('.'))
        });
        Err(if exists {
            DnsError::NoData
        } else {
            DnsError::NoSuchName
        })
    }
}

impl Dns for Zone {
    fn look_up<'a>(&'a self, name: &'a str, kind: Kind) -> Answer<'a> {
        Box::pin(std::future::ready(self.answer(name, kind)))
    }
}
