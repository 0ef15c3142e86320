//! Large frames: one is looked at while the next is filled in place, and no viewer is given a damaged one.
//!
//! `cargo run -p tidegate-hub --example camera`
#![allow(clippy::expect_used, reason = "an example may end that way")]

use std::{error::Error, thread, time::Duration};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    error::AcquireError,
    integrity::ChecksumFault,
    layout::{ChannelName, DigestPolicy},
    producer::Producer,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LONG: Timeout = Timeout::After(Duration::from_secs(30));
const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const FRAMES: u64 = 60;

pub(crate) fn main() -> Result<()> {
    let size = (WIDTH * HEIGHT) as u64;
    let config = HubConfig::new(ChannelName::new("camera")?, BufferPolicy::DoubleBuffer, size);
    let camera = Producer::create(&HubConfig { digest_policy: DigestPolicy::Enforced, ..config })?;
    let mut viewer = Consumer::attach(&camera.name(), &ConsumerConfig::default())?;

    let seen = thread::scope(|scope| {
        let filming = scope.spawn(|| (0..FRAMES).try_for_each(|frame| film(&camera, frame).map(drop)));
        let mut seen = 1;
        while look(&mut viewer)? < FRAMES - 1 {
            seen += 1;
        }
        filming.join().expect("no panic")?;
        Result::Ok(seen)
    })?;
    println!("{seen} of {FRAMES} frames were seen, all of them whole");

    // What no producer does: a program that writes where it should not.
    let id = film(&camera, FRAMES)?;
    camera.block().slot_mut((id % 2) as u32)?.write_at(1_000, b"stray")?;
    assert_eq!(viewer.next(LONG).err(), Some(AcquireError::InvalidState));
    let refused = viewer.last_checksum_error().ok_or("no frame was refused")?;
    assert_eq!((refused.id, refused.kind), (id, ChecksumFault::Mismatch));
    println!("{refused}");

    film(&camera, FRAMES + 1)?;
    assert_eq!(look(&mut viewer)?, FRAMES + 1, "the next one is fine");
    Ok(())
}

/// Takes one frame.
fn film(camera: &Producer, frame: u64) -> Result<u64> {
    let mut slot = camera.write(LONG)?;
    let pixels = slot.bytes_mut();
    for line in 0..HEIGHT {
        pixels.sub_mut(line * WIDTH..(line + 1) * WIDTH)?.fill(shade(frame, line));
    }
    slot.set_user_flags(frame);
    // Hashes it, too.
    Ok(slot.commit()?.0)
}

/// Number of the newest frame that was not seen before.
fn look(viewer: &mut Consumer) -> Result<u64> {
    loop {
        match viewer.next(LONG) {
            Ok(slot) => {
                let frame = slot.user_flags();
                let pixels = slot.to_vec();
                let lines = pixels.chunks_exact(WIDTH).enumerate();
                for (line, pixels) in lines {
                    assert!(
                        pixels.iter().all(|pixel| *pixel == shade(frame, line)),
                        "line {line} of {frame}"
                    );
                }
                return Ok(frame);
            }
            // Both frames changed while it looked.
            Err(AcquireError::NotReady) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn shade(frame: u64, line: usize) -> u8 {
    (frame as usize * 7 + line) as u8
}
