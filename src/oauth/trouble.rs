//! Why there is no access token, and what somebody could do about it.
//!
//! What is done never depends on the words: a definite no and a passing trouble differ by
//! their status and error code. The remedies do read the words of the two large
//! providers, who number their errors; a number that is not known here costs a better
//! sentence and nothing else.

/// Why there is no access token. Words of others in it are shortened, printable, and
/// without any secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nobody has logged in, or for what the relay no longer is.
    #[error("{why}")]
    NotLoggedIn {
        /// Which relay.
        relay: String,
        /// In words.
        why: String,
    },
    /// The endpoint says no.
    #[error("{host} gives no token: {code}: {words}")]
    Refused {
        /// Which relay.
        relay: String,
        /// Who says so.
        host: String,
        /// The error code (RFC 6749 section 5.2).
        code: String,
        /// Its description, or what is known instead.
        words: String,
    },
    /// The endpoint cannot be reached, is out of order, or wants to be asked later.
    #[error("{host} gives no token for now: {words}")]
    Passing {
        /// Whom we asked.
        host: String,
        /// What happened.
        words: String,
    },
    /// The login cannot be read or written.
    #[error("cannot {action} the login: {detail}")]
    Ours {
        /// `read` or `keep`.
        action: &'static str,
        /// What the system said.
        detail: String,
    },
    /// What was said earlier, of which the words are left.
    #[error("{words}")]
    Recalled {
        /// The words.
        words: String,
        /// It was a passing trouble.
        passing: bool,
    },
}

impl TokenError {
    /// Whether asking again may go better without anybody's doing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotLoggedIn { .. } | Self::Refused { .. } => false,
            Self::Passing { .. } | Self::Ours { .. } => true,
            Self::Recalled { passing, .. } => *passing,
        }
    }

    /// Who said it; empty: nobody was asked.
    pub fn host(&self) -> &str {
        match self {
            Self::Refused { host, .. } | Self::Passing { host, .. } => host,
            Self::NotLoggedIn { .. } | Self::Ours { .. } | Self::Recalled { .. } => "",
        }
    }

    /// What somebody could do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NotLoggedIn { relay, .. } => format!(
                "Run penstock relay login {relay}, and log in as the mailbox, or as somebody \
                 with rights to it; its mail waits until then."
            ),
            Self::Refused {
                relay, code, words, ..
            } => refused(relay, code, words),
            Self::Passing { .. } => "The mail waits and it is asked again by itself. If it stays \
                so: check that this machine may reach that host on port 443, DNS, and the \
                provider's service status."
                .to_owned(),
            Self::Ours { .. } => "Check the disk and the owner of the state directory's folder \
                tokens: it is the user penstock's."
                .to_owned(),
            Self::Recalled { passing: true, .. } => {
                "The mail waits and it is asked again by itself.".to_owned()
            }
            Self::Recalled { passing: false, .. } => "Run penstock relay list with this relay's \
                name: it says what is to be done."
                .to_owned(),
        }
    }
}

/// What the numbers of Microsoft and the sentences of Google mean for whoever set the
/// relay up (the reference of AADSTS codes at learn.microsoft.com, and Google's pages
/// about OAuth 2.0, read in November 2026).
const KNOWN: &[(&str, &str)] = &[
    (
        "AADSTS7000222",
        "The client secret has expired. Make a new one on the application's page (Certificates \
         & secrets), write its value where RELAY's client-secret stands, and run penstock \
         reload.",
    ),
    (
        "AADSTS7000215",
        "The client secret is wrong: its value belongs into the configuration, not its ID. \
         Correct it and run penstock reload.",
    ),
    (
        "AADSTS7000218",
        "The application demands a secret. On its page under Authentication set Allow public \
         client flows to yes, or write a client-secret.",
    ),
    (
        "AADSTS700016",
        "There is no such application in this tenant: check client-id and tenant.",
    ),
    (
        "AADSTS90002",
        "There is no such tenant: check tenant, the Directory (tenant) ID on the application's \
         page.",
    ),
    (
        "AADSTS50194",
        "The application is for one tenant only: write its Directory (tenant) ID as tenant.",
    ),
    (
        "AADSTS50059",
        "The application is for one tenant only: write its Directory (tenant) ID as tenant.",
    ),
    (
        "AADSTS65001",
        "Nobody has consented to what the application asks for: an administrator grants consent \
         on its page (API permissions), then run penstock relay login RELAY.",
    ),
    (
        "AADSTS700082",
        "The login was not used for too long (90 days, or what the tenant allows). Run penstock \
         relay login RELAY.",
    ),
    (
        "AADSTS50173",
        "The login was revoked: the mailbox's password was changed, or an administrator ended \
         its sessions. Run penstock relay login RELAY.",
    ),
    (
        "AADSTS50076",
        "The tenant wants a second factor now. Run penstock relay login RELAY and give it there.",
    ),
    (
        "AADSTS50079",
        "The tenant wants a second factor set up. Log in as the mailbox in a browser once, then \
         run penstock relay login RELAY.",
    ),
    (
        "AADSTS53003",
        "A Conditional Access policy forbids this login: have the tenant's administrator allow \
         this application for the mailbox (device code logins are often blocked as such), or \
         use grant = \"client-credentials\".",
    ),
    (
        "AADSTS50057",
        "The account is disabled: an administrator of the tenant enables it.",
    ),
    (
        "AADSTS500011",
        "The tenant does not know what the token is asked for: check scope, and that the tenant \
         has Exchange Online.",
    ),
    (
        "expired or revoked",
        "The login ended: it was revoked, the account's password was changed, or the consent \
         screen is still in Testing, where a login ends after 7 days (publish it). Then hand \
         over a new one: penstock relay login RELAY --refresh-token-file FILE.",
    ),
];

fn refused(relay: &str, code: &str, words: &str) -> String {
    let number = |it: &str| {
        words.match_indices(it).any(|(place, _)| {
            let behind = words[place + it.len()..].chars().next();
            !behind.is_some_and(|it| it.is_ascii_digit())
        })
    };
    if let Some((_, remedy)) = KNOWN.iter().find(|(known, _)| number(known)) {
        return remedy.replace("RELAY", relay);
    }
    match code {
        "invalid_grant" => format!(
            "The login is no longer good: it expired, was revoked, or the account's password was \
             changed. Run penstock relay login {relay}."
        ),
        "invalid_client" => "The endpoint does not accept the application: check client-id and \
             client-secret (secrets expire), then run penstock reload."
            .to_owned(),
        "unauthorized_client" | "unsupported_grant_type" => {
            "The application may not do this: check at the provider \
             that it allows device logins (public client flows) or, for client-credentials, has \
             its permission granted."
                .to_owned()
        }
        "invalid_scope" => format!(
            "The endpoint does not know the scope: correct the key scope in \
             [relays.{relay}.oauth], or delete it where provider stands, to use its usual one."
        ),
        "access_denied" | "authorization_declined" => format!(
            "Somebody chose not to allow it on the page. Run penstock relay login {relay} and \
             allow it."
        ),
        "expired_token" | "code_expired" | "bad_verification_code" => {
            format!("The code was not entered in time. Run penstock relay login {relay} again.")
        }
        _ => format!(
            "Check the table [relays.{relay}.oauth] against the application's page at the \
             provider; penstock relay test {relay} asks again."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(code: &str, words: &str) -> String {
        TokenError::Refused {
            relay: "own".into(),
            host: "login.example".into(),
            code: code.into(),
            words: words.into(),
        }
        .remedy()
    }

    #[test]
    fn what_providers_say_has_a_remedy_that_names_what_to_change() {
        for (code, words, expected) in [
            (
                "invalid_client",
                "AADSTS7000222: The provided client secret keys for app 'x' are expired.",
                "client secret has expired",
            ),
            (
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided.",
                "not its ID",
            ),
            (
                "invalid_client",
                "AADSTS7000218: The request body must contain client_assertion or client_secret.",
                "Allow public client flows",
            ),
            (
                "invalid_grant",
                "AADSTS700082: The refresh token has expired due to inactivity.",
                "penstock relay login own",
            ),
            (
                "invalid_grant",
                "Token has been expired or revoked.",
                "--refresh-token-file",
            ),
            ("invalid_grant", "no", "penstock relay login own"),
            ("invalid_client", "no", "check client-id"),
            ("interaction_required", "AADSTS50076: mfa", "second factor"),
            // A longer number is another error.
            ("invalid_request", "AADSTS5007600: x", "[relays.own.oauth]"),
        ] {
            let said = remedy(code, words);
            assert!(said.contains(expected), "{words}: {said}");
        }
    }
}
