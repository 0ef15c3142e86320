//! What a worker says over its socket, and records of its answers.

#![no_main]

use tidegate_udf::wire::{
    message::{FromRuntime, FromWorker},
    record::{Direction, Records, headers},
};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(message) = FromWorker::decode(input) {
        // What was understood can be said.
        let _ = message.encode();
    }
    let _ = FromRuntime::decode(input);
    let Some((&[count, inputs], payload)) = input.split_first_chunk() else { return };
    for direction in [Direction::Request, Direction::Response { inputs: inputs.into() }] {
        if let Ok(records) = Records::parse(payload, count.into(), direction) {
            let mut bytes = 0;
            for record in records {
                bytes += record.value.len() + record.key.len() + record.headers.len();
                headers(record.headers).for_each(drop);
            }
            assert!(bytes <= payload.len());
        }
    }
});
