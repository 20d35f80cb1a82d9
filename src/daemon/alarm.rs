//! Alarms: what somebody should know at once, said in the log and mailed to `admin`.

use crate::mail::{Envelope, Mailbox, Origin, ReversePath};
use crate::outcome::Pause;
use crate::spool::SpoolError;

use super::own_mail::OwnMail;
use super::transaction::Office;

/// Why an alarm was not mailed.
#[derive(Debug, thiserror::Error)]
pub enum AlarmError {
    /// No relay would carry it.
    #[error("no relay is left to send it through")]
    NoRelay,
    /// The spool did not take it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Something that an administrator should know.
pub struct Alarm {
    /// In a few words.
    pub subject: String,
    /// In full; lines of at most 78 characters, ended by `\n`.
    pub text: String,
    /// The relay that has the trouble: the alarm takes another one.
    pub not_through: Option<String>,
}

impl Alarm {
    /// A relay was paused for its own trouble.
    pub fn paused(relay: &str, pause: &Pause) -> Self {
        let next = match pause.next_probe {
            Some(at) => format!(
                "It is tried again at {}.",
                at.strftime("%Y-%m-%d %H:%M UTC")
            ),
            None => "It is not tried again by itself.".to_owned(),
        };
        Self {
            subject: format!("relay {relay} is paused"),
            text: format!(
                "The relay {relay} has trouble. Its mail waits; nothing is lost.\n\n\
                 What was said:\n  {}\n\nWhat to do:\n  {}\n\n{next}\n\
                 To try it at once: penstock relay resume {relay}\n",
                pause.words.replace('\n', "\n  "),
                pause.remedy,
            ),
            not_through: Some(relay.to_owned()),
        }
    }
}

impl Office {
    /// Mails an alarm to the administrator, if one is configured; the message that was
    /// accepted, so that it can leave.
    pub async fn mail(&self, alarm: &Alarm) -> Result<Option<Envelope>, AlarmError> {
        let live = self.live.borrow().clone();
        let config = &live.config;
        let Some(admin) = &config.admin else {
            return Ok(None);
        };
        let usable = |name: &&String| {
            let relay = config.relays.get(*name);
            alarm.not_through.as_ref() != Some(*name)
                && relay.is_some_and(|it| self.confirmations.is_active(it))
        };
        let preferred = [&config.bounces_via, &config.default_relay];
        let relay = preferred
            .into_iter()
            .flatten()
            .find(usable)
            .or_else(|| config.relays.keys().find(usable))
            // Better late, through the relay that has the trouble, than never.
            .or(alarm
                .not_through
                .as_ref()
                .filter(|it| config.relays.contains_key(*it)))
            .ok_or(AlarmError::NoRelay)?
            .clone();
        let own = config.relays.get(&relay).and_then(|it| it.sender.clone());
        let from = own.unwrap_or_else(|| admin.clone());
        let now = self.clock.now();
        let id = self.spool.next_id();
        let message_id = format!("{id}@{}", config.hostname);
        let octets = written(alarm, &from, admin, &message_id, &config.hostname, now);
        let mail = OwnMail {
            id,
            origin: Origin::Alarm,
            reverse_path: ReversePath::Null,
            from,
            to: admin.clone(),
            relay,
            mailing: "alarms",
            message_id,
        };
        Ok(Some(self.hand_in(mail, &octets).await?))
    }
}

fn written(
    alarm: &Alarm,
    from: &Mailbox,
    admin: &Mailbox,
    message_id: &str,
    hostname: &str,
    now: jiff::Timestamp,
) -> Vec<u8> {
    let date = now.strftime("%a, %d %b %Y %H:%M:%S +0000");
    // What relays say may go beyond ASCII; an alarm must get through everywhere.
    let text: String = alarm
        .text
        .chars()
        .map(|it| if it.is_ascii() { it } else { '?' })
        .collect();
    format!(
        "From: Penstock on {hostname} <{from}>\nTo: <{admin}>\nDate: {date}\n\
         Message-ID: <{message_id}>\nSubject: [penstock {hostname}] {}\n\
         Auto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=us-ascii\n\n{text}",
        alarm.subject
    )
    .replace('\n', "\r\n")
    .into_bytes()
}
