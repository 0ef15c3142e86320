//! Two sensors at different rates, joined by time and corrected with values that lie in a zone beside the records.
//!
//! `cargo run -p tidegate-hub --example fusion`
#![allow(clippy::expect_used, reason = "an example may end that way")]

use std::{error::Error, thread, time::Duration};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    error::AcquireError,
    layout::ChannelName,
    producer::Producer,
    schema::{HubPod, HubSchema, SchemaMode, ZoneLayout},
    zone::{ZoneCell, Zones},
};
use tidegate_shm::sync::{AtomicU64, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LONG: Timeout = Timeout::After(Duration::from_secs(30));
/// Loads are measured each millisecond, temperatures every seven.
const LOADS: u64 = 1_000;
const PERIOD_US: (u64, u64) = (1_000, 7_000);
/// After so many loads the scale is set to zero.
const TARE_AT: u64 = 400;

#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Load {
    taken_us: u64,
    /// As the sensor says it, which the temperature falsifies.
    raw: f64,
}

#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Temperature {
    taken_us: u64,
    celsius: f64,
}

/// The zone of the channel of loads.
#[derive(ZoneLayout, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Calibration {
    /// Anybody may count, without the lock.
    fused: AtomicU64,
    /// Only together are they right: changed under the zone's lock, read as a snapshot.
    values: ZoneCell<Values>,
}

#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Values {
    gain: f64,
    per_degree: f64,
    tare: f64,
}

const CALIBRATED: Values = Values { gain: 2.0, per_degree: 0.25, tare: 0.0 };

impl Values {
    fn correct(&self, raw: f64, celsius: f64) -> f64 {
        self.gain * raw - self.per_degree * (celsius - 20.0) - self.tare
    }
}

pub(crate) fn main() -> Result<()> {
    let loads = loads()?;
    let config = HubConfig::typed::<Temperature>(ChannelName::new("temperatures")?, BufferPolicy::ring(16));
    let temperatures = Producer::create(&config)?;
    let (mut load, mut temperature) = (attach(&loads)?, attach(&temperatures)?);
    let zones = loads.zones()?;
    let calibration = zones.zone::<Calibration>(0, SchemaMode::Strict)?;
    calibration.update(LONG, |zone| zone.values().store(&CALIBRATED))?;

    thread::scope(|scope| {
        let weighing = scope.spawn(|| weigh(&loads));
        let warming = scope.spawn(move || warm(&temperatures));
        fuse(&mut load, &mut temperature)?;
        weighing.join().expect("no panic")?;
        warming.join().expect("no panic")
    })?;

    // What the consumer wrote is there for the producer, and for whoever looks into the block.
    let after = calibration.snapshot(LONG)?;
    assert_eq!(after.values.into_inner(), Values { tare: weight(TARE_AT), ..CALIBRATED });
    assert_eq!(after.fused.load(Ordering::Relaxed), LOADS);
    println!("{LOADS} loads were joined with the temperatures of their time; tare {}", weight(TARE_AT));
    Ok(())
}

/// The channel of loads, with its zone.
fn loads() -> Result<Producer> {
    let config = HubConfig::typed::<Load>(ChannelName::new("loads")?, BufferPolicy::ring(64))
        .with_shared_zone::<Calibration>("calibration");
    Ok(Producer::create(&config)?)
}

fn attach(producer: &Producer) -> Result<Consumer> {
    Ok(Consumer::attach(&producer.name(), &ConsumerConfig::default())?)
}

fn weigh(loads: &Producer) -> Result<()> {
    for number in 0..LOADS {
        let taken_us = number * PERIOD_US.0;
        // The inverse of what the calibration does.
        let raw = (weight(number) + CALIBRATED.per_degree * (celsius(taken_us / PERIOD_US.1) - 20.0))
            / CALIBRATED.gain;
        loads.send_record(&Load { taken_us, raw }, LONG)?;
    }
    Ok(())
}

fn warm(temperatures: &Producer) -> Result<()> {
    for number in 0..=LOADS * PERIOD_US.0 / PERIOD_US.1 {
        let record = Temperature { taken_us: number * PERIOD_US.1, celsius: celsius(number) };
        temperatures.send_record(&record, LONG)?;
    }
    Ok(())
}

/// What lies on the scale; numbers without rounding.
fn weight(number: u64) -> f64 {
    100.0 + number as f64 / 8.0
}

fn celsius(number: u64) -> f64 {
    20.0 + number as f64 / 4.0
}

/// Corrects every load with the temperature of its time.
fn fuse(loads: &mut Consumer, temperatures: &mut Consumer) -> Result<()> {
    let zones: Zones = loads.zones()?;
    let calibration = zones.zone::<Calibration>(0, SchemaMode::Strict)?;
    let fused = calibration.shared()?.fused();
    let mut now = read::<Temperature>(temperatures)?.ok_or("no temperature")?;
    let mut later = read::<Temperature>(temperatures)?;
    for number in 0..LOADS {
        let load: Load = loads.next(LONG)?.read()?;
        while let Some(next) = later.take_if(|next| next.taken_us <= load.taken_us) {
            now = next;
            later = read(temperatures)?;
        }
        if number == TARE_AT {
            calibration.update(LONG, |zone| {
                let values = zone.values().load();
                let tare = values.correct(load.raw, now.celsius);
                zone.values().store(&Values { tare, ..values });
            })?;
        }
        let values = calibration.snapshot(LONG)?.values.into_inner();
        let tare = if number < TARE_AT { 0.0 } else { weight(TARE_AT) };
        assert_eq!(values.correct(load.raw, now.celsius), weight(number) - tare);
        // Relaxed: a number for people.
        fused.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The next record; none when the channel is closed.
fn read<T: HubPod>(consumer: &mut Consumer) -> Result<Option<T>> {
    match consumer.next(LONG) {
        Ok(slot) => Ok(Some(slot.read()?)),
        Err(AcquireError::Closed { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
