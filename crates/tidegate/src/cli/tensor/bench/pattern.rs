//! Payloads whose every byte says which frame it belongs to.
//!
//! A payload is a row of little-endian words of 8 bytes: the stamp, then for each place a mixture of stamp and place. A
//! tear, a frame mistaken for another and a shifted copy all differ somewhere.

/// Bytes of the stamp; no payload is shorter.
pub(super) const STAMP_LEN: usize = 8;

/// Fills `payload` for this stamp.
pub(super) fn fill(payload: &mut [u8], stamp: u64) {
    let mut value = stamp;
    let step = stamp.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for word in payload.chunks_mut(STAMP_LEN) {
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        value = value.wrapping_add(step);
    }
}

/// A new payload for this stamp.
pub(super) fn payload(bytes: usize, stamp: u64) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    fill(&mut payload, stamp);
    payload
}

/// The stamp of a payload; 0 when it is too short to have one.
pub(super) fn stamp_of(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_different_stamps_differ_everywhere() {
        let (a, b) = (payload(4096, 5), payload(4096, 6));
        assert_eq!((stamp_of(&a), stamp_of(&b)), (5, 6));
        let same = a.chunks(STAMP_LEN).zip(b.chunks(STAMP_LEN)).filter(|(a, b)| a == b).count();
        assert_eq!(same, 0, "a tear between any two words shows");
        assert!(a.chunks(STAMP_LEN).skip(1).zip(a.chunks(STAMP_LEN)).all(|(next, word)| next != word));
        assert_eq!(payload(13, 5), a[..13]);
    }
}
