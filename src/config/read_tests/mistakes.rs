use std::fs;

use super::*;

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refused(
        "hostnam = \"a.example\"\nper-hour = 5\n[relays.own]\nsever = \"a.example\"\nserver = \"a.example\"\n\
         limits = { per_hour = 3 }\n[colours]\nx = 1\n",
        "[[user]]\nadress = \"a@b.example\"\naddress = \"a@b.example\"\nrelay = \"own\"\n",
        &[
            "1 hostnam: is not a known key | the nearest known key is hostname",
            "2 per-hour: is not a known key | per-hour belongs in [relays.NAME.limits]",
            "4 relays.own.sever: is not a known key | the nearest known key is server",
            "6 relays.own.limits.per_hour: is not a known key | the nearest known key is per-hour",
            "7 colours: is not a known key | known here: hostname, default-relay,",
            "2 user.adress: is not a known key | the nearest known key is address",
        ],
    );
}

#[test]
fn all_mistakes_are_told_at_once_with_line_key_and_remedy() {
    refused(
        "admin = 7\n[message]\nmax-size = 50000000\nmax-recipients = \"many\"\n[timeouts]\nidle = \"soon\"\n\
         final-dot = \"2d\"\n[spool]\nmin-free = \"5\"\nlisten = 1\n[retry]\nfirst = \"2h\"\n",
        "",
        &[
            "1 admin: must be text in quotes | write admin = \"7\"",
            "3 message.max-size: 50000000 is not a size like \"80MB\" or \"64KiB\" | write the number",
            "4 message.max-recipients: must be a whole number",
            "6 timeouts.idle: \"soon\" is not a duration like \"5m\"",
            "7 timeouts.final-dot: \"2d\" is out of range | write a duration from \"1ms\" to \"1d\"",
            "9 spool.min-free: \"5\" is not a size",
            "10 spool.listen: is not a known key",
            "12 retry.first: the first delay is longer",
        ],
    );
}

#[test]
fn a_number_that_has_its_unit_is_told_its_range() {
    refused(
        "[spool]\nmin-free = \"200%\"\n",
        "",
        &["2 spool.min-free: \"200%\" is out of range | write a share from \"0%\" to \"90%\""],
    );
    refused(
        "[spool]\nmin-free = \"-5%\"\n",
        "",
        &[
            "2 spool.min-free: \"-5%\" is not a share like \"5%\" | write the number with its \
          unit, in quotes, from \"0%\" to \"90%\"",
        ],
    );
}

#[test]
fn an_asterisk_is_no_whole_domain() {
    let users = "[[user]]\naddress = \"*@a.example\"\nrelay = \"own\"\n";
    let place = Place::default();
    let checked = read_texts("[relays.own]\nserver = \"b\"\n", users, &place, &[]).unwrap();
    let warned = |it: &&Problem| it.line == Some(2) && it.key == "user.address";
    let warning = checked.warnings.iter().find(warned).unwrap();
    assert_eq!(warning.remedy, "write \"@a.example\" for the whole domain");
}

#[test]
fn what_is_not_toml_is_told_without_showing_the_line() {
    let found = Config::parse("[relays.own]\nlogin = \"u verysecret\n", "").unwrap_err();
    assert_eq!(found.problems[0].line, Some(2));
    assert!(!found.to_string().contains("verysecret"), "{found}");
    assert!(found.problems[0].remedy.starts_with("correct it here"));
    let twice = &problems("a = 1\na = 2\n", "")[0];
    assert!(twice.starts_with("2 : this is not TOML: duplicate key"));
    assert!(twice.ends_with("delete one of the two"), "{twice}");
    assert!(
        problems("[listen]\naddress = \"127.0.0.1:1\"\n", "")[0]
            .ends_with("write [[listen]], with two brackets, above the keys of each entry")
    );
    assert!(problems("relays = 5\n", "")[0].starts_with("1 relays: is a table, not a value"));
    assert!(!problems("[hostname]\n", "").is_empty());
    assert!(!problems("[relays]\nown = 5\n", "").is_empty());
}

#[test]
fn a_file_in_another_encoding_is_told_with_the_line() {
    let files = Files::new("", "");
    let path = files.path("penstock.toml");
    fs::write(&path, b"# first\nhostname = \"caf\xe9.example\"\n").unwrap();
    let found = load(&path).unwrap_err().problems;
    assert_eq!(found[0].line, Some(2));
    assert!(found[0].what.contains("not UTF-8"), "{found:?}");
    assert!(found[0].remedy.contains("save the file as UTF-8"));
}

#[test]
fn addresses_that_do_not_meet_may_share_a_port() {
    let allow = "allow-from = [\"10.1.0.0/16\"]";
    let main = format!(
        "[[listen]]\naddress = \"0.0.0.0:25\"\n{allow}\n[[listen]]\naddress = \"[::]:25\"\n{allow}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n"
    );
    assert_eq!(problems(&main, ""), Vec::<String>::new());
}

#[test]
fn no_message_shows_a_secret() {
    for login in [
        "login = \"verysecret\"",
        "login = \" verysecret\"",
        "login = \"user very\\u0007secret\"",
        "password = \"verysecret\"",
        "username = \"u\"\npassword = \"verysecret\"\npassword-file = \"x\"",
        "login = \"user verysecret\"\ntls = \"opportunistic\"",
        "login = [\"verysecret\"]",
        "username = [\"verysecret\"]\npassword = [\"verysecret\"]",
    ] {
        let main = format!("[relays.own]\nserver = \"a.example\"\n{login}\n");
        let error = Config::parse(&main, "").unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("secret\"\n"),
            "{error}"
        );
        assert!(!error.to_string().contains("very"), "{error}");
    }
    let error = Config::parse(
        "",
        "[[user]]\naddress = \"a@b.example\"\npassword-hash = \"verysecret\"\n",
    );
    assert!(!error.unwrap_err().to_string().contains("very"));
    let config = parse(WHOLE, USERS);
    assert!(!format!("{config:?}").contains("secret of"));
}

#[test]
fn surprises_are_warnings() {
    let warnings = |main: &str| -> Vec<String> {
        let files = Files::new(&format!("hostname = \"a.example\"\n{main}"), "");
        let checked = inspect(&files.path("penstock.toml")).unwrap();
        checked
            .warnings
            .iter()
            .map(|it| format!("{}: {} {}", it.key, it.what, it.remedy))
            .collect()
    };
    let found = warnings("[relays.own]\nserver = \"smtp.office365.com:587\"\nlogin = \"u p\"\n");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("limits = { preset = \"microsoft-365\" }"));
    assert!(found[1].contains("December 2026"));
    let found = warnings(
        "[relays.own]\nserver = \"[email-smtp.eu-west-1.amazonaws.com]:587\"\nlimits = { preset = \"amazon-ses\" }\n",
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    let found =
        warnings("[relays.own]\nserver = \"[192.0.2.1]\"\nlogin = \"u p\"\ntls = \"off\"\n");
    assert!(found[0].contains("in clear"), "{found:#?}");
    assert_eq!(
        warnings("[relays.own]\nserver = \"[127.0.0.1]\"\nlogin = \"u p\"\ntls = \"off\"\n").len(),
        0
    );
    assert!(warnings("")[0].contains("every message is refused"));
    let found = warnings("[[listen]]\naddress = \"[::1]:587\"\nauth = \"required\"\n");
    assert!(
        found[0].contains("no user has a password-hash"),
        "{found:#?}"
    );
    let found = warnings(
        "[relays.own]\nserver = \"a.example\"\nusername = \"u\"\npassword-credential = \"own\"\n",
    );
    assert!(found[0].contains("LoadCredential=own:PATH"), "{found:#?}");
}
