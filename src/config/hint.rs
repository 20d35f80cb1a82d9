//! The names of hints: what `[hints.NAME]` may be, and what each may do.

use super::HintAction;
use super::file::Table;
use super::problem::{nearest, quoted};

/// Something that may hurt delivery, by its name in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HintName {
    /// The domain has no SPF record.
    SpfMissing,
    /// It has several.
    SpfSeveral,
    /// It has one that receivers cannot read, or one of its includes is so.
    SpfSyntax,
    /// It needs more than ten look-ups.
    SpfLookups,
    /// More than two of them find nothing.
    SpfVoidLookups,
    /// It passes everybody.
    SpfPassAll,
    /// It does not authorise the relay.
    SpfRelayMissing,
    /// It is not the From domain's record that receivers ask.
    SpfAlignment,
    /// Mail to one's own domain by somebody else's relay.
    SameDomain,
    /// The domain has no DMARC record.
    DmarcMissing,
    /// It has one that receivers cannot read, or several.
    DmarcSyntax,
    /// What its policy does to mail by this relay.
    DmarcAlignment,
    /// A relay's address is on a blacklist.
    BlacklistedAddress,
    /// The From domain is on one.
    BlacklistedDomain,
    /// No subject, or an empty one.
    NoSubject,
    /// Little text and many pictures.
    FewWords,
    /// A picture and next to nothing else.
    OnlyLogo,
    /// HTML that programs read in different ways.
    FaultyHtml,
    /// Scripts, or references to them.
    Scripts,
    /// An attachment that receivers refuse unseen.
    DangerousAttachment,
    /// HTML without the same as text.
    HtmlWithoutText,
    /// A mailing by a provider that forbids it.
    BulkProvider,
    /// A mailing by the relay or address that carries internal mail.
    BulkInternal,
}

impl HintName {
    /// Every hint, in the order of the documentation.
    pub const ALL: [Self; 23] = [
        Self::SpfMissing,
        Self::SpfSeveral,
        Self::SpfSyntax,
        Self::SpfLookups,
        Self::SpfVoidLookups,
        Self::SpfPassAll,
        Self::SpfRelayMissing,
        Self::SpfAlignment,
        Self::SameDomain,
        Self::DmarcMissing,
        Self::DmarcSyntax,
        Self::DmarcAlignment,
        Self::BlacklistedAddress,
        Self::BlacklistedDomain,
        Self::NoSubject,
        Self::FewWords,
        Self::OnlyLogo,
        Self::FaultyHtml,
        Self::Scripts,
        Self::DangerousAttachment,
        Self::HtmlWithoutText,
        Self::BulkProvider,
        Self::BulkInternal,
    ];

    /// As it is written in the configuration and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpfMissing => "spf-missing",
            Self::SpfSeveral => "spf-several",
            Self::SpfSyntax => "spf-syntax",
            Self::SpfLookups => "spf-lookups",
            Self::SpfVoidLookups => "spf-void-lookups",
            Self::SpfPassAll => "spf-pass-all",
            Self::SpfRelayMissing => "spf-relay-missing",
            Self::SpfAlignment => "spf-alignment",
            Self::SameDomain => "same-domain",
            Self::DmarcMissing => "dmarc-missing",
            Self::DmarcSyntax => "dmarc-syntax",
            Self::DmarcAlignment => "dmarc-alignment",
            Self::BlacklistedAddress => "blacklisted-address",
            Self::BlacklistedDomain => "blacklisted-domain",
            Self::NoSubject => "no-subject",
            Self::FewWords => "few-words",
            Self::OnlyLogo => "only-logo",
            Self::FaultyHtml => "faulty-html",
            Self::Scripts => "scripts",
            Self::DangerousAttachment => "dangerous-attachment",
            Self::HtmlWithoutText => "html-without-text",
            Self::BulkProvider => "bulk-provider",
            Self::BulkInternal => "bulk-internal",
        }
    }

    /// Whether the message alone shows it, before it is accepted: only such a hint can
    /// refuse mail.
    pub const fn is_content(self) -> bool {
        matches!(
            self,
            Self::NoSubject
                | Self::FewWords
                | Self::OnlyLogo
                | Self::FaultyHtml
                | Self::Scripts
                | Self::DangerousAttachment
                | Self::HtmlWithoutText
        )
    }

    /// The hint with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

impl HintAction {
    /// As it is written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Hold => "hold",
            Self::Reject => "reject",
            Self::Off => "off",
        }
    }
}

/// Reads `[hints.NAME]`.
pub(super) fn read_action(table: Table, name: &str) -> Option<(HintName, HintAction)> {
    let Some(hint) = HintName::from_name(name) else {
        let known = HintName::ALL.map(HintName::name);
        let remedy = match nearest(name, known) {
            Some(near) => format!("the nearest hint is {near}"),
            None => "docs/hints.md has their names".to_owned(),
        };
        table.wrong(name, &format!("{} is no hint", quoted(name)), &remedy);
        return None;
    };
    let words = [
        HintAction::Log,
        HintAction::Hold,
        HintAction::Reject,
        HintAction::Off,
    ]
    .map(|it| (it.name(), it));
    let read = |table: Table| {
        let action = table.choice("action", &words)?;
        if action == HintAction::Reject && !hint.is_content() {
            table.wrong(
                "action",
                "\"reject\" needs a hint that the message alone shows; this one is found \
                 after the message was accepted",
                "write action = \"hold\"",
            );
        }
        Some(action)
    };
    let action = table.table(name, read)??;
    // What is done anyway needs no remembering.
    (action != HintAction::default()).then_some((hint, action))
}
