//! What the targets of the media readers have in common.

use std::io::Cursor;

use tidegate::media::{OpenOptions, open_stream};

/// Reads all frames of `magic` and any bytes behind it: each has the promised size, or there is an error.
pub fn read_frames(magic: &[u8], (single_tensor, rest): (bool, &[u8])) {
    let bytes = [magic, rest].concat();
    let options = OpenOptions { single_tensor, raw: None };
    let Ok(mut source) = open_stream("input", Box::new(Cursor::new(bytes)), options) else { return };
    let len = source.layout().packed_bytes();
    while let Ok(Some(frame)) = source.next_frame() {
        assert_eq!(frame.bytes.len() as u64, len);
    }
}
