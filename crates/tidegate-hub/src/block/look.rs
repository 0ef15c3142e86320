//! Looking at a block without mapping it: what it is, and whether it is complete.
//!
//! For those who answer for many blocks and take part in none, like the broker: a file that somebody cuts short is an
//! error here and not a SIGBUS, and nothing stays mapped (DH-182).

use super::{
    AttachError, AttachOptions,
    attach::{INIT_STATE, check_trust, copy_area, open},
};
use crate::layout::{Descriptor, FeatureUse, InitState, Mismatch, decode};

/// A block as its file says at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    /// What it is.
    pub descriptor: Descriptor,
    /// How far it is in its life.
    pub state: InitState,
}

/// Reads the descriptor of the block whose file is `name`: steps 1 to 13 of attaching. Of `options` the places and whom to
/// trust count; it does not wait for a block that is not complete.
///
/// # Errors
/// The first check that fails.
pub fn look(name: &str, options: &AttachOptions<'_>) -> Result<Look, AttachError> {
    let file = open(name, options)?;
    check_trust(&file, &options.trust)?;
    // The state before the rest: what was complete then is complete in the copy.
    let mut state = [0; 4];
    let area_state = file.read_at(INIT_STATE, &mut state).map(|()| u32::from_le_bytes(state));
    let area = copy_area(&file)?;
    let descriptor = decode(&area, FeatureUse::ReadOnly)?;
    let code = area_state?;
    let highest = InitState::Closed.code();
    let state = InitState::from_code(code)
        .ok_or_else(|| AttachError::Corrupt(Mismatch::range("init_state", 0, highest.into(), code.into())))?;
    Ok(Look { descriptor, state })
}
