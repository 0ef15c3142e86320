//! The codecs against the golden data that a foreign implementation wrote.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod hex;
mod support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use tidegate_sbe::control::{ShmRegionSuperblock, SlotHeader, TensorHeader};
use tidegate_sbe::{AnyMessage, MessageHeader};

use hex::hex;

/// Rules: TP-481, TP-014, TP-015, TC-214.
#[test]
fn golden_messages_decode_to_their_values_and_back_to_their_bytes() {
    let mut seen = 0;
    for (name, bytes) in support::files() {
        let expected = fs::read(support::root().join(&name).with_extension("json")).expect("the values");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        let (values, encoded) = match expected["message_header"] {
            Value::Null => layout(expected["message"].as_str().expect("a name"), &bytes),
            ref header => message(&expected, header, &bytes),
        };
        assert_eq!(values, expected["values"], "{name}");
        // Equality of objects ignores the order of keys, text does not.
        assert_eq!(values.to_string(), expected["values"].to_string(), "{name}");
        assert_eq!(hex(&encoded), expected["hex"].as_str().expect("hex"), "{name}");
        assert_eq!(encoded, bytes, "{name}");
        assert_eq!(Value::from(encoded.len()), expected["total_length"], "{name}");
        seen += 1;
    }
    assert_eq!(seen, 57);
}

fn message(expected: &Value, header: &Value, bytes: &[u8]) -> (Value, Vec<u8>) {
    let found = MessageHeader::peek(bytes).expect("a header");
    assert_eq!(
        *header,
        json!({
            "blockLength": found.block_length,
            "templateId": found.template_id,
            "schemaId": found.schema_id,
            "version": found.version,
        })
    );
    let message = AnyMessage::decode(bytes).expect("a message");
    assert_eq!(message.name(), expected["message"]);
    assert_eq!(message.template_id(), expected["template_id"]);
    assert_eq!(message.schema().name, expected["schema"]);
    assert_eq!(message.schema().package, expected["package"]);
    assert_eq!(message.schema().id, expected["schema_id"]);
    assert_eq!(message.schema().version, expected["schema_version"]);
    assert_eq!(message.encoded_len(), bytes.len());
    (message.to_json(), message.to_vec().expect("values that can be written"))
}

fn layout(name: &str, bytes: &[u8]) -> (Value, Vec<u8>) {
    let mut out = vec![0xa5; bytes.len()];
    let (values, len) = match name {
        "ShmRegionSuperblock" => {
            let superblock = ShmRegionSuperblock::decode_body(bytes).expect("a superblock");
            (superblock.to_json(), superblock.encode_body(&mut out))
        }
        "SlotHeader" => {
            let slot = SlotHeader::decode_body(bytes).expect("a slot");
            (slot.to_json(), slot.encode_body(&mut out))
        }
        other => panic!("{other} has no form without header"),
    };
    assert_eq!(len, Ok(bytes.len()));
    (values, out)
}

/// Rules: TP-072, TP-073, TP-481, TC-214.
#[test]
fn golden_regions_decode_to_their_values_and_back_to_their_bytes() {
    let mut tensors = 0;
    for set in ["fresh", "mix5"] {
        let directory = support::root().join("shm").join(set);
        let read = |name: &str| fs::read(directory.join(name)).expect("a region file");
        let expected: Value = serde_json::from_slice(&read("expected.json")).expect("JSON");
        for name in ["header.ring", "1.pool", "2.pool"] {
            let region = read(name);
            let mut values = expected["superblocks"][name].clone();
            values.as_object_mut().expect("an object").remove("magic_hex");
            let superblock = ShmRegionSuperblock::decode_body(&region).expect("a superblock");
            assert_eq!(plain(superblock.to_json()), values, "{set} {name}");
            let mut out = [0xa5; 64];
            assert_eq!(superblock.encode_body(&mut out), Ok(64));
            assert_eq!(out, region[..64], "{set} {name}");
        }
        let ring = read("header.ring");
        let slots = expected["slots"].as_array().expect("slots");
        assert_eq!(ring.len(), 64 + 256 * slots.len());
        for (index, (bytes, values)) in ring[64..].chunks(256).zip(slots).enumerate() {
            assert_eq!(bytes, read(&format!("slot-{index:02}.bin")));
            tensors += usize::from(check_slot(bytes, values));
        }
    }
    assert_eq!(tensors, 5);
}

/// Compares one header slot; returns whether it holds a tensor.
fn check_slot(bytes: &[u8], expected: &Value) -> bool {
    let slot = SlotHeader::decode_body(bytes).expect("a slot");
    let values = slot.to_json();
    for field in [
        "seqCommit",
        "valuesLenBytes",
        "payloadSlot",
        "poolId",
        "payloadOffset",
        "timestampNs",
        "metaVersion",
    ] {
        assert_eq!(values[field], expected[field], "{field}");
    }
    assert_eq!(slot.header_bytes.len(), expected["headerBytesLen"]);
    let mut out = vec![0; 256];
    assert_eq!(slot.encode_body(&mut out), Ok(64 + slot.header_bytes.len()));
    assert_eq!(out, bytes);
    let Some(expected) = expected.get("tensor") else {
        return false;
    };
    assert_eq!(MessageHeader::peek(slot.header_bytes), Some(TensorHeader::HEADER));
    let tensor = TensorHeader::decode(slot.header_bytes).expect("a tensor header");
    let values = tensor.to_json();
    assert_eq!(values["dtype"]["enum"], expected["dtype_name"]);
    let values = plain(values);
    for field in
        ["dtype", "majorOrder", "ndims", "padAlign", "progressUnit", "progressStrideBytes", "dims", "strides"]
    {
        assert_eq!(values[field], expected[field], "{field}");
    }
    assert_eq!(tensor.to_vec().expect("values that can be written"), slot.header_bytes);
    true
}

/// The values with plain integers for enums, as the golden regions list them.
fn plain(values: Value) -> Value {
    let fields: BTreeMap<String, Value> = serde_json::from_value(values).expect("an object");
    let fields = fields.into_iter().map(|(name, value)| match value.get("enum") {
        Some(_) => (name, value["value"].clone()),
        None => (name, value),
    });
    Value::Object(fields.collect())
}
