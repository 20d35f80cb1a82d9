//! A message while it comes in: its header is held back until it is whole, then the
//! trace fields, the header and the rest go to the spool as they come.
//!
//! Whatever is wrong is remembered, nothing more is kept, and the rest is swallowed: a
//! client that sends hears the answer only at the end (RFC 5321 section 4.2.5).

use std::net::IpAddr;
use std::sync::Arc;

use tracing::warn;

use crate::mail::header::trace::{self, Protocol, Received, trace_fields};
use crate::mail::header::{HEADER_MAXIMUM, Header, HeaderEnd};
use crate::mail::{Mailbox, QueueId, ReversePath};
use crate::route::Submitter;
use crate::smtp::{Reply, WireSize};
use crate::spool::{Content, ContentWriter, SpoolError};

use super::admission::{self, Admitted};
use super::purse::Paid;
use super::session::{Greeting, no_room, too_large};
use super::{Live, Shared};

/// Who hands a message in, and how.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The client's address.
    pub client: IpAddr,
    /// How it greeted.
    pub greeting: Greeting,
    /// Version and cipher of TLS.
    pub tls: Option<String>,
    /// Who logged in.
    pub login: Option<String>,
    /// The listener's `senders`.
    pub senders: Vec<Mailbox>,
    /// The argument of MAIL.
    pub reverse_path: ReversePath,
    /// What MAIL declared: SIZE.
    pub size: Option<u64>,
    /// What MAIL declared: SMTPUTF8.
    pub smtputf8: bool,
}

/// A message that is all there.
#[derive(Debug)]
pub struct Arrived {
    /// Its name.
    pub id: QueueId,
    /// What its header says.
    pub header: Header,
    /// Its Message-ID, or the one it was given.
    pub message_id: String,
    /// Who it is from, and where it goes.
    pub admitted: Admitted,
    /// What to store.
    pub content: Content,
    /// Octets as DATA will send it.
    pub wire_bytes: u64,
    /// It has octets above 127.
    pub has_eight_bits: bool,
}

/// A message on its way in.
pub struct Incoming {
    shared: Arc<Shared>,
    live: Arc<Live>,
    origin: Origin,
    state: State,
    octets: u64,
    has_eight_bits: bool,
}

enum State {
    Header {
        held: Vec<u8>,
        end: HeaderEnd,
        paid: Paid,
    },
    Body(Box<Body>),
    Refused(Reply),
}

struct Body {
    id: QueueId,
    header: Header,
    message_id: String,
    admitted: Admitted,
    writer: ContentWriter,
    wire: WireSize,
}

impl Incoming {
    /// Nothing came yet.
    pub fn new(shared: Arc<Shared>, live: Arc<Live>, origin: Origin) -> Self {
        Self {
            shared,
            live,
            origin,
            state: State::Header {
                held: Vec::new(),
                end: HeaderEnd::default(),
                paid: None,
            },
            octets: 0,
            has_eight_bits: false,
        }
    }

    /// Why it will be refused, if that is known already.
    pub fn refusal(&self) -> Option<&Reply> {
        match &self.state {
            State::Refused(reply) => Some(reply),
            State::Header { .. } | State::Body(_) => None,
        }
    }

    /// Takes the next octets of the content.
    pub async fn push(&mut self, piece: &[u8]) {
        self.octets = self.octets.saturating_add(piece.len() as u64);
        let limit = self.live.config.message.max_size_bytes;
        if self.octets > limit && self.refusal().is_none() {
            self.state = State::Refused(too_large(limit));
        }
        self.has_eight_bits |= !piece.is_ascii();
        match &mut self.state {
            State::Refused(_) => {}
            State::Body(body) => {
                if let Err(error) = body.write(piece).await {
                    self.state = State::Refused(cannot_store(&error));
                }
            }
            State::Header { held, end, paid } => {
                held.extend_from_slice(piece);
                let ended = end.find(piece).is_some();
                if ended || held.len() > HEADER_MAXIMUM {
                    self.open_body().await;
                } else if !self.shared.header_purse.pay(held.len(), paid) {
                    self.state = State::Refused(no_room());
                }
            }
        }
    }

    /// That was all.
    pub async fn finish(mut self) -> Result<Arrived, Reply> {
        if matches!(self.state, State::Header { .. }) {
            self.open_body().await;
        }
        match self.state {
            State::Body(body) => Ok(Arrived {
                id: body.id,
                header: body.header,
                message_id: body.message_id,
                admitted: body.admitted,
                content: body
                    .writer
                    .finish()
                    .await
                    .map_err(|error| cannot_store(&error))?,
                wire_bytes: body.wire.total(),
                has_eight_bits: self.has_eight_bits,
            }),
            State::Refused(reply) => Err(reply),
            State::Header { .. } => unreachable!("open_body leaves it behind"),
        }
    }

    /// The header is whole: decides, and begins to store.
    async fn open_body(&mut self) {
        let begun = match &mut self.state {
            State::Header { held, .. } => std::mem::take(held),
            State::Body(_) | State::Refused(_) => return,
        };
        self.state = match self.begin(&begun).await {
            Ok(body) => State::Body(Box::new(body)),
            Err(reply) => State::Refused(reply),
        };
    }

    async fn begin(&self, begun: &[u8]) -> Result<Body, Reply> {
        let header = Header::scan(begun).map_err(admission::unreadable)?;
        let submitter = match &self.origin.login {
            Some(login) => Submitter::Login(login),
            None => Submitter::Anyone {
                senders: &self.origin.senders,
            },
        };
        let admitted = admission::admit(
            &self.live.directory,
            &*self.shared.hooks.is_active,
            submitter,
            &self.origin.reverse_path,
            &header,
        )?;
        let id = self.shared.spool.next_id();
        let received = Received {
            greeting: &self.origin.greeting.name,
            client: self.origin.client,
            hostname: &self.live.config.hostname,
            protocol: Protocol {
                extended: self.origin.greeting.extended,
                tls: self.origin.tls.is_some(),
                login: self.origin.login.is_some(),
                utf8: self.origin.smtputf8,
            },
            tls: self.origin.tls.as_deref(),
            id,
            at: self.shared.clock.now(),
        };
        let trace = trace_fields(&received, &header);
        let message_id = if header.has_message_id {
            header.message_id.clone()
        } else {
            trace::made_message_id(&received)
        };
        let mut body = Body {
            id,
            header,
            message_id,
            admitted,
            writer: self.shared.spool.new_content(self.origin.size),
            wire: WireSize::new(),
        };
        for piece in [trace.as_bytes(), begun] {
            body.write(piece)
                .await
                .map_err(|error| cannot_store(&error))?;
        }
        Ok(body)
    }
}

impl Body {
    async fn write(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        self.wire.feed(piece);
        self.writer.write(piece).await
    }
}

/// What the client is told when the spool fails; the administrator is told more.
pub fn cannot_store(error: &SpoolError) -> Reply {
    warn!(
        error = error as &dyn std::error::Error,
        "cannot store a message: 452 4.3.1"
    );
    no_room()
}
