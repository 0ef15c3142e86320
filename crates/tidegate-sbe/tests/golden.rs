//! The golden vectors of chapter 27, made from their inputs and taken apart again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod hex;

use tidegate_sbe::bridge::{self, BridgeFrameChunk};
use tidegate_sbe::control::{self, *};
use tidegate_sbe::discovery::{self, *};
use tidegate_sbe::driver::{self, *};
use tidegate_sbe::merge::{self, *};
use tidegate_sbe::tracelink::{self, *};
use tidegate_sbe::{AnyMessage, Text};

use hex::hex;

const POOL_URI: &str = "shm:file?path=/p";
const RING_URI: &str = "shm:file?path=/h";
const CORRELATION: i64 = 0x1122_3344_5566_7788;

/// Rules: TP-481, TP-014, TC-001, TC-002.
#[test]
fn control() {
    use control::Message::*;
    check(
        AnyMessage::Control(FrameDescriptor(control::FrameDescriptor {
            stream_id: 10000,
            epoch: 7,
            seq: 0x0102_0304_0506_0708,
            timestamp_ns: None,
            meta_version: None,
            trace_id: None,
        })),
        "28000400840301001027000007000000000000000807060504030201ffffffffffffffffffffffff0000000000000000",
    );
    check(
        AnyMessage::Control(FrameProgress(control::FrameProgress {
            stream_id: 10000,
            epoch: 7,
            seq: 5,
            payload_bytes_filled: 65536,
            state: FrameProgressState::Progress,
        })),
        "1d000b00840301001027000007000000000000000500000000000000000001000000000002",
    );
    check(
        AnyMessage::Control(QosConsumer(control::QosConsumer {
            stream_id: 10000,
            consumer_id: 42,
            epoch: 7,
            last_seq_seen: 99,
            drops_gap: 3,
            drops_late: 1,
            mode: Mode::Stream,
        })),
        "2900050084030100102700002a000000070000000000000063000000000000000300000000000000010000000000000001",
    );
    check(
        AnyMessage::Control(QosProducer(control::QosProducer {
            stream_id: 10000,
            producer_id: 7,
            epoch: 7,
            current_seq: 100,
            watermark: None,
        })),
        "1c00060084030100102700000700000007000000000000006400000000000000ffffffff",
    );
    check(
        AnyMessage::Control(ConsumerHello(control::ConsumerHello {
            stream_id: 10000,
            consumer_id: 42,
            supports_shm: true,
            supports_progress: false,
            mode: Mode::RateLimited,
            max_rate_hz: 30,
            expected_layout_version: 1,
            progress_interval_us: None,
            progress_bytes_delta: None,
            progress_major_delta_units: None,
            descriptor_stream_id: 31001,
            control_stream_id: 0,
            descriptor_channel: "aeron:ipc".into(),
            control_channel: "".into(),
        })),
        "2700020084030100102700002a0000000100021e00000001000000ffffffffffffffffffffffff1979000000000000090000006165726f6e3a\
         69706300000000",
    );
    check(
        AnyMessage::Control(ConsumerConfig(control::ConsumerConfig {
            stream_id: 10000,
            consumer_id: 42,
            use_shm: true,
            mode: Mode::Stream,
            descriptor_stream_id: 31001,
            control_stream_id: 0,
            payload_fallback_uri: Text::default(),
            descriptor_channel: "aeron:ipc".into(),
            control_channel: Text::default(),
        })),
        "1200030084030100102700002a0000000101197900000000000000000000090000006165726f6e3a69706300000000",
    );
    check(
        AnyMessage::Control(ShmPoolAnnounce(control::ShmPoolAnnounce {
            stream_id: 10000,
            producer_id: 7,
            epoch: 7,
            announce_timestamp_ns: 1000,
            announce_clock_domain: control::ClockDomain::Monotonic,
            layout_version: 1,
            header_nslots: 8,
            header_slot_bytes: 256,
            payload_pools: vec![control::PayloadPool {
                pool_id: 1,
                pool_nslots: 8,
                stride_bytes: 4096,
                region_uri: POOL_URI.into(),
            }],
            header_region_uri: RING_URI.into(),
        })),
        "230001008403010010270000070000000700000000000000e80300000000000001010000000800000000010a00010001000800000000100000\
         1000000073686d3a66696c653f706174683d2f701000000073686d3a66696c653f706174683d2f68",
    );
    check(
        AnyMessage::Control(DataSourceAnnounce(control::DataSourceAnnounce {
            stream_id: 10000,
            producer_id: 7,
            epoch: 7,
            meta_version: 1,
            name: "cam".into(),
            summary: "".into(),
        })),
        "140007008403010010270000070000000700000000000000010000000300000063616d00000000",
    );
    check(
        AnyMessage::Control(DataSourceMeta(control::DataSourceMeta {
            stream_id: 10000,
            meta_version: 1,
            timestamp_ns: 1000,
            attributes: vec![Attribute { key: "k".into(), format: "text/plain".into(), value: b"v1" }],
        })),
        "10000800840301001027000001000000e80300000000000000000100010000006b0a000000746578742f706c61696e020000007631",
    );
    check(
        AnyMessage::Control(ControlResponse(control::ControlResponse {
            correlation_id: -2,
            code: control::ResponseCode::Rejected,
            error_message: "no".into(),
        })),
        "0c00090084030100feffffffffffffff03000000020000006e6f",
    );
    check(
        AnyMessage::Control(MetaBlobAnnounce(control::MetaBlobAnnounce {
            stream_id: 10000,
            meta_version: 1,
            blob_type: 2,
            total_len: 4,
            checksum: 0,
        })),
        "1c000a008403010010270000010000000200000004000000000000000000000000000000",
    );
    check(
        AnyMessage::Control(MetaBlobChunk(control::MetaBlobChunk {
            stream_id: 10000,
            meta_version: 1,
            chunk_offset: 0,
            bytes: &[1, 2, 3, 4],
        })),
        "10000c0084030100102700000100000000000000000000000400000001020304",
    );
    check(
        AnyMessage::Control(MetaBlobComplete(control::MetaBlobComplete {
            stream_id: 10000,
            meta_version: 1,
            checksum: 0,
        })),
        "10000d008403010010270000010000000000000000000000",
    );
}

/// Rules: TP-072, TP-073, TP-481, TC-001, TC-002.
#[test]
fn superblock() {
    let superblock = ShmRegionSuperblock {
        magic: 0x544F_504C_5348_4D31,
        layout_version: 1,
        epoch: 7,
        stream_id: 10000,
        region_type: RegionType::PayloadPool,
        pool_id: 1,
        nslots: 8,
        slot_bytes: 4096,
        stride_bytes: 4096,
        pid: 1234,
        start_timestamp_ns: 1000,
        activity_timestamp_ns: 2000,
    };
    let mut bytes = [0; 64];
    assert_eq!(superblock.encode_body(&mut bytes), Ok(64));
    assert_eq!(
        hex(&bytes),
        "314d48534c504f540100000007000000000000001027000002000100080000000010000000100000d204000000000000e803000000000000\
         d007000000000000"
    );
    assert_eq!(ShmRegionSuperblock::decode_body(&bytes), Ok(superblock));
}

/// The buffer is full of other bytes before: padding is written too.
///
/// Rules: TP-087, TP-097, TP-481, TC-001, TC-002.
#[test]
fn header_slot() {
    let tensor = TensorHeader {
        dtype: Dtype::Uint16.into(),
        major_order: MajorOrder::Row.into(),
        ndims: 2,
        pad_align: 0,
        progress_unit: ProgressUnit::Rows.into(),
        progress_stride_bytes: 6,
        dims: [2, 3, 0, 0, 0, 0, 0, 0],
        strides: [6, 2, 0, 0, 0, 0, 0, 0],
    };
    let mut header_bytes = [0xa5; 192];
    assert_eq!(tensor.encode(&mut header_bytes), Ok(192));
    let slot = SlotHeader {
        seq_commit: 0x0b,
        values_len_bytes: 12,
        payload_slot: 5,
        pool_id: 1,
        payload_offset: 0,
        timestamp_ns: 1000,
        meta_version: 1,
        header_bytes: &header_bytes,
    };
    let slot_hex = "0b000000000000000c00000005000000010000000000e8030000000000000100000000000000000000000000000000000000\
         00000000000000000000c0000000b80034008403010003000100020001060000000200000003000000000000000000000000\
         0000000000000000000000000000000600000002000000000000000000000000000000000000000000000000000000000000\
         0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         000000000000";
    let mut bytes = [0xa5; 256];
    assert_eq!(slot.encode_body(&mut bytes), Ok(256));
    assert_eq!(hex(&bytes), slot_hex);
    assert_eq!(SlotHeader::decode_body(&bytes), Ok(slot));
    assert_eq!(TensorHeader::decode(slot.header_bytes), Ok(tensor));
    assert_eq!(TensorHeader::decode_body(&bytes[72..]), Ok(tensor));
    assert_eq!((bytes[83], bytes[115]), (2, 6), "dims and strides");
    for pad in [34..60, 147..256] {
        bytes[pad].fill(0xff);
    }
    let padded = SlotHeader::decode_body(&bytes).expect("a slot");
    assert_eq!(SlotHeader { header_bytes: &[], ..padded }, SlotHeader { header_bytes: &[], ..slot });
    assert_eq!(TensorHeader::decode(padded.header_bytes), Ok(tensor));
}

/// Rules: TP-481, TP-014, TC-001, TC-002.
#[test]
fn driver() {
    use driver::Message::*;
    check(
        AnyMessage::Driver(ShmAttachRequest(driver::ShmAttachRequest {
            correlation_id: CORRELATION,
            stream_id: 10000,
            client_id: 42,
            role: Role::Consumer.into(),
            expected_layout_version: 1,
            publish_mode: Some(PublishMode::RequireExisting.into()),
            require_hugepages: HugepagesPolicy::Unspecified.into(),
            desired_node_id: None,
        })),
        "1b000100850301008877665544332211102700002a00000002010000000100ffffffff",
    );
    check(
        AnyMessage::Driver(ShmAttachResponse(driver::ShmAttachResponse {
            correlation_id: CORRELATION,
            code: driver::ResponseCode::Ok,
            lease_id: Some(5),
            lease_expiry_timestamp_ns: Some(3000),
            stream_id: Some(10000),
            epoch: Some(7),
            layout_version: Some(1),
            header_nslots: Some(8),
            header_slot_bytes: Some(256),
            node_id: Some(3),
            payload_pools: vec![driver::PayloadPool {
                pool_id: 1,
                pool_nslots: 8,
                stride_bytes: 4096,
                region_uri: POOL_URI.into(),
            }],
            header_region_uri: RING_URI.into(),
            error_message: "".into(),
        })),
        "36000200850301008877665544332211000000000500000000000000b80b000000000000102700000700000000000000010000000800000000\
         01030000000a000100010008000000001000001000000073686d3a66696c653f706174683d2f701000000073686d3a66696c653f7061746\
         83d2f6800000000",
    );
    check(
        AnyMessage::Driver(ShmAttachResponse(driver::ShmAttachResponse {
            correlation_id: 9,
            code: driver::ResponseCode::Rejected,
            lease_id: None,
            lease_expiry_timestamp_ns: None,
            stream_id: None,
            epoch: None,
            layout_version: None,
            header_nslots: None,
            header_slot_bytes: None,
            node_id: None,
            payload_pools: Vec::new(),
            header_region_uri: "".into(),
            error_message: "busy".into(),
        })),
        "3600020085030100090000000000000003000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
         ffffffffffffffffffffffff0a000000000000000400000062757379",
    );
    check(
        AnyMessage::Driver(ShmDetachRequest(driver::ShmDetachRequest {
            correlation_id: 10,
            lease_id: 5,
            stream_id: 10000,
            client_id: 42,
            role: Role::Producer.into(),
        })),
        "19000300850301000a000000000000000500000000000000102700002a00000001",
    );
    check(
        AnyMessage::Driver(ShmDetachResponse(driver::ShmDetachResponse {
            correlation_id: 10,
            code: driver::ResponseCode::Ok,
            error_message: "".into(),
        })),
        "0c000400850301000a000000000000000000000000000000",
    );
    check(
        AnyMessage::Driver(ShmLeaseKeepalive(driver::ShmLeaseKeepalive {
            lease_id: 5,
            stream_id: 10000,
            client_id: 42,
            role: Role::Producer,
            client_timestamp_ns: 1000,
        })),
        "19000500850301000500000000000000102700002a00000001e803000000000000",
    );
    check(
        AnyMessage::Driver(ShmDriverShutdown(driver::ShmDriverShutdown {
            timestamp_ns: 1000,
            reason: ShutdownReason::Admin.into(),
            error_message: "bye".into(),
        })),
        "0900060085030100e8030000000000000103000000627965",
    );
    check(
        AnyMessage::Driver(ShmLeaseRevoked(driver::ShmLeaseRevoked {
            timestamp_ns: 1000,
            lease_id: 5,
            stream_id: 10000,
            client_id: 42,
            role: Role::Producer,
            reason: LeaseRevokeReason::Expired,
            error_message: "".into(),
        })),
        "1a00070085030100e8030000000000000500000000000000102700002a000000010200000000",
    );
    check(
        AnyMessage::Driver(ShmDriverShutdownRequest(driver::ShmDriverShutdownRequest {
            correlation_id: 11,
            reason: ShutdownReason::Admin.into(),
            token: "tok".into(),
            error_message: "".into(),
        })),
        "09000800850301000b000000000000000103000000746f6b00000000",
    );
}

/// Rules: TP-309, TP-310, TP-481, TC-001, TC-002.
#[test]
fn discovery() {
    use discovery::Message::*;
    let tag = |tag| Tag { tag: Text::from(tag) };
    check(
        AnyMessage::Discovery(DiscoveryRequest(discovery::DiscoveryRequest {
            request_id: 77,
            client_id: 42,
            response_stream_id: 7004,
            stream_id: None,
            producer_id: None,
            data_source_id: None,
            tags: vec![tag("a"), tag("bc")],
            response_channel: "aeron:ipc".into(),
            data_source_name: "".into(),
        })),
        "200001008e0301004d000000000000002a0000005c1b0000ffffffffffffffffffffffffffffffff0000020001000000610200000062630900\
         00006165726f6e3a69706300000000",
    );
    check(
        AnyMessage::Discovery(DiscoveryResponse(discovery::DiscoveryResponse {
            request_id: 77,
            status: DiscoveryStatus::Ok,
            results: vec![DiscoveryResult {
                stream_id: 10000,
                producer_id: 7,
                epoch: 7,
                layout_version: 1,
                header_nslots: 8,
                header_slot_bytes: 256,
                max_dims: 8,
                data_source_id: None,
                driver_control_stream_id: 1000,
                payload_pools: vec![discovery::PayloadPool {
                    pool_id: 1,
                    pool_nslots: 8,
                    stride_bytes: 4096,
                    region_uri: POOL_URI.into(),
                }],
                tags: vec![tag("a")],
                header_region_uri: RING_URI.into(),
                data_source_name: "cam".into(),
                driver_instance_id: "d1".into(),
                driver_control_channel: "aeron:ipc".into(),
            }],
            error_message: "".into(),
        })),
        "090002008e0301004d000000000000000127000100102700000700000007000000000000000100000008000000000108ffffffffffffffffe8\
         0300000a000100010008000000001000001000000073686d3a66696c653f706174683d2f700000010001000000611000000073686d3a6669\
         6c653f706174683d2f680300000063616d020000006431090000006165726f6e3a69706300000000",
    );
}

/// Rules: TP-481, TC-001, TC-002.
#[test]
fn tracelink() {
    check(
        AnyMessage::Tracelink(tracelink::Message::TraceLinkSet(TraceLinkSet {
            stream_id: 10000,
            epoch: 7,
            seq: 5,
            trace_id: 100,
            parents: vec![Parent { trace_id: 11 }, Parent { trace_id: 22 }],
        })),
        "1c0001008803010010270000070000000000000005000000000000006400000000000000080002000b000000000000001600000000000000",
    );
}

/// Rules: TP-481, TP-014, TC-001, TC-002.
#[test]
fn merge() {
    use merge::Message::*;
    check(
        AnyMessage::Merge(SequenceMergeMapAnnounce(merge::SequenceMergeMapAnnounce {
            out_stream_id: 20000,
            epoch: 7,
            stale_timeout_ns: None,
            rules: vec![
                SequenceRule {
                    input_stream_id: 10000,
                    rule_type: MergeRuleType::Offset,
                    offset: Some(-2),
                    window_size: None,
                },
                SequenceRule {
                    input_stream_id: 10001,
                    rule_type: MergeRuleType::Window,
                    offset: None,
                    window_size: Some(5),
                },
            ],
        })),
        "1400010087030100204e00000700000000000000ffffffffffffffff0d0002001027000000feffffffffffffff11270000010000008005000000",
    );
    check(
        AnyMessage::Merge(SequenceMergeMapRequest(merge::SequenceMergeMapRequest {
            out_stream_id: 20000,
            epoch: 7,
        })),
        "0c00020087030100204e00000700000000000000",
    );
    check(
        AnyMessage::Merge(TimestampMergeMapAnnounce(merge::TimestampMergeMapAnnounce {
            out_stream_id: 20000,
            epoch: 7,
            stale_timeout_ns: None,
            clock_domain: merge::ClockDomain::Monotonic,
            lateness_ns: Some(1_000_000),
            rules: vec![TimestampRule {
                input_stream_id: 10000,
                rule_type: MergeTimeRuleType::WindowNs,
                timestamp_source: TimestampSource::SlotHeader,
                offset_ns: None,
                window_ns: Some(10_000_000),
            }],
        })),
        "1d00030087030100204e00000700000000000000ffffffffffffffff0140420f000000000016000100102700000102000000000000008080\
         96980000000000",
    );
    check(
        AnyMessage::Merge(TimestampMergeMapRequest(merge::TimestampMergeMapRequest {
            out_stream_id: 20000,
            epoch: 7,
        })),
        "0c00040087030100204e00000700000000000000",
    );
}

/// Rules: TP-481, TC-001, TC-002.
#[test]
fn bridge() {
    check(
        AnyMessage::Bridge(bridge::Message::BridgeFrameChunk(BridgeFrameChunk {
            stream_id: 20000,
            epoch: 7,
            seq: 5,
            trace_id: Some(100),
            chunk_index: 1,
            chunk_count: 2,
            chunk_offset: 8,
            chunk_length: 4,
            payload_length: 12,
            payload_crc32c: 0,
            header_included: false,
            header_bytes: &[],
            payload_bytes: &[9, 10, 11, 12],
        })),
        "3500010086030100204e00000700000000000000050000000000000064000000000000000100000002000000080000000400\
         00000c00000000000000000000000004000000090a0b0c",
    );
}

/// Encodes and decodes `message` in every way there is.
fn check(message: AnyMessage<'_>, golden: &str) {
    let bytes = message.to_vec().expect("a value that can be written");
    assert_eq!(hex(&bytes), golden, "{}", message.name());
    assert_eq!(AnyMessage::decode(&bytes).as_ref(), Ok(&message));
    let mut out = vec![0xa5; bytes.len() + 1];
    assert_eq!(message.encode(&mut out), Ok(bytes.len()));
    assert_eq!((&out[..bytes.len()], out[bytes.len()]), (&*bytes, 0xa5), "{}", message.name());
}
