//! Copying into and out of a region against `memcpy` to and from the same pages: `cargo bench -p tidegate-shm`.
//!
//! Prints the best of several rounds in ns per copy and the speed relative to `memcpy`, both in one run.

#![allow(clippy::expect_used, reason = "a bench that cannot run should say so and end")]

use std::{hint::black_box, time::Instant};

use tidegate_shm::region::{CreateOptions, RegionDir, RegionMut, create_region};

const SIZES: [usize; 6] = [64, 256, 1024, 4 << 10, 640 << 10, 8 << 20];

fn main() {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory in /dev/shm");
    let dir = RegionDir::open_base(place.path()).expect("the directory opens");
    let options = CreateOptions::new(8 << 20);
    let region = create_region(&dir, "bench", &options).expect("8 MiB in /dev/shm");
    let mut private = vec![7; 8 << 20];
    println!("{:>8} {:>12} {:>18} {:>12} {:>18}", "bytes", "memcpy in", "write", "memcpy out", "read");
    for len in SIZES {
        let memcpy_in = best(len, || memcpy_in(&region, &private[..len]));
        let write = best(len, || region.write(0, black_box(&private[..len])).expect("inside"));
        let memcpy_out = best(len, || memcpy_out(&region, &mut private[..len]));
        let read = best(len, || region.read(0, black_box(&mut private[..len])).expect("inside"));
        println!(
            "{len:>8} {memcpy_in:>9.0} ns {write:>9.0} ns {:>3.0} % {memcpy_out:>9.0} ns {read:>9.0} ns {:>3.0} %",
            100.0 * memcpy_in / write,
            100.0 * memcpy_out / read
        );
    }
}

/// Nanoseconds per call in the best of 30 rounds.
fn best(len: usize, mut copy: impl FnMut()) -> f64 {
    let calls = ((4 << 20) / len).clamp(3, 10_000);
    let round = |_| {
        let start = Instant::now();
        (0..calls).for_each(|_| copy());
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    (0..30).map(round).fold(f64::MAX, f64::min)
}

fn memcpy_in(region: &RegionMut, bytes: &[u8]) {
    let target = region.span_mut(0, bytes.len() as u64).expect("inside").as_mut_ptr();
    // SAFETY: the span has as many bytes; this process is alone with the file.
    unsafe { black_box(target).copy_from_nonoverlapping(black_box(bytes.as_ptr()), bytes.len()) };
}

fn memcpy_out(region: &RegionMut, bytes: &mut [u8]) {
    let source = region.span(0, bytes.len() as u64).expect("inside").as_ptr();
    // SAFETY: the span has as many bytes; this process is alone with the file.
    unsafe { black_box(source).copy_to_nonoverlapping(black_box(bytes.as_mut_ptr()), bytes.len()) };
}
