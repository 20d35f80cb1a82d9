//! Who sends and who receives: users of this machine by name, everyone else by address.

use std::fs;

use super::address_list::places;
use super::{Refusal, USAGE};
use crate::mail::{Domain, ForwardPath, Mailbox, ReversePath};

/// Aliases of aliases are followed so far.
const DEPTH_MAXIMUM: usize = 10;

/// The user who runs this program.
pub struct Caller {
    /// The login name.
    pub name: String,
    /// The name in words; may be empty.
    pub full_name: String,
}

impl Caller {
    /// Whoever runs this process.
    pub fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::find(&users, uid).unwrap_or_else(|| Self {
            name: format!("uid{uid}"),
            full_name: String::new(),
        })
    }

    /// `name:password:uid:gid:full name,room,...:home:shell` (passwd(5)).
    fn find(users: &str, uid: u32) -> Option<Self> {
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            if fields.len() < 5 || fields[2].parse() != Ok(uid) {
                return None;
            }
            let full_name = fields[4].split(',').next().unwrap_or_default();
            Some(Self {
                name: fields[0].into(),
                // `&` stands for the login name, an old habit of finger(1).
                full_name: full_name.replace('&', fields[0]),
            })
        })
    }
}

/// Names without a domain, and what they stand for.
pub struct People<'a> {
    hostname: &'a Domain,
    aliases: String,
}

impl<'a> People<'a> {
    /// The people of this machine, with its `/etc/aliases`.
    pub fn of_this_machine(hostname: &'a Domain) -> Self {
        Self {
            hostname,
            aliases: fs::read_to_string("/etc/aliases").unwrap_or_default(),
        }
    }

    /// The recipients that these texts name, each text a list. `code` is for what is none.
    pub fn recipients(&self, lists: &[String], code: u8) -> Result<Vec<ForwardPath>, Refusal> {
        let mut found = Vec::new();
        for list in lists {
            for place in places(list.as_bytes()) {
                self.add(&list[place], 0, &mut found)
                    .map_err(|message| Refusal::new(code, message))?;
            }
        }
        Ok(found)
    }

    fn add(&self, name: &str, depth: usize, found: &mut Vec<ForwardPath>) -> Result<(), String> {
        if name.contains('@') {
            let path = ForwardPath::parse(name).map_err(|error| format!("{name}: {error}"))?;
            found.push(path);
            return Ok(());
        }
        let members = match depth {
            DEPTH_MAXIMUM.. => None,
            _ => self.alias(name),
        };
        let Some(members) = members else {
            let mailbox = self
                .qualified(name)
                .map_err(|error| format!("{name}: {error}"))?;
            found.push(ForwardPath::Mailbox(mailbox));
            return Ok(());
        };
        for member in members {
            // An alias for itself is where the mail stays: at this machine.
            let depth = if member == name {
                DEPTH_MAXIMUM
            } else {
                depth + 1
            };
            self.add(&member, depth, found)?;
        }
        Ok(())
    }

    /// What `/etc/aliases` says for a name; programs, files and lists of other systems
    /// (`|...`, `/...`, `:include:...`) are passed over.
    fn alias(&self, name: &str) -> Option<Vec<String>> {
        let mut lines = self.aliases.lines().peekable();
        while let Some(line) = lines.next() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let mut value = value.to_owned();
            while let Some(more) = lines.next_if(|it| it.starts_with([' ', '\t'])) {
                value.push_str(more);
            }
            let key = key.trim().trim_matches('"');
            if line.starts_with('#') || !key.eq_ignore_ascii_case(name) {
                continue;
            }
            let members: Vec<String> = value
                .split(',')
                .map(|it| it.trim().trim_matches('"'))
                .filter(|it| !it.is_empty() && !it.starts_with(['|', '/', ':', '#', '\\']))
                .map(Into::into)
                .collect();
            return Some(members).filter(|it| !it.is_empty());
        }
        None
    }

    /// The mailbox of a user of this machine.
    pub fn mailbox(&self, name: &str, code: u8) -> Result<Mailbox, Refusal> {
        self.qualified(name)
            .map_err(|error| Refusal::new(code, format!("{name}: {error}")))
    }

    /// Who gets reports: an address, a user of this machine, or nobody.
    pub fn reverse_path(&self, text: &str) -> Result<ReversePath, Refusal> {
        let inside = text.trim();
        let inside = match places(inside.as_bytes()).as_slice() {
            [] => "",
            [place] => &inside[place.clone()],
            _ => {
                return Err(Refusal::new(
                    USAGE,
                    format!("-f {text}: that is not one address"),
                ));
            }
        };
        if inside.is_empty() {
            return Ok(ReversePath::Null);
        }
        let mailbox = match inside.contains('@') {
            true => Mailbox::parse(inside),
            false => self.qualified(inside),
        };
        mailbox
            .map(ReversePath::Mailbox)
            .map_err(|error| Refusal::new(USAGE, format!("-f {text}: {error}")))
    }

    fn qualified(&self, name: &str) -> Result<Mailbox, crate::mail::AddressError> {
        Mailbox::parse(&format!("{name}@{}", self.hostname))
    }
}

#[cfg(test)]
mod tests {
    use super::super::DATA_ERROR;
    use super::*;

    fn recipients(lists: &[&str], aliases: &str) -> Result<Vec<String>, u8> {
        let hostname = Domain::parse("app01.example.nl").unwrap();
        let people = People {
            hostname: &hostname,
            aliases: aliases.into(),
        };
        let lists: Vec<String> = lists.iter().map(|it| (*it).to_owned()).collect();
        people
            .recipients(&lists, DATA_ERROR)
            .map(|found| found.iter().map(ToString::to_string).collect())
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn addresses_stay_and_names_belong_to_this_machine() {
        assert_eq!(
            recipients(&["jan@x.nl, Piet <piet@x.nl>", "root"], "").unwrap(),
            ["jan@x.nl", "piet@x.nl", "root@app01.example.nl"]
        );
        assert_eq!(recipients(&["a b@x.nl"], ""), Err(DATA_ERROR));
        assert_eq!(recipients(&["jan@"], ""), Err(DATA_ERROR));
    }

    #[test]
    fn aliases_of_this_machine_are_followed() {
        let aliases = "# comment: no\nroot: admin, \"ops@x.nl\"\nadmin:\n\tjan@x.nl, |/bin/vacation,\n /dev/null\nme: me\nloop: pool\npool: loop\nempty: /dev/null\n";
        assert_eq!(
            recipients(&["Root"], aliases).unwrap(),
            ["jan@x.nl", "ops@x.nl"]
        );
        assert_eq!(
            recipients(&["me"], aliases).unwrap(),
            ["me@app01.example.nl"]
        );
        assert_eq!(
            recipients(&["loop"], aliases).unwrap(),
            ["loop@app01.example.nl"]
        );
        assert_eq!(
            recipients(&["empty"], aliases).unwrap(),
            ["empty@app01.example.nl"]
        );
        assert_eq!(recipients(&["root@x.nl"], aliases).unwrap(), ["root@x.nl"]);
    }

    #[test]
    fn reports_go_to_an_address_a_user_or_nobody() {
        let hostname = Domain::parse("app01.example.nl").unwrap();
        let people = People {
            hostname: &hostname,
            aliases: String::new(),
        };
        let path = |text: &str| people.reverse_path(text).map(|it| it.to_string());
        assert_eq!(path("jan@x.nl").unwrap(), "jan@x.nl");
        assert_eq!(path("<jan@x.nl>").unwrap(), "jan@x.nl");
        assert_eq!(path("Jan <jan@x.nl>").unwrap(), "jan@x.nl");
        assert_eq!(path("www-data").unwrap(), "www-data@app01.example.nl");
        assert_eq!(path("<>").unwrap(), "");
        assert_eq!(path("").unwrap(), "");
        assert!(path("a@x.nl, b@x.nl").is_err());
        assert!(path("a b@x.nl").is_err());
    }

    #[test]
    fn a_caller_has_a_name_and_perhaps_a_full_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\njan:x:1000:1000:Jan & Co,room 3,:/home/jan:/bin/sh\nshort:x:7\n";
        let jan = Caller::find(users, 1000).unwrap();
        assert_eq!(
            (jan.name.as_str(), jan.full_name.as_str()),
            ("jan", "Jan jan Co")
        );
        assert!(Caller::find(users, 7).is_none());
    }
}
