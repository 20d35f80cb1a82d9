//! One transaction: MAIL, RCPT, DATA or BDAT (RFC 5321 section 3.3, 2920, 3030).

use std::time::Duration;

use tokio::time::Instant;

use super::connect::{Connection, refused};
use super::content::send;
use super::notes::Notes;
use super::plan::{Named, Plan, plan};
use super::wire::unasked;
use super::{Delivery, Job, RelayError};
use crate::clock::Clock;
use crate::mail::{Body, Stage};
use crate::smtp::Reply;

/// Commands in one group. Their replies must fit the buffers of both sides, or each
/// would wait for the other (RFC 2920 section 3.1).
const GROUP_MAXIMUM: usize = 100;
/// How a transaction left its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Ready for the next MAIL (perhaps after RSET).
    Usable,
    /// Of no use any more.
    Broken,
}

/// The transaction never started: the server had closed the connection, or closed it
/// instead of answering MAIL. On a fresh one it can be told from the beginning.
#[derive(Debug)]
pub(super) struct Stale;

/// Sends the message of a job over a connection.
pub(super) async fn transact(
    connection: &mut Connection,
    job: &Job,
    clock: &Clock,
    started: Instant,
) -> Result<(Delivery, After), Stale> {
    let mut notes = Notes::new(job, clock, started, &connection.server);
    let plan = match prepared(job, connection).await {
        Ok(plan) => plan,
        Err(error) => {
            notes.fail(&job.recipients, &connection.said_here(error));
            return Ok((notes.delivery, After::Usable));
        }
    };
    for (recipient, error) in &plan.refused {
        notes.fail(&[*recipient], &connection.said_here(error.clone()));
    }
    if plan.recipients.is_empty() {
        return Ok((notes.delivery, After::Usable));
    }
    notes.delivery.dsn_passed_on = plan.dsn;
    let after = converse(connection, &plan, &mut notes).await?;
    Ok((notes.delivery, after))
}

/// The plan; a content that is only said to have 8-bit octets is looked at before a
/// server without 8BITMIME loses it for good.
async fn prepared(job: &Job, connection: &Connection) -> Result<Plan, RelayError> {
    let declared = job.envelope.body == Body::EightBitMime;
    let eight_bit = declared && (connection.offered.eight_bit_mime || has_eight_bit(job).await?);
    plan(job, &connection.offered, eight_bit)
}

async fn has_eight_bit(job: &Job) -> Result<bool, RelayError> {
    let ours = |detail| RelayError::Ours { detail };
    let mut blocks = job.content.open().await.map_err(ours)?;
    while let Some(block) = blocks.next().await.map_err(ours)? {
        if !block.is_ascii() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// MAIL and RCPT, and what their replies allow.
async fn converse(
    connection: &mut Connection,
    plan: &Plan,
    notes: &mut Notes<'_>,
) -> Result<After, Stale> {
    let limit = notes.job.timeouts.command;
    let reused = connection.is_reused;
    let stale = connection.wire.is_stale().await;
    if reused && stale {
        return Err(Stale);
    }
    if connection.wire.has_unread() {
        notes.fail(&places(&plan.recipients), &unasked(Stage::Mail));
        return Ok(After::Broken);
    }
    if notes.job.is_too_late(notes.clock) {
        notes.fail(&places(&plan.recipients), &RelayError::Cancelled);
        return Ok(After::Usable);
    }
    let reset = std::mem::take(&mut connection.needs_reset);
    connection.transactions += 1;
    // Until the end is reached, the next transaction would find leftovers of this one.
    connection.needs_reset = true;
    let named = plan.recipients.iter().filter_map(|it| it.domain.clone());
    connection.domains.extend(named);

    let pipelining = connection.offered.pipelining;
    let data_along = pipelining && !plan.chunking && plan.recipients.len() < GROUP_MAXIMUM;
    let mut group = Vec::with_capacity(256);
    if reset {
        push_line(&mut group, "RSET");
        if !pipelining {
            match ask(connection, &mut group, limit, Stage::Mail).await {
                Ok(reply) if reply.is_positive() => {}
                Ok(_) | Err(_) => return Err(Stale),
            }
        }
    }
    push_line(&mut group, &plan.mail);
    if pipelining {
        for named in plan.recipients.iter().take(GROUP_MAXIMUM) {
            push_line(&mut group, &named.line);
        }
        if data_along {
            push_line(&mut group, "DATA");
        }
    }
    let mail = async {
        connection.wire.group(Stage::Mail, &group, limit).await?;
        if reset && pipelining {
            let reply = connection.wire.reply(Stage::Mail, limit).await?;
            if !reply.is_positive() {
                return Err(refused(Stage::Mail, reply));
            }
        }
        connection.wire.reply(Stage::Mail, limit).await
    };
    let mail = match mail.await {
        Ok(reply) if reply.is_positive() => None,
        // A server that waited too long for this message says 421; one that lost its place
        // in the session says 503, which is nothing about the message.
        Ok(reply) if reused && matches!(reply.code, 421 | 503) => return Err(Stale),
        Ok(reply) => Some(refused(Stage::Mail, reply)),
        // Or it is gone, or in disorder: nothing was accepted yet, so nothing is lost.
        Err(_) if reused => return Err(Stale),
        Err(error) => Some(error),
    };
    let Some(error) = mail else {
        return Ok(recipients(connection, plan, notes, data_along).await);
    };
    notes.fail(&places(&plan.recipients), &error);
    if usable_after(&error) == After::Broken {
        return Ok(After::Broken);
    }
    if pipelining {
        // The replies to what went along with MAIL say nothing new.
        for _ in plan.recipients.iter().take(GROUP_MAXIMUM) {
            let reply = connection.wire.reply(Stage::Recipient, limit).await;
            if !reply.is_ok_and(|it| it.code != 421) {
                return Ok(After::Broken);
            }
        }
    }
    Ok(call_off(connection, data_along, limit).await)
}

fn places(recipients: &[Named]) -> Vec<usize> {
    recipients.iter().map(|it| it.recipient).collect()
}

/// The replies to RCPT, and to the DATA that went along.
async fn recipients(
    connection: &mut Connection,
    plan: &Plan,
    notes: &mut Notes<'_>,
    data_along: bool,
) -> After {
    let limit = notes.job.timeouts.command;
    let pipelining = connection.offered.pipelining;
    let mut accepted: Vec<usize> = Vec::new();
    let mut last_words: Option<Reply> = None;
    for (place, group) in plan.recipients.chunks(GROUP_MAXIMUM).enumerate() {
        // The first group went out together with MAIL.
        if pipelining && place > 0 {
            let lines = group.iter().fold(Vec::new(), |mut lines, named| {
                push_line(&mut lines, &named.line);
                lines
            });
            if let Err(error) = connection.wire.group(Stage::Recipient, &lines, limit).await {
                let rest = places(&plan.recipients[place * GROUP_MAXIMUM..]);
                notes.fail(&[&accepted[..], &rest].concat(), &error);
                return After::Broken;
            }
        }
        for (within, named) in group.iter().enumerate() {
            let reply = if pipelining {
                connection.wire.reply(Stage::Recipient, limit).await
            } else {
                let mut line = Vec::new();
                push_line(&mut line, &named.line);
                ask(connection, &mut line, limit, Stage::Recipient).await
            };
            let error = match reply {
                Ok(reply) if reply.is_positive() => {
                    accepted.push(named.recipient);
                    continue;
                }
                Ok(reply) => {
                    if reply.code == 421 {
                        last_words = Some(reply.clone());
                    }
                    refused(Stage::Recipient, reply)
                }
                Err(error) => error,
            };
            if let RelayError::Refused { .. } = error {
                notes.fail(&[named.recipient], &error);
                continue;
            }
            // The connection is lost, and with it those that were accepted. If the server
            // said why, that is the reason of all.
            let error = match last_words {
                Some(reply) => refused(Stage::Recipient, reply),
                None => error,
            };
            let rest = places(&plan.recipients[place * GROUP_MAXIMUM + within..]);
            notes.fail(&[&accepted[..], &rest].concat(), &error);
            return After::Broken;
        }
    }
    if accepted.is_empty() {
        return call_off(connection, data_along, limit).await;
    }
    content(connection, plan, notes, &accepted, data_along).await
}

/// Nobody is left to send to. If DATA went along and was taken all the same, a lone dot
/// ends it (RFC 2920 section 3.1).
async fn call_off(connection: &mut Connection, data_along: bool, limit: Duration) -> After {
    if !data_along {
        return After::Usable;
    }
    match connection.wire.reply(Stage::Data, limit).await {
        Ok(reply) if reply.code == 354 => {
            let dot = connection.wire.group(Stage::Data, b".\r\n", limit).await;
            if dot.is_ok() && connection.wire.reply(Stage::Data, limit).await.is_ok() {
                After::Usable
            } else {
                After::Broken
            }
        }
        Ok(reply) if reply.code != 421 && (reply.is_permanent() || reply.is_transient()) => {
            After::Usable
        }
        Ok(_) | Err(_) => After::Broken,
    }
}

/// The content, its end, and the reply to that.
async fn content(
    connection: &mut Connection,
    plan: &Plan,
    notes: &mut Notes<'_>,
    accepted: &[usize],
    data_along: bool,
) -> After {
    if !plan.chunking {
        let limit = notes.job.timeouts.command;
        let reply = if data_along {
            connection.wire.reply(Stage::Data, limit).await
        } else {
            let mut line = b"DATA\r\n".to_vec();
            ask(connection, &mut line, limit, Stage::Data).await
        };
        let error = match reply {
            Ok(reply) if reply.code == 354 && connection.wire.has_unread() => {
                Some(RelayError::Garbage {
                    stage: Stage::Data,
                    said: format!("more than was asked for, after {reply}"),
                })
            }
            Ok(reply) if reply.code == 354 => None,
            Ok(reply) => Some(refused(Stage::Data, reply)),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            notes.fail(accepted, &error);
            return usable_after(&error);
        }
    }
    match send(connection, plan.chunking, notes, accepted).await {
        Ok(reply) => {
            notes.delivery.final_reply_at = Some(notes.clock.now());
            let error = (!reply.is_positive()).then(|| refused(Stage::FinalDot, reply.clone()));
            if let Some(error) = error {
                if let Some(error) = chunking_refused(plan, &error) {
                    notes.fail(accepted, &error);
                    return After::Broken;
                }
                notes.delivery.in_doubt = matches!(error, RelayError::Garbage { .. });
                notes.fail(accepted, &error);
                // The transaction is over all the same (RFC 5321 section 4.1.1.4).
                connection.needs_reset = plan.chunking;
                return usable_after(&error);
            }
            for recipient in accepted {
                notes.settle(*recipient, Stage::FinalDot, Ok(reply.clone()));
            }
            connection.needs_reset = false;
            if connection.wire.has_unread() {
                return After::Broken;
            }
            After::Usable
        }
        Err(error) => {
            let error = chunking_refused(plan, &error).unwrap_or(error);
            notes.delivery.in_doubt = error.stage() == Stage::FinalDot
                && !matches!(error, RelayError::Chunking { .. })
                && !matches!(error, RelayError::Refused { .. } | RelayError::Ours { .. });
            notes.fail(accepted, &error);
            After::Broken
        }
    }
}

/// A server that offers CHUNKING and does not know the command, as some scanners in between
/// that pass on offers they do not understand: DATA will do. What was sent behind BDAT is
/// read as commands there, so the connection is of no use any more.
fn chunking_refused(plan: &Plan, error: &RelayError) -> Option<RelayError> {
    let RelayError::Refused { stage, reply } = error else {
        return None;
    };
    let unknown = matches!(reply.code, 500..=504)
        || reply.is_permanent()
            && (reply.enhanced).is_some_and(|it| (it.subject, it.detail) == (5, 1));
    (plan.chunking && *stage >= Stage::Data && unknown).then(|| RelayError::Chunking {
        said: reply.to_string(),
    })
}

fn usable_after(error: &RelayError) -> After {
    match error {
        RelayError::Refused { reply, .. } if reply.code != 421 => After::Usable,
        _ => After::Broken,
    }
}

/// One command and its reply.
async fn ask(
    connection: &mut Connection,
    line: &mut Vec<u8>,
    limit: Duration,
    stage: Stage,
) -> Result<Reply, RelayError> {
    if connection.wire.has_unread() {
        return Err(unasked(stage));
    }
    connection.wire.group(stage, line, limit).await?;
    line.clear();
    connection.wire.reply(stage, limit).await
}

pub(super) fn push_line(group: &mut Vec<u8>, line: &str) {
    group.extend_from_slice(line.as_bytes());
    group.extend_from_slice(b"\r\n");
}
