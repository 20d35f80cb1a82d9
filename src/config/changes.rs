//! What a reload changed, in plain words.

use std::collections::HashMap;

use super::{Config, Fact, Section};

/// What is different in `new`, in plain words, one line a change; secrets by name only.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let (before, after) = (old.sections(), new.sections());
    let (old, new) = (by_title(&before), by_title(&after));
    let mut said = Vec::new();
    for section in &before {
        if !new.contains_key(section.title.as_str()) {
            said.push(format!("{}: removed", section.title));
        }
    }
    for section in &after {
        match old.get(section.title.as_str()) {
            None => said.push(format!("{}: added", section.title)),
            Some(before) => said.extend(section_changes(before, section)),
        }
    }
    said
}

/// Each user has a section: with 100,000 of them, nothing may be looked for one by one.
fn by_title(sections: &[Section]) -> HashMap<&str, &Section> {
    let titled = sections.iter().map(|it| (it.title.as_str(), it));
    titled.collect()
}

fn section_changes(before: &Section, after: &Section) -> Vec<String> {
    let title = match after.title.as_str() {
        "" => String::new(),
        title => format!("{title}: "),
    };
    let find =
        |section: &Section, key: &str| section.facts.iter().find(|it| it.key == key).cloned();
    let mut said = Vec::new();
    for fact in &after.facts {
        let key = &fact.key;
        match find(before, key) {
            None => said.push(format!("{title}{key} is now {}", shown(fact))),
            Some(old) if old.secret != fact.secret => {
                said.push(format!("{title}{key} changed"));
            }
            Some(old) if old.value != fact.value => {
                said.push(format!("{title}{key} {} → {}", shown(&old), shown(fact)));
            }
            Some(_) => {}
        }
    }
    for fact in &before.facts {
        if find(after, &fact.key).is_none() {
            said.push(format!("{title}{} removed, was {}", fact.key, shown(fact)));
        }
    }
    said
}

fn shown(fact: &Fact) -> String {
    match fact.words() {
        words if words.is_empty() => "nothing".to_owned(),
        words => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "hostname = \"a.example\"\ndefault-relay = \"own\"\n\
        [relays.own]\nserver = \"[a.example]:587\"\nlogin = \"u verysecret\"\n\
        [relays.old]\nserver = \"b.example\"\n";
    const USERS: &str = "[[user]]\naddress = \"jan@a.example\"\nrelay = \"own\"\n";

    fn parse(main: &str, users: &str) -> Config {
        Config::parse(main, users).unwrap()
    }

    /// In a shape where each entry looked through all the others this would not end.
    #[test]
    fn a_hundred_thousand_users_are_read_and_compared_in_the_time_of_as_many_lines() {
        let user = |number| format!("[[user]]\naddress = \"user{number}@a.example\"\n");
        let users: String = (0..100_000).map(user).collect();
        let old = parse(MAIN, &users);
        let mut new = old.clone();
        for user in &mut new.users {
            user.relay = Some("old".into());
        }
        let said = changes(&old, &new);
        assert_eq!(said.len(), 100_000);
        assert_eq!(said[99_999], "user user99999@a.example: relay is now old");
    }

    #[test]
    fn a_reload_says_in_plain_words_what_changed() {
        let old = parse(MAIN, USERS);
        assert_eq!(changes(&old, &old), Vec::<String>::new());
        let new = parse(
            "hostname = \"a.example\"\n[spool]\nmin-free = \"1GB\"\n\
             [relays.own]\nserver = \"[a.example]:587\"\nlogin = \"u othersecret\"\n\
             fallback = [\"[c.example]:587\"]\nlimits = { per-hour = 600 }\n\
             [relays.new]\nserver = \"b.example\"\n",
            "[[user]]\naddress = \"jan@a.example\"\nrelay = \"new\"\naliases = [\"j@a.example\"]\n",
        );
        assert_eq!(
            changes(&old, &new),
            [
                "relay old: removed",
                "default-relay removed, was own",
                "spool: min-free 5% → 1GB",
                "relay new: added",
                "relay own: fallback is now [c.example]:587",
                "relay own: password changed",
                "relay own: limits.per-hour 1200 → 600",
                "user jan@a.example: aliases is now j@a.example",
                "user jan@a.example: relay own → new",
            ]
        );
    }
}
