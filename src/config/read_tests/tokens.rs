use super::*;
use crate::config::{AuthMethod, RelayTls};

/// A relay that takes tokens, and its table oauth.
fn with_tokens(relay: &str, oauth: &str) -> String {
    format!(
        "[relays.a]\nserver = \"[a.example]:587\"\n{relay}\n[relays.a.oauth]\nclient-id = \"app\"\n{oauth}\n"
    )
}

#[test]
fn a_provider_fills_in_what_is_the_same_for_everybody() {
    let read = |oauth: &str| {
        let text = with_tokens("username = \"m@a.example\"", oauth);
        let config = parse(&text, "");
        let relay = &config.relays["a"];
        assert_eq!(relay.auth, AuthMethod::XOauth2);
        assert_eq!(relay.servers[0].tls, RelayTls::Required);
        relay.credentials.as_ref().unwrap().oauth().unwrap().clone()
    };
    let it = read("provider = \"microsoft\"");
    assert_eq!(
        it.token_url.to_string(),
        "https://login.microsoftonline.com/common/oauth2/v2.0/token"
    );
    assert!(it.device_url.is_some() && it.scope.ends_with(" offline_access"));
    let it = read(
        "provider = \"microsoft\"\ntenant = \"example.nl\"\ngrant = \"client-credentials\"\n\
         client-secret = \"s\"",
    );
    assert!(it.token_url.path().starts_with("/example.nl/"));
    assert_eq!(
        (it.device_url, it.scope.as_str()),
        (None, "https://outlook.office365.com/.default")
    );
    let it = read("provider = \"google\"\nclient-secret = \"s\"");
    assert_eq!(it.device_url, None);
    let it = read("provider = \"google\"\ntoken-url = \"https://b.example/t\"\nscope = \"x\"");
    assert_eq!((it.token_url.host(), it.scope.as_str()), ("b.example", "x"));
}

#[test]
fn what_tokens_cannot_do_without_or_beside_is_refused_by_its_key() {
    let named = "username = \"m@a.example\"";
    for (relay, oauth, expected) in [
        (
            "",
            "provider = \"google\"",
            "1 relays.a.username: is missing",
        ),
        (
            "login = \"m@a.example secret\"",
            "provider = \"google\"",
            "3 relays.a.login: stands beside [oauth]",
        ),
        (
            "username = \"m\"\npassword = \"x\"",
            "provider = \"google\"",
            "4 relays.a.password: stands beside [oauth]",
        ),
        (
            "username = \"m\"\nauth = \"plain\"",
            "provider = \"google\"",
            "4 relays.a.auth: stands beside [oauth]",
        ),
        (
            named,
            "",
            "4 relays.a.oauth.token-url: is missing, and so is provider",
        ),
        (
            named,
            "provider = \"gogle\"",
            "6 relays.a.oauth.provider: \"gogle\"",
        ),
        (
            named,
            "token-url = \"http://login.example/t\"",
            "6 relays.a.oauth.token-url: \"http://login.example/t\": would send tokens in clear",
        ),
        (
            named,
            "provider = \"google\"\ntenant = \"x\"",
            "7 relays.a.oauth.tenant: is a notion of Microsoft",
        ),
        (
            named,
            "provider = \"microsoft\"\ntenant = \"../x\"",
            "7 relays.a.oauth.tenant: \"../x\": is not a tenant",
        ),
        (
            named,
            "provider = \"microsoft\"\ngrant = \"client-credentials\"\nclient-secret = \"s\"",
            "4 relays.a.oauth.tenant: must be the organisation's own",
        ),
        (
            named,
            "provider = \"microsoft\"\ntenant = \"x\"\ngrant = \"client-credentials\"",
            "8 relays.a.oauth.grant: \"client-credentials\" needs the secret",
        ),
        (
            named,
            "provider = \"google\"\ngrant = \"client-credentials\"\nclient-secret = \"s\"",
            "7 relays.a.oauth.grant: \"client-credentials\" is nothing that Google has",
        ),
        (
            named,
            "provider = \"google\"\nclient-secret = \"s\"\nclient-secret-file = \"f\"",
            "8 relays.a.oauth.client-secret-file: stands beside client-secret",
        ),
    ] {
        refused(&with_tokens(relay, oauth), "", &[expected]);
    }
    refused(
        "[relays.a]\nserver = \"[a.example]\"\nusername = \"m\"\nauth = \"xoauth2\"\n",
        "",
        &[
            "4 relays.a.auth: \"xoauth2\" needs to know who gives the tokens | write [relays.a.oauth]",
        ],
    );
}
