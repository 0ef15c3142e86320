//! Fixed-offset access to byte arrays.
//!
//! Offsets are constants of the layout modules and lie inside the arrays they are used with; the optimiser turns each
//! call into one unaligned load or store (TP-074, TP-087).

/// The `N` bytes at `at`.
#[inline(always)]
pub(crate) fn get<const N: usize, const M: usize>(from: &[u8; M], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&from[at..at + N]);
    field
}

/// Stores `field` at `at`.
#[inline(always)]
pub(crate) fn put<const N: usize, const M: usize>(to: &mut [u8; M], at: usize, field: [u8; N]) {
    to[at..at + N].copy_from_slice(&field);
}
