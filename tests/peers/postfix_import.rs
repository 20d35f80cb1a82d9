//! A Postfix that its own tools made, taken over: what `postmap` answers for a sender is
//! where `penstock route` sends it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::Home;
use crate::programs;

/// A program of the unpacked package, for the configuration in `folder`.
fn postfix(program: &str, folder: &Path, words: &[&str]) -> String {
    let root = programs::postfix();
    let output = Command::new(root.join("usr/sbin").join(program))
        .arg("-c")
        .arg(folder)
        .args(words)
        .env("LD_LIBRARY_PATH", root.join("usr/lib/postfix"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // `postmap -q` ends with 1 for a key that is not there.
    assert!(said.is_empty(), "{program} {words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs postfix unpacked; .ci/run does it"]
fn an_imported_postfix_routes_as_its_own_tables_say() {
    let home = Home::new("", "");
    let folder = home.path("postfix");
    fs::create_dir(&folder).unwrap();
    let place = folder.display().to_string();
    // As the tools want it where the package is not installed: two users, a group.
    let main = "compatibility_level = 3.6\nmail_owner = mail\nsetgid_group = games\n";
    fs::write(folder.join("main.cf"), main).unwrap();
    fs::write(folder.join("master.cf"), "").unwrap();
    let (relays, passwords) = (
        format!("hash:{place}/relays"),
        format!("hash:{place}/passwords"),
    );
    for setting in [
        "relayhost = [mail.example.org]:587",
        "smtp_sasl_auth_enable = yes",
        "smtp_sender_dependent_authentication = yes",
        "sender_dependent_relayhost_maps = hash:${config_directory}/relays",
        "smtp_sasl_password_maps = hash:$config_directory/passwords",
        "smtp_tls_security_level = encrypt",
    ] {
        postfix("postconf", &folder, &["-e", setting]);
    }
    let table = "# made by hand\nklaas@example.nl   [smtp.gmail.com]:587\n\
                 @example.com\t[other.example]:465\npiet@example.com\n  [third.example]:587\n";
    fs::write(folder.join("relays"), table).unwrap();
    let logins = "klaas@example.nl klaas:geheim\n[mail.example.org]:587 account:geheim2\n";
    fs::write(folder.join("passwords"), logins).unwrap();
    for map in [&relays, &passwords] {
        postfix("postmap", &folder, &[map]);
    }
    assert!(folder.join("relays.db").exists());

    let imported = home.cli(&["import", "postfix", &place, "--write"]);
    assert!(imported.status.success(), "{imported:?}");
    let shown = home.cli(&["config", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    for sender in [
        "klaas@example.nl",
        "anybody@example.com",
        "piet@example.com",
        "nobody@elsewhere.example",
    ] {
        let domain = sender.find('@').map(|at| &sender[at..]).unwrap();
        // Postfix asks for the address, then for its domain; then relayhost counts.
        let answer = [sender, domain]
            .iter()
            .map(|key| postfix("postmap", &folder, &["-q", key, &relays]))
            .find(|it| !it.is_empty())
            .unwrap_or_else(|| postfix("postconf", &folder, &["-h", "relayhost"]));
        let route = home.cli(&["route", sender, "--json"]);
        let route: serde_json::Value = serde_json::from_slice(&route.stdout).unwrap();
        let relay = route["relay"].as_str().unwrap();
        let server = &shown["relays"][relay]["server"];
        assert_eq!(server.as_str(), Some(answer.trim()), "{sender}: {route}");
    }
}
