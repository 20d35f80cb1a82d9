//! The page that confirms a relay: a button, because mail scanners follow links, and
//! nothing else on its listener.
//!
//! It may be published to the world by a web server, so everything a visitor can feed is
//! bounded (see [`bounded`](super::bounded)); it has no script, and asks the daemon with
//! the requests of the control socket like everybody else.

use std::fmt::Write;
use std::io;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::bounded::Bounded;
use super::page::escaped;
use super::{NoAnswer, Requests, ask_as};
use crate::control::Peer;
use crate::control::protocol::{FailureKind, Item, Request, Verified};

/// Readable on a telephone and in the dark.
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:0 auto;\
padding:1rem;color:#1a1a1a;background:#fff;overflow-wrap:anywhere}h1{font-size:1.3rem}\
dt{font-weight:600}dd{margin:0 0 .5rem}button{font:inherit;font-weight:600;width:100%;\
padding:.8rem;border:0;border-radius:.4rem;background:#0b5c3b;color:#fff}\
button:focus-visible{outline:3px solid #e8a500}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}button{background:#2f9e6e;color:#000}}";

/// What a browser may do with the page: show it, in this style, and send its form here.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'"
    )
});

/// Serves until `stop` turns true.
pub async fn serve(
    listener: TcpListener,
    requests: Requests,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let pages = Router::new()
        .route("/confirm/{token}", get(look).post(press))
        .fallback(|| async { nothing_here() })
        .method_not_allowed_fallback(|| async { nothing_here() })
        .with_state(requests);
    let connections = stop.clone();
    axum::serve(Bounded::new(listener, connections), pages)
        .with_graceful_shutdown(async move {
            // The sender is gone only when the daemon is.
            let _ = stop.wait_for(|it| *it).await;
        })
        .await
}

/// What the link leads to: it changes nothing.
async fn look(State(requests): State<Requests>, Path(token): Path<String>) -> Response {
    match told(&requests, token, true).await {
        Ok(relay) => page(StatusCode::OK, &question(&relay)),
        Err(refusal) => refusal,
    }
}

/// The button.
async fn press(State(requests): State<Requests>, Path(token): Path<String>) -> Response {
    match told(&requests, token, false).await {
        Ok(relay) => page(StatusCode::OK, &thanks(&relay)),
        Err(refusal) => refusal,
    }
}

/// What the daemon says about a token.
async fn told(requests: &Requests, token: String, dry_run: bool) -> Result<Verified, Response> {
    let request = Request::RelayConfirm { token, dry_run };
    let visitor = Peer {
        user: "the confirmation page".to_owned(),
        ..Peer::ours()
    };
    let (status, words) = match ask_as(visitor, requests, request).await {
        Ok(items) => {
            let verified = items.into_iter().find_map(|item| match item {
                Item::Verified(verified) => Some(verified),
                _ => None,
            });
            match verified {
                Some(verified) => return Ok(verified),
                None => (StatusCode::SERVICE_UNAVAILABLE, "no answer".to_owned()),
            }
        }
        Err(NoAnswer::Failed(failure)) => {
            let status = match failure.kind {
                FailureKind::NotFound | FailureKind::BadRequest => StatusCode::NOT_FOUND,
                FailureKind::Failed => StatusCode::GONE,
                FailureKind::TryAgain | FailureKind::BadConfiguration => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            };
            (status, failure.message)
        }
        Err(NoAnswer::Stuck) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "penstockd does not answer; try again in a minute".to_owned(),
        ),
    };
    let body = format!(
        "<h1>Nothing was confirmed</h1><p id=said>{}.</p>",
        escaped(words.trim_end_matches('.'))
    );
    Err(page(status, &body))
}

fn question(relay: &Verified) -> String {
    let name = escaped(&relay.relay);
    format!(
        "<h1>Does the relay {name} deliver?</h1>\
         <p>That you got its test message shows that it does. Once you confirm, the mail of \
         its users goes through it.</p>{}\
         <form method=post><button id=confirm>Confirm the relay {name}</button></form>\
         <p>If you know nothing of this, close the page: nothing happens.</p>",
        facts(relay)
    )
}

fn thanks(relay: &Verified) -> String {
    format!(
        "<h1>The relay {} is active</h1>\
         <p id=said>It is confirmed: the mail of its users goes through it from now on. You \
         can close this page.</p>{}",
        escaped(&relay.relay),
        facts(relay)
    )
}

fn facts(relay: &Verified) -> String {
    let mut facts = String::from("<dl>");
    for (what, value) in [
        ("Server", relay.servers.join(", ")),
        ("Sender", relay.sender.clone()),
    ] {
        // Writing to a String cannot fail.
        write!(facts, "<dt>{what}</dt><dd>{}</dd>", escaped(&value)).ok();
    }
    facts.push_str("</dl>");
    facts
}

/// A page around this body. Its address holds a secret: it is kept nowhere and told to
/// nobody.
fn page(status: StatusCode, body: &str) -> Response {
    let text = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=color-scheme content=\"light dark\"><meta name=robots content=noindex>\
         <title>Penstock: confirm a relay</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (status, headers, text).into_response()
}

fn nothing_here() -> Response {
    page(
        StatusCode::NOT_FOUND,
        "<h1>Nothing is here</h1><p id=said>This address confirms relays, by the link in a \
         test message. Copy the whole link.</p>",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_configuration_are_only_read() {
        let relay = Verified {
            relay: "own".into(),
            servers: vec!["<script>alert(1)</script>".into()],
            sender: "\"><img src=x>@a.example".into(),
            at: None,
        };
        for body in [question(&relay), thanks(&relay)] {
            assert!(
                !body.contains("<script") && !body.contains("<img"),
                "{body}"
            );
        }
    }
}
