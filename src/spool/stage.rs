//! Making records of what the caller hands over.

use std::sync::Arc;

use crate::mail::Envelope;

use super::content::{Content, ContentAtRest, LargeFile};
use super::engine::{Engine, Urgency, Write};
use super::error::SpoolError;
use super::frame::Frame;
use super::index::RECORD_MESSAGES;
use super::record::{ContentAt, Item, Kind, Messages, Record};

/// Contents behind one record.
const RECORD_BYTES: u64 = 16 << 20;

/// A message with its content where it will be.
struct Staged {
    envelope: Envelope,
    content: Option<ContentAtRest>,
}

impl Engine {
    /// A write that accepts messages.
    pub async fn accepting(
        self: &Arc<Self>,
        messages: Vec<(Envelope, Content)>,
    ) -> Result<Write, SpoolError> {
        let mut frames = Vec::new();
        let mut files = Vec::new();
        let mut record = Vec::new();
        let mut bytes = 0;
        for (envelope, content) in messages {
            let staged = self.stage(envelope, content).await?;
            let behind = staged
                .content
                .as_ref()
                .map_or(0, ContentAtRest::inline_bytes);
            if record.len() >= RECORD_MESSAGES || bytes + behind > RECORD_BYTES {
                let full = std::mem::take(&mut record);
                frames.push(self.frame(Kind::Accepted, "", None, full, &mut files)?);
                bytes = 0;
            }
            bytes += behind;
            record.push(staged);
        }
        if !record.is_empty() {
            frames.push(self.frame(Kind::Accepted, "", None, record, &mut files)?);
        }
        Ok(Write::of(Urgency::NewMail, frames, files))
    }

    /// One record of a message's present state and the reports that this causes.
    pub async fn presenting(
        self: &Arc<Self>,
        kind: Kind,
        by: &str,
        released: Option<(u64, super::change::Released)>,
        envelope: Envelope,
        reports: Vec<(Envelope, Content)>,
    ) -> Result<((Frame, Record), Vec<LargeFile>), SpoolError> {
        let mut record = vec![Staged {
            envelope,
            content: None,
        }];
        for (envelope, content) in reports {
            record.push(self.stage(envelope, content).await?);
        }
        let mut files = Vec::new();
        let frame = self.frame(kind, by, released, record, &mut files)?;
        Ok((frame, files))
    }

    /// Puts a content where it will be: a large one into a file, synced with its name.
    async fn stage(&self, envelope: Envelope, content: Content) -> Result<Staged, SpoolError> {
        let rest = match content.at_rest(self.options.large_bytes) {
            Ok(rest) => rest,
            Err(content) => {
                let store = self.store.clone();
                let synced = self
                    .runtime
                    .spawn_blocking(move || content.into_file(store));
                synced.await.map_err(|_| SpoolError::Closed)??
            }
        };
        Ok(Staged {
            envelope,
            content: Some(rest),
        })
    }

    fn frame(
        &self,
        kind: Kind,
        by: &str,
        released: Option<(u64, super::change::Released)>,
        staged: Vec<Staged>,
        files: &mut Vec<LargeFile>,
    ) -> Result<(Frame, Record), SpoolError> {
        let mut items = Vec::with_capacity(staged.len());
        let mut behind = Vec::new();
        let mut offset = 0u32;
        for Staged { envelope, content } in staged {
            let at = content.map(|content| {
                let at = ContentAt {
                    file: content.file_name(),
                    offset,
                    length: content.length(),
                    checksum: content.checksum(),
                };
                offset += content.inline_bytes() as u32;
                behind.push(content);
                at
            });
            items.push(Item {
                envelope,
                content: at,
            });
        }
        let record = Record::Messages(Messages {
            kind,
            at: self.clock.now(),
            by: by.to_owned(),
            released,
            items,
        });
        let octets: Vec<&[u8]> = behind.iter().map(ContentAtRest::inline).collect();
        let frame = Frame::new(&record, &octets);
        // What cannot be read back would be lost at the next rebuild: better to say so
        // now, while the client still has the message.
        if let (false, Record::Messages(messages)) = (frame.reads_back(), &record) {
            let id = messages.items.first().map(|it| it.envelope.id);
            return Err(SpoolError::Unwritable {
                id: id.unwrap_or(crate::mail::QueueId::MIN),
            });
        }
        files.extend(behind.into_iter().filter_map(ContentAtRest::into_large));
        Ok((frame, record))
    }
}
