//! The messages of a cell of the matrix: numbered, of every size class, of one to five parts, some of them empty.

use std::sync::LazyLock;

use bytes::Bytes;
use tidegate_mq::{Message, Part};

use crate::ours::Ours;

const SMALL: [usize; 8] = [0, 1, 255, 256, 1, 255, 0, 256];
const BLOCK: usize = 4099;

/// What the parts are cut from; `peer.py` has the same.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let block: Vec<u8> = (0..BLOCK).map(|j| (j * j * 7 + j * 3 + (j >> 3)) as u8).collect();
    block.repeat(260).into()
});

/// Parts of message `index`.
pub(crate) fn message(index: usize) -> Vec<Part> {
    let part = |part| {
        let r = (index * 5 + part * 3) % 64;
        let size = match r {
            _ if part == 0 && index % 500 == 3 => 1 << 20,
            0 => 65_536,
            1 => 8_191,
            2 => 8_192,
            _ => SMALL[r % 8],
        };
        let start = (index * 31 + part * 7) % BLOCK;
        Part::from(PATTERN.slice(start..start + size))
    };
    (0..1 + index % 5).map(part).collect()
}

/// Sends the series, each message after `prefix`; every tenth time `decoy` goes ahead.
pub(crate) fn send(ours: &dyn Ours, count: usize, prefix: &[Part], decoy: Option<&'static str>) {
    for index in 0..count {
        if let (Some(decoy), 0) = (decoy, index % 10) {
            ours.put(decoy.into()).unwrap();
        }
        put(ours, index, prefix);
    }
}

/// Receives the series; `strip` parts are ahead of each message.
pub(crate) fn receive(ours: &dyn Ours, count: usize, strip: usize) {
    for index in 0..count {
        next(ours, index, strip);
    }
}

/// Receives the series and sends it back.
pub(crate) fn echo(ours: &dyn Ours, count: usize, strip: usize) {
    for index in 0..count {
        let message = next(ours, index, strip);
        ours.put(message).unwrap_or_else(|error| panic!("answer to message {index}: {error}"));
    }
}

/// Sends the series and receives it back, `window` messages ahead.
pub(crate) fn ping(ours: &dyn Ours, count: usize, window: usize, strip: usize, prefix: &[Part]) {
    for start in (0..count).step_by(window) {
        let some = start..count.min(start + window);
        some.clone().for_each(|index| put(ours, index, prefix));
        some.for_each(|index| drop(next(ours, index, strip)));
    }
}

fn put(ours: &dyn Ours, index: usize, prefix: &[Part]) {
    let parts = prefix.iter().cloned().chain(message(index));
    ours.put(parts.collect()).unwrap_or_else(|error| panic!("message {index}: {error}"));
}

/// The next message of at least one part more than `strip`; what has fewer is a greeting of the pattern.
fn next(ours: &dyn Ours, index: usize, strip: usize) -> Message {
    loop {
        let got = ours.take().unwrap_or_else(|error| panic!("message {index}: {error}"));
        if got.len() > strip {
            assert!(got.parts()[strip..] == message(index), "message {index} has other parts: {got:?}");
            return got;
        }
    }
}
