//! Command lines as clients write them, and as nobody should.

use super::*;
use proptest::prelude::*;

fn parse(line: &str) -> Result<Command, CommandError> {
    Command::parse(line.as_bytes())
}

fn mail_from(line: &str) -> MailCommand {
    match parse(line) {
        Ok(Command::Mail(command)) => command,
        other => panic!("{line}: {other:?}"),
    }
}

fn rcpt_to(line: &str) -> RecipientCommand {
    match parse(line) {
        Ok(Command::Recipient(command)) => command,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn commands_are_read_in_any_case_with_any_spaces() {
    assert_eq!(
        parse("ehlo  a.example "),
        Ok(Command::Ehlo("a.example".into()))
    );
    assert_eq!(parse("HELO"), Ok(Command::Helo(String::new())));
    assert_eq!(
        Command::parse(b"HELO M\xdcLLER-PC"),
        Ok(Command::Helo("M\u{fffd}LLER-PC".into()))
    );
    assert_eq!(parse("Data "), Ok(Command::Data));
    assert_eq!(parse(" rset\t"), Ok(Command::Rset));
    assert_eq!(parse("NOOP what ever"), Ok(Command::Noop));
    assert_eq!(parse("quit"), Ok(Command::Quit));
    assert_eq!(parse("help mail"), Ok(Command::Help));
    assert_eq!(parse("StartTLS"), Ok(Command::StartTls));
    assert_eq!(parse("vrfy jan"), Ok(Command::Verify("jan".into())));
    assert_eq!(parse("EXPN staff"), Ok(Command::Expand("staff".into())));
    assert_eq!(
        parse("BDAT 12"),
        Ok(Command::Bdat {
            size: 12,
            last: false
        })
    );
    assert_eq!(
        parse("bdat 0 last"),
        Ok(Command::Bdat {
            size: 0,
            last: true
        })
    );
    assert_eq!(
        parse("auth plain AGEAYg=="),
        Ok(Command::Auth {
            mechanism: "PLAIN".into(),
            initial: Some(Masked("AGEAYg==".into()))
        })
    );
    assert_eq!(
        parse("AUTH LOGIN ="),
        Ok(Command::Auth {
            mechanism: "LOGIN".into(),
            initial: Some(Masked(String::new()))
        })
    );
}

#[test]
fn sloppy_addresses_are_read_as_meant() {
    for line in [
        "MAIL FROM:<jan@example.nl>",
        "mail from: <jan@example.nl>",
        "MAIL FROM:jan@example.nl",
        "MAIL FROM : jan@example.nl ",
        "MAIL  FROM:\t< jan@example.nl >",
        "MAIL FROM:<@a.example,@[IPv6:::1]:jan@example.nl>",
    ] {
        assert_eq!(
            mail_from(line).reverse_path.to_string(),
            "jan@example.nl",
            "{line}"
        );
    }
    assert_eq!(
        mail_from("MAIL FROM: <> SIZE=1").reverse_path,
        ReversePath::Null
    );
    assert_eq!(mail_from("MAIL FROM:jan@example.nl SIZE=5").size, Some(5));
    assert_eq!(
        rcpt_to("RCPT TO:<Postmaster>").forward_path,
        ForwardPath::Postmaster
    );
    assert_eq!(
        rcpt_to("rcpt to: postmaster").forward_path,
        ForwardPath::Postmaster
    );
    assert_eq!(
        rcpt_to("RCPT TO:<jan@[192.0.2.1]>")
            .forward_path
            .to_string(),
        "jan@[192.0.2.1]"
    );
}

#[test]
fn quotes_hide_brackets_and_spaces() {
    for (line, local) in [
        (r#"RCPT TO:<"a>b"@example.nl> NOTIFY=NEVER"#, "a>b"),
        (
            r#"RCPT TO:<"a> NOTIFY=NEVER"@example.nl> NOTIFY=NEVER"#,
            "a> NOTIFY=NEVER",
        ),
        (
            r#"RCPT TO:<"jan \" > jansen"@example.nl> NOTIFY=NEVER"#,
            r#"jan " > jansen"#,
        ),
        (
            r#"RCPT TO:"jan jansen"@example.nl NOTIFY=NEVER"#,
            "jan jansen",
        ),
    ] {
        let command = rcpt_to(line);
        assert_eq!(
            command.forward_path.mailbox().unwrap().local(),
            local,
            "{line}"
        );
        assert_eq!(command.notify, Notify::Never, "{line}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for line in [
        "MAIL",
        "MAIL FROM",
        "MAIL FROM:",
        "MAIL FROM: ",
        "MAIL TO:<a@b>",
        "MAIL FROM<a@b>",
        "MAIL FROM:<a@b",
        "MAIL FROM:a@b>",
        "MAIL FROM:<a@b>SIZE=1",
        "MAIL FROM:<a@b> <c@d>",
        "MAIL FROM:Jan <jan@example.nl>",
        "MAIL FROM:<a@b>>",
        "MAIL FROM:<<a@b>>",
        "MAIL FROM:<a@b> =1",
        "MAIL FROM:<a@b> SIZE=",
        "DATA now",
        "QUIT now",
        "STARTTLS x",
        "AUTH",
        "AUTH PLAIN a b",
        r#"MAIL FROM:<"a@b>"#,
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.reply().code, 501, "{line}: {error}");
    }
    assert!(matches!(
        parse("MAIL FROM:<jan>"),
        Err(CommandError::ReversePath(_))
    ));
    assert_eq!(
        parse("RCPT TO:<>").unwrap_err().reply().to_string(),
        "501 5.1.3 bad recipient address: an address needs an @, like jan@example.nl"
    );
}

#[test]
fn parameters_are_read_and_printed() {
    let command = mail_from(
        "MAIL FROM:<a@b.example> SIZE=1000 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B1 AUTH=<>",
    );
    assert_eq!(command.envid.as_deref(), Some("QQ+1"));
    assert_eq!(
        command.to_string(),
        "MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1"
    );
    let command =
        rcpt_to("RCPT TO:<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;Bob+2Bx@b.example");
    assert_eq!(command.orcpt.as_deref(), Some("rfc822;Bob+x@b.example"));
    assert_eq!(
        command.to_string(),
        "RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@b.example"
    );
    let command = rcpt_to(r"RCPT TO:<a@b.example> ORCPT=utf-8;j\x{FC}rgen@b.example");
    assert_eq!(command.orcpt.as_deref(), Some("utf-8;jürgen@b.example"));
    assert!(
        command
            .to_string()
            .ends_with(r"ORCPT=utf-8;j\x{FC}rgen@b.example")
    );
}

#[test]
fn wrong_parameters_are_refused() {
    for (parameters, code) in [
        ("SIZE=x", 501),
        ("SIZE=-1", 501),
        ("SIZE", 501),
        ("SIZE=1 size=2", 501),
        ("BODY=BINARYMIME", 501),
        ("SMTPUTF8=yes", 501),
        ("RET=SOME", 501),
        ("ENVID=a=b", 501),
        ("ENVID=+0A", 501),
        ("SIZE=123456789012345678901", 501),
        ("BY=120;R", 555),
        ("XVERP", 555),
        ("NOTIFY=NEVER", 555),
    ] {
        let line = format!("MAIL FROM:<a@b.example> {parameters}");
        assert_eq!(parse(&line).unwrap_err().reply().code, code, "{parameters}");
    }
    for (parameters, code) in [
        ("NOTIFY=NEVER,DELAY", 501),
        ("NOTIFY=", 501),
        ("NOTIFY=SUCCESS,", 501),
        ("NOTIFY=NEVER NOTIFY=NEVER", 501),
        ("ORCPT=rfc822", 501),
        ("ORCPT=;a", 501),
        ("ORCPT=rfc822;", 501),
        ("ORCPT=rfc822;a+0D+0Ab", 501),
        ("ORCPT=rf c;a", 501),
        ("SIZE=1", 555),
        ("FOO=1", 555),
    ] {
        let line = format!("RCPT TO:<a@b.example> {parameters}");
        assert_eq!(parse(&line).unwrap_err().reply().code, code, "{parameters}");
    }
    assert_eq!(
        mail_from("MAIL FROM:<> SIZE=99999999999999999999").size,
        Some(u64::MAX)
    );
}

#[test]
fn chunk_sizes_never_wrap_and_bad_ones_end_the_connection() {
    for line in [
        "BDAT",
        "BDAT x",
        "BDAT -1",
        "BDAT 1 FIRST",
        "BDAT 1 LAST x",
        "BDAT 99999999999999999999999",
        "BDAT 18446744073709551616",
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.must_close(), "{line}");
    }
    assert_eq!(
        parse("BDAT 18446744073709551615"),
        Ok(Command::Bdat {
            size: u64::MAX,
            last: false
        })
    );
}

#[test]
fn what_is_no_command_gets_the_right_reply() {
    for (line, code) in [
        (&b""[..], 500),
        (b"   ", 500),
        (b"FOO", 500),
        (b"MAIL\0", 500),
        (b"NOOP\r", 500),
        (b"VRFY \xff", 500),
        (b"GET / HTTP/1.1", 421),
        ("MAIL FROM:<jürgen@b.example>".as_bytes(), 553),
    ] {
        assert_eq!(
            Command::parse(line).unwrap_err().reply().code,
            code,
            "{line:?}"
        );
    }
    assert!(mail_from("MAIL FROM:<jürgen@b.example> SMTPUTF8").smtputf8);
}

#[test]
fn a_password_is_never_shown() {
    let command = parse("AUTH PLAIN c2VjcmV0").unwrap();
    assert!(!format!("{command:?}").contains("c2Vj"), "{command:?}");
}

fn mailbox() -> impl Strategy<Value = Mailbox> {
    prop_oneof!["[a-z][a-z0-9.+=-]{0,8}", "[ -~]{1,12}"].prop_filter_map("a mailbox", |local| {
        Mailbox::new(&local, "b.example".parse_domain()).ok()
    })
}

trait ParseDomain {
    fn parse_domain(&self) -> crate::mail::Domain;
}

impl ParseDomain for str {
    fn parse_domain(&self) -> crate::mail::Domain {
        crate::mail::Domain::parse(self).unwrap()
    }
}

proptest! {
    #[test]
    fn mail_reads_back_as_printed(
        sender in proptest::option::of(mailbox()),
        size in proptest::option::of(any::<u64>()),
        body in proptest::sample::select(vec![None, Some(Body::SevenBit), Some(Body::EightBitMime)]),
        smtputf8: bool,
        ret in proptest::sample::select(vec![None, Some(Ret::Full), Some(Ret::Headers)]),
        envid in proptest::option::of("[ -~]{1,30}"),
    ) {
        let reverse_path = sender.map_or(ReversePath::Null, ReversePath::Mailbox);
        let command = MailCommand { reverse_path, size, body, smtputf8, ret, envid };
        prop_assert_eq!(parse(&command.to_string()), Ok(Command::Mail(command)));
    }

    #[test]
    fn rcpt_reads_back_as_printed(
        recipient in mailbox(),
        notify in prop_oneof![
            Just(Notify::Unspecified), Just(Notify::Never),
            any::<[bool; 3]>().prop_filter_map("one at least", |[success, failure, delay]|
                (success || failure || delay).then_some(Notify::On { success, failure, delay })),
        ],
        orcpt in proptest::option::of(prop_oneof!["rfc822;[ -~]{1,30}", "utf-8;[a-zäöü€😀]{1,9}@b"]),
    ) {
        let command = RecipientCommand { forward_path: ForwardPath::Mailbox(recipient), notify, orcpt };
        prop_assert_eq!(parse(&command.to_string()), Ok(Command::Recipient(command)));
    }

    #[test]
    fn parsing_never_panics(line in proptest::collection::vec(any::<u8>(), 0..80), text in "(MAIL FROM:|RCPT TO:|BDAT |AUTH )[<>@\"\\\\a-c=:; \\[\\]ü]{0,30}") {
        let _ = Command::parse(&line);
        let _ = parse(&text);
    }
}
