//! Sets of limits with a name, a source and a date (PRODUCT section 6).
//!
//! Providers change their figures without notice: `penstock config show` prints source
//! and date beside every limit, and a single figure can be overridden in the
//! configuration.

use std::fmt;
use std::time::Duration;

use super::{Host, Limits};

/// A set of limits with a name, a source and a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// 1,200 an hour.
    Standard,
    /// 6,000 an hour: for a relay that accepts large amounts of mail.
    Bulk,
    /// Microsoft 365, SMTP AUTH submission.
    Microsoft365,
    /// smtp.gmail.com with a personal account.
    Gmail,
    /// smtp.gmail.com or smtp-relay.gmail.com with Workspace.
    GoogleWorkspace,
    /// Amazon SES.
    AmazonSes,
    /// None but the connections.
    Unlimited,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Standard,
        Self::Bulk,
        Self::Microsoft365,
        Self::Gmail,
        Self::GoogleWorkspace,
        Self::AmazonSes,
        Self::Unlimited,
    ];

    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Bulk => "bulk",
            Self::Microsoft365 => "microsoft-365",
            Self::Gmail => "gmail",
            Self::GoogleWorkspace => "google-workspace",
            Self::AmazonSes => "amazon-ses",
            Self::Unlimited => "unlimited",
        }
    }

    /// Who says so.
    pub fn source(self) -> &'static str {
        match self {
            Self::Standard => "the usual agreement: 1,200 an hour, 500 or 80 MB in 5 minutes",
            Self::Bulk => "the usual agreement for large amounts: 6,000 an hour",
            Self::Microsoft365 => {
                "learn.microsoft.com: Exchange Online limits, SMTP AUTH submission"
            }
            Self::Gmail => "support.google.com/mail/answer/22839",
            Self::GoogleWorkspace => "support.google.com/a/answer/166852",
            Self::AmazonSes => "docs.aws.amazon.com/ses/latest/dg/quotas.html, sandbox",
            Self::Unlimited => "no limit was asked for",
        }
    }

    /// When the source was read.
    pub fn date(self) -> &'static str {
        "2026-11-21"
    }

    /// The figures.
    pub fn limits(self) -> Limits {
        let unlimited = Limits {
            preset: self,
            batch_messages: None,
            batch_bytes: None,
            batch_interval: Duration::from_secs(300),
            batch_window: Duration::from_secs(60),
            per_hour: None,
            per_day: None,
            recipients_per_message: None,
            recipients_per_hour: None,
            recipients_per_day: None,
            min_interval: Duration::ZERO,
            connections: 10,
            messages_per_connection: None,
            mailing_limit: None,
            interactive_share: 0.05,
            overridden: Vec::new(),
        };
        let standard = Limits {
            batch_messages: Some(500),
            batch_bytes: Some(80_000_000),
            per_hour: Some(1_200),
            // What every server must take (RFC 5321 section 4.5.3.1.8).
            recipients_per_message: Some(100),
            connections: 2,
            messages_per_connection: Some(100),
            mailing_limit: Some(10_000),
            ..unlimited.clone()
        };
        match self {
            Self::Unlimited => unlimited,
            Self::Standard => standard,
            Self::Bulk => Limits {
                per_hour: Some(6_000),
                connections: 4,
                ..standard
            },
            // 30 messages a minute, 3 connections and 10,000 recipients a day for each
            // mailbox; 500 recipients a message where the mailbox says nothing else.
            Self::Microsoft365 => Limits {
                batch_messages: Some(30),
                batch_bytes: None,
                batch_interval: Duration::from_secs(60),
                per_hour: None,
                recipients_per_message: Some(500),
                recipients_per_day: Some(10_000),
                connections: 3,
                ..standard
            },
            // 500 messages, and 500 recipients, a day; 100 recipients a message over SMTP.
            Self::Gmail => Limits {
                per_hour: None,
                per_day: Some(500),
                recipients_per_day: Some(500),
                ..standard
            },
            // 2,000 messages and 3,000 external recipients a day for each user, 100
            // recipients a message over SMTP. The relay service (smtp-relay) takes
            // 10,000 recipients a day: override recipients-per-day there.
            Self::GoogleWorkspace => Limits {
                per_hour: None,
                per_day: Some(2_000),
                recipients_per_day: Some(3_000),
                ..standard
            },
            // SES counts recipients. Outside the sandbox the quota is the account's own
            // and published nowhere; what exceeds it is lost after DATA, so the only
            // published figures are the safe ones: 200 in 24 hours, 1 a second.
            Self::AmazonSes => Limits {
                per_hour: None,
                recipients_per_message: Some(1),
                recipients_per_day: Some(200),
                min_interval: Duration::from_secs(1),
                ..standard
            },
        }
    }

    /// The preset of a provider that is known by the name of its server.
    pub fn of_provider(host: &Host) -> Option<Self> {
        let (Host::Mx(name) | Host::Name(name)) = host else {
            return None;
        };
        let name = name.ascii();
        match name {
            "smtp.office365.com" | "outlook.office365.com" | "smtp-mail.outlook.com" => {
                Some(Self::Microsoft365)
            }
            "smtp.gmail.com" | "smtp.googlemail.com" => Some(Self::Gmail),
            "smtp-relay.gmail.com" => Some(Self::GoogleWorkspace),
            _ if name.starts_with("email-smtp.") && name.ends_with(".amazonaws.com") => {
                Some(Self::AmazonSes)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
