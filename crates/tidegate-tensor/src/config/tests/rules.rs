//! Rules that span several keys.

use proptest::prelude::*;

use super::*;
use crate::channel::Clash;

/// Rules: TP-030, TC-120.
#[test]
fn ids_serve_one_purpose() {
    let overlap = |text: &str| match with(text) {
        Err(ConfigError::Overlap { first_key, second_key, .. }) => (first_key, second_key),
        other => panic!("{text}: {other:?}"),
    };
    let keys = |first: &str, second: &str| (first.to_owned(), second.to_owned());
    let (streams, descriptors, controls) =
        ("driver.stream_id_range", "driver.descriptor_stream_id_range", "driver.control_stream_id_range");

    let both = "descriptor_stream_id_range = '31000-31999'\ncontrol_stream_id_range = '31999-32999'";
    assert_eq!(overlap(both), keys(descriptors, controls));
    let inside = "stream_id_range = '20000-29999'\ncontrol_stream_id_range = '25000-25001'";
    assert_eq!(overlap(inside), keys(streams, controls));
    let hidden = "stream_id_range = ['1-100', '200-210']\ncontrol_stream_id_range = ['20', '300-310']";
    assert_eq!(overlap(hidden), keys(streams, controls));
    assert_eq!(overlap("stream_id_range = ['100-200', '150-160']"), keys(streams, streams));
    assert_eq!(overlap("control_stream_id_range = '900-1000'"), keys(controls, "driver.control_stream_id"));
    let announce = "announce_stream_id = 1001\ndescriptor_stream_id_range = '1001-1100'";
    assert_eq!(overlap(announce), keys("driver.announce_stream_id", descriptors));
    assert_eq!(
        overlap("descriptor_stream_id_range = '1100-1200'"),
        keys(descriptors, "driver.qos_stream_id")
    );
    assert_eq!(overlap("stream_id_range = '10000-10999'"), keys("streams.front.stream_id", streams));
    assert_eq!(overlap("stream_id_range = '9000-10000'"), keys(streams, "streams.front.stream_id"));
    let around = "stream_id_range = '900-2000'";
    assert_eq!(overlap(around), keys(streams, "driver.control_stream_id"));

    let apart = "stream_id_range = '20000-29999'\ndescriptor_stream_id_range = '31000-31999'\n\
                 control_stream_id_range = '32000-32999'\nannounce_stream_id = 1000\nqos_stream_id = 1000";
    assert!(with(apart).is_ok());
}

/// Rules: TP-105, TP-465, TC-104.
#[test]
fn profiles_are_usable() {
    let profile =
        |text: &str| load(&format!("[streams.s]\nstream_id = 1\nprofile = 'p'\n[profiles.p]\n{text}"));
    let no_pools = Err(ConfigError::NoPools { profile: "p".to_owned() });
    assert_eq!(profile("header_nslots = 8"), no_pools);
    assert_eq!(profile("payload_pools = []"), no_pools);
    let twice = "payload_pools = [{ pool_id = 2, stride_bytes = 64 }, { pool_id = 2, stride_bytes = 128 }]";
    assert_eq!(profile(twice), Err(ConfigError::DuplicatePool { profile: "p".to_owned(), pool_id: 2 }));

    let key = |text: &str| match profile(text) {
        Err(ConfigError::Value { key, .. } | ConfigError::Missing { key, .. }) => key,
        other => panic!("{text}: {other:?}"),
    };
    for (id, stride) in [(0, 64), (65_536, 64), (-1, 64)] {
        let pool = format!("payload_pools = [{{ pool_id = {id}, stride_bytes = {stride} }}]");
        assert_eq!(key(&pool), "profiles.p.payload_pools[0].pool_id");
    }
    for stride in [0, 32, 100] {
        let pool = format!("payload_pools = [{{ pool_id = 1, stride_bytes = {stride} }}]");
        assert_eq!(key(&pool), "profiles.p.payload_pools[0].stride_bytes");
    }
    assert_eq!(key("payload_pools = [{ pool_id = 1 }]"), "profiles.p.payload_pools[0].stride_bytes");
    assert_eq!(key("payload_pools = [1]"), "profiles.p.payload_pools[0]");
    assert_eq!(key("payload_pools = 1"), "profiles.p.payload_pools");
    for slots in [0, 6, 1000] {
        assert_eq!(key(&format!("header_nslots = {slots}")), "profiles.p.header_nslots");
    }
}

/// Rules: TP-465.
#[test]
fn the_default_profile_is_the_first_defined() {
    let profiles = "
        [policies]
        allow_dynamic_streams = true
        [profiles.zebra]
        payload_pools = [{ pool_id = 1, stride_bytes = 64 }]
        [profiles.ant]
        payload_pools = [{ pool_id = 1, stride_bytes = 64 }]
    ";
    let name = |text: &str| load(text).unwrap().config.default_profile().unwrap().name.clone();
    assert_eq!(name(profiles), "zebra");
    let named = profiles.replace("[profiles.zebra]", "default_profile = 'ant'\n[profiles.zebra]");
    assert_eq!(name(&named), "ant");
    let missing = profiles.replace("[profiles.zebra]", "default_profile = 'bee'\n[profiles.zebra]");
    let unknown =
        ConfigError::UnknownProfile { key: "policies.default_profile".to_owned(), found: "bee".to_owned() };
    assert_eq!(load(&missing), Err(unknown));
    assert_eq!(load("[policies]\nallow_dynamic_streams = true"), Err(ConfigError::NoProfile));
}

/// Rules: TP-466.
#[test]
fn streams_are_usable() {
    assert_eq!(load(""), Err(ConfigError::NoStreams));
    assert_eq!(refused("[streams.rear]\nstream_id = 0\nprofile = 'cam'").0, "streams.rear.stream_id");
    let twice = with("[streams.rear]\nstream_id = 10000\nprofile = 'cam'");
    let (first, second) = ("front".to_owned(), "rear".to_owned());
    assert_eq!(twice, Err(ConfigError::DuplicateStream { stream_id: 10_000, first, second }));
    let unknown = with("[streams.rear]\nstream_id = 10001\nprofile = 'tele'");
    let key = "streams.rear.profile".to_owned();
    assert_eq!(unknown, Err(ConfigError::UnknownProfile { key, found: "tele".to_owned() }));
    let missing = with("[streams.rear]\nstream_id = 10001").unwrap_err();
    assert!(matches!(missing, ConfigError::Missing { key, .. } if key == "streams.rear.profile"));
}

/// Rules: TP-487, TC-206.
#[test]
fn one_stream_id_has_one_term_length() {
    let clash = |text: &str| match with(text) {
        Err(ConfigError::ChannelClash { first_key, second_key, clash, .. }) => (first_key, second_key, clash),
        other => panic!("{text}: {other:?}"),
    };
    let found = clash("announce_channel = 'aeron:ipc?term-length=1m'\nannounce_stream_id = 1000");
    let expected = Clash { parameter: "term-length", first: 4 << 20, second: 1 << 20 };
    assert_eq!(found, ("driver.control_channel".to_owned(), "driver.announce_channel".to_owned(), expected));
    let found = clash("qos_channel = 'aeron:ipc?term-length=8m'\nqos_stream_id = 1000");
    assert_eq!((found.0.as_str(), found.1.as_str()), ("driver.control_channel", "driver.qos_channel"));

    assert!(with("announce_channel = 'aeron:ipc?term-length=1m'\nannounce_stream_id = 1001").is_ok());
    assert!(with("announce_channel = 'aeron:ipc'\nannounce_stream_id = 1000").is_ok());
    assert!(with("announce_channel = 'aeron:ipc?term-length=4194304|alias=a'").is_ok());
}

#[test]
fn programs_are_held_to_the_same_limits() {
    let broken: [fn(&mut DriverConfig); 6] = [
        |config| config.driver.control.stream_id = AeronStreamId::new(0),
        |config| config.driver.qos.stream_id = AeronStreamId::new(-1),
        |config| config.shm.base_dir = PathBuf::from("relative"),
        |config| config.policies.announce_period = Duration::ZERO,
        |config| config.policies.lease_expiry_grace_intervals = 0,
        |config| config.profiles[0].payload_pools[0].pool_id = PoolId::new(0),
    ];
    for (index, change) in broken.iter().enumerate() {
        let mut config = DriverConfig::default_node();
        change(&mut config);
        let origin = match config.validate() {
            Err(ConfigError::Value { origin, .. }) => origin,
            other => panic!("{index}: {other:?}"),
        };
        assert_eq!(origin, Origin::Program);
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", value in "\\PC{0,20}") {
        let _ = load(&text);
        let _ = with(&format!("stream_id_range = {value}"));
        let _ = with_env("", &[("DRIVER_STREAM_ID_RANGE", &value), ("SHM_BASE_DIR", &value)]);
    }

    #[test]
    fn whatever_loads_is_valid_and_dumps_to_itself(
        driver in "((control_stream_id|qos_stream_id|stream_id_range|control_stream_id_range) = \
                   ('?[0-9]{1,5}(-[0-9]{1,5})?'?|[0-9]{1,4}|\\[[0-9]{1,3}, [0-9]{1,5}\\])\n){0,3}",
        shm in "((namespace|base_dir|permissions_mode) = '/?[a-z0-7./]{0,5}'\n){0,2}",
        name in "[a-z.\\-\u{e4} ]{1,6}",
    ) {
        let text = format!(
            "{driver}[shm]\n{shm}[profiles.\"{name}\"]\npayload_pools = [{{ pool_id = 1, stride_bytes = 64 }}]"
        );
        if let Ok(config) = with(&text) {
            prop_assert_eq!(config.validate(), Ok(()));
            prop_assert_eq!(load(&config.to_toml()).unwrap().config, config);
        }
    }
}
