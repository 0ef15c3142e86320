//! Proofs that a client knows the secret of a channel (11.5, 13.3).
//!
//! The broker keeps the verifier of each channel, which is derived from the secret and does not give it away. A request
//! shows a keyed hash over what it asks, by whom, when, and a nonce; it is worth nothing for any other request.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    error::HubError,
    wire::{Base64, ChannelName, ClientId, Fixed, Nonce, Proof, RequestBody},
};
use crate::layout::{Secret, SecretUnusable, keyed};

/// Shortest secret, in octets (DH-161).
pub const SHORTEST_SECRET: usize = Secret::MIN_LEN;

/// Longest secret: the longest key of BLAKE2b.
pub const LONGEST_SECRET: usize = Secret::MAX_LEN;

/// What the broker keeps of a channel's secret, and what proofs are made with. As confidential as the registry: who has it
/// can forge proofs, though not attach (DH-213). Wiped when dropped and never shown.
#[derive(Clone)]
pub struct Verifier(Zeroizing<[u8; 32]>);

impl Verifier {
    /// The verifier of `secret` for `channel` (DH-163).
    pub fn of(secret: &Secret, channel: &ChannelName) -> Self {
        Self(secret.broker_verifier(channel.as_str()))
    }

    /// As [`Verifier::of`], from the octets of the secret.
    ///
    /// # Errors
    /// [`HubError::SecretLength`] for a secret of less than [`SHORTEST_SECRET`] or more than [`LONGEST_SECRET`] octets;
    /// [`HubError::System`] if there is no memory fit for a key.
    pub fn derive(secret: &[u8], channel: &ChannelName) -> Result<Self, HubError> {
        let secret = Secret::new(secret).map_err(|error| match error {
            SecretUnusable::Length { len } => HubError::SecretLength { len },
            SecretUnusable::Memory { source } => HubError::System { what: "keeping the secret", source },
        })?;
        Ok(Self::of(&secret, channel))
    }

    pub(crate) fn from_field(field: Fixed<32>) -> Self {
        Self(Zeroizing::new(field.0))
    }

    /// As it is sent in a registration.
    pub(crate) fn to_field(&self) -> Fixed<32> {
        Fixed(*self.0)
    }

    /// The proof for one request; `label` says of which kind.
    pub fn prove(
        &self,
        label: ProofLabel,
        channel: &ChannelName,
        client: &ClientId,
        nonce: Nonce,
        ts_ms: u64,
    ) -> Proof {
        let parts: [&[u8]; 8] = [
            label.0.as_bytes(),
            &[0],
            channel.as_str().as_bytes(),
            &[0],
            client.as_str().as_bytes(),
            &[0],
            &nonce.0,
            &ts_ms.to_le_bytes(),
        ];
        Base64(keyed(self.0.as_slice(), &parts))
    }

    /// Whether `proof` is [`prove`](Self::prove)'s, in constant time (DH-164).
    pub fn accepts(
        &self,
        proof: Proof,
        label: ProofLabel,
        channel: &ChannelName,
        client: &ClientId,
        nonce: Nonce,
        ts_ms: u64,
    ) -> bool {
        self.prove(label, channel, client, nonce, ts_ms).0.ct_eq(&proof.0).into()
    }
}

impl PartialEq for Verifier {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_slice()).into()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// Which kind of request a proof is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofLabel(&'static str);

impl ProofLabel {
    /// The label and the channel that the proof of `body` is about; `None` for requests without proof.
    pub fn of(body: &RequestBody) -> Option<(Self, &ChannelName)> {
        match body {
            RequestBody::Register(body) => Some((Self("REG"), &body.channel_name)),
            RequestBody::Discover(body) => Some((Self("DISC"), &body.channel_name)),
            RequestBody::Deregister(body) => Some((Self("DEREG"), &body.channel_name)),
            RequestBody::HandoverNotify(body) => Some((Self("HANDOVER"), &body.old_channel)),
            RequestBody::HandoverCancel(body) => Some((Self("HANDOVER"), &body.channel_name)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of Python's `hashlib.blake2b` with `key` and `digest_size=32`.
    ///
    /// Rules: DH-163.
    #[test]
    fn verifier_and_proof_are_those_of_another_implementation() {
        let channel = ChannelName::new("sensor_temperature").unwrap();
        let secret: Vec<u8> = (0..32).collect();
        let verifier = Verifier::derive(&secret, &channel).unwrap();
        assert_eq!(verifier.to_field().to_string(), VERIFIER);
        let client = ClientId::new("prod.sensor.01").unwrap();
        let nonce = Base64(std::array::from_fn(|at| at as u8));
        let proof = verifier.prove(ProofLabel("REG"), &channel, &client, nonce, 1_770_459_330_000);
        assert_eq!(Fixed(proof.0).to_string(), PROOF);
    }

    /// Rules: DH-161.
    #[test]
    fn short_secrets_are_refused() {
        let channel = ChannelName::new("c").unwrap();
        assert!(matches!(Verifier::derive(&[1; 15], &channel), Err(HubError::SecretLength { len: 15 })));
        assert!(Verifier::derive(&[1; 16], &channel).is_ok());
        assert!(matches!(Verifier::derive(&[1; 65], &channel), Err(HubError::SecretLength { len: 65 })));
    }

    /// Rules: DH-164.
    #[test]
    fn a_verifier_is_not_shown() {
        let verifier = Verifier::derive(&[0xAB; 32], &ChannelName::new("c").unwrap()).unwrap();
        assert_eq!(format!("{verifier:?}"), "Verifier(..)");
    }

    const VERIFIER: &str = "e7a0ab0f4428536016540dd453a2997bacd29fd70630912f3a36ea14722ad652";
    const PROOF: &str = "7209f20de6c348e7a2a17a466b4f491ac84839302ad1117c5c2a67c1f231987a";
}
