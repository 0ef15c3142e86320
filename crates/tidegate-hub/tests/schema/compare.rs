//! Who may read whose records: each row of the table of 12.5, and what the refusals say.

use tidegate_hub::schema::{
    Agreement, Difference, Offer, Schema, SchemaExpectation, SchemaHash, SchemaMode, SchemaVersion, Shape,
    compare,
};

use crate::{EVERYTHING, POSE, SENSOR, SENSOR_21, schema};

type Verdict = Result<Agreement, Difference>;

/// What a consumer of `ours` says to a producer of `theirs`, both of version 2.0.
fn verdict(ours: &str, theirs: &str, mode: SchemaMode) -> Verdict {
    let version = SchemaVersion::new(2, 0);
    let expected = SchemaExpectation { schema: schema(ours), version, min_minor: 0, mode };
    let offer = Offer { hash: schema(theirs).hash(), version, text: Some(theirs) };
    compare(&expected, &offer).map_err(|mismatch| {
        assert_eq!((mismatch.expected, mismatch.found), (schema(ours).hash(), schema(theirs).hash()));
        *mismatch.first_difference
    })
}

fn versions(ours: (u16, u16), min_minor: u16, theirs: (u16, u16)) -> Verdict {
    let [version, found] = [ours, theirs].map(|(major, minor)| SchemaVersion::new(major, minor));
    let expected = SchemaExpectation { schema: schema(SENSOR), version, min_minor, mode: SchemaMode::Strict };
    let offer = Offer { hash: SchemaHash::of_text(SENSOR), version: found, text: Some(SENSOR) };
    compare(&expected, &offer).map_err(|mismatch| *mismatch.first_difference)
}

/// The text of `SENSOR` with one part replaced.
fn sensor(from: &str, to: &str) -> String {
    assert_eq!(SENSOR.matches(from).count(), 1, "{from}");
    let text = SENSOR.replace(from, to);
    Schema::parse(&text).unwrap().to_string()
}

const MODES: [SchemaMode; 3] = [SchemaMode::Strict, SchemaMode::AllowAppended, SchemaMode::Ignore];

/// Case H-03, rows on equal texts and on optional fields at the end.
///
/// Rules: DH-176, H-03.
#[test]
fn what_is_compatible_depends_on_the_mode() {
    let identical = Ok(Agreement::Identical { size: 16 });
    let appended = |field: &str| Err(Difference::Appended { field: field.to_owned() });
    let untyped = Ok(Agreement::Untyped);

    assert_eq!(
        MODES.map(|mode| verdict(SENSOR, SENSOR, mode)),
        [identical.clone(), identical, untyped.clone()]
    );
    // The producer has more: in place, its records begin as ours do.
    let more = Ok(Agreement::ProducerAppended { shared: 16 });
    assert_eq!(
        MODES.map(|mode| verdict(SENSOR, SENSOR_21, mode)),
        [appended("humidity"), more, untyped.clone()]
    );
    // The producer has less.
    let less = Ok(Agreement::ConsumerAppended { shared: 16 });
    assert_eq!(MODES.map(|mode| verdict(SENSOR_21, SENSOR, mode)), [appended("humidity"), less, untyped]);
}

/// A field may be appended in what was padding at the end. What is shared ends before it: the padding of an old producer is
/// no value.
///
/// Rules: DH-173, DH-176.
#[test]
fn padding_at_the_end_is_where_fields_are_appended() {
    let with_two = "tds1 SensorData size=24 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4;humidity:f32?@16+4;dew_point:f32?@20+4}";
    let agreement = verdict(with_two, SENSOR_21, SchemaMode::AllowAppended).unwrap();
    assert_eq!(agreement, Agreement::ConsumerAppended { shared: 20 });
    assert!(agreement.has(20) && !agreement.has(21) && !agreement.has(24));
    let agreement = verdict(SENSOR_21, with_two, SchemaMode::AllowAppended).unwrap();
    assert_eq!(agreement, Agreement::ProducerAppended { shared: 20 });
    assert!(!Agreement::Untyped.has(1));
}

/// Case H-03, the row on types, order, names and offsets; case H-05: the first differing field is named.
///
/// Rules: DH-176, DH-177, H-03, H-05.
#[test]
fn other_fields_are_incompatible_and_named() {
    let leg = "legs:Leg{angle:f32@0+4;id:u8@4+1;_pad0:u8[3]@5+3}[3]";
    let everything = |from: &str, to: &str| EVERYTHING.replace(from, to);
    let cases = [
        (
            SENSOR,
            sensor("temperature:f32", "temperature:u32"),
            "field \"temperature\": expected type f32, found u32",
        ),
        (
            SENSOR,
            sensor("temperature", "temp"),
            "field \"temperature\": expected name temperature, found temp",
        ),
        (
            SENSOR,
            sensor("temperature:f32@8+4;pressure", "pressure:f32@8+4;temperature"),
            "field \"temperature\": expected name temperature, found pressure",
        ),
        (
            SENSOR,
            sensor("temperature:f32@8+4", "temperature:f32[1]@8+4"),
            "field \"temperature\": expected number of elements no array, found [1]",
        ),
        (SENSOR, sensor("SensorData", "OtherData"), "expected record name SensorData, found OtherData"),
        (
            SENSOR,
            SENSOR.replace("size=16", "size=24").replace("4}", "4;wind:f64@16+8}"),
            "field \"wind\": found an added field that is required",
        ),
        (
            &sensor("pressure:f32@12+4", "_pad0:u8[4]@12+4"),
            SENSOR.to_owned(),
            "field \"pressure\": found an added field that is required",
        ),
        (
            SENSOR,
            sensor("pressure:f32@12+4", "_pad0:u8[4]@12+4"),
            "field \"pressure\": expected, but the producer has no such field",
        ),
        (
            SENSOR,
            sensor("pressure:f32@", "pressure:f32?@"),
            "field \"pressure\": expected mark required, found optional",
        ),
        (POSE, POSE.replace("y:f64", "y:i64"), "field \"pos.y\": expected type f64, found i64"),
        (POSE, POSE.replace("Vec3", "Point"), "field \"pos\": expected type Vec3, found Point"),
        (
            POSE,
            POSE.replace("32 align", "24 align").replace(";z:f64@16+8}@8+24", "}@8+16"),
            "field \"pos.z\": expected, but the producer has no such field",
        ),
        (
            &POSE.replace("32 align", "24 align").replace(";z:f64@16+8}@8+24", "}@8+16"),
            POSE.to_owned(),
            "field \"pos.z\": found an added field that is required",
        ),
        (
            EVERYTHING,
            everything(leg, &leg.replace("angle", "slope")),
            "field \"legs.angle\": expected name angle, found slope",
        ),
        (EVERYTHING, everything("c8[12]", "u8[12]"), "field \"label\": expected type c8, found u8"),
        (
            "tds1 A size=4 align=2 {a:u8@0+1;_pad0:u8[1]@1+1;b:u16@2+2}",
            "tds1 A size=6 align=2 {a:u8@0+1;_pad0:u8[3]@1+3;b:u16@4+2}".to_owned(),
            "field \"_pad0\": expected number of elements [1], found [3]",
        ),
    ];
    for (ours, theirs, expected) in cases {
        for mode in [SchemaMode::Strict, SchemaMode::AllowAppended] {
            let difference = verdict(ours, &theirs, mode).unwrap_err().to_string();
            assert!(difference.starts_with(expected), "expected: {expected}\nfound:    {difference}");
        }
        assert_eq!(verdict(ours, &theirs, SchemaMode::Ignore), Ok(Agreement::Untyped));
    }
}

/// Case H-03, rows on versions; case N-30, equal text of another version.
///
/// Rules: DH-176, H-03, N-30.
#[test]
fn versions_must_be_of_one_major_and_new_enough() {
    let identical = Ok(Agreement::Identical { size: 16 });
    assert_eq!(versions((2, 0), 0, (2, 0)), identical);
    assert_eq!(versions((2, 3), 0, (2, 1)), identical);
    assert_eq!(versions((2, 0), 1, (2, 1)), identical);
    assert_eq!(versions((2, 3), 2, (2, 1)), Err(Difference::Minor { expected: 2, found: 1 }));
    assert_eq!(versions((2, 0), 0, (3, 0)), Err(Difference::Major { expected: 2, found: 3 }));
    assert_eq!(versions((2, 0), 0, (1, 9)), Err(Difference::Major { expected: 2, found: 1 }));
}

/// Case H-03, rows on slot stride, capacity and zones.
///
/// Rules: DH-178, H-03, N-30.
#[test]
fn shapes_are_compared_field_by_field() {
    let ring = |slot_stride, slot_count, zones: &[u64]| Shape {
        slot_stride,
        slot_count,
        ring: true,
        zone_sizes: zones.to_vec(),
    };
    let fixed = |slot_count| Shape { ring: false, ..ring(64, slot_count, &[]) };
    let check =
        |expected: &Shape, found: &Shape| expected.check(found).map_err(|mismatch| mismatch.to_string());
    let starts =
        |result: Result<(), String>, text: &str| assert!(result.unwrap_err().starts_with(text), "{text}");

    assert_eq!(check(&ring(64, 8, &[256]), &ring(64, 16, &[256])), Ok(()));
    assert_eq!(check(&ring(64, 8, &[256]), &ring(64, 8, &[512, 64])), Ok(()));
    assert_eq!(check(&fixed(2), &fixed(2)), Ok(()));
    starts(check(&ring(64, 8, &[]), &ring(128, 8, &[])), "slot_stride: expected 64, found 128");
    starts(check(&fixed(1), &fixed(2)), "slot_count: expected 1, found 2");
    starts(check(&ring(64, 8, &[]), &fixed(2)), "slot_count: expected 8, found 2");
    starts(
        check(&ring(64, 8, &[64, 256]), &ring(64, 8, &[64, 192])),
        "size of zone 1: expected 256, found 192",
    );
    starts(check(&ring(64, 8, &[64]), &ring(64, 8, &[])), "size of zone 0: expected 64, found 0");
}

/// Rules: DH-171, N-30.
#[test]
fn untyped_bytes_are_for_those_who_ignore_types() {
    let offer = Offer { hash: SchemaHash::UNTYPED, version: SchemaVersion::default(), text: None };
    for mode in MODES {
        let expected = SchemaExpectation {
            mode,
            version: SchemaVersion::default(),
            schema: schema(SENSOR),
            min_minor: 0,
        };
        match compare(&expected, &offer) {
            Ok(agreement) => assert_eq!((mode, agreement), (SchemaMode::Ignore, Agreement::Untyped)),
            Err(mismatch) => {
                assert_ne!(mode, SchemaMode::Ignore);
                assert_eq!(
                    (*mismatch.first_difference.clone(), mismatch.code()),
                    (Difference::Untyped, "HASH")
                );
            }
        }
    }
}

/// A text is checked whatever the mode; without one, only equal hashes agree.
///
/// Rules: DH-177, DH-180.
#[test]
fn texts_are_checked_against_their_hash_first() {
    let version = SchemaVersion::new(2, 0);
    let offer = |text| Offer { hash: SchemaHash::of_text(SENSOR), version, text };
    for mode in MODES {
        let expected = SchemaExpectation { schema: schema(SENSOR), version, min_minor: 0, mode };
        assert!(compare(&expected, &offer(None)).is_ok());
        assert!(compare(&expected, &offer(Some(SENSOR))).is_ok());
        let mismatch = compare(&expected, &offer(Some(SENSOR_21))).unwrap_err();
        assert_eq!(mismatch.code(), "FINGERPRINT_INCONSISTENT");

        let other = SchemaExpectation { schema: schema(POSE), ..expected };
        match compare(&other, &offer(None)) {
            Ok(agreement) => assert_eq!((mode, agreement), (SchemaMode::Ignore, Agreement::Untyped)),
            Err(mismatch) => {
                assert_eq!((*mismatch.first_difference.clone(), mismatch.code()), (Difference::Hash, "HASH"))
            }
        }
    }
    // A text that has its hash, but is no schema.
    let garbage = Offer { hash: SchemaHash::of_text("tds1 "), version, text: Some("tds1 ") };
    let expected =
        SchemaExpectation { schema: schema(SENSOR), version, min_minor: 0, mode: SchemaMode::AllowAppended };
    let difference = *compare(&expected, &garbage).unwrap_err().first_difference;
    assert!(matches!(difference, Difference::Unreadable(_)), "{difference}");
}

/// Rules: DH-177.
#[test]
fn a_mismatch_says_both_hashes_versions_and_the_field() {
    let expected = SchemaExpectation {
        schema: schema(SENSOR),
        version: SchemaVersion::new(2, 0),
        min_minor: 0,
        mode: SchemaMode::Strict,
    };
    let offer = Offer {
        hash: SchemaHash::of_text(SENSOR_21),
        version: SchemaVersion::new(2, 1),
        text: Some(SENSOR_21),
    };
    let mismatch = compare(&expected, &offer).unwrap_err();
    assert_eq!(mismatch.code(), "INCOMPATIBLE");
    assert_eq!(
        mismatch.to_string(),
        "schema mismatch: field \"humidity\": only one side has this optional field; SchemaMode::AllowAppended accepts \
         that (expected schema 5e15452115a763083f10341f190c5da83bde2ce0f44524e2ef5d2b84b837c426 version 2.0, found \
         0ad846d6fd12b8950621896a47a8597d9449597750974cf220e0a17a3f35b551 version 2.1)"
    );
    let offer = Offer { version: SchemaVersion::new(3, 0), hash: SchemaHash::of_text(SENSOR), text: None };
    assert_eq!(compare(&expected, &offer).unwrap_err().code(), "VERSION");
}

/// Records of other size or alignment with the same fields.
///
/// Rules: DH-176.
#[test]
fn records_must_be_long_enough_to_be_read_in_place() {
    let narrow = "tds1 A size=4 align=4 {a:u32@0+4}";
    let wide = "tds1 A size=64 align=64 {a:u32@0+4;_pad0:u8[60]@4+60}";
    let appended = |ours, theirs| verdict(ours, theirs, SchemaMode::AllowAppended);
    assert_eq!(appended(narrow, wide), Ok(Agreement::ProducerAppended { shared: 4 }));
    assert_eq!(appended(wide, narrow), Err(Difference::Shorter { expected: 64, found: 4 }));
    let extent = Difference::Extent { expected: 4, expected_align: 4, found: 64, found_align: 64 };
    assert_eq!(verdict(narrow, wide, SchemaMode::Strict), Err(extent));
}
