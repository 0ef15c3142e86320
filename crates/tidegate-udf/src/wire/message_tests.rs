//! Datagrams against the sheet's names, and against bytes of nobody in particular.

use proptest::prelude::*;

use super::*;

fn hello() -> Hello {
    Hello {
        proto: VERSIONS,
        language: "rust".to_owned(),
        sdk_version: "0.1.0".to_owned(),
        function: "enrich".to_owned(),
        kind: "map".to_owned(),
        schema_in: vec![SchemaId(0), SchemaId(u64::MAX)],
        schema_out: SchemaId(3),
        features: Vec::new(),
        boottime: 4,
    }
}

/// As long as names can be, all of them still fit a datagram.
/// Rules: VX-426, VX-501.
#[test]
fn names_of_counters_are_clean_and_short() {
    for (name, expected) in
        [("cache.hits:2-a/b_C", "cache.hits:2-a/b_C"), ("a b\n{}", "a_b___"), ("größe", "gr__e"), ("", "_")]
    {
        assert_eq!(counter_name(name), expected);
    }
    assert_eq!(counter_name(&"x".repeat(65)), "x".repeat(64));
    assert_eq!(counter_name(&"é".repeat(65)), "_".repeat(64));
    let most = (0..MAX_COUNTERS).map(|number| (format!("{number:064}"), u64::MAX)).collect();
    let sums = Sums { counters: most, lines: u64::MAX, refused: u64::MAX };
    assert!(FromWorker::Metric(sums).encode().len() <= MAX_MESSAGE);
}

/// Rules: VX-501.
#[test]
fn what_is_no_sum_is_left_out() {
    let said = br#"{"type":"metric","lines_left_out":0,"counters_left_out":0,
        "counters":{"a":1,"b":-1,"c":1.5,"d":"1","e":1e300,"f":null,"g":18446744073709551616}}"#;
    let Ok(FromWorker::Metric(sums)) = FromWorker::decode(said) else { panic!("no sums") };
    assert_eq!(sums.counters, [("a".to_owned(), 1)]);
    let nan = br#"{"type":"metric","lines_left_out":0,"counters_left_out":0,"counters":{"a":NaN}}"#;
    assert_eq!(FromWorker::decode(nan), Err(MessageFault::NotAnObject));
}

#[test]
fn messages_come_out_as_they_went_in() {
    let line = Line {
        level: Level::Debug,
        message: "two\nlines".to_owned(),
        partition: PartitionId(3),
        batch: BatchId(u64::MAX),
        fields: Map::from_iter([("n".to_owned(), 1.into())]),
    };
    let sums = Sums { counters: vec![("a".to_owned(), 0), ("b".to_owned(), u64::MAX)], lines: 2, refused: 3 };
    let messages = [
        FromWorker::Hello(hello()),
        FromWorker::Ready(Ready { sealed: true }),
        FromWorker::Log(line),
        FromWorker::Metric(sums),
        FromWorker::Bye,
    ];
    for message in messages {
        assert_eq!(FromWorker::decode(&message.encode()), Ok(message));
    }
    let welcome = Welcome {
        proto: 1,
        pipeline: "orders".to_owned(),
        heartbeat_ms: 200,
        batch_timeout_ms: 30_000,
        routes: vec!["main".to_owned(), "audit".to_owned()],
        checksum: true,
        params: json!({ "threshold": 0.7 }),
    };
    let reject = Reject { code: "SCHEMA".to_owned(), message: "3 is not 4".to_owned() };
    for message in [FromRuntime::Welcome(welcome), FromRuntime::Reject(reject)] {
        assert_eq!(FromRuntime::decode(&message.encode()), Ok(message));
    }
}

/// A worker of a later version says more.
#[test]
fn fields_that_are_not_known_are_ignored() {
    let mut value: Value = serde_json::from_slice(&FromWorker::Hello(hello()).encode()).unwrap();
    value["later"] = json!({ "a": [1] });
    assert_eq!(FromWorker::decode(value.to_string().as_bytes()), Ok(FromWorker::Hello(hello())));
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    let whole: Value = serde_json::from_slice(&FromWorker::Hello(hello()).encode()).unwrap();
    for field in
        ["proto", "sdk_version", "function", "kind", "schema_in", "schema_out", "features", "boottime"]
    {
        for wrong in [None, Some(json!(-1)), Some(json!([-1])), Some(json!({}))] {
            let mut damaged = whole.clone();
            match wrong {
                None => drop(damaged.as_object_mut().unwrap().remove(field)),
                Some(value) => damaged[field] = value,
            }
            let fault = FromWorker::decode(damaged.to_string().as_bytes()).unwrap_err();
            assert!(matches!(fault, MessageFault::Field { field: found, .. } if found == field), "{fault}");
        }
    }
    assert_eq!(FromWorker::decode(b"[]"), Err(MessageFault::NotAnObject));
    let found = "welcome".to_owned();
    let welcome = br#"{"type":"welcome"}"#;
    assert_eq!(FromWorker::decode(welcome), Err(MessageFault::UnknownType { found }));
}

/// Rules: VX-421.
#[test]
fn the_highest_common_version_is_taken() {
    assert_eq!(common_version((1, 3), (2, 5)), Some(3));
    assert_eq!(common_version((2, 5), (1, 3)), Some(3));
    assert_eq!(common_version((1, 1), (1, 1)), Some(1));
    assert_eq!(common_version((1, 2), (3, 4)), None);
    assert_eq!(common_version((3, 4), (1, 2)), None);
}

proptest! {
    #[test]
    fn no_bytes_can_hurt(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = FromWorker::decode(&bytes);
        let _ = FromRuntime::decode(&bytes);
    }
}
