//! The one place where atomics come from, so that the model checker runs the shipped code.
//!
//! Normally these types are `std`'s; under `cfg(loom)` they are loom's, which only work inside `loom::model`. They are
//! aliases instead of re-exports because clippy's `disallowed_types` sees through a re-export, but not through an
//! alias: that is how the lint can forbid the originals everywhere else.
//!
//! Words inside a mapping are always `std` atomics, also under `cfg(loom)`, since loom's cannot live at a given
//! address. They are `Mapped*` here and reach users as [`SharedU32`](crate::region::SharedU32) and its relatives.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

#[cfg(loom)]
use loom::sync::atomic as backend;
#[cfg(not(loom))]
use std::sync::atomic as backend;

#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};
pub use std::sync::atomic::Ordering;
#[cfg(not(loom))]
pub use std::{
    hint::spin_loop,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

/// An atomic truth value.
pub type AtomicBool = backend::AtomicBool;
/// An 8-bit atomic integer.
pub type AtomicU8 = backend::AtomicU8;
/// A 16-bit atomic integer.
pub type AtomicU16 = backend::AtomicU16;
/// A 32-bit atomic integer.
pub type AtomicU32 = backend::AtomicU32;
/// A 64-bit atomic integer.
pub type AtomicU64 = backend::AtomicU64;
/// An 8-bit signed atomic integer.
pub type AtomicI8 = backend::AtomicI8;
/// A 16-bit signed atomic integer.
pub type AtomicI16 = backend::AtomicI16;
/// A 32-bit signed atomic integer.
pub type AtomicI32 = backend::AtomicI32;
/// A 64-bit signed atomic integer.
pub type AtomicI64 = backend::AtomicI64;
/// A pointer-sized atomic integer.
pub type AtomicUsize = backend::AtomicUsize;

/// `std`'s fence of that name, or loom's in a model.
#[inline]
pub fn fence(order: Ordering) {
    backend::fence(order);
}

/// [`fence`], unless a weakened model leaves it out.
#[inline]
pub(crate) fn fence_if(order: Option<Ordering>) {
    if let Some(order) = order {
        fence(order);
    }
}

/// Atomics that live in a mapping: always `std`'s.
pub(crate) type MappedU8 = std::sync::atomic::AtomicU8;
/// See [`MappedU8`].
pub(crate) type MappedU16 = std::sync::atomic::AtomicU16;
/// See [`MappedU8`].
pub(crate) type MappedU32 = std::sync::atomic::AtomicU32;
/// See [`MappedU8`].
pub(crate) type MappedU64 = std::sync::atomic::AtomicU64;

/// See [`MappedU8`].
pub(crate) type MappedI8 = std::sync::atomic::AtomicI8;
/// See [`MappedU8`].
pub(crate) type MappedI16 = std::sync::atomic::AtomicI16;
/// See [`MappedU8`].
pub(crate) type MappedI32 = std::sync::atomic::AtomicI32;
/// See [`MappedU8`].
pub(crate) type MappedI64 = std::sync::atomic::AtomicI64;

/// Plain memory in a model: using it from two threads at once, one of which writes, is reported as an error.
#[cfg(loom)]
#[derive(Debug)]
pub struct CheckedCell(loom::cell::UnsafeCell<u64>);

// SAFETY: loom panics on every access that is not ordered with all other ones.
#[cfg(loom)]
unsafe impl Sync for CheckedCell {}

#[cfg(loom)]
impl CheckedCell {
    /// Memory that holds `value`.
    pub fn new(value: u64) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    /// Reads it.
    pub fn read(&self) -> u64 {
        // SAFETY: loom found no write that is concurrent with this.
        self.0.with(|value| unsafe { *value })
    }

    /// Writes it.
    pub fn write(&self, new: u64) {
        // SAFETY: loom found no use that is concurrent with this.
        self.0.with_mut(|value| unsafe { *value = new });
    }
}
