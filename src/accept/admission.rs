//! Whether a message is taken, as whom, and by which relay: decided when its header is
//! known, before anything of it is stored.

use crate::mail::header::{Header, HeaderError};
use crate::mail::text::printable;
use crate::mail::{Mailbox, ReversePath};
use crate::route::{Directory, Route, Submitter};
use crate::smtp::Reply;

/// More hosts than any message passes on its way (RFC 5321 section 6.3).
const RECEIVED_MAXIMUM: usize = 100;
/// A reply is one line; what it quotes is cut before that.
const TEXT_MAXIMUM: usize = 400;

/// A message that may come in.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// Who it is from: what decided the route.
    pub from: Mailbox,
    /// Where it goes.
    pub route: Route,
}

/// Decides by the header, the reverse-path and who hands it in.
pub fn admit(
    directory: &Directory,
    is_active: &dyn Fn(&str) -> bool,
    submitter: Submitter<'_>,
    reverse_path: &ReversePath,
    header: &Header,
) -> Result<Admitted, Reply> {
    if header.received > RECEIVED_MAXIMUM {
        return Err(Reply::enhanced(
            554,
            4,
            6,
            "this message goes in a circle: it has more than 100 Received fields",
        ));
    }
    let originators = header
        .originators()
        .map_err(|error| malformed(&error.to_string()))?;
    // A login may send only as itself, so it must be plain whom Sender names.
    if let (Submitter::Login(_), Some(error)) = (submitter, &originators.empty_sender) {
        return Err(malformed(&error.to_string()));
    }
    let from = originators
        .identity()
        .or(reverse_path.mailbox())
        .cloned()
        .ok_or_else(|| {
            malformed("neither a From field nor a reverse-path says who this message is from")
        })?;
    directory
        .may_use(submitter, originators, reverse_path)
        .map_err(|error| forbidden(&error.to_string()))?;
    let route = directory
        .route(&from, is_active)
        .map_err(|error| forbidden(&error.to_string()))?;
    Ok(Admitted { from, route })
}

/// The answer to a header that cannot be read.
pub fn unreadable(error: HeaderError) -> Reply {
    match error {
        HeaderError::TooLong => Reply::enhanced(552, 3, 4, error.to_string()),
        HeaderError::Nul => malformed(&error.to_string()),
    }
}

/// The message is not as RFC 5322 says.
pub fn malformed(why: &str) -> Reply {
    Reply::enhanced(550, 6, 0, printable(why.as_bytes(), TEXT_MAXIMUM))
}

fn forbidden(why: &str) -> Reply {
    Reply::enhanced(550, 7, 1, printable(why.as_bytes(), TEXT_MAXIMUM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Rule;
    use crate::route::directory::tests::directory;

    fn try_it(header: &str, path: &str, login: Option<&str>) -> Result<Admitted, String> {
        let directory = directory(
            None,
            &[
                ("jan@example.nl", &[], Some("own"), true),
                ("@example.nl", &[], Some("all"), false),
            ],
        );
        let header = Header::scan(header.as_bytes()).unwrap();
        let submitter = match login {
            Some(login) => Submitter::Login(login),
            None => Submitter::Anyone { senders: &[] },
        };
        let path = ReversePath::parse(path).unwrap();
        admit(&directory, &|_| true, submitter, &path, &header)
            .map_err(|it| String::from_utf8(it.to_wire()).unwrap())
    }

    #[test]
    fn from_decides_the_route_and_the_reverse_path_stands_in() {
        let admitted = try_it("From: erp@example.nl\r\n\r\n", "x@example.net", None).unwrap();
        assert_eq!(admitted.route.relay, "all");
        assert_eq!(admitted.route.rule, Rule::Domain("@example.nl".into()));
        let admitted = try_it("Subject: x\r\n\r\n", "kees@example.nl", None).unwrap();
        assert_eq!(admitted.from.to_string(), "kees@example.nl");
        assert!(try_it("From: jan@example.nl\r\n\r\n", "", Some("jan@example.nl")).is_ok());
        let admitted = try_it("From: undisclosed:;\r\n\r\n", "kees@example.nl", None).unwrap();
        assert_eq!(admitted.from.to_string(), "kees@example.nl");
    }

    #[test]
    fn an_empty_sender_is_in_the_way_of_a_login_only() {
        let header = |from: &str| format!("Sender: erp system\r\nFrom: {from}\r\n\r\n");
        assert!(try_it(&header("erp@example.nl"), "", None).is_ok());
        let jan = try_it(&header("jan@example.nl"), "", Some("jan@example.nl"));
        assert!(jan.unwrap_err().starts_with("550 5.6.0 the Sender field"));
    }

    #[test]
    fn refusals_say_what_is_wrong_and_what_to_do() {
        for (header, path, login, expected) in [
            (
                "From: x@example.net\r\n\r\n".to_owned(),
                "",
                None,
                "550 5.7.1 no relay for <x@example.net>; add it to users.toml\r\n",
            ),
            (
                "From: a@example.nl\r\nFrom: b@example.nl\r\n\r\n".to_owned(),
                "",
                None,
                "550 5.6.0 there is more than one From field\r\n",
            ),
            (
                "From: jan@example.nl\r\n\r\n".to_owned(),
                "",
                None,
                "550 5.7.1 <jan@example.nl> needs a login; log in, or list it in senders of this listener\r\n",
            ),
            (
                "From: erp@example.nl\r\n\r\n".to_owned(),
                "",
                Some("jan@example.nl"),
                "550 5.7.1 <erp@example.nl> (From) is not an address of the login jan@example.nl; \
                 add it to that user's aliases\r\n",
            ),
            (
                "Subject: x\r\n\r\n".to_owned(),
                "",
                None,
                "550 5.6.0 neither a From field nor a reverse-path says who this message is from\r\n",
            ),
            (
                format!(
                    "{}From: erp@example.nl\r\n\r\n",
                    "Received: x\r\n".repeat(101)
                ),
                "",
                None,
                "554 5.4.6 this message goes in a circle: it has more than 100 Received fields\r\n",
            ),
        ] {
            assert_eq!(try_it(&header, path, login).unwrap_err(), expected);
        }
    }
}
