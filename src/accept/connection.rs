//! One connection: octets to lines, effects to octets, and every wait with its limit.
//!
//! Decides nothing about the protocol; see [`super::session`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::config::{BareLf, Listener, ListenerAuth, ListenerTls};
use crate::mail::{Body, Envelope, Hold, QueueId, Recipient, RecipientStatus, State};
use crate::smtp::{BareEndings, CommandLines, DataDecoder, Line, Reply, TextDecoder};

use crate::tls::ServerTls;

use super::admission;
use super::crowd::{Busy, Seat, client_key};
use super::guard;
use super::incoming::{Arrived, Incoming, Origin, cannot_store};
use super::sasl::Login;
use super::session::{
    Checked, Effect, Event, Greeting, Session, Terms, Transaction, no_room, too_large,
};
use super::wire::{COMMAND_READ, CONTENT_READ, Wire};
use super::{Candidate, Live, Shared, Verdict, count, stopping};

/// A TLS handshake is a few packets.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// So long may a client go without a message, in units of the idle time limit.
const FRUITLESS: u32 = 10;
/// Content must come at this many octets a second, on the whole: a message of 10 MB may
/// take six hours, a drip of an octet a minute ends soon.
const SLOWEST: u64 = 512;
/// Content beyond the size limit is swallowed this far; then nobody is reading replies.
const SWALLOWED_MAXIMUM: u64 = 1 << 30;
/// Replies are sent when so many octets of them wait, even if more commands are there.
const UNSENT_MAXIMUM: usize = 16 * 1024;
/// After our last word, so long the client may take to read it.
const LINGER: Duration = Duration::from_secs(2);
/// What a content check may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);
/// What of a message a content check sees.
const CHECKED_OCTETS: usize = 256 * 1024;
/// How old the answer to "is there room?" may be.
const ROOM_AGE: Duration = Duration::from_secs(1);

/// Which listener a client came to.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Where the socket is really bound.
    pub bound: SocketAddr,
    /// What it is called in the configuration.
    pub configured: SocketAddr,
}

/// A connection that was let in.
pub struct Start {
    /// What all share.
    pub shared: Arc<Shared>,
    /// The configuration now.
    pub live: Arc<Live>,
    /// Where it came in.
    pub place: Place,
    /// The rules there.
    pub listener: Arc<Listener>,
    /// Its socket.
    pub stream: TcpStream,
    /// Who.
    pub client: IpAddr,
    /// Its place in the crowd.
    pub seat: Seat,
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The last reply was said; or nothing is to be said.
    Said,
    /// The client is gone.
    Gone,
    /// The client sent nothing whole for too long, or no message for very long.
    Idle,
    /// Content came too slowly.
    Slow,
    /// It had to make room.
    Crowded,
    /// The daemon stops.
    Stopping,
    /// Its listener is no longer configured.
    Closed,
}

/// Whether the spool has room, asked at most once a second.
#[derive(Debug, Default)]
pub struct Room {
    full: AtomicBool,
    asked: Mutex<Option<Instant>>,
}

struct Connection {
    shared: Arc<Shared>,
    live: Arc<Live>,
    place: Place,
    listener: Arc<Listener>,
    client: IpAddr,
    wire: Wire,
    lines: CommandLines,
    session: Session,
    /// A message that comes by BDAT, between two chunks.
    chunks: Option<Box<(Incoming, TextDecoder)>>,
    seat: Seat,
    stop: watch::Receiver<bool>,
    /// Without an accepted message until then, it ends.
    fruitless_until: Instant,
    /// The daemon stops: a message that is not whole by then is cut off.
    cut_off: Option<Instant>,
    /// The last message accepted whose 250 is not sent yet.
    unconfirmed: Option<QueueId>,
}

/// Talks with one client until one of both has enough.
pub async fn run(start: Start, stop: watch::Receiver<bool>) {
    let Start {
        shared,
        live,
        place,
        listener,
        stream,
        client,
        seat,
    } = start;
    // Replies are small and awaited: never wait for more of them to fill a packet.
    stream.set_nodelay(true).ok();
    let mut wire = Wire::new(stream);
    let client = client.to_canonical();
    let mut tls = None;
    if listener.tls == ListenerTls::Implicit {
        let Some(tls_of_listener) = &live.tls else {
            warn!(listener = %place.bound, "no certificate: TLS cannot begin");
            return;
        };
        match timeout(HANDSHAKE, wire.start_tls(tls_of_listener.acceptor())).await {
            Ok(Ok(agreed)) => tls = Some(agreed),
            Ok(Err(error)) => {
                info!(%client, %error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        }
    }
    let terms = terms(&live, &listener, place.bound, client, true);
    let mut connection = Connection {
        fruitless_until: Instant::now() + live.config.timeouts.idle * FRUITLESS,
        lines: CommandLines::new(endings(&listener)),
        session: Session::new(terms, tls),
        shared,
        live,
        place,
        listener,
        client,
        wire,
        chunks: None,
        seat,
        stop,
        cut_off: None,
        unconfirmed: None,
    };
    let welcome = connection.session.welcome();
    connection.wire.say(&welcome);
    let Err(end) = connection.dialogue().await;
    connection.finish(end).await;
}

/// Says one line to a client that is not let in, without waiting for it.
pub fn turn_away(stream: TcpStream, reply: &str) {
    // What the socket does not take at once is not worth a task.
    if let Ok(mut stream) = stream.into_std() {
        std::io::Write::write(&mut stream, reply.as_bytes()).ok();
    }
}

impl Connection {
    async fn dialogue(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let line = self.next_line().await?;
            self.refresh().await?;
            let mut effect = self.session.step(Event::Line(line));
            while let Some(event) = self.carry_out(effect).await? {
                effect = self.session.step(event);
            }
            if !self.session.is_between_chunks() {
                self.chunks = None;
            }
            self.lines.set_limit(self.session.line_limit());
            self.seat.active(match self.session.transaction() {
                Some(_) => Busy::InTransaction,
                None => Busy::Idle,
            });
            if self.wire.unsent() > UNSENT_MAXIMUM {
                self.flush().await?;
            }
        }
    }

    /// Does what the session decided; what came of it is the next event.
    async fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, End> {
        match effect {
            Effect::Reply(reply) => {
                self.wire.say(&reply);
                Ok(None)
            }
            Effect::Close(reply) => {
                self.wire.say(&reply);
                Err(End::Said)
            }
            Effect::StartTls(reply) => self.start_tls(&reply).await.map(|()| None),
            Effect::Check(login) => {
                self.flush().await?;
                self.seat.active(Busy::Working);
                let checked = self.check(&login).await;
                Ok(Some(Event::Checked(checked)))
            }
            Effect::ReceiveData(reply) => {
                self.wire.say(&reply);
                let reply = self.receive_data().await?;
                Ok(Some(Event::Ended(reply)))
            }
            Effect::ReceiveChunk { size, last } => self.receive_chunk(size, last).await.map(Some),
            Effect::SkipChunk { size, reply } => {
                let mut pace = Pace::new(self.live.config.timeouts.idle);
                let mut left = size;
                while left > 0 {
                    let taken = self.some_content(&mut pace, left).await?;
                    self.wire.consume(taken);
                    left -= taken as u64;
                }
                self.wire.say(&reply);
                Ok(None)
            }
        }
    }

    /// The next command line; however it drips, it must be whole within the idle limit.
    async fn next_line(&mut self) -> Result<Line, End> {
        let idle = Instant::now() + self.live.config.timeouts.idle;
        let deadline = idle.min(self.fruitless_until);
        loop {
            if !self.wire.unread().is_empty() {
                let (taken, line) = self.lines.feed(self.wire.unread());
                self.wire.consume(taken);
                if let Some(line) = line {
                    return Ok(line);
                }
                continue;
            }
            self.flush().await?;
            let read = tokio::select! {
                biased;
                () = self.seat.asked_to_leave() => return Err(End::Crowded),
                () = stopping(&mut self.stop) => return Err(End::Stopping),
                read = self.wire.read(COMMAND_READ) => read,
                () = sleep_until(deadline) => return Err(End::Idle),
            };
            if read.map_err(|_| End::Gone)? == 0 {
                return Err(End::Gone);
            }
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.wire.unsent() == 0 {
            return Ok(());
        }
        let patience = self.live.config.timeouts.idle;
        tokio::select! {
            biased;
            sent = timeout(patience, self.wire.flush()) => match sent {
                Ok(Ok(())) => {
                    self.unconfirmed = None;
                    Ok(())
                }
                Ok(Err(_)) | Err(_) => Err(End::Gone),
            },
            () = self.seat.asked_to_leave() => Err(End::Gone),
        }
    }

    /// Takes a reloaded configuration over, between transactions.
    async fn refresh(&mut self) -> Result<(), End> {
        if self.session.transaction().is_some() {
            return Ok(());
        }
        let live = self.shared.live.borrow().clone();
        if !Arc::ptr_eq(&live, &self.live) {
            self.live = live;
            self.listener = super::listener_of(&self.live.config, self.place.configured)
                .filter(|it| guard::check(self.place.bound, it).is_ok())
                .ok_or(End::Closed)?;
        }
        let has_room = self.shared.room.ask(&self.shared).await;
        self.session.set_terms(terms(
            &self.live,
            &self.listener,
            self.place.bound,
            self.client,
            has_room,
        ));
        Ok(())
    }

    async fn start_tls(&mut self, reply: &Reply) -> Result<(), End> {
        // Whoever sends on in clear hopes that it is taken for words under TLS.
        if !self.wire.unread().is_empty() {
            warn!(client = %self.client, "commands behind STARTTLS: an injection is refused");
            self.wire.say(&Reply::enhanced(
                554,
                5,
                1,
                "nothing may follow STARTTLS before the handshake",
            ));
            return Err(End::Said);
        }
        let Some(acceptor) = self.live.tls.as_ref().map(ServerTls::acceptor) else {
            self.wire
                .say(&Reply::enhanced(454, 7, 0, "TLS is not available now"));
            return Ok(());
        };
        self.wire.say(reply);
        self.flush().await?;
        match timeout(HANDSHAKE, self.wire.start_tls(acceptor)).await {
            Ok(Ok(agreed)) => {
                self.session.tls_started(agreed);
                self.lines = CommandLines::new(endings(&self.listener));
                Ok(())
            }
            Ok(Err(error)) => {
                info!(client = %self.client, %error, "TLS handshake failed");
                Err(End::Gone)
            }
            Err(_) => Err(End::Gone),
        }
    }

    async fn check(&self, login: &Login) -> Checked {
        let client = client_key(self.client);
        let directory = &self.live.directory;
        let checked = self.shared.gate.check(directory, client, login).await;
        if checked == Checked::Wrong {
            count(&self.shared.counters.failed_logins);
            // An unknown name may be a password that was typed into the wrong field.
            let known = directory.login(&login.username).is_some();
            let login = if known {
                login.username.as_str()
            } else {
                "unknown"
            };
            warn!(client = %self.client, login, "login failed");
        }
        checked
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
            reverse_path: mail.map_or(crate::mail::ReversePath::Null, |it| it.reverse_path.clone()),
            size: mail.and_then(|it| it.size),
            smtputf8: mail.is_some_and(|it| it.smtputf8),
        };
        Incoming::new(self.shared.clone(), self.live.clone(), origin)
    }

    /// Waits for content; how much of what is there may be taken.
    async fn some_content(&mut self, pace: &mut Pace, limit: u64) -> Result<usize, End> {
        if self.wire.unread().is_empty() {
            self.flush().await?;
            let wanted = CONTENT_READ.min(usize::try_from(limit).unwrap_or(usize::MAX).max(1));
            let patience = self.shared.patience;
            if *self.stop.borrow() {
                self.cut_off
                    .get_or_insert_with(|| Instant::now() + patience);
            }
            let cut_off = self.cut_off;
            let out_of_patience = async {
                stopping(&mut self.stop).await;
                sleep_until(cut_off.unwrap_or_else(|| Instant::now() + patience)).await;
            };
            let read = tokio::select! {
                biased;
                () = self.seat.asked_to_leave() => return Err(End::Crowded),
                () = out_of_patience => return Err(End::Stopping),
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

    async fn receive_data(&mut self) -> Result<Reply, End> {
        let mut incoming = self.incoming();
        let mut decoder = DataDecoder::new(endings(&self.listener));
        let mut pace = Pace::new(self.live.config.timeouts.idle);
        let mut text = Vec::new();
        let mut swallowed: u64 = 0;
        while !decoder.is_ended() {
            self.some_content(&mut pace, u64::MAX).await?;
            let taken = decoder.feed(self.wire.unread(), &mut text);
            self.wire.consume(taken);
            incoming.push(&text).await;
            text.clear();
            if incoming.refusal().is_some() || decoder.met_bare_ending() {
                swallowed += taken as u64;
                if swallowed > SWALLOWED_MAXIMUM {
                    self.wire
                        .say(&too_large(self.live.config.message.max_size_bytes));
                    return Err(End::Said);
                }
            }
        }
        drop(text);
        let bare = decoder.met_bare_ending();
        self.conclude(incoming, bare).await
    }

    async fn receive_chunk(&mut self, size: u64, last: bool) -> Result<Event, End> {
        let mut message = match self.chunks.take() {
            Some(message) => message,
            None => Box::new((self.incoming(), TextDecoder::new(endings(&self.listener)))),
        };
        let (incoming, decoder) = &mut *message;
        let mut pace = Pace::new(self.live.config.timeouts.idle);
        let mut text = Vec::new();
        let mut left = size;
        while left > 0 {
            let taken = self.some_content(&mut pace, left).await?;
            decoder.feed(&self.wire.unread()[..taken], &mut text);
            self.wire.consume(taken);
            left -= taken as u64;
            incoming.push(&text).await;
            text.clear();
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
        decoder.finish(&mut text);
        incoming.push(&text).await;
        let bare = decoder.met_bare_ending();
        let (incoming, _) = *message;
        self.conclude(incoming, bare).await.map(Event::Ended)
    }

    fn refuses_bare(&self, met: bool) -> bool {
        met && self.listener.bare_lf == BareLf::Refuse
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

    fn log_refusal(&self, reply: &Reply) {
        count(&self.shared.counters.refused);
        let reverse_path = self.session.transaction().map(|it| &it.mail.reverse_path);
        info!(
            client = %self.client,
            login = self.session.login(),
            ?reverse_path,
            code = reply.code,
            reply = reply.text(),
            "refused"
        );
    }

    /// Makes an envelope of what came, and stores both; durable when this returns Ok.
    async fn accept(&self, arrived: Arrived) -> Result<QueueId, Reply> {
        let Some(transaction) = self.session.transaction() else {
            return Err(no_room());
        };
        let (mut envelope, header, mut content) = self.envelope(transaction, arrived);
        let candidate = Candidate {
            from: &envelope.from,
            header: &header,
            relay: &envelope.relay,
            recipients: envelope.recipients.len(),
            at: envelope.accepted,
        };
        let assignment = (self.shared.hooks.assign)(&candidate);
        envelope.mailing = assignment.mailing;
        if let Some(hold) = assignment.hold {
            envelope.state = State::Held(hold);
        }
        if self.shared.hooks.content_check.is_some() {
            let (back, hold) = self.check_content(&envelope, &header, content).await?;
            content = back;
            if let (Some(hold), State::Waiting { .. }) = (hold, &envelope.state) {
                envelope.state = State::Held(hold);
            }
        }
        let stored = envelope.clone();
        if let Err(error) = self.shared.spool.commit(envelope, content).await {
            return Err(cannot_store(&error));
        }
        count(&self.shared.counters.accepted);
        info!(
            queue_id = %stored.id,
            client = %self.client,
            login = stored.login,
            from = %stored.from,
            reverse_path = ?stored.reverse_path,
            relay = stored.relay,
            rule = %stored.rule,
            size = stored.size_bytes,
            recipients = stored.recipients.len(),
            held = matches!(stored.state, State::Held(_)),
            "accepted"
        );
        (self.shared.hooks.accepted)(&stored, &header);
        Ok(stored.id)
    }

    fn envelope(
        &self,
        transaction: &Transaction,
        arrived: Arrived,
    ) -> (Envelope, crate::mail::header::Header, crate::spool::Content) {
        let mail = &transaction.mail;
        let eight_bits = arrived.has_eight_bits || mail.body == Some(Body::EightBitMime);
        let recipients = transaction.recipients.iter().map(|it| Recipient {
            path: it.forward_path.clone(),
            notify: it.notify,
            orcpt: it.orcpt.clone(),
            status: RecipientStatus::Waiting,
            last: None,
        });
        let envelope = Envelope {
            id: arrived.id,
            origin: crate::mail::Origin::Submission,
            accepted: self.shared.clock.now(),
            reverse_path: mail.reverse_path.clone(),
            from: arrived.admitted.from,
            rule: arrived.admitted.route.rule,
            relay: arrived.admitted.route.relay,
            mailing: crate::mail::Mailing {
                key: String::new(),
                label: String::new(),
            },
            login: self.session.login().map(str::to_owned),
            client: self.client.to_string(),
            message_id: arrived.message_id,
            body: if eight_bits {
                Body::EightBitMime
            } else {
                Body::SevenBit
            },
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid.clone(),
            size_bytes: arrived.content.len(),
            wire_bytes: arrived.wire_bytes,
            recipients: recipients.collect(),
            state: State::Waiting { not_before: None },
            attempts: 0,
            first_failure: None,
            warned: false,
        };
        (envelope, arrived.header, arrived.content)
    }

    /// Has the content looked at; a check that takes too long has nothing to say.
    async fn check_content(
        &self,
        envelope: &Envelope,
        header: &crate::mail::header::Header,
        content: crate::spool::Content,
    ) -> Result<(crate::spool::Content, Option<Hold>), Reply> {
        let Some(check) = self.shared.hooks.content_check.clone() else {
            return Ok((content, None));
        };
        let deadline = Instant::now() + CHECK_PATIENCE;
        let Ok(_permit) = timeout_at(deadline, self.shared.checks.acquire()).await else {
            warn!(queue_id = %envelope.id, "too many content checks at once; the message passes");
            return Ok((content, None));
        };
        let read = tokio::task::spawn_blocking(move || {
            let octets = content.peek(0, CHECKED_OCTETS);
            (content, octets)
        });
        let Ok((content, octets)) = read.await else {
            return Err(no_room());
        };
        let octets = octets.map_err(|error| cannot_store(&error))?;
        let header = header.clone();
        let looked = tokio::task::spawn_blocking(move || check(&header, &octets));
        match timeout_at(deadline, looked).await {
            Ok(Ok(Verdict::Pass)) => Ok((content, None)),
            Ok(Ok(Verdict::Hold(hold))) => Ok((content, Some(hold))),
            Ok(Ok(Verdict::Reject(why))) => Err(Reply::enhanced(
                550,
                7,
                1,
                crate::mail::text::printable(why.as_bytes(), 400),
            )),
            Ok(Err(_)) | Err(_) => {
                warn!(queue_id = %envelope.id, "the content check took too long or failed; the message passes");
                Ok((content, None))
            }
        }
    }

    /// Says goodbye as it is fitting, and lets the client read it.
    async fn finish(self, end: End) {
        debug!(client = %self.client, ?end, "connection ends");
        if let (End::Gone, Some(queue_id)) = (&end, self.unconfirmed) {
            info!(%queue_id, client = %self.client, "the client left before its 250; the message stays accepted");
        }
        let farewell = match end {
            End::Said => None,
            End::Gone => return,
            End::Idle => Some((4, 2, "idle for too long")),
            End::Slow => Some((4, 2, "the content comes too slowly")),
            End::Crowded => {
                count(&self.shared.counters.crowded_out);
                Some((3, 2, "too many connections, making room"))
            }
            End::Stopping => Some((3, 2, "stopping, try again later")),
            End::Closed => Some((3, 2, "not in service any more")),
        };
        let Self {
            session,
            seat,
            mut wire,
            ..
        } = self;
        if let Some((subject, detail, why)) = farewell {
            wire.say(&session.farewell(subject, detail, why));
        }
        // Others need the place more than the rest of this conversation.
        drop(seat);
        // Closing with octets unread would reset the connection, and the reply with it.
        let linger = async {
            wire.flush().await?;
            wire.shutdown().await?;
            loop {
                let unread = wire.unread().len();
                wire.consume(unread);
                if wire.read(COMMAND_READ).await? == 0 {
                    return std::io::Result::Ok(());
                }
            }
        };
        timeout(LINGER, linger).await.ok();
    }
}

impl Room {
    /// Whether the spool has room; it keeps its reserve by itself, so a stale answer
    /// only costs the client the content.
    async fn ask(&self, shared: &Shared) -> bool {
        let now = Instant::now();
        let is_stale = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let is_stale = asked.is_none_or(|it| now.duration_since(it) > ROOM_AGE);
            if is_stale {
                *asked = Some(now);
            }
            is_stale
        };
        if is_stale {
            let status = shared.spool.status().await;
            self.full
                .store(status.free_bytes < status.reserve_bytes, Ordering::Relaxed);
        }
        !self.full.load(Ordering::Relaxed)
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

fn endings(listener: &Listener) -> BareEndings {
    match listener.bare_lf {
        BareLf::Refuse => BareEndings::Refuse,
        BareLf::Repair => BareEndings::Repair,
    }
}

fn bare_ending() -> Reply {
    admission::malformed(
        "the message holds a CR or LF that is not part of a CRLF (RFC 5321 section 2.3.8); \
         set bare-lf = \"repair\" for this listener if the application cannot be changed",
    )
}

fn terms(
    live: &Live,
    listener: &Listener,
    bound: SocketAddr,
    client: IpAddr,
    has_room: bool,
) -> Terms {
    Terms {
        hostname: live.config.hostname.clone(),
        trust: guard::trust(bound, client, listener),
        can_start_tls: listener.tls == ListenerTls::StartTls && live.tls.is_some(),
        can_login: listener.auth != ListenerAuth::Off,
        login_in_clear: guard::is_loopback(bound.ip()) && guard::is_loopback(client),
        max_size_bytes: live.config.message.max_size_bytes,
        max_recipients: live.config.message.max_recipients,
        has_room,
    }
}
