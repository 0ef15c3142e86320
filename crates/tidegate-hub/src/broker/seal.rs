//! Secrets sealed for one consumer: X25519 sealed boxes, as libsodium makes them (DH-208).
//!
//! The producer seals the secret of its channel for the public CURVE keys of those who may have it; the broker passes the
//! box on to the connection that proved to have the key, and cannot open it.

use dryoc::{
    classic::crypto_box::{crypto_box_seal, crypto_box_seal_open},
    constants::CRYPTO_BOX_SEALBYTES,
};
use tidegate_mq::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{error::HubError, wire::SealedSecret};

impl SealedSecret {
    /// Seals `secret` for the owner of `key`.
    ///
    /// # Errors
    /// [`HubError::Field`] for a secret of more than 464 octets, [`HubError::Seal`] for a key that is none.
    pub fn seal(secret: &[u8], key: &PublicKey) -> Result<Self, HubError> {
        let mut sealed = vec![0; secret.len() + CRYPTO_BOX_SEALBYTES];
        crypto_box_seal(&mut sealed, secret, key.as_bytes())
            .map_err(|_| HubError::Seal { problem: "cannot be sealed for this public key; check the key" })?;
        Ok(Self::new(sealed)?)
    }

    /// Opens what was sealed for `key`'s public key.
    ///
    /// # Errors
    /// [`HubError::Seal`] when it was sealed for another key, or changed on the way.
    pub fn open(&self, key: &SecretKey) -> Result<Zeroizing<Vec<u8>>, HubError> {
        let refused = HubError::Seal {
            problem: "does not open with this key; have the producer seal it for this client's public key",
        };
        let Some(len) = self.as_bytes().len().checked_sub(CRYPTO_BOX_SEALBYTES) else { return Err(refused) };
        let mut secret = Zeroizing::new(vec![0; len]);
        match crypto_box_seal_open(&mut secret, self.as_bytes(), key.public_key().as_bytes(), key.expose()) {
            Ok(()) => Ok(secret),
            Err(_) => Err(refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_mq::new_secret_key;

    /// A box opens with the key that it was sealed for, with no other, and not when a bit of it was changed.
    ///
    /// Rules: DH-208.
    #[test]
    fn a_sealed_secret_opens_for_its_key_only() {
        let (key, other) = (new_secret_key(), new_secret_key());
        let sealed = SealedSecret::seal(&[7; 32], &key.public_key()).unwrap();
        assert_eq!(**sealed.open(&key).unwrap(), [7; 32]);
        assert!(!sealed.as_bytes().windows(8).any(|part| part == [7; 8]));
        assert!(matches!(sealed.open(&other), Err(HubError::Seal { .. })));
        for at in [0, 31, 40, 79] {
            let mut changed = sealed.as_bytes().to_vec();
            changed[at] ^= 1;
            let changed = SealedSecret::new(changed).unwrap();
            assert!(matches!(changed.open(&key), Err(HubError::Seal { .. })), "octet {at}");
        }
        assert!(matches!(SealedSecret::new(vec![1; 47]).unwrap().open(&key), Err(HubError::Seal { .. })));
        assert!(matches!(SealedSecret::seal(&[7; 465], &key.public_key()), Err(HubError::Field(_))));
    }
}
