//! Layouts against the reference data: chapter 27 of the sheet and the vector folder.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::ids::{Epoch, StreamId};
use crate::tensor::{Dtype, MajorOrder, ProgressUnit, RawTensorHeader, TensorLayout};

const SETS: [&str; 2] = ["fresh", "mix5"];

const SUPERBLOCK_HEX: &str = "\
    314d48534c504f540100000007000000000000001027000002000100080000000010000000100000d204000000000000e803000000000000\
    d007000000000000";

/// The first 131 bytes; the rest is zero.
const SLOT_HEX: &str = "\
    0b000000000000000c00000005000000010000000000e8030000000000000100000000000000000000000000000000000000000000000000\
    00000000c0000000b800340084030100030001000200010600000002000000030000000000000000000000000000000000000000000000\
    000000000600000002000000000000000000";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../conformance/vectors/tensor-pool")
}

fn file(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&file(name)).unwrap()
}

fn number(value: &Value, key: &str) -> u64 {
    let field = value.get(key).unwrap_or_else(|| panic!("no {key} in {value}"));
    field.get("value").unwrap_or(field).as_u64().unwrap_or_else(|| panic!("{key} is {field}"))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|digit| char::from(digit).to_digit(16).unwrap() as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn check_superblock(bytes: &[u8], values: &Value) {
    let bytes: &[u8; SUPERBLOCK_LEN] = bytes.try_into().unwrap();
    let found = Superblock::decode(bytes);
    let fields = [
        ("magic", found.magic),
        ("layoutVersion", u64::from(found.layout_version)),
        ("epoch", found.epoch.get()),
        ("streamId", u64::from(found.stream_id.get())),
        ("regionType", found.region_type.try_into().unwrap()),
        ("poolId", u64::from(found.pool_id.get())),
        ("nslots", u64::from(found.nslots)),
        ("slotBytes", u64::from(found.slot_bytes)),
        ("strideBytes", u64::from(found.stride_bytes)),
        ("pid", found.pid),
        ("startTimestampNs", found.start_timestamp_ns),
        ("activityTimestampNs", found.activity_timestamp_ns),
    ];
    for (key, value) in fields {
        assert_eq!(value, number(values, key), "{key}");
    }
    assert_eq!(found.encode(), *bytes);
}

fn check_slot(bytes: &[u8], values: &Value, tensor: &Value) -> SlotHeader {
    let bytes: &[u8; SLOT_LEN] = bytes.try_into().unwrap();
    let found = SlotHeader::decode(bytes).unwrap();
    assert_eq!(u64::from(found.values_len), number(values, "valuesLenBytes"));
    assert_eq!(u64::from(found.payload_slot), number(values, "payloadSlot"));
    assert_eq!(u64::from(found.pool_id.get()), number(values, "poolId"));
    assert_eq!(u64::from(found.payload_offset), number(values, "payloadOffset"));
    assert_eq!(found.timestamp_ns, Some(number(values, "timestampNs")));
    assert_eq!(found.meta_version.map(u64::from), Some(number(values, "metaVersion")));

    assert_eq!(u64::try_from(found.tensor.dtype).unwrap(), number(tensor, "dtype"));
    assert_eq!(u64::try_from(found.tensor.major_order).unwrap(), number(tensor, "majorOrder"));
    assert_eq!(u64::from(found.tensor.ndims), number(tensor, "ndims"));
    assert_eq!(u64::from(found.tensor.progress_unit), number(tensor, "progressUnit"));
    assert_eq!(u64::from(found.tensor.progress_stride_bytes), number(tensor, "progressStrideBytes"));
    assert_eq!(serde_json::json!(found.tensor.dims), tensor["dims"]);
    assert_eq!(serde_json::json!(found.tensor.strides), tensor["strides"]);

    // The commit word is not ours to write; the pad byte of one message file is not zero, ours is.
    let mut written = [0; SLOT_LEN];
    found.encode(&mut written);
    let mut wanted = *bytes;
    wanted[..8].fill(0);
    wanted[77] = 0;
    assert_eq!(written, wanted);
    found
}

/// Rules: TP-481, TC-001, TC-002.
#[test]
fn superblock_of_the_sheet() {
    let ring =
        Superblock::header_ring(Epoch::new(7), StreamId::new(10_000), SlotCount::new(8).unwrap(), 1234, 1000);
    let pool = Superblock {
        activity_timestamp_ns: 2000,
        ..Superblock::pool(&ring, PoolId::new(1), Stride::new(4096).unwrap())
    };
    assert_eq!(pool.encode().as_slice(), unhex(SUPERBLOCK_HEX));
    assert_eq!(Superblock::decode(&pool.encode()), pool);
}

/// Rules: TP-481, TP-087, TC-001, TC-002.
#[test]
fn slot_of_the_sheet() {
    let tensor = TensorLayout::contiguous(Dtype::Uint16, MajorOrder::Row, &[2, 3])
        .and_then(|tensor| tensor.with_progress(ProgressUnit::Rows))
        .unwrap();
    let header = SlotHeader {
        timestamp_ns: Some(1000),
        meta_version: Some(1),
        ..SlotHeader::new(SlotIndex::new(5), PoolId::new(1), 12, &tensor)
    };
    let mut wanted = unhex(SLOT_HEX);
    assert!(wanted.len() < SLOT_LEN);
    wanted.resize(SLOT_LEN, 0);

    let mut written = [0; SLOT_LEN];
    written[0] = 0x0b;
    header.encode(&mut written);
    assert_eq!(written.as_slice(), wanted);
    assert_eq!(SlotHeader::decode(&written), Ok(header));
    assert_eq!(header.tensor.validate(), Ok(tensor));
}

/// Rules: TP-481, TC-214.
#[test]
fn layouts_of_the_message_folder() {
    let bytes = file("wire/ShmRegionSuperblock-full-noheader.bin");
    check_superblock(&bytes, &json("wire/ShmRegionSuperblock-full-noheader.json")["values"]);

    let tensor = &json("wire/TensorHeader-full.json")["values"];
    let bytes = file("wire/SlotHeader-full-noheader.bin");
    let found = check_slot(&bytes, &json("wire/SlotHeader-full-noheader.json")["values"], tensor);
    let body = file("wire/TensorHeader-full.bin").split_off(8);
    assert_eq!(RawTensorHeader::decode(&body.try_into().unwrap()), found.tensor);
}

/// Rules: TP-481, TP-077, TP-080, TP-083, TC-214.
#[test]
fn region_files_of_the_c_implementation() {
    for set in SETS {
        let expected = json(&format!("shm/{set}/expected.json"));
        let ring = &expected["superblocks"]["header.ring"];
        let announced = Expected {
            layout_version: 1,
            epoch: Epoch::new(number(ring, "epoch")),
            stream_id: StreamId::new(number(ring, "streamId").try_into().unwrap()),
            nslots: SlotCount::new(number(ring, "nslots").try_into().unwrap()).unwrap(),
        };
        for (name, values) in expected["superblocks"].as_object().unwrap() {
            let region = file(&format!("shm/{set}/{name}"));
            let start = &region[..SUPERBLOCK_LEN];
            assert_eq!(start, file(&format!("shm/{set}/{name}.superblock.bin")));
            check_superblock(start, values);

            let found = Superblock::decode(start.try_into().unwrap());
            let len = if name == "header.ring" {
                assert_eq!(found.check_header_ring(&announced), Ok(()));
                header_ring_len(announced.nslots)
            } else {
                let stride = Stride::new(found.stride_bytes).unwrap();
                assert_eq!(found.check_pool(&announced, found.pool_id, stride), Ok(()));
                pool_len(announced.nslots, stride)
            };
            assert_eq!((len, len), (region.len() as u64, number(&expected["files"][name], "size")));
        }
    }
}

/// Rules: TP-481, TP-094, TP-098, TP-099, TP-100, TC-214.
#[test]
fn slots_and_payloads_of_the_c_implementation() {
    let mut committed = 0;
    for set in SETS {
        let expected = json(&format!("shm/{set}/expected.json"));
        let ring = file(&format!("shm/{set}/header.ring"));
        let slots = SlotCount::new(number(&expected["superblocks"]["header.ring"], "nslots") as u32).unwrap();
        for values in expected["slots"].as_array().unwrap() {
            let index = SlotIndex::new(number(values, "index").try_into().unwrap());
            let start = header_slot_offset(index);
            assert_eq!(start, number(values, "file_offset"));
            let bytes = &ring[start as usize..][..SLOT_LEN];
            assert_eq!(bytes, file(&format!("shm/{set}/slot-{:02}.bin", index.get())));
            if values["committed"] == false {
                let empty = SlotHeader::decode(bytes.try_into().unwrap());
                assert_eq!(empty, Err(SlotError::HeaderBytes { found: 0 }));
                continue;
            }
            committed += 1;
            let header = check_slot(bytes, values, &values["tensor"]);

            let name = format!("{}.pool", header.pool_id);
            let stride = number(&expected["superblocks"][&name], "strideBytes") as u32;
            let span = header.payload_span(index, slots, |_| Stride::new(stride).ok()).unwrap();
            let payload = &values["payload"];
            assert_eq!(
                (&name, span.offset),
                (&payload["file"].as_str().unwrap().into(), number(payload, "offset"))
            );
            let pool = file(&format!("shm/{set}/{name}"));
            let bytes = &pool[span.offset as usize..][..span.len as usize];
            assert_eq!(bytes, unhex(payload["hex"].as_str().unwrap()));

            let tensor = header.tensor.validate().unwrap();
            assert!(tensor.fits(u64::from(span.len)) && tensor.is_contiguous());
            assert_eq!(tensor.to_raw(), header.tensor);
            if tensor.order() == MajorOrder::Row {
                let gathered: Vec<u8> = tensor.runs().flat_map(|run| bytes[run].to_vec()).collect();
                assert_eq!(gathered, bytes);
            }
        }
    }
    assert_eq!(committed, 5);
}
