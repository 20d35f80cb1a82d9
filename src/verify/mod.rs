//! Proof that a relay delivers: a test message goes through it to its own address, and
//! only what somebody read there makes the relay active.
//!
//! A relay that takes a login and answers 250 may still deliver nothing: to a quarantine,
//! to nowhere, from somebody else's address. So `verify = true` asks for the one proof
//! that counts. [`Verification`] is what is known of one relay, as a value: which test
//! message went out, how it ended, which tokens are good, who confirmed. It is bound to
//! the relay's servers, user name and sender ([`Binding`]); with another one the proof is
//! worth nothing. [`Token`] is what the message carries; only its hash is kept.
//!
//! It sends nothing and writes nothing: the daemon's delivery task does, and keeps each
//! relay's `Verification` in the spool.

mod binding;
mod letter;
mod state;
mod token;

pub use binding::{Binding, Confirmations};
pub use letter::{Letter, LetterError};
pub use state::{
    Conversation, Found, NotYet, Outcome, RESEND_PAUSE, Side, TOKEN_LIFE, Test, Verification,
};
pub use token::{Token, TokenHash};

/// The key of the mailing that test messages are: no client's mail can have it.
pub const MAILING: &str = "verification";
