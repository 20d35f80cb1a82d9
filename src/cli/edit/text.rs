//! Changes to the text of a TOML file that keep its comments and its order.
//!
//! New tables are written at the end and old ones cut out as text, because a TOML tree
//! hangs the comments before a table on that table: removing it would remove words that
//! belong to the file. Values are changed in the tree, where their comments stay.

use std::ops::Range;

use anyhow::anyhow;
use toml_edit::{Document, DocumentMut, Item, Table, TableLike, Value};

/// Writes a new table, and what belongs to it, at the end.
pub fn append(text: &str, block: &str) -> String {
    let text = text.trim_end();
    match text.is_empty() {
        true => format!("{}\n", block.trim()),
        false => format!("{text}\n\n{}\n", block.trim()),
    }
}

/// Cuts out the tables whose path `which` accepts, with the comment right above each;
/// the entries of an array of tables have their place as the last part of the path.
pub fn cut(text: &str, which: impl Fn(&[String]) -> bool) -> anyhow::Result<String> {
    let document = Document::parse(text).map_err(not_toml)?;
    let mut blocks = Vec::new();
    collect(document.as_table(), &mut Vec::new(), &mut blocks);
    blocks.retain(|(path, _)| which(path));
    blocks.sort_by_key(|(_, span)| span.start);
    let mut kept = text.to_owned();
    for (_, span) in blocks.into_iter().rev() {
        let start = comment_start(text, line_start(text, span.start));
        let end = text[span.end..]
            .find('\n')
            .map_or(text.len(), |it| span.end + it + 1);
        kept.replace_range(start..end, "");
        // The empty line that parted it from the next is one too many now.
        if kept[..start].ends_with("\n\n") || start == 0 {
            let empty = kept[start..].len() - kept[start..].trim_start_matches('\n').len();
            kept.replace_range(start..start + empty, "");
        }
    }
    Ok(kept)
}

/// Every table with a header of its own: its path, and its text from the header to the
/// end of its last value.
fn collect(table: &Table, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Range<usize>)>) {
    if let Some(header) = table
        .span()
        .filter(|_| !table.is_implicit() && !path.is_empty())
    {
        found.push((path.clone(), header.start..values_end(table, header.end)));
    }
    for (key, item) in table {
        path.push(key.to_owned());
        match item {
            Item::Table(below) if !below.is_dotted() => collect(below, path, found),
            Item::ArrayOfTables(entries) => {
                for (place, entry) in entries.iter().enumerate() {
                    path.push(place.to_string());
                    collect(entry, path, found);
                    path.pop();
                }
            }
            _ => {}
        }
        path.pop();
    }
}

fn values_end(table: &Table, from: usize) -> usize {
    table.iter().fold(from, |end, (_, item)| match item {
        Item::Value(value) => end.max(value.span().map_or(0, |it| it.end)),
        Item::Table(dotted) if dotted.is_dotted() => values_end(dotted, end),
        _ => end,
    })
}

fn line_start(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |it| it + 1)
}

/// Where the comment begins that stands right above a line.
fn comment_start(text: &str, mut start: usize) -> usize {
    while start > 0 {
        let above = line_start(text, start - 1);
        if !text[above..start].starts_with('#') {
            break;
        }
        start = above;
    }
    start
}

/// Changes the tree.
pub fn change(
    text: &str,
    change: impl FnOnce(&mut DocumentMut) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse().map_err(not_toml)?;
    change(&mut document)?;
    Ok(document.to_string())
}

/// Writes a key at the top of the file, where it stands already or where the sample has
/// it commented out.
pub fn put_top(text: &str, key: &str, value: &str) -> anyhow::Result<String> {
    let commented = format!("#{key} = ");
    let before_tables = text.lines().take_while(|it| !it.starts_with('['));
    let mut offset = 0;
    let mut ready = text.to_owned();
    let document: DocumentMut = text.parse().map_err(not_toml)?;
    if !document.contains_key(key) {
        for line in before_tables {
            if line.starts_with(&commented) {
                ready.replace_range(offset..=offset, "");
                break;
            }
            offset += line.len() + 1;
        }
    }
    change(&ready, |document| {
        put(document.as_table_mut(), key, value.into());
        Ok(())
    })
}

/// Not the error as it prints itself: it shows the line, and a password may stand there.
fn not_toml(error: toml_edit::TomlError) -> anyhow::Error {
    anyhow!("this is not TOML: {}", error.message().replace('\n', ", "))
}

/// Writes a value; the comment behind the old one stays.
pub fn put(table: &mut dyn TableLike, key: &str, value: Value) {
    match table.get_mut(key) {
        Some(Item::Value(old)) => {
            let decor = old.decor().clone();
            *old = value;
            *old.decor_mut() = decor;
        }
        _ => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// The table at a path.
pub fn table_at<'a>(
    document: &'a mut DocumentMut,
    path: &[&str],
) -> anyhow::Result<&'a mut dyn TableLike> {
    let mut item = document.as_item_mut();
    for key in path {
        item = item
            .as_table_like_mut()
            .and_then(|it| it.get_mut(key))
            .ok_or_else(|| anyhow!("there is no [{}]", path.join(".")))?;
    }
    item.as_table_like_mut()
        .ok_or_else(|| anyhow!("{} is not a table", path.join(".")))
}

/// A key as it stands in a path: in quotes where it needs them.
pub fn key(name: &str) -> String {
    toml_edit::Key::new(name).display_repr().into_owned()
}

/// `key = value` lines.
pub fn lines(pairs: &[(String, Value)]) -> String {
    pairs
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# the file\n\ndefault = \"a\" # behind\n\n# about a\n[relays.a] # x\n\
        server = \"a\"\n# inside\nlogin = \"\"\"\n[relays.no]\n\"\"\" # y\n\n# about the limits\n\
        [relays.a.limits]\nper-hour = 1\n\n# for everybody\n\n# about b\n[relays.b]\nserver = \"b\"\n\
        [[user]]\naddress = \"a\"\n[[user]]\naddress = \"b\"\n# end\n";

    #[test]
    fn a_table_is_cut_out_with_its_own_comment_only() {
        let relay = |name: &'static str| {
            move |path: &[String]| path.len() > 1 && path[0] == "relays" && path[1] == name
        };
        assert_eq!(
            cut(TEXT, relay("a")).unwrap(),
            "# the file\n\ndefault = \"a\" # behind\n\n# for everybody\n\n# about b\n[relays.b]\n\
             server = \"b\"\n[[user]]\naddress = \"a\"\n[[user]]\naddress = \"b\"\n# end\n"
        );
        let second = |path: &[String]| path == ["user", "1"];
        assert!(
            cut(TEXT, second)
                .unwrap()
                .ends_with("[[user]]\naddress = \"a\"\n# end\n")
        );
        assert_eq!(cut(TEXT, |_| false).unwrap(), TEXT);
        assert_eq!(cut("[a]\nx = 1\n", |_| true).unwrap(), "");
        assert_eq!(cut("[a]\nx.y = 1\nx.z = 2", |_| true).unwrap(), "");
    }

    #[test]
    fn values_are_changed_where_they_stand() {
        let text = change(TEXT, |document| {
            let table = table_at(document, &["relays", "a"])?;
            put(table, "login", "new".into());
            put(table, "tls", "off".into());
            Ok(())
        })
        .unwrap();
        assert!(
            text.contains("# inside\nlogin = \"new\" # y\ntls = \"off\"\n\n# about the limits"),
            "{text}"
        );
        assert!(change(TEXT, |it| table_at(it, &["relays", "c"]).map(|_| ())).is_err());
    }

    #[test]
    fn a_top_key_stands_where_the_sample_has_it() {
        assert_eq!(
            put_top("# words\n#hostname = \"x\"\n#admin = \"y\"\n", "admin", "z").unwrap(),
            "# words\n#hostname = \"x\"\nadmin = \"z\"\n"
        );
        assert!(
            put_top(TEXT, "default", "b")
                .unwrap()
                .contains("\ndefault = \"b\" # behind\n")
        );
        assert!(
            put_top(TEXT, "admin", "b")
                .unwrap()
                .contains("# behind\nadmin = \"b\"\n\n# about a")
        );
        // Below a table it would be a key of that table.
        let below = put_top("[a]\nx = 1\n#admin = \"y\"\n", "admin", "z").unwrap();
        assert!(below.starts_with("admin = \"z\"\n"), "{below}");
    }

    #[test]
    fn what_is_appended_is_parted_by_an_empty_line() {
        assert_eq!(append("", "[a]\n"), "[a]\n");
        assert_eq!(append("# x\n\n\n", "[a]"), "# x\n\n[a]\n");
    }
}
