//! Schemas where they are kept: the region of a block, and files.

use std::fs;

use tidegate_hub::schema::{
    Builder, NamedSchema, NamedSchemas, Prim, Schema, SchemaHash, SchemaId, SchemaTexts, SchemaVersion,
};

use crate::{POSE, SENSOR, SENSOR_21, schema};

const NONE: SchemaHash = SchemaHash::UNTYPED;

fn region(slot: Option<&str>, zones: &[&str]) -> String {
    let zones = zones.iter().map(|text| schema(text)).collect();
    SchemaTexts::new(slot.map(schema), zones).unwrap().to_string()
}

/// Slot first, then zones, separated by one LF.
///
/// Rules: DH-170, N-30.
#[test]
fn the_region_of_a_block_holds_one_text_a_line() {
    assert_eq!(region(None, &[]), "");
    assert_eq!(region(Some(SENSOR), &[]), SENSOR);
    assert_eq!(region(Some(SENSOR), &[POSE, SENSOR]), format!("{SENSOR}\n{POSE}\n{SENSOR}"));
    assert_eq!(region(None, &[POSE]), format!("\n{POSE}"));

    let (sensor, pose) = (SchemaHash::of_text(SENSOR), SchemaHash::of_text(POSE));
    let texts = SchemaTexts::parse(format!("{SENSOR}\n{POSE}\n{SENSOR}").as_bytes()).unwrap();
    assert_eq!(texts.slot(sensor), Ok(Some(&schema(SENSOR))));
    assert_eq!(texts.zone(1, pose), Ok(Some(&schema(POSE))));
    assert_eq!(texts.zone(2, sensor), Ok(Some(&schema(SENSOR))));
    assert_eq!(texts.zone(SchemaTexts::NO_LINE, NONE), Ok(None));
    assert_eq!(SchemaTexts::parse(b"").unwrap().slot(NONE), Ok(None));
    let zones_only = SchemaTexts::parse(format!("\n{POSE}").as_bytes()).unwrap();
    assert_eq!((zones_only.slot(NONE), zones_only.zone(1, pose).is_ok()), (Ok(None), true));
}

/// Rules: DH-170, DH-180.
#[test]
fn a_region_that_belies_its_descriptor_is_refused() {
    let texts = SchemaTexts::parse(format!("{SENSOR}\n{POSE}").as_bytes()).unwrap();
    let (sensor, pose) = (SchemaHash::of_text(SENSOR), SchemaHash::of_text(POSE));
    for error in
        [texts.slot(pose).unwrap_err(), texts.slot(NONE).unwrap_err(), texts.zone(1, sensor).unwrap_err()]
    {
        assert!(error.to_string().starts_with("FINGERPRINT_INCONSISTENT: "), "{error}");
    }
    for index in [0, 2] {
        let expected = format!("schema region: expected a zone's text_index in 1..2, found {index}");
        assert_eq!(texts.zone(index, sensor).unwrap_err().to_string(), expected);
    }
    assert!(texts.zone(SchemaTexts::NO_LINE, pose).unwrap_err().to_string().contains("found none"));
    assert!(SchemaTexts::default().slot(sensor).unwrap_err().to_string().contains("found none"));
}

/// Rules: DH-168.
#[test]
fn garbage_in_the_region_is_refused_with_its_line() {
    let error = |bytes: &[u8]| SchemaTexts::parse(bytes).unwrap_err().to_string();
    assert_eq!(
        error(format!("{SENSOR}\n{POSE}\ntds1 X").as_bytes()),
        "schema text, line 3, column 7: expected one space and \"size=\", found the end of the text"
    );
    assert!(error(format!("{SENSOR}\n").as_bytes()).contains("line 2, column 1: expected \"tds1\""));
    assert!(error(format!("{SENSOR}\n\n{POSE}").as_bytes()).contains("line 2, column 1"));
    assert!(error(b"\n").contains("line 2, column 1"), "{}", error(b"\n"));
    assert!(error(format!("{SENSOR}\0").as_bytes()).contains("expected the end of the text"));
    assert_eq!(error(b"tds1 \xff"), "schema region: expected ASCII text, found another byte at offset 5");
    assert!(error(&vec![b' '; 65_537]).contains("at most 65536 bytes, found 65537"));

    let long = format!(
        "tds1 Long size=2150 align=1 {{{}}}",
        (0..2150).map(|n| format!("f{n}:u8@{n}+1")).collect::<Vec<_>>().join(";")
    );
    let three = vec![schema(&long); 2];
    assert!(long.len() * 3 > SchemaTexts::MAX_LEN, "{}", long.len());
    assert!(SchemaTexts::new(Some(schema(&long)), three).is_err());
}

/// The builder pads as C does.
#[test]
fn a_schema_is_built_field_by_field() {
    let built = Builder::new("SensorData")
        .field("timestamp_ns", Prim::U64, None, false)
        .and_then(|builder| builder.field("temperature", Prim::F32, None, false))
        .and_then(|builder| builder.field("pressure", Prim::F32, None, false))
        .and_then(|builder| builder.field("humidity", Prim::F32, None, true))
        .and_then(Builder::finish);
    assert_eq!(built.unwrap().to_string(), SENSOR_21);

    let fields = ["x", "y", "z"].iter();
    let vec3 = fields
        .fold(Builder::new("Vec3"), |builder, name| builder.field(name, Prim::F64, None, false).unwrap());
    let pose = Builder::new("Pose").field("id", Prim::U32, None, false).unwrap();
    let pose = pose.nested("pos", &vec3.finish().unwrap(), None, false).unwrap().finish().unwrap();
    assert_eq!(pose.to_string(), POSE);
}

#[test]
fn what_cannot_be_built_says_why() {
    let start = || Builder::new("A").field("a", Prim::U8, None, false).unwrap();
    let error = |result: Result<Builder, _>| result.and_then(Builder::finish).unwrap_err().to_string();
    let cases = [
        (error(start().field("a", Prim::U8, None, false)), "at \"a\": field \"a\": expected another name"),
        (
            error(start().field("1", Prim::U8, None, false)),
            "at \"1\": expected a name of letters, digits and \"_\"",
        ),
        (error(start().field("b-c", Prim::U8, None, false)), "found \"-c\""),
        (error(start().field("", Prim::U8, None, false)), "found the end of the text"),
        (
            error(start().field("b", Prim::U8, Some(0), false)),
            "expected a number of elements from 1, found 0",
        ),
        (error(start().field("b", Prim::U64, Some(u32::MAX), false)), "expected at most 4294967295 bytes"),
        (
            error(start().field("b", Prim::U8, None, true).unwrap().field("c", Prim::U8, None, false)),
            "field \"c\": expected it to be optional",
        ),
        (
            error(start().nested("b", &schema(SENSOR_21), None, false)),
            "field \"humidity\": expected no optional field in a nested record",
        ),
        (error(start().field("_pad0", Prim::U8, None, false)), "field \"_pad0\": expected padding"),
        (error(Ok(Builder::new("A"))), "expected a field that is not padding"),
        (error(Builder::new("1A").field("a", Prim::U8, None, false)), "at \"1A\": expected a name"),
        (error(Builder::new("f64").field("a", Prim::U8, None, false)), "which is a primitive type"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "expected: {expected}\nfound:    {found}");
    }
    let deep = (1..9).try_fold(start().finish().unwrap(), |inner, _| {
        Builder::new("R").nested("r", &inner, None, false).and_then(Builder::finish)
    });
    assert!(deep.unwrap_err().to_string().contains("nested at most 8 deep"));
    let names = (0..3000).map(|n| format!("a_long_name_{n}"));
    let long = names.fold(start(), |builder, name| builder.field(&name, Prim::U8, None, false).unwrap());
    assert!(long.finish().unwrap_err().to_string().contains("at most 32768 bytes"));
}

const FILE: &str = r#"{ "id": "SensorData", "version": "2.1",
  "slot": { "fields": [ {"name": "timestamp_ns", "type": "u64"}, {"name": "temperature", "type": "f32"},
                        {"name": "pressure", "type": "f32"}, {"name": "humidity", "type": "f32", "optional": true} ] },
  "zones": [ {"name": "Calibration", "fields": [ {"name": "gain", "type": "f64", "count": 2} ]} ] }"#;

/// Rules: DH-181.
#[test]
fn a_schema_file_gives_the_text_that_the_program_has() {
    let named = NamedSchema::from_json(FILE).unwrap();
    assert_eq!(
        (named.schema_id().to_string().as_str(), named.version),
        ("SensorData@2", SchemaVersion::new(2, 1))
    );
    assert_eq!(named.slot.unwrap().to_string(), SENSOR_21);
    let [zone] = named.zones.as_slice() else { panic!("one zone") };
    assert_eq!(zone.schema.to_string(), "tds1 Calibration size=16 align=8 {gain:f64[2]@0+16}");

    let error =
        |from: &str, to: &str| NamedSchema::from_json(&FILE.replace(from, to)).unwrap_err().to_string();
    let cases = [
        (error("\"u64\"", "\"u65\""), "at \"timestamp_ns\": expected a type: u8"),
        (error("2.1", "2"), "expected \"MAJOR.MINOR\""),
        (error("\"optional\"", "\"option\""), "unknown field `option`"),
        (error("\"id\": \"SensorData\",", ""), "missing field `id`"),
        (error("SensorData", "Sensor Data"), "expected a name of letters"),
        (error("]}", ""), "schema file: "),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "expected: {expected}\nfound:    {found}");
    }
    assert_eq!("a@2".parse::<SchemaId>().unwrap(), SchemaId { id: "a".to_owned(), major: 2 });
    for wrong in ["a", "@2", "a@", "a@02", "a@2.1", "a@65536"] {
        assert!(wrong.parse::<SchemaId>().is_err(), "{wrong}");
    }
}

/// Rules: DH-181.
#[test]
fn files_are_found_in_all_folders_and_named_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("robots/arm");
    fs::create_dir_all(&folder).unwrap();
    fs::write(directory.path().join("sensor.json"), FILE).unwrap();
    fs::write(folder.join("other.json"), FILE.replace("2.1", "3.0")).unwrap();
    fs::write(folder.join("notes.txt"), "no schema").unwrap();
    let schemas = NamedSchemas::load(directory.path()).unwrap();
    let found = |id: &str| schemas.find(&id.parse().unwrap()).count();
    assert_eq!(["SensorData@1", "SensorData@2", "SensorData@3"].map(found), [0, 1, 1]);

    fs::write(folder.join("twice.json"), FILE).unwrap();
    let error = NamedSchemas::load(directory.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("sensor.json: SensorData@2 is in an earlier file too; remove one of both"),
        "{error}"
    );
    fs::write(folder.join("twice.json"), "{").unwrap();
    let error = NamedSchemas::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("robots/arm/twice.json: schema file: EOF"), "{error}");
    fs::File::create(folder.join("twice.json")).unwrap().set_len(2_000_000).unwrap();
    let error = NamedSchemas::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("twice.json: more than 1048576 bytes"), "{error}");
    assert!(NamedSchemas::load(&folder.join("missing")).unwrap_err().to_string().contains("missing: "));
}

/// Schemas of owners are theirs: they go with them, and never stand in for another's.
///
/// Rules: DH-181.
#[test]
fn schemas_of_owners_vanish_with_them() {
    let named = |json: &str| NamedSchema::from_json(json).unwrap();
    let id: SchemaId = "SensorData@2".parse().unwrap();
    let mut schemas = NamedSchemas::default();
    schemas.register("one", named(FILE));
    schemas.register("two", named(&FILE.replace("f32", "f64")));
    schemas.register("two", named(&FILE.replace("f32", "i32")));
    let hashes = |schemas: &NamedSchemas| -> Vec<SchemaHash> {
        schemas.find(&id).filter_map(|named| named.slot.as_ref()).map(Schema::hash).collect()
    };
    let others = SchemaHash::of_text(&SENSOR_21.replace("f32", "i32"));
    assert_eq!(hashes(&schemas), [SchemaHash::of_text(SENSOR_21), others]);
    assert_eq!(schemas.remove_owner("one"), 1);
    assert_eq!(hashes(&schemas), [others]);
    assert_eq!((schemas.remove_owner("one"), schemas.remove_owner("two")), (0, 1));
    assert_eq!(hashes(&schemas), []);
}
