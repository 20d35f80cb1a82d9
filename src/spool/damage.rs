//! Records of the log that cannot be read.

use super::durable::{SegmentName, Store};
use super::record::Position;

/// Keeps a copy of a damaged record and says so.
pub fn report_damage(store: &Store, name: SegmentName, at: Position, octets: &[u8]) {
    let segment = format!("{:016x}", at.segment);
    let length = octets.len();
    match store.save_corrupt(name, at.offset, octets) {
        Ok(true) => {
            tracing::error!(
                segment,
                offset = at.offset,
                length,
                "a damaged record was found and copied to corrupt/"
            );
        }
        Ok(false) => {
            tracing::warn!(
                segment,
                offset = at.offset,
                length,
                "a damaged record is still in the log"
            );
        }
        Err(error) => {
            tracing::error!(segment, offset = at.offset, length, %error, "a damaged record was found and could not be copied");
        }
    }
}
