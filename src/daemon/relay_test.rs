//! `penstock relay test`: trying a relay without sending anything.

use std::sync::Arc;

use crate::config::{Relay, Secret};
use crate::control::protocol::{Dialogue, RelayTestReport, Side};
use crate::mail::Stage;
use crate::outcome::{Rules, classify_error};
use crate::relay::{RelayError, Said, TestReport};
use crate::smtp::Extensions;

use super::transaction::Office;

/// Connects, secures, logs in and says QUIT.
pub async fn run(office: &Office, relay: Arc<Relay>) -> TestReport {
    run_with(office, relay, None).await
}

/// The same with this access token, if there is one, instead of the relay's own.
pub async fn run_with(office: &Office, relay: Arc<Relay>, token: Option<&Secret>) -> TestReport {
    let live = office.live.borrow().clone();
    let timeouts = live.config.timeouts;
    office
        .pool
        .test_with(relay, timeouts, &live.config.hostname, token)
        .await
}

/// What was said, line by line.
pub fn dialogue(report: &TestReport) -> Vec<Dialogue> {
    let lines = report.transcript.lines().iter();
    lines
        .map(|(said, text)| Dialogue {
            side: match said {
                Said::Ours => Side::Ours,
                Said::Theirs => Side::Theirs,
                Said::Note => Side::Note,
            },
            text: text.clone(),
        })
        .collect()
}

/// How it ended, with the remedy.
pub fn verdict(relay: &str, report: &TestReport, rules: &Rules) -> RelayTestReport {
    let server = (!report.server.is_empty()).then(|| report.server.clone());
    match &report.error {
        Some(error) => {
            let finding = classify_error(rules, error, &report.server);
            RelayTestReport {
                relay: relay.to_owned(),
                ok: false,
                server,
                stage: error.stage().name().to_owned(),
                text: words(error),
                remedy: Some(finding.remedy),
            }
        }
        None => RelayTestReport {
            relay: relay.to_owned(),
            ok: true,
            server,
            stage: Stage::Quit.name().to_owned(),
            text: offered(report),
            remedy: None,
        },
    }
}

/// What went wrong; where it did, the report says itself.
fn words(error: &RelayError) -> String {
    match error {
        RelayError::Refused { stage, .. } => {
            let words = error.to_string();
            let beginning = format!("refused at {}: ", stage.name());
            words.strip_prefix(&beginning).unwrap_or(&words).to_owned()
        }
        other => other.to_string(),
    }
}

/// What the relay would do for us, in one sentence each.
fn offered(report: &TestReport) -> String {
    let mut said = Vec::new();
    said.push(match &report.tls {
        Some(tls) => format!(
            "{} with {}, certificate {} {}",
            tls.version,
            tls.cipher,
            tls.fingerprint,
            if tls.verified {
                "verified"
            } else {
                "not verified"
            }
        ),
        None => "without TLS".to_owned(),
    });
    said.push(match &report.login {
        Some(mechanism) => format!("logged in with AUTH {}", mechanism.name()),
        None => "without a login".to_owned(),
    });
    if let Some(extensions) = &report.offered {
        let keywords = keywords(extensions);
        said.push(match keywords.is_empty() {
            true => "offers no extensions".to_owned(),
            false => format!("offers {}", keywords.join(", ")),
        });
    }
    said.push(format!("took {} ms", report.took.as_millis()));
    said.join("; ")
}

/// The extensions that matter to us.
fn keywords(offered: &Extensions) -> Vec<String> {
    let mut keywords = Vec::new();
    match offered.size {
        Some(Some(limit)) => keywords.push(format!("SIZE {limit}")),
        Some(None) => keywords.push("SIZE".to_owned()),
        None => {}
    }
    for (keyword, is_offered) in [
        ("PIPELINING", offered.pipelining),
        ("CHUNKING", offered.chunking),
        ("8BITMIME", offered.eight_bit_mime),
        ("SMTPUTF8", offered.smtputf8),
        ("DSN", offered.dsn),
        ("ENHANCEDSTATUSCODES", offered.enhanced_status_codes),
    ] {
        if is_offered {
            keywords.push(keyword.to_owned());
        }
    }
    if !offered.auth.is_empty() {
        keywords.push(format!("AUTH {}", offered.auth.join(" ")));
    }
    keywords
}
