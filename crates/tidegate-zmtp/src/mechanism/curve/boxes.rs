//! Traffic after the handshake: every frame of a message and every command in a MESSAGE of its own.
//!
//! ```text
//! 0   07 "MESSAGE"
//! 8   counter, big-endian
//! 16  tag
//! 32  flags: 01 MORE, 02 COMMAND     encrypted
//! 33  payload                        encrypted
//! ```

use tidegate_io::batch::WriteBatch;

use super::{
    nonce,
    secret_box::{BoxKey, short_nonce},
};
use crate::{
    close::CloseReason,
    frame,
    mechanism::{BOXED_PAYLOAD, Boxing, INNER_COMMAND, INNER_MORE},
};

const NAME: &[u8; 8] = b"\x07MESSAGE";
/// Where the tag starts.
const TAG: usize = 16;
/// Where the encrypted flags stand.
const FLAGS: usize = 32;

/// Both directions of an established connection.
///
/// A message costs its copy into the write batch, where it is encrypted, and is decrypted where it was received; nothing
/// is allocated (MQ-157).
pub(crate) struct Boxes {
    key: BoxKey,
    send_prefix: &'static [u8; 16],
    receive_prefix: &'static [u8; 16],
    /// Last counter used.
    sent: u64,
    /// Last counter accepted.
    received: u64,
}

impl Boxes {
    /// The client's end: HELLO and INITIATE were sent, READY with the counter `received` came.
    pub(super) fn client(key: BoxKey, received: u64) -> Self {
        Self {
            key,
            send_prefix: nonce::CLIENT_MESSAGE,
            receive_prefix: nonce::SERVER_MESSAGE,
            sent: 2,
            received,
        }
    }

    /// The server's end: READY was sent, INITIATE with the counter `received` came.
    pub(super) fn server(key: BoxKey, received: u64) -> Self {
        Self {
            key,
            send_prefix: nonce::SERVER_MESSAGE,
            receive_prefix: nonce::CLIENT_MESSAGE,
            sent: 1,
            received,
        }
    }

    #[cfg(test)]
    pub(super) fn set_sent(&mut self, sent: u64) {
        self.sent = sent;
    }
}

impl Boxing for Boxes {
    fn open(&mut self, body: &mut [u8]) -> Result<u8, CloseReason> {
        if !body.starts_with(NAME) {
            return Err(CloseReason::UnexpectedCommand);
        }
        if body.len() < BOXED_PAYLOAD {
            return Err(CloseReason::MalformedMessage);
        }
        let (head, sealed) = body.split_at_mut(TAG);
        let counter = head.last_chunk().map_or(0, |counter| u64::from_be_bytes(*counter));
        if counter <= self.received {
            return Err(CloseReason::InvalidSequence);
        }
        let text = self.key.open(&short_nonce(self.receive_prefix, counter), sealed)?;
        // Only now: a forged counter must not shut out the true ones (MQ-146).
        self.received = counter;
        let flags = text.first().copied().unwrap_or_default();
        if !matches!(flags, 0 | INNER_MORE | INNER_COMMAND) {
            return Err(CloseReason::MalformedMessage);
        }
        Ok(flags)
    }

    fn seal(&mut self, inner: u8, payload: &[u8], batch: &mut WriteBatch) -> Result<(), CloseReason> {
        // The last number is never used, so that the counter cannot wrap (MQ-145).
        let counter = self.sent.checked_add(1).filter(|&next| next != u64::MAX);
        let counter = counter.ok_or(CloseReason::InvalidSequence)?;
        // MORE and COMMAND travel inside, never in the header (MQ-143).
        let (header, header_len) = frame::header(0, BOXED_PAYLOAD + payload.len());
        let place = batch.put_with(header_len + BOXED_PAYLOAD + payload.len());
        let (header_place, body) = place.split_at_mut(header_len);
        header_place.copy_from_slice(&header[..header_len]);
        let (head, sealed) = body.split_at_mut(TAG);
        head[..NAME.len()].copy_from_slice(NAME);
        head[NAME.len()..].copy_from_slice(&counter.to_be_bytes());
        let (flags, text) = sealed[FLAGS - TAG..].split_at_mut(1);
        flags.fill(inner);
        text.copy_from_slice(payload);
        self.key.seal(&short_nonce(self.send_prefix, counter), sealed);
        self.sent = counter;
        Ok(())
    }
}
