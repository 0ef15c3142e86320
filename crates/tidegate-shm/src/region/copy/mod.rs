//! Copies between private memory and memory that others may write meanwhile.
//!
//! A plain copy of such memory would be a data race, which Rust leaves undefined, so there are two ways to copy:
//!
//! - [`portable`]: relaxed atomic accesses, on every machine and for every length. Sanitizers see it.
//! - `x86_64`: assembly, about which the compiler can assume nothing, from 16 bytes on.
//!
//! Two parties that touch the same bytes may do so in pieces of different sizes, when their ranges begin or end inside
//! of a word. Rust does not define such races between its own atomics; x86-64 and AArch64 do, as accesses to the single
//! bytes. All that is relied on is that each byte is one that somebody stored: what the bytes mean together is never
//! believed before the commit word has confirmed it.
//!
//! `cargo bench -p tidegate-shm` compares with `memcpy`. Measured on a Xeon of 2023 at 640 KiB: atomic words reach 70
//! to 80 %, 16-byte moves 86 to 105 % depending on alignment, `rep movsb` 99 to 102 %. At 256 bytes `rep movsb` has
//! half the speed of the moves; they meet between 1 and 4 KiB. At 8 MiB all are limited by memory and equal.

mod portable;
#[cfg(all(target_arch = "x86_64", not(portable_copy)))]
mod x86_64;

pub(super) use portable::{fill_shared, load_u8, load_u16, load_u32, load_u64};

/// Copies out of shared memory.
///
/// # Safety
/// `len` bytes from `source` on are mapped. `target` is valid for writing `len` bytes, which nobody else touches.
#[inline]
pub(super) unsafe fn from_shared(source: *const u8, target: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(portable_copy)))]
    if len >= x86_64::SHORTEST {
        // SAFETY: passed on to the caller.
        return unsafe { x86_64::copy(source, target, len) };
    }
    // SAFETY: passed on to the caller.
    unsafe { portable::from_shared(source, target, len) }
}

/// Copies into shared memory.
///
/// # Safety
/// `source` is valid for reading `len` bytes, which nobody else writes. `len` bytes from `target` on are mapped
/// writable.
#[inline]
pub(super) unsafe fn to_shared(source: *const u8, target: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(portable_copy)))]
    if len >= x86_64::SHORTEST {
        // SAFETY: passed on to the caller.
        return unsafe { x86_64::copy(source, target, len) };
    }
    // SAFETY: passed on to the caller.
    unsafe { portable::to_shared(source, target, len) }
}

/// Copies between two places in shared memory.
///
/// # Safety
/// `len` bytes from both addresses on are mapped, those at `target` writable.
#[inline]
pub(super) unsafe fn between_shared(source: *const u8, target: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(portable_copy)))]
    if len >= x86_64::SHORTEST {
        // SAFETY: passed on to the caller.
        return unsafe { x86_64::copy(source, target, len) };
    }
    // SAFETY: passed on to the caller.
    unsafe { portable::between_shared(source, target, len) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Copy = unsafe fn(*const u8, *mut u8, usize);

    /// Every way to copy that exists in this build, and the fewest bytes it can copy.
    const WAYS: &[(&str, Copy, usize)] = &[
        ("from_shared", from_shared, 0),
        ("to_shared", to_shared, 0),
        ("between_shared", between_shared, 0),
        ("portable::from_shared", portable::from_shared, 0),
        ("portable::to_shared", portable::to_shared, 0),
        ("portable::between_shared", portable::between_shared, 0),
        #[cfg(all(target_arch = "x86_64", not(portable_copy)))]
        ("x86_64::copy_string", x86_64::copy_string, 0),
        #[cfg(all(target_arch = "x86_64", not(portable_copy)))]
        ("x86_64::copy_by_moves", x86_64::copy_by_moves, x86_64::SHORTEST),
    ];

    /// Copies inside of two buffers with guards around and compares everything.
    fn check(from: usize, to: usize, len: usize) {
        let source: Vec<u8> = (0..from + len + 32).map(|i| (i * 7 + 1) as u8 | 1).collect();
        for (name, copy, _) in WAYS.iter().filter(|(_, _, shortest)| len >= *shortest) {
            let mut target = vec![0; to + len + 32];
            // SAFETY: both buffers are longer than offset plus length, private, and do not overlap.
            unsafe { copy(source.as_ptr().wrapping_add(from), target.as_mut_ptr().wrapping_add(to), len) };
            let mut expected = vec![0; to + len + 32];
            expected[to..to + len].copy_from_slice(&source[from..from + len]);
            assert_eq!(target, expected, "{name} from {from} to {to}, {len} bytes");
        }
    }

    #[test]
    fn copies_are_exact_at_every_small_length_and_alignment() {
        for len in 0..200 {
            for from in 0..9 {
                check(from, 8 - from, len);
            }
        }
    }

    #[test]
    fn fills_are_exact_at_every_small_length_and_alignment() {
        for len in 0..100 {
            for at in 0..9 {
                let mut target = vec![1; at + len + 32];
                // SAFETY: the buffer is longer than offset plus length and private.
                unsafe { fill_shared(target.as_mut_ptr().wrapping_add(at), 9, len) };
                let mut expected = vec![1; at + len + 32];
                expected[at..at + len].fill(9);
                assert_eq!(target, expected, "{len} bytes at {at}");
            }
        }
    }

    #[test]
    fn loads_are_little_endian_at_every_alignment() {
        let bytes: Vec<u8> = (1..=32).collect();
        for at in 0..16 {
            let source = bytes.as_ptr().wrapping_add(at);
            // SAFETY: two bytes inside the buffer.
            let two = unsafe { load_u16(source) };
            // SAFETY: four bytes inside the buffer.
            let four = unsafe { load_u32(source) };
            // SAFETY: eight bytes inside the buffer.
            let eight = unsafe { load_u64(source) };
            assert_eq!(two.to_le_bytes(), bytes[at..at + 2]);
            assert_eq!(four.to_le_bytes(), bytes[at..at + 4]);
            assert_eq!(eight.to_le_bytes(), bytes[at..at + 8]);
        }
    }

    proptest! {
        #[test]
        fn copies_are_exact_at_any_length(from in 0_usize..64, to in 0_usize..64, len in 0_usize..20_000) {
            check(from, to, len);
        }
    }
}
