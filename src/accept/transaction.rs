//! One mail transaction: MAIL, its recipients, and how its content comes.

use std::collections::HashSet;

use crate::mail::ForwardPath;
use crate::smtp::{MailCommand, RecipientCommand};

/// A message on its way in.
#[derive(Debug)]
pub struct Transaction {
    /// The command MAIL.
    pub mail: MailCommand,
    /// The commands RCPT, each recipient once.
    pub recipients: Vec<RecipientCommand>,
    seen: HashSet<ForwardPath>,
    chunks: Chunks,
    octets: usize,
    is_full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    None,
    /// So many octets were announced by BDAT.
    Some(u64),
    /// One of them was refused: so are all until RSET (RFC 3030 section 2).
    Broken,
}

/// What became of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is one more.
    New,
    /// It was named before: it gets the message once.
    Again,
    /// It is beyond ASCII, and MAIL came without SMTPUTF8.
    NeedsSmtpUtf8,
    /// There are as many as there may be.
    TooMany,
    /// Content came already.
    TooLate,
}

/// What becomes of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// It is read.
    Taken,
    /// The message would become too large.
    TooLarge,
    /// An earlier one was refused.
    BrokenOff,
}

impl Transaction {
    /// Without recipients yet.
    pub fn new(mail: MailCommand) -> Self {
        Self {
            mail,
            recipients: Vec::new(),
            seen: HashSet::new(),
            chunks: Chunks::None,
            octets: 0,
            is_full: false,
        }
    }

    /// About what its recipients take in memory.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// There is no memory for more recipients.
    pub fn set_full(&mut self) {
        self.is_full = true;
    }

    /// Adds a recipient, up to `limit` of them.
    pub fn add(&mut self, recipient: RecipientCommand, limit: usize) -> Added {
        if self.has_chunks() {
            return Added::TooLate;
        }
        if !recipient.forward_path.is_ascii() && !self.mail.smtputf8 {
            return Added::NeedsSmtpUtf8;
        }
        if self.seen.contains(&recipient.forward_path) {
            return Added::Again;
        }
        if self.recipients.len() >= limit || self.is_full {
            return Added::TooMany;
        }
        // Kept twice, in parts.
        let orcpt = recipient.orcpt.as_ref().map_or(0, String::len);
        self.octets += 400 + 4 * recipient.forward_path.to_string().len() + orcpt;
        self.seen.insert(recipient.forward_path.clone());
        self.recipients.push(recipient);
        Added::New
    }

    /// A chunk of so many octets comes; all together may have `limit`.
    pub fn announce(&mut self, octets: u64, limit: u64) -> Announced {
        let so_far = match self.chunks {
            Chunks::None => 0,
            Chunks::Some(octets) => octets,
            Chunks::Broken => return Announced::BrokenOff,
        };
        match so_far.checked_add(octets).filter(|it| *it <= limit) {
            Some(octets) => {
                self.chunks = Chunks::Some(octets);
                Announced::Taken
            }
            None => {
                self.chunks = Chunks::Broken;
                Announced::TooLarge
            }
        }
    }

    /// A chunk was refused after it came.
    pub fn break_off(&mut self) {
        self.chunks = Chunks::Broken;
    }

    /// Whether content came by BDAT, refused or not.
    pub fn has_chunks(&self) -> bool {
        self.chunks != Chunks::None
    }

    /// Whether content came by BDAT and is kept until more comes.
    pub fn is_between_chunks(&self) -> bool {
        matches!(self.chunks, Chunks::Some(_))
    }
}
