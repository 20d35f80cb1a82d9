//! One connection: octets to lines, effects to octets, and every wait with its limit.
//!
//! Decides nothing about the protocol; see [`super::session`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::config::{BareLf, Listener, ListenerAuth, ListenerTls};
use crate::mail::QueueId;
use crate::mail::text::printable;
use crate::smtp::{BareEndings, CommandLines, Line, Reply, TextDecoder};
use crate::tls::ServerTls;

use super::crowd::{Busy, Seat, client_key};
use super::incoming::Incoming;
use super::purse::Paid;
use super::sasl::Login;
use super::session::{Checked, Effect, Event, Session, Terms};
use super::wire::{COMMAND_READ, Wire};
use super::{Live, Shared, count, guard, stopping};

/// A TLS handshake is a few packets.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// So long may a client go without a message, in units of the idle time limit.
pub(super) const FRUITLESS: u32 = 10;
/// Replies are sent when so many octets of them wait, even if more commands are there.
const UNSENT_MAXIMUM: usize = 16 * 1024;
/// After our last word, so long the client may take to read it.
const LINGER: Duration = Duration::from_secs(2);
/// And so much more may it say meanwhile.
const LINGER_OCTETS: usize = 1 << 20;

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
pub(super) enum End {
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

/// One client's connection, whatever it is doing.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) live: Arc<Live>,
    pub(super) place: Place,
    pub(super) listener: Arc<Listener>,
    pub(super) client: IpAddr,
    pub(super) wire: Wire,
    pub(super) lines: CommandLines,
    pub(super) session: Session,
    /// A message that comes by BDAT, between two chunks.
    pub(super) chunks: Option<Box<(Incoming, TextDecoder)>>,
    pub(super) seat: Seat,
    pub(super) stop: watch::Receiver<bool>,
    /// Without an accepted message until then, it ends.
    pub(super) fruitless_until: Instant,
    /// The daemon stops: a message that is not whole by then is cut off.
    pub(super) cut_off: Option<Instant>,
    /// The last message accepted whose 250 is not sent yet.
    pub(super) unconfirmed: Option<QueueId>,
    /// Codes of refused commands that are in the log: one line each, however often.
    logged: Vec<u16>,
    /// What the recipients of the transaction take from the memory of all.
    paid: Paid,
}

/// Talks with one client until one of both has enough.
pub async fn run(start: Start, mut stop: watch::Receiver<bool>) {
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
        match handshake(&mut wire, tls_of_listener.acceptor(), &seat, &mut stop).await {
            Ok(agreed) => tls = Some(agreed),
            Err(why) => {
                info!(%client, why, "TLS handshake failed");
                return;
            }
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
        logged: Vec::new(),
        paid: None,
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
            self.refresh()?;
            let mut effect = self.session.step(Event::Line(line));
            if let Effect::Reply(reply) = &effect {
                self.log_refused_command(reply);
            }
            while let Some(event) = self.carry_out(effect).await? {
                effect = self.session.step(event);
            }
            if !self.session.is_between_chunks() {
                self.chunks = None;
            }
            self.pay_for_recipients();
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

    /// Many transactions with many recipients at once must not take the memory.
    fn pay_for_recipients(&mut self) {
        match self.session.transaction() {
            Some(it) => {
                let purse = &self.shared.recipient_purse;
                if !purse.pay(it.octets(), &mut self.paid) {
                    self.session.take_no_more_recipients();
                }
            }
            None => self.paid = None,
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
                self.log_closing(&reply);
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
                self.skip_chunk(size).await?;
                self.wire.say(&reply);
                Ok(None)
            }
        }
    }

    /// What an administrator looks for when an application "cannot send": a transaction
    /// that may not begin. Mistakes in commands are for whoever debugs the application.
    fn log_refused_command(&mut self, reply: &Reply) {
        let client = self.client;
        let begins = self.session.transaction().is_none();
        match reply.code {
            code @ (452 | 530 | 538 | 550 | 552) if begins && !self.logged.contains(&code) => {
                self.logged.push(code);
                info!(%client, code, reply = reply.text(), "refused");
            }
            400.. => debug!(%client, code = reply.code, reply = reply.text(), "refused"),
            _ => {}
        }
    }

    /// A client that is sent away for what it said leaves one line behind.
    fn log_closing(&self, reply: &Reply) {
        if reply.code >= 400 {
            info!(client = %self.client, code = reply.code, reply = reply.text(), "sent away");
        }
    }

    /// The next command line; however it drips, it must be whole within the idle limit.
    async fn next_line(&mut self) -> Result<Line, End> {
        let now = Instant::now();
        // Commands that come without a pause would never meet the deadline below.
        if now >= self.fruitless_until {
            return Err(End::Idle);
        }
        let idle = now + self.live.config.timeouts.idle;
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
            // Between two chunks a client is in the middle of a message, and may finish it.
            let cut_off = self.cut_off();
            let patience = self.shared.patience;
            let patience = self.session.is_between_chunks().then_some(patience);
            let read = tokio::select! {
                biased;
                () = self.seat.asked_to_leave() => return Err(End::Crowded),
                () = no_more_commands(&mut self.stop, cut_off, patience) => {
                    return Err(End::Stopping);
                }
                read = self.wire.read(COMMAND_READ) => read,
                () = sleep_until(deadline) => return Err(End::Idle),
            };
            if read.map_err(|_| End::Gone)? == 0 {
                return Err(End::Gone);
            }
        }
    }

    /// Sends the replies that wait, as long as the client reads them.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.wire.unsent() == 0 {
            return Ok(());
        }
        let patience = self.live.config.timeouts.idle;
        let cut_off = self.cut_off();
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
            () = out_of_patience(&mut self.stop, cut_off, self.shared.patience) => Err(End::Gone),
        }
    }

    /// When what is under way must end because the daemon stops; none: it does not stop.
    pub(super) fn cut_off(&mut self) -> Option<Instant> {
        if *self.stop.borrow() {
            let patience = self.shared.patience;
            self.cut_off
                .get_or_insert_with(|| Instant::now() + patience);
        }
        self.cut_off
    }

    /// Takes a reloaded configuration over, between transactions.
    fn refresh(&mut self) -> Result<(), End> {
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
        let has_room = self.shared.room.ask(&self.shared.spool);
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
        match handshake(&mut self.wire, acceptor, &self.seat, &mut self.stop).await {
            Ok(agreed) => {
                self.session.tls_started(agreed);
                self.lines = CommandLines::new(endings(&self.listener));
                Ok(())
            }
            Err(why) => {
                info!(client = %self.client, why, "TLS handshake failed");
                Err(End::Gone)
            }
        }
    }

    async fn check(&self, login: &Login) -> Checked {
        let client = client_key(self.client);
        let directory = &self.live.directory;
        let mut checked = self.shared.gate.check(directory, client, login).await;
        // Told only to whoever knows the password.
        if let (Checked::Right(name), Some(other)) = (&checked, &login.authorization)
            && !directory.may_act_as(name, other)
        {
            count(&self.shared.counters.failed_logins);
            warn!(client = %self.client, login = name, "login failed: it wants to act for somebody else");
            checked = Checked::ForAnother;
        }
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

    /// One line about a connection that did not end as it should.
    fn log_end(&self, end: &End) {
        let client = self.client;
        let in_message = self.session.transaction().is_some();
        match (end, self.unconfirmed) {
            (End::Gone, Some(queue_id)) => {
                info!(%queue_id, %client, "the client left before its 250; the message stays accepted");
            }
            (End::Gone, None) if in_message => info!(%client, "left in the middle of a message"),
            (End::Idle, _) => info!(%client, in_message, "sent away: idle for too long"),
            (End::Slow, _) => info!(%client, "sent away: the content came too slowly"),
            (End::Closed, _) => info!(%client, "sent away: the listener is not in service"),
            (End::Crowded, _) => {
                if let Some(clients) = self.shared.crowded.tell() {
                    warn!(clients, last = %client, "too many connections: clients were sent away");
                }
            }
            (End::Said | End::Gone | End::Stopping, _) => {
                debug!(%client, ?end, "connection ends");
            }
        }
    }

    /// Says goodbye as it is fitting, and lets the client read it.
    async fn finish(self, end: End) {
        self.log_end(&end);
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
        let lingering = seat.linger();
        drop(seat);
        let Some(_lingering) = lingering else {
            // What the socket does not take at once is lost; so many who read slowly would
            // take the descriptors that delivery needs.
            timeout(Duration::ZERO, wire.flush()).await.ok();
            return;
        };
        // Closing with octets unread would reset the connection, and the reply with it.
        let linger = async {
            wire.flush().await?;
            wire.shutdown().await?;
            let mut heard = 0;
            while heard < LINGER_OCTETS {
                let unread = wire.unread().len();
                wire.consume(unread);
                match wire.read(COMMAND_READ).await? {
                    0 => break,
                    more => heard += more,
                }
            }
            std::io::Result::Ok(())
        };
        timeout(LINGER, linger).await.ok();
    }
}

/// Resolves when the daemon stops and has waited long enough for a client.
pub(super) async fn out_of_patience(
    stop: &mut watch::Receiver<bool>,
    cut_off: Option<Instant>,
    patience: Duration,
) {
    stopping(stop).await;
    sleep_until(cut_off.unwrap_or_else(|| Instant::now() + patience)).await;
}

/// The end of waiting for a command: at once when the daemon stops, or when its patience
/// with who may finish is over.
async fn no_more_commands(
    stop: &mut watch::Receiver<bool>,
    cut_off: Option<Instant>,
    patience: Option<Duration>,
) {
    match patience {
        Some(patience) => out_of_patience(stop, cut_off, patience).await,
        None => stopping(stop).await,
    }
}

/// Shakes hands, unless it takes too long or the place or the daemon is needed otherwise.
async fn handshake(
    wire: &mut Wire,
    acceptor: TlsAcceptor,
    seat: &Seat,
    stop: &mut watch::Receiver<bool>,
) -> Result<String, String> {
    tokio::select! {
        biased;
        () = seat.asked_to_leave() => Err("too many connections".into()),
        () = stopping(stop) => Err("stopping".into()),
        shaken = timeout(HANDSHAKE, wire.start_tls(acceptor)) => match shaken {
            Ok(Ok(agreed)) => Ok(agreed),
            Ok(Err(error)) => Err(printable(error.to_string().as_bytes(), 200)),
            Err(_) => Err("it took too long".into()),
        },
    }
}

/// How line endings are treated there.
pub(super) fn endings(listener: &Listener) -> BareEndings {
    match listener.bare_lf {
        BareLf::Refuse => BareEndings::Refuse,
        BareLf::Repair => BareEndings::Repair,
    }
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
