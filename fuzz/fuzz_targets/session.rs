//! Sessions: no dialogue panics, grows without end, or sends mail that it may not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock::accept::guard::Trust;
use penstock::accept::session::{Checked, Effect, Event, Session, Terms};
use penstock::smtp::{Line, Reply};

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let has = |bit: u8| choice & (1 << bit) != 0;
    let terms = Terms {
        hostname: "app01.example.nl".into(),
        trust: if has(0) { Trust::Open } else { Trust::AfterLogin },
        can_start_tls: has(1),
        can_login: has(2),
        login_in_clear: has(3),
        max_size_bytes: 1_000,
        max_recipients: 3,
        has_room: true,
    };
    let trusted = terms.trust == Trust::Open;
    let mut session = Session::new(terms, has(4).then(|| "TLSv1.3".to_owned()));
    for line in input.split(|it| *it == b'\n') {
        let mut effect = session.step(Event::Line(Line::Complete(line.to_vec())));
        loop {
            let event = match effect {
                Effect::Reply(_) | Effect::SkipChunk { .. } => break,
                Effect::Close(_) => return,
                Effect::StartTls(_) => {
                    session.tls_started("TLSv1.3".into());
                    assert!(session.login().is_none() && session.transaction().is_none());
                    break;
                }
                Effect::Check(login) => {
                    assert!(session.tls().is_some() || has(3), "a login in clear");
                    let right = login.password.expose() == "geheim";
                    Event::Checked(if right {
                        Checked::Right(login.username)
                    } else {
                        Checked::Wrong
                    })
                }
                Effect::ReceiveData(_) => Event::Ended(Reply::enhanced(250, 0, 0, "x queued")),
                Effect::ReceiveChunk { size, last: false } => Event::ChunkTaken(Ok(size)),
                Effect::ReceiveChunk { last: true, .. } => {
                    Event::Ended(Reply::enhanced(550, 6, 0, "x"))
                }
            };
            effect = session.step(event);
        }
        if let Some(transaction) = session.transaction() {
            assert!(trusted || session.login().is_some());
            assert!(transaction.recipients.len() <= 3);
        }
    }
});
