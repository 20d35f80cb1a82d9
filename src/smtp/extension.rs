//! Service extensions: the keywords of an EHLO reply and their parameters.

use super::reply::Reply;

/// What a server offers (RFC 5321 section 4.1.1.1), read from its EHLO reply or written to ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// SIZE (RFC 1870): offered; and the largest message taken, if the server says.
    pub size: Option<Option<u64>>,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954): the mechanisms in capitals, in the server's order.
    pub auth: Vec<String>,
    /// LIMITS (RFC 9422).
    pub limits: SessionLimits,
}

/// Limits that a server declares (RFC 9422 section 4); none: not declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// MAILMAX: transactions on one connection.
    pub mail: Option<u32>,
    /// RCPTMAX: recipients of one transaction.
    pub recipients: Option<u32>,
    /// RCPTDOMAINMAX: different recipient domains on one connection.
    pub recipient_domains: Option<u32>,
}

impl Extensions {
    /// Reads the lines of an EHLO reply; the first is the server's name.
    ///
    /// Unknown keywords and malformed parameters are passed over: what was not
    /// understood was not offered.
    pub fn parse(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines.iter().skip(1) {
            offered.take(line);
        }
        offered
    }

    fn take(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            // 0 means that no limit is declared (RFC 1870 section 4).
            "SIZE" => {
                self.size = Some(
                    words
                        .next()
                        .and_then(|it| it.parse().ok())
                        .filter(|it| *it > 0),
                );
            }
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "DSN" => self.dsn = true,
            "CHUNKING" => self.chunking = true,
            "STARTTLS" => self.starttls = true,
            "AUTH" => self.take_mechanisms(words),
            "LIMITS" => words.for_each(|it| self.limits.take(it)),
            // `AUTH=LOGIN PLAIN`: from before RFC 2554, still sent for old clients.
            other => {
                if let Some(first) = other.strip_prefix("AUTH=") {
                    self.take_mechanisms(std::iter::once(first).chain(words));
                }
            }
        }
    }

    fn take_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names.filter(|it| !it.is_empty()) {
            let name = name.to_ascii_uppercase();
            if !self.auth.contains(&name) {
                self.auth.push(name);
            }
        }
    }

    /// Whether a mechanism (in capitals) is offered.
    pub fn offers_auth(&self, mechanism: &str) -> bool {
        self.auth.iter().any(|it| it == mechanism)
    }

    /// The lines of an EHLO reply that offer this, without the first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut offer = |offered: bool, keyword: &str| {
            if offered {
                lines.push(keyword.to_owned());
            }
        };
        offer(self.pipelining, "PIPELINING");
        offer(self.eight_bit_mime, "8BITMIME");
        offer(self.smtputf8, "SMTPUTF8");
        offer(self.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        offer(self.dsn, "DSN");
        offer(self.chunking, "CHUNKING");
        offer(self.starttls, "STARTTLS");
        match self.size {
            Some(Some(size)) => lines.push(format!("SIZE {size}")),
            Some(None) => lines.push("SIZE".to_owned()),
            None => {}
        }
        if !self.auth.is_empty() {
            lines.push(format!("AUTH {}", self.auth.join(" ")));
        }
        lines.extend(self.limits.line());
        lines
    }
}

impl SessionLimits {
    fn take(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else {
            return;
        };
        // RFC 9422 section 4: one to six digits, not zero.
        let Some(value) = value.parse().ok().filter(|it| *it > 0) else {
            return;
        };
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mail = Some(value),
            "RCPTMAX" => self.recipients = Some(value),
            "RCPTDOMAINMAX" => self.recipient_domains = Some(value),
            _ => {}
        }
    }

    fn line(&self) -> Option<String> {
        let limits = [
            ("MAILMAX", self.mail),
            ("RCPTMAX", self.recipients),
            ("RCPTDOMAINMAX", self.recipient_domains),
        ];
        let words: Vec<_> = limits
            .into_iter()
            .filter_map(|(name, value)| value.map(|it| format!(" {name}={it}")))
            .collect();
        (!words.is_empty()).then(|| format!("LIMITS{}", words.concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(lines: &[&str]) -> Extensions {
        let mut all = vec!["mail.example.nl at your service".to_owned()];
        all.extend(lines.iter().map(|it| (*it).to_owned()));
        Extensions::parse(&Reply {
            code: 250,
            enhanced: None,
            lines: all,
        })
    }

    #[test]
    fn what_servers_really_send_is_understood() {
        let offered = parse(&[
            "SIZE 35882577",
            "8bitmime",
            "AUTH LOGIN PLAIN XOAUTH2",
            "AUTH=LOGIN PLAIN",
            "ENHANCEDSTATUSCODES",
            "PIPELINING",
            "CHUNKING",
            "SMTPUTF8",
            "DSN",
            "STARTTLS",
            "LIMITS RCPTMAX=100 MAILMAX=7 FOO=1 RCPTDOMAINMAX=x",
            "X-ANONYMOUSTLS",
            "",
        ]);
        assert_eq!(offered.size, Some(Some(35_882_577)));
        assert!(offered.eight_bit_mime && offered.chunking && offered.dsn && offered.starttls);
        assert_eq!(offered.auth, ["LOGIN", "PLAIN", "XOAUTH2"]);
        assert_eq!(
            offered.limits,
            SessionLimits {
                mail: Some(7),
                recipients: Some(100),
                recipient_domains: None
            }
        );
    }

    #[test]
    fn a_size_that_says_nothing_is_no_limit() {
        for line in ["SIZE", "SIZE 0", "SIZE 99999999999999999999999", "SIZE x"] {
            assert_eq!(parse(&[line]).size, Some(None), "{line}");
        }
        assert_eq!(parse(&[]).size, None);
    }

    #[test]
    fn the_first_line_offers_nothing() {
        let reply = Reply::new(250, "STARTTLS");
        assert_eq!(Extensions::parse(&reply), Extensions::default());
    }

    proptest! {
        #[test]
        fn what_is_offered_reads_back(
            size in proptest::option::of(proptest::option::of(1u64..)),
            flags in any::<[bool; 7]>(),
            auth in proptest::sample::subsequence(vec!["PLAIN", "LOGIN", "CRAM-MD5"], 0..=3),
            mail in proptest::option::of(1u32..999_999),
            recipients in proptest::option::of(1u32..999_999),
        ) {
            let [pipelining, eight_bit_mime, smtputf8, enhanced_status_codes, dsn, chunking, starttls] = flags;
            let offered = Extensions {
                size, pipelining, eight_bit_mime, smtputf8, enhanced_status_codes, dsn, chunking, starttls,
                auth: auth.into_iter().map(str::to_owned).collect(),
                limits: SessionLimits { mail, recipients, recipient_domains: None },
            };
            let lines = offered.lines();
            prop_assert_eq!(parse(&lines.iter().map(String::as_str).collect::<Vec<_>>()), offered);
        }
    }
}
