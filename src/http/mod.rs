//! Pages over HTTP: metrics, health and status for administrators, and the page that
//! confirms a relay.
//!
//! The first are served on a Unix socket or a loopback address and nowhere else; the
//! other has a listener of its own, [`confirm`], which serves nothing else. What is shown
//! is asked of the daemon with the requests of the control socket; nothing here knows a
//! queue.

mod bounded;
pub mod confirm;
mod metrics;
mod page;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::control::protocol::{Failure, Item, LimitsReport, Line, Request, StatusReport};
use crate::control::server::{self, ControlError};
use crate::control::{Peer, Responder};

use bounded::Bounded;

/// How long the daemon may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the daemon; cloned freely.
pub type Requests = mpsc::Sender<(Request, Responder)>;

/// Where the pages of administrators are served.
#[derive(Debug)]
pub enum Bound {
    /// A Unix socket, removed at the end.
    Unix(UnixListener, PathBuf),
    /// A loopback address.
    Loopback(TcpListener),
}

impl Bound {
    /// Opens a Unix socket, in place of one that a killed daemon left behind, for the same
    /// people as the control socket.
    pub fn unix(path: &Path) -> Result<Self, ControlError> {
        Ok(Self::Unix(server::open(path)?, path.to_owned()))
    }
}

/// Serves until `stop` turns true.
pub async fn serve(
    bound: Bound,
    requests: Requests,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let pages = Router::new()
        .route("/", get(status))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .with_state(requests);
    let connections = stop.clone();
    let stopping = async move {
        // The sender is gone only when the daemon is.
        let _ = stop.wait_for(|it| *it).await;
    };
    match bound {
        Bound::Loopback(listener) => {
            axum::serve(Bounded::new(listener, connections), pages)
                .with_graceful_shutdown(stopping)
                .await
        }
        Bound::Unix(listener, path) => {
            let served = axum::serve(Bounded::new(listener, connections), pages)
                .with_graceful_shutdown(stopping)
                .await;
            std::fs::remove_file(path).ok();
            served
        }
    }
}

/// Why the daemon gave no answer.
enum NoAnswer {
    Stuck,
    Failed(Failure),
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        let words = match self {
            Self::Stuck => "penstockd does not answer\n".to_owned(),
            Self::Failed(failure) => format!("{failure}\n"),
        };
        (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
    }
}

/// All items of one answer.
async fn ask(requests: &Requests, request: Request) -> Result<Vec<Item>, NoAnswer> {
    ask_as(Peer::ours(), requests, request).await
}

/// The same for somebody else than this program.
async fn ask_as(peer: Peer, requests: &Requests, request: Request) -> Result<Vec<Item>, NoAnswer> {
    let (responder, mut lines) = Responder::new(peer);
    let asked = async {
        requests
            .send((request, responder))
            .await
            .map_err(|_| NoAnswer::Stuck)?;
        let mut items = Vec::new();
        while let Some(line) = lines.recv().await {
            match line {
                Line::Item(item) => items.push(item),
                Line::Done {} => return Ok(items),
                Line::Error(failure) => return Err(NoAnswer::Failed(failure)),
            }
        }
        Err(NoAnswer::Stuck)
    };
    timeout(PATIENCE, asked)
        .await
        .unwrap_or(Err(NoAnswer::Stuck))
}

async fn picture(requests: &Requests) -> Result<(StatusReport, Vec<LimitsReport>), NoAnswer> {
    let mut status = None;
    for item in ask(requests, Request::Status {}).await? {
        if let Item::Status(report) = item {
            status = Some(*report);
        }
    }
    let limits = ask(requests, Request::Limits { relay: None }).await?;
    let limits = limits.into_iter().filter_map(|item| match item {
        Item::Limits(report) => Some(*report),
        _ => None,
    });
    Ok((status.ok_or(NoAnswer::Stuck)?, limits.collect()))
}

async fn metrics_text(State(requests): State<Requests>) -> Result<Response, NoAnswer> {
    let items = ask(&requests, Request::Metrics {}).await?;
    let report = items.into_iter().find_map(|item| match item {
        Item::Metrics(report) => Some(report),
        _ => None,
    });
    let report = report.ok_or(NoAnswer::Stuck)?;
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((kind, metrics::text(&report)).into_response())
}

async fn status(State(requests): State<Requests>) -> Result<Response, NoAnswer> {
    let (status, limits) = picture(&requests).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, page::status(&status, &limits)).into_response())
}

/// The process turns.
async fn healthy(State(requests): State<Requests>) -> Result<&'static str, NoAnswer> {
    ask(&requests, Request::Status {}).await.map(|_| "ok\n")
}

/// New mail is taken.
async fn ready(State(requests): State<Requests>) -> Result<Response, NoAnswer> {
    let (status, _) = picture(&requests).await?;
    Ok(match status.spool.accepting {
        true => "ok\n".into_response(),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "new mail is refused: see penstock status\n",
        )
            .into_response(),
    })
}
