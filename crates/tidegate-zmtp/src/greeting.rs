//! The first 64 octets of each side (chapter 2).
//!
//! ```text
//!  0  FF    1..9  padding    9  7F    10  major    11  minor    12..32  mechanism    32  as-server    33..64  zeros
//! ```

use crate::{close::CloseReason, config::Security};

/// Octets of a greeting.
pub const LEN: usize = 64;

const SIGNATURE_END: usize = 9;
const MAJOR: usize = 10;
const MINOR: usize = 11;
const MECHANISM: usize = 12;
const AS_SERVER: usize = 32;

/// Version that both sides understand (MQ-091).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 3.0: subscriptions are messages, heartbeats are not understood by all.
    V3_0,
    /// 3.1.
    V3_1,
}

/// Our greeting (MQ-086, MQ-089, MQ-093).
pub fn ours(security: &Security) -> [u8; LEN] {
    let mut greeting = [0; LEN];
    greeting[0] = 0xff;
    greeting[SIGNATURE_END] = 0x7f;
    greeting[MAJOR] = 3;
    greeting[MINOR] = 1;
    greeting[MECHANISM..AS_SERVER].copy_from_slice(&padded(security.mechanism()));
    greeting[AS_SERVER] = security.is_server().into();
    greeting
}

/// The greeting of the peer, as far as it has arrived.
#[derive(Debug)]
pub(crate) struct Greeting {
    octets: [u8; LEN],
    len: usize,
}

impl Greeting {
    pub(crate) fn new() -> Self {
        Self { octets: [0; LEN], len: 0 }
    }

    /// Takes octets until the greeting is complete, and refuses them at the one that decides (MQ-087, MQ-096). Gives the
    /// number of octets taken, and the version once all have been.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        security: &Security,
    ) -> Result<(usize, Option<Version>), CloseReason> {
        for (taken, &octet) in (1..).zip(bytes) {
            check(self.len, octet)?;
            if let Some(place) = self.octets.get_mut(self.len) {
                *place = octet;
                self.len += 1;
            }
            if self.len == LEN {
                return Ok((taken, Some(self.conclude(security)?)));
            }
        }
        Ok((bytes.len(), None))
    }

    fn conclude(&self, security: &Security) -> Result<Version, CloseReason> {
        if self.octets[MECHANISM..AS_SERVER] != padded(security.mechanism()) {
            return Err(CloseReason::MechanismMismatch);
        }
        Ok(if self.octets[MAJOR] == 3 && self.octets[MINOR] == 0 { Version::V3_0 } else { Version::V3_1 })
    }
}

/// Refuses what no peer of ZMTP 3 sends at `offset` (MQ-095). The padding means nothing (MQ-088).
fn check(offset: usize, octet: u8) -> Result<(), CloseReason> {
    match (offset, octet) {
        (0, 0xff) | (SIGNATURE_END, 0x7f) | (MAJOR, 3..) => Ok(()),
        (0 | MAJOR, _) => Err(CloseReason::UnsupportedVersion),
        (SIGNATURE_END, _) if octet & 1 == 0 => Err(CloseReason::UnsupportedVersion),
        (SIGNATURE_END, _) => Err(CloseReason::MalformedGreeting),
        _ => Ok(()),
    }
}

fn padded(mechanism: &str) -> [u8; AS_SERVER - MECHANISM] {
    let mut name = [0; AS_SERVER - MECHANISM];
    for (place, octet) in name.iter_mut().zip(mechanism.bytes()) {
        *place = octet;
    }
    name
}
