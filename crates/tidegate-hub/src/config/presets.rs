//! Configurations for common purposes (DH-096).

use super::{HubConfig, WaitStrategy};
use crate::{
    block::HugePages,
    layout::{DigestAlg, DigestPolicy, OnHeld, Orphan, Overflow, Secret, SecurityLevel},
};

impl HubConfig {
    /// For control loops: no digests, never sleeps, no slow reader stops the writer where another slot is free.
    #[must_use]
    pub fn low_latency(self) -> Self {
        let on_held = if self.policy.slot_count() >= 2 { OnHeld::Skip } else { OnHeld::Wait };
        Self {
            digest_alg: DigestAlg::None,
            digest_policy: DigestPolicy::Manual,
            wait: WaitStrategy::Spin,
            on_held: Some(on_held),
            ..self
        }
    }

    /// For streams of many or large records: no digests, huge pages where they help.
    #[must_use]
    pub fn high_throughput(self) -> Self {
        Self {
            digest_alg: DigestAlg::None,
            digest_policy: DigestPolicy::Manual,
            huge_pages: HugePages::Auto,
            ..self
        }
    }

    /// Nothing is lost and nothing is damaged unnoticed.
    #[must_use]
    pub fn reliable(self) -> Self {
        Self {
            digest_alg: DigestAlg::Blake3,
            digest_policy: DigestPolicy::Enforced,
            overflow: Overflow::Block,
            orphan: Orphan::Retain,
            ..self
        }
    }

    /// Only who has the secret can write what consumers accept.
    #[must_use]
    pub fn authenticated(self, secret: Secret) -> Self {
        Self {
            security: SecurityLevel::AuthenticatedSlots,
            secret: Some(secret),
            digest_alg: DigestAlg::KeyedBlake3,
            digest_policy: DigestPolicy::Enforced,
            ..self
        }
    }
}
