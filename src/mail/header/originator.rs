//! Who a message says sent it: the fields From and Sender, read strictly.
//!
//! The routes, credentials and permissions of Penstock hang on this answer, while other
//! programs show it to people; so where two programs could read two different people, the
//! answer is an error. How a field is read is in [`mailbox_list`](super::mailbox_list).
//!
//! Display names may hold any octets (old applications write Latin-1 there); encoded-words
//! (RFC 2047) are nothing but display and are never decoded.

use super::mailbox_list::{mailbox_list, may_name_somebody};
use crate::mail::{AddressError, Mailbox};

/// Everybody that From and Sender name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Originators {
    /// The mailboxes of From, groups opened; empty without a From field, and where it
    /// holds an empty group (RFC 6854), like `undisclosed:;`.
    pub from: Vec<Mailbox>,
    /// The mailbox of Sender.
    pub sender: Option<Mailbox>,
    /// What is wrong with a Sender that names nobody; it matters where Sender decides.
    pub empty_sender: Option<FromError>,
}

impl Originators {
    /// The address that decides the route (PRODUCT section 4); none without From.
    pub fn identity(&self) -> Option<&Mailbox> {
        match self.from.as_slice() {
            [one] => Some(one),
            several => several
                .first()
                .map(|first| self.sender.as_ref().unwrap_or(first)),
        }
    }
}

/// Why nobody can say who sent a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FromError {
    /// Two fields of a kind that RFC 5322 section 3.6 allows once.
    #[error("there is more than one {field} field")]
    Several {
        /// From or Sender.
        field: &'static str,
    },
    /// A line that is no header field ends the header for some programs and not for others.
    #[error("a line of the header is not a header field, and hides a From or Sender field")]
    Hidden,
    /// No mailbox in the field, or not just one in Sender.
    #[error("the {field} field must name {wanted}")]
    Count {
        /// From or Sender.
        field: &'static str,
        /// How many.
        wanted: &'static str,
    },
    /// Not a list of mailboxes.
    #[error("the {field} field does not parse: {what}")]
    Syntax {
        /// From or Sender.
        field: &'static str,
        /// What is wrong and what would be right.
        what: &'static str,
    },
    /// A character that neither a name without quotes nor an address may hold.
    #[error(
        "the {field} field does not parse: {found} stands where it must not; \
         a name with it needs quotes, an address cannot have it"
    )]
    Character {
        /// From or Sender.
        field: &'static str,
        /// Which.
        found: char,
    },
    /// One of the addresses is not an address.
    #[error("the {field} field does not parse: {source}")]
    Address {
        /// From or Sender.
        field: &'static str,
        /// Why not.
        source: AddressError,
    },
}

/// Collects From and Sender while the header is read.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    from: Option<Vec<Mailbox>>,
    sender: Option<Result<Mailbox, FromError>>,
    error: Option<FromError>,
}

impl Gathering {
    pub(super) fn hidden(&mut self) {
        self.error.get_or_insert(FromError::Hidden);
    }

    pub(super) fn read_from(&mut self, body: &[u8]) {
        if self.from.is_some() {
            self.error
                .get_or_insert(FromError::Several { field: "From" });
            return;
        }
        match mailbox_list("From", body) {
            Ok(list) => self.from = Some(list),
            Err(error) => {
                self.from = Some(Vec::new());
                self.error.get_or_insert(error);
            }
        }
    }

    pub(super) fn read_sender(&mut self, body: &[u8]) {
        let field = "Sender";
        if self.sender.is_some() {
            self.error.get_or_insert(FromError::Several { field });
            return;
        }
        let sender = mailbox_list(field, body).and_then(|list| match list.as_slice() {
            [one] => Ok(one.clone()),
            _ => Err(FromError::Count {
                field,
                wanted: "one mailbox",
            }),
        });
        // Without an @ no program finds a person in it. With one, another program might.
        if let Err(error) = &sender
            && may_name_somebody(body)
        {
            self.error.get_or_insert(error.clone());
        }
        self.sender = Some(sender);
    }

    pub(super) fn finish(self) -> Result<Originators, FromError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let from = self.from.unwrap_or_default();
        let (sender, empty_sender) = match self.sender {
            // Of several mailboxes it decides.
            Some(Err(error)) if from.len() > 1 => return Err(error),
            Some(Err(error)) => (None, Some(error)),
            Some(Ok(sender)) => (Some(sender), None),
            None => (None, None),
        };
        Ok(Originators {
            from,
            sender,
            empty_sender,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::header::Header;

    #[test]
    fn a_sender_that_names_nobody_matters_only_where_sender_decides() {
        for sender in ["erp system", "", " ", "<>", "nobody:;"] {
            let is = |from: &str, decides: &str| {
                let header = format!("Sender:{sender}\r\nFrom: {from}\r\n\r\n");
                assert_eq!(
                    identity(&header).ok().flatten().as_deref(),
                    Some(decides).filter(|it| !it.is_empty()),
                    "{header}"
                );
            };
            is("a@b.c", "a@b.c");
            is("a@b.c, d@e.f", "");
        }
        assert!(identity("Sender: jan@b.c x\r\nFrom: a@b.c\r\n\r\n").is_err());
        assert!(identity("Sender: x\r\nSender: y\r\nFrom: a@b.c\r\n\r\n").is_err());
        let encoded = "Sender: =?utf-8?Q?jan=40b.c?=\r\nFrom: a@b.c\r\n\r\n";
        assert!(identity(encoded).is_err());
    }

    fn identity(header: &str) -> Result<Option<String>, FromError> {
        match Header::scan(header.as_bytes()).unwrap().identity() {
            Ok(found) => Ok(found.map(Mailbox::to_string)),
            Err(error) => Err(error.clone()),
        }
    }

    #[test]
    fn a_from_with_an_empty_group_is_like_none() {
        assert_eq!(identity("From: undisclosed:;\r\n\r\n"), Ok(None));
    }

    #[test]
    fn of_several_mailboxes_the_sender_decides_else_the_first() {
        let is = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(identity("From: a@b.c, d@e.f\r\n\r\n"), is("a@b.c"));
        assert_eq!(
            identity("Sender: s@b.c\r\nFrom: a@b.c, d@e.f\r\n\r\n"),
            is("s@b.c")
        );
        assert_eq!(
            identity("Sender: s@b.c\r\nFrom: a@b.c\r\n\r\n"),
            is("a@b.c")
        );
        assert_eq!(identity("Sender: s@b.c\r\n\r\n"), Ok(None));
        assert_eq!(
            identity("from: a@b.c\r\nFROM: a@b.c\r\n\r\n"),
            Err(FromError::Several { field: "From" })
        );
        assert_eq!(
            identity("From: a@b.c\r\nSender: a@b.c\r\nSender: a@b.c\r\n\r\n"),
            Err(FromError::Several { field: "Sender" })
        );
        assert_eq!(
            identity("From: a@b.c\r\nSender: a@b.c, d@e.f\r\n\r\n"),
            Err(FromError::Count {
                field: "Sender",
                wanted: "one mailbox"
            })
        );
    }
}
