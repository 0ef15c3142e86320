//! Making keys for CURVE.

use tidegate_zmtp::mechanism::curve::SecretKey;

use crate::context::fill_random;

/// Draws a new secret key from the operating system's randomness. Its public key is
/// [`public_key`](SecretKey::public_key).
pub fn new_secret_key() -> SecretKey {
    SecretKey::generate(&mut fill_random)
}
