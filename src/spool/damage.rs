//! Records of the log that cannot be read.

use super::durable::Store;
use super::error::SpoolError;
use super::scan::Scan;

/// Keeps a copy of a damaged region of a segment and says so. Without that copy nothing
/// may happen to the original.
pub fn report_damage(
    store: &Store,
    scan: &Scan,
    offset: u64,
    length: u64,
) -> Result<(), SpoolError> {
    let segment = format!("{:016x}", scan.name.number);
    let saved = store.save_corrupt(scan.name, &scan.file, offset, length);
    match &saved {
        Ok(true) => {
            tracing::error!(
                segment,
                offset,
                length,
                "a damaged record was found and copied to corrupt/"
            );
        }
        Ok(false) => {
            tracing::warn!(
                segment,
                offset,
                length,
                "a damaged record is still in the log"
            );
        }
        Err(error) => {
            tracing::error!(segment, offset, length, %error, "a damaged record was found and could not be copied");
        }
    }
    saved.map(drop)
}
