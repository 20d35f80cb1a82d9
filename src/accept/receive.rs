//! The content of a message, from the wire into the spool: DATA and BDAT, with their time
//! limits, and the answer to the whole.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::config::BareLf;
use crate::mail::ReversePath;
use crate::smtp::{DataDecoder, Reply, TextDecoder};

use super::admission;
use super::connection::{Connection, End, FRUITLESS, endings, out_of_patience};
use super::crowd::Busy;
use super::incoming::{Incoming, Origin};
use super::session::{Event, Greeting, too_large};
use super::wire::CONTENT_READ;

/// Content must come at this many octets a second, on the whole: a message of 10 MB may
/// take six hours, a drip of an octet a minute ends soon.
const SLOWEST: u64 = 512;
/// A refused message is swallowed up to so many times the size limit, for the sake of a
/// client that reads the reply only at its end; what is longer has no end.
const SWALLOWED_SIZES: u64 = 20;

impl Connection {
    /// Reads content up to its final dot; gives the answer to the message.
    pub(super) async fn receive_data(&mut self) -> Result<Reply, End> {
        let mut incoming = self.incoming();
        let mut decoder = DataDecoder::new(endings(&self.listener));
        let mut pace = Pace::new(self.live.config.timeouts.idle);
        let maximum = self.live.config.message.max_size_bytes;
        let mut swallowed: u64 = 0;
        while !decoder.is_ended() {
            self.some_content(&mut pace, u64::MAX).await?;
            // Of its own for each read: who stops in the middle of a message keeps no room.
            let mut text = Vec::new();
            let taken = decoder.feed(self.wire.unread(), &mut text);
            self.wire.consume(taken);
            incoming.push(&text).await;
            drop(text);
            if incoming.refusal().is_some() || self.refuses_bare(decoder.met_bare_ending()) {
                swallowed += taken as u64;
                if swallowed > maximum.saturating_mul(SWALLOWED_SIZES) {
                    let reply = too_large(maximum);
                    self.log_refusal(&reply);
                    self.wire.say(&reply);
                    return Err(End::Said);
                }
            }
        }
        let bare = decoder.met_bare_ending();
        self.conclude(incoming, bare).await
    }

    /// Reads one chunk; gives what came of it, or the answer to the message.
    pub(super) async fn receive_chunk(&mut self, size: u64, last: bool) -> Result<Event, End> {
        let mut message = match self.chunks.take() {
            Some(message) => message,
            None => Box::new((self.incoming(), TextDecoder::new(endings(&self.listener)))),
        };
        let (incoming, decoder) = &mut *message;
        let mut pace = Pace::new(self.live.config.timeouts.idle);
        let mut left = size;
        while left > 0 {
            let taken = self.some_content(&mut pace, left).await?;
            let mut text = Vec::new();
            decoder.feed(&self.wire.unread()[..taken], &mut text);
            self.wire.consume(taken);
            left -= taken as u64;
            incoming.push(&text).await;
        }
        if !last {
            let refusal = match incoming.refusal() {
                _ if self.refuses_bare(decoder.met_bare_ending()) => Some(bare_ending()),
                refusal => refusal.cloned(),
            };
            if let Some(reply) = refusal {
                self.log_refusal(&reply);
                return Ok(Event::ChunkTaken(Err(reply)));
            }
            self.chunks = Some(message);
            return Ok(Event::ChunkTaken(Ok(size)));
        }
        let mut text = Vec::new();
        decoder.finish(&mut text);
        incoming.push(&text).await;
        let bare = decoder.met_bare_ending();
        let (incoming, _) = *message;
        self.conclude(incoming, bare).await.map(Event::Ended)
    }

    fn refuses_bare(&self, met: bool) -> bool {
        met && self.listener.bare_lf == BareLf::Refuse
    }

    /// Reads a chunk that nobody wants.
    pub(super) async fn skip_chunk(&mut self, size: u64) -> Result<(), End> {
        let mut pace = Pace::new(self.live.config.timeouts.idle);
        let mut left = size;
        while left > 0 {
            let taken = self.some_content(&mut pace, left).await?;
            self.wire.consume(taken);
            left -= taken as u64;
        }
        Ok(())
    }

    /// Waits for content; how much of what is there may be taken.
    async fn some_content(&mut self, pace: &mut Pace, limit: u64) -> Result<usize, End> {
        if self.wire.unread().is_empty() {
            self.flush().await?;
            let wanted = CONTENT_READ.min(usize::try_from(limit).unwrap_or(usize::MAX).max(1));
            let cut_off = self.cut_off();
            let read = tokio::select! {
                biased;
                () = self.seat.asked_to_leave() => return Err(End::Crowded),
                () = out_of_patience(&mut self.stop, cut_off, self.shared.patience) => {
                    return Err(End::Stopping);
                }
                read = self.wire.read(wanted) => read,
                () = sleep_until(pace.deadline()) => return Err(End::Slow),
            };
            let octets = read.map_err(|_| End::Gone)?;
            if octets == 0 {
                return Err(End::Gone);
            }
            if pace.came(octets) {
                self.seat.active(Busy::InTransaction);
            }
        }
        let there = self.wire.unread().len();
        Ok(usize::try_from(limit).map_or(there, |limit| there.min(limit)))
    }

    fn incoming(&self) -> Incoming {
        let mail = self.session.transaction().map(|it| &it.mail);
        let origin = Origin {
            client: self.client,
            greeting: self.session.greeting().cloned().unwrap_or(Greeting {
                name: String::new(),
                extended: false,
            }),
            tls: self.session.tls().map(str::to_owned),
            login: self.session.login().map(str::to_owned),
            senders: self.listener.senders.clone(),
            reverse_path: mail.map_or(ReversePath::Null, |it| it.reverse_path.clone()),
            size: mail.and_then(|it| it.size),
            smtputf8: mail.is_some_and(|it| it.smtputf8),
        };
        Incoming::new(self.shared.clone(), self.live.clone(), origin)
    }

    /// The content is there: the answer to the whole message.
    async fn conclude(&mut self, incoming: Incoming, bare: bool) -> Result<Reply, End> {
        self.seat.active(Busy::Working);
        let answer = if self.refuses_bare(bare) {
            Err(bare_ending())
        } else {
            match incoming.finish().await {
                Ok(arrived) => self.accept(arrived).await,
                Err(reply) => Err(reply),
            }
        };
        Ok(match answer {
            Ok(id) => {
                self.fruitless_until = Instant::now() + self.live.config.timeouts.idle * FRUITLESS;
                self.unconfirmed = Some(id);
                Reply::enhanced(250, 0, 0, format!("{id} queued"))
            }
            Err(reply) => {
                self.log_refusal(&reply);
                reply
            }
        })
    }
}

/// How fast content has to come.
struct Pace {
    start: Instant,
    idle: Duration,
    last: Instant,
    octets: u64,
    unreported: usize,
}

impl Pace {
    fn new(idle: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            idle,
            last: start,
            octets: 0,
            unreported: 0,
        }
    }

    /// Octets came; whether they were enough, with those before, to count as activity.
    fn came(&mut self, octets: usize) -> bool {
        self.last = Instant::now();
        self.octets = self.octets.saturating_add(octets as u64);
        self.unreported = self.unreported.saturating_add(octets);
        let enough = self.unreported as u64 >= SLOWEST;
        if enough {
            self.unreported = 0;
        }
        enough
    }

    /// The next octets must come before this: not silent for the idle limit, and on the
    /// whole not slower than the slowest.
    fn deadline(&self) -> Instant {
        let earned = Duration::from_secs(self.octets / SLOWEST);
        (self.start + self.idle + earned).min(self.last + self.idle)
    }
}

fn bare_ending() -> Reply {
    admission::malformed(
        "the message holds a CR or LF that is not part of a CRLF (RFC 5321 section 2.3.8); \
         set bare-lf = \"repair\" for this listener if the application cannot be changed",
    )
}
