//! Flexible zones: records of the user's own in a block (10.1).
//!
//! A zone is declared as a struct of atomic integers, arrays of them, and [`ZoneCell`]s with plain values:
//!
//! ```
//! use tidegate_hub::{schema::{HubSchema, ZoneLayout}, zone::ZoneCell};
//! use tidegate_shm::sync::AtomicU64;
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[repr(C)]
//! #[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
//! struct Pose {
//!     x: f64,
//!     y: f64,
//! }
//!
//! #[repr(C)]
//! #[derive(ZoneLayout, FromBytes, IntoBytes, KnownLayout)]
//! struct Telemetry {
//!     beats: AtomicU64,
//!     pose: ZoneCell<Pose>,
//! }
//! ```
//!
//! No reference to such a struct in shared memory exists, since others write it. What there is instead:
//!
//! | | atomics | cells |
//! |---|---|---|
//! | [`Zone::fields`] | load | closed |
//! | [`Zone::shared`], for who may write | load and change | closed |
//! | [`Zone::guard`] and [`Zone::update`], holding the zone's lock | load and change | load and store |
//! | [`Zone::snapshot`] | a private copy of the whole struct, never torn | |
//!
//! # Torn updates
//!
//! The generation of a zone is odd while [`Zone::update`] is at work. A snapshot waits for it to become even; if whoever
//! made it odd is dead, or left by a panic, the zone is torn until [`Zone::repair`] has written it anew (DH-141).

mod cell;
mod digest;
mod error;
mod guard;
#[doc(hidden)]
pub mod layout;

use std::{marker::PhantomData, mem::offset_of, sync::Arc, time::Duration};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    region::{Record, RecordMut, Span, SpanMut},
};
use zerocopy::{FromBytes, IntoBytes};

pub use cell::{Cell, CellValue, Closed, ZoneCell};
pub use digest::DigestCheck;
pub use error::ZoneError;
pub use guard::{ZoneGuard, ZoneOutcome};

use crate::{
    block::{Block, Role, registry::Place},
    config::{HubTimeouts, Timeout},
    core::{
        config::Deadline,
        generation::{GenerationWords, ZoneState},
    },
    error::TxError,
    identity::{Liveness, ProcessKey},
    integrity::{Digester, DigesterError},
    layout::{Secret, ZoneSpec, pages::ZoneControl},
    lock::{LockTable, SharedLock},
    schema::{
        Agreement, Offer, Schema, SchemaExpectation, SchemaHash, SchemaMode, SchemaVersion, ZoneLayout,
        compare,
    },
};

/// The zones of one attached block.
#[derive(Debug)]
pub struct Zones {
    block: Arc<Block>,
    /// None for an inspector.
    locks: Option<LockTable>,
    /// None if a key or the algorithm is missing, or digests are off.
    digester: Option<Digester>,
    /// What [`Timeout::Default`] is.
    lock_acquire: Duration,
}

impl Zones {
    /// The zones of `block`. `secret` is used if the block's digests need a key. [`Timeout::Default`] is `lock_acquire` of
    /// `timeouts`.
    ///
    /// # Errors
    /// As [`LockTable::new`]; who looks or repairs needs no locks and gets none.
    pub fn new(
        block: &Arc<Block>,
        secret: Option<&Secret>,
        timeouts: &HubTimeouts,
    ) -> Result<Self, ZoneError> {
        let locks = match block.role() {
            Role::Inspector | Role::Recovery => None,
            Role::Consumer | Role::Writer => Some(LockTable::new(block, timeouts)?),
        };
        let digester = match Digester::new(block.descriptor(), secret) {
            Ok(digester) => Some(digester),
            Err(error @ DigesterError::Key(_)) => return Err(error.into()),
            Err(_) => None,
        };
        Ok(Self { block: block.clone(), locks, digester, lock_acquire: timeouts.lock_acquire })
    }

    /// The locks of the block; none for who looks or repairs.
    pub fn locks(&self) -> Option<&LockTable> {
        self.locks.as_ref()
    }

    fn digester(&self) -> Result<&Digester, DigesterError> {
        self.digester.as_ref().ok_or_else(|| DigesterError::missing(self.block.descriptor()))
    }

    /// Zone `index` as a `Z`. Size and schema are checked here, once (DH-137).
    ///
    /// # Errors
    /// There is no such zone; it is smaller than `Z` ([`ZoneError::ZoneTooSmall`]); its schema does not agree with that of
    /// `Z` under `mode`.
    pub fn zone<Z: ZoneLayout>(&self, index: usize, mode: SchemaMode) -> Result<Zone<'_, Z>, ZoneError> {
        self.block.check()?;
        let descriptor = self.block.descriptor();
        let zones = descriptor.spec.zones.len();
        let spec = descriptor.spec.zones.get(index).ok_or(ZoneError::NoSuchZone { index, zones })?;
        let needed = size_of::<Z>() as u64;
        if spec.size < needed {
            return Err(ZoneError::ZoneTooSmall { index, size: spec.size, needed });
        }
        check_schema::<Z>(&descriptor.spec.schema.text, spec, mode)?;
        let control_at =
            *descriptor.geometry.zone_offsets.get(index).ok_or(ZoneError::NoSuchZone { index, zones })?;
        let writable = match self.block.role() {
            Role::Inspector | Role::Recovery => false,
            Role::Consumer => spec.consumer_writable,
            Role::Writer => true,
        };
        Ok(Zone {
            zones: self,
            index,
            spec,
            control: self.block.region().record(control_at)?,
            control_mut: if writable { Some(self.block.region().record_mut(control_at)?) } else { None },
            lock: self.locks.as_ref().and_then(|locks| locks.of_zone(index)),
            layout: PhantomData,
        })
    }

    /// Calls `body` with zone `index` as a `Z` of exactly this schema, under the lock of the zone if it has one (9.1). What
    /// `body` changes stays, whatever it returns; only what it changes by [`ZoneGuard::update`] is never seen by halves.
    ///
    /// # Errors
    /// [`TxError::Zone`] as [`Zones::zone`] and [`Zone::guard`], and `body` was not called; [`TxError::User`].
    pub fn with_zone<Z: ZoneLayout, R, E>(
        &self,
        index: usize,
        timeout: Timeout,
        body: impl FnOnce(&ZoneGuard<'_, '_, Z>) -> Result<R, E>,
    ) -> Result<R, TxError<E>> {
        let zone = self.zone::<Z>(index, SchemaMode::Strict)?;
        let guard = zone.guard(timeout)?.into_guard();
        body(&guard).map_err(TxError::User)
    }
}

/// One zone as a `Z`.
#[derive(Debug)]
pub struct Zone<'a, Z> {
    zones: &'a Zones,
    index: usize,
    spec: &'a ZoneSpec,
    control: Record<64>,
    /// None if this process may not write the zone (DH-139).
    control_mut: Option<RecordMut<64>>,
    lock: Option<SharedLock<'a>>,
    layout: PhantomData<fn() -> Z>,
}

impl<'a, Z: ZoneLayout> Zone<'a, Z> {
    /// Its fields, to look at atomics.
    ///
    /// # Errors
    /// This is a forked child.
    pub fn fields(&self) -> Result<Z::Read<'a>, ZoneError> {
        Z::read(self.bytes()?).ok_or_else(|| self.too_small())
    }

    /// Its fields, to change atomics. Changes made here leave the generation as it is: of several, a snapshot may show some.
    ///
    /// # Errors
    /// [`ZoneError::ReadOnly`] for a consumer that may not write this zone (DH-139).
    pub fn shared(&self) -> Result<Z::Shared<'a>, ZoneError> {
        Z::shared(self.bytes_mut()?).ok_or_else(|| self.too_small())
    }

    /// Takes the zone's lock, if it has one, and gives access to everything in it (DH-138). Without a lock it is for the
    /// caller to see that nobody else has a guard or updates.
    ///
    /// # Errors
    /// [`ZoneError::ReadOnly`]; the lock was not to be had.
    pub fn guard(&self, timeout: Timeout) -> Result<ZoneOutcome<'_, 'a, Z>, ZoneError> {
        self.control_mut()?;
        guard::guard(self, timeout)
    }

    /// Changes the zone so that no snapshot shows a part of it, under its lock, or as its only writer (DH-140). If
    /// `change` panics the zone is torn.
    ///
    /// # Errors
    /// [`ZoneError::TornZone`] if an earlier update was not finished: use [`Zone::repair`]; as [`Zone::guard`].
    pub fn update<R>(&self, timeout: Timeout, change: impl FnOnce(Z::Held<'_>) -> R) -> Result<R, ZoneError> {
        self.guard(timeout)?.into_guard().update(change)
    }

    /// As [`Zone::update`], for a zone that may be torn; `change` writes all of it. Says that it is whole again.
    ///
    /// # Errors
    /// As [`Zone::guard`]; somebody who lives is updating it.
    pub fn repair<R>(&self, timeout: Timeout, change: impl FnOnce(Z::Held<'_>) -> R) -> Result<R, ZoneError> {
        self.guard(timeout)?.into_guard().repair(change)
    }

    /// A private copy, none of it older or newer than the rest, as far as everybody changes the zone by updates (DH-140).
    ///
    /// # Errors
    /// [`ZoneError::TornZone`] if whoever updated it died over it (DH-141); updates ran all the time.
    pub fn snapshot(&self, timeout: Timeout) -> Result<Z, ZoneError>
    where
        Z: FromBytes + IntoBytes,
    {
        let mut copy = Z::new_zeroed();
        self.snapshot_into(timeout, copy.as_mut_bytes())?;
        Ok(copy)
    }

    /// As [`Zone::snapshot`], into as many bytes as `Z` has; returns the generation of the copy.
    ///
    /// # Errors
    /// As [`Zone::snapshot`]; `copy` has another length.
    pub fn snapshot_into(&self, timeout: Timeout, copy: &mut [u8]) -> Result<u64, ZoneError> {
        let deadline = timeout.deadline(self.zones.lock_acquire);
        let bytes = self.bytes()?;
        let words = self.generation();
        let mut wait = Backoff::new();
        loop {
            let state = words.state();
            match state {
                ZoneState::Whole(generation) => {
                    bytes.copy_to(copy)?;
                    if words.is_still(generation) {
                        return Ok(generation);
                    }
                }
                // The state is loaded again after the judgment: an update that ended meanwhile is none that was torn.
                ZoneState::Writing { writer, .. } if wait.asks(deadline) && self.is_over(writer) => {
                    if words.state() == state {
                        return Err(self.torn(writer));
                    }
                }
                ZoneState::Writing { .. } => {}
            }
            if !wait.pause(deadline) {
                return Err(ZoneError::Timeout { index: self.index });
            }
        }
    }

    /// Number of the zone.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether an update was begun and never finished.
    pub fn is_torn(&self) -> bool {
        match self.generation().state() {
            ZoneState::Whole(_) => false,
            ZoneState::Writing { writer, .. } => self.is_over(writer),
        }
    }

    /// Whether nobody is going to finish an update of `writer`.
    fn is_over(&self, writer: Option<ProcessKey>) -> bool {
        let place = Place::Lock(self.lock.map_or(u32::MAX, |lock| lock.index()));
        let block = &self.zones.block;
        // The own key is that of another thread, or of the program before an exec, about which nothing is known here.
        writer.is_none_or(|key| key != block.own_key() && block.liveness(key, place, false) == Liveness::Dead)
    }

    fn torn(&self, writer: Option<ProcessKey>) -> ZoneError {
        ZoneError::TornZone { index: self.index, writer }
    }

    fn too_small(&self) -> ZoneError {
        ZoneError::ZoneTooSmall { index: self.index, size: self.spec.size, needed: size_of::<Z>() as u64 }
    }

    /// The bytes of the `Z`.
    fn bytes(&self) -> Result<Span<'a>, ZoneError> {
        self.zones.block.check()?;
        let zone = self.zones.block.zone(self.index).ok_or_else(|| self.too_small())?;
        Ok(zone.sub(0..size_of::<Z>())?)
    }

    fn bytes_mut(&self) -> Result<SpanMut<'a>, ZoneError> {
        self.zones.block.check()?;
        self.control_mut()?;
        let zone = self.zones.block.zone_mut(self.index).ok_or_else(|| self.too_small())?;
        Ok(zone.sub_mut(0..size_of::<Z>())?)
    }

    fn control_mut(&self) -> Result<&RecordMut<64>, ZoneError> {
        self.control_mut.as_ref().ok_or(ZoneError::ReadOnly { index: self.index })
    }

    fn generation(&self) -> GenerationWords<tidegate_shm::region::SharedU64<'_>> {
        let row = self.control.row();
        GenerationWords::new(
            row.u64::<{ offset_of!(ZoneControl, write_generation) }>(),
            row.u64::<{ offset_of!(ZoneControl, last_writer) }>(),
            row.u64::<{ offset_of!(ZoneControl, last_write_ns) }>(),
        )
    }

    fn generation_mut(&self) -> Result<GenerationWords<tidegate_shm::region::SharedU64Mut<'_>>, ZoneError> {
        let row = self.control_mut()?.row();
        Ok(GenerationWords::new(
            row.u64::<{ offset_of!(ZoneControl, write_generation) }>(),
            row.u64::<{ offset_of!(ZoneControl, last_writer) }>(),
            row.u64::<{ offset_of!(ZoneControl, last_write_ns) }>(),
        ))
    }
}

/// Judges the schema of a zone (DH-137, DH-171, DH-176).
fn check_schema<Z: ZoneLayout>(
    texts: &str,
    spec: &ZoneSpec,
    mode: SchemaMode,
) -> Result<Agreement, ZoneError> {
    let hash = SchemaHash::from_bytes(spec.schema_hash);
    let (major, minor) = spec.version;
    let line = spec.text_index.and_then(|index| texts.split('\n').nth(index as usize));
    let offer = Offer { hash, version: SchemaVersion::new(major, minor), text: line };
    let schema = Schema::parse(Z::TEXT)?;
    let expected = SchemaExpectation { schema, version: Z::VERSION, min_minor: 0, mode };
    Ok(compare(&expected, &offer)?)
}

/// Waiting for an update to end: spins for a moment, then sleeps a little between looks. Updates are short; there is no
/// word to sleep on.
struct Backoff {
    started: Option<Nanos>,
    asked: Nanos,
}

impl Backoff {
    fn new() -> Self {
        Self { started: None, asked: Nanos::ZERO }
    }

    /// Whether to find out if the writer lives: after 50 ms, then every 100 ms (DH-036), and before giving up.
    fn asks(&mut self, deadline: Deadline) -> bool {
        let now = monotonic_now();
        let time = now.saturating_sub(*self.started.get_or_insert(now));
        let due = deadline.passed(now) || time >= self.asked.saturating_add(PROBE_AFTER);
        if due {
            self.asked = time.saturating_add(PROBE_EVERY.saturating_sub(PROBE_AFTER));
        }
        due
    }

    /// Waits a little; false when the deadline has passed.
    fn pause(&mut self, deadline: Deadline) -> bool {
        let now = monotonic_now();
        let time = now.saturating_sub(*self.started.get_or_insert(now));
        if deadline.passed(now) {
            return false;
        }
        if time < SPIN {
            tidegate_shm::sync::spin_loop();
        } else {
            std::thread::sleep(PAUSE.min(deadline.left(now)).into());
        }
        true
    }
}

const SPIN: Nanos = Nanos(100_000);
const PAUSE: Nanos = Nanos(200_000);
const PROBE_AFTER: Nanos = Nanos::from_millis(50);
const PROBE_EVERY: Nanos = Nanos::from_millis(100);
