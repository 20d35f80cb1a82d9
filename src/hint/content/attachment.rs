//! Attachments that receivers refuse without looking: programs, scripts, disk images, by
//! name, by type, and by name inside an archive.

use mail_parser::{MessagePart, MimeHeaders, PartType};

use crate::mail::text::printable;

/// Endings of names that run when they are opened, or that mount; the usual lists of
/// Gmail, Outlook and Exchange have all of them.
const ENDINGS: [&str; 62] = [
    "ade", "adp", "apk", "app", "appx", "bat", "cab", "chm", "cmd", "com", "cpl", "dll", "dmg",
    "exe", "gadget", "hlp", "hta", "img", "inf", "ins", "iso", "isp", "jar", "js", "jse", "lib",
    "lnk", "mde", "msc", "msh", "msi", "msix", "msp", "mst", "nsh", "ocx", "one", "pif", "ps1",
    "ps1xml", "ps2", "psc1", "reg", "scf", "scr", "sct", "shb", "shs", "sys", "url", "vb", "vbe",
    "vbs", "vhd", "vhdx", "vxd", "wsc", "wsf", "wsh", "xbap", "xll", "xnk",
];
/// Office documents with macros: refused by some, suspected by all.
const MACROS: [&str; 9] = [
    "docm", "dotm", "xlsm", "xltm", "xlam", "xlsb", "pptm", "potm", "ppsm",
];
/// Types that say the same whatever the name is.
const TYPES: [&str; 13] = [
    "application/x-msdownload",
    "application/x-msdos-program",
    "application/x-dosexec",
    "application/x-executable",
    "application/x-ms-shortcut",
    "application/x-bat",
    "application/hta",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "application/java-archive",
    "application/x-msi",
    "application/vnd.microsoft.portable-executable",
];
/// Names inside an archive that are looked at.
const ENTRIES_MAXIMUM: usize = 200;

/// Why a part would be refused; nothing for harmless ones.
pub fn danger(part: &MessagePart<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    let disposition = part.content_disposition();
    let kind = part.content_type();
    let names = [
        disposition.and_then(|it| it.attribute("filename")),
        kind.and_then(|it| it.attribute("name")),
    ];
    for name in names.into_iter().flatten() {
        if let Some(why) = name_danger(name) {
            let reason = format!("{} {why}", shown(name));
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    if let Some(kind) = kind {
        let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default());
        if TYPES.iter().any(|it| it.eq_ignore_ascii_case(&kind)) {
            reasons.push(format!("{} is a type of programs", shown(&kind)));
        }
    }
    if let PartType::Binary(octets) | PartType::InlineBinary(octets) = &part.body {
        if octets.starts_with(b"MZ")
            && octets.get(2).is_some_and(|it| *it < 0xf0)
            && reasons.is_empty()
        {
            reasons.push("a Windows program by its first octets, whatever its name".to_owned());
        }
        for entry in zip_entries(octets) {
            if let Some(why) = name_danger(&entry) {
                reasons.push(format!("{} inside an archive {why}", shown(&entry)));
            }
        }
    }
    reasons
}

fn shown(name: &str) -> String {
    printable(name.as_bytes(), 60)
}

/// What is wrong with a file's name.
fn name_danger(name: &str) -> Option<&'static str> {
    // Windows drops dots and spaces at the end.
    let bare = name.trim_end_matches(['.', ' ', '\t', '\0']);
    let (stem, ending) = bare.rsplit_once('.')?;
    let ending: String = ending.chars().filter(|it| !it.is_control()).collect();
    let ending = ending.trim().to_ascii_lowercase();
    let listed = |list: &[&str]| list.contains(&ending.as_str());
    if name
        .chars()
        .any(|it| matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    {
        return Some("hides its ending behind the direction of its letters");
    }
    if listed(&ENDINGS) {
        let disguised = stem
            .rsplit_once('.')
            .is_some_and(|(_, it)| (2..=4).contains(&it.len()));
        return Some(match disguised {
            true => "is a program that looks like a document",
            false => "is of a kind that runs when it is opened",
        });
    }
    listed(&MACROS).then_some("is a document with macros")
}

/// The names in the local headers of a ZIP file (APPNOTE 4.3.7); none if it is none.
fn zip_entries(octets: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    if !octets.starts_with(b"PK\x03\x04") {
        return names;
    }
    let mut at = 0;
    while names.len() < ENTRIES_MAXIMUM {
        // From header to header by the sizes they say; without them, by searching.
        let Some(header) = octets
            .get(at..at + 30)
            .filter(|it| it.starts_with(b"PK\x03\x04"))
        else {
            break;
        };
        let short = |place: usize| u16::from_le_bytes([header[place], header[place + 1]]);
        let (name, extra) = (usize::from(short(26)), usize::from(short(28)));
        let size = u32::from_le_bytes([header[18], header[19], header[20], header[21]]);
        let begin = at + 30;
        let Some(octets_of_name) = octets.get(begin..begin + name) else {
            break;
        };
        names.push(String::from_utf8_lossy(octets_of_name).into_owned());
        let data = begin + name + extra;
        let sized = short(6) & 8 == 0;
        at = match sized {
            true => data.saturating_add(size as usize),
            false => match next_header(octets, data) {
                Some(next) => next,
                None => break,
            },
        };
    }
    names
}

fn next_header(octets: &[u8], from: usize) -> Option<usize> {
    let rest = octets.get(from..)?;
    let found = rest.windows(4).position(|it| it == b"PK\x03\x04")?;
    Some(from + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_judged_by_what_a_receiver_would_open() {
        for name in [
            "setup.exe",
            "invoice.pdf.EXE",
            "a.scr. .",
            "photo\u{202e}gpj.scr",
            "exe.\u{202e}fdp",
            "a.js\0",
            "report.docm",
        ] {
            assert!(name_danger(name).is_some(), "{name:?}");
        }
        for name in [
            "invoice.pdf",
            "exe",
            "a.exe.pdf",
            "js.txt",
            "x.tar.gz",
            ".bashrc",
            "",
        ] {
            assert_eq!(name_danger(name), None, "{name:?}");
        }
    }

    fn zip(names: &[&str], sized: bool) -> Vec<u8> {
        let mut octets = Vec::new();
        for name in names {
            let mut header = [0_u8; 30];
            header[..4].copy_from_slice(b"PK\x03\x04");
            header[6] = if sized { 0 } else { 8 };
            header[18] = if sized { 5 } else { 0 };
            header[26] = name.len() as u8;
            octets.extend(header);
            octets.extend(name.bytes());
            octets.extend(b"abcde");
        }
        octets
    }

    #[test]
    fn names_inside_an_archive_are_seen() {
        for sized in [true, false] {
            let octets = zip(&["a.txt", "dir/b.exe"], sized);
            assert_eq!(zip_entries(&octets), ["a.txt", "dir/b.exe"]);
        }
        assert!(zip_entries(b"PK\x03\x04").is_empty());
        assert!(zip_entries(b"no archive").is_empty());
        let mut endless = zip(&["a"], true);
        endless[18..22].copy_from_slice(&[0xff; 4]);
        assert_eq!(zip_entries(&endless), ["a"]);
    }
}
