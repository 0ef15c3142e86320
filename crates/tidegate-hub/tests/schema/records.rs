//! Fields of a record: by path, as JSON, as CSV.

use serde_json::{Value, json};
use tidegate_hub::schema::{AccessError, CsvColumns, MAX_COLUMNS, RecordMut, RecordRef};

use crate::{EVERYTHING, POSE, SENSOR, SENSOR_21, schema};

/// A record of `EVERYTHING` at its limits, as JSON.
fn everything() -> Value {
    json!({
        "a": "18446744073709551615", "b": "-9223372036854775808", "c": 1e300, "d": 4294967295u32, "e": -2147483648,
        "f": 0.1, "g": 65535, "h": -32768, "i": 255, "j": -128, "flag": true, "letter": "x", "label": "größer",
        "grid": [1, 2, 3, 4, 5, 6],
        "legs": [{"angle": -0.5, "id": 1}, {"angle": "NaN", "id": 2}, {"angle": "-Infinity", "id": 3}],
        "last": ["-1", "9223372036854775807"],
    })
}

fn filled(text: &str, line: u64, value: &Value) -> Result<Vec<u8>, String> {
    let schema = schema(text);
    let mut bytes = vec![0xaa; schema.size() as usize];
    let mut record = RecordMut::new(&schema, &mut bytes).unwrap();
    record.put_json(line, value).map_err(|error| error.to_string()).map(|()| bytes)
}

#[test]
fn json_of_every_type_and_back() {
    let schema = schema(EVERYTHING);
    let bytes = filled(EVERYTHING, 1, &everything()).unwrap();
    assert_eq!(bytes[..8], [0xff; 8]);
    assert_eq!(bytes[8..16], i64::MIN.to_le_bytes());
    assert_eq!(bytes[32..36], 0.1f32.to_le_bytes());
    assert_eq!(&bytes[44..56], b"gr\xc3\xb6\xc3\x9fer\0\0\0\0");
    assert_eq!(bytes[56..60], [1, 0, 2, 0]);
    assert_eq!(bytes[72..76], [1, 0, 0, 0], "padding is zero");
    assert_eq!(bytes[92..96], [0; 4], "padding is zero");
    assert_eq!(bytes[96..112], [[0xff; 8], i64::MAX.to_le_bytes()].concat());
    let record = RecordRef::new(&schema, &bytes).unwrap();
    assert_eq!(record.to_json(1), Ok(everything()));
    // Short for people: not 0.10000000149011612.
    assert!(record.to_json(1).unwrap().to_string().contains("\"f\":0.1,"));
}

#[test]
fn fields_are_reached_by_path_and_type() {
    let schema = schema(EVERYTHING);
    let mut bytes = filled(EVERYTHING, 1, &everything()).unwrap();
    bytes.push(7);
    let mut record = RecordMut::new(&schema, &mut bytes).unwrap();
    assert_eq!(record.as_ref().bytes().len(), 112);
    record.put_number("a", 5u64).unwrap();
    record.put_number("legs[2].angle", 2.5f32).unwrap();
    record.put_number("grid[5]", 9u16).unwrap();
    record.put_numbers("last", &[3i64, 4]).unwrap();
    record.put_flag("flag", false).unwrap();
    record.put_text("label", "0123456789ab").unwrap();
    record.put_text("letter", "").unwrap();
    let read = record.as_ref();
    assert_eq!(read.number("a"), Ok(5u64));
    assert_eq!(read.number("legs[2].angle"), Ok(2.5f32));
    assert_eq!(read.number("legs[1].id"), Ok(2u8));
    assert_eq!(read.numbers("grid"), Ok(vec![1u16, 2, 3, 4, 5, 9]));
    assert_eq!(read.numbers("last"), Ok(vec![3i64, 4]));
    assert_eq!(
        (read.flag("flag"), read.text("label"), read.text("letter")),
        (Ok(false), Ok("0123456789ab"), Ok(""))
    );
    assert_eq!(read.schema().name(), "Everything");
    assert_eq!(bytes[112], 7, "not the record's");
}

#[test]
fn fields_that_cannot_be_reached_say_why() {
    let schema = schema(EVERYTHING);
    let mut bytes = filled(EVERYTHING, 1, &everything()).unwrap();
    bytes[42] = 2;
    bytes[44] = 0xff;
    let short = RecordRef::new(&schema, &bytes[..111]).unwrap_err();
    assert_eq!(short, AccessError::TooShort { expected: 112, found: 111 });
    assert!(RecordMut::new(&schema, &mut [0; 111]).is_err());

    let record = RecordRef::new(&schema, &bytes).unwrap();
    let number = |path| record.number::<u8>(path).unwrap_err().to_string();
    for path in [
        "",
        "nothing",
        "legs",
        "legs.id",
        "legs[0]",
        "legs[0].id.x",
        "legs[0]x.id",
        "legs[].id",
        "i.x",
        ".i",
        "i.",
    ] {
        let text = number(path);
        assert!(text.contains(&format!("field {path:?}: ")), "{text}");
    }
    let cases = [
        (number("legs[3].id"), "field \"legs[3].id\": expected an index below 3, found 3"),
        (number("i[0]"), "field \"i[0]\": expected an index below 0, found 0"),
        (number("j"), "field \"j\": expected u8, found i8"),
        (number("grid"), "field \"grid\": expected u8, found u16[6]"),
        (
            record.numbers::<u16>("g").unwrap_err().to_string(),
            "field \"g\": expected an array of u16, found u16",
        ),
        (record.flag("i").unwrap_err().to_string(), "field \"i\": expected b8, found u8"),
        (record.flag("flag").unwrap_err().to_string(), "field \"flag\": expected 0 or 1 in a b8, found 2"),
        (record.text("i").unwrap_err().to_string(), "field \"i\": expected c8, found u8"),
        (
            record.text("label").unwrap_err().to_string(),
            "field \"label\": expected a text in UTF-8, found byte 0xff at its position 0",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
    let mut record = RecordMut::new(&schema, &mut bytes).unwrap();
    let long = record.put_text("label", "0123456789abc").unwrap_err().to_string();
    assert!(long.contains("expected a text of at most 12 bytes") && long.contains("(13 bytes)"), "{long}");
    assert!(record.put_text("label", "a\0b").is_err());
    let count = record.put_numbers("grid", &[1u16; 5]).unwrap_err().to_string();
    assert_eq!(count, "field \"grid\": expected 6 elements, found 5");
}

#[test]
fn json_that_does_not_fit_names_line_field_expected_and_found() {
    let changed = |path: &str, value: Value| {
        let mut object = everything();
        *object.pointer_mut(path).unwrap() = value;
        filled(EVERYTHING, 7, &object).unwrap_err()
    };
    let with = |name: &str| {
        let mut object = everything();
        object.as_object_mut().unwrap().insert(name.to_owned(), json!(0));
        filled(EVERYTHING, 7, &object).unwrap_err()
    };
    let without = |name: &str| {
        let mut object = everything();
        object.as_object_mut().unwrap().remove(name);
        filled(EVERYTHING, 7, &object).unwrap_err()
    };
    let cases = [
        (
            changed("/a", json!("18446744073709551616")),
            "line 7, field \"a\": expected a whole number in 0..=18446744073709551615, found \"18446744073709551616\"",
        ),
        (
            changed("/a", json!(-1)),
            "field \"a\": expected a whole number in 0..=18446744073709551615, found -1",
        ),
        (
            changed("/b", json!(u64::MAX)),
            "field \"b\": expected a whole number in -9223372036854775808..=9223372036854775807, found 18446744073709551615",
        ),
        (
            changed("/d", json!(4294967296u64)),
            "field \"d\": expected a whole number in 0..=4294967295, found 4294967296",
        ),
        (
            changed("/e", json!(-2147483649i64)),
            "field \"e\": expected a whole number in -2147483648..=2147483647, found -2147483649",
        ),
        (changed("/i", json!(256)), "line 7, field \"i\": expected a whole number in 0..=255, found 256"),
        (changed("/i", json!(1.0)), "field \"i\": expected a whole number in 0..=255, found 1.0"),
        (changed("/i", json!("1")), "field \"i\": expected a whole number in 0..=255, found \"1\""),
        (changed("/j", json!(128)), "field \"j\": expected a whole number in -128..=127, found 128"),
        (
            changed("/f", json!(1e39)),
            "field \"f\": expected a number within -3.4028235e38..=3.4028235e38, or \"NaN\", \"Infinity\", \"-Infinity\", found 1",
        ),
        (changed("/c", json!("1.5")), "field \"c\": expected a number within"),
        (changed("/flag", json!(1)), "field \"flag\": expected true or false, found 1"),
        (
            changed("/letter", json!("xy")),
            "field \"letter\": expected a text of at most 1 bytes, without a zero byte, found \"xy\" (2 bytes)",
        ),
        (changed("/label", json!(5)), "field \"label\": expected a text, found 5"),
        (changed("/grid", json!([1, 2])), "field \"grid\": expected a list of 6 elements, found one of 2"),
        (changed("/grid", json!(null)), "field \"grid\": expected a list of 6 elements, found null"),
        (
            changed("/grid/3", json!(65536)),
            "line 7, field \"grid[3]\": expected a whole number in 0..=65535, found 65536",
        ),
        (
            changed("/legs/1/id", json!(300)),
            "line 7, field \"legs[1].id\": expected a whole number in 0..=255, found 300",
        ),
        (changed("/legs/1", json!({"id": 1})), "field \"legs[1].angle\": expected a value, found none"),
        (
            with("nothing"),
            "line 7, field \"nothing\": expected only fields of the schema, each once, found this one",
        ),
        (with("_pad0"), "field \"_pad0\": expected only fields of the schema"),
        (without("label"), "line 7, field \"label\": expected a value, found none"),
        (
            filled(EVERYTHING, 7, &json!([1])).unwrap_err(),
            "line 7, field \"\": expected an object with the fields of the schema, found [1]",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "expected: {expected}\nfound:    {found}");
    }
    let long = changed("/label", json!("é".repeat(10_000)));
    assert!(long.len() < 400 && long.contains('…'), "{long}");
}

#[test]
fn bytes_of_others_that_are_no_values_are_errors() {
    let schema = schema(EVERYTHING);
    let mut bytes = vec![0; 112];
    bytes[42] = 0x80;
    let error = RecordRef::new(&schema, &bytes).unwrap().to_json(3).unwrap_err();
    assert_eq!(error.to_string(), "line 3, field \"flag\": expected 0 or 1 in a b8, found 128");
    let error = CsvColumns::of(&schema).unwrap().row(3, &bytes).unwrap_err();
    assert_eq!(error.to_string(), "line 3, field \"flag\": expected 0 or 1 in a b8, found 128");
    bytes[42] = 0;
    bytes[50] = 0xc3;
    assert!(RecordRef::new(&schema, &bytes).unwrap().to_json(3).is_ok(), "the text ends before");
    bytes[44..51].fill(0xc3);
    let error = RecordRef::new(&schema, &bytes).unwrap().to_json(3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3, field \"label\": expected a text in UTF-8, found byte 0xc3 at its position 0"
    );
}

#[test]
fn csv_of_every_type_and_back() {
    let schema = schema(EVERYTHING);
    let columns = CsvColumns::of(&schema).unwrap();
    let header = "a b c d e f g h i j flag letter label grid[0] grid[1] grid[2] grid[3] grid[4] grid[5] legs[0].angle \
                  legs[0].id legs[1].angle legs[1].id legs[2].angle legs[2].id last[0] last[1]";
    assert_eq!(columns.names().collect::<Vec<_>>(), header.split(' ').collect::<Vec<_>>());
    let bytes = filled(EVERYTHING, 1, &everything()).unwrap();
    let row = columns.row(1, &bytes).unwrap();
    let expected = "18446744073709551615 -9223372036854775808 1e300 4294967295 -2147483648 0.1 65535 -32768 255 -128 true x \
                    größer 1 2 3 4 5 6 -0.5 1 NaN 2 -Infinity 3 -1 9223372036854775807";
    assert_eq!(row.join(" "), expected);
    let mut copy = vec![0xaa; 112];
    let fields: Vec<&str> = row.iter().map(String::as_str).collect();
    columns.put_row(1, &fields, &mut copy).unwrap();
    assert_eq!(copy, bytes);
}

#[test]
fn csv_columns_may_stand_in_any_order() {
    let schema = schema(POSE);
    let columns = CsvColumns::in_order(&schema, &["pos.z", "id", "pos.x", "pos.y"]).unwrap();
    let mut bytes = [0xaa; 32];
    columns.put_row(2, &["3", "7", "1.5", "-2e-3"], &mut bytes).unwrap();
    let record = RecordRef::new(&schema, &bytes).unwrap();
    assert_eq!(record.to_json(1), Ok(json!({"id": 7, "pos": {"x": 1.5, "y": -0.002, "z": 3.0}})));
    assert_eq!(columns.row(2, &bytes).unwrap(), ["3.0", "7", "1.5", "-0.002"]);

    let error = |header: &[&str]| CsvColumns::in_order(&schema, header).unwrap_err().to_string();
    assert_eq!(error(&["id", "pos.x", "pos.y"]), "line 1, field \"pos.z\": expected a value, found none");
    for header in [["id", "id"], ["id", "_pad0"], ["id", "pos"]] {
        let expected = format!(
            "line 1, field {:?}: expected only fields of the schema, each once, found this one",
            header[1]
        );
        assert_eq!(error(&header), expected);
    }
}

#[test]
fn csv_that_does_not_fit_names_line_column_expected_and_found() {
    let schema = schema(EVERYTHING);
    let columns = CsvColumns::of(&schema).unwrap();
    let good = columns.row(1, &filled(EVERYTHING, 1, &everything()).unwrap()).unwrap();
    let error = |column: &str, field: &str| {
        let at = columns.names().position(|name| name == column).unwrap();
        let mut fields: Vec<&str> = good.iter().map(String::as_str).collect();
        fields[at] = field;
        columns.put_row(9, &fields, &mut [0; 112]).unwrap_err().to_string()
    };
    let cases = [
        (error("i", "256"), "line 9, field \"i\": expected a whole number in 0..=255, found \"256\""),
        (error("i", ""), "expected a whole number in 0..=255, found \"\""),
        (error("i", " 1"), "found \" 1\""),
        (error("i", "1.0"), "found \"1.0\""),
        (error("h", "-32769"), "expected a whole number in -32768..=32767, found \"-32769\""),
        (error("f", "1e39"), "expected a number within -3.4028235e38..=3.4028235e38"),
        (error("c", "1e309"), "line 9, field \"c\": expected a number within"),
        (error("c", "inf"), "found \"inf\""),
        (error("flag", "TRUE"), "expected true or false, found \"TRUE\""),
        (error("label", "0123456789abc"), "expected a text of at most 12 bytes"),
        (
            error("legs[1].id", "-1"),
            "line 9, field \"legs[1].id\": expected a whole number in 0..=255, found \"-1\"",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "expected: {expected}\nfound:    {found}");
    }
    let short = columns.put_row(9, &["1"], &mut [0; 112]).unwrap_err().to_string();
    assert_eq!(short, "line 9, field \"\": expected 27 fields on this line, found 1");
    let short = columns.row(9, &[0; 111]).unwrap_err().to_string();
    assert_eq!(short, "line 9, field \"\": expected a record of 112 bytes, found 111");
}

#[test]
fn tables_have_a_limit() {
    let of = |count: usize| format!("tds1 Many size={count} align=1 {{x:u8[{count}]@0+{count}}}");
    assert_eq!(CsvColumns::of(&schema(&of(MAX_COLUMNS))).unwrap().names().count(), MAX_COLUMNS);
    let error = CsvColumns::of(&schema(&of(4_000_000_000))).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 1, field \"x[4096]\": expected at most 4096 columns of CSV, found more; use NDJSON for this schema"
    );
}

/// A field that is optional is there in all records of who writes by this schema.
#[test]
fn optional_fields_are_no_exception() {
    let json = |humidity: Value| json!({"timestamp_ns": "1", "temperature": 2.0, "pressure": 3.0, "humidity": humidity});
    assert!(filled(SENSOR_21, 1, &json(json!(4.5))).is_ok());
    assert!(filled(SENSOR_21, 1, &json(Value::Null)).is_err());
    assert!(filled(SENSOR, 1, &json(json!(4.5))).is_err());
}
