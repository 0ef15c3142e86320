//! Texts, hashes and versions.

use tidegate_hub::schema::{Schema, SchemaHash, SchemaVersion};

use crate::{SENSOR, SENSOR_21, schema};

const VECTORS: &str = include_str!("vectors.txt");

/// Case G-01: texts with their hashes as another implementation of BLAKE2b computed them, those of 12.2 first.
///
/// Rules: DH-169, G-01.
#[test]
fn hashes_are_those_of_another_implementation() {
    let vectors: Vec<_> =
        VECTORS.lines().filter_map(|line| line.split_once(' ')).filter(|(hash, _)| *hash != "#").collect();
    assert_eq!(vectors.len(), 6);
    for (hash, text) in vectors {
        let hash: SchemaHash = hash.parse().unwrap();
        assert_eq!(schema(text).hash(), hash, "{text}");
        assert_eq!(SchemaHash::of_text(text), hash);
        assert_eq!(schema(text).to_string(), text);
    }
}

/// The hash over zones is that of the hashes one after another; the expected value is Python's
/// `blake2b(blake2b(SENSOR).digest() + blake2b(SENSOR_21).digest())`, each of 32 bytes.
#[test]
fn the_hash_over_zones() {
    let hashes = [SENSOR, SENSOR_21].map(SchemaHash::of_text);
    let expected = "dc202490ed34bc7b49648c22d391bbfc195515ee1587a12bd6749f29fb7d7f05";
    assert_eq!(SchemaHash::of_zones(&hashes).to_string(), expected);
    assert_eq!(SchemaHash::of_zones(&[]), SchemaHash::UNTYPED);
}

/// Case H-07: a text that does not have the hash it came with.
///
/// Rules: DH-180, H-07.
#[test]
fn a_text_that_belies_its_hash_is_an_error() {
    let hash = SchemaHash::of_text(SENSOR);
    assert_eq!(hash.check_text(SENSOR), Ok(()));
    let error = hash.check_text(SENSOR_21).unwrap_err();
    assert_eq!((error.given, error.computed), (hash, SchemaHash::of_text(SENSOR_21)));
    assert!(error.to_string().starts_with("FINGERPRINT_INCONSISTENT: "), "{error}");
    assert!(SchemaHash::UNTYPED.check_text(SENSOR).is_err());
}

#[test]
fn hashes_are_64_digits_in_lower_case() {
    let text = SchemaHash::of_text(SENSOR).to_string();
    assert_eq!(text.parse(), Ok(SchemaHash::of_text(SENSOR)));
    for wrong in [
        "",
        &text[1..],
        &text[2..],
        &format!("{text}00"),
        &text.to_uppercase(),
        &text.replace('5', "g"),
        &"é".repeat(32),
    ] {
        assert!(wrong.parse::<SchemaHash>().is_err(), "{wrong}");
    }
}

#[test]
fn versions_are_two_numbers() {
    assert_eq!("2.10".parse(), Ok(SchemaVersion::new(2, 10)));
    assert_eq!("0.65535".parse::<SchemaVersion>().unwrap().to_string(), "0.65535");
    assert!(SchemaVersion::new(2, 10) > SchemaVersion::new(2, 9));
    for wrong in ["", "2", "2.", ".1", "2.1.0", "02.1", "2.+1", "65536.0", " 2.1", "2.01"] {
        let error = wrong.parse::<SchemaVersion>().unwrap_err();
        assert_eq!(error.found, wrong);
    }
}

#[test]
fn the_parts_of_a_schema() {
    let pose = schema(crate::POSE);
    assert_eq!((pose.name(), pose.size(), pose.align()), ("Pose", 32, 8));
    let [id, padding, pos] = pose.fields() else { panic!("three fields") };
    assert_eq!((id.name(), id.offset(), id.size(), id.ty().to_string()), ("id", 0, 4, "u32".to_owned()));
    assert!(padding.is_padding() && !id.is_padding() && !pos.is_optional());
    assert_eq!(padding.ty().count(), Some(4));
    assert!(schema(SENSOR_21).fields()[3].is_optional());
    assert_eq!(SENSOR.parse::<Schema>().unwrap(), schema(SENSOR));
}
