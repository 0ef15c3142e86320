//! Writing without waiting.

use std::{
    io::{self, IoSlice},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags, send, sendmsg},
};

use crate::batch::WriteBatch;

/// Segments of one system call; a batch may have more.
const SEGMENTS: usize = 64;

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Writes as much of `batch` as the socket takes at once; returns whether that was all (MQ-034).
pub(super) fn now(fd: &OwnedFd, batch: &mut WriteBatch) -> io::Result<bool> {
    while !batch.is_empty() {
        let (asked, outcome) = once(fd, batch);
        match outcome {
            Ok(written) => {
                batch.advance(written);
                if written < asked {
                    return Ok(false);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn once(fd: &OwnedFd, batch: &mut WriteBatch) -> (usize, rustix::io::Result<usize>) {
    let segments = batch.segments();
    if let (Some(first), 1) = (segments.front(), segments.len()) {
        return (first.len(), send(fd, first, FLAGS));
    }
    let mut slices = [IoSlice::new(&[]); SEGMENTS];
    let mut count = 0;
    let mut asked = 0;
    for (slice, segment) in slices.iter_mut().zip(segments) {
        *slice = IoSlice::new(segment);
        asked += segment.len();
        count += 1;
    }
    let slices = slices.get(..count).unwrap_or_default();
    (asked, sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), FLAGS))
}
