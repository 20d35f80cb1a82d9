//! `penstock check` as a program: what it prints of a message, and how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use tempfile::TempDir;

const LETTER: &str = "From: jan@a.test\r\nTo: bob@example.net\r\nSubject: bill\r\n\
    MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n\
    --x\r\nContent-Type: text/html\r\n\r\n<img src=logo.png><p>Best wishes</p>\r\n\
    --x\r\nContent-Type: application/pdf; name=\"bill.pdf\"\r\n\
    Content-Disposition: attachment; filename=\"bill.pdf.exe\"\r\n\r\nMZ\r\n--x--\r\n";

/// A configuration that asks no DNS, and a letter.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    for (name, text) in [
        (
            "penstock.toml",
            "hostname = \"penstock.test\"\ndefault-relay = \"own\"\n[hints]\ndns = false\n\
             [relays.own]\nserver = \"[smtp.relay.test]:587\"\n",
        ),
        ("users.toml", ""),
        ("letter.eml", LETTER),
        (
            "plain.eml",
            "From: jan@a.test\r\nSubject: x\r\n\r\nhello\r\n",
        ),
    ] {
        fs::write(home.path().join(name), text).unwrap();
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(home.path().join(name), mode).unwrap();
    }
    home
}

fn check(home: &TempDir, words: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .arg("check")
        .args(words)
        .current_dir(home.path())
        .env("PENSTOCK_CONFIG", home.path().join("penstock.toml"))
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_letter_is_judged_for_people_and_for_programs() {
    let home = home();
    let (code, shown, _) = check(&home, &["letter.eml"]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.lines().all(|it| it.chars().count() <= 80), "{shown}");
    for words in [
        "DNS was not asked",
        "serious  dangerous-attachment  letter.eml\n",
        "  seen  bill.pdf.exe is a program that looks like a document\n",
        "  seen  1 picture, 2 words\n",
        "3 findings: 1 serious, 1 warning, 1 notice\n",
    ] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    let (code, lines, _) = check(&home, &["letter.eml", "--json"]);
    assert_eq!(code, 1);
    let first = lines.lines().next().unwrap();
    let (before, _time) = first.split_once("\"last_seen\":").unwrap();
    assert_eq!(
        before,
        r#"{"hint":"dangerous-attachment","severity":"serious","subject":"letter.eml","relay":null,"found":"the message carries an attachment that receivers refuse unseen","evidence":["bill.pdf.exe is a program that looks like a document"],"remedy":"Send a link to it, or a PDF.","record":null,"action":"log","messages":0,"#
    );
    assert_eq!(lines.lines().count(), 3);
}

#[test]
fn what_is_in_good_order_ends_with_0_and_what_is_not_understood_with_64() {
    let home = home();
    let (code, shown, _) = check(&home, &["plain.eml"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("nothing was found"), "{shown}");
    fs::write(home.path().join("bare.eml"), "Subject: x\r\n\r\nhello\r\n").unwrap();
    let (_, shown, _) = check(&home, &["bare.eml"]);
    assert!(
        shown.contains("checked: the content of bare.eml; it has no From"),
        "{shown}"
    );
    let (code, _, said) = check(&home, &["no-such.eml"]);
    assert_eq!(code, 64);
    assert!(
        said.contains("neither an address") && said.contains("nor a file"),
        "{said}"
    );
    let (code, _, said) = check(&home, &["jan@a.test", "--relay", "nobody"]);
    assert_eq!(code, 1);
    assert!(said.contains("no relay is called nobody"), "{said}");
    // Nor is everything checked, and found good, by a relay that is misspelt.
    let (code, _, said) = check(&home, &["--relay", "nobody"]);
    assert_eq!(code, 1);
    assert!(said.contains("no relay is called nobody"), "{said}");
    let (code, _, _) = check(&home, &["jan@a.test", "--dns", "nonsense"]);
    assert_eq!(code, 64);
}
