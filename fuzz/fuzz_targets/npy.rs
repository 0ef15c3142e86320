//! The .npy reader: any bytes behind the magic give frames of the promised size or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

mod media;

fuzz_target!(|input: (bool, &[u8])| media::read_frames(b"\x93NUMPY", input));
