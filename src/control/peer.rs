//! Who is at the other end of the control socket.

use std::fs;

/// The caller, as the kernel vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The user's name; `uid 1000` when the machine's own user file does not know it.
    pub user: String,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The process.
    pub pid: Option<i32>,
}

impl Peer {
    /// This program itself: its own pages ask the same questions.
    pub fn ours() -> Self {
        Self {
            user: "penstockd".into(),
            uid: 0,
            gid: 0,
            pid: None,
        }
    }

    /// The caller with these numbers.
    pub(super) fn new(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        let user = fs::read_to_string("/etc/passwd")
            .ok()
            .and_then(|file| name_of(&file, uid))
            .unwrap_or_else(|| format!("uid {uid}"));
        Self {
            user,
            uid,
            gid,
            pid,
        }
    }
}

/// The number of a local group.
pub(super) fn group(name: &str) -> Option<u32> {
    let file = fs::read_to_string("/etc/group").ok()?;
    number_of(&file, name)
}

/// `name:password:number:...` (passwd(5)).
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// `name:password:number:...` (group(5)).
fn number_of(group: &str, name: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\n\n+::::::\njan:x:1000:1000:Jan,,,:/home/jan:/bin/sh\n";

    #[test]
    fn a_user_is_found_by_number_and_a_group_by_name() {
        assert_eq!(name_of(PASSWD, 1000).as_deref(), Some("jan"));
        assert_eq!(name_of(PASSWD, 1), None);
        let groups = "root:x:0:\npenstock-admin:x:990:jan,piet\nbroken\n";
        assert_eq!(number_of(groups, "penstock-admin"), Some(990));
        assert_eq!(number_of(groups, "penstock"), None);
        assert_eq!(number_of(groups, "broken"), None);
    }

    #[test]
    fn an_unknown_user_is_named_by_number() {
        assert_eq!(Peer::new(3_999_999_999, 0, None).user, "uid 3999999999");
    }
}
