//! Schema 901: attach, detach, leases and shutdown of the tensor driver.

use crate::wire;

include!(concat!(env!("OUT_DIR"), "/driver.rs"));

/// Correlation id of an attach or detach request of a version that is too new to decode.
///
/// A driver answers such a request with `UNSUPPORTED` (TP-009, TP-250); the template id in [`MessageHeader::peek`] says
/// which of the two responses. `None` for every other fragment, and when the block is too short to hold the id.
///
/// [`MessageHeader::peek`]: crate::MessageHeader::peek
pub fn peek_correlation_id(fragment: &[u8]) -> Option<i64> {
    let (header, block) = wire::split_header(fragment).ok()?;
    let is_request =
        matches!(header.template_id, ShmAttachRequest::TEMPLATE_ID | ShmDetachRequest::TEMPLATE_ID);
    if header.schema_id != SCHEMA_ID || !is_request || header.version <= SCHEMA.version {
        return None;
    }
    let block = block.get(..usize::from(header.block_length))?;
    Some(i64::from_le_bytes(*block.first_chunk()?))
}
