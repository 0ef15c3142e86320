//! Values of fields: nulls, enums, Booleans, strings, limits.
#![allow(clippy::expect_used, reason = "a test may fail")]

use tidegate_sbe::control::{
    self, ConsumerConfig, ConsumerHello, DataSourceMeta, Dtype, FrameDescriptor, FrameProgressState,
    MajorOrder, Mode, ProgressUnit, QosProducer, RegionType, ShmRegionSuperblock, TensorHeader,
};
use tidegate_sbe::discovery::DiscoveryStatus;
use tidegate_sbe::driver::{
    self, HugepagesPolicy, LeaseRevokeReason, PublishMode, Role, ShmAttachRequest, ShmDetachRequest,
    ShmDriverShutdown, ShmDriverShutdownRequest, ShmLeaseKeepalive, ShmLeaseRevoked, ShutdownReason,
};
use tidegate_sbe::merge::{self, MergeRuleType, MergeTimeRuleType, SequenceRule, TimestampSource};
use tidegate_sbe::tracelink::{Parent, TraceLinkSet};
use tidegate_sbe::{DecodeError, EncodeError, Open, Text, WireEnum, bridge};

const DESCRIPTOR: FrameDescriptor = FrameDescriptor {
    stream_id: 10000,
    epoch: 7,
    seq: 5,
    timestamp_ns: None,
    meta_version: None,
    trace_id: None,
};

const HELLO: ConsumerHello<'static> = ConsumerHello {
    stream_id: 10000,
    consumer_id: 42,
    supports_shm: true,
    supports_progress: false,
    mode: Mode::Stream,
    max_rate_hz: 0,
    expected_layout_version: 1,
    progress_interval_us: None,
    progress_bytes_delta: None,
    progress_major_delta_units: None,
    descriptor_stream_id: 0,
    control_stream_id: 0,
    descriptor_channel: Text::from_bytes(b""),
    control_channel: Text::from_bytes(b""),
};

const ATTACH: ShmAttachRequest = ShmAttachRequest {
    correlation_id: 1,
    stream_id: 10000,
    client_id: 42,
    role: Open::Listed(Role::Consumer),
    expected_layout_version: 1,
    publish_mode: None,
    require_hugepages: Open::Listed(HugepagesPolicy::Unspecified),
    desired_node_id: None,
};

/// Rules: TP-014, TP-015, TC-012, TC-015.
#[test]
fn absent_values_are_written_as_null_and_read_as_absent() {
    let mut bytes = DESCRIPTOR.to_vec().expect("a descriptor");
    assert_eq!(bytes[28..40], [0xff; 12], "timestamp and metadata version");
    assert_eq!(bytes[40..48], [0; 8], "trace id");
    assert_eq!(FrameDescriptor::decode(&bytes), Ok(DESCRIPTOR));
    bytes[40..48].fill(0xff);
    assert_eq!(FrameDescriptor::decode(&bytes), Ok(DESCRIPTOR), "the other null of a trace id");
    bytes[40] = 0xfe;
    let trace_id = Some(u64::MAX - 1);
    assert_eq!(FrameDescriptor::decode(&bytes), Ok(FrameDescriptor { trace_id, ..DESCRIPTOR }));
}

/// Zero is a value wherever it is not the null.
///
/// Rules: TP-014, TP-015.
#[test]
fn zero_is_not_absent() {
    let zero = FrameDescriptor { timestamp_ns: Some(0), meta_version: Some(0), ..DESCRIPTOR };
    assert_eq!(FrameDescriptor::decode(&zero.to_vec().expect("a descriptor")), Ok(zero));
    let qos = QosProducer { stream_id: 1, producer_id: 2, epoch: 3, current_seq: 4, watermark: Some(0) };
    let bytes = qos.to_vec().expect("a message");
    assert_eq!(bytes[32..36], [0; 4]);
    assert_eq!(QosProducer::decode(&bytes), Ok(qos));
    let bytes = QosProducer { watermark: None, ..qos }.to_vec().expect("a message");
    assert_eq!(bytes[32..36], [0xff; 4]);
}

/// Rules: TP-014, TP-015.
#[test]
fn null_values_are_refused_as_values() {
    let refused = |field| Err(EncodeError::NullValue { field });
    for trace_id in [Some(0), Some(u64::MAX)] {
        assert_eq!(FrameDescriptor { trace_id, ..DESCRIPTOR }.to_vec(), refused("FrameDescriptor.traceId"));
    }
    let timestamp_ns = Some(u64::MAX);
    assert_eq!(
        FrameDescriptor { timestamp_ns, ..DESCRIPTOR }.to_vec(),
        refused("FrameDescriptor.timestampNs")
    );
    let publish_mode = Some(Open::Unlisted(255));
    assert_eq!(ShmAttachRequest { publish_mode, ..ATTACH }.to_vec(), refused("ShmAttachRequest.publishMode"));
    let rule = |offset| SequenceRule {
        input_stream_id: 1,
        rule_type: MergeRuleType::Offset,
        offset,
        window_size: None,
    };
    let map = |offset| merge::SequenceMergeMapAnnounce {
        out_stream_id: 1,
        epoch: 2,
        stale_timeout_ns: None,
        rules: vec![rule(offset)],
    };
    assert_eq!(map(Some(i32::MIN)).to_vec(), refused("SequenceRule.offset"));
    let bytes = map(None).to_vec().expect("a map");
    assert_eq!(bytes[bytes.len() - 8..bytes.len() - 4], i32::MIN.to_le_bytes());
}

/// Rules: TP-016, TC-013, TC-014.
#[test]
fn unlisted_values_of_closed_enums_are_refused() {
    let mut bytes = HELLO.to_vec().expect("a hello");
    bytes[8 + 10] = 7;
    let refused = DecodeError::InvalidEnum { field: "ConsumerHello.mode", value: 7 };
    assert_eq!(ConsumerHello::decode(&bytes), Err(refused));

    let announce = control::ShmPoolAnnounce {
        stream_id: 1,
        producer_id: 0,
        epoch: 7,
        announce_timestamp_ns: 0,
        announce_clock_domain: control::ClockDomain::RealtimeSynced,
        layout_version: 1,
        header_nslots: 8,
        header_slot_bytes: 256,
        payload_pools: Vec::new(),
        header_region_uri: Text::default(),
    };
    let mut bytes = announce.to_vec().expect("an announce");
    for value in [0, 3, 255] {
        bytes[8 + 24] = value;
        let field = "ShmPoolAnnounce.announceClockDomain";
        let refused = DecodeError::InvalidEnum { field, value: value.into() };
        assert_eq!(control::ShmPoolAnnounce::decode(&bytes), Err(refused));
    }

    let keepalive = ShmLeaseKeepalive {
        lease_id: 5,
        stream_id: 1,
        client_id: 42,
        role: Role::Producer,
        client_timestamp_ns: 0,
    };
    let mut bytes = keepalive.to_vec().expect("a keepalive");
    bytes[8 + 16] = 3;
    let refused = DecodeError::InvalidEnum { field: "ShmLeaseKeepalive.role", value: 3 };
    assert_eq!(ShmLeaseKeepalive::decode(&bytes), Err(refused));

    let revoked = ShmLeaseRevoked {
        timestamp_ns: 0,
        lease_id: 5,
        stream_id: 1,
        client_id: 42,
        role: Role::Producer,
        reason: LeaseRevokeReason::Expired,
        error_message: Text::default(),
    };
    let mut bytes = revoked.to_vec().expect("a notice");
    bytes[8 + 25] = 0;
    let refused = DecodeError::InvalidEnum { field: "ShmLeaseRevoked.reason", value: 0 };
    assert_eq!(ShmLeaseRevoked::decode(&bytes), Err(refused));

    let mut superblock = [0; 64];
    superblock[24..26].copy_from_slice(&(-1i16).to_le_bytes());
    let refused = DecodeError::InvalidEnum { field: "ShmRegionSuperblock.regionType", value: -1 };
    assert_eq!(ShmRegionSuperblock::decode_body(&superblock), Err(refused));
}

/// Requests that a driver answers, a shutdown that a client obeys.
///
/// Rules: TP-016.
#[test]
fn unlisted_values_of_open_fields_are_carried() {
    let attach = ShmAttachRequest {
        role: Open::Unlisted(0),
        publish_mode: Some(Open::Unlisted(3)),
        require_hugepages: Open::Unlisted(255),
        ..ATTACH
    };
    assert_eq!(ShmAttachRequest::decode(&attach.to_vec().expect("a request")), Ok(attach));
    assert_eq!(attach.role.listed(), None);
    let publish_mode = Some(PublishMode::ExistingOrCreate.into());
    let attach = ShmAttachRequest { publish_mode, ..ATTACH };
    assert_eq!(ShmAttachRequest::decode(&attach.to_vec().expect("a request")), Ok(attach));
    let bytes = ATTACH.to_vec().expect("a request");
    assert_eq!(bytes[8 + 21], 255);
    assert_eq!(ShmAttachRequest::decode(&bytes), Ok(ATTACH));

    let role = Open::Unlisted(9);
    let detach = ShmDetachRequest { correlation_id: 1, lease_id: 2, stream_id: 3, client_id: 4, role };
    assert_eq!(ShmDetachRequest::decode(&detach.to_vec().expect("a request")), Ok(detach));
    let reason = Open::Unlisted(77);
    let shutdown = ShmDriverShutdown { timestamp_ns: 1, reason, error_message: "?".into() };
    assert_eq!(ShmDriverShutdown::decode(&shutdown.to_vec().expect("a notice")), Ok(shutdown));
    let request = ShmDriverShutdownRequest {
        correlation_id: 1,
        reason,
        token: "t".into(),
        error_message: Text::default(),
    };
    assert_eq!(ShmDriverShutdownRequest::decode(&request.to_vec().expect("a request")), Ok(request));

    let mut body = [0; 184];
    body[..2].copy_from_slice(&12i16.to_le_bytes());
    body[2..4].copy_from_slice(&(-1i16).to_le_bytes());
    body[6] = 3;
    let tensor = TensorHeader::decode_body(&body).expect("a tensor header");
    let found = (tensor.dtype, tensor.major_order, tensor.progress_unit);
    assert_eq!(found, (Open::Unlisted(12), Open::Unlisted(-1), Open::Unlisted(3)));
}

/// Rules: TP-017.
#[test]
fn booleans_are_0_or_1() {
    let mut bytes = HELLO.to_vec().expect("a hello");
    assert_eq!(bytes[8 + 8..8 + 10], [1, 0]);
    bytes[8 + 8] = 2;
    let refused = DecodeError::InvalidBool { field: "ConsumerHello.supportsShm", value: 2 };
    assert_eq!(ConsumerHello::decode(&bytes), Err(refused));
    bytes[8 + 8..8 + 10].fill(255);
    let hello = ConsumerHello::decode(&bytes).expect("null is FALSE here");
    assert_eq!((hello.supports_shm, hello.supports_progress), (false, false));

    let config = ConsumerConfig {
        stream_id: 1,
        consumer_id: 2,
        use_shm: true,
        mode: Mode::Stream,
        descriptor_stream_id: 0,
        control_stream_id: 0,
        payload_fallback_uri: Text::default(),
        descriptor_channel: Text::default(),
        control_channel: Text::default(),
    };
    let mut bytes = config.to_vec().expect("a config");
    bytes[8 + 8] = 255;
    assert_eq!(ConsumerConfig::decode(&bytes), Ok(ConsumerConfig { use_shm: false, ..config }));
    bytes[8 + 8] = 254;
    assert!(ConsumerConfig::decode(&bytes).is_err());

    let mut bytes = CHUNK.to_vec().expect("a chunk");
    assert_eq!(bytes[8 + 52], 1);
    for value in [2, 255] {
        bytes[8 + 52] = value;
        let refused = DecodeError::InvalidBool { field: "BridgeFrameChunk.headerIncluded", value };
        assert_eq!(bridge::BridgeFrameChunk::decode(&bytes), Err(refused));
    }
}

const CHUNK: bridge::BridgeFrameChunk<'static> = bridge::BridgeFrameChunk {
    stream_id: 1,
    epoch: 2,
    seq: 3,
    trace_id: None,
    chunk_index: 0,
    chunk_count: 1,
    chunk_offset: 0,
    chunk_length: 0,
    payload_length: 0,
    payload_crc32c: 0,
    header_included: true,
    header_bytes: &[0; 256],
    payload_bytes: &[],
};

/// Rules: TP-018.
#[test]
fn strings_are_written_as_ascii_and_read_as_they_are() {
    for bad in [Text::from("caf\u{e9}"), Text::from_bytes(&[0x80])] {
        let hello = ConsumerHello { control_channel: bad, ..HELLO };
        assert_eq!(hello.to_vec(), Err(EncodeError::NotAscii { field: "ConsumerHello.controlChannel" }));
    }
    let control = ConsumerHello { control_channel: "a\0\n".into(), ..HELLO };
    let mut bytes = control.to_vec().expect("7 bits are enough");
    assert_eq!(ConsumerHello::decode(&bytes), Ok(control));
    let end = bytes.len();
    bytes[end - 1] = 0xff;
    let hello = ConsumerHello::decode(&bytes).expect("any bytes");
    assert_eq!(hello.control_channel.as_bytes(), b"a\0\xff");
    assert_eq!(hello.control_channel.as_str(), None, "not fit for a channel");
    assert_eq!(Text::from("aeron:ipc").as_str(), Some("aeron:ipc"));
}

#[test]
fn strings_of_variable_length_have_limits() {
    let refused = EncodeError::DataTooLong { field: "BridgeFrameChunk.headerBytes", max: 256, found: 257 };
    assert_eq!(bridge::BridgeFrameChunk { header_bytes: &[0; 257], ..CHUNK }.to_vec(), Err(refused));
    let mut bytes = CHUNK.to_vec().expect("a chunk");
    assert_eq!(bridge::BridgeFrameChunk::decode(&bytes), Ok(CHUNK));
    bytes[61..65].copy_from_slice(&257u32.to_le_bytes());
    bytes.push(0);
    let refused = DecodeError::DataTooLong { field: "BridgeFrameChunk.headerBytes", max: 256, found: 257 };
    assert_eq!(bridge::BridgeFrameChunk::decode(&bytes), Err(refused));
}

#[test]
fn groups_have_at_most_65534_entries() {
    let set = |count| TraceLinkSet {
        stream_id: 1,
        epoch: 2,
        seq: 3,
        trace_id: 4,
        parents: vec![Parent { trace_id: 5 }; count],
    };
    let largest = set(65534);
    assert_eq!(TraceLinkSet::decode(&largest.to_vec().expect("a set")), Ok(largest));
    for found in [65535, 65536] {
        let refused = EncodeError::GroupTooLong { group: "TraceLinkSet.parents", found };
        assert_eq!(set(found).to_vec(), Err(refused));
    }
}

#[test]
fn buffers_that_are_too_small_are_refused() {
    let needed = HELLO.encoded_len();
    for found in 0..needed {
        let refused = EncodeError::BufferTooSmall { needed, found };
        assert_eq!(HELLO.encode(&mut vec![0; found]), Err(refused));
    }
    assert_eq!(HELLO.encode(&mut vec![0; needed]), Ok(needed));
}

#[test]
fn group_of_an_attribute_without_value_is_no_missing_last_field() {
    let attribute = control::Attribute { key: "key".into(), format: "f".into(), value: b"" };
    let meta = DataSourceMeta { stream_id: 1, meta_version: 2, timestamp_ns: 3, attributes: vec![attribute] };
    let bytes = meta.to_vec().expect("metadata");
    let refused = DecodeError::Truncated { field: "Attribute.value", needed: 4, left: 0 };
    assert_eq!(DataSourceMeta::decode(&bytes[..bytes.len() - 4]), Err(refused));
}

/// All numbers of chapter 2.3, and no others.
///
/// Rules: TP-023.
#[test]
fn enums_have_the_numbers_of_the_sheet() {
    use control::ClockDomain;
    listed::<Mode>(&[(1, "STREAM"), (2, "RATE_LIMITED")]);
    listed::<FrameProgressState>(&[(0, "UNKNOWN"), (1, "STARTED"), (2, "PROGRESS"), (3, "COMPLETE")]);
    listed::<ProgressUnit>(&[(0, "NONE"), (1, "ROWS"), (2, "COLUMNS")]);
    let codes =
        [(0, "OK"), (1, "UNSUPPORTED"), (2, "INVALID_PARAMS"), (3, "REJECTED"), (4, "INTERNAL_ERROR")];
    listed::<control::ResponseCode>(&codes);
    listed::<driver::ResponseCode>(&codes);
    listed::<ClockDomain>(&[(1, "MONOTONIC"), (2, "REALTIME_SYNCED")]);
    listed::<merge::ClockDomain>(&[(1, "MONOTONIC"), (2, "REALTIME_SYNCED")]);
    listed::<RegionType>(&[(1, "HEADER_RING"), (2, "PAYLOAD_POOL")]);
    listed::<Dtype>(&[
        (0, "UNKNOWN"),
        (1, "UINT8"),
        (2, "INT8"),
        (3, "UINT16"),
        (4, "INT16"),
        (5, "UINT32"),
        (6, "INT32"),
        (7, "UINT64"),
        (8, "INT64"),
        (9, "FLOAT32"),
        (10, "FLOAT64"),
        (11, "BOOLEAN"),
        (13, "BYTES"),
        (14, "BIT"),
    ]);
    listed::<MajorOrder>(&[(0, "UNKNOWN"), (1, "ROW"), (2, "COLUMN")]);
    listed::<HugepagesPolicy>(&[(0, "UNSPECIFIED"), (1, "STANDARD"), (2, "HUGEPAGES")]);
    listed::<Role>(&[(1, "PRODUCER"), (2, "CONSUMER")]);
    listed::<PublishMode>(&[(1, "REQUIRE_EXISTING"), (2, "EXISTING_OR_CREATE")]);
    listed::<LeaseRevokeReason>(&[(1, "DETACHED"), (2, "EXPIRED"), (3, "REVOKED")]);
    listed::<ShutdownReason>(&[(0, "NORMAL"), (1, "ADMIN"), (2, "ERROR")]);
    listed::<DiscoveryStatus>(&[(1, "OK"), (2, "NOT_FOUND"), (3, "ERROR")]);
    listed::<TimestampSource>(&[(1, "FRAME_DESCRIPTOR"), (2, "SLOT_HEADER")]);
    listed::<MergeRuleType>(&[(0, "OFFSET"), (1, "WINDOW")]);
    listed::<MergeTimeRuleType>(&[(0, "OFFSET_NS"), (1, "WINDOW_NS")]);
}

fn listed<E: WireEnum>(expected: &[(i64, &str)])
where
    E::Raw: TryFrom<i64>,
{
    let from_raw = |raw: i64| E::Raw::try_from(raw).ok().and_then(E::from_raw);
    let found: Vec<(i64, &str)> =
        (-32768..65536).filter_map(from_raw).map(|value| (value.raw().into(), value.name())).collect();
    assert_eq!(found, expected);
}
