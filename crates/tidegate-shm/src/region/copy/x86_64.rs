//! Copies in assembly: 16-byte moves, which every x86-64 has, and for long ones `rep movsb` where it is fast.
//!
//! Both are ordinary for the memory model of the processor: loads keep their order; the bytes stored by one `rep movsb`
//! may become visible in any order among each other, but before every store that follows, such as that of a commit
//! word.

use std::arch::{asm, is_x86_feature_detected};

/// Shorter copies cannot be made here.
pub(super) const SHORTEST: usize = MOVE;

const MOVE: usize = 16;
const BLOCK: usize = 4 * MOVE;
/// From here on `rep movsb` is at least as fast as moves, on processors that announce it.
const LONG: usize = 4096;

/// Copies `len` bytes; either side may be shared.
///
/// # Safety
/// `len` is at least [`SHORTEST`]; `len` bytes from `source` on may be read and from `target` on be written.
#[inline]
pub(super) unsafe fn copy(source: *const u8, target: *mut u8, len: usize) {
    if len >= LONG && is_x86_feature_detected!("ermsb") {
        // SAFETY: passed on to the caller.
        unsafe { copy_string(source, target, len) }
    } else {
        // SAFETY: passed on to the caller.
        unsafe { copy_by_moves(source, target, len) }
    }
}

/// # Safety
/// `len` bytes from `source` on may be read and from `target` on be written.
#[inline]
pub(super) unsafe fn copy_string(source: *const u8, target: *mut u8, len: usize) {
    // SAFETY: reads and writes only the `len` bytes; no reference to shared bytes exists that the compiler could rely
    // on, and without `nomem` or `readonly` it assumes that any memory may have changed. The direction flag is clear
    // on entry to every `asm!`.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") source => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags),
        );
    }
}

/// The last move may repeat bytes of the one before it.
///
/// # Safety
/// As [`copy`].
#[inline]
pub(super) unsafe fn copy_by_moves(source: *const u8, target: *mut u8, len: usize) {
    let blocks = len / BLOCK;
    if blocks > 0 {
        // SAFETY: all blocks lie inside the `len` bytes.
        unsafe { copy_blocks(source, target, blocks) };
    }
    for at in (blocks * BLOCK..len - (MOVE - 1)).step_by(MOVE) {
        // SAFETY: `at + MOVE <= len`.
        unsafe { copy_move(source.wrapping_add(at), target.wrapping_add(at)) };
    }
    if !len.is_multiple_of(MOVE) {
        let at = len - MOVE;
        // SAFETY: the last `MOVE` bytes of at least as many.
        unsafe { copy_move(source.wrapping_add(at), target.wrapping_add(at)) };
    }
}

/// # Safety
/// `blocks` is not 0, and that many blocks may be read at `source` and written at `target`.
#[inline]
unsafe fn copy_blocks(source: *const u8, target: *mut u8, blocks: usize) {
    // SAFETY: as in `copy_string`, for whole blocks.
    unsafe {
        asm!(
            "2:",
            "movups {a}, [{source}]",
            "movups {b}, [{source} + 16]",
            "movups {c}, [{source} + 32]",
            "movups {d}, [{source} + 48]",
            "movups [{target}], {a}",
            "movups [{target} + 16], {b}",
            "movups [{target} + 32], {c}",
            "movups [{target} + 48], {d}",
            "add {source}, 64",
            "add {target}, 64",
            "dec {blocks}",
            "jnz 2b",
            source = inout(reg) source => _,
            target = inout(reg) target => _,
            blocks = inout(reg) blocks => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// # Safety
/// 16 bytes may be read at `source` and written at `target`.
#[inline]
unsafe fn copy_move(source: *const u8, target: *mut u8) {
    // SAFETY: as in `copy_string`, for 16 bytes.
    unsafe {
        asm!(
            "movups {a}, [{source}]",
            "movups [{target}], {a}",
            source = in(reg) source,
            target = in(reg) target,
            a = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}
