//! Atomic words inside a mapping.
//!
//! On pages mapped read-only Rust promises only relaxed loads, so that is what every load here is; an acquiring load
//! is a relaxed one followed by an Acquire fence, which is at least as strong. Release orders given to a load, and
//! acquire orders given to a store, have no meaning there and are dropped instead of raising a panic.

use std::{fmt, ptr::NonNull};

use super::mapping::Region;
use crate::sync::{
    AtomicU64, MappedI8, MappedI16, MappedI32, MappedI64, MappedU8, MappedU16, MappedU32, MappedU64,
    Ordering, fence,
};

/// A 64-bit word that can be loaded: in a mapping, or a plain atomic of [`crate::sync`].
pub trait LoadU64 {
    /// Loads with no ordering; the caller adds the fences it needs.
    fn load_relaxed(&self) -> u64;
}

/// A 64-bit word that can be stored.
pub trait StoreU64: LoadU64 {
    /// Stores, Relaxed or Release.
    fn store(&self, value: u64, order: Ordering);
}

impl<T: LoadU64> LoadU64 for &T {
    #[inline]
    fn load_relaxed(&self) -> u64 {
        T::load_relaxed(self)
    }
}

impl<T: StoreU64> StoreU64 for &T {
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        T::store(self, value, order);
    }
}

impl LoadU64 for AtomicU64 {
    #[inline]
    fn load_relaxed(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

impl StoreU64 for AtomicU64 {
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, store_order(order));
    }
}

/// Defines the loading and the storing view of a word.
macro_rules! word {
    ($load:ident, $update:ident, $atomic:ty, $value:ty, $bits:literal) => {
        #[doc = concat!("A ", $bits, "-bit word of a [`Region`], which can only be loaded.")]
        #[derive(Clone, Copy)]
        pub struct $load<'a> {
            word: &'a $atomic,
        }

        impl<'a> $load<'a> {
            #[inline]
            pub(super) const fn new(word: &'a $atomic) -> Self {
                Self { word }
            }

            /// Loads the word; see the module text for what `order` does.
            #[inline]
            pub fn load(&self, order: Ordering) -> $value {
                if order == Ordering::SeqCst {
                    // Joins the single order of all SeqCst fences before reading.
                    fence(Ordering::SeqCst);
                }
                let value = self.word.load(Ordering::Relaxed);
                if matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst) {
                    // Pairs with the release of whoever stored `value`.
                    fence(Ordering::Acquire);
                }
                value
            }

            /// The word itself, for system calls that take its address.
            #[allow(dead_code, reason = "only one of the widths has system calls")]
            pub(crate) fn atomic(&self) -> &'a $atomic {
                self.word
            }
        }

        impl fmt::Debug for $load<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($load)).field(&self.load(Ordering::Relaxed)).finish()
            }
        }

        #[doc = concat!("A ", $bits, "-bit word of a [`RegionMut`](super::RegionMut), which can be changed.")]
        #[derive(Clone, Copy)]
        pub struct $update<'a> {
            word: &'a $atomic,
        }

        impl<'a> $update<'a> {
            /// # Safety
            /// The word lies in a writable mapping.
            #[inline]
            pub(super) unsafe fn new(word: &'a $atomic) -> Self {
                Self { word }
            }

            /// The same word without the right to change it.
            #[inline]
            pub fn as_shared(&self) -> $load<'a> {
                $load { word: self.word }
            }

            /// Loads the word; see the module text for what `order` does.
            #[inline]
            pub fn load(&self, order: Ordering) -> $value {
                self.as_shared().load(order)
            }

            /// Stores `value`; see the module text for what `order` does.
            #[inline]
            pub fn store(&self, value: $value, order: Ordering) {
                self.word.store(value, store_order(order));
            }

            /// Adds, wrapping around, and returns the value before.
            #[inline]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.word.fetch_add(value, order)
            }

            /// Subtracts, wrapping around, and returns the value before.
            #[inline]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.word.fetch_sub(value, order)
            }

            /// Sets the bits of `value` and returns the value before.
            #[inline]
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.word.fetch_or(value, order)
            }

            /// Keeps only the bits of `value` and returns the value before.
            #[inline]
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.word.fetch_and(value, order)
            }

            /// Stores `value` and returns the value before.
            #[inline]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.word.swap(value, order)
            }

            /// Replaces `current` by `new`; on failure loads with the acquiring half of `order`.
            ///
            /// # Errors
            /// The value found, when it is not `current`.
            #[inline]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                order: Ordering,
            ) -> Result<$value, $value> {
                let failure = match order {
                    Ordering::Relaxed | Ordering::Release => Ordering::Relaxed,
                    Ordering::SeqCst => Ordering::SeqCst,
                    _ => Ordering::Acquire,
                };
                self.word.compare_exchange(current, new, order, failure)
            }
        }

        impl fmt::Debug for $update<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($update)).field(&self.load(Ordering::Relaxed)).finish()
            }
        }
    };
}

word!(SharedU32, SharedU32Mut, MappedU32, u32, "32");
word!(SharedU64, SharedU64Mut, MappedU64, u64, "64");
word!(SharedU8, SharedU8Mut, MappedU8, u8, "8");
word!(SharedU16, SharedU16Mut, MappedU16, u16, "16");
word!(SharedI8, SharedI8Mut, MappedI8, i8, "signed 8");
word!(SharedI16, SharedI16Mut, MappedI16, i16, "signed 16");
word!(SharedI32, SharedI32Mut, MappedI32, i32, "signed 32");
word!(SharedI64, SharedI64Mut, MappedI64, i64, "signed 64");

impl LoadU64 for SharedU64<'_> {
    #[inline]
    fn load_relaxed(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

impl LoadU64 for SharedU64Mut<'_> {
    #[inline]
    fn load_relaxed(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

impl StoreU64 for SharedU64Mut<'_> {
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        SharedU64Mut::store(self, value, order);
    }
}

/// A 64-bit word of a [`Region`] together with a hold on the region, for values that outlive a borrow.
#[derive(Clone)]
pub struct OwnedU64 {
    region: Region,
    word: NonNull<MappedU64>,
}

// SAFETY: the pointer is only used for atomic loads from a mapping that `region` keeps alive.
unsafe impl Send for OwnedU64 {}
// SAFETY: as above.
unsafe impl Sync for OwnedU64 {}

impl OwnedU64 {
    /// # Safety
    /// `word` lies in the mapping of `region`.
    pub(super) unsafe fn new(region: Region, word: NonNull<MappedU64>) -> Self {
        Self { region, word }
    }

    /// The word, borrowed.
    #[inline]
    pub fn as_shared(&self) -> SharedU64<'_> {
        // SAFETY: lies in the mapping that `self.region` keeps alive, as `new` was promised.
        SharedU64::new(unsafe { self.word.as_ref() })
    }

    /// The region the word lies in.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl LoadU64 for OwnedU64 {
    #[inline]
    fn load_relaxed(&self) -> u64 {
        self.as_shared().load_relaxed()
    }
}

impl fmt::Debug for OwnedU64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedU64").field(&self.load_relaxed()).finish()
    }
}

/// The part of `order` that a store has.
#[inline]
fn store_order(order: Ordering) -> Ordering {
    match order {
        Ordering::Release | Ordering::AcqRel => Ordering::Release,
        Ordering::SeqCst => Ordering::SeqCst,
        _ => Ordering::Relaxed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_keep_what_releases_and_drop_what_acquires() {
        let kept = [Ordering::Relaxed, Ordering::Release, Ordering::SeqCst];
        assert_eq!(kept.map(store_order), kept);
        assert_eq!(store_order(Ordering::AcqRel), Ordering::Release);
        assert_eq!(store_order(Ordering::Acquire), Ordering::Relaxed);
    }
}
