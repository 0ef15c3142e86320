//! Records: compared with the block once, copied out, longer and shorter ones.

use tidegate_hub::{
    block::AttachError,
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    error::{OpenError, TxError, TypedError},
    layout::{ChannelName, DigestAlg},
    producer::Producer,
    schema::{HubPod, HubSchema, SchemaExpectation, SchemaMode},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::world::{NOW, attach, consumer_config, place, ring};

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Debug, PartialEq)]
#[hub(version = "2.0")]
struct Sensor {
    timestamp_ns: u64,
    temperature: f32,
    pressure: f32,
}

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Debug, PartialEq)]
#[hub(name = "Sensor", version = "2.1")]
struct Sensor21 {
    timestamp_ns: u64,
    temperature: f32,
    pressure: f32,
    #[hub(optional)]
    humidity: f64,
}

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
struct Other {
    timestamp_ns: u64,
    count: u64,
}

fn channel<T: HubPod>(dir: &std::path::Path) -> Producer {
    let name = ChannelName::new("sensor").unwrap();
    let config = HubConfig::typed::<T>(name, BufferPolicy::ring(4));
    Producer::create(&HubConfig { dir: dir.to_owned(), digest_alg: DigestAlg::None, ..config }).unwrap()
}

const FIRST: Sensor = Sensor { timestamp_ns: 5, temperature: 1.5, pressure: -2.0 };

/// Rules: DH-115, DH-116, DH-127.
#[test]
fn a_record_arrives_as_it_was_written() {
    let dir = place();
    let producer = channel::<Sensor>(dir.path());
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    producer.send_record(&FIRST, NOW).unwrap();
    let written = producer.with_typed_write::<Sensor, _, ()>(NOW, |record| {
        assert_eq!(record.timestamp_ns, 0);
        *record = Sensor { timestamp_ns: 6, ..FIRST };
        Ok(())
    });
    written.unwrap();
    assert_eq!(consumer.try_next().unwrap().read::<Sensor>().unwrap(), FIRST);
    let read = consumer.with_typed_next::<Sensor, _, ()>(NOW, |record| Ok(record.timestamp_ns));
    assert_eq!(read.unwrap(), 6);
}

/// Rules: DH-116, DH-176, DH-177, X-07.
#[test]
fn records_of_another_type_are_refused_on_both_sides() {
    let dir = place();
    let producer = channel::<Sensor>(dir.path());
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    let refused = producer.send_record(&Other { timestamp_ns: 1, count: 2 }, NOW);
    assert!(matches!(refused, Err(TxError::Typed(TypedError::Schema(_)))), "{refused:?}");
    let refused = producer.with_typed_write::<Other, (), ()>(NOW, |_| panic!("called"));
    assert!(matches!(refused, Err(TxError::Typed(TypedError::Schema(_)))), "{refused:?}");
    assert_eq!(producer.next_id().0, 0, "no slot was taken");
    producer.send_record(&FIRST, NOW).unwrap();
    let refused = consumer.with_typed_next::<Other, (), ()>(NOW, |_| panic!("called"));
    assert!(matches!(refused, Err(TxError::Typed(TypedError::Schema(_)))));
    assert_eq!(consumer.try_next().unwrap().read::<Sensor>().unwrap(), FIRST, "it was not consumed");

    let expecting = ConsumerConfig {
        schema: Some(SchemaExpectation::of::<Other>().unwrap()),
        ..consumer_config(dir.path())
    };
    let error = Consumer::attach(&producer.name(), &expecting).err();
    assert!(matches!(error, Some(OpenError::Attach(AttachError::SchemaMismatch(_)))), "{error:?}");

    let bytes = Producer::create(&ring(dir.path(), 2)).unwrap();
    assert!(matches!(bytes.send_record(&FIRST, NOW), Err(TxError::Typed(_))), "bytes without a type");
}

/// Rules: DH-116, DH-176.
#[test]
fn a_shorter_record_of_an_older_producer_is_filled_up_with_zeros() {
    let dir = place();
    let producer = channel::<Sensor>(dir.path());
    let appended = ConsumerConfig { schema_mode: SchemaMode::AllowAppended, ..consumer_config(dir.path()) };
    let mut consumer = attach(&producer, appended);
    producer.send_record(&FIRST, NOW).unwrap();
    let read: Sensor21 = consumer.try_next().unwrap().read().unwrap();
    assert_eq!(read, Sensor21 { timestamp_ns: 5, temperature: 1.5, pressure: -2.0, humidity: 0.0 });
    producer.send(&[0; 15], Timeout::Immediate).unwrap();
    let slot = consumer.try_next().unwrap();
    let short = slot.read::<Sensor>().err();
    assert!(
        matches!(&short, Some(TypedError::Length(error)) if (error.expected, error.found) == (16, 15)),
        "{short:?}"
    );
}
