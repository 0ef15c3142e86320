//! Single keys: defaults, types, limits, precedence, warnings.

use std::path::Path;

use super::*;
use crate::channel::ChannelError;
use crate::layout::Stride;

/// Rules: TP-461.
#[test]
fn defaults_are_those_of_the_table() {
    let config = with("").unwrap();
    assert_eq!(config.driver, DriverSection::default());
    assert_eq!(config.shm, ShmSection::default());
    assert_eq!(config.policies, Policies::default());

    let driver = &config.driver;
    assert_eq!(driver.instance_id, "driver-01");
    assert_eq!(driver.aeron_dir, None);
    for (endpoint, id) in [(&driver.control, 1000), (&driver.announce, 1000), (&driver.qos, 1200)] {
        assert_eq!((endpoint.channel.as_str(), endpoint.stream_id.get()), ("aeron:ipc?term-length=4m", id));
    }
    assert!(driver.stream_id_range.is_empty());
    assert!(driver.descriptor_stream_id_range.is_empty() && driver.control_stream_id_range.is_empty());

    let shm = &config.shm;
    assert_eq!((shm.base_dir.as_path(), shm.namespace.as_str()), (Path::new("/dev/shm"), "default"));
    assert_eq!((shm.require_hugepages, shm.page_size_bytes), (false, 4096));
    assert_eq!(shm.permissions_mode.bits(), 0o660);
    assert_eq!(shm.allowed_base_dirs, [Path::new("/dev/shm")]);

    let policies = &config.policies;
    assert!(!policies.allow_dynamic_streams && policies.default_profile.is_none());
    assert_eq!(policies.announce_period, Duration::from_secs(1));
    assert_eq!(policies.lease_keepalive_interval, Duration::from_secs(1));
    assert_eq!(policies.lease_expiry_grace_intervals, 3);
    assert_eq!(policies.node_id_reuse_cooldown, Duration::from_secs(1));
    assert!(policies.prefault_shm && !policies.mlock_shm);
    assert!(!policies.reuse_existing_shm && !policies.cleanup_shm_on_exit);
    assert!(policies.epoch_gc_enabled && !policies.epoch_gc_on_startup);
    assert_eq!((policies.epoch_gc_keep, policies.epoch_gc_min_age), (2, Duration::from_secs(3)));
    assert_eq!(policies.shutdown_timeout, Duration::from_secs(2));
    assert_eq!(policies.shutdown_token, None);

    let defaulted = "[profiles.p]\npayload_pools = [{ pool_id = 1, stride_bytes = 64 }]";
    assert_eq!(with(defaulted).unwrap().profile("p").unwrap().header_nslots.get(), 1024);
}

/// A file that sets every key of 24.1 to something else than its default.
const FULL: &str = r#"
[driver]
instance_id = "camera host"
aeron_dir = "/dev/shm/aeron-x"
control_channel = "aeron:ipc?term-length=1m"
control_stream_id = 2_000
announce_channel = "aeron:udp?endpoint=h:1"
announce_stream_id = 0x7d1
qos_channel = "aeron:ipc"
qos_stream_id = 2200
stream_id_range = "20000-29999"
descriptor_stream_id_range = [31000, 31999]
control_stream_id_range = ["32000-32099", "32200,32299", "32500"]
[shm]
base_dir = "/srv/shm"
namespace = "Lab_1-b"
require_hugepages = true
page_size_bytes = 2097152
permissions_mode = "0600"
allowed_base_dirs = ["/srv/shm", "/mnt/huge"]
[policies]
allow_dynamic_streams = true
default_profile = "small"
announce_period_ms = 500
lease_keepalive_interval_ms = 250
lease_expiry_grace_intervals = 5
node_id_reuse_cooldown_ms = 2500
prefault_shm = false
mlock_shm = true
reuse_existing_shm = true
cleanup_shm_on_exit = true
epoch_gc_enabled = false
epoch_gc_keep = 4
epoch_gc_min_age_ns = 7
epoch_gc_on_startup = true
shutdown_timeout_ms = 0
shutdown_token = "s3cret"
[profiles.wide]
header_nslots = 64
[[profiles.wide.payload_pools]]
pool_id = 1
stride_bytes = 640
[[profiles.wide.payload_pools]]
pool_id = 65535
stride_bytes = 1048576
[profiles.small]
header_nslots = 1
payload_pools = [{ pool_id = 3, stride_bytes = 64 }]
[streams.front]
stream_id = 10000
profile = "wide"
[streams."rear view"]
stream_id = 4294967295
profile = "small"
"#;

/// Rules: TP-461, TP-464.
#[test]
fn every_key_is_read() {
    let Loaded { config, warnings } = load(FULL).unwrap();
    assert_eq!(warnings, []);
    let driver = &config.driver;
    assert_eq!(driver.instance_id, "camera host");
    assert_eq!(driver.aeron_dir.as_deref(), Some(Path::new("/dev/shm/aeron-x")));
    let endpoints = [&driver.control, &driver.announce, &driver.qos];
    assert_eq!(endpoints.map(|endpoint| endpoint.stream_id.get()), [2000, 2001, 2200]);
    let channels = endpoints.map(|endpoint| endpoint.channel.as_str());
    assert_eq!(channels, ["aeron:ipc?term-length=1m", "aeron:udp?endpoint=h:1", "aeron:ipc"]);
    assert_eq!(driver.stream_id_range, ranges(&[(20_000, 29_999)]));
    assert_eq!(driver.descriptor_stream_id_range, ranges(&[(31_000, 31_999)]));
    let split = ranges(&[(32_000, 32_099), (32_200, 32_299), (32_500, 32_500)]);
    assert_eq!(driver.control_stream_id_range, split);

    let shm = &config.shm;
    assert_eq!((shm.base_dir.as_path(), shm.namespace.as_str()), (Path::new("/srv/shm"), "Lab_1-b"));
    assert_eq!((shm.require_hugepages, shm.page_size_bytes), (true, 2 << 20));
    assert_eq!(shm.permissions_mode.bits(), 0o600);
    assert_eq!(shm.allowed_base_dirs, [Path::new("/srv/shm"), Path::new("/mnt/huge")]);

    let expected = Policies {
        allow_dynamic_streams: true,
        default_profile: Some("small".to_owned()),
        announce_period: Duration::from_millis(500),
        lease_keepalive_interval: Duration::from_millis(250),
        lease_expiry_grace_intervals: 5,
        node_id_reuse_cooldown: Duration::from_millis(2500),
        prefault_shm: false,
        mlock_shm: true,
        reuse_existing_shm: true,
        cleanup_shm_on_exit: true,
        epoch_gc_enabled: false,
        epoch_gc_keep: 4,
        epoch_gc_min_age: Duration::from_nanos(7),
        epoch_gc_on_startup: true,
        shutdown_timeout: Duration::ZERO,
        shutdown_token: Secret::new("s3cret"),
    };
    assert_eq!(config.policies, expected);

    let pool = |id, bytes| PoolSpec { pool_id: PoolId::new(id), stride: Stride::new(bytes).unwrap() };
    let wide = config.profile("wide").unwrap();
    assert_eq!(wide.header_nslots.get(), 64);
    assert_eq!(wide.payload_pools, [pool(1, 640), pool(65_535, 1 << 20)]);
    assert_eq!(config.default_profile().unwrap().payload_pools, [pool(3, 64)]);
    assert_eq!(config.stream("front").unwrap().stream_id.get(), 10_000);
    assert_eq!(config.stream_by_id(StreamId::new(u32::MAX)).unwrap().name, "rear view");
    assert_eq!(config.stream("rear"), None);
}

#[test]
fn a_dump_loads_to_the_same_configuration() {
    for text in [FULL.to_owned(), BASE.to_owned(), DriverConfig::default_node().to_toml()] {
        let config = load(&text).unwrap().config;
        let dump = config.to_toml();
        assert!(!dump.contains("s3cret"), "{dump}");
        assert_eq!(dump.contains("shutdown_token is set"), config.policies.shutdown_token.is_some());
        assert!(!format!("{config:?}").contains("s3cret"));

        let without_token = Policies { shutdown_token: None, ..config.policies.clone() };
        let again = load(&dump).unwrap_or_else(|error| panic!("{error}\n{dump}"));
        assert_eq!(again.config, DriverConfig { policies: without_token, ..config });
        assert_eq!(again.warnings, []);
    }
}

#[test]
fn the_configuration_of_a_node_is_complete_and_moderate() {
    let config = DriverConfig::default_node();
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(config.driver.announce.stream_id, stream_ids::ANNOUNCE);
    assert!(config.driver.stream_id_range.contains(20_000) && config.driver.stream_id_range.contains(29_999));
    let bytes = config.default_profile().unwrap().region_bytes();
    assert!((145 << 20..150 << 20).contains(&bytes), "{bytes}");
}

/// Rules: TP-462, TC-121.
#[test]
fn the_environment_wins_over_the_file() {
    let text = "control_stream_id = 1005\nqos_stream_id = 1006";
    let config = with_env(text, &[("DRIVER_CONTROL_STREAM_ID", "1010")]).unwrap();
    assert_eq!(config.driver.control.stream_id.get(), 1010);
    assert_eq!(config.driver.announce.stream_id.get(), 1010, "follows control");
    assert_eq!(config.driver.qos.stream_id.get(), 1006);

    let config = with_env(
        "",
        &[
            ("DRIVER_CONTROL_CHANNEL", "aeron:ipc?alias=x"),
            ("DRIVER_STREAM_ID_RANGE", "20000,20999"),
            ("SHM_PERMISSIONS_MODE", "600"),
            ("SHM_REQUIRE_HUGEPAGES", "true"),
            ("SHM_NAMESPACE", "other"),
            ("SHM_BASE_DIR", "/srv"),
            ("POLICIES_ANNOUNCE_PERIOD_MS", "100"),
            ("POLICIES_EPOCH_GC_MIN_AGE_NS", "5"),
            ("POLICIES_SHUTDOWN_TOKEN", "t"),
            ("PROFILES_CAM_HEADER_NSLOTS", "16"),
            ("STREAMS_FRONT_STREAM_ID", "10001"),
        ],
    )
    .unwrap();
    assert_eq!(config.driver.control.channel.as_str(), "aeron:ipc?alias=x");
    assert_eq!(config.driver.stream_id_range, ranges(&[(20_000, 20_999)]));
    assert_eq!(config.shm.permissions_mode.bits(), 0o600);
    assert_eq!((config.shm.require_hugepages, config.shm.namespace.as_str()), (true, "other"));
    assert_eq!(config.shm.allowed_base_dirs, [Path::new("/srv")], "follows base_dir");
    assert_eq!(config.policies.announce_period, Duration::from_millis(100));
    assert_eq!(config.policies.epoch_gc_min_age, Duration::from_nanos(5));
    assert_eq!(config.policies.shutdown_token, Secret::new("t"));
    assert_eq!(config.profile("cam").unwrap().header_nslots.get(), 16);
    assert_eq!(config.stream("front").unwrap().stream_id.get(), 10_001);

    let error = with_env("", &[("DRIVER_QOS_STREAM_ID", "many")]).unwrap_err();
    let variable = "DRIVER_QOS_STREAM_ID".to_owned();
    assert_eq!(
        error,
        ConfigError::Value {
            key: "driver.qos_stream_id".to_owned(),
            origin: Origin::Environment { variable },
            found: "`many`".to_owned(),
            allowed: "a number from 1 to 2147483647",
        }
    );
    // An error found after loading names the variable as well.
    let error = with_env("", &[("SHM_PAGE_SIZE_BYTES", "5000")]).unwrap_err().to_string();
    assert!(error.contains("`shm.page_size_bytes` (environment variable SHM_PAGE_SIZE_BYTES)"), "{error}");
}

#[test]
fn the_media_driver_directory_falls_back_to_its_variable() {
    let dir = |text, variables: &[(&str, &str)]| with_env(text, variables).unwrap().driver.aeron_dir;
    let fallback = ("AERON_DIR", "/a");
    assert_eq!(dir("", &[fallback]).as_deref(), Some(Path::new("/a")));
    assert_eq!(dir("aeron_dir = ''", &[fallback]).as_deref(), Some(Path::new("/a")));
    assert_eq!(dir("aeron_dir = '/f'", &[fallback]).as_deref(), Some(Path::new("/f")));
    assert_eq!(dir("aeron_dir = '/f'", &[("DRIVER_AERON_DIR", "/e")]).as_deref(), Some(Path::new("/e")));
    assert_eq!(dir("", &[("AERON_DIR", "")]), None);
}

/// Rules: TP-463.
#[test]
fn wrong_values_are_refused_with_key_and_line() {
    let line = 1 + BASE.lines().count();
    for (text, key) in [
        ("control_stream_id = '1000'", "driver.control_stream_id"),
        ("control_stream_id = -1", "driver.control_stream_id"),
        ("control_stream_id = 0", "driver.control_stream_id"),
        ("control_stream_id = 2147483648", "driver.control_stream_id"),
        ("control_stream_id = 1000.0", "driver.control_stream_id"),
        ("announce_stream_id = true", "driver.announce_stream_id"),
        ("control_channel = 7", "driver.control_channel"),
        ("control_channel = 'ipc'", "driver.control_channel"),
        ("instance_id = 1", "driver.instance_id"),
        ("instance_id = \"a\\u0000\"", "driver.instance_id"),
        ("descriptor_stream_id_range = '1-2147483648'", "driver.descriptor_stream_id_range"),
        ("control_stream_id_range = '1-2147483648'", "driver.control_stream_id_range"),
    ] {
        assert_eq!(refused(text), (key.to_owned(), Origin::File { line }), "{text}");
    }
    for (text, key) in [
        ("permissions_mode = 660", "shm.permissions_mode"),
        ("permissions_mode = '668'", "shm.permissions_mode"),
        ("permissions_mode = '0o660'", "shm.permissions_mode"),
        ("permissions_mode = ''", "shm.permissions_mode"),
        ("permissions_mode = '0'", "shm.permissions_mode"),
        ("permissions_mode = '2770'", "shm.permissions_mode"),
        ("require_hugepages = 'true'", "shm.require_hugepages"),
        ("require_hugepages = 1", "shm.require_hugepages"),
        ("page_size_bytes = 4097", "shm.page_size_bytes"),
        ("base_dir = 'dev/shm'", "shm.base_dir"),
        ("base_dir = ''", "shm.base_dir"),
        ("base_dir = '/a b'", "shm.base_dir"),
        ("allowed_base_dirs = '/a'", "shm.allowed_base_dirs"),
        ("allowed_base_dirs = ['/a', 1]", "shm.allowed_base_dirs"),
        ("allowed_base_dirs = ['a']", "shm.allowed_base_dirs"),
    ] {
        assert_eq!(
            refused(&format!("[shm]\n{text}")),
            (key.to_owned(), Origin::File { line: line + 1 }),
            "{text}"
        );
    }
    for (text, key) in [
        ("announce_period_ms = 0", "policies.announce_period_ms"),
        ("lease_keepalive_interval_ms = 0", "policies.lease_keepalive_interval_ms"),
        ("lease_expiry_grace_intervals = 0", "policies.lease_expiry_grace_intervals"),
        ("epoch_gc_min_age_ns = -1", "policies.epoch_gc_min_age_ns"),
        ("shutdown_timeout_ms = 4294967296", "policies.shutdown_timeout_ms"),
        ("prefault_shm = 'yes'", "policies.prefault_shm"),
    ] {
        let found = refused(&format!("[policies]\n{text}"));
        assert_eq!(found, (key.to_owned(), Origin::File { line: line + 1 }), "{text}");
    }
    assert_eq!(
        refused("[shm.x]\n[policies]\n[metrics]\n[discovery]\n[profiles]\ncam2 = 1").0,
        "profiles.cam2"
    );
    assert_eq!(
        load("driver = 1").unwrap_err().to_string(),
        "`driver` (line 1) must be a table, found integer `1`"
    );
    assert!(matches!(load("a = 1\nb = = 2"), Err(ConfigError::Syntax { line: 2, .. })));
    assert!(matches!(load("a = 1\na = 2"), Err(ConfigError::Syntax { line: 2, .. })));
}

/// Rules: TP-463.
#[test]
fn an_error_names_what_was_found_and_what_is_allowed() {
    let message = |text: &str| with(text).unwrap_err().to_string();
    let line = 1 + BASE.lines().count();
    assert_eq!(
        message("control_stream_id = -5"),
        format!(
            "`driver.control_stream_id` (line {line}) must be a number from 1 to 2147483647, found integer `-5`"
        )
    );
    let channel = with("qos_channel = 'aeron:ipc?mtu=x'").unwrap_err();
    let source = ChannelError::Size { parameter: "mtu", found: "x".to_owned() };
    assert_eq!(
        channel,
        ConfigError::Channel { key: "driver.qos_channel".to_owned(), origin: Origin::File { line }, source }
    );
    let secret = message("[policies]\nshutdown_token = 12345");
    assert!(secret.contains("shutdown_token") && !secret.contains("12345"), "{secret}");
    let long = message(&format!("control_stream_id = '{}'", "x".repeat(500)));
    assert!(long.len() < 200, "{long}");
}

/// Rules: TP-463.
#[test]
fn unknown_keys_warn() {
    let text = "
top = 1
[driver]
control_stream = 1
[shm]
base = '/x'
[policies]
policy = true
[profiles.p]
slots = 8
payload_pools = [{ pool_id = 1, stride_bytes = 64, size = 64 }]
[streams.s]
stream_id = 5
profile = 'p'
color = 'red'
[supervisor]
a = 1
[discovery]
[bridge]
[rate_limiter]
[[mappings]]
source_stream_id = 1
[node]
[metrics]
[other]
";
    let warnings = load(text).unwrap().warnings;
    let mut found: Vec<(&str, usize)> = warnings.iter().map(|one| (one.key.as_str(), one.line)).collect();
    found.sort_by_key(|one| one.1);
    let expected = [
        ("top", 2),
        ("driver.control_stream", 4),
        ("shm.base", 6),
        ("policies.policy", 8),
        ("profiles.p.slots", 10),
        ("profiles.p.payload_pools[0].size", 11),
        ("streams.s.color", 15),
        ("other", 25),
    ];
    assert_eq!(found, expected);
    assert_eq!(warnings.last().unwrap().to_string(), "line 25: unknown key `other` is ignored");
}

/// Rules: TP-464.
#[test]
fn ranges_have_several_forms() {
    let range =
        |value: &str| with(&format!("stream_id_range = {value}")).map(|found| found.driver.stream_id_range);
    for (value, expected) in [
        ("'20000-20010'", &[(20_000, 20_010)][..]),
        ("'20000,20010'", &[(20_000, 20_010)]),
        ("' 20000 - 20010 '", &[(20_000, 20_010)]),
        ("'20000'", &[(20_000, 20_000)]),
        ("[20000, 20010]", &[(20_000, 20_010)]),
        ("['20020-20029', '20000-20010', '20015']", &[(20_000, 20_010), (20_015, 20_015), (20_020, 20_029)]),
        ("['20000']", &[(20_000, 20_000)]),
        ("'1-2'", &[(1, 2)]),
        ("'4294967295'", &[(u32::MAX, u32::MAX)]),
        ("''", &[]),
        ("[]", &[]),
    ] {
        assert_eq!(range(value).unwrap(), ranges(expected), "{value}");
    }
    for value in [
        "'0'",
        "'0-5'",
        "[0, 5]",
        "'5-4'",
        "[5, 4]",
        "['5-4']",
        "'a-b'",
        "'5-'",
        "'-5'",
        "'5-6-7'",
        "'+5-6'",
        "[5]",
        "[5, 6, 7]",
        "[5, '6']",
        "['']",
        "5",
        "'4294967296'",
        "[1.0, 2.0]",
        "[-1, 2]",
        "true",
        "[[1, 2]]",
    ] {
        let error = range(value).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Value { key, .. } if key == "driver.stream_id_range"),
            "{value}"
        );
    }
    let ids: Vec<u32> = ranges(&[(7, 8), (3, 4)]).ids().collect();
    assert_eq!(ids, [3, 4, 7, 8]);
}

/// Rules: TP-052, TC-037.
#[test]
fn a_namespace_is_one_directory() {
    for namespace in ["../x", "", ".", "..", "a/b", "a.b", "a b", "\u{e4}"] {
        assert_eq!(refused(&format!("[shm]\nnamespace = '{namespace}'")).0, "shm.namespace", "{namespace}");
    }
    assert!(with("[shm]\nnamespace = 'A-z_0'").is_ok());
}

/// Rules: TP-052, TC-038.
#[test]
fn a_user_name_becomes_one_component() {
    assert_eq!(format!("tensorpool-{}", user_component(b"a.b/c")), "tensorpool-a_b_c");
    assert_eq!(user_component(b"Jo-1_x"), "Jo-1_x");
    assert_eq!(user_component(b".."), "__");
    assert_eq!(user_component("\u{e4}\0".as_bytes()), "___");
    assert_eq!(user_component(b""), "unknown");
}

/// Rules: TP-274.
#[test]
fn node_ids_rest_at_least_a_second_unless_switched_off() {
    let rest = |millis| {
        let node_id_reuse_cooldown = Duration::from_millis(millis);
        Policies { node_id_reuse_cooldown, ..Policies::default() }.node_id_cooldown().as_millis()
    };
    assert_eq!([rest(0), rest(1), rest(1000), rest(2500)], [0, 1000, 1000, 2500]);
}

#[test]
fn variables_for_tools() {
    let env = |list: &'static [(&str, &str)]| {
        move |name: &str| list.iter().find(|entry| entry.0 == name).map(|entry| entry.1.to_owned())
    };
    assert_eq!(log_level(&env(&[])), Ok(LogLevel::Info));
    assert_eq!(log_level(&env(&[("TP_LOG_LEVEL", "0")])), Ok(LogLevel::Error));
    assert_eq!(log_level(&env(&[("TP_LOG_LEVEL", "4")])), Ok(LogLevel::Trace));
    for text in [&[("TP_LOG_LEVEL", "5")], &[("TP_LOG_LEVEL", "info")], &[("TP_LOG_LEVEL", "")]] {
        assert!(log_level(&env(text)).unwrap_err().to_string().contains("TP_LOG_LEVEL"));
    }

    assert_eq!(tool_endpoint(&env(&[])), Ok(DriverSection::default().control));
    let set =
        tool_endpoint(&env(&[("TP_CONTROL_CHANNEL", "aeron:ipc"), ("TP_CONTROL_STREAM_ID", "7")])).unwrap();
    assert_eq!((set.channel.as_str(), set.stream_id.get()), ("aeron:ipc", 7));
    assert!(tool_endpoint(&env(&[("TP_CONTROL_CHANNEL", "x")])).is_err());
    assert!(tool_endpoint(&env(&[("TP_CONTROL_STREAM_ID", "0")])).is_err());
}
