//! The generator stops the build when a schema does not say what its bytes are.
#![allow(clippy::expect_used, reason = "a test may fail")]

#[path = "../build/layout.rs"]
#[expect(dead_code, reason = "only the build script prints layouts")]
mod layout;
#[path = "../build/parse.rs"]
#[expect(dead_code, reason = "only the build script prints enums")]
mod parse;

use layout::LayoutError;
use parse::ParseError;

/// Result of a schema with one message of `fields`, with a block of `block` bytes.
fn message(block: usize, fields: &str) -> Result<layout::Schema, LayoutError> {
    layout::schema(&parse::schema(&xml(block, fields)).expect("a schema"))
}

fn xml(block: usize, fields: &str) -> String {
    format!(
        r#"<messageSchema xmlns:tg="urn:tidegate:sbe" package="p" id="1" version="1" tg:name="n" description="d">
             <types>
               <composite name="varData">
                 <type name="length" primitiveType="uint32" maxValue="9"/>
                 <type name="varData" primitiveType="uint8"/>
               </composite>
             </types>
             <message name="M" id="1" blockLength="{block}" description="d">{fields}</message>
           </messageSchema>"#
    )
}

fn field(name: &str, type_name: &str, rest: &str) -> String {
    format!(r#"<field name="{name}" type="{type_name}" description="d" {rest}/>"#)
}

#[test]
fn fields_follow_each_other_and_fill_the_block() {
    let fields = field("a", "uint8", r#"offset="0""#) + &field("b", "uint32", r#"offset="1""#);
    let schema = message(5, &fields).expect("a layout");
    let offsets: Vec<usize> = schema.messages[0].value.fields.iter().map(|field| field.offset).collect();
    assert_eq!(offsets, [0, 1]);
    assert!(matches!(message(6, &fields), Err(LayoutError::BlockLength { expected: 6, found: 5, .. })));
    let gap = field("a", "uint8", r#"offset="0""#) + &field("b", "uint32", r#"offset="4""#);
    assert!(matches!(message(8, &gap), Err(LayoutError::Offset { expected: 1, found: 4, .. })));
    let unplaced = field("a", "uint8", "");
    assert!(matches!(message(1, &unplaced), Err(LayoutError::Offset { .. })));
}

#[test]
fn padding_is_last() {
    let pad = field("pad", "uint8", r#"offset="4" tg:pad="true""#);
    let number = field("a", "uint32", r#"offset="0""#);
    assert!(message(60, &(number.clone() + &pad)).is_ok());
    let after = pad + &field("b", "uint8", r#"offset="60""#);
    assert!(matches!(message(61, &(number + &after)), Err(LayoutError::Padding { .. })));
}

#[test]
fn types_must_exist_and_fit_their_place() {
    for type_name in ["uint128", "varData"] {
        let fields = field("a", type_name, r#"offset="0""#);
        assert!(matches!(message(1, &fields), Err(LayoutError::Type { .. })), "{type_name}");
    }
    let data = r#"<data name="a" type="uint8" description="d"/>"#;
    assert!(matches!(message(0, data), Err(LayoutError::Type { .. })));
}

#[test]
fn groups_share_an_entry_only_if_it_is_the_same() {
    let group = |name: &str, block: usize, type_name: &str| {
        let attributes = format!(r#"name="{name}" blockLength="{block}" tg:entry="E" description="d""#);
        format!("<group {attributes}>{}</group>", field("a", type_name, r#"offset="0""#))
    };
    assert!(message(0, &(group("g", 1, "uint8") + &group("g", 1, "uint8"))).is_ok());
    let different = group("g", 1, "uint8") + &group("g", 2, "uint16");
    assert!(matches!(message(0, &different), Err(LayoutError::Entry { .. })));
}

#[test]
fn order_of_elements_is_that_of_the_wire() {
    let data = r#"<data name="d" type="varData" description="d"/>"#;
    let late = data.to_owned() + &field("a", "uint8", r#"offset="0""#);
    assert!(matches!(parse::schema(&xml(1, &late)), Err(ParseError::Unsupported { line: 8, .. })));
    assert!(parse::schema(&xml(1, data)).is_ok());
    let nameless = parse::schema(&xml(1, r#"<data type="varData" description="d"/>"#));
    assert!(matches!(nameless, Err(ParseError::Missing { attribute: "name", .. })));
    let malformed = parse::schema(&xml(1, &field("a", "uint8", r#"offset="x""#)));
    assert!(matches!(malformed, Err(ParseError::Malformed { attribute: "offset", .. })));
}
