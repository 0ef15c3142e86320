//! Replies of an authentication handler.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_io::message::{Message, Part};
use tidegate_zmtp::auth::Verdict;
use tidegate_zmtp::zap;

fuzz_target!(|input: &[u8]| {
    // Parts are preceded by their length.
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some((&len, tail)) = rest.split_first() {
        let (part, tail) = tail.split_at(tail.len().min(usize::from(len)));
        parts.push(Part::copy_from(part));
        rest = tail;
    }
    let reply: Message = parts.iter().cloned().collect();
    let verdict = zap::verdict(b"1", &reply);
    if matches!(verdict, Verdict::Accept { .. }) {
        let texts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        assert_eq!(
            (texts.len(), texts[0], texts[1], texts[2], texts[3]),
            (7, &b""[..], &b"1.0"[..], &b"1"[..], &b"200"[..])
        );
    }
});
