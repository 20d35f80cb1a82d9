//! What a change does to a file, line by line, with every secret left out.

use std::ops::Range;

use toml_edit::{Document, Item, Table, Value};

/// The keys whose values nobody may see.
const SECRET_KEYS: [&str; 3] = ["login", "password", "password-hash"];
/// More changed lines than this are compared as a whole: the exact way takes the square.
const COMPARED_MAXIMUM: usize = 2_000;

/// The lines that go (`-`) and come (`+`); between parts an empty entry.
pub fn difference(before: &str, after: &str) -> Vec<String> {
    let old_secrets = secrets(before);
    let before = masked(before, &old_secrets, &[]);
    let after = masked(after, &secrets(after), &old_secrets);
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // The end first: of two entries that begin alike, the one that goes is then shown
    // from its own beginning.
    let same = |(a, b): &(&&str, &&str)| a == b;
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(same)
        .count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let (above, beside) = (&old[..old_end], &new[..new_end]);
    let head = above.iter().zip(beside).take_while(same).count();
    let marked = |mark, lines: &[&str]| lines.iter().map(|it| format!("{mark} {it}")).collect();
    if head == old_end {
        return marked('+', &new[as_entries(&new, head..new_end)]);
    }
    if head == new_end {
        return marked('-', &old[as_entries(&old, head..old_end)]);
    }
    compared(&old[head..old_end], &new[head..new_end])
}

/// The same lines from the beginning of an entry on, if that says the same: an entry that
/// comes behind one that ends alike is not shown with the other one's end.
fn as_entries(lines: &[&str], range: Range<usize>) -> Range<usize> {
    let begins = |at: usize| lines[at].is_empty() || lines[at].starts_with('[');
    let mut moved = range.clone();
    while !moved.is_empty() && !begins(moved.start) {
        if moved.end == lines.len() || lines[moved.start] != lines[moved.end] {
            return range;
        }
        moved = moved.start + 1..moved.end + 1;
    }
    moved
}

/// The longest common lines stay, the others go and come.
fn compared(old: &[&str], new: &[&str]) -> Vec<String> {
    let gone = |it: &&str| format!("- {it}");
    let come = |it: &&str| format!("+ {it}");
    if old.len().max(new.len()) > COMPARED_MAXIMUM {
        return old.iter().map(gone).chain(new.iter().map(come)).collect();
    }
    // common[i][j]: how many lines old[i..] and new[j..] have in common at most.
    let mut common = vec![vec![0_u16; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            if lines.last().is_some_and(|it: &String| !it.is_empty()) {
                lines.push(String::new());
            }
            i += 1;
            j += 1;
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(gone(&old[i]));
            i += 1;
        } else {
            lines.push(come(&new[j]));
            j += 1;
        }
    }
    lines
}

/// Where secrets stand, and what they are.
fn secrets(text: &str) -> Vec<(Range<usize>, String)> {
    let mut found = Vec::new();
    if let Ok(document) = Document::parse(text) {
        collect_table(document.as_table(), &mut found);
    }
    found.sort_by_key(|(span, _)| span.start);
    found
}

fn collect_table(table: &Table, found: &mut Vec<(Range<usize>, String)>) {
    for (key, item) in table {
        match item {
            Item::Table(below) => collect_table(below, found),
            Item::ArrayOfTables(entries) => {
                for entry in entries {
                    collect_table(entry, found);
                }
            }
            Item::Value(value) => collect_value(key, value, found),
            Item::None => {}
        }
    }
}

fn collect_value(key: &str, value: &Value, found: &mut Vec<(Range<usize>, String)>) {
    if SECRET_KEYS.contains(&key) {
        if let Some(span) = value.span() {
            found.push((span, value.to_string()));
        }
    } else if let Value::InlineTable(table) = value {
        for (key, value) in table {
            collect_value(key, value, found);
        }
    }
}

/// The text with `"***"` for each secret; where the old file is known, new ones say so.
fn masked(
    text: &str,
    secrets: &[(Range<usize>, String)],
    known: &[(Range<usize>, String)],
) -> String {
    let mut masked = text.to_owned();
    for (span, secret) in secrets.iter().rev() {
        let is_new = !known.is_empty() && !known.iter().any(|(_, it)| it.trim() == secret.trim());
        let shown = if is_new { "\"*** (new)\"" } else { "\"***\"" };
        masked.replace_range(span.clone(), shown);
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_come_and_go_are_shown() {
        assert_eq!(
            difference(
                "a = 1\nb = 2\nc = 3\nd = 4\n",
                "a = 1\nb = 3\nc = 3\ne = 5\nd = 4\n"
            ),
            ["- b = 2", "+ b = 3", "", "+ e = 5"]
        );
        assert_eq!(difference("a = 1\n", "a = 1\n"), Vec::<String>::new());
        assert_eq!(difference("", "a = 1\n"), ["+ a = 1"]);
        assert_eq!(
            difference("[[u]]\na = 1\n\n[[u]]\na = 2\n", "[[u]]\na = 2\n"),
            ["- [[u]]", "- a = 1", "- "]
        );
    }

    #[test]
    fn an_entry_is_shown_from_its_own_beginning_whatever_stands_before_it() {
        let one = "[[u]]\na = 1\nr = 0\n";
        let both = "[[u]]\na = 1\nr = 0\n\n[[u]]\na = 2\nr = 0\n";
        assert_eq!(
            difference(one, both),
            ["+ ", "+ [[u]]", "+ a = 2", "+ r = 0"]
        );
        assert_eq!(
            difference(both, one),
            ["- ", "- [[u]]", "- a = 2", "- r = 0"]
        );
        assert_eq!(
            difference("a = 1\nb = 2\n", "a = 1\nx = 1\nb = 2\n"),
            ["+ x = 1"]
        );
    }

    #[test]
    fn a_new_password_is_seen_to_be_new_and_not_seen() {
        let before = "[r.a]\nlogin = \"u secretone\"\nx = { password = \"secrettwo\" }\n";
        let after = before.replace("secretone", "secretthree");
        assert_eq!(
            difference(before, &after),
            ["- login = \"***\"", "+ login = \"*** (new)\""]
        );
        let multiline = "[r.a]\npassword = \"\"\"secret\nsecret\"\"\"\nx = 1\n";
        assert_eq!(
            difference(multiline, ""),
            ["- [r.a]", "- password = \"***\"", "- x = 1"]
        );
    }
}
