//! The content of a message and its end: DATA or BDAT (RFC 5321 section 4.1.1.4, 3030).

use super::connect::{Connection, refused};
use super::dialogue::push_line;
use super::notes::Notes;
use super::wire::WriteError;
use super::{Blocks, RelayError};
use crate::mail::Stage;
use crate::smtp::{DataEncoder, Reply};

/// Content is gathered up to here before it is written.
const GATHER_BYTES: usize = 64 * 1024;

/// Sends the content in as few writes as its size allows, the last of them together
/// with its end, and reads the reply.
pub(super) async fn send(
    connection: &mut Connection,
    chunking: bool,
    notes: &mut Notes<'_>,
    accepted: &[usize],
) -> Result<Reply, RelayError> {
    let job = notes.job;
    let limit = job.timeouts.data;
    let ours = |detail| RelayError::Ours { detail };
    let mut blocks: Box<dyn Blocks> = job.content.open().await.map_err(ours)?;
    let mut encoder = DataEncoder::new();
    let size_bytes = job.content.size_bytes();
    let mut read_bytes: u64 = 0;
    let mut out = Vec::with_capacity(GATHER_BYTES.min(size_bytes as usize + 128));
    if chunking {
        push_line(&mut out, &format!("BDAT {size_bytes} LAST"));
    }
    while let Some(block) = blocks.next().await.map_err(ours)? {
        // Before more is gathered, never after: something is left to go with the end.
        if out.len() >= GATHER_BYTES {
            notes.delivery.content_sent = true;
            if let Err(failed) = connection.wire.write(Stage::Content, &out, limit).await {
                return Err(early_words(connection, failed.error));
            }
            out.clear();
        }
        read_bytes += block.len() as u64;
        // One octet more or less than announced would be read as a command.
        if read_bytes > size_bytes {
            break;
        }
        if chunking {
            out.extend_from_slice(&block);
        } else {
            encoder.feed(&block, &mut out);
        }
    }
    if read_bytes != size_bytes {
        return Err(ours(
            "the content is not as long as it should be".to_owned(),
        ));
    }
    if connection.wire.is_stale().await {
        let closed = RelayError::Closed {
            stage: Stage::Content,
            detail: "the server spoke or closed before the end of the content".to_owned(),
        };
        return Err(early_words(connection, closed));
    }
    (job.before_dot)(accepted.to_vec()).await.map_err(ours)?;
    if !chunking {
        out.extend_from_slice(encoder.finish());
    }
    notes.delivery.content_sent = true;
    connection
        .wire
        .note(&format!("content, {read_bytes} octets, and its end"));
    if let Err(WriteError { written, error }) =
        connection.wire.write(Stage::FinalDot, &out, limit).await
    {
        // The end itself was not handed over: then the server cannot have seen it.
        if written < out.len() {
            return Err(early_words(connection, at_content(error)));
        }
        return Err(error);
    }
    connection
        .wire
        .reply(Stage::FinalDot, job.timeouts.final_dot)
        .await
}

/// A server that refuses in the middle of the content says so and closes: its words are
/// the better reason.
fn early_words(connection: &mut Connection, error: RelayError) -> RelayError {
    match connection.wire.take_reply(Stage::Content) {
        Some(Ok(reply)) => refused(Stage::Content, reply),
        Some(Err(garbage)) => garbage,
        None => error,
    }
}

fn at_content(error: RelayError) -> RelayError {
    let stage = Stage::Content;
    match error {
        RelayError::Closed { detail, .. } => RelayError::Closed { stage, detail },
        RelayError::Silent { after, .. } => RelayError::Silent { stage, after },
        other => other,
    }
}
