//! Where the demonstration is shown: what was handed in, what the relays saw, the budget,
//! and at the end the proof.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::capture::{Running, Seen};
use super::letter::Letter;
use super::observer::Observer;
use super::story::Told;
use super::submit::Submission;
use super::{BATCH, ELS, INTERVAL, NEWS, SURVEY, relays};
use crate::cli::screen::{Screen, Tone};
use crate::cli::words::grouped;
use crate::daemon::Ended;

/// When the demonstration ends at the latest, whatever still waits.
const TIME: Duration = Duration::from_secs(45);
/// The columns of a bar.
const BAR: usize = 20;

/// Everything that can be seen.
pub struct Stage<'a> {
    screen: &'a mut Screen,
    began: Instant,
    tick: Interval,
    /// How often each recipient is still to be served, mailings not counted.
    open: BTreeMap<String, usize>,
    /// What the relay with the limit took, by its own clock.
    pub noord: Observer,
    /// Messages of the mailing that it took.
    pub news: usize,
    /// Messages of the survey that it took.
    pub survey: usize,
    /// Everything else that the relays saw.
    pub seen: Vec<Seen>,
    wrong: usize,
    pub accepted: usize,
    refused_here: usize,
}

impl<'a> Stage<'a> {
    pub fn new(screen: &'a mut Screen) -> Self {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            screen,
            began: Instant::now(),
            tick,
            open: BTreeMap::new(),
            noord: Observer::default(),
            news: 0,
            survey: 0,
            seen: Vec::new(),
            wrong: 0,
            accepted: 0,
            refused_here: 0,
        }
    }

    /// Who is there.
    pub fn introduce(
        &mut self,
        address: SocketAddr,
        running: &[(&str, Running)],
    ) -> std::io::Result<()> {
        self.line("Penstock, a demonstration: all of it is on this machine and ends by itself.")?;
        self.line("")?;
        self.line(&format!(
            "  penstockd  {address}  takes mail from the applications"
        ))?;
        let limit = format!("takes {BATCH} a second");
        for (relay, more) in relays()
            .iter()
            .zip([limit.as_str(), "takes all that comes"])
        {
            let server = running.iter().find(|(name, _)| *name == relay.name);
            self.line(&format!(
                "  {:<9}  {}  {}, login {}, {more}",
                relay.name,
                server
                    .map(|it| it.1.address.to_string())
                    .unwrap_or_default(),
                if relay.implicit { "TLS" } else { "STARTTLS" },
                relay.username
            ))?;
        }
        self.line("")?;
        self.line("  *@noord.example goes through noord, els@zuid.example through zuid.")?;
        self.line("  One second stands for the five minutes of a usual limit.")?;
        self.screen.flush()
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What comes now.
    pub fn chapter(&mut self, text: &str) -> std::io::Result<()> {
        self.line("")?;
        self.screen.say_in(Tone::Strong, text)?;
        self.screen.flush()
    }

    /// What somebody says or sees.
    pub fn say(&mut self, who: &str, what: &str) -> std::io::Result<()> {
        let at = self.began.elapsed().as_secs_f32();
        self.line(&format!("{at:>6.2} s  {who:<6} {what}"))?;
        self.screen.flush()
    }

    fn line(&mut self, text: &str) -> std::io::Result<()> {
        let line = self.screen.look.fit(text, self.screen.look.width);
        self.screen.line(line)
    }

    /// Has the application submit one message, and shows the reply.
    pub async fn hand_in(
        &mut self,
        application: &mut Submission,
        letter: &Letter,
    ) -> anyhow::Result<()> {
        let reply = application.send(letter).await?;
        let to = letter.to.join(", ");
        let said = match reply.is_positive() {
            true => reply.code.to_string(),
            false => reply.to_string(),
        };
        self.say("app", &format!("{} to {to}: {said}", letter.from))?;
        if reply.is_positive() {
            self.accepted += 1;
            *self.open.entry(to).or_default() += 1;
        } else {
            self.refused_here += 1;
        }
        Ok(())
    }

    /// A report instead of a delivery is what is to come.
    pub fn expect_report(&mut self, of: &str, to: &str) {
        self.open.remove(of);
        *self.open.entry(to.to_owned()).or_default() += 1;
    }

    /// Whether this recipient was served.
    pub fn is_served(&self, recipient: &str) -> bool {
        !self.open.contains_key(recipient)
    }

    /// Whether everyone was.
    pub fn are_all_served(&self) -> bool {
        self.open.is_empty()
    }

    /// Shows what the relays see until `done`, or until the time is up.
    pub async fn watch(
        &mut self,
        events: &mut mpsc::UnboundedReceiver<Seen>,
        done: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let ends = self.began + TIME;
        while !done(self) {
            tokio::select! {
                seen = events.recv() => match seen {
                    Some(seen) => self.note(seen)?,
                    None => return Ok(()),
                },
                _ = self.tick.tick() => self.show_budget()?,
                () = tokio::time::sleep_until(ends) => return Ok(()),
            }
        }
        Ok(())
    }

    fn note(&mut self, seen: Seen) -> std::io::Result<()> {
        if seen.taken {
            self.wrong += usize::from(!is_right(&seen));
            if seen.relay == "noord" {
                self.noord.saw(seen.at);
            }
        }
        match seen.from.as_str() {
            NEWS => self.news += 1,
            SURVEY => self.survey += 1,
            _ => return self.show(seen),
        }
        Ok(())
    }

    fn show(&mut self, seen: Seen) -> std::io::Result<()> {
        let from = match seen.from.as_str() {
            "" => "a report",
            from => from,
        };
        let what = match seen.taken {
            true => format!("{from} to {} as {}", seen.to, seen.login),
            false => format!("{} refused: {}", seen.to, seen.reply),
        };
        self.say(seen.relay, &what)?;
        if seen.taken
            && let Some(left) = self.open.get_mut(&seen.to)
        {
            *left -= 1;
            self.open.retain(|_, it| *it > 0);
        }
        self.seen.push(seen);
        Ok(())
    }

    /// How much of its limit the relay with one saw in the last interval.
    fn show_budget(&mut self) -> std::io::Result<()> {
        if self.noord.count() <= 1 {
            return Ok(());
        }
        let used = self.noord.within(INTERVAL, Instant::now());
        let bar = self.screen.look.bar(used as u64, BATCH as u64, BAR);
        let news = grouped(self.news as u64);
        self.say(
            "noord",
            &format!("{bar} {used:>3} of {BATCH}, {news:>6} of the mailing"),
        )
    }

    /// The proof, and whether all went as it should.
    pub fn conclude(&mut self, told: &Told, ended: &Ended) -> anyhow::Result<bool> {
        let count = |what: &dyn Fn(&Seen) -> bool| self.seen.iter().filter(|it| what(it)).count();
        let taken = count(&|it| it.taken);
        let reports = count(&|it| it.taken && it.from.is_empty());
        let again = count(&|it| it.reply.starts_with('4'));
        let refused = count(&|it| it.reply.starts_with('5'));
        let delivered = taken - reports + self.news + self.survey;
        let worst = self.noord.worst(INTERVAL);

        self.chapter("The proof, by the relay's own clock:")?;
        let bar = self.screen.look.bar(worst as u64, BATCH as u64, BAR);
        self.line(&format!(
            "  {bar}  {worst} of {BATCH} in the worst second of all"
        ))?;
        for line in &told.findings {
            self.line(&format!("  {line}"))?;
        }
        self.line(&format!(
            "  {} accepted, {} delivered, {refused} refused and reported, {again} at the 2nd try",
            grouped(self.accepted as u64),
            grouped(delivered as u64),
        ))?;
        if self.refused_here > 0 {
            let here = self.refused_here;
            self.line(&format!("  {here} not accepted: the replies say why"))?;
        }
        let left = self.accepted.saturating_sub(delivered + refused);
        if left > 0 {
            let left = grouped(left as u64);
            self.line(&format!(
                "  {left} of the mailing still waited for their turn when the time was up"
            ))?;
        }
        self.line(&match self.wrong {
            0 => "  every message went through its own relay with its own login".into(),
            some => format!("  {some} went by the wrong relay or login"),
        })?;
        self.screen.flush()?;
        let in_order = *ended == Ended::InGoodOrder;
        Ok(told.went_well && worst <= BATCH && self.wrong == 0 && in_order)
    }
}

/// Whether a message took the way that the directory says.
fn is_right(seen: &Seen) -> bool {
    let (relay, login) = match seen.from.as_str() {
        ELS => ("zuid", "zuid-account"),
        "" => return seen.login == format!("{}-account", seen.relay),
        _ => ("noord", "noord-account"),
    };
    seen.relay == relay && seen.login == login
}
