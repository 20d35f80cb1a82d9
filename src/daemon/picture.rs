//! How things look to the delivery task, in the words of the protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{Limits, Relay, tls_word};
use crate::control::describe::Situation;
use crate::control::protocol::{
    LimitsReport, MailingReport, MessageState, OAuthReport, RelayState, RelayStatus, UserShare,
    WindowReport,
};
use crate::mail::{Envelope, Origin, State};
use crate::oauth::Standing;
use crate::outcome::Cause;
use crate::release::{Outlook, Wait};
use crate::spool::{FlowKey, FlowSummary, RelayCounts, Waiting};

use super::delivery::{Delivery, RelayBook};
use super::verifying::{add_verification, unverified};

/// Users and mailings that a report about limits names.
const SHOWN: usize = 10;

impl Delivery {
    /// Why a message waits, and how long at most.
    pub(super) fn situation(&mut self, envelope: &Envelope) -> Situation {
        let now = self.office.clock.now();
        let retry = self.live.config.retry;
        let health = self.relays.get(&envelope.relay).map(|it| &it.health);
        let expires = health.and_then(|it| it.gives_up(envelope, &retry, now));
        let situation = self.why(envelope);
        Situation {
            expires,
            ..situation
        }
    }

    fn why(&mut self, envelope: &Envelope) -> Situation {
        let now = self.office.clock.moment();
        let told = |state, why: &str, text: String, next| Situation {
            state,
            why: why.into(),
            text,
            next,
            expires: None,
        };
        if let Some(sending) = self.sending.get(&envelope.id) {
            let text = format!(
                "is being sent to the relay {} since {}",
                envelope.relay,
                sending.since.strftime("%H:%M:%S UTC")
            );
            return told(MessageState::Sending, "sending", text, None);
        }
        if matches!(envelope.state, State::Held(_)) {
            return Situation::of(envelope, now.wall);
        }
        let relay = &envelope.relay;
        let live = self.office.live.borrow().clone();
        let Some(configured) = live.config.relays.get(relay) else {
            let text = format!(
                "the relay {relay} is not configured any more; add it again, or use penstock reroute"
            );
            return told(MessageState::Paused, "relay-missing", text, None);
        };
        if envelope.origin != Origin::Verification
            && !self.office.confirmations.is_active(configured)
        {
            let told_of = unverified(configured, self.book(relay), now.wall);
            let text = format!("the relay {relay} is not verified yet: {}", told_of.0);
            return told(MessageState::Paused, "relay-unverified", text, None);
        }
        let pause = self.relays.get(relay).and_then(|book| book.health.pause());
        if let Some(pause) = pause {
            let since = pause.since.strftime("%Y-%m-%d %H:%M UTC");
            let text = match pause.cause {
                Cause::Administrator if pause.words.is_empty() => {
                    format!("the relay {relay} was paused by {} at {since}", pause.by)
                }
                Cause::Administrator => format!(
                    "the relay {relay} was paused by {} at {since}: {}",
                    pause.by, pause.words
                ),
                Cause::Trouble | Cause::Rate => {
                    format!("the relay {relay} is paused since {since}: {}", pause.words)
                }
            };
            return told(MessageState::Paused, "relay-paused", text, pause.next_probe);
        }
        let item = match Waiting::of(envelope) {
            Some(item) if item.not_before.is_none_or(|at| at <= now.wall) => item,
            _ => return Situation::of(envelope, now.wall),
        };
        let explained = self.release.explain(&item, now);
        let next = explained.until.or(explained.leaves_by);
        let limit = |text: String| told(MessageState::Waiting, "limit", text, next);
        let turn = |text: &str| told(MessageState::Waiting, "turn", text.to_owned(), next);
        match explained.wait {
            Wait::MinInterval => limit(format!(
                "min-interval of the relay {relay} since the last release"
            )),
            Wait::NextBatch => limit(format!(
                "the next batch of the relay {relay} has not opened yet"
            )),
            Wait::Limit(key) => limit(format!("{key} of the relay {relay} is used up")),
            Wait::Alone => limit(format!(
                "it is larger than a batch of the relay {relay} and waits to go alone"
            )),
            Wait::Connections => turn("all connections that the relay allows are busy"),
            Wait::Turn => turn("others come first"),
            Wait::Spool | Wait::Nothing | Wait::UnderWay => turn("it leaves now"),
            Wait::Restricted => told(
                MessageState::Paused,
                "relay-unverified",
                format!("the relay {relay} is not verified yet"),
                None,
            ),
            Wait::Paused => told(
                MessageState::Paused,
                "relay-paused",
                format!("the relay {relay} is paused"),
                None,
            ),
            Wait::NotConfigured => told(
                MessageState::Paused,
                "relay-missing",
                format!("the relay {relay} is not configured any more"),
                None,
            ),
        }
    }

    /// How the relays are: every one that is configured or has mail, or one by name.
    pub(super) async fn pictures(&mut self, only: Option<&str>) -> Vec<RelayStatus> {
        let live = self.office.live.borrow().clone();
        let now = self.office.clock.now();
        let spool = self.spool.status().await;
        let mut names: Vec<&String> = live.config.relays.keys().collect();
        // One that is no longer configured is of interest as long as it has mail.
        let has_mail =
            |it: &RelayCounts| it.ready.messages + it.deferred.messages + it.held.messages > 0;
        let missing = spool
            .relays
            .iter()
            .filter(|(name, counts)| !live.config.relays.contains_key(*name) && has_mail(counts));
        names.extend(missing.map(|(name, _)| name));
        let default = live.config.default_relay.as_deref();
        let blank = RelayBook::default();
        let mut told = Vec::new();
        for name in names
            .into_iter()
            .filter(|name| only.is_none_or(|it| it == **name))
        {
            let counts = spool.relays.get(name).copied().unwrap_or_default();
            let book = self.relays.get(name).unwrap_or(&blank);
            let relay = live.config.relays.get(name);
            let mut status = picture(name, relay, book, counts, default == Some(name));
            status.connections = u64::from(self.office.pool.connections(name));
            if let Some(relay) = relay.filter(|it| it.verify) {
                let is_active = self.office.confirmations.is_active(relay);
                add_verification(&mut status, relay, book, is_active, now);
            }
            if let Some(relay) = relay {
                let standing = self.office.tokens.standing(relay).await;
                status.oauth = standing.map(|it| oauth_report(name, &it, now));
            }
            told.push(status);
        }
        told
    }

    /// What is used and left of the limits: of every relay, or of one by name.
    pub(super) fn limits(
        &mut self,
        only: Option<&str>,
        flows: Vec<FlowSummary>,
    ) -> Vec<LimitsReport> {
        let live = self.office.live.borrow().clone();
        let now = self.office.clock.moment();
        let mut going_on = self.mailings(only, flows);
        going_on.retain(|it| it.waiting + it.held > 0);
        let mut reports = Vec::new();
        for (name, relay) in &live.config.relays {
            if only.is_some_and(|it| it != name) {
                continue;
            }
            let Some(outlook) = self.release.outlook(name, now) else {
                continue;
            };
            let users = self.users(name);
            let is_active = self.office.confirmations.is_active(relay);
            let state = match (is_active, self.book(name).health.is_well()) {
                (false, _) => RelayState::Unverified,
                (true, false) => RelayState::Paused,
                (true, true) => RelayState::Active,
            };
            let book = self.book(name);
            let mut report = limits_report(relay, &outlook, state, book, now.wall);
            report.users = users;
            let own = going_on.iter().filter(|it| it.relay == *name);
            report.mailings = own.take(SHOWN).cloned().collect();
            reports.push(report);
        }
        reports
    }

    /// Who waits for a relay, most messages first.
    fn users(&mut self, relay: &str) -> Vec<UserShare> {
        let mut shares: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for mailing in self.release.mailings(relay, self.office.clock.moment()) {
            let share = shares.entry(mailing.flow.user.clone()).or_default();
            share.0 += mailing.waiting.messages;
            share.1 += mailing.waiting.octets;
        }
        let mut users: Vec<UserShare> = shares
            .into_iter()
            .map(|(from, (waiting, waiting_bytes))| UserShare {
                from,
                waiting,
                waiting_bytes,
            })
            .collect();
        users.sort_by(|one, other| {
            other
                .waiting
                .cmp(&one.waiting)
                .then_with(|| one.from.cmp(&other.from))
        });
        users.truncate(SHOWN);
        users
    }

    /// The mailings that wait, or got a message within the hour.
    pub(super) fn mailings(
        &mut self,
        only: Option<&str>,
        flows: Vec<FlowSummary>,
    ) -> Vec<MailingReport> {
        let now = self.office.clock.moment();
        let live = self.office.live.borrow().clone();
        let mut outlooks: BTreeMap<FlowKey, (bool, Option<Timestamp>)> = BTreeMap::new();
        for name in live.config.relays.keys() {
            for it in self.release.mailings(name, now) {
                outlooks.insert((*it.flow).clone(), (it.is_interactive, it.done_at));
            }
        }
        let mut reports: Vec<MailingReport> = flows
            .into_iter()
            .filter(|flow| only.is_none_or(|it| it == flow.key.relay))
            .map(|flow| {
                let outlook = outlooks.get(&flow.key);
                let waiting = flow.ready.messages + flow.deferred.messages;
                let held = flow.held.messages;
                let limits = live.config.relays.get(&flow.key.relay).map(|it| &it.limits);
                MailingReport {
                    mailing: flow.label,
                    // What is held from before an hour of silence is counted no more.
                    accepted: flow.accepted.max(waiting + held),
                    done: flow.accepted.saturating_sub(waiting + held),
                    waiting,
                    held,
                    limit: limits.and_then(|it| it.mailing_limit).map(u64::from),
                    last_accepted: flow.recent.last().copied().unwrap_or(now.wall),
                    interactive: outlook.map_or(flow.recent.len() <= 20, |it| it.0),
                    finished_at: outlook.and_then(|it| it.1).filter(|_| waiting > 0),
                    key: flow.key.mailing,
                    from: flow.key.user,
                    relay: flow.key.relay,
                }
            })
            .collect();
        reports.sort_by(|one, other| {
            other
                .waiting
                .cmp(&one.waiting)
                .then_with(|| one.key.cmp(&other.key))
        });
        reports
    }
}

fn picture(
    name: &str,
    relay: Option<&Relay>,
    book: &RelayBook,
    counts: RelayCounts,
    default: bool,
) -> RelayStatus {
    let pause = book.health.pause();
    let state = match (relay, pause) {
        (None, _) => RelayState::Missing,
        (Some(_), Some(_)) => RelayState::Paused,
        (Some(_), None) => RelayState::Active,
    };
    let reason = match (state, pause) {
        (RelayState::Missing, _) => Some("it is not configured any more".to_owned()),
        (_, Some(pause)) if pause.words.is_empty() => Some("paused by hand".to_owned()),
        (_, Some(pause)) => Some(pause.words.clone()),
        _ => None,
    };
    let remedy = match state {
        RelayState::Missing => {
            Some("Add it again, or move its mail with penstock reroute.".to_owned())
        }
        _ => pause.map(|it| it.remedy.clone()),
    };
    let waiting = counts.ready.messages + counts.deferred.messages;
    RelayStatus {
        relay: name.to_owned(),
        servers: relay
            .map(|it| it.servers.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        state,
        reason,
        remedy,
        by: pause.map(|it| it.by.clone()),
        since: pause.map(|it| it.since),
        next_probe: pause.and_then(|it| it.next_probe),
        username: relay
            .and_then(|it| it.credentials.as_ref())
            .map(|it| it.username.clone()),
        sender: relay
            .and_then(|it| it.sender.as_ref())
            .map(ToString::to_string),
        tls: relay
            .and_then(|it| it.servers.first())
            .map(|it| tls_word(it.tls).to_owned()),
        preset: relay.map(|it| it.limits.preset.name().to_owned()),
        default,
        connections: 0,
        waiting,
        waiting_bytes: counts.ready.wire_bytes + counts.deferred.wire_bytes,
        held: counts.held.messages,
        last_success: book.last_success,
        last_failure: book.last_failure.as_ref().map(|it| it.0),
        last_error: book.last_failure.as_ref().map(|it| it.1.clone()),
        verification: None,
        oauth: None,
    }
}

/// How a login with tokens stands.
fn oauth_report(relay: &str, standing: &Standing, now: Timestamp) -> OAuthReport {
    let soon = standing.ends_soon(now).map(|at| {
        (
            format!("the login ends on {}", at.strftime("%Y-%m-%d %H:%M UTC")),
            format!("Run penstock relay login {relay} before."),
        )
    });
    let trouble = standing.trouble.as_ref();
    let trouble = trouble.map(|it| (it.to_string(), it.remedy())).or(soon);
    let (trouble, remedy) = trouble.unzip();
    OAuthReport {
        grant: standing.grant.name().to_owned(),
        since: standing.since.as_ref().map(|it| it.0),
        by: standing.since.as_ref().map(|it| it.1.clone()),
        used: standing.used,
        expires: standing.expires,
        trouble,
        remedy,
    }
}

fn limits_report(
    relay: &Relay,
    outlook: &Outlook,
    state: RelayState,
    book: &RelayBook,
    now: Timestamp,
) -> LimitsReport {
    let limits = &relay.limits;
    LimitsReport {
        relay: relay.name.clone(),
        preset: limits.preset.name().to_owned(),
        state,
        windows: outlook
            .limits
            .iter()
            .map(|limit| WindowReport {
                limit: limit.limit.to_owned(),
                window_seconds: window(limit.limit, limits).as_secs(),
                allowed: limit.most,
                used: limit.used,
                left: limit.most.saturating_sub(limit.used),
                room_at: limit.frees_in.and_then(|it| now.checked_add(it).ok()),
            })
            .collect(),
        min_interval_ms: u64::try_from(limits.min_interval.as_millis()).unwrap_or(u64::MAX),
        connections: u64::from(outlook.in_flight),
        connections_limit: u64::from(limits.connections),
        waiting: outlook.waiting.messages,
        waiting_bytes: outlook.waiting.octets,
        batch_open: outlook.batch_closes.is_some(),
        why: match book.health.pause() {
            _ if state == RelayState::Unverified => {
                Some("its test message is not confirmed yet".into())
            }
            Some(pause) if !pause.words.is_empty() => Some(format!("paused: {}", pause.words)),
            Some(_) => Some("paused by hand".into()),
            None => outlook.wait.and_then(why),
        },
        until: match book.health.pause() {
            Some(pause) => pause.next_probe,
            None => outlook.until,
        },
        next_batch: outlook
            .next_batch
            .filter(|_| outlook.waiting.messages > 0 && state == RelayState::Active),
        empty_at: outlook.empty_at,
        interactive_share: limits.interactive_share,
        users: Vec::new(),
        mailings: Vec::new(),
    }
}

/// Why the next message of a relay that is not paused does not leave now.
fn why(wait: Wait) -> Option<String> {
    match wait {
        Wait::NextBatch => Some("the next batch has not opened yet".into()),
        Wait::MinInterval => Some("min-interval since the last release".into()),
        Wait::Limit(key) => Some(format!("{key} is used up for general mail")),
        Wait::Alone => {
            Some("a message larger than a batch waits for an empty window, to go alone".into())
        }
        Wait::Connections => Some("all connections that it allows are busy".into()),
        Wait::Paused => Some("paused".into()),
        Wait::Restricted => Some("it is not verified yet".into()),
        Wait::NotConfigured => Some("it is not configured any more".into()),
        Wait::Nothing | Wait::Spool | Wait::Turn | Wait::UnderWay => None,
    }
}

/// The length of the window that a limit counts in.
fn window(limit: &str, limits: &Limits) -> Duration {
    match limit.rsplit('-').next() {
        Some("hour") => Duration::from_secs(3_600),
        Some("day") => Duration::from_secs(86_400),
        _ => limits.batch_interval,
    }
}
