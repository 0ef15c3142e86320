//! Texts that are refused, with the place and the reason.

use tidegate_hub::schema::{MAX_TEXT, Schema};

use crate::{EVERYTHING, POSE, SENSOR, SENSOR_21};

/// The error of `SENSOR` with one part replaced.
fn error_of(from: &str, to: &str) -> String {
    assert_eq!(SENSOR.matches(from).count(), 1, "{from}");
    error(&SENSOR.replace(from, to))
}

fn error(text: &str) -> String {
    Schema::parse(text).unwrap_err().to_string()
}

fn nested(depth: usize) -> String {
    let inner = "r:R{".repeat(depth - 1) + "x:u8@0+1" + &"}@0+1".repeat(depth - 1);
    format!("tds1 Deep size=1 align=1 {{{inner}}}")
}

/// Case H-04: extra space, wrong offset, gap, overlap, leading zero, depth 9, 33 KiB.
///
/// Rules: DH-168, H-04.
#[test]
fn texts_that_are_not_canonical_say_where_and_why() {
    let cases = [
        (
            error_of(";temperature", "; temperature"),
            "line 1, column 55: expected the name of a field, which begins with a letter or \"_\", found \" temperature:f32\"",
        ),
        (error_of("{", " {"), "line 1, column 33: expected \"{\", found \" {timestamp_ns:u\""),
        (
            error_of("@12", "@13"),
            "line 1, column 75: field \"pressure\": expected offset 12, found 13, which leaves a gap; name it, as in _pad0:u8[1]@12+1",
        ),
        (
            error_of("@12", "@8"),
            "line 1, column 75: field \"pressure\": expected offset 12, found 8, which overlaps the field before",
        ),
        (
            error_of("@8+", "@08+"),
            "line 1, column 71: expected a decimal number of at most 4294967295 without leading zeros, found \"08+4;pressure:f3\"",
        ),
        (
            error_of("u64@0+8", "u64@0+4"),
            "line 1, column 34: field \"timestamp_ns\": expected 8 bytes, as its type has, found 4",
        ),
        (
            error_of("size=16", "size=24"),
            "line 1, column 31: record \"SensorData\": expected size=16, the end of its last field, found 24",
        ),
        (
            error_of("align=8", "align=4"),
            "line 1, column 31: record \"SensorData\": expected align= of a power of two in 8..=64, found 4",
        ),
        (
            error_of("align=8", "align=128"),
            "column 31: record \"SensorData\": expected align= of a power of two in 8..=64, found 128",
        ),
        (error_of("align=8", "align=24"), "found 24"),
        (
            error_of("align=8", "align=32"),
            "record \"SensorData\": expected a size that is a multiple of its alignment 32, found 16",
        ),
        (
            error_of("pressure", "temperature"),
            "field \"temperature\": expected another name, found that of an earlier field",
        ),
        (
            error_of("tds1", "tds2"),
            "line 1, column 1: expected \"tds1\" and one space, found \"tds2 SensorData \"",
        ),
        (
            error_of("SensorData", "_S"),
            "column 6: expected the name of the record, which begins with a letter, found \"_S size=16 align\"",
        ),
        (
            error_of("SensorData", "u8"),
            "column 6: expected a record's own name, found \"u8\", which is a primitive type",
        ),
        (
            error_of("u64@", "u65@"),
            "column 47: expected a type: u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 b8 c8, or a name and fields in braces, found \"u65@0+8;temperat\"",
        ),
        (error_of("f32@12+4}", "f32@12+4} "), "expected the end of the text, found \" \""),
        (
            error_of("f32@12+4}", "f32@12+4"),
            "expected \";\" and a field, or \"}\", found the end of the text",
        ),
        (error_of("f32@12+4", "f32[0]@12+4"), "expected a number of elements from 1, found \"0]@12+4}\""),
        (
            error_of("f32@12+4", "f32@12+4;_pad0:u8@16+1"),
            "field \"_pad0\": expected padding of type u8[n], not optional, found u8;",
        ),
        (
            error_of("f32@12+4", "f32@12+4;_pad1:u8[8]@16+8"),
            "field \"_pad1\": expected the padding to be called _pad0",
        ),
        (
            error_of("f32@12+4", "f32@12+4;_pad0:u8[4]@16+4;_pad1:u8[4]@20+4"),
            "field \"_pad1\": expected a field after padding, found more padding",
        ),
        (
            error_of("temperature:f32@", "temperature:f32?@"),
            "field \"pressure\": expected it to be optional (?), as a field before it is",
        ),
        (
            error("tds1 A size=8 align=4 {a:u8[2]@0+2;b:u32@2+4;_pad0:u8[2]@6+2}"),
            "field \"b\": expected an offset that is a multiple of 4, found 2",
        ),
        (
            error("tds1 A size=5 align=1 {r:R{a:u32@0+4;b:u8@4+1}@0+5}"),
            "column 26: record \"R\": expected a size that is a multiple of its alignment 4, found 5",
        ),
        (
            error("tds1 A size=1 align=1 {_pad0:u8[1]@0+1}"),
            "record \"A\": expected a field that is not padding, found none",
        ),
        (
            error(&POSE.replace("z:f64@", "z:f64?@")),
            "field \"z\": expected no optional field in a nested record, found one",
        ),
        (error(&POSE.replace("Vec3", "f64")), "expected a record's own name, found \"f64\""),
        (
            error("tds1 A size=4294967296 align=1 {a:u8[4294967296]@0+4294967296}"),
            "column 13: expected a decimal number of at most 4294967295",
        ),
        (
            error("tds1 A size=1 align=1 {a:u8[4294967295]@0+4294967295;b:u8@4294967295+1}"),
            "expected at most 4294967295 bytes, found 4294967296",
        ),
        (
            error("tds1 A size=1 align=1 {a:u64[4294967295]@0+4294967288}"),
            "expected 34359738360 bytes, as its type has, found 4294967288",
        ),
        (
            error(&format!("tds1 {} size=1 align=1 {{a:u8@0+1}}", "N".repeat(65))),
            "column 6: expected a name of at most 64 characters, found 65",
        ),
        (
            error("tds1 A size=1 align=1 {é:u8@0+1}"),
            "column 24: expected the name of a field, which begins with a letter or \"_\", found \"é:u8@0+1}\"",
        ),
        (error(""), "line 1, column 1: expected \"tds1\" and one space, found the end of the text"),
        (error(&nested(9)), "column 58: expected records nested at most 8 deep, found one more"),
        (error(&" ".repeat(33 * 1024)), "expected at most 32768 bytes, found 33792"),
    ];
    let wrong = cases.iter().filter(|(found, expected)| !found.contains(expected));
    let wrong: Vec<_> =
        wrong.map(|(found, expected)| format!("expected: {expected}\nfound:    {found}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules: DH-168.
#[test]
fn limits_are_reached_and_not_passed() {
    assert_eq!(Schema::parse(&nested(8)).unwrap().to_string(), nested(8));
    assert!(Schema::parse(&nested(5000)).is_err());

    let text = |fields: u32| {
        let fields: Vec<_> = (0..fields).map(|n| format!("f{n}:u8@{n}+1")).collect();
        format!("tds1 Long size={} align=1 {{{}}}", fields.len(), fields.join(";"))
    };
    let most = (1..).take_while(|&fields| text(fields).len() <= MAX_TEXT).last().unwrap();
    assert!(Schema::parse(&text(most)).is_ok());
    assert!(Schema::parse(&text(most + 1)).unwrap_err().to_string().contains("at most 32768 bytes"));

    let name = "N".repeat(64);
    assert!(Schema::parse(&format!("tds1 {name} size=1 align=1 {{{name}:u8@0+1}}")).is_ok());
}

/// Every text that differs from a canonical one in a byte, by loss, doubling or another byte, is refused or canonical
/// itself.
///
/// Rules: DH-168.
#[test]
fn a_byte_changed_gives_another_canonical_text_or_an_error() {
    let mut refused = 0;
    for text in [SENSOR, SENSOR_21, POSE, EVERYTHING] {
        for at in 0..text.len() {
            let (head, tail) = text.split_at(at);
            let mut variants =
                vec![head.to_owned(), format!("{head}{}", &tail[1..]), format!("{head}{}{tail}", &tail[..1])];
            variants.extend((0..128u8).map(|byte| format!("{head}{}{}", char::from(byte), &tail[1..])));
            for variant in variants {
                match Schema::parse(&variant) {
                    Ok(schema) => assert_eq!(schema.to_string(), variant),
                    Err(error) => {
                        assert!(error.column as usize <= variant.len() + 1, "{error}: {variant}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 50_000, "{refused}");
}
