//! The JSON that `penstock` prints without asking the daemon, letter for letter: scripts
//! depend on it. What the daemon answers is pinned in `src/control/protocol/tests.rs`.

use std::fs;

use crate::daemon::Home;

const MAIN: &str = "hostname = \"app01.example.nl\"\ndefault-relay = \"own\"\n\
    [relays.own]\nserver = \"[smtp.uwdomein.nl]:587\"\nlimits = { per-hour = 600 }\n";
const USERS: &str = "[[user]]\naddress = \"jan@uwdomein.nl\"\naliases = [\"j@uwdomein.nl\"]\n\
    relay = \"own\"\n[[user]]\naddress = \"@uwdomein.nl\"\n";

/// What these words print with `--json`; the folder of the files is `{dir}`.
#[track_caller]
fn told(home: &Home, words: &[&str]) -> String {
    let output = home.cli(&[&["--json"], words].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let place = home.path("");
    text.replace(place.to_str().unwrap().trim_end_matches('/'), "{dir}")
}

#[track_caller]
fn pinned(home: &Home, words: &[&str], lines: &[&str]) {
    let told = told(home, words);
    // Written over several lines to be read; without the breaks, and the twelve spaces
    // after each, it is what is printed.
    let whole = |it: &&str| it.replace(&format!("\n{:12}", ""), "");
    let expected: Vec<String> = lines.iter().map(whole).collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected, "{words:?}");
}

#[test]
fn the_directory_and_its_changes_are_spelt_like_this() {
    let home = Home::new(MAIN, USERS);
    pinned(
        &home,
        &["user", "list"],
        &[
            r#"{"address":"jan@uwdomein.nl","aliases":["j@uwdomein.nl"],"default_relay":false,
            "login":null,"relay":"own"}"#,
            r#"{"address":"@uwdomein.nl","aliases":[],"default_relay":true,"login":null,
            "relay":"own"}"#,
        ],
    );
    pinned(
        &home,
        &["user", "add", "piet@uwdomein.nl", "--dry-run"],
        &[
            r#"{"difference":[{"file":"{dir}/users.toml","lines":["+ ","+ [[user]]",
            "+ address = \"piet@uwdomein.nl\""]}],"reloaded":false,"warnings":[],
            "written":false}"#,
        ],
    );
    pinned(
        &home,
        &["relay", "set", "own", "--bulk", "true"],
        &[
            r#"{"difference":[{"file":"{dir}/penstock.toml","lines":["+ bulk = true"]}],
            "reloaded":false,"warnings":[],"written":true}"#,
        ],
    );
}

#[test]
fn what_a_postfix_gives_is_spelt_like_this() {
    let home = Home::new(MAIN, USERS);
    fs::create_dir(home.path("postfix")).unwrap();
    fs::write(
        home.path("postfix/main.cf"),
        "relayhost = [smtp.postfix.example]:587\n",
    )
    .unwrap();
    let folder = home.path("postfix").display().to_string();
    pinned(
        &home,
        &["import", "postfix", &folder],
        &[
            r#"{"left":["relay postfix: Postfix did not insist on a verified certificate (none),
             Penstock does; penstock relay test postfix shows whether it fits",
            "default-relay: there is one already; to change it: penstock relay set postfix
             --default"],"understood":["relayhost [smtp.postfix.example]:587: default-relay postfix"]}"#,
            r#"{"difference":[{"file":"{dir}/penstock.toml","lines":["+ ","+ [relays.postfix]",
            "+ server = \"[smtp.postfix.example]:587\""]}],"reloaded":false,"warnings":[],"written":false}"#,
        ],
    );
}

#[test]
fn a_good_and_a_wrong_configuration_are_spelt_like_this() {
    let home = Home::new(MAIN, USERS);
    pinned(
        &home,
        &["config", "check"],
        &[
            r#"{"file":"{dir}/penstock.toml","listeners":1,"ok":true,"problems":[],"relays":1,
            "users":2,"warnings":[]}"#,
        ],
    );
    let shown: serde_json::Value = serde_json::from_str(&told(&home, &["config", "show"])).unwrap();
    let limits = &shown["relays"]["own"]["limits"];
    assert_eq!(
        limits["per-hour"].to_string(),
        r#"{"line":5,"source":"written","value":600}"#
    );
    assert_eq!(
        limits["batch-interval"].to_string(),
        r#"{"date":"2026-11-21","preset":"standard","said_by":"the usual agreement: 1,200 an hour, 500 or 80 MB in 5 minutes","source":"preset","value":"5m"}"#
    );
    assert_eq!(
        shown["user"][1].to_string(),
        r#"{"address":"@uwdomein.nl"}"#
    );

    home.configure(&MAIN.replace("per-hour", "per-huor"), USERS);
    pinned(
        &home,
        &["config", "check"],
        &[
            r#"{"file":"{dir}/penstock.toml","listeners":null,"ok":false,"problems":[{
            "file":"{dir}/penstock.toml","key":"relays.own.limits.per-huor","line":5,
            "remedy":"the nearest known key is per-hour","what":"is not a known key"}],
            "relays":null,"users":null,"warnings":[]}"#,
        ],
    );
}

#[test]
fn an_explanation_is_spelt_like_this() {
    let home = Home::new(MAIN, USERS);
    pinned(
        &home,
        &["explain", "550 5.1.1 user unknown"],
        &[
            r#"{"recipient":null,"server":null,"stage":null,"code":550,"enhanced":"5.1.1",
            "text":"550 5.1.1 user unknown","class":"recipient-unknown",
            "meaning":"the recipient does not exist","action":"fail-recipient",
            "action_text":"this recipient fails and the sender gets a report",
            "remedy":"There is no such recipient: check the address for a typing error,
             and take it off the list if it is out of date.","rule":"recipient-unknown",
            "fallback":false}"#,
        ],
    );
}
