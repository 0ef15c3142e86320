//! Copies by relaxed atomic accesses. Words are cut at multiples of 8 of the shared address, so that all parties use
//! the same words.

use crate::sync::{MappedU8, MappedU16, MappedU32, MappedU64, Ordering::Relaxed};

const WORD: usize = size_of::<u64>();

/// Copies out of shared memory.
///
/// # Safety
/// `len` bytes from `source` on are mapped. `target` is valid for writing `len` bytes, which nobody else touches.
pub(super) unsafe fn from_shared(source: *const u8, target: *mut u8, len: usize) {
    let (head, words) = split(source, len);
    let body = head + words * WORD;
    for at in (0..head).chain(body..len) {
        // SAFETY: `at < len`.
        let byte = unsafe { load_u8(source.wrapping_add(at)) };
        // SAFETY: `at < len`.
        unsafe { target.wrapping_add(at).write(byte) };
    }
    for at in (head..body).step_by(WORD) {
        // SAFETY: a whole word inside the range, at a multiple of its size.
        let word = unsafe { word(source.wrapping_add(at)) }.load(Relaxed);
        // SAFETY: inside the range; the target may be unaligned.
        unsafe { target.wrapping_add(at).cast::<u64>().write_unaligned(word) };
    }
}

/// Copies into shared memory.
///
/// # Safety
/// `source` is valid for reading `len` bytes, which nobody else writes. `len` bytes from `target` on are mapped
/// writable.
pub(super) unsafe fn to_shared(source: *const u8, target: *mut u8, len: usize) {
    let (head, words) = split(target, len);
    let body = head + words * WORD;
    for at in (0..head).chain(body..len) {
        // SAFETY: `at < len`.
        let byte = unsafe { source.wrapping_add(at).read() };
        // SAFETY: `at < len`.
        unsafe { byte_at(target.wrapping_add(at)) }.store(byte, Relaxed);
    }
    for at in (head..body).step_by(WORD) {
        // SAFETY: inside the range; the source may be unaligned.
        let value = unsafe { source.wrapping_add(at).cast::<u64>().read_unaligned() };
        // SAFETY: a whole word inside the range, at a multiple of its size.
        unsafe { word(target.wrapping_add(at)) }.store(value, Relaxed);
    }
}

/// Copies between two places in shared memory.
///
/// # Safety
/// `len` bytes from both addresses on are mapped, those at `target` writable.
pub(super) unsafe fn between_shared(source: *const u8, target: *mut u8, len: usize) {
    let mut buffer = [0; 4096];
    for at in (0..len).step_by(buffer.len()) {
        let part = buffer.len().min(len - at);
        // SAFETY: `at + part <= len`.
        unsafe { from_shared(source.wrapping_add(at), buffer.as_mut_ptr(), part) };
        // SAFETY: `at + part <= len`.
        unsafe { to_shared(buffer.as_ptr(), target.wrapping_add(at), part) };
    }
}

/// Sets bytes of shared memory.
///
/// # Safety
/// `len` bytes from `target` on are mapped writable.
pub(in super::super) unsafe fn fill_shared(target: *mut u8, byte: u8, len: usize) {
    let (head, words) = split(target, len);
    let body = head + words * WORD;
    for at in (0..head).chain(body..len) {
        // SAFETY: `at < len`.
        unsafe { byte_at(target.wrapping_add(at)) }.store(byte, Relaxed);
    }
    let value = u64::from_ne_bytes([byte; WORD]);
    for at in (head..body).step_by(WORD) {
        // SAFETY: a whole word inside the range, at a multiple of its size.
        unsafe { word(target.wrapping_add(at)) }.store(value, Relaxed);
    }
}

/// Loads a byte.
///
/// # Safety
/// The byte is mapped.
#[inline]
pub(in super::super) unsafe fn load_u8(source: *const u8) -> u8 {
    // SAFETY: passed on to the caller.
    unsafe { byte_at(source) }.load(Relaxed)
}

/// Defines loads of values at any address: at a multiple of their size in one piece, elsewhere byte by byte.
macro_rules! load {
    ($name:ident, $value:ty, $atomic:ty) => {
        /// # Safety
        /// The bytes of the value are mapped.
        #[inline]
        pub(in super::super) unsafe fn $name(source: *const u8) -> $value {
            if source.cast::<$value>().is_aligned() {
                // SAFETY: mapped by the caller's word, aligned, only loaded.
                return unsafe { <$atomic>::from_ptr(source.cast_mut().cast()) }.load(Relaxed);
            }
            let mut bytes = [0; size_of::<$value>()];
            // SAFETY: passed on to the caller; the target is a local variable.
            unsafe { from_shared(source, bytes.as_mut_ptr(), bytes.len()) };
            <$value>::from_ne_bytes(bytes)
        }
    };
}

load!(load_u16, u16, MappedU16);
load!(load_u32, u32, MappedU32);
load!(load_u64, u64, MappedU64);

/// How many bytes lie before the first word, and how many words follow.
fn split(shared: *const u8, len: usize) -> (usize, usize) {
    let head = shared.align_offset(WORD).min(len);
    (head, (len - head) / WORD)
}

/// # Safety
/// The byte is mapped, writable if it will be stored to.
unsafe fn byte_at<'a>(address: *const u8) -> &'a MappedU8 {
    // SAFETY: passed on to the caller; a byte is always aligned.
    unsafe { MappedU8::from_ptr(address.cast_mut()) }
}

/// # Safety
/// The eight bytes are mapped, writable if they will be stored to, and `address` is a multiple of 8.
unsafe fn word<'a>(address: *const u8) -> &'a MappedU64 {
    // SAFETY: passed on to the caller.
    unsafe { MappedU64::from_ptr(address.cast_mut().cast()) }
}
