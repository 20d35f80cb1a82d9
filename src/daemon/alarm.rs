//! Alarms: what somebody should know at once, said in the log and mailed to `admin`.

use std::fmt;
use std::path::Path;

use crate::config::Config;
use crate::mail::count::size;
use crate::mail::{Envelope, Mailbox, Origin, ReversePath};
use crate::outcome::Pause;
use crate::spool::SpoolError;

use super::own_mail::OwnMail;
use super::transaction::Office;

/// Why an alarm was not mailed.
#[derive(Debug, thiserror::Error)]
pub enum AlarmError {
    /// No relay would carry it.
    #[error("neither bounces-via nor default-relay is set, and no other relay is meant for it")]
    NoRelay,
    /// The spool did not take it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Something that an administrator should know.
pub struct Alarm {
    /// In a few words.
    pub subject: String,
    /// In full; lines of at most [`COLUMNS`] characters, ended by `\n`.
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
                "{}\n\nWhat was said:\n{}\n\nWhat to do:\n{}\n\n{next}\n\
                 To try it at once: penstock relay resume {relay}\n",
                wrapped(
                    &format!("The relay {relay} has trouble. Its mail waits; nothing is lost."),
                    ""
                ),
                wrapped(&pause.words, "  "),
                wrapped(&pause.remedy, "  "),
            ),
            not_through: Some(relay.to_owned()),
        }
    }
}

/// The longest line of an alarm (RFC 5322 section 2.1.1).
const COLUMNS: usize = 78;

/// Words on lines that are not too long: what a server said may be one of a thousand
/// characters, without a space in it.
fn wrapped(words: &str, indent: &str) -> String {
    let room = COLUMNS - indent.len();
    let mut lines: Vec<String> = Vec::new();
    for line in words.lines() {
        let mut full = String::new();
        let mut column = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > room {
                lines.push(std::mem::take(&mut full));
                column = 0;
            }
            if column > 0 {
                full.push(' ');
                column += 1;
            }
            for letter in word.chars() {
                if column == room {
                    lines.push(std::mem::take(&mut full));
                    column = 0;
                }
                full.push(letter);
                column += 1;
            }
        }
        lines.push(full);
    }
    let lines = lines.iter().map(|it| format!("{indent}{it}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// How much room the disk of the spool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Octets free.
    pub free: u64,
    /// Below so many new mail is refused.
    pub refused_below: u64,
}

impl Room {
    /// Whether somebody should know: there is time to do something before mail is refused.
    pub fn is_low(self) -> bool {
        self.free < self.refused_below.saturating_mul(2)
    }

    /// Whether new mail is refused.
    pub fn is_refused(self) -> bool {
        self.free < self.refused_below
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.is_refused() {
            true => "new mail is refused (452)",
            false => "new mail will be refused soon",
        };
        write!(
            f,
            "{what}: {} are free on the disk of the spool, {} are kept free",
            size(self.free),
            size(self.refused_below)
        )
    }
}

impl Alarm {
    /// The disk has little room.
    pub fn disk_low(room: Room, spool: &Path) -> Self {
        Self {
            subject: "the disk of the spool is nearly full".to_owned(),
            text: format!(
                "{}.\n\nThe spool is {}.\nAccepted mail is safe and goes on leaving; below the limit \
                 (spool.min-free)\napplications are told to come back later.\n\n\
                 What to do:\n  Make room on that disk. What waits: penstock queue\n",
                room.to_string().replace(": ", ":\n"),
                spool.display()
            ),
            not_through: None,
        }
    }

    /// Mail may leave, and does not.
    pub fn nothing_leaves(relay: &str, minutes: u64) -> Self {
        Self {
            subject: format!("nothing leaves by relay {relay}"),
            text: format!(
                "The limits of the relay {relay} allow mail to leave, and none did for\n{minutes} minutes.\n\n\
                 What to do:\n  Look what waits and why:  penstock queue --relay {relay}\n  \
                 Try the relay:            penstock relay test {relay}\n  \
                 Look for disk trouble:    journalctl -u penstock -p warning\n",
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
        let is_active = |name: &str| self.is_active(&live, name);
        let relay = carrier(config, alarm.not_through.as_deref(), &is_active);
        let relay = relay.ok_or(AlarmError::NoRelay)?.to_owned();
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

/// The relay that takes an alarm: one that is meant for mail of everybody, never a
/// user's own, with that user's login. Where the only one has the trouble itself, or is
/// not confirmed yet, the alarm waits for it: better late than never.
fn carrier<'a>(
    config: &'a Config,
    not_through: Option<&str>,
    is_active: &dyn Fn(&str) -> bool,
) -> Option<&'a str> {
    let meant = || {
        [&config.bounces_via, &config.default_relay]
            .into_iter()
            .flatten()
    };
    let relay = meant().find(|it| not_through != Some(it.as_str()) && is_active(it));
    relay.or_else(|| meant().next()).map(String::as_str)
}

fn written(
    alarm: &Alarm,
    from: &Mailbox,
    admin: &Mailbox,
    message_id: &str,
    hostname: &str,
    now: jiff::Timestamp,
) -> Vec<u8> {
    let date = crate::mail::header::trace::date(now);
    // What relays say may go beyond ASCII; an alarm must get through everywhere.
    let ascii = |text: &str| -> String {
        let letters = text.chars();
        letters
            .map(|it| if it.is_ascii() { it } else { '?' })
            .collect()
    };
    let (subject, text) = (ascii(&alarm.subject), ascii(&alarm.text));
    let (from, admin) = (from.with_a_labels(), admin.with_a_labels());
    format!(
        "From: \"Penstock on {hostname}\" <{from}>\nTo: <{admin}>\nDate: {date}\n\
         Message-ID: <{message_id}>\nSubject: [penstock {hostname}] {subject}\n\
         Auto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=us-ascii\n\n{text}"
    )
    .replace('\n', "\r\n")
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_never_leaves_through_a_users_own_relay() {
        let with = |bounces_via: Option<&str>, default_relay: Option<&str>| {
            let top: String = [
                ("bounces-via", bounces_via),
                ("default-relay", default_relay),
            ]
            .into_iter()
            .filter_map(|(key, relay)| Some(format!("{key} = \"{}\"\n", relay?)))
            .collect();
            let relays = ["a", "b", "c"]
                .map(|it| format!("[relays.{it}]\nserver = \"[192.0.2.1]:587\"\ntls = \"off\"\n"));
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("penstock.toml");
            std::fs::write(folder.path().join("users.toml"), "").unwrap();
            std::fs::write(&path, format!("{top}{}", relays.concat())).unwrap();
            crate::config::load(&path).unwrap().config
        };
        for (bounces_via, default_relay, trouble, expected) in [
            (Some("b"), Some("c"), "a", Some("b")),
            (Some("b"), Some("c"), "b", Some("c")),
            (None, Some("c"), "a", Some("c")),
            // It waits for the only one.
            (None, Some("c"), "c", Some("c")),
            (None, None, "a", None),
        ] {
            let config = with(bounces_via, default_relay);
            assert_eq!(carrier(&config, Some(trouble), &|_| true), expected);
            let waits = bounces_via.or(default_relay);
            assert_eq!(carrier(&config, Some(trouble), &|_| false), waits);
        }
    }

    #[test]
    fn an_alarm_is_written_in_ascii() {
        let alarm = Alarm {
            subject: "relay büro is paused".into(),
            text: "“closed”\n".into(),
            not_through: None,
        };
        let of = |it| Mailbox::parse(it).unwrap();
        let (from, to) = (of("mailer@bücher.example"), of("jan@bücher.example"));
        let octets = written(&alarm, &from, &to, "x@y", "y", jiff::Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(octets).unwrap();
        assert!(text.is_ascii(), "{text}");
        assert!(text.contains("To: <jan@xn--bcher-kva.example>\r\n"));
        // A dot in a phrase must be quoted (RFC 5322 section 3.2.5).
        assert!(
            text.starts_with("From: \"Penstock on y\" <mailer@"),
            "{text}"
        );
    }

    #[test]
    fn the_disk_is_low_before_mail_is_refused() {
        let room = |free| Room {
            free,
            refused_below: 1_000_000_000,
        };
        assert!(!room(2_000_000_000).is_low());
        assert!(room(1_999_999_999).is_low());
        assert_eq!(
            room(1_500_000_000).to_string(),
            "new mail will be refused soon: 1.5 GB are free on the disk of the spool, 1 GB are kept free"
        );
        let small = Room {
            free: 412_345,
            refused_below: 12_000_000 / 20,
        };
        assert_eq!(
            small.to_string(),
            "new mail is refused (452): 412 kB are free on the disk of the spool, 600 kB are kept free"
        );
        assert!(room(1).to_string().starts_with("new mail is refused"));
    }

    #[test]
    fn an_alarm_is_a_letter_of_short_lines() {
        let room = Room {
            free: 1,
            refused_below: u64::MAX,
        };
        let mut health = crate::outcome::Health::default();
        let now = jiff::Timestamp::UNIX_EPOCH;
        health.pause_by(
            "root",
            &format!("{} {}", "no ".repeat(200), "x".repeat(200)),
            now,
        );
        let pause = health.pause().unwrap();
        let paused = Alarm::paused("provider", pause);
        assert_eq!(paused.text.matches("no").count(), 202, "{}", paused.text);
        assert_eq!(paused.text.matches('x').count(), 200, "{}", paused.text);
        for alarm in [
            paused,
            Alarm::disk_low(room, Path::new("/var/lib/penstock")),
            Alarm::nothing_leaves("provider", 15),
        ] {
            for line in alarm.text.lines() {
                assert!(line.len() <= 78, "{line}");
            }
        }
    }
}
