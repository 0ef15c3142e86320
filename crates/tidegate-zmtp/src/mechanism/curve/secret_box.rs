//! Boxes: XSalsa20-Poly1305 under a key that two key pairs agree on (MQ-139).
//!
//! A box is the tag of 16 octets followed by as many octets as the plain text has. Both directions work in place.

use dryoc::classic::crypto_box::{
    crypto_box_beforenm, crypto_box_detached_afternm_inplace, crypto_box_open_detached_afternm_inplace,
};
use zeroize::Zeroizing;

use super::{PublicKey, SecretKey, keys::KEY_LEN};
use crate::close::CloseReason;

/// Octets that a box has more than the plain text.
pub(super) const TAG_LEN: usize = 16;

/// A nonce; never used twice with one key.
pub(super) type Nonce = [u8; 24];

/// Nonce of a counter.
pub(super) fn short_nonce(prefix: &[u8; 16], counter: u64) -> Nonce {
    let mut nonce = [0; 24];
    nonce[..16].copy_from_slice(prefix);
    nonce[16..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// Nonce that was drawn.
pub(super) fn long_nonce(prefix: &[u8; 8], drawn: &[u8; 16]) -> Nonce {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(prefix);
    nonce[8..].copy_from_slice(drawn);
    nonce
}

/// The key of a box, wiped when dropped (MQ-141).
pub(super) struct BoxKey(Zeroizing<[u8; KEY_LEN]>);

impl BoxKey {
    /// The key between two parties, of which one gives its secret key and the other its public key.
    ///
    /// # Errors
    ///
    /// [`CloseReason::Cryptographic`] when `public` is of low order, so that the key would not be secret (MQ-140).
    pub(super) fn agree(secret: &SecretKey, public: &PublicKey) -> Result<Self, CloseReason> {
        crypto_box_beforenm(public.as_bytes(), secret.expose())
            .map(|key| Self(Zeroizing::new(key)))
            .map_err(|_| CloseReason::Cryptographic)
    }

    /// A key that was drawn.
    pub(super) fn from_bytes(key: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(key)
    }

    /// Makes a box of `tag_and_text`: the text is encrypted and the tag written before it.
    pub(super) fn seal(&self, nonce: &Nonce, tag_and_text: &mut [u8]) {
        if let Some((tag, text)) = tag_and_text.split_first_chunk_mut::<TAG_LEN>() {
            crypto_box_detached_afternm_inplace(text, tag, nonce, &self.0);
        }
    }

    /// Opens a box and gives the text in it. A box that does not open stays as it is.
    ///
    /// # Errors
    ///
    /// [`CloseReason::Cryptographic`].
    pub(super) fn open<'a>(&self, nonce: &Nonce, sealed: &'a mut [u8]) -> Result<&'a mut [u8], CloseReason> {
        let (tag, text) = sealed.split_first_chunk_mut::<TAG_LEN>().ok_or(CloseReason::Cryptographic)?;
        crypto_box_open_detached_afternm_inplace(text, tag, nonce, &self.0)
            .map_err(|_| CloseReason::Cryptographic)?;
        Ok(text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crypto_box::{PublicKey as OtherPublicKey, SalsaBox, SecretKey as OtherSecretKey, aead::AeadInPlace};
    use proptest::prelude::*;

    use super::*;

    /// Public keys with which every secret key agrees on zero: the points of small order and their other spellings.
    pub(in crate::mechanism::curve) const LOW_ORDER: [[u8; 32]; 7] = {
        let mut keys = [[0; 32]; 7];
        keys[1][0] = 1;
        keys[2] = hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        keys[3] = hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157");
        keys[4] = hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        keys[5] = hex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        keys[6] = hex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        keys
    };

    /// Rules: MQ-141.
    #[test]
    fn a_key_is_wiped() {
        fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) {}
        is_wiped(&BoxKey::from_bytes(Zeroizing::new([7; 32])).0);
    }

    const fn hex(digits: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        let mut index = 0;
        while index < 64 {
            let digit = digits.as_bytes()[index];
            let value = if digit >= b'a' { digit - b'a' + 10 } else { digit - b'0' };
            bytes[index / 2] = bytes[index / 2] << 4 | value;
            index += 1;
        }
        bytes
    }

    /// Rules: MQ-140.
    #[test]
    fn keys_of_low_order_are_refused() {
        for key in LOW_ORDER {
            for secret in [[1; 32], [0xFE; 32]] {
                let agreed = BoxKey::agree(&SecretKey::from_bytes(secret), &PublicKey::from_bytes(key));
                assert!(matches!(agreed, Err(CloseReason::Cryptographic)), "{key:02x?}");
            }
        }
    }

    #[test]
    fn a_box_that_does_not_open_stays_as_it_is() {
        let key = BoxKey::from_bytes(Zeroizing::new([3; 32]));
        let mut sealed = vec![9; 500];
        key.seal(&[1; 24], &mut sealed);
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 0x10;
            let before = altered.clone();
            assert_eq!(key.open(&[1; 24], &mut altered), Err(CloseReason::Cryptographic));
            assert_eq!(altered, before);
        }
        for len in 0..TAG_LEN {
            assert_eq!(key.open(&[1; 24], &mut sealed[..len]), Err(CloseReason::Cryptographic));
        }
    }

    proptest! {
        /// The boxes are those of another implementation, for lengths around every block size, both ways.
        ///
        /// Rules: MQ-139.
        #[test]
        fn boxes_equal_those_of_crypto_box(
            ours in any::<[u8; 32]>(), theirs in any::<[u8; 32]>(), nonce in any::<[u8; 24]>(),
            seed in any::<u8>(),
            len in prop_oneof![0..200usize, 200..2_200usize, Just(65_536), Just(65_537)],
        ) {
            let secret = SecretKey::from_bytes(ours);
            let other_secret = OtherSecretKey::from(theirs);
            let public = PublicKey::from_bytes(*other_secret.public_key().as_bytes());
            let key = BoxKey::agree(&secret, &public).unwrap();
            let other = SalsaBox::new(&OtherPublicKey::from(*secret.public_key().as_bytes()), &other_secret);

            let text: Vec<u8> = (0..len).map(|index| (index as u8).wrapping_mul(31) ^ seed).collect();
            let mut ciphertext = text.clone();
            let tag = other.encrypt_in_place_detached(&nonce.into(), b"", &mut ciphertext).unwrap();
            let expected = [tag.as_slice(), &ciphertext].concat();

            let mut sealed = [&[0; TAG_LEN], text.as_slice()].concat();
            key.seal(&nonce, &mut sealed);
            prop_assert!(sealed == expected);
            prop_assert!(key.open(&nonce, &mut sealed).unwrap() == text);
        }
    }
}
