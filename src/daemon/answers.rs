//! Answers to what is asked on the control socket.

mod login;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::accept::{Live, Shared};
use crate::clock::Clock;
use crate::control::describe::{self, Situation};
use crate::control::protocol::{
    Action, ChangeReport, ChangeRequest, Content, FailureKind, Filter, Item, MessageState,
    RelayState, RelayTestReport, Request, RouteReport, TopSnapshot, TraceRequest, Verified,
};
use crate::control::trace::{self, End};
use crate::control::{Gone, Responder};
use crate::mail::{Diagnostic, Envelope, Mailbox, QueueId, Stage};
use crate::outcome::{Rules, classify_again};

use crate::spool::{self, Lookup, Spool, SpoolError};
use crate::verify::{self, Token};

use super::desk::{Desk, Stopping};
use super::hinting::Hints;
use super::lifecycle::Lifecycle;
use super::reload::Reloader;
use super::transaction::Office;
use super::verifying::{NoTest, Unconfirmed, Verifying};
use super::{change, relay_test, status, verifying};

/// Messages that are read from the spool together.
const PAGE: usize = 256;
/// Octets of one piece of a content; base64 makes 64 KiB of them.
const PIECE_BYTES: usize = 48 * 1024;

/// How long `relay verify` waits for its test message to be tried.
const VERIFY_PATIENCE: Duration = Duration::from_secs(60);

/// All that answers need; one for the whole daemon.
pub struct Answers {
    /// The waiting mail.
    pub spool: Spool,
    /// The delivery task.
    pub desk: Desk,
    /// The configuration in use.
    pub live: watch::Receiver<Arc<Live>>,
    /// What the time is.
    pub clock: Clock,
    /// Takes a new configuration.
    pub reloader: Reloader,
    /// What is counted and known of the process.
    pub facts: Arc<status::Facts>,
    /// The clients.
    pub shared: Arc<Shared>,
    /// The way to relays.
    pub office: Arc<Office>,
    /// What hurts delivery.
    pub hints: Hints,
}

/// Why a request was not answered; the client is told.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{1}")]
    Failure(FailureKind, String),
    #[error("{}", chain(.0))]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

/// Answers requests, each in a task of its own, until the control socket closes.
pub async fn serve(
    answers: Arc<Answers>,
    mut requests: mpsc::Receiver<(Request, Responder)>,
    lifecycle: Lifecycle,
) {
    let stopping = lifecycle.draining();
    loop {
        let next = tokio::select! {
            biased;
            next = requests.recv() => next,
            // Who could still ask may live longer: what is asked until now is answered.
            () = stopping.cancelled() => {
                requests.close();
                requests.recv().await
            }
        };
        let Some((request, responder)) = next else {
            return;
        };
        let answers = answers.clone();
        let stopping = stopping.clone();
        lifecycle.spawn(async move {
            match answers.answer(request, &responder, &stopping).await {
                Ok(()) => responder.done().await,
                Err(Trouble::Gone(_)) => {}
                Err(Trouble::Failure(kind, words)) => responder.fail(kind, words).await,
                Err(Trouble::Stopping(words)) => {
                    responder
                        .fail(FailureKind::TryAgain, words.to_string())
                        .await;
                }
                Err(trouble @ Trouble::Spool(_)) => {
                    warn!(%trouble, "a control request failed");
                    responder
                        .fail(FailureKind::Failed, trouble.to_string())
                        .await;
                }
            }
        });
    }
}

fn not_found(words: String) -> Trouble {
    Trouble::Failure(FailureKind::NotFound, words)
}

fn bad_request(words: impl Into<String>) -> Trouble {
    Trouble::Failure(FailureKind::BadRequest, words.into())
}

impl Answers {
    async fn answer(
        &self,
        request: Request,
        to: &Responder,
        stopping: &CancellationToken,
    ) -> Result<(), Trouble> {
        match request {
            Request::Status {} => {
                let report = status::report(self).await?;
                to.item(Item::Status(Box::new(report))).await?;
            }
            Request::Queue {
                filter,
                after,
                limit,
            } => self.queue(&filter, after, limit, to).await?,
            Request::Show { id } => self.show(&id, to).await?,
            Request::Cat { id } => self.cat(&id, to).await?,
            Request::Trace(request) => self.trace(&request, to).await?,
            Request::Change(request) => {
                let report = self.change(request, &to.peer().user).await?;
                to.item(Item::Change(report)).await?;
            }
            Request::Limits { relay } => {
                let reports = self.desk.limits(relay.clone()).await?;
                if let (Some(relay), true) = (relay, reports.is_empty()) {
                    return Err(no_such_relay(&relay));
                }
                for report in reports {
                    to.item(Item::Limits(Box::new(report))).await?;
                }
            }
            Request::Mailings { relay } => {
                // The delivery task must not wait for it: others ask it, too.
                self.spool.until_complete().await?;
                for report in self.desk.mailings(relay).await? {
                    to.item(Item::Mailing(Box::new(report))).await?;
                }
            }
            Request::Metrics {} => {
                let report = status::metrics(self).await?;
                to.item(Item::Metrics(Box::new(report))).await?;
            }
            Request::Top { interval_seconds } => self.top(interval_seconds, to, stopping).await?,
            Request::RelayTest { relay } => self.relay_test(&relay, to).await?,
            Request::RelayVerify { relay } => self.relay_verify(&relay, to).await?,
            Request::RelayLogin {
                relay,
                refresh_token,
            } => {
                self.relay_login(&relay, refresh_token, to, stopping)
                    .await?;
            }
            Request::RelayConfirm { token, dry_run } => {
                let by = (!dry_run).then(|| to.peer().user.clone());
                let confirmed = self.relay_confirm(&token, by).await?;
                to.item(Item::Verified(confirmed)).await?;
            }
            Request::Hints { relay } => {
                if let Some(relay) = &relay {
                    self.known_relay(relay)?;
                }
                let config = self.live.borrow().config.clone();
                for report in self.hints.reports(&config, relay.as_deref()) {
                    to.item(Item::Hint(Box::new(report))).await?;
                }
            }
            Request::RelayList { relay } => self.relays(relay, to).await?,
            Request::RelayPause { relay, note } => {
                self.known_relay(&relay)?;
                let by = to.peer().user.clone();
                self.desk
                    .pause(relay.clone(), by, note.unwrap_or_default())
                    .await?;
                self.relays(Some(relay), to).await?;
            }
            Request::RelayResume { relay } => {
                self.known_relay(&relay)?;
                self.desk.resume(relay.clone()).await?;
                self.relays(Some(relay), to).await?;
            }
            Request::Route { address } => self.route(&address, to).await?,
            Request::Reload {} => match self.reloader.reload().await {
                Ok(report) => to.item(Item::Reload(report)).await?,
                Err(words) => return Err(Trouble::Failure(FailureKind::BadConfiguration, words)),
            },
        }
        Ok(())
    }

    async fn top(
        &self,
        interval_seconds: u64,
        to: &Responder,
        stopping: &CancellationToken,
    ) -> Result<(), Trouble> {
        let interval = Duration::from_secs(interval_seconds.clamp(1, 3600));
        loop {
            let report = status::report(self).await?;
            let snapshot = TopSnapshot {
                at: self.clock.now(),
                clients: self.shared.connections() as u64,
                queue: report.queue,
                traffic: report.traffic,
                relays: report.relays,
                limits: self.desk.limits(None).await?,
            };
            to.item(Item::Top(Box::new(snapshot))).await?;
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = to.gone() => return Err(Gone.into()),
                () = stopping.cancelled() => return Err(Stopping.into()),
            }
        }
    }

    async fn relay_test(&self, relay: &str, to: &Responder) -> Result<(), Trouble> {
        let found = self.live.borrow().config.relays.get(relay).cloned();
        let Some(configured) = found else {
            return Err(no_such_relay(relay));
        };
        let report = relay_test::run(&self.office, Arc::new(configured)).await;
        for line in relay_test::dialogue(&report) {
            to.item(Item::Dialogue(line)).await?;
        }
        let rules = self.office.rules.borrow().clone();
        to.item(Item::RelayTest(relay_test::verdict(relay, &report, &rules)))
            .await?;
        Ok(())
    }

    /// Sends the test message of a relay, and shows what comes of it.
    async fn relay_verify(&self, relay: &str, to: &Responder) -> Result<(), Trouble> {
        self.known_relay(relay)?;
        let verifying = match self.desk.verify(relay.to_owned()).await? {
            Ok(verifying) => verifying,
            Err(reason) => {
                let kind = match reason {
                    NoTest::NotWanted(_) => FailureKind::BadRequest,
                    NoTest::Pause { .. } => FailureKind::TryAgain,
                    NoTest::Confirmed { .. } | NoTest::Paused { .. } | NoTest::Trouble(_) => {
                        FailureKind::Failed
                    }
                };
                return Err(Trouble::Failure(kind, reason.to_string()));
            }
        };
        let Verifying { sender, id, ended } = verifying;
        let ended = tokio::time::timeout(VERIFY_PATIENCE, ended).await;
        let mut report = RelayTestReport {
            relay: relay.to_owned(),
            ok: true,
            server: None,
            stage: Stage::FinalDot.name().to_owned(),
            text: format!(
                "the test message left for {sender}; open the link in it and press the button, or \
                 run penstock relay confirm with its token, within 7 days"
            ),
            remedy: None,
        };
        match ended {
            Ok(Ok(verify::Outcome::Sent { .. })) => {}
            Ok(Ok(verify::Outcome::Failed {
                stage,
                words,
                remedy,
                conversation,
                ..
            })) => {
                for line in verifying::dialogue(&conversation) {
                    to.item(Item::Dialogue(line)).await?;
                }
                report.ok = false;
                report.stage = stage;
                report.text = words;
                report.remedy = Some(remedy);
            }
            Ok(Ok(verify::Outcome::Waiting) | Err(_)) | Err(_) => {
                report.text = format!(
                    "the test message to {sender} is written and has not left yet; \
                     penstock show {id} tells what it waits for"
                );
            }
        }
        to.item(Item::RelayTest(report)).await?;
        Ok(())
    }

    /// What a token is for; with a name, that one confirms it.
    async fn relay_confirm(&self, token: &str, by: Option<String>) -> Result<Verified, Trouble> {
        let unknown = || Trouble::Failure(FailureKind::NotFound, Unconfirmed::Unknown.to_string());
        let token = Token::parse(token).ok_or_else(unknown)?;
        match self.desk.confirm(token.hash(), by).await? {
            Ok(confirmed) => Ok(Verified {
                relay: confirmed.relay,
                servers: confirmed.servers,
                sender: confirmed.sender,
                at: confirmed.at,
            }),
            Err(Unconfirmed::Unknown) => Err(unknown()),
            Err(Unconfirmed::Trouble(words)) => Err(Trouble::Failure(FailureKind::TryAgain, words)),
            Err(refused) => Err(Trouble::Failure(FailureKind::Failed, refused.to_string())),
        }
    }

    fn known_relay(&self, relay: &str) -> Result<(), Trouble> {
        match self.live.borrow().config.relays.contains_key(relay) {
            true => Ok(()),
            false => Err(no_such_relay(relay)),
        }
    }

    async fn relays(&self, relay: Option<String>, to: &Responder) -> Result<(), Trouble> {
        let found = self.desk.relays(relay.clone()).await?;
        if let (Some(relay), true) = (relay, found.is_empty()) {
            return Err(no_such_relay(&relay));
        }
        for status in found {
            to.item(Item::Relay(Box::new(status))).await?;
        }
        Ok(())
    }

    async fn queue(
        &self,
        filter: &Filter,
        after: Option<String>,
        limit: Option<u64>,
        to: &Responder,
    ) -> Result<(), Trouble> {
        let after = after
            .map(|it| parse_id(&it))
            .transpose()?
            .unwrap_or(QueueId::MIN);
        let mut left = limit.unwrap_or(u64::MAX);
        let mut pages = Pages::new(self, filter, after);
        while left > 0
            && let Some(page) = pages.next().await?
        {
            for (envelope, situation) in
                page.into_iter().take(usize::try_from(left).unwrap_or(PAGE))
            {
                left -= 1;
                to.item(Item::Message(Box::new(describe::summary(
                    &envelope, situation,
                ))))
                .await?;
            }
        }
        Ok(())
    }

    /// The message and why it waits.
    async fn find(&self, id: &str) -> Result<(Envelope, Situation), Trouble> {
        let id = parse_id(id)?;
        let Some(envelope) = self.spool.envelope(id).await? else {
            return Err(not_found(format!(
                "{id} does not wait here; penstock trace {id} tells what became of it"
            )));
        };
        let situation = self.desk.situations(vec![envelope.clone()]).await?.pop();
        let now = self.clock.now();
        let situation = situation.unwrap_or_else(|| Situation::of(&envelope, now));
        Ok((envelope, situation))
    }

    async fn show(&self, id: &str, to: &Responder) -> Result<(), Trouble> {
        let (envelope, situation) = self.find(id).await?;
        let rules = self.office.rules.borrow().clone();
        let meaning = |said: &Diagnostic| meaning(&rules, said);
        let detail = describe::detail(&envelope, situation, &meaning);
        to.item(Item::Detail(Box::new(detail))).await?;
        Ok(())
    }

    async fn cat(&self, id: &str, to: &Responder) -> Result<(), Trouble> {
        let id = parse_id(id)?;
        let Some(mut content) = self.spool.content(id).await? else {
            return Err(not_found(format!(
                "{id} does not wait here; the content of finished mail is not kept"
            )));
        };
        while let Some(block) = content.next().await? {
            for piece in block.chunks(PIECE_BYTES) {
                let base64 = STANDARD.encode(piece);
                to.item(Item::Content(Content { base64 })).await?;
            }
        }
        Ok(())
    }

    async fn trace(&self, request: &TraceRequest, to: &Responder) -> Result<(), Trouble> {
        let lookup = match (&request.id, &request.address, &request.message_id) {
            (Some(id), None, None) => Lookup::Id(parse_id(id)?),
            (None, Some(address), None) => Lookup::Address(parse_address(address)?),
            (None, None, Some(message_id)) => Lookup::MessageId(message_id.clone()),
            _ => {
                return Err(bad_request(
                    "trace takes one of an id, an address and a Message-ID",
                ));
            }
        };
        let limit = request
            .limit
            .and_then(|it| usize::try_from(it).ok())
            .unwrap_or(usize::MAX);
        let finished = self.spool.history(&lookup, limit).await?;
        let waiting = self.spool.find(&lookup, limit).await?;
        let ended = finished.iter().map(|it| {
            (
                &it.envelope,
                Some(End {
                    at: it.at,
                    by: &it.by,
                }),
            )
        });
        let told = ended.chain(waiting.iter().map(|it| (it, None))).collect();
        for event in trace::events(told, limit) {
            to.item(Item::Event(Box::new(event))).await?;
        }
        Ok(())
    }

    async fn route(&self, address: &str, to: &Responder) -> Result<(), Trouble> {
        let mailbox = parse_address(address)?;
        let live = self.live.borrow().clone();
        let route = live
            .directory
            .route(&mailbox, &|name| self.office.is_active(&live, name))
            .map_err(|refusal| not_found(refusal.to_string()))?;
        let state = self
            .desk
            .relays(Some(route.relay.clone()))
            .await?
            .pop()
            .map(|it| it.state);
        let report = RouteReport {
            address: mailbox.to_string(),
            relay: route.relay,
            user: (!route.user.is_empty()).then_some(route.user),
            rule: route.rule.to_string(),
            state,
        };
        to.item(Item::Route(report)).await?;
        Ok(())
    }

    async fn change(&self, request: ChangeRequest, by: &str) -> Result<ChangeReport, Trouble> {
        if request.filter.is_empty() && !request.all {
            return Err(bad_request(
                "name ids or a filter; to mean every waiting message, say --all",
            ));
        }
        if let Action::Reroute { to } = &request.action {
            self.known_relay(to)?;
        }
        // What is accepted from now on is not meant: without a bound, a busy flow would
        // keep a change running for ever.
        let up_to = match &request.up_to {
            Some(id) => parse_id(id)?,
            None => QueueId::MAX,
        };
        let mut tally = Tally::default();
        let now = self.clock.now();
        let mut pages = Pages::new(self, &request.filter, QueueId::MIN);
        pages.up_to = up_to;
        while let Some(page) = pages.next().await? {
            let mut ids = Vec::new();
            for (envelope, situation) in &page {
                let held = situation.state == MessageState::Held;
                if situation.state == MessageState::Sending {
                    tally.changed.sending += 1;
                } else if change::changed(envelope, &request.action, by, "", now).is_none() {
                    match held && request.action == Action::Retry {
                        true => tally.held += 1,
                        false => tally.changed.unchanged += 1,
                    }
                } else {
                    tally.count(envelope);
                    tally.goes(envelope, &request.action, held);
                    ids.push(envelope.id);
                }
            }
            if request.dry_run || ids.is_empty() {
                continue;
            }
            let note = request.note.clone().unwrap_or_default();
            let changed = self
                .desk
                .change(ids, request.action.clone(), by.to_owned(), note)
                .await?
                .map_err(|words| Trouble::Failure(FailureKind::Failed, words))?;
            tally.changed.changed += changed.changed;
            tally.changed.sending += changed.sending;
            tally.changed.unchanged += changed.unchanged;
        }
        let found = tally.messages + tally.changed.sending + tally.changed.unchanged + tally.held;
        if !request.filter.ids.is_empty() && found == 0 {
            return Err(not_found("no such message waits here".to_owned()));
        }
        if !tally.goes_by.is_empty() {
            let relays = self.desk.relays(None).await?;
            let paused = relays
                .into_iter()
                .filter(|it| it.state == RelayState::Paused && tally.goes_by.contains(&it.relay));
            tally.paused = paused.map(|it| it.relay).collect();
        }
        Ok(tally.report(&request))
    }
}

/// What a change found, and what it did.
#[derive(Default)]
struct Tally {
    messages: u64,
    recipients: u64,
    size_bytes: u64,
    first_ids: Vec<String>,
    senders: std::collections::HashMap<String, u64>,
    last: Option<QueueId>,
    changed: super::desk::Changed,
    /// Held before and after.
    held: u64,
    /// The relays that should send something now.
    goes_by: BTreeSet<String>,
    /// Those of them that do not.
    paused: Vec<String>,
}

/// Senders that are counted apart; the rest only in the sums.
const SENDERS_COUNTED: usize = 1_000;

impl Tally {
    fn count(&mut self, envelope: &Envelope) {
        self.messages += 1;
        self.recipients += envelope.waiting().count() as u64;
        self.size_bytes += envelope.size_bytes;
        if self.first_ids.len() < 5 {
            self.first_ids.push(envelope.id.to_string());
        }
        let sender = envelope.from.to_string();
        if self.senders.len() < SENDERS_COUNTED || self.senders.contains_key(&sender) {
            *self.senders.entry(sender).or_default() += 1;
        }
        self.last = self.last.max(Some(envelope.id));
    }

    /// What a change is to set in motion, and by which relay.
    fn goes(&mut self, envelope: &Envelope, action: &Action, held: bool) {
        let relay = match action {
            Action::Release | Action::Retry => &envelope.relay,
            Action::Reroute { .. } if held => {
                self.held += 1;
                return;
            }
            Action::Reroute { to } => to,
            Action::Hold | Action::Delete | Action::Fail => return,
        };
        if !self.goes_by.contains(relay) {
            self.goes_by.insert(relay.clone());
        }
    }

    fn report(self, request: &ChangeRequest) -> ChangeReport {
        let mut senders: Vec<_> = self.senders.into_iter().collect();
        senders.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let done = !request.dry_run;
        ChangeReport {
            action: request.action.verb().into(),
            dry_run: request.dry_run,
            messages: if done {
                self.changed.changed
            } else {
                self.messages
            },
            recipients: self.recipients,
            size_bytes: self.size_bytes,
            sending: self.changed.sending,
            unchanged: self.changed.unchanged,
            held: self.held,
            paused: self.paused,
            first_ids: self.first_ids,
            senders: senders.into_iter().take(3).map(|it| it.0).collect(),
            up_to: self.last.map(|it| it.to_string()),
        }
    }
}

/// The messages that a filter chooses, page by page, each with why it waits.
struct Pages<'a> {
    answers: &'a Answers,
    filter: &'a Filter,
    coarse: spool::Filter,
    after: QueueId,
    up_to: QueueId,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(answers: &'a Answers, filter: &'a Filter, after: QueueId) -> Self {
        // The spool's index narrows by relay and state; the rest is looked at here.
        let plain = |text: &Option<String>| {
            text.clone()
                .filter(|it| !it.contains('*') && !it.starts_with('@'))
        };
        let coarse = spool::Filter {
            relay: plain(&filter.relay)
                .filter(|it| answers.live.borrow().config.relays.contains_key(it)),
            state: match filter.state {
                Some(MessageState::Held) => Some(spool::StateFilter::Held),
                _ => None,
            },
            from: plain(&filter.from).and_then(|it| it.parse().ok()),
            ..spool::Filter::default()
        };
        Self {
            answers,
            filter,
            coarse,
            after,
            up_to: QueueId::MAX,
            ended: false,
        }
    }

    /// The next page; it may be empty although more follow. None: that was all.
    async fn next(&mut self) -> Result<Option<Vec<(Envelope, Situation)>>, Trouble> {
        if self.ended {
            return Ok(None);
        }
        let messages = if self.filter.ids.is_empty() {
            let page = self
                .answers
                .spool
                .list(&self.coarse, self.after, PAGE)
                .await?;
            match page.next {
                Some(next) if next < self.up_to => self.after = next,
                _ => self.ended = true,
            }
            page.messages
        } else {
            self.ended = true;
            let mut named = Vec::new();
            for id in &self.filter.ids {
                named.extend(self.answers.spool.envelope(parse_id(id)?).await?);
            }
            named.sort_by_key(|it| it.id);
            named.dedup_by_key(|it| it.id);
            named
        };
        let messages: Vec<_> = messages
            .into_iter()
            .filter(|it| it.id <= self.up_to)
            .collect();
        let situations = self.answers.desk.situations(messages.clone()).await?;
        let now = self.answers.clock.now();
        Ok(Some(
            messages
                .into_iter()
                .zip(situations)
                .filter(|(envelope, situation)| {
                    describe::chooses(self.filter, envelope, situation.state, now)
                })
                .collect(),
        ))
    }
}

fn parse_id(text: &str) -> Result<QueueId, Trouble> {
    text.parse()
        .map_err(|error| bad_request(format!("{text}: {error}")))
}

fn parse_address(text: &str) -> Result<Mailbox, Trouble> {
    text.parse()
        .map_err(|error| bad_request(format!("{text}: {error}")))
}

fn no_such_relay(relay: &str) -> Trouble {
    not_found(format!(
        "no relay is called {relay}; penstock relay list shows their names"
    ))
}

/// What a refusal means, for whoever looks at the message.
fn meaning(rules: &Rules, said: &Diagnostic) -> Option<describe::Meaning> {
    if said.code.is_some_and(|code| (200..300).contains(&code)) {
        return None;
    }
    let finding = classify_again(rules, said);
    Some(describe::Meaning {
        class: finding.class.name().to_owned(),
        remedy: finding.remedy,
    })
}
