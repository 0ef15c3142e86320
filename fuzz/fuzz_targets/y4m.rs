//! The .y4m reader: any bytes behind the magic give frames of the promised size or an error.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tidegate::media::{OpenOptions, open_stream};

fuzz_target!(|input: (bool, &[u8])| {
    let (single_tensor, rest) = input;
    let mut bytes = b"YUV4MPEG2".to_vec();
    bytes.extend_from_slice(rest);
    let options = OpenOptions { single_tensor, raw: None };
    let Ok(mut source) = open_stream("input", Box::new(Cursor::new(bytes)), options) else { return };
    let len = source.layout().packed_bytes();
    while let Ok(Some(frame)) = source.next_frame() {
        assert_eq!(frame.bytes.len() as u64, len);
    }
});
