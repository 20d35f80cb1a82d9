//! `[relays.NAME.oauth]`: who hands out the tokens for a mailbox, and to whom.
//!
//! A provider fills in what is the same for everybody there; each of its values may be
//! written instead.

use std::path::PathBuf;

use super::file::Table;
use super::place::Place;
use super::{Endpoint, Secret};

/// The keys that say what the client secret is; only one of them may be written.
const SECRET_KEYS: [&str; 3] = [
    "client-secret",
    "client-secret-file",
    "client-secret-credential",
];

/// Tenants of Microsoft that are no organisation: nobody's application lives there.
const NOBODYS: [&str; 3] = ["common", "organizations", "consumers"];

/// Where the access tokens of a relay come from (RFC 6749).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth {
    /// The provider whose usual values these are; none: all were written.
    pub provider: Option<Provider>,
    /// Who hands out tokens.
    pub token_url: Endpoint,
    /// Where a person's login begins (RFC 8628); none: the refresh token is brought along.
    pub device_url: Option<Endpoint>,
    /// What the token is for; empty: whatever the endpoint gives.
    pub scope: String,
    /// The application that was registered.
    pub client_id: String,
    /// Its secret, if it has one.
    pub client_secret: Option<Secret>,
    /// On whose word a token is given.
    pub grant: Grant,
    /// The roots that the endpoint's certificate is verified with; none: the system's.
    pub ca_file: Option<PathBuf>,
}

/// A provider whose endpoints are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Microsoft 365 and outlook.com.
    Microsoft,
    /// Gmail and Google Workspace.
    Google,
}

/// On whose word a token is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// A person logs in once, with `penstock relay login`.
    Login,
    /// The application itself, with its secret and nobody's help (RFC 6749 section 4.4).
    ClientCredentials,
}

impl Provider {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Microsoft => "microsoft",
            Self::Google => "google",
        }
    }

    fn token_url(self, tenant: &str) -> String {
        match self {
            Self::Microsoft => {
                format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token")
            }
            Self::Google => "https://oauth2.googleapis.com/token".to_owned(),
        }
    }

    /// Google's device flow gives no token for mail, so there is none to ask for.
    fn device_url(self, tenant: &str) -> Option<String> {
        match self {
            Self::Microsoft => Some(format!(
                "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode"
            )),
            Self::Google => None,
        }
    }

    const fn scope(self, grant: Grant) -> &'static str {
        match (self, grant) {
            // Without offline_access there would be no refresh token.
            (Self::Microsoft, Grant::Login) => {
                "https://outlook.office.com/SMTP.Send offline_access"
            }
            (Self::Microsoft, Grant::ClientCredentials) => "https://outlook.office365.com/.default",
            (Self::Google, _) => "https://mail.google.com/",
        }
    }
}

impl Grant {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::ClientCredentials => "client-credentials",
        }
    }
}

/// Reads the table; none where something that it cannot do without is missing or wrong.
pub(super) fn read_oauth(table: Table, place: &Place) -> Option<OAuth> {
    let provider = table.choice(
        "provider",
        &[
            ("microsoft", Provider::Microsoft),
            ("google", Provider::Google),
        ],
    );
    let grant = table
        .choice(
            "grant",
            &[
                ("login", Grant::Login),
                ("client-credentials", Grant::ClientCredentials),
            ],
        )
        .unwrap_or(Grant::Login);
    let tenant = read_tenant(table, provider);
    let known = |url: String| Endpoint::parse(&url).ok();
    let usual = provider.and_then(|it| known(it.token_url(&tenant)));
    let token_url = read_endpoint(table, "token-url").or(usual);
    if token_url.is_none() && !table.has("token-url") && !table.has("provider") {
        table.wrong(
            "token-url",
            "is missing, and so is provider: nobody is named who could give a token",
            "write provider = \"microsoft\" or \"google\", or token-url = \"https://...\"",
        );
    }
    // Another token endpoint knows nothing of codes that the provider's gave.
    let usual = provider
        .filter(|_| !table.has("token-url") && grant == Grant::Login)
        .and_then(|it| known(it.device_url(&tenant)?));
    let device_url = read_endpoint(table, "device-url").or(usual);
    let client_id = read_text(table, "client-id", "the id of the application");
    if !table.has("client-id") {
        table.wrong(
            "client-id",
            "is missing",
            "write the id of the application that was registered at the provider; docs/relays.md \
             has the steps",
        );
    }
    let client_secret = read_secret(table, place);
    check_grant(table, provider, grant, &tenant);
    let usual = || provider.map_or("", |it| it.scope(grant)).to_owned();
    Some(OAuth {
        provider,
        token_url: token_url?,
        device_url,
        scope: read_text(table, "scope", "what the token is for").unwrap_or_else(usual),
        client_id: client_id?,
        client_secret,
        grant,
        ca_file: place.named_file(table, "ca-file"),
    })
}

fn read_tenant(table: Table, provider: Option<Provider>) -> String {
    if table.has("tenant") && provider != Some(Provider::Microsoft) && !table.has("token-url") {
        table.wrong(
            "tenant",
            "is a notion of Microsoft and has no effect here",
            "write provider = \"microsoft\", or delete tenant",
        );
    }
    // It becomes a part of a path.
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_');
    let written = table.parsed(
        "tenant",
        "write the Directory (tenant) ID, or a domain of the organisation",
        |text| match !text.is_empty() && text.len() <= 255 && text.chars().all(plain) {
            true => Ok(text.to_owned()),
            false => Err("is not a tenant"),
        },
    );
    written.unwrap_or_else(|| "common".to_owned())
}

fn read_endpoint(table: Table, key: &str) -> Option<Endpoint> {
    table.parsed(
        key,
        "write a URL like \"https://login.example.nl/token\"",
        Endpoint::parse,
    )
}

fn read_text(table: Table, key: &str, what: &str) -> Option<String> {
    let text = table.text(key)?;
    if text.trim().is_empty() || text.len() > 2_000 || text.chars().any(char::is_control) {
        let remedy = format!("write {what}, or delete the key");
        table.wrong(
            key,
            "is empty, too long, or has a control character",
            &remedy,
        );
        return None;
    }
    Some(text.trim().to_owned())
}

fn read_secret(table: Table, place: &Place) -> Option<Secret> {
    let written: Vec<&str> = SECRET_KEYS
        .into_iter()
        .filter(|key| table.has(key))
        .collect();
    let [key] = written[..] else {
        if let [first, second, ..] = written[..] {
            table.wrong(
                second,
                &format!("stands beside {first}"),
                "one client secret is enough: delete all but one",
            );
        }
        return None;
    };
    let secret = match key {
        "client-secret" => Secret::new(table.text(key)?.to_owned()),
        "client-secret-file" => place.password_file(table, key)?,
        _ => place.password_credential(table, key)?,
    };
    let unreadable_here = key == "client-secret-credential" && place.inspecting;
    let text = secret.expose();
    if (text.is_empty() && !unreadable_here) || text.chars().any(char::is_control) {
        table.wrong(
            key,
            "is empty, or has a control character in it",
            "write the secret's value as the provider showed it once, on one line",
        );
    }
    Some(secret)
}

/// What a grant needs, and what has no effect with it.
fn check_grant(table: Table, provider: Option<Provider>, grant: Grant, tenant: &str) {
    if grant == Grant::Login {
        return;
    }
    if provider == Some(Provider::Google) {
        table.wrong(
            "grant",
            "\"client-credentials\" is nothing that Google has for mail",
            "delete grant, and hand over a refresh token with: penstock relay login",
        );
    }
    if !SECRET_KEYS.iter().any(|key| table.has(key)) {
        table.wrong(
            "grant",
            "\"client-credentials\" needs the secret of the application",
            "write client-secret-file, client-secret-credential or client-secret, too",
        );
    }
    if table.has("device-url") {
        table.wrong(
            "device-url",
            "has no effect beside grant = \"client-credentials\": nobody logs in",
            "delete one of the two",
        );
    }
    let microsoft = provider == Some(Provider::Microsoft) && !table.has("token-url");
    if microsoft && NOBODYS.contains(&tenant) {
        table.wrong(
            "tenant",
            "must be the organisation's own where the application logs in by itself",
            "write the Directory (tenant) ID that the application's page shows",
        );
    }
}
