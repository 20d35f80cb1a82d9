//! Who may use which From (PRODUCT section 3).

use std::sync::Arc;

use super::Directory;
use crate::config::User;
use crate::mail::header::Originators;
use crate::mail::{Mailbox, ReversePath, Rule};

/// Who hands a message in.
#[derive(Debug, Clone, Copy)]
pub enum Submitter<'a> {
    /// Somebody who logged in, by login name.
    Login(&'a str),
    /// Somebody who did not.
    Anyone {
        /// The listener's `senders`: the only From addresses taken, unless empty.
        senders: &'a [Mailbox],
    },
}

/// Why somebody may not use an address; its text is the reply and names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// A login used an address that is not its own.
    #[error(
        "<{address}> ({place}) is not an address of the login {login}; add it to that user's aliases"
    )]
    NotOwn {
        /// Whose it is not.
        address: Mailbox,
        /// From, Sender or reverse-path.
        place: &'static str,
        /// Who tried.
        login: String,
    },
    /// The login is no longer in the directory.
    #[error("the login {login} is no longer in users.toml")]
    LoginGone {
        /// Who.
        login: String,
    },
    /// The address belongs to a user with a password, and nobody logged in.
    #[error("<{address}> needs a login; log in, or list it in senders of this listener")]
    NeedsLogin {
        /// Whose password is needed.
        address: Mailbox,
    },
    /// The listener takes only the addresses in its `senders`.
    #[error("<{address}> is not among the senders of this listener")]
    NotListed {
        /// The From address.
        address: Mailbox,
    },
}

impl Directory {
    /// Whether a submitter may send as the people that From, Sender and reverse-path name.
    ///
    /// With a login all of them must be its own: an address or alias of that user, with
    /// or without `+tag`; the null reverse-path is nobody's. Without a login From *is*
    /// the identity, and the reverse-path too where it stands in for From: a user with
    /// a password is protected from being sent as by anybody else.
    pub fn may_use(
        &self,
        submitter: Submitter<'_>,
        originators: &Originators,
        reverse_path: &ReversePath,
    ) -> Result<(), NotAllowed> {
        let from = originators.from.iter().map(|it| ("From", it));
        let sender = originators.sender.iter().map(|it| ("Sender", it));
        let reverse_path = reverse_path.mailbox().map(|it| ("reverse-path", it));
        match submitter {
            Submitter::Login(login) => {
                let Some(user) = self.login(login) else {
                    return Err(NotAllowed::LoginGone {
                        login: login.to_owned(),
                    });
                };
                let mut claimed = from.chain(sender).chain(reverse_path);
                match claimed.find(|(_, address)| !self.owns(user, address)) {
                    None => Ok(()),
                    Some((place, address)) => Err(NotAllowed::NotOwn {
                        address: address.clone(),
                        place,
                        login: login.to_owned(),
                    }),
                }
            }
            Submitter::Anyone { senders } => {
                // Only where there is no From is the reverse-path who it is from.
                let stand_in = reverse_path.filter(|_| originators.from.is_empty());
                let shown = from.chain(stand_in).map(|it| (it.1, true));
                let sender = sender.map(|it| (it.1, originators.from.len() > 1));
                for (address, is_identity) in shown.chain(sender) {
                    self.anyone_may_use(address, senders, is_identity)?;
                }
                Ok(())
            }
        }
    }

    /// Whether an authorization identity (RFC 4616) of a login is the login itself: its
    /// name or one of its addresses.
    pub fn may_act_as(&self, login: &str, identity: &str) -> bool {
        let Some(user) = self.login(login) else {
            return false;
        };
        let by_name = self.login(identity).is_some_and(|it| Arc::ptr_eq(it, user));
        by_name || Mailbox::parse(identity).is_ok_and(|it| self.owns(user, &it))
    }

    fn owns(&self, user: &User, address: &Mailbox) -> bool {
        match self.find(address) {
            Some((owner, Rule::Address(_) | Rule::WithoutTag(_))) => std::ptr::eq(&**owner, user),
            _ => false,
        }
    }

    fn anyone_may_use(
        &self,
        address: &Mailbox,
        senders: &[Mailbox],
        is_identity: bool,
    ) -> Result<(), NotAllowed> {
        let folded = address.folded();
        if senders.iter().any(|it| it.folded() == folded) {
            return Ok(());
        }
        if self
            .find(address)
            .is_some_and(|(user, _)| user.password_hash.is_some())
        {
            return Err(NotAllowed::NeedsLogin {
                address: address.clone(),
            });
        }
        if is_identity && !senders.is_empty() {
            return Err(NotAllowed::NotListed {
                address: address.clone(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::directory::tests::directory;

    fn people(from: &[&str], sender: Option<&str>) -> Originators {
        Originators {
            from: from.iter().map(|it| it.parse().unwrap()).collect(),
            sender: sender.map(|it| it.parse().unwrap()),
            empty_sender: None,
        }
    }

    fn example() -> Directory {
        directory(
            Some("default"),
            &[
                ("jan@example.nl", &["j.jansen@example.nl"], None, true),
                ("erp@example.nl", &[], None, true),
                ("jan+erp@example.nl", &[], None, false),
                ("@example.nl", &[], None, false),
            ],
        )
    }

    #[test]
    fn a_login_sends_only_as_itself() {
        let directory = example();
        let try_it = |from: &[&str], sender, path: &str| {
            directory.may_use(
                Submitter::Login("JAN@example.nl"),
                &people(from, sender),
                &ReversePath::parse(path).unwrap(),
            )
        };
        assert_eq!(
            try_it(&["jan@example.nl"], None, "j.jansen@example.nl"),
            Ok(())
        );
        assert_eq!(try_it(&["Jan+news@example.nl"], None, ""), Ok(()));
        assert_eq!(try_it(&[], None, "jan@example.nl"), Ok(()));
        for (from, sender, path, place) in [
            (&["kees@example.nl"][..], None, "", "From"),
            (&["jan@example.nl", "erp@example.nl"], None, "", "From"),
            (&["jan+erp@example.nl"], None, "", "From"),
            (&["jan@example.nl"], Some("erp@example.nl"), "", "Sender"),
            (&["jan@example.nl"], None, "erp@example.nl", "reverse-path"),
            (&["jan@example.nl"], None, "x@example.net", "reverse-path"),
            (&[], None, "erp@example.nl", "reverse-path"),
        ] {
            let refusal = try_it(from, sender, path).unwrap_err();
            assert!(
                matches!(&refusal, NotAllowed::NotOwn { place: it, .. } if *it == place),
                "{refusal:?}"
            );
        }
        assert!(matches!(
            directory.may_use(
                Submitter::Login("gone"),
                &people(&["jan@example.nl"], None),
                &ReversePath::Null
            ),
            Err(NotAllowed::LoginGone { .. })
        ));
    }

    #[test]
    fn a_login_acts_only_for_itself() {
        let directory = example();
        let may = |identity| directory.may_act_as("jan@example.nl", identity);
        assert!(may("JAN@example.nl") && may("j.jansen@example.nl"));
        assert!(!may("erp@example.nl") && !may("root") && !may("kees@example.nl"));
    }

    #[test]
    fn without_a_login_only_users_with_a_password_are_protected() {
        let directory = example();
        let erp: Mailbox = "erp@example.nl".parse().unwrap();
        let try_it = |senders: &[Mailbox], from: &[&str], sender, path: &str| {
            directory.may_use(
                Submitter::Anyone { senders },
                &people(from, sender),
                &ReversePath::parse(path).unwrap(),
            )
        };
        let listed = [erp];
        assert_eq!(
            try_it(&[], &["kees@example.nl"], None, "jan@example.nl"),
            Ok(())
        );
        assert_eq!(
            try_it(&[], &["x@example.net"], Some("y@example.net"), ""),
            Ok(())
        );
        assert_eq!(
            try_it(&listed, &["ERP@example.nl"], None, "x@example.net"),
            Ok(())
        );
        for (senders, from, sender, path) in [
            (&[][..], &["jan@example.nl"][..], None, ""),
            (&[], &["J.Jansen@example.nl"], None, ""),
            (&[], &["jan+x@example.nl"], None, ""),
            (&[], &["x@example.net", "jan@example.nl"], None, ""),
            (&[], &["x@example.net"], Some("jan@example.nl"), ""),
            (&[], &[], None, "jan@example.nl"),
            (&listed, &["jan@example.nl"], None, ""),
        ] {
            assert!(
                matches!(
                    try_it(senders, from, sender, path),
                    Err(NotAllowed::NeedsLogin { .. })
                ),
                "{from:?} {sender:?} {path}"
            );
        }
        assert!(matches!(
            try_it(&listed, &["x@example.net"], None, ""),
            Err(NotAllowed::NotListed { .. })
        ));
        assert!(matches!(
            try_it(
                &listed,
                &["erp@example.nl", "erp@example.nl"],
                Some("x@example.net"),
                ""
            ),
            Err(NotAllowed::NotListed { .. })
        ));
        assert_eq!(
            try_it(&listed, &["erp@example.nl"], Some("x@example.net"), ""),
            Ok(()),
            "of one mailbox the Sender is not the identity"
        );
    }
}
