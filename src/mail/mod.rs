//! The words of mail: addresses, envelopes, queue ids, statuses, header fields, reports,
//! numbers.
//!
//! Values only. Nothing here reads a clock, a socket or a disk, and nothing here
//! knows how a word is quoted in a configuration file or on the control socket.

pub mod address;
pub mod count;
pub mod dsn;
pub mod envelope;
pub mod header;
pub mod mime;
pub mod queue_id;
pub mod status;
pub mod text;
pub mod xtext;

pub use address::{AddressError, Domain, ForwardPath, Mailbox, ReversePath, folded_login};
pub use envelope::{
    Body, Diagnostic, Envelope, Hold, HoldReason, Mailing, Notify, Origin, Past, PastEvent,
    Recipient, RecipientStatus, Ret, Rule, Stage, State,
};
pub use queue_id::QueueId;
pub use status::EnhancedStatus;
