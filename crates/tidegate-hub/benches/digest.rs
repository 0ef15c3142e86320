//! Digests of slots in shared memory, beside the bare library over private memory:
//! `cargo bench -p tidegate-hub --bench digest`; with `-- --quick` only whether it works.
//!
//! The bare library hashes the same message, which lies in one piece in private memory, so the difference is what copying
//! out of the block and putting the message together cost.

#![allow(clippy::unwrap_used, missing_docs, reason = "a program for people at a terminal")]

use std::{hint::black_box, time::Instant};

use blake2::{Blake2b, Digest as _, digest::consts::U32};
use tidegate_hub::{
    block::{CreateOptions, create},
    integrity::Digester,
    layout::{BlockSpec, ChannelName, DigestAlg, DigestPolicy, Policy, Secret, SecurityLevel, SyncPolicy},
};

const SIZES: [usize; 5] = [64, 1024, 4096, 65_536, 1 << 20];
const ROUNDS: usize = 15;

fn spec(alg: DigestAlg) -> BlockSpec {
    let keyed = alg.is_keyed();
    BlockSpec {
        policy: Policy::Single,
        sync: SyncPolicy::LatestOnly,
        digest_alg: alg,
        digest_policy: DigestPolicy::Enforced,
        max_consumers: 1,
        security: if keyed { SecurityLevel::AuthenticatedSlots } else { SecurityLevel::None },
        ..BlockSpec::ring(ChannelName::new("bench").unwrap(), 1, 1 << 20)
    }
}

/// Nanoseconds of one call: the fastest of several rounds, since everything else only adds.
fn time<R>(rounds: usize, bytes: usize, mut call: impl FnMut() -> R) -> f64 {
    let calls = (4 << 20) / (bytes + 2048);
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        best = best.min(start.elapsed().as_nanos() as f64 / calls as f64);
    }
    best
}

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 1 } else { ROUNDS };
    let secret = Secret::new(&[7; 32]).unwrap();
    println!(
        "{:>20} {:>9} {:>12} {:>12} {:>12} {:>7}",
        "algorithm", "bytes", "bare ns", "in place ns", "copied ns", "ratio"
    );
    for alg in [DigestAlg::Blake3, DigestAlg::KeyedBlake3, DigestAlg::Blake2b] {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let secret = alg.is_keyed().then_some(&secret);
        let options = CreateOptions { dir: dir.path().to_owned(), secret, ..CreateOptions::default() };
        let block = create(&spec(alg), &options).unwrap();
        let digester = Digester::new(block.descriptor(), secret).unwrap();
        let slot = block.slot_mut(0).unwrap();
        slot.fill(0x5A);
        for size in SIZES {
            let message = vec![0x5A; size + 80];
            let payload = slot.sub(0..size).unwrap();
            let mut copy = vec![0; size];
            let bare = time(rounds, size, || -> [u8; 32] {
                let message = black_box(&message);
                match alg {
                    DigestAlg::Blake3 => blake3::hash(message).into(),
                    DigestAlg::KeyedBlake3 => blake3::keyed_hash(&[7; 32], message).into(),
                    _ => Blake2b::<U32>::digest(message).into(),
                }
            });
            let in_place = time(rounds, size, || digester.slot(5, black_box(payload)));
            let copied = time(rounds, size, || digester.slot_copy(5, black_box(payload), &mut copy).unwrap());
            assert!(
                copy == message[..size]
                    && digester.slot(5, payload) == digester.slot_copy(5, payload, &mut copy).unwrap()
            );
            let name = format!("{alg:?}");
            println!(
                "{name:>20} {size:>9} {bare:>12.0} {in_place:>12.0} {copied:>12.0} {:>7.2}",
                in_place / bare
            );
        }
    }
}
