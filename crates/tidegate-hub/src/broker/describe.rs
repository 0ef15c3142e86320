//! Blocks and messages: what a block says of itself in the words of a registration, and what the broker said of a block
//! held against the block (DH-199).

use thiserror::Error;

use super::{
    host::domain_of,
    wire::{
        ChannelFacts, FieldError, Fixed, Label, LongText, Register, SchemaHash, SchemaVersion, ShmName, U64,
    },
};
use crate::{
    identity::ProcessKey,
    layout::{Descriptor, SecurityLevel},
};

impl Register {
    /// The registration of a block by its producer `owner`, without secret, notifications, lease and predecessor.
    ///
    /// # Errors
    /// [`FieldError`] for texts of the block that no message carries, such as control characters in `producer_uid`.
    pub fn of_block(descriptor: &Descriptor, owner: ProcessKey) -> Result<Self, FieldError> {
        let spec = &descriptor.spec;
        let schema = &spec.schema;
        let has_key = spec.security != SecurityLevel::None;
        let is_typed = schema.slot_hash != [0; 32];
        let name = Some(&spec.identity.producer_name).filter(|name| !name.is_empty());
        Ok(Self {
            channel_name: spec.channel.clone(),
            shm_name: ShmName::new(descriptor.file_name())?,
            block_uuid: descriptor.uuid,
            policy: Label::new(spec.policy.to_string())?,
            sync: Label::new(spec.sync.to_string())?,
            unit_block_size: descriptor.geometry.slot_stride,
            ring_buffer_capacity: spec.slot_count,
            schema_hash: SchemaHash::from_bytes(schema.slot_hash),
            schema_version: SchemaVersion { major: schema.version.0, minor: schema.version.1 },
            // A text that is too long for a message is in the block for whoever wants it.
            schema_text: if is_typed { LongText::new(schema.text.trim_end()).ok() } else { None },
            shared_secret_hash: None,
            secret_proof: None,
            key_id: has_key.then_some(Fixed(descriptor.key_id.0)),
            key_epoch: has_key.then_some(spec.key_epoch),
            producer_uid: Label::new(&*spec.identity.producer_uid)?,
            producer_name: name.map(|name| Label::new(&**name)).transpose()?,
            process_key: owner,
            host_domain: Label::new(domain_of(&descriptor.host))?,
            zmq_endpoint: None,
            zmq_pubkey: None,
            lease_ms: 0,
            first_slot_id: U64(spec.first_slot_id),
            predecessor_uuid: spec.predecessor,
            allow_sealed: false,
            sealed_secrets: Default::default(),
        })
    }
}

/// The broker said something about a block that the block itself denies.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "block {block} has {field} {found}, the broker says {said}; discover the channel again, or ask who registered it"
)]
pub struct Disagreement {
    /// The block's file.
    pub block: String,
    /// What it is about.
    pub field: &'static str,
    /// What the broker said.
    pub said: String,
    /// What is so.
    pub found: String,
}

impl Disagreement {
    /// The code of Annex B: ConfigMismatch.
    pub const fn code(&self) -> u16 {
        118
    }
}

impl ChannelFacts {
    /// Whether the block is what the broker said it is (DH-199); to be asked before anything of it is used.
    ///
    /// # Errors
    /// [`Disagreement`] with the first field that differs.
    pub fn check(&self, descriptor: &Descriptor) -> Result<(), Disagreement> {
        let spec = &descriptor.spec;
        let version = SchemaVersion { major: spec.schema.version.0, minor: spec.schema.version.1 };
        let fields = [
            ("block_uuid", self.block_uuid.to_string(), descriptor.uuid.to_string()),
            ("policy", self.policy.to_string(), spec.policy.to_string()),
            ("sync", self.sync.to_string(), spec.sync.to_string()),
            ("slot_stride", self.unit_block_size.to_string(), descriptor.geometry.slot_stride.to_string()),
            ("slot_count", self.ring_buffer_capacity.to_string(), spec.slot_count.to_string()),
            (
                "schema_hash",
                self.schema_hash.to_string(),
                SchemaHash::from_bytes(spec.schema.slot_hash).to_string(),
            ),
            ("schema_version", self.schema_version.to_string(), version.to_string()),
            ("first_slot_id", self.first_slot_id.0.to_string(), spec.first_slot_id.to_string()),
        ];
        match fields.into_iter().find(|(_, said, found)| said != found) {
            None => Ok(()),
            Some((field, said, found)) => {
                Err(Disagreement { block: descriptor.file_name(), field, said, found })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::{Block, CreateOptions, create},
        broker::{test_blocks::spec, wire::ChannelId},
        layout::{BlockUuid, SchemaInfo},
    };

    fn block(typed: bool) -> (tempfile::TempDir, Block) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut spec = spec("sensor.one");
        if typed {
            let text = "tds1 S size=4 align=4 {x:u32@0+4}".to_owned();
            let slot_hash = *crate::schema::SchemaHash::of_text(&text).as_bytes();
            spec.schema =
                SchemaInfo { slot_hash, version: (2, 1), struct_size: 4, struct_align: 4, text: text + "\n" };
        }
        let options = CreateOptions { dir: dir.path().to_owned(), ..CreateOptions::default() };
        let block = create(&spec, &options).unwrap();
        (dir, block)
    }

    /// What is registered of a block is what the block says, whether typed or not.
    #[test]
    fn a_registration_says_what_the_block_says() {
        for typed in [false, true] {
            let (_dir, block) = block(typed);
            let descriptor = block.descriptor();
            let register = Register::of_block(descriptor, block.own_key()).unwrap();
            assert_eq!(register.shm_name.as_str(), descriptor.file_name());
            assert_eq!(register.schema_text.is_some(), typed);
            assert_eq!((register.unit_block_size, register.ring_buffer_capacity), (4096, 8));
            assert_eq!(facts(&register).check(descriptor), Ok(()));
        }
    }

    /// A broker that lies in any field is found out, and the error says in which.
    ///
    /// Rules: DH-199, M-14.
    #[test]
    fn a_lie_of_the_broker_is_found() {
        let (_dir, block) = block(true);
        let truth = facts(&Register::of_block(block.descriptor(), block.own_key()).unwrap());
        let label = |text: &str| Label::new(text).unwrap();
        let lies = [
            ("block_uuid", ChannelFacts { block_uuid: BlockUuid::new([9; 16]).unwrap(), ..truth.clone() }),
            ("policy", ChannelFacts { policy: label("Single"), ..truth.clone() }),
            ("sync", ChannelFacts { sync: label("LatestOnly"), ..truth.clone() }),
            ("slot_stride", ChannelFacts { unit_block_size: 64, ..truth.clone() }),
            ("slot_count", ChannelFacts { ring_buffer_capacity: 9, ..truth.clone() }),
            ("schema_hash", ChannelFacts { schema_hash: SchemaHash::UNTYPED, ..truth.clone() }),
            (
                "schema_version",
                ChannelFacts { schema_version: SchemaVersion { major: 2, minor: 0 }, ..truth.clone() },
            ),
            ("first_slot_id", ChannelFacts { first_slot_id: U64(1), ..truth.clone() }),
        ];
        for (field, lie) in lies {
            let found = lie.check(block.descriptor()).unwrap_err();
            assert_eq!((found.field, found.code()), (field, 118));
            let text = found.to_string();
            assert!(text.contains(&found.said) && text.contains(&found.found), "{text}");
        }
    }

    fn facts(register: &Register) -> ChannelFacts {
        ChannelFacts {
            channel_id: ChannelId(1),
            shm_name: register.shm_name.clone(),
            block_uuid: register.block_uuid,
            policy: register.policy.clone(),
            sync: register.sync.clone(),
            unit_block_size: register.unit_block_size,
            ring_buffer_capacity: register.ring_buffer_capacity,
            schema_hash: register.schema_hash,
            schema_version: register.schema_version,
            key_id: None,
            key_epoch: None,
            zmq_endpoint: None,
            zmq_pubkey: None,
            first_slot_id: register.first_slot_id,
            producer_alive: true,
        }
    }
}
