//! The newest value of a sensor: viewers get what there is when they look, and never the past.
//!
//! `cargo run -p tidegate-hub --example latest`
#![allow(clippy::expect_used, reason = "an example may end that way")]

use std::{error::Error, thread, time::Duration};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    error::AcquireError,
    layout::ChannelName,
    producer::Producer,
    schema::HubSchema,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LONG: Timeout = Timeout::After(Duration::from_secs(30));
const READINGS: u32 = 20_000;

#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Temperature {
    reading: u32,
    celsius: f32,
}

pub(crate) fn main() -> Result<()> {
    let config = HubConfig::typed::<Temperature>(ChannelName::new("temperature")?, BufferPolicy::Single);
    let sensor = Producer::create(&config)?;
    let attach = || Consumer::attach(&sensor.name(), &ConsumerConfig::default());
    let viewers = [attach()?, attach()?, attach()?].map(|viewer| thread::spawn(move || view(viewer)));
    for reading in 1..=READINGS {
        sensor.send_record(&temperature(reading), LONG)?;
    }

    // Who comes late has the value at once, too; there is nothing newer behind it.
    let mut late = attach()?;
    assert_eq!(late.try_next()?.read::<Temperature>()?, temperature(READINGS));
    assert_eq!(late.try_next().err(), Some(AcquireError::QueueEmpty));

    drop(late);
    sensor.close()?;
    for viewer in viewers {
        println!("{} of {READINGS} readings were seen", viewer.join().expect("no panic")?);
    }
    Ok(())
}

fn temperature(reading: u32) -> Temperature {
    Temperature { reading, celsius: 20.0 + reading as f32 / 100.0 }
}

/// Looks until the sensor is gone; how many readings it saw.
fn view(mut viewer: Consumer) -> Result<u32> {
    let (mut seen, mut newest) = (0, 0);
    loop {
        match viewer.next(LONG) {
            Ok(slot) => {
                let now: Temperature = slot.read()?;
                assert_eq!(now, temperature(now.reading), "a whole reading");
                assert!(now.reading > newest, "none comes twice, none goes back");
                newest = now.reading;
                seen += 1;
            }
            // There is one slot, and it is being written just now.
            Err(AcquireError::NotReady) => {}
            Err(AcquireError::Closed { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    assert_eq!(newest, READINGS, "the last one is seen by everybody");
    Ok(seen)
}
