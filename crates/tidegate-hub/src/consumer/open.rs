//! Attaching.

use std::sync::{Arc, Weak};

use tidegate_shm::{host::HostId, sync::AtomicU32};

use super::{Consumer, verify::Checker};
use crate::{
    attachment::consumer_core,
    block::{AttachOptions, Expectations, Role, SchemaMismatch as BlockSchemaMismatch, attach},
    config::{ConsumerConfig, Timeout},
    core::{
        Start,
        reader::{Acquired, Reader},
        words::RowNames,
    },
    error::OpenError,
    layout::{Descriptor, SyncPolicy},
    producer::TypedCheck,
    schema::{Offer, SchemaHash, SchemaVersion, compare},
    upkeep::{self, Beats, ConsumerMember, Member, Recovery},
};

impl Consumer {
    /// Attaches the block whose file is `name`.
    ///
    /// # Errors
    /// The configuration is not valid, a check of the block fails, or there is no place for another consumer (DH-074,
    /// DH-102).
    pub fn attach(name: &str, config: &ConsumerConfig) -> Result<Self, OpenError> {
        config.validate()?;
        let check = |descriptor: &Descriptor| judge_schema(descriptor, config);
        let options = AttachOptions {
            expect: Expectations {
                channel: config.channel.as_ref(),
                schema: if config.schema.is_some() { Some(&check) } else { None },
                config: config.expect.clone(),
            },
            ..config.attach_options(Role::Consumer)
        };
        let block = Arc::new(attach(name, &options)?);
        let core = consumer_core(&block, config.wait, config.timeouts.timing())?;
        core.host().set_measuring(config.metrics.enabled);
        let sync = block.descriptor().spec.sync;
        let start = config.start.unwrap_or(Start::default_for(sync));
        let deadline = Timeout::Default.deadline(config.timeouts.maintenance_lock);
        let (member_core, core_of_row) = (core.clone(), core.clone());
        let reader = Reader::join(core, start, &row_names(config), config.max_held, deadline)?;
        let reader = if config.allow_repeat { reader.with_repeats() } else { reader };
        let ticket = *reader.ticket();
        let recovery = config.recover_writer.then(|| Recovery {
            dir: config.dir.clone(),
            huge_dir: config.huge_dir.clone(),
            trust: config.trust.clone(),
            secret: config.secret.clone(),
        });
        let beats = Beats::new(&config.timeouts, config.heartbeat_thread);
        let member = Arc::new(ConsumerMember::new(member_core, ticket, beats, recovery));
        let max_held = config.max_held.min(block.descriptor().spec.slot_count) as usize;
        let checker = Checker::of(&block, config, ticket.row.0).inspect_err(|_| {
            // Who holds a row holds the producer back.
            if let Err(error) = core_of_row.leave(&ticket, deadline) {
                tracing::warn!(path = %block.path().display(), %error, "a row stays taken until this process ends");
            }
        })?;
        let consumer = Self {
            reader: Some(reader),
            block,
            member: member.clone(),
            ticket,
            timeouts: config.timeouts.clone(),
            newest_only: sync == SyncPolicy::LatestOnly,
            on_read_error: config.on_read_error,
            current: Acquired::NONE,
            batch: Vec::with_capacity(max_held),
            sample_every: config.metrics.sample_every,
            started: None,
            operations: AtomicU32::new(0),
            typed: TypedCheck::default(),
            schema_mode: config.schema.as_ref().map_or(config.schema_mode, |expected| expected.mode),
            min_minor: config.schema.as_ref().map_or(0, |expected| expected.min_minor),
            checker,
            secret: config.secret.clone(),
        };
        member.beat();
        let member: Arc<dyn Member> = member;
        let weak: Weak<dyn Member> = Arc::downgrade(&member);
        upkeep::register(weak).map_err(OpenError::Upkeep)?;
        Ok(consumer)
    }
}

/// Step 17 of attaching (DH-177).
fn judge_schema(descriptor: &Descriptor, config: &ConsumerConfig) -> Result<(), BlockSchemaMismatch> {
    let Some(expected) = &config.schema else { return Ok(()) };
    let schema = &descriptor.spec.schema;
    let offer = Offer {
        hash: SchemaHash::from_bytes(schema.slot_hash),
        version: SchemaVersion::new(schema.version.0, schema.version.1),
        text: schema.text.lines().next().filter(|text| !text.is_empty()),
    };
    compare(expected, &offer).map(drop).map_err(|mismatch| {
        tracing::warn!(block = %descriptor.uuid, %mismatch, "the channel holds other records");
        BlockSchemaMismatch {
            expected: *mismatch.expected.as_bytes(),
            found: schema.slot_hash,
            first_difference: Some(mismatch.first_difference.to_string()),
        }
    })
}

fn row_names(config: &ConsumerConfig) -> RowNames {
    let mut names = RowNames { uid: [0; 40], name: [0; 32], pid_namespace: 0 };
    names.uid.iter_mut().zip(config.uid.bytes()).for_each(|(place, byte)| *place = byte);
    names.name.iter_mut().zip(config.name.bytes()).for_each(|(place, byte)| *place = byte);
    // Attaching has just found it out, so it can be.
    names.pid_namespace = HostId::current().map_or(0, |here| here.pid_namespace);
    names
}
