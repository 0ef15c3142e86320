//! What a decoder looks at before and while it takes a fragment apart: header, block lengths, counts, the end.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use tidegate_sbe::control::{
    DataSourceMeta, FrameDescriptor, PayloadPool, ShmPoolAnnounce, ShmRegionSuperblock, TensorHeader,
};
use tidegate_sbe::discovery::{DiscoveryRequest, Tag};
use tidegate_sbe::driver::{self, ShmAttachRequest, ShmDetachRequest};
use tidegate_sbe::tracelink::TraceLinkSet;
use tidegate_sbe::{AnyMessage, DecodeError, MessageHeader, Text};

const SCHEMA: usize = 4;
const TEMPLATE: usize = 2;
const VERSION: usize = 6;
const BLOCK: usize = 0;

fn descriptor() -> (FrameDescriptor, Vec<u8>) {
    let value = FrameDescriptor {
        stream_id: 10000,
        epoch: 7,
        seq: 5,
        timestamp_ns: Some(1000),
        meta_version: Some(1),
        trace_id: Some(100),
    };
    (value, value.to_vec().expect("a descriptor"))
}

fn announce() -> ShmPoolAnnounce<'static> {
    ShmPoolAnnounce {
        stream_id: 10000,
        producer_id: 7,
        epoch: 7,
        announce_timestamp_ns: 1000,
        announce_clock_domain: tidegate_sbe::control::ClockDomain::Monotonic,
        layout_version: 1,
        header_nslots: 8,
        header_slot_bytes: 256,
        payload_pools: vec![PayloadPool {
            pool_id: 1,
            pool_nslots: 8,
            stride_bytes: 4096,
            region_uri: "shm:file?path=/p".into(),
        }],
        header_region_uri: "shm:file?path=/h".into(),
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Every golden message with its header.
fn golden_messages() -> Vec<(String, Vec<u8>)> {
    support::files().into_iter().filter(|(name, _)| !name.contains("noheader")).collect()
}

/// A fragment in which everything is wrong is refused for the first reason; mending one finds the next.
///
/// Rules: TP-007, TC-003, TC-004, TC-006.
#[test]
fn gates_are_tried_in_order() {
    let (value, mut bytes) = descriptor();
    bytes.truncate(20);
    put(&mut bytes, SCHEMA, 901);
    put(&mut bytes, TEMPLATE, 99);
    put(&mut bytes, VERSION, 2);
    put(&mut bytes, BLOCK, 39);
    let decode = FrameDescriptor::decode;
    assert_eq!(decode(&bytes), Err(DecodeError::UnknownSchema { schema_id: 901 }));
    put(&mut bytes, SCHEMA, 900);
    assert_eq!(decode(&bytes), Err(DecodeError::UnknownTemplate { schema_id: 900, template_id: 99 }));
    put(&mut bytes, TEMPLATE, 4);
    let version = DecodeError::UnsupportedVersion { message: "FrameDescriptor", version: 2 };
    assert_eq!(decode(&bytes), Err(version));
    put(&mut bytes, VERSION, 1);
    let block = DecodeError::BlockTooShort { message: "FrameDescriptor", expected: 40, found: 39 };
    assert_eq!(decode(&bytes), Err(block));
    put(&mut bytes, BLOCK, 40);
    let truncated = DecodeError::Truncated { field: "FrameDescriptor", needed: 40, left: 12 };
    assert_eq!(decode(&bytes), Err(truncated));
    bytes.extend_from_slice(&descriptor().1[20..]);
    assert_eq!(decode(&bytes), Ok(value));
}

/// Template 4 of schema 901 is a ShmDetachResponse: the same block must not be taken for a descriptor.
///
/// Rules: TP-007, TP-008, TC-003.
#[test]
fn messages_of_others_are_told_from_broken_ones() {
    let (_, mut bytes) = descriptor();
    put(&mut bytes, SCHEMA, 901);
    assert!(FrameDescriptor::decode(&bytes).expect_err("another schema").is_foreign());
    put(&mut bytes, SCHEMA, 905);
    assert_eq!(AnyMessage::decode(&bytes), Err(DecodeError::UnknownSchema { schema_id: 905 }));
    put(&mut bytes, SCHEMA, 900);
    put(&mut bytes, TEMPLATE, 14);
    let unknown = AnyMessage::decode(&bytes).expect_err("no such template");
    assert_eq!(unknown, DecodeError::UnknownTemplate { schema_id: 900, template_id: 14 });
    assert!(unknown.is_foreign());
    put(&mut bytes, TEMPLATE, 4);
    put(&mut bytes, VERSION, 0);
    assert!(!AnyMessage::decode(&bytes).expect_err("version 0").is_foreign());
    assert_eq!(AnyMessage::decode(&bytes[..7]), Err(DecodeError::TooShort { found: 7 }));
    assert_eq!(MessageHeader::peek(&bytes[..7]), None);
}

/// Rules: TP-009, TP-010, TC-004, TC-005.
#[test]
fn only_version_1_of_any_message_is_decoded() {
    for (name, mut bytes) in golden_messages() {
        for bad in [0, 2, u16::MAX] {
            put(&mut bytes, VERSION, bad);
            match AnyMessage::decode(&bytes) {
                Err(DecodeError::UnsupportedVersion { version, .. }) => assert_eq!(version, bad, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

/// Rules: TP-009, TP-250.
#[test]
fn correlation_id_of_newer_requests_can_be_read() {
    for template_id in [ShmAttachRequest::TEMPLATE_ID, ShmDetachRequest::TEMPLATE_ID] {
        let mut bytes = vec![0; 16];
        put(&mut bytes, BLOCK, 8);
        put(&mut bytes, TEMPLATE, template_id);
        put(&mut bytes, SCHEMA, 901);
        put(&mut bytes, VERSION, 2);
        bytes[8..].copy_from_slice(&(-5i64).to_le_bytes());
        assert_eq!(driver::peek_correlation_id(&bytes), Some(-5));
        assert_eq!(driver::peek_correlation_id(&bytes[..15]), None);
        for (at, value) in [(BLOCK, 7), (TEMPLATE, 2), (SCHEMA, 900), (VERSION, 1), (VERSION, 0)] {
            let mut other = bytes.clone();
            put(&mut other, at, value);
            assert_eq!(driver::peek_correlation_id(&other), None, "{at}: {value}");
        }
    }
}

/// Rules: TP-011, TC-006, TC-007.
#[test]
fn longer_blocks_are_skipped_and_shorter_ones_refused() {
    let (value, mut bytes) = descriptor();
    put(&mut bytes, BLOCK, 48);
    assert!(FrameDescriptor::decode(&bytes).is_err(), "block beyond the fragment");
    bytes.extend_from_slice(&[0xee; 8]);
    assert_eq!(FrameDescriptor::decode(&bytes), Ok(value));
    for (name, mut bytes) in golden_messages() {
        let whole = AnyMessage::decode(&bytes).expect("a message");
        let len = MessageHeader::peek(&bytes).expect("a header").block_length;
        let mut longer = bytes.clone();
        put(&mut longer, BLOCK, len + 3);
        let end = 8 + usize::from(len);
        longer.splice(end..end, [0xee; 3]);
        assert_eq!(AnyMessage::decode(&longer), Ok(whole), "{name}");
        put(&mut bytes, BLOCK, len - 1);
        let refused = AnyMessage::decode(&bytes).expect_err("a short block");
        assert!(matches!(refused, DecodeError::BlockTooShort { .. }), "{name}: {refused}");
    }
}

/// Rules: TP-011, TP-225.
#[test]
fn longer_blocks_of_group_entries_are_skipped() {
    let announce = announce();
    let mut bytes = announce.to_vec().expect("an announce");
    put(&mut bytes, 43, 12);
    bytes.splice(57..57, [0xee; 2]);
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Ok(announce));
    put(&mut bytes, 43, 9);
    let short =
        DecodeError::GroupBlockTooShort { group: "ShmPoolAnnounce.payloadPools", expected: 10, found: 9 };
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Err(short));

    let attribute = tidegate_sbe::control::Attribute { key: "k".into(), format: "f".into(), value: b"v" };
    let meta = DataSourceMeta { stream_id: 1, meta_version: 2, timestamp_ns: 3, attributes: vec![attribute] };
    let mut bytes = meta.to_vec().expect("metadata");
    assert_eq!(bytes[24..28], [0, 0, 1, 0]);
    put(&mut bytes, 24, 3);
    bytes.splice(28..28, [0xee; 3]);
    assert_eq!(DataSourceMeta::decode(&bytes), Ok(meta));
}

/// Rules: TP-309.
#[test]
fn tags_have_a_block_length_of_exactly_0() {
    let tags = vec![Tag { tag: "a".into() }];
    let mut request = discovery_request();
    request.tags = tags;
    let mut bytes = request.to_vec().expect("a request");
    assert_eq!(bytes[40..49], [0, 0, 1, 0, 1, 0, 0, 0, b'a']);
    put(&mut bytes, 40, 1);
    bytes.insert(44, 0xee);
    let refused = DecodeError::GroupBlockNotExact { group: "DiscoveryRequest.tags", expected: 0, found: 1 };
    assert_eq!(DiscoveryRequest::decode(&bytes), Err(refused));
}

fn discovery_request() -> DiscoveryRequest<'static> {
    DiscoveryRequest {
        request_id: 77,
        client_id: 42,
        response_stream_id: 7004,
        stream_id: None,
        producer_id: None,
        data_source_id: None,
        tags: Vec::new(),
        response_channel: "aeron:ipc".into(),
        data_source_name: Text::default(),
    }
}

/// Every message is refused at every shorter length, except that the last field may be missing with its prefix.
///
/// Rules: TP-012, TP-013, TC-008, TC-011.
#[test]
fn no_message_is_decoded_from_a_part_of_it() {
    for (name, bytes) in golden_messages() {
        let mut shortened = 0;
        for len in 0..bytes.len() {
            let Ok(message) = AnyMessage::decode(&bytes[..len]) else {
                continue;
            };
            let mut filled = bytes[..len].to_vec();
            filled.extend_from_slice(&[0; 4]);
            assert_eq!(message.to_vec(), Ok(filled), "{name} cut to {len}: not an empty last field");
            shortened += 1;
        }
        let whole = AnyMessage::decode(&bytes).expect("a message");
        assert_eq!(shortened, usize::from(END_WITH_DATA.contains(&whole.name())), "{name}");
    }
}

/// Messages whose last field is a string or data.
const END_WITH_DATA: [&str; 15] = [
    "ShmPoolAnnounce",
    "ConsumerHello",
    "ConsumerConfig",
    "DataSourceAnnounce",
    "ControlResponse",
    "MetaBlobChunk",
    "SlotHeader",
    "ShmAttachResponse",
    "ShmDetachResponse",
    "ShmDriverShutdown",
    "ShmLeaseRevoked",
    "ShmDriverShutdownRequest",
    "BridgeFrameChunk",
    "DiscoveryRequest",
    "DiscoveryResponse",
];

/// The empty region URI that TP-013 makes of the one cut that decodes is refused by validation.
///
/// Rules: TP-012, TP-013, TC-008.
#[test]
fn announce_cut_at_every_length() {
    let bytes = announce().to_vec().expect("an announce");
    assert_eq!(bytes.len(), 97);
    for len in 0..97 {
        match ShmPoolAnnounce::decode(&bytes[..len]) {
            Ok(announce) => assert_eq!((len, announce.header_region_uri.len()), (77, 0)),
            Err(_) => assert_ne!(len, 77),
        }
    }
}

/// Rules: TP-013, TC-011.
#[test]
fn request_may_end_before_the_length_of_its_last_string() {
    let request = discovery_request();
    let bytes = request.to_vec().expect("a request");
    assert_eq!(bytes[bytes.len() - 4..], [0; 4], "the encoder writes the prefix");
    assert_eq!(DiscoveryRequest::decode(&bytes[..bytes.len() - 4]), Ok(request));
    for cut in 1..4 {
        let refused = DiscoveryRequest::decode(&bytes[..bytes.len() - cut]);
        let expected =
            DecodeError::Truncated { field: "DiscoveryRequest.dataSourceName", needed: 4, left: 4 - cut };
        assert_eq!(refused, Err(expected));
    }
}

/// Bytes after the last field are of later versions.
///
/// Rules: TP-011.
#[test]
fn bytes_after_the_last_field_are_ignored() {
    for (name, mut bytes) in golden_messages() {
        let message = AnyMessage::decode(&bytes).expect("a message").to_vec();
        bytes.push(0xee);
        assert_eq!(AnyMessage::decode(&bytes).expect("a message").to_vec(), message, "{name}");
    }
}

/// Rules: TP-012, TP-022, TC-009.
#[test]
fn count_of_a_group_must_fit_into_the_fragment() {
    let mut bytes = announce().to_vec().expect("an announce");
    put(&mut bytes, 45, 65534);
    // The pool and the header URI: all that follows the group header.
    let truncated = |entry: usize| DecodeError::Truncated {
        field: "ShmPoolAnnounce.payloadPools",
        needed: 65534 * (entry + 4),
        left: 50,
    };
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Err(truncated(10)));
    put(&mut bytes, 43, u16::MAX);
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Err(truncated(65535)));
    put(&mut bytes, 45, u16::MAX);
    let too_long = DecodeError::GroupTooLong { group: "ShmPoolAnnounce.payloadPools", found: u16::MAX };
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Err(too_long));

    let mut bytes = discovery_request().to_vec().expect("a request");
    put(&mut bytes, 42, 5);
    let tags = DecodeError::Truncated { field: "DiscoveryRequest.tags", needed: 20, left: 17 };
    assert_eq!(DiscoveryRequest::decode(&bytes), Err(tags));
}

/// Rules: TP-012, TP-022, TC-010.
#[test]
fn length_of_a_string_must_fit_into_the_fragment() {
    let mut bytes = announce().to_vec().expect("an announce");
    let field = "PayloadPool.regionUri";
    bytes[57..61].copy_from_slice(&u32::MAX.to_le_bytes());
    let too_long = DecodeError::DataTooLong { field, max: 1_073_741_824, found: u32::MAX };
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Err(too_long));
    bytes[57..61].copy_from_slice(&1_073_741_824u32.to_le_bytes());
    let truncated = DecodeError::Truncated { field, needed: 1_073_741_824, left: 36 };
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Err(truncated));
    bytes[57..61].copy_from_slice(&37u32.to_le_bytes());
    assert_eq!(ShmPoolAnnounce::decode(&bytes), Err(DecodeError::Truncated { field, needed: 37, left: 36 }));
}

/// Rules: TP-022.
#[test]
fn allocations_are_bounded_by_the_fragment() {
    let (value, bytes) = descriptor();
    let mut out = [0; 48];
    let descriptor = allocation_counter::measure(|| {
        assert_eq!(FrameDescriptor::decode(&bytes), Ok(value));
        assert_eq!(value.encode(&mut out), Ok(48));
    });
    assert_eq!(descriptor.count_total, 0);

    let mut hostile = announce().to_vec().expect("an announce");
    put(&mut hostile, 45, 65534);
    let refused = allocation_counter::measure(|| assert!(ShmPoolAnnounce::decode(&hostile).is_err()));
    assert_eq!(refused.count_total, 0);

    // The worst there is: entries of four bytes, each with a slice of sixteen in memory.
    let mut request = discovery_request();
    request.tags = vec![Tag { tag: Text::default() }; 65534];
    let bytes = request.to_vec().expect("a request");
    let worst = allocation_counter::measure(|| assert!(DiscoveryRequest::decode(&bytes).is_ok()));
    assert_eq!(worst.count_total, 1);
    assert!(worst.bytes_max <= 4 * bytes.len() as u64, "{} for {}", worst.bytes_max, bytes.len());
}

/// Rules: TP-012.
#[test]
fn layouts_in_shared_memory_are_refused_when_cut() {
    let cut = DecodeError::Truncated { field: "ShmRegionSuperblock", needed: 64, left: 63 };
    assert_eq!(ShmRegionSuperblock::decode_body(&[0; 63]), Err(cut));
    let cut = DecodeError::Truncated { field: "TensorHeader", needed: 184, left: 183 };
    assert_eq!(TensorHeader::decode_body(&[0; 183]), Err(cut));
}

/// Rules: TP-310.
#[test]
fn groups_come_before_strings() {
    let mut request = discovery_request();
    request.tags = vec![Tag { tag: "t".into() }];
    request.data_source_name = "n".into();
    let bytes = request.to_vec().expect("a request");
    assert_eq!(&bytes[40..], b"\x00\x00\x01\x00\x01\x00\x00\x00t\x09\x00\x00\x00aeron:ipc\x01\x00\x00\x00n");
    assert_eq!(DiscoveryRequest::decode(&bytes), Ok(request));
}

/// A group of entries without strings ends with its last block.
///
/// Rules: TP-012.
#[test]
fn group_of_plain_blocks_is_refused_when_cut() {
    let parents = [11, 22].map(|trace_id| tidegate_sbe::tracelink::Parent { trace_id }).to_vec();
    let set = TraceLinkSet { stream_id: 1, epoch: 2, seq: 3, trace_id: 4, parents };
    let bytes = set.to_vec().expect("a set");
    let cut = DecodeError::Truncated { field: "TraceLinkSet.parents", needed: 16, left: 15 };
    assert_eq!(TraceLinkSet::decode(&bytes[..bytes.len() - 1]), Err(cut));
    assert_eq!(TraceLinkSet::decode(&bytes), Ok(set));
}
