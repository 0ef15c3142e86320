//! A step between two channels: a record that is read is written to the next one, and counts as read only then.
//!
//! `cargo run -p tidegate-hub --example doubler`
#![allow(clippy::expect_used, reason = "an example may end that way")]

use std::{error::Error, thread, time::Duration};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    error::{AcquireError, TxError},
    layout::ChannelName,
    producer::Producer,
    schema::HubSchema,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LONG: Timeout = Timeout::After(Duration::from_secs(30));
const RECORDS: u64 = 1_000;

#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Sample {
    number: u64,
    value: f64,
}

pub(crate) fn main() -> Result<()> {
    let (source, mut input) = channel("plain")?;
    let (output, mut sink) = channel("doubled")?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            (0..RECORDS).try_for_each(|number| {
                source.send_record(&Sample { number, value: number as f64 / 4.0 }, LONG).map(drop)
            })
        });
        let doubling = scope.spawn(move || double(&mut input, &output));
        for number in 0..RECORDS {
            let sample: Sample = sink.next(LONG)?.read()?;
            assert_eq!((sample.number, sample.value), (number, number as f64 / 2.0));
        }
        sending.join().expect("no panic")?;
        doubling.join().expect("no panic")
    })?;
    println!("{RECORDS} records were doubled");
    Ok(())
}

fn channel(name: &str) -> Result<(Producer, Consumer)> {
    let config = HubConfig::typed::<Sample>(ChannelName::new(name)?, BufferPolicy::ring(64));
    let producer = Producer::create(&config)?;
    let consumer = Consumer::attach(&producer.name(), &ConsumerConfig::default())?;
    Ok((producer, consumer))
}

/// Works until the input is closed.
fn double(input: &mut Consumer, output: &Producer) -> Result<()> {
    loop {
        // The sample counts as read when this closure succeeds: if it cannot be written, it comes again.
        let doubled = input.with_typed_next(LONG, |sample: &Sample| {
            output.send_record(&Sample { value: 2.0 * sample.value, ..*sample }, LONG)
        });
        match doubled {
            Ok(_) => {}
            Err(TxError::Acquire(AcquireError::Closed { .. })) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
