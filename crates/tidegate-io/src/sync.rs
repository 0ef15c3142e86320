//! The one place where this crate's atomics and locks come from, so that the model checker runs the shipped code.
//!
//! Normally these are `std`'s; under `cfg(loom)` they are loom's, which only work inside `loom::model`. The atomics are
//! aliases instead of re-exports because clippy's `disallowed_types` sees through a re-export, but not through an
//! alias: that is how the lint can forbid the originals everywhere else.

#![allow(clippy::disallowed_types, reason = "see the module text")]

#[cfg(loom)]
use loom::sync::atomic as backend;
#[cfg(not(loom))]
use std::sync::atomic as backend;

#[cfg(loom)]
pub use loom::{
    sync::{Arc, Mutex, MutexGuard},
    thread, thread_local,
};
use std::sync::PoisonError;
pub use std::sync::atomic::Ordering;
#[cfg(not(loom))]
pub use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread, thread_local,
};

/// An atomic truth value.
pub type AtomicBool = backend::AtomicBool;
/// A 32-bit atomic integer.
pub type AtomicU32 = backend::AtomicU32;
/// A 64-bit atomic integer.
pub type AtomicU64 = backend::AtomicU64;
/// A pointer-sized atomic integer.
pub type AtomicUsize = backend::AtomicUsize;

/// Locks, also when another thread panicked while it held the lock: no code of ours panics in the middle of a change,
/// and a caller's panic must not spread to other threads.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
