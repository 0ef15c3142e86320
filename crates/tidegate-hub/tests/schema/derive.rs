//! The derive macros: texts of Rust structs, versions, optional fields.

#![allow(dead_code, reason = "the layout of the fields is what is tested")]

use tidegate_hub::schema::{
    Agreement, Bool8, Char8, HubPod, HubSchema, Offer, Schema, SchemaExpectation, SchemaHash, SchemaMode,
    SchemaVersion, ZoneLayout, compare, read_shared,
};
use tidegate_shm::sync::{AtomicU8, AtomicU32, AtomicU64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::{EVERYTHING, POSE, SENSOR, SENSOR_21};

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Debug, PartialEq)]
#[hub(version = "2.0")]
struct SensorData {
    timestamp_ns: u64,
    temperature: f32,
    pressure: f32,
}

/// The next version of it, under another name in Rust.
#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Debug, PartialEq)]
#[hub(name = "SensorData", version = "2.1")]
struct SensorData21 {
    timestamp_ns: u64,
    temperature: f32,
    pressure: f32,
    #[hub(optional)]
    humidity: f32,
    _pad0: [u8; 4],
}

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Vec3 {
    x: f64,
    y: f64,
    z: f64,
}

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Pose {
    id: u32,
    _pad0: [u8; 4],
    pos: Vec3,
}

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Leg {
    angle: f32,
    id: u8,
    _pad0: [u8; 3],
}

#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Everything {
    a: u64,
    b: i64,
    c: f64,
    d: u32,
    e: i32,
    f: f32,
    g: u16,
    h: i16,
    i: u8,
    j: i8,
    flag: Bool8,
    letter: Char8,
    label: [Char8; 12],
    grid: [[u16; 2]; 3],
    legs: [Leg; 3],
    _pad0: [u8; 4],
    last: [i64; 2],
}

#[repr(C, align(64))]
#[derive(HubSchema)]
struct Wide {
    x: u8,
    _pad0: [u8; 63],
}

#[repr(C)]
#[derive(HubSchema)]
struct Raw {
    r#type: u8,
    _pad: u8,
}

#[repr(C)]
#[derive(ZoneLayout)]
struct Calibration {
    gain: AtomicU64,
    table: [AtomicU32; 2],
    state: AtomicU8,
    _pad0: [u8; 7],
}

/// Names of the macro's own making do not hide those of the struct's types.
#[test]
fn lengths_may_be_constants_of_any_name() {
    const LEN: usize = 3;
    const SIZE: usize = 2;
    mod schema {
        pub(super) const BYTES: usize = 5;
    }

    #[repr(C)]
    #[derive(HubSchema)]
    struct Named {
        a: [u8; LEN],
        b: [u8; SIZE],
        c: [[u8; schema::BYTES]; 2],
    }

    assert_eq!(Named::TEXT, "tds1 Named size=15 align=1 {a:u8[3]@0+3;b:u8[2]@3+2;c:u8[10]@5+10}");
}

/// Case H-01: the texts of 12.2, and one with every type.
///
/// Rules: DH-172, H-01.
#[test]
fn structs_have_the_texts_of_the_sheet() {
    fn check<T: HubPod>(text: &str, version: (u16, u16)) {
        assert_eq!(T::TEXT, text);
        assert_eq!(Schema::of::<T>().unwrap().to_string(), text);
        assert_eq!(Schema::of::<T>().unwrap().size() as usize, size_of::<T>());
        assert_eq!(T::schema_hash(), SchemaHash::of_text(text));
        assert_eq!(T::VERSION, SchemaVersion::new(version.0, version.1));
    }
    check::<SensorData>(SENSOR, (2, 0));
    check::<SensorData21>(SENSOR_21, (2, 1));
    check::<Pose>(POSE, (1, 0));
    check::<Everything>(EVERYTHING, (1, 0));
    assert_eq!((SensorData21::NAME, Pose::NAME), ("SensorData", "Pose"));
    assert_eq!(Wide::TEXT, "tds1 Wide size=64 align=64 {x:u8@0+1;_pad0:u8[63]@1+63}");
    assert_eq!(Raw::TEXT, "tds1 Raw size=2 align=1 {type:u8@0+1;_pad:u8@1+1}");
    assert!(Schema::parse(Raw::TEXT).is_ok());
    let constant: &'static str = const { SensorData::TEXT };
    assert_eq!(constant, SENSOR);
}

/// Rules: DH-174.
#[test]
fn zones_have_the_text_of_their_primitives() {
    let text =
        "tds1 Calibration size=24 align=8 {gain:u64@0+8;table:u32[2]@8+8;state:u8@16+1;_pad0:u8[7]@17+7}";
    assert_eq!(Calibration::TEXT, text);
    // As Python's hashlib computes it, see vectors.txt.
    let hash = "bf0e159eb953978d86dbc26326b915958c3d8bec8fba24f6b5088a25e5596dc6";
    assert_eq!(Calibration::schema_hash().to_string(), hash);
    assert_eq!((Calibration::NAME, Calibration::VERSION), ("Calibration", SchemaVersion::new(1, 0)));
}

/// Case H-06: a field that the producer does not have reads as nothing, also where it has padding instead.
///
/// Rules: DH-173, DH-116, H-06.
#[test]
fn an_optional_field_of_a_shorter_producer_is_none() {
    let expected = SchemaExpectation {
        mode: SchemaMode::AllowAppended,
        ..SchemaExpectation::of::<SensorData21>().unwrap()
    };
    let agreement = |text: &str, minor| {
        let offer = Offer {
            hash: SchemaHash::of_text(text),
            version: SchemaVersion::new(2, minor),
            text: Some(text),
        };
        compare(&expected, &offer).unwrap()
    };
    let sent = SensorData { timestamp_ns: 5, temperature: 1.5, pressure: 2.5 };
    let mut slot = [0xff; 64];
    slot[..16].copy_from_slice(sent.as_bytes());

    let old = agreement(SENSOR, 0);
    let read: SensorData21 = read_shared(&slot, &old).unwrap();
    assert_eq!((read.timestamp_ns, read.temperature, read.pressure), (5, 1.5, 2.5));
    assert_eq!(read.humidity(&old), None);
    assert_eq!(read.humidity, 0.0, "nothing of the slot behind the record");
    assert_eq!(read_shared::<SensorData21>(&slot[..16], &old).unwrap(), read);
    assert!(read_shared::<SensorData21>(&slot[..15], &old).is_err());

    let padded = "tds1 SensorData size=24 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4;_pad0:u8[8]@16+8}";
    assert!(SensorData21::new_zeroed().humidity(&agreement(padded, 0)).is_none());

    let same = agreement(SENSOR_21, 1);
    let mut sent = SensorData21::new_zeroed();
    sent.humidity = 3.5;
    let read: SensorData21 = read_shared(sent.as_bytes(), &same).unwrap();
    assert_eq!(read.humidity(&same), Some(&3.5));
    let error = read_shared::<SensorData21>(&sent.as_bytes()[..23], &same).unwrap_err();
    assert_eq!((error.expected, error.found), (24, 23));
}

/// Rules: DH-116, DH-176.
#[test]
fn a_longer_producer_is_read_as_far_as_known() {
    let expected = SchemaExpectation {
        mode: SchemaMode::AllowAppended,
        ..SchemaExpectation::of::<SensorData>().unwrap()
    };
    let offer =
        Offer { hash: SensorData21::schema_hash(), version: SensorData21::VERSION, text: Some(SENSOR_21) };
    let agreement = compare(&expected, &offer).unwrap();
    assert_eq!(agreement, Agreement::ProducerAppended { shared: 16 });
    let mut sent = SensorData21::new_zeroed();
    (sent.timestamp_ns, sent.humidity) = (5, 3.5);
    let read: SensorData = read_shared(sent.as_bytes(), &agreement).unwrap();
    assert_eq!(read, SensorData { timestamp_ns: 5, temperature: 0.0, pressure: 0.0 });
}

#[test]
fn bytes_of_truth_and_text() {
    assert_eq!([true, false].map(|value| Bool8::new(value).get()), [Some(true), Some(false)]);
    assert_eq!(Bool8::read_from_bytes(&[2]).unwrap().get(), None);
    assert_eq!(Char8::array("ab").unwrap(), [Char8(b'a'), Char8(b'b'), Char8(0)]);
    assert_eq!(Char8::array::<1>("ab"), None);
}
