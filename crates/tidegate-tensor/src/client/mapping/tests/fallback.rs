//! Configurations and mappings that fail (10.7).

use super::*;

/// Rules: TP-182, TP-183, TP-185, TP-128, TC-085.
#[test]
fn a_configuration_without_shared_memory_leads_to_fallback_until_it_is_taken_back() {
    let mut bench = Bench::announced(7);
    bench.configure(false, "bridge://b1");
    assert_eq!((bench.state(), &bench.unmaps[..]), (FALLBACK, &[UnmapReason::Config][..]));
    let uri = FallbackUri::parse(b"bridge://b1");
    assert!(uri.is_some());
    assert_eq!(bench.machine.fallback_uri(), uri.as_ref());
    for epoch in [7, 8] {
        bench.pass(10);
        bench.hear(epoch);
    }
    assert_eq!((bench.state(), bench.maps.len()), (FALLBACK, 1), "announces do not map");
    bench.configure(true, "");
    assert_eq!(bench.state(), FALLBACK, "until something is mapped");
    assert_eq!(bench.machine.fallback_uri(), uri.as_ref());
    bench.hear(8);
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (mapped(8), None));
}

/// Rules: TP-182, TP-183.
#[test]
fn fallback_by_configuration_also_holds_against_a_grant() {
    let mut bench = Bench::granted(7);
    bench.pass(10);
    bench.producer_revoked();
    bench.configure(false, "");
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (FALLBACK, None));
    bench.grant(8);
    assert_eq!((bench.state(), bench.maps.len()), (FALLBACK, 1));
}

/// Rules: TP-183, TP-184, TP-185.
#[test]
fn a_failed_mapping_with_a_known_uri_is_tried_again_with_each_new_epoch() {
    let mut bench = Bench::announced(7);
    bench.configure(false, "bridge://b1");
    bench.configure(true, "");
    bench.mappable = false;
    bench.pass(10);
    bench.hear(7);
    assert_eq!(bench.state(), FALLBACK);
    assert!(bench.machine.fallback_uri().is_some());
    bench.mappable = true;
    bench.pass(10);
    bench.hear(7);
    assert_eq!(bench.state(), FALLBACK, "the same epoch is not tried again");
    bench.hear(8);
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (mapped(8), None));
}

/// Rules: TP-184, TC-087.
#[test]
fn a_failed_mapping_without_a_uri_stays_unmapped() {
    let mut bench = Bench::new(false, true);
    bench.mappable = false;
    bench.hear(7);
    assert_eq!(bench.state(), UNMAPPED);
    bench.mappable = true;
    bench.pass(1_000);
    bench.hear(7);
    assert_eq!(bench.state(), mapped(7), "a file may have been late (IP-88)");
}

/// Rules: TP-186.
#[test]
fn a_consumer_without_shared_memory_never_maps() {
    let mut bench = Bench::new(true, false);
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (FALLBACK, None));
    bench.grant(7);
    bench.hear(7);
    bench.configure(false, "bridge://b1");
    assert!(bench.machine.fallback_uri().is_some());
    bench.configure(true, "");
    bench.hear(7);
    bench.hear(8);
    bench.grant(9);
    assert_eq!((bench.state(), bench.maps.len()), (FALLBACK, 0));
}

/// A URI of a scheme that is not supported is no URI.
/// Rules: TC-086.
#[test]
fn an_unsupported_fallback_uri_is_ignored() {
    let mut bench = Bench::announced(7);
    bench.configure(false, "http://x");
    assert_eq!((bench.state(), bench.machine.fallback_uri()), (FALLBACK, None));
}

/// The structural checks of an attach response are those of an announce.
#[test]
fn a_grant_and_an_announce_of_the_same_regions_agree() {
    let pools = announce(7, Nanos::ZERO).payload_pools;
    let response = driver::ShmAttachResponse {
        correlation_id: 1,
        code: driver::ResponseCode::Ok,
        lease_id: Some(1),
        lease_expiry_timestamp_ns: None,
        stream_id: Some(STREAM),
        epoch: Some(7),
        layout_version: Some(1),
        header_nslots: Some(8),
        header_slot_bytes: Some(256),
        node_id: None,
        payload_pools: pools
            .iter()
            .rev()
            .map(|pool| driver::PayloadPool {
                pool_id: pool.pool_id,
                pool_nslots: pool.pool_nslots,
                stride_bytes: pool.stride_bytes,
                region_uri: pool.region_uri,
            })
            .collect(),
        header_region_uri: HEADER.into(),
        error_message: "".into(),
    };
    assert_eq!(RegionSpec::from_attach_response(&response).unwrap(), spec(7));
}
