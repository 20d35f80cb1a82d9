//! What happens in the demonstration, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::capture::Seen;
use super::letter::Letter;
use super::stage::Stage;
use super::submit::Submission;
use super::{BATCH, ELS, JAN, NEWS, SHOP, SURVEY};
use crate::cli::words::grouped;

/// Messages of the mailing.
const MAILING: usize = 10_000;
/// Messages of the survey that comes later.
const COLLEAGUES: usize = 100;
/// Connections over which the mailing is handed in.
const CLIENTS: usize = 8;
/// A slow machine hands in as much of the mailing as it can until then.
const HANDED_IN_BY: Duration = Duration::from_secs(15);
const CUSTOMER: &str = "klant@example.net";

/// How the story ended.
pub struct Told {
    /// What it showed, for the proof.
    pub findings: Vec<String>,
    /// Whether all that it waited for came.
    pub went_well: bool,
}

/// The demonstration's own mail.
pub async fn tell(
    stage: &mut Stage<'_>,
    address: SocketAddr,
    events: &mut mpsc::UnboundedReceiver<Seen>,
) -> anyhow::Result<Told> {
    let mut application = Submission::open(address).await?;
    stage.chapter(
        "Each From goes through its own relay, with its own login. At zuid one recipient is \
         unknown and one is greylisted.",
    )?;
    for (from, to, subject) in [
        (JAN, "kees@example.net", "Tomorrow"),
        (ELS, "piet@example.com", "The minutes"),
        (ELS, "weg@example.com", "Are you still there?"),
        (ELS, "later@example.com", "No hurry"),
    ] {
        let letter = Letter::new(from, to, subject, "");
        stage.hand_in(&mut application, &letter).await?;
    }
    // The unknown one comes back to her as a report.
    stage.expect_report("weg@example.com", ELS);
    let at_once = ["kees@example.net", "piet@example.com", ELS];
    stage
        .watch(events, |it| at_once.iter().all(|to| it.is_served(to)))
        .await?;

    stage.chapter(&format!(
        "A mailing of {} through noord. What it took in the last second:",
        grouped(MAILING as u64)
    ))?;
    let mut mailing = Mailing::hand_in(address);
    stage
        .watch(events, |it| {
            let is_in = mailing.accepted.load(Ordering::Relaxed) == MAILING;
            is_in && it.news > 2 * BATCH || it.elapsed() > HANDED_IN_BY
        })
        .await?;
    let accepted = mailing.stop().await;
    stage.accepted += accepted;

    stage.chapter(&format!(
        "{} of it are accepted. A colleague's {COLLEAGUES} through the same relay, then a password reset:",
        grouped(accepted as u64)
    ))?;
    for number in 1..=COLLEAGUES {
        let to = format!("collega{number}@example.net");
        let letter = Letter::new(SURVEY, &to, "A survey", "");
        let reply = application.send_pipelined(&letter).await?;
        stage.accepted += usize::from(reply.is_positive());
    }
    stage.say("app", &format!("{SURVEY} to {COLLEAGUES} colleagues: 250"))?;
    let before_survey = stage.noord.count();
    let reset = Letter::new(SHOP, CUSTOMER, "Your new password", "");
    stage.hand_in(&mut application, &reset).await?;
    let handed_in = Instant::now();
    stage.watch(events, |it| it.is_served(CUSTOMER)).await?;
    let passed = accepted.saturating_sub(stage.news);
    let reset = stage.seen.iter().find(|it| it.to == CUSTOMER);
    let waited = reset.map(|it| it.at.saturating_duration_since(handed_in));
    stage.watch(events, |it| it.survey == COLLEAGUES).await?;
    let before_last = stage.noord.count() - before_survey;
    stage.say("noord", &format!("has the {} of the survey", stage.survey))?;

    stage
        .watch(events, |it| {
            it.news == accepted && it.survey == COLLEAGUES && it.are_all_served()
        })
        .await?;
    let batches = before_last.div_ceil(BATCH).max(1);
    Ok(Told {
        findings: vec![
            match waited {
                Some(waited) => format!(
                    "the reset left {:.2} s after its 250, past {} of the mailing",
                    waited.as_secs_f32(),
                    grouped(passed as u64)
                ),
                None => "the reset did not leave".into(),
            },
            format!("the colleague's {} were out within {}", stage.survey, {
                match batches {
                    1 => "one batch".to_owned(),
                    more => format!("{more} batches"),
                }
            }),
        ],
        went_well: waited.is_some()
            && stage.survey == COLLEAGUES
            && batches <= 2
            && stage.are_all_served(),
    })
}

/// Mail out of files.
pub async fn send_files(
    stage: &mut Stage<'_>,
    address: SocketAddr,
    letters: &[Letter],
    events: &mut mpsc::UnboundedReceiver<Seen>,
) -> anyhow::Result<Told> {
    let count = letters.len();
    stage.chapter(&format!("The application hands in {count} messages."))?;
    let mut application = Submission::open(address).await?;
    for letter in letters {
        stage.hand_in(&mut application, letter).await?;
    }
    // A message to several recipients is seen once, under the last of them.
    let taken = |it: &Stage<'_>| it.seen.iter().filter(|one| one.taken).count();
    stage.watch(events, |it| taken(it) >= it.accepted).await?;
    Ok(Told {
        findings: Vec::new(),
        went_well: taken(stage) >= stage.accepted,
    })
}

/// The mailing, while it is handed in.
struct Mailing {
    accepted: Arc<AtomicUsize>,
    next: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Mailing {
    fn hand_in(address: SocketAddr) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let next = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (accepted, next) = (accepted.clone(), next.clone());
            clients.spawn(async move {
                // What is not accepted is missing in the end, and said so.
                hand_in(address, &next, &accepted).await.ok();
            });
        }
        Self {
            accepted,
            next,
            clients,
        }
    }

    /// Ends it after the messages that are just being handed in; says how many there were.
    async fn stop(&mut self) -> usize {
        self.next.store(MAILING, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        self.accepted.load(Ordering::Relaxed)
    }
}

/// One connection's part of the mailing.
async fn hand_in(
    address: SocketAddr,
    next: &AtomicUsize,
    accepted: &AtomicUsize,
) -> anyhow::Result<()> {
    let mut application = Submission::open(address).await?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= MAILING {
            return Ok(());
        }
        let to = format!("lezer{number}@example.net");
        let label = "List-Id: <nieuws.noord.example>\r\n";
        let letter = Letter::new(NEWS, &to, "Nieuwsbrief", label);
        if application.send_pipelined(&letter).await?.is_positive() {
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    }
}
