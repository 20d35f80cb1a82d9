//! The protocol, tested without a socket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::guard::Trust;
use super::session::{Checked, Effect, Event, Session, Terms};
use crate::smtp::{Line, Reply};

fn terms() -> Terms {
    Terms {
        hostname: "app01.example.nl".into(),
        trust: Trust::Open,
        can_start_tls: true,
        can_login: true,
        login_in_clear: false,
        max_size_bytes: 1_000_000,
        max_recipients: 3,
        has_room: true,
    }
}

fn session(change: impl FnOnce(&mut Terms)) -> Session {
    let mut terms = terms();
    change(&mut terms);
    Session::new(terms, None)
}

fn line(session: &mut Session, text: &str) -> Effect {
    session.step(Event::Line(Line::Complete(text.as_bytes().to_vec())))
}

/// The code and the first line of what is said; panics where something else happens.
fn say(session: &mut Session, text: &str) -> String {
    match line(session, text) {
        Effect::Reply(reply) => wire(&reply),
        other => panic!("{text}: {other:?}"),
    }
}

fn closes(session: &mut Session, text: &str) -> String {
    match line(session, text) {
        Effect::Close(reply) => wire(&reply),
        other => panic!("{text}: {other:?}"),
    }
}

fn wire(reply: &Reply) -> String {
    String::from_utf8(reply.to_wire()).unwrap()
}

fn greeted(change: impl FnOnce(&mut Terms)) -> Session {
    let mut session = session(change);
    say(&mut session, "EHLO erp.example.nl");
    session
}

#[track_caller]
fn expect(session: &mut Session, dialogue: &[(&str, &str)]) {
    for (command, start) in dialogue {
        let reply = say(session, command);
        assert!(reply.starts_with(start), "{command}: {reply}");
    }
}

#[test]
fn ehlo_offers_what_may_be_used_now() {
    let reply = say(&mut session(|_| {}), "EHLO x");
    assert_eq!(
        reply,
        "250-app01.example.nl\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
         250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250-CHUNKING\r\n250-STARTTLS\r\n\
         250-SIZE 1000000\r\n250 LIMITS MAILMAX=100000 RCPTMAX=3\r\n"
    );
    let mut secure = Session::new(terms(), Some("TLSv1.3".into()));
    let reply = say(&mut secure, "EHLO x");
    assert!(reply.contains("AUTH PLAIN LOGIN") && !reply.contains("STARTTLS"));
    let reply = say(&mut session(|it| it.login_in_clear = true), "EHLO x");
    assert!(reply.contains("AUTH PLAIN LOGIN") && reply.contains("STARTTLS"));
    let reply = say(&mut session(|it| it.can_start_tls = false), "EHLO x");
    assert!(!reply.contains("AUTH") && !reply.contains("STARTTLS"));
    assert_eq!(
        say(&mut session(|_| {}), "HELO"),
        "250 app01.example.nl\r\n"
    );
}

/// Repeats a command until the session has enough; how often it was answered.
fn until_closed(session: &mut Session, text: &str) -> usize {
    for count in 1..1_000_000 {
        let mut effect = line(session, text);
        if let Effect::ReceiveChunk { size, .. } = effect {
            effect = session.step(Event::ChunkTaken(Ok(size)));
        }
        match effect {
            Effect::Close(reply) => {
                assert_eq!(reply.code, 421, "{text}");
                return count;
            }
            Effect::Reply(_) | Effect::SkipChunk { .. } => {}
            other => panic!("{text}: {other:?}"),
        }
    }
    panic!("{text}: for ever");
}

#[test]
fn nothing_can_be_said_for_ever() {
    for text in [
        "NOOP",
        "RSET",
        "EHLO x",
        "HELO x",
        "HELP",
        "VRFY x",
        "MAIL FROM:<a@b.c> SIZE=9999999",
    ] {
        assert_eq!(until_closed(&mut greeted(|_| {}), text), 999, "{text}");
    }
    for text in [
        "",
        "FOO",
        "EXPN x",
        "DATA",
        "RCPT TO:<a@b.c>",
        "AUTH PLAIN",
        "BDAT 1",
        "MAIL FROM:<a@b.c> X=Y",
    ] {
        assert_eq!(until_closed(&mut greeted(|_| {}), text), 20, "{text}");
    }
    let mut full = greeted(|it| it.has_room = false);
    assert_eq!(until_closed(&mut full, "MAIL FROM:<a@b.c>"), 999);
    let with_recipient = || {
        let mut session = greeted(|_| {});
        say(&mut session, "MAIL FROM:<a@b.c>");
        say(&mut session, "RCPT TO:<1@b.c>");
        session
    };
    assert_eq!(until_closed(&mut with_recipient(), "RCPT TO:<1@b.c>"), 999);
    assert_eq!(until_closed(&mut with_recipient(), "RCPT TO:<@b.c>"), 999);
    assert_eq!(until_closed(&mut with_recipient(), "BDAT 0"), 999);
    let mut crowded = with_recipient();
    for number in 2..=3 {
        say(&mut crowded, &format!("RCPT TO:<{number}@b.c>"));
    }
    let mailing = (0..50_000)
        .all(|it| say(&mut crowded, &format!("RCPT TO:<x{it}@b.c>")).starts_with("452 4.5.3"));
    assert!(
        mailing,
        "a client that does not count is told, not sent away"
    );
    assert_eq!(until_closed(&mut crowded, "RCPT TO:<more@b.c>"), 50_000);
}

#[test]
fn without_memory_for_more_recipients_the_rest_is_for_another_transaction() {
    let mut session = greeted(|_| {});
    expect(
        &mut session,
        &[("MAIL FROM:<a@b.c>", "250"), ("RCPT TO:<1@b.c>", "250")],
    );
    assert!(session.transaction().unwrap().octets() > 400);
    session.take_no_more_recipients();
    expect(
        &mut session,
        &[
            ("RCPT TO:<2@b.c>", "452 4.5.3"),
            ("RCPT TO:<1@b.c>", "250"),
            ("RSET", "250"),
            ("MAIL FROM:<a@b.c>", "250"),
            ("RCPT TO:<2@b.c>", "250"),
        ],
    );
}

#[test]
fn a_response_that_is_too_long_ends_its_exchange_and_nothing_else() {
    let mut session = Session::new(terms(), Some("TLSv1.3".into()));
    expect(&mut session, &[("EHLO x", "250"), ("AUTH LOGIN", "334")]);
    match session.step(Event::Line(Line::TooLong)) {
        Effect::Reply(reply) => assert_eq!(wire(&reply), "500 5.5.6 response too long\r\n"),
        other => panic!("{other:?}"),
    }
    expect(
        &mut session,
        &[("NOOP", "250"), ("AUTH PLAIN", "334"), ("*", "501")],
    );
}

#[test]
fn a_message_goes_through_its_stages_in_order() {
    let mut session = session(|_| {});
    expect(
        &mut session,
        &[
            ("MAIL FROM:<a@b.c>", "503 5.5.1 EHLO"),
            ("EHLO x", "250"),
            ("RCPT TO:<a@b.c>", "503 5.5.1 MAIL"),
            ("DATA", "503 5.5.1 MAIL"),
            ("mail from: a@b.c", "250 2.1.0"),
            ("MAIL FROM:<a@b.c>", "503"),
            ("DATA", "503 5.5.1 RCPT"),
            ("RCPT TO:<d@e.f>", "250 2.1.5"),
            ("rcpt to: d@e.f", "250 2.1.5"),
            ("RCPT TO:<postmaster>", "250"),
            ("RCPT TO:<nobody", "501"),
        ],
    );
    assert!(matches!(
        line(&mut session, "DATA"),
        Effect::ReceiveData(reply) if reply.code == 354
    ));
    let transaction = session.transaction().unwrap();
    assert_eq!(
        transaction.recipients.len(),
        2,
        "a recipient named twice counts once"
    );
    let ended = session.step(Event::Ended(Reply::enhanced(250, 0, 0, "x queued")));
    assert!(matches!(ended, Effect::Reply(_)));
    assert!(session.transaction().is_none());
    expect(
        &mut session,
        &[
            ("MAIL FROM:<>", "250"),
            ("RSET", "250"),
            ("DATA", "503"),
            ("MAIL FROM:<>", "250"),
            ("EHLO again", "250"),
            ("DATA", "503"),
        ],
    );
    assert!(closes(&mut session, "QUIT").starts_with("221 2.0.0"));
}

#[test]
fn limits_are_told_at_the_earliest_command() {
    let mut session = greeted(|_| {});
    expect(
        &mut session,
        &[
            ("MAIL FROM:<a@b.c> SIZE=1000001", "552 5.3.4"),
            ("MAIL FROM:<a@b.c> SIZE=1000000", "250"),
            ("RCPT TO:<1@e.f>", "250"),
            ("RCPT TO:<2@e.f>", "250"),
            ("RCPT TO:<3@e.f>", "250"),
            ("RCPT TO:<4@e.f>", "452 4.5.3"),
            ("RCPT TO:<3@e.f>", "250"),
        ],
    );
    expect(
        &mut greeted(|it| it.has_room = false),
        &[("MAIL FROM:<a@b.c>", "452 4.3.1")],
    );
}

#[test]
fn addresses_beyond_ascii_need_smtputf8() {
    let mut session = greeted(|_| {});
    expect(
        &mut session,
        &[
            ("MAIL FROM:<jürgen@b.c>", "553 5.6.7"),
            ("MAIL FROM:<a@b.c>", "250"),
            ("RCPT TO:<jürgen@b.c>", "553 5.6.7"),
            ("RSET", "250"),
            ("MAIL FROM:<jürgen@b.c> SMTPUTF8", "250"),
            ("RCPT TO:<jürgen@b.c>", "250"),
        ],
    );
}

#[test]
fn small_talk_is_answered() {
    expect(
        &mut session(|_| {}),
        &[
            ("NOOP", "250 2.0.0"),
            ("HELP", "214"),
            ("VRFY root", "252"),
            ("EXPN staff", "502 5.5.1"),
            ("XYZZY", "500 5.5.1"),
            ("DATA now", "501 5.5.4"),
            ("MAIL FROM:<a@b.c> FOO=1", "555 5.5.4"),
        ],
    );
}

#[test]
fn nobody_submits_who_may_not() {
    expect(
        &mut greeted(|it| it.trust = Trust::Never),
        &[("MAIL FROM:<a@b.c>", "550 5.7.1")],
    );
    expect(
        &mut greeted(|it| it.trust = Trust::AfterLogin),
        &[(
            "MAIL FROM:<a@b.c>",
            "530 5.7.0 log in first; this needs TLS",
        )],
    );
    let mut secure = Session::new(
        Terms {
            trust: Trust::AfterLogin,
            ..terms()
        },
        Some("TLSv1.3".into()),
    );
    expect(
        &mut secure,
        &[
            ("EHLO x", "250"),
            ("MAIL FROM:<a@b.c>", "530 5.7.0 log in first\r\n"),
        ],
    );
    secure.step(Event::Checked(Checked::Right("jan".into())));
    expect(&mut secure, &[("MAIL FROM:<a@b.c>", "250")]);
}

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

#[track_caller]
fn asks_for(effect: Effect, username: &str, password: &str) {
    match effect {
        Effect::Check(login) => {
            assert_eq!(login.username, username);
            assert_eq!(login.password.expose(), password);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_and_login_are_understood_with_and_without_initial_response() {
    let mut session = greeted(|it| it.login_in_clear = true);
    let response = encode("\0jan\0geheim");
    asks_for(
        line(&mut session, &format!("AUTH PLAIN {response}")),
        "jan",
        "geheim",
    );
    expect(&mut session, &[("auth plain", "334 \r\n")]);
    asks_for(line(&mut session, &response), "jan", "geheim");
    expect(
        &mut session,
        &[
            ("AUTH LOGIN", "334 VXNlcm5hbWU6\r\n"),
            (&encode("jan"), "334 UGFzc3dvcmQ6\r\n"),
        ],
    );
    asks_for(line(&mut session, &encode("geheim")), "jan", "geheim");
    let initial = format!("AUTH LOGIN {}", encode("jan"));
    expect(&mut session, &[(&initial, "334 UGFzc3dvcmQ6\r\n")]);
    asks_for(line(&mut session, &encode("geheim")), "jan", "geheim");

    let right = session.step(Event::Checked(Checked::Right("jan@example.nl".into())));
    assert!(matches!(right, Effect::Reply(reply) if reply.code == 235));
    assert_eq!(session.login(), Some("jan@example.nl"));
    expect(
        &mut session,
        &[
            ("AUTH LOGIN", "503"),
            ("RSET", "250"),
            ("MAIL FROM:<a@b.c>", "250"),
        ],
    );
}

#[test]
fn a_cancelled_login_swallows_no_command() {
    let mut session = greeted(|it| it.login_in_clear = true);
    expect(
        &mut session,
        &[
            ("AUTH LOGIN", "334"),
            ("*", "501 5.7.0"),
            ("NOOP", "250"),
            ("AUTH PLAIN", "334"),
            ("!!!", "501 5.5.2"),
            ("NOOP", "250"),
            ("AUTH CRAM-MD5", "504 5.5.4"),
            ("NOOP", "250"),
        ],
    );
}

#[test]
fn a_login_is_never_taken_where_somebody_could_listen_in() {
    let response = format!("AUTH PLAIN {}", encode("\0jan\0geheim"));
    expect(&mut greeted(|_| {}), &[(&response, "538 5.7.11")]);
    expect(
        &mut greeted(|it| it.can_login = false),
        &[(&response, "502 5.5.1")],
    );
    let mut open = greeted(|it| it.login_in_clear = true);
    expect(
        &mut open,
        &[("MAIL FROM:<a@b.c>", "250"), (&response, "503")],
    );
    expect(
        &mut session(|it| it.login_in_clear = true),
        &[(&response, "503 5.5.1 EHLO")],
    );
}

#[test]
fn guessing_passwords_ends_soon() {
    let mut session = greeted(|it| it.login_in_clear = true);
    let wrong = |session: &mut Session| {
        line(session, &format!("AUTH PLAIN {}", encode("\0jan\0x")));
        session.step(Event::Checked(Checked::Wrong))
    };
    assert!(matches!(wrong(&mut session), Effect::Reply(it) if wire(&it).starts_with("535 5.7.8")));
    assert!(matches!(wrong(&mut session), Effect::Reply(_)));
    assert!(matches!(wrong(&mut session), Effect::Close(it) if it.code == 421));
    let another = |session: &mut Session| session.step(Event::Checked(Checked::ForAnother));
    let mut helped = greeted(|it| it.login_in_clear = true);
    let Effect::Reply(reply) = another(&mut helped) else {
        panic!("the connection goes on");
    };
    assert!(wire(&reply).starts_with("535 5.7.8") && wire(&reply).contains("may not act"));
    assert!(matches!(another(&mut helped), Effect::Reply(_)));
    assert!(matches!(another(&mut helped), Effect::Close(it) if it.code == 421));
    let busy = session.step(Event::Checked(Checked::Busy));
    assert!(matches!(busy, Effect::Reply(it) if it.code == 454));
}

#[test]
fn nothing_said_in_clear_survives_starttls() {
    let mut session = greeted(|it| it.login_in_clear = true);
    session.step(Event::Checked(Checked::Right("jan".into())));
    expect(&mut session, &[("MAIL FROM:<a@b.c>", "250")]);
    assert!(matches!(
        line(&mut session, "STARTTLS"),
        Effect::StartTls(reply) if reply.code == 220
    ));
    session.tls_started("TLSv1.3 X".into());
    assert_eq!(session.login(), None);
    assert!(session.transaction().is_none() && session.greeting().is_none());
    expect(
        &mut session,
        &[("MAIL FROM:<a@b.c>", "503"), ("STARTTLS", "503")],
    );
    expect(
        &mut greeted(|it| it.can_start_tls = false),
        &[("STARTTLS", "502")],
    );
}

#[test]
fn chunks_make_a_message_and_do_not_mix_with_data() {
    let mut session = greeted(|_| {});
    let skipped =
        |effect: Effect, size| matches!(effect, Effect::SkipChunk { size: it, .. } if it == size);
    assert!(skipped(line(&mut session, "BDAT 10"), 10), "before MAIL");
    expect(&mut session, &[("MAIL FROM:<a@b.c>", "250")]);
    assert!(skipped(line(&mut session, "BDAT 10"), 10), "before RCPT");
    expect(&mut session, &[("RCPT TO:<d@e.f>", "250")]);
    assert_eq!(
        line(&mut session, "BDAT 600000"),
        Effect::ReceiveChunk {
            size: 600_000,
            last: false
        }
    );
    assert!(matches!(
        session.step(Event::ChunkTaken(Ok(600_000))),
        Effect::Reply(it) if it.code == 250
    ));
    assert!(session.is_between_chunks());
    expect(
        &mut session,
        &[("DATA", "503"), ("RCPT TO:<g@h.i>", "503"), ("NOOP", "250")],
    );
    assert!(
        matches!(line(&mut session, "BDAT 400001"), Effect::SkipChunk { reply, .. } if reply.code == 552)
    );
    assert!(!session.is_between_chunks());
    assert!(
        matches!(line(&mut session, "BDAT 1"), Effect::SkipChunk { reply, .. } if reply.code == 503),
        "until RSET"
    );
    expect(
        &mut session,
        &[
            ("RSET", "250"),
            ("MAIL FROM:<a@b.c>", "250"),
            ("RCPT TO:<d@e.f>", "250"),
        ],
    );
    assert_eq!(
        line(&mut session, "BDAT 0 LAST"),
        Effect::ReceiveChunk {
            size: 0,
            last: true
        }
    );
    session.step(Event::Ended(Reply::enhanced(250, 0, 0, "x")));
    assert!(closes(&mut session, "BDAT 18446744073709551615").starts_with("503"));
    assert!(closes(&mut greeted(|_| {}), "BDAT 99999999999999999999999 LAST").starts_with("501"));
}

#[test]
fn a_refused_last_chunk_ends_its_transaction() {
    let begin = [("MAIL FROM:<a@b.c>", "250"), ("RCPT TO:<d@e.f>", "250")];
    let refused = |session: &mut Session, command| match line(session, command) {
        Effect::SkipChunk { reply, .. } => reply.code,
        other => panic!("{command}: {other:?}"),
    };
    let mut session = greeted(|_| {});
    expect(&mut session, &begin[..1]);
    assert_eq!(refused(&mut session, "BDAT 10 LAST"), 503, "before RCPT");
    expect(&mut session, &begin);
    assert_eq!(refused(&mut session, "BDAT 1000001 LAST"), 552, "too large");
    expect(&mut session, &begin);
    assert_eq!(refused(&mut session, "BDAT 1000001"), 552);
    expect(&mut session, &[("MAIL FROM:<a@b.c>", "503")]);
    assert_eq!(refused(&mut session, "BDAT 1 LAST"), 503, "broken off");
    expect(&mut session, &begin);
}

#[test]
fn senseless_commands_are_answered_twenty_times() {
    let mut session = greeted(|_| {});
    for _ in 0..19 {
        expect(&mut session, &[("XYZZY", "500")]);
    }
    assert!(closes(&mut session, "XYZZY").starts_with("421 4.7.0"));
    let mut session = greeted(|_| {});
    for _ in 0..900 {
        expect(&mut session, &[("NOOP", "250")]);
    }
    session.step(Event::Ended(Reply::enhanced(250, 0, 0, "x")));
    for _ in 0..900 {
        expect(&mut session, &[("RSET", "250")]);
    }
    assert!((0..200).any(|_| matches!(line(&mut session, "NOOP"), Effect::Close(_))));
}

#[test]
fn bad_addresses_of_a_mailing_do_not_end_the_connection() {
    let mut session = greeted(|_| {});
    expect(&mut session, &[("MAIL FROM:<a@b.c>", "250")]);
    for _ in 0..100 {
        expect(&mut session, &[("RCPT TO:<not an address>", "501")]);
    }
    expect(&mut session, &[("RCPT TO:<d@e.f>", "250")]);
}

#[test]
fn lines_that_are_no_commands_are_told_so() {
    let mut session = greeted(|_| {});
    assert!(
        matches!(session.step(Event::Line(Line::TooLong)), Effect::Reply(it) if it.code == 500)
    );
    assert!(matches!(session.step(Event::Line(Line::BareLf)), Effect::Close(it) if it.code == 500));
    assert!(
        matches!(session.step(Event::Line(Line::Endless)), Effect::Close(it) if it.code == 500)
    );
    assert!(closes(&mut session, "GET / HTTP/1.1").starts_with("421"));
}

proptest! {
    #[test]
    fn no_dialogue_panics_or_grows(lines in prop::collection::vec(
        prop_oneof![
            Just("EHLO x".to_owned()), Just("MAIL FROM:<a@b.c>".to_owned()),
            Just("RCPT TO:<d@e.f>".to_owned()), Just("DATA".to_owned()), Just("RSET".to_owned()),
            Just("BDAT 5".to_owned()), Just("BDAT 5 LAST".to_owned()), Just("STARTTLS".to_owned()),
            Just("AUTH LOGIN".to_owned()), Just("AUTH PLAIN AGphbgBnZWhlaW0=".to_owned()),
            Just("*".to_owned()), "\\PC{0,40}",
        ], 0..60), right in any::<bool>())
    {
        let mut session = session(|it| it.login_in_clear = true);
        for text in lines {
            let mut effect = line(&mut session, &text);
            loop {
                let event = match effect {
                    Effect::Check(_) if right => Event::Checked(Checked::Right("jan".into())),
                    Effect::Check(_) => Event::Checked(Checked::Wrong),
                    Effect::ReceiveData(_) => {
                        prop_assert!(!session.transaction().unwrap().recipients.is_empty());
                        Event::Ended(Reply::enhanced(250, 0, 0, "x"))
                    }
                    Effect::ReceiveChunk { size, last: false } => Event::ChunkTaken(Ok(size)),
                    Effect::ReceiveChunk { last: true, .. } => Event::Ended(Reply::enhanced(550, 6, 0, "x")),
                    Effect::StartTls(_) => { session.tls_started("x".into()); break }
                    Effect::Reply(_) | Effect::SkipChunk { .. } => break,
                    Effect::Close(_) => return Ok(()),
                };
                effect = session.step(event);
            }
            prop_assert!(session.transaction().is_none_or(|it| it.recipients.len() <= 3));
        }
    }
}
