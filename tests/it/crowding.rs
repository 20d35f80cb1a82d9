//! Clients that idle, drip, crowd in or vanish, a reload, and stopping.

use std::sync::Arc;
use std::time::Duration;

use penstock::accept::{CrowdLimits, Live};
use penstock::config::Config;
use penstock::route::Directory;

use crate::client::{Client, message, stuff};
use crate::intake::{Intake, Wanted, live, plain};
use crate::machine;

#[tokio::test]
async fn a_reload_acts_on_the_next_transaction_and_closes_what_is_gone() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let mail = message("x@example.com", "a@b.c", "x", "x");
    client
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(550);
    let users = format!(
        "{}[[user]]\naddress = \"x@example.com\"\nrelay = \"own\"\n",
        intake.users
    );
    intake.live.send_replace(live("", "", &users, None));
    client
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(250);
    let mut gone = Config::clone(&intake.live.borrow().config);
    gone.listen.clear();
    intake.live.send_replace(Arc::new(Live {
        directory: Arc::new(Directory::new(&gone)),
        config: Arc::new(gone),
        tls: None,
    }));
    client.command("NOOP").await.expect_code(421);
    let mut late = Client::dial(intake.address).await.unwrap();
    late.reply().await.expect_code(421);
}

#[tokio::test]
async fn stopping_sends_idle_clients_away_and_lets_a_message_finish() {
    let mut intake = Intake::start(plain()).await;
    let mut idle = intake.client().await;
    let mut busy = intake.client().await;
    for command in ["MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>"] {
        busy.command(command).await.expect_code(250);
    }
    busy.command("DATA").await.expect_code(354);
    let mut chunked = intake.client().await;
    for command in ["MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>"] {
        chunked.command(command).await.expect_code(250);
    }
    chunked.send(b"BDAT 20\r\nFrom: x@example.nl\r\n").await;
    chunked.reply().await.expect_code(250);
    intake.stop.send_replace(true);
    assert!(idle.reply().await.expect_code(421).text().contains("4.3.2"));
    assert_eq!(idle.end().await, "");
    busy.send(b"From: x@example.nl\r\n\r\nx\r\n.\r\n").await;
    busy.reply().await.expect_code(250);
    busy.reply().await.expect_code(421);
    chunked.send(b"BDAT 5 LAST\r\n\r\nx\r\n").await;
    chunked.reply().await.expect_code(250);
    chunked.reply().await.expect_code(421);
    drop((busy, chunked));
    (&mut intake.served).await.unwrap().unwrap();
    assert!(Client::dial(intake.address).await.is_err());
    assert_eq!(intake.envelopes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn silence_and_drips_end_at_their_time() {
    let intake = Intake::start(plain()).await;
    let start = tokio::time::Instant::now();
    let mut silent = intake.client().await;
    assert!(
        silent
            .reply()
            .await
            .expect_code(421)
            .text()
            .contains("4.4.2")
    );
    assert_eq!(start.elapsed().as_secs(), 300);

    // A command that drips has no more time than one that does not come.
    let mut drips = intake.client().await;
    let start = tokio::time::Instant::now();
    while drips.try_send(b"N").await.is_ok() && start.elapsed().as_secs() < 1000 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(start.elapsed().as_secs() <= 320, "{:?}", start.elapsed());

    // Content that drips ends, too, though it is never silent.
    let mut drips = intake.client().await;
    for command in ["MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>", "DATA"] {
        drips.command(command).await;
    }
    let start = tokio::time::Instant::now();
    while drips.try_send(b"x").await.is_ok() && start.elapsed().as_secs() < 1000 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(start.elapsed().as_secs() <= 320, "{:?}", start.elapsed());

    // Neither does small talk keep a connection for ever.
    let mut talker = intake.client().await;
    let start = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        if talker.try_send(b"NOOP\r\n").await.is_err() || talker.try_reply().await.is_err() {
            break;
        }
        assert!(start.elapsed().as_secs() < 4000);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(intake.shared.connections(), 0);
}

#[tokio::test]
async fn a_thousand_idle_clients_keep_nobody_out() {
    machine::need_descriptors(4_000);
    let intake = Intake::start(Wanted {
        limits: CrowdLimits {
            total: 400,
            per_friend: 300,
            per_stranger: 10,
        },
        ..plain()
    })
    .await;
    let mut idle = Vec::new();
    for number in 0..1_000 {
        let mut client = Client::dial(intake.address).await.unwrap();
        if number % 3 == 0 {
            client.send(b"EHL").await;
        }
        idle.push(client);
    }
    let mail = message("x@example.nl", "a@b.c", "x", "x");
    let mut client = intake.client().await;
    client
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(250);
    assert!(intake.shared.connections() <= 300);
    let mut first = idle.swap_remove(0);
    first.reply().await.expect_code(220);
    assert!(
        first
            .reply()
            .await
            .expect_code(421)
            .text()
            .contains("4.3.2")
    );
}

#[tokio::test]
async fn a_client_that_vanishes_before_its_250_has_its_message_accepted() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    client
        .send(
            b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\nx\r\n.\r\n",
        )
        .await;
    drop(client);
    let mut half = intake.client().await;
    half.send(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\nx\r\n.")
        .await;
    drop(half);
    let pause = Duration::from_millis(1);
    machine::until("nobody is connected", pause, async || {
        intake.shared.connections() == 0
    })
    .await;
    assert_eq!(
        intake.envelopes().len(),
        1,
        "the whole one, not the half one"
    );
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "a measurement, alone in its process"]
async fn measure_what_an_idle_client_costs() {
    let intake = Intake::start(Wanted {
        listener: "tls = \"starttls\"",
        ..plain()
    })
    .await;
    for secure in [false, true] {
        let mut idle = Vec::new();
        let mut before = 0;
        for number in 0..700 {
            if number == 100 {
                before = resident_kib();
            }
            let mut client = intake.client().await;
            if secure {
                client.start_tls(intake.authority.client()).await;
            }
            client.command("NOOP").await;
            idle.push(client);
        }
        let each = (resident_kib() - before) as f64 / 600.0;
        println!("secure {secure}: {each:.1} KiB for both ends of an idle connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_accepts_a_second() {
    let intake = Intake::start(plain()).await;
    let text = "0123456789abcdef\r\n".repeat(568);
    let mail = stuff(&message("x@example.nl", "a@b.c", "x", &text));
    let mut request = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n".to_vec();
    request.extend(&mail);
    let request = Arc::new(request);
    let mut tasks = tokio::task::JoinSet::new();
    let start = tokio::time::Instant::now();
    for _ in 0..64 {
        let (address, request) = (intake.address, request.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..200 {
                client.send(&request).await;
                for code in [250, 250, 354, 250] {
                    client.reply().await.expect_code(code);
                }
            }
        });
    }
    tasks.join_all().await;
    let rate = 12_800.0 / start.elapsed().as_secs_f64();
    println!("{rate:.0} messages of {} octets a second", mail.len());
}
