//! Dialogues with servers of every temper, over real sockets.

mod finding;
mod reuse;
mod securing;
mod sending;
mod speed;
mod trouble;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::fake::{Act, Fake, Script};
use super::*;
use crate::clock::Clock;
use crate::config::{
    AuthMethod, Certificates, Credentials, Host, Limits, Preset, Proof, Relay, RelayTls,
    ReversePathRule, Secret, Server, Timeouts,
};
use crate::dns::Zone;
use crate::mail::{
    Body, Domain, Envelope, ForwardPath, Mailbox, Mailing, Notify, Origin, QueueId, Recipient,
    RecipientStatus, Ret, ReversePath, Rule, Stage, State,
};
use crate::oauth::{Keeper, Tokens};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\n.dot\r\nlast line\r\n";
const ALL: &[&str] = &["PIPELINING", "SIZE 1000000", "8BITMIME", "DSN", "SMTPUTF8"];

fn limits() -> Limits {
    Limits {
        connections: 4,
        ..Preset::Unlimited.limits()
    }
}

fn server(fake: &Fake, tls: RelayTls) -> Server {
    Server {
        host: Host::Address(fake.address.ip()),
        port: fake.address.port(),
        tls,
    }
}

fn relay(fake: &Fake) -> Relay {
    Relay {
        name: "up".into(),
        servers: vec![server(fake, RelayTls::Opportunistic)],
        sender: None,
        credentials: None,
        auth: AuthMethod::Auto,
        certificates: Certificates::default(),
        reverse_path: ReversePathRule::Keep,
        bulk: false,
        spf_include: None,
        outbound_ips: Vec::new(),
        verify: false,
        limits: limits(),
    }
}

/// With a login, and the certificate pinned.
fn with_login(fake: &Fake, tls: RelayTls) -> Relay {
    let mut relay = relay(fake);
    relay.servers[0].tls = tls;
    relay.credentials = Some(Credentials {
        username: "jan".into(),
        proof: Proof::Password(Secret::new("s3cr3t-word".into())),
    });
    relay.certificates.fingerprint = Some(fake.fingerprint);
    relay
}

fn timeouts() -> Timeouts {
    Timeouts {
        idle: Duration::from_secs(300),
        connect: Duration::from_secs(30),
        command: Duration::from_secs(300),
        data: Duration::from_secs(180),
        final_dot: Duration::from_secs(600),
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient {
        path: ForwardPath::parse(address).unwrap(),
        notify: Notify::Unspecified,
        orcpt: None,
        status: RecipientStatus::Waiting,
        last: None,
    }
}

fn envelope(recipients: &[&str], content: &[u8]) -> Envelope {
    Envelope {
        id: QueueId::MIN,
        origin: Origin::Submission,
        accepted: Timestamp::UNIX_EPOCH,
        reverse_path: ReversePath::parse("bounce@example.org").unwrap(),
        from: Mailbox::parse("ann@example.org").unwrap(),
        rule: Rule::Default,
        relay: "up".into(),
        mailing: Mailing {
            key: String::new(),
            label: String::new(),
        },
        login: None,
        client: "127.0.0.1".into(),
        message_id: String::new(),
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        size_bytes: content.len() as u64,
        wire_bytes: content.len() as u64 + 3,
        recipients: recipients.iter().map(|it| recipient(it)).collect(),
        state: State::Waiting { not_before: None },
        attempts: 0,
        first_failure: None,
        warned: false,
        past: Vec::new(),
    }
}

fn job(relay: Relay, envelope: Envelope, content: &[u8]) -> Job {
    Job {
        relay: Arc::new(relay),
        timeouts: timeouts(),
        hostname: "client.example".into(),
        recipients: (0..envelope.recipients.len()).collect(),
        envelope: Arc::new(envelope),
        content: Arc::new(content.to_vec()),
        before_dot: Arc::new(|_| Box::pin(async { Ok(()) })),
        start_before: None,
        cancel: CancellationToken::new(),
    }
}

fn simple(fake: &Fake, recipients: &[&str]) -> Job {
    job(relay(fake), envelope(recipients, MESSAGE), MESSAGE)
}

fn pool() -> Pool {
    pool_with(Zone::default())
}

fn pool_with(zone: Zone) -> Pool {
    let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
    pool_at(zone, clock)
}

fn pool_at(zone: Zone, clock: Clock) -> Pool {
    let dns: Arc<dyn crate::dns::Dns> = Arc::new(zone);
    let keeper = Keeper::Memory(Arc::default());
    let tokens = Tokens::new(dns.clone(), clock.clone(), keeper);
    Pool::new(dns, clock, tokens)
}

fn error(delivery: &Delivery, place: usize) -> &RelayError {
    let found = delivery.attempts.iter().find(|it| it.recipient == place);
    found.unwrap().result.as_ref().unwrap_err()
}

fn code(delivery: &Delivery, place: usize) -> u16 {
    let found = delivery.attempts.iter().find(|it| it.recipient == place);
    match &found.unwrap().result {
        Ok(reply) | Err(RelayError::Refused { reply, .. }) => reply.code,
        Err(error) => panic!("{error:?}"),
    }
}
