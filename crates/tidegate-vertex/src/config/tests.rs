//! Pipeline files that are valid, and ones that are not.

use super::*;
use crate::source::file::FileSource;

const WHOLE: &str = r#"
version = 1
[pipeline]
name = "orders"
uid = "7f3a91c2d4e8b016"
delivery = "at_least_once"
[batch]
max_records = 100
max_bytes = "64KiB"
[transport]
ring = "1MiB"
max_in_flight = 4
checksum = "full"
[udf]
command = ["./enrich", "-v"]
workers = 2
batch_timeout = "3s"
params = { threshold = 0.7 }
[udf.retry]
attempts = 3
on_exhausted = "drop"
[source]
kind = "generator"
partitions = 4
records = 1000
bytes = "100B"
[[sink]]
name = "main"
kind = "file"
path = "out"
[ledger]
path = "ledger"
"#;

/// Rules: VX-855, VX-305, VX-306.
#[test]
fn a_file_says_what_it_says_and_the_rest_has_defaults() {
    let pipeline: Pipeline = WHOLE.parse().unwrap();
    assert_eq!(pipeline.uid(), 0x7f3a_91c2_d4e8_b016);
    let transport = pipeline.transport();
    assert_eq!((transport.ring, transport.max_frame, transport.max_in_flight), (1 << 20, 1 << 18, 4));
    assert_eq!(transport.max_response, 1 << 20);
    assert_eq!(pipeline.batch_timeout(), Nanos::from_secs(3));
    assert_eq!(pipeline.attach_timeout(), Nanos::from_secs(10));
    assert!(pipeline.has_payload_checksums());
    let retry = pipeline.retry();
    assert_eq!((retry.attempts.get(), retry.crash_attempts.get()), (3, 2));
    let expected =
        Backoff { initial: Nanos::from_millis(50), factor: 2.0, cap: Nanos::from_secs(10), jitter: 0.2 };
    assert_eq!((retry.backoff, retry.on_exhausted), (expected, OnExhausted::LeaveOut));
    assert_eq!(pipeline.sink[0].retry.backoff(), expected);
    let own = "initial = \"1ms\"\nfactor = 1.5\ncap = \"1s\"\njitter = 0";
    let expected =
        Backoff { initial: Nanos::from_millis(1), factor: 1.5, cap: Nanos::from_secs(1), jitter: 0.0 };
    let own =
        WHOLE.replace("attempts = 3", own).replace("[ledger]", &format!("[sink.retry]\n{own}\n[ledger]"));
    let own: Pipeline = own.parse().unwrap();
    assert_eq!((own.retry().backoff, own.sink[0].retry.backoff()), (expected, expected));
    assert_eq!(pipeline.sink[0].name(), "main");
}

/// Rules: VX-120, VX-312, VX-420, VX-855.
#[test]
fn what_cannot_be_is_refused_with_its_key() {
    for (from, to, part) in [
        ("version = 1", "version = 2", "version is 2"),
        ("7f3a91c2d4e8b016", "7f3a", "pipeline.uid"),
        ("uid = \"7f3a91c2d4e8b016\"", "", "pipeline.uid is missing"),
        ("7f3a91c2d4e8b016", "+f3a91c2d4e8b016", "pipeline.uid"),
        ("[[sink]]", "[[sink]]\nname = \"main\"\nkind = \"stdout\"\n[[sink]]", "sink.name"),
        ("at_least_once", "exactly_once", "exactly_once"),
        ("max_records = 100", "max_record = 100", "max_record"),
        ("max_records = 100", "max_records = 0", "nonzero"),
        ("64KiB", "64kb", "a size like"),
        ("64KiB", "257KiB", "batch.max_bytes"),
        ("64KiB", "100B", "batch.max_bytes"),
        ("3s", "3", "a time like"),
        ("\"1MiB\"", "\"1000KiB\"", "ring_capacity"),
        ("ring = \"1MiB\"", "ring = \"1MiB\"\nmax_frame = \"1MiB\"", "max_frame"),
        ("ring = \"1MiB\"", "ring = \"1MiB\"\nmax_response = \"51MiB\"", "transport.max_response"),
        ("[\"./enrich\", \"-v\"]", "[]", "udf.command"),
        ("partitions = 4\n", "partitions = 4097\n", "source.partitions"),
        ("kind = \"file\"", "kind = \"kafka\"", "kafka"),
        ("[[sink]]", "[[sink]]\nrole = \"dlq\"", "at least one of which gets outputs"),
        ("[ledger]", "[limits]\nprefetch = \"1KiB\"\n[ledger]", "limits.prefetch"),
        ("\"drop\"", "\"dlq\"", "udf.retry.on_exhausted"),
        (
            "[ledger]",
            "[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"stdout\"\nrequired = false\n[ledger]",
            "sink.required is false for dead",
        ),
        (
            "kind = \"file\"",
            "kind = \"file\"\nmode = \"epoch\"\nmax_bytes = \"1KiB\"",
            "sink.max_records is set for main; it has to be left out with mode = \"epoch\"",
        ),
        ("workers = 2", "order = \"random\"", "random"),
        ("command = [\"./enrich\", \"-v\"]", "", "or udf.listen for workers that somebody else starts"),
        ("workers = 2", "listen = \"/run/a\"", "udf.command is set"),
        ("workers = 2", "allowed_uids = [7]", "udf.allowed_uids is set"),
        ("workers = 2", "group = 7", "udf.group is set"),
        ("command = [\"./enrich\", \"-v\"]", "listen = \"\"", "udf.listen is 0 bytes long"),
        ("command = [\"./enrich\", \"-v\"]", "listen = \"/run/a\"\nenv = { A = \"b\" }", "udf.env is set"),
        (
            "command = [\"./enrich\", \"-v\"]",
            "listen = \"/run/a\"\nallowed_uids = [7]",
            "udf.group is missing",
        ),
        ("attempts = 3", "factor = 0.5", "0.5 is not a number from 1 to 100"),
        ("attempts = 3", "factor = nan", "NaN is not a number from 1 to 100"),
        ("attempts = 3", "jitter = 1.5", "1.5 is not a number from 0 to 1"),
        ("attempts = 3", "jitter = -0.1", "is not a number from 0 to 1"),
        ("[ledger]", "[sink.retry]\nfactor = 1e9\n[ledger]", "is not a number from 1 to 100"),
        (
            "\"drop\"",
            "\"nack\"",
            "udf.retry.on_exhausted is \"nack\"; it has to be \"stop\", \"drop\" or \"dlq\"",
        ),
        ("path = \"out\"", "path = \"out\"\nordered = false", "sink.ordered is false for main"),
        (
            "path = \"out\"",
            "path = \"out\"\nlinger = \"1s\"\nrequired = false",
            "sink.linger is set for main",
        ),
        (
            "[ledger]",
            "[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"stdout\"\nlinger = \"1s\"\n[ledger]",
            "sink.linger is set for dead",
        ),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let error = WHOLE.replace(from, to).parse::<Pipeline>().unwrap_err().to_string();
        assert!(error.contains(part), "{to}: {error}");
    }
}

/// In parts that have a kind, too: the line, the key, what was found and what is expected.
/// Rules: VX-855.
#[test]
fn what_is_wrong_in_a_part_with_a_kind_is_said_with_its_place() {
    let second = |keys: &str| format!("{WHOLE}[[sink]]\nname = \"second\"\nkind = \"file\"\n{keys}\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.toml");
    for (text, line, said) in [
        (second("pth = \"b\""), "pth", "sink.pth: unknown field `pth`, expected one of `mode`"),
        (second("path = 3"), "path = 3", "sink.path: invalid type: integer `3`, expected path string"),
        (second(""), "[[sink]]", "sink: missing field `path`"),
        (second("path = \"b\"\nmode = \"epok\""), "mode", "sink.mode: unknown variant `epok`"),
        (second("path = \"b\"\nlinger = \"5x\""), "linger", "sink.linger: \"5x\" is not a time like"),
        (second("path = \"b\"\n[sink.retry]\nfactor = 0.5"), "factor", "sink.retry.factor: 0.5 is not"),
        // What does not fit other keys.
        (second("path = \"b\"\nformat = \"csv\""), "[[sink]]", "the sink b: columns is missing"),
        (
            second("path = \"b\"\nmode = \"epoch\"\nformat = \"npy\""),
            "format",
            "the sink b: format is npy; it has to be ndjson with mode = \"epoch\"",
        ),
        (second("path = \"b\"\nordered = false"), "ordered", "sink.ordered is false for second"),
        (second("path = \"b\"\nmode = \"epoch\""), "mode", "sink.mode is \"epoch\" for second"),
        (second("path = \"b\"").replace("second", "main"), "name = \"main\"", "sink.name is main"),
        (
            second("path = \"b\"").replace("kind = \"file\"\npath = \"b\"", "kind = \"fil\"\npath = \"b\""),
            "kind = \"fil\"",
            "sink.kind: unknown variant `fil`, expected one of",
        ),
        (
            WHOLE.replace("records = 1000", "records = true"),
            "records",
            "source.records: invalid type: boolean `true`",
        ),
        (WHOLE.replace("records = 1000", ""), "[source]", "source: missing field `records`"),
        (
            WHOLE.replace("[ledger]", "[ownership]\nkind = \"static\"\nlease = 1\n[ledger]"),
            "lease",
            "ownership.lease: unknown field `lease`",
        ),
    ] {
        fs::write(&path, &text).unwrap();
        let error = Pipeline::read(&path).unwrap_err().to_string();
        let number = text[..text.rfind(&format!("\n{line}")).unwrap()].matches('\n').count() + 2;
        let expected = format!("{}:{number}: {said}", path.display());
        assert!(error.starts_with(&expected), "{error}\n{expected}");
        // With a setting of the command line, it is the same.
        let error = Pipeline::read_with(&path, &["batch.max_records=9".to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

/// A number that TOML does not have is said with its place, and hides nothing else that is wrong.
/// Rules: VX-855.
#[test]
fn a_number_that_is_too_large_is_said_with_its_place() {
    let text = WHOLE.replace("records = 1000", "records = 18446744073709551615");
    let line = text[..text.find("records = 18").unwrap()].matches('\n').count() + 1;
    let error = text.parse::<Pipeline>().unwrap_err().to_string();
    assert!(error.contains(&format!("at line {line}")), "{error}");
}

/// Rules: VX-001, VX-620, VX-750.
#[test]
fn what_source_and_sinks_cannot_give_is_not_promised() {
    let epochs = "kind = \"file\"\nmode = \"epoch\"\ndir = \"out\"";
    let with = |delivery: &str, sink: &str| {
        let text = WHOLE.replace("at_least_once", delivery);
        text.replace("kind = \"file\"\npath = \"out\"", sink)
    };
    let plain = "kind = \"file\"\npath = \"out\"";
    for good in [
        with("effectively_once", epochs),
        with("effectively_once", &format!("allow_duplicates = true\n{plain}")),
        with("at_most_once", plain),
        with("at_most_once", &format!("linger = \"1s\"\n{plain}")),
        with("effectively_once", &format!("linger = \"0ms\"\n{epochs}")),
        with("at_least_once", plain).replace("[ledger]\npath = \"ledger\"", ""),
    ] {
        good.parse::<Pipeline>().unwrap_or_else(|error| panic!("{error}: {good}"));
    }
    let dead = "[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"stdout\"\n";
    let no_ledger = |delivery| with(delivery, epochs).replace("[ledger]\npath = \"ledger\"", "");
    for (bad, part) in [
        (with("effectively_once", plain), "sink.allow_duplicates"),
        (with("effectively_once", &format!("linger = \"1s\"\n{epochs}")), "epoch.interval says how long"),
        (with("at_least_once", epochs), "sink.mode"),
        (with("at_most_once", epochs), "sink.mode"),
        (no_ledger("effectively_once"), "ledger is missing"),
        (no_ledger("at_most_once"), "ledger is missing"),
        (
            with("effectively_once", epochs).replace(
                "kind = \"generator\"\npartitions = 4\nrecords = 1000\nbytes = \"100B\"",
                "kind = \"stdin\"",
            ),
            "source.kind",
        ),
        (
            with("at_least_once", &format!("{plain}\n{dead}{}", dead.replace("\"dead\"", "\"other\""))),
            "dlq for 2 sinks",
        ),
    ] {
        let error = bad.parse::<Pipeline>().expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// Rules: VX-311, VX-601.
#[test]
fn defaults_follow_from_what_else_is_said() {
    let dead = "[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"stdout\"\n[ledger]";
    for (on_exhausted, sink, expected) in [
        ("on_exhausted = \"drop\"", "[ledger]", OnExhausted::LeaveOut),
        ("", "[ledger]", OnExhausted::Stop),
        ("", dead, OnExhausted::LeaveOut),
        ("on_exhausted = \"stop\"", dead, OnExhausted::Stop),
        ("on_exhausted = \"dlq\"", dead, OnExhausted::LeaveOut),
    ] {
        let text = WHOLE.replace("on_exhausted = \"drop\"", on_exhausted).replace("[ledger]", sink);
        let pipeline: Pipeline = text.parse().unwrap();
        assert_eq!(pipeline.retry().on_exhausted, expected, "{on_exhausted} {sink}");
        let wanted = sink == dead && !on_exhausted.contains("stop");
        assert_eq!(pipeline.dead_letters(), wanted.then_some(1), "{on_exhausted}");
    }
    // Four times the longest batch, and a mebibyte at least.
    for (batch, response) in [("64KiB", 1 << 20), ("2MiB", 8 << 20)] {
        let text = WHOLE.replace("64KiB", batch).replace("\"1MiB\"", "\"16MiB\"");
        assert_eq!(text.parse::<Pipeline>().unwrap().transport().max_response, response);
    }
}

#[cfg(feature = "hub")]
const HUB: &str = "kind = \"hub\"\nchannel = \"in\"\n";

/// Rules: VX-001, VX-855.
#[cfg(feature = "hub")]
#[test]
fn a_channel_can_give_what_it_keeps_until_it_is_committed() {
    let source = "kind = \"generator\"\npartitions = 4\nrecords = 1000\nbytes = \"100B\"\n";
    let text = WHOLE.replace(source, HUB).replace("at_least_once", "effectively_once");
    let text = text.replace("path = \"out\"", "path = \"out\"\nmode = \"epoch\"");
    let reliable: Pipeline = text.parse().unwrap();
    assert!(reliable.source.promise().contains("as long as it is there"));
    let lossy = text.replace(HUB, &format!("{HUB}reliable = false\n"));
    let error = lossy.parse::<Pipeline>().unwrap_err().to_string();
    assert!(error.contains("source.kind is one that cannot be read again"), "{error}");
    let lossy: Pipeline =
        lossy.replace("effectively_once", "at_least_once").replace("mode = \"epoch\"", "").parse().unwrap();
    assert!(lossy.source.promise().contains("is lost when the vertex dies"));
    for (key, part) in [
        ("channel = \"No Name\"", "channel is \"No Name\": not a channel name; use 1 to 127"),
        ("chanel = \"in\"", "chanel"),
    ] {
        let error = text.replace("channel = \"in\"", key).parse::<Pipeline>().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let sink = "kind = \"hub\"\nchannel = \"out\"";
    let error = text.replace("kind = \"file\"\npath = \"out\"\nmode = \"epoch\"", sink).parse::<Pipeline>();
    assert!(error.unwrap_err().to_string().contains("sink.allow_duplicates"));
}

#[test]
fn a_source_that_has_no_end_cannot_be_read_to_it() {
    let mut pipeline: Pipeline = WHOLE.parse().unwrap();
    pipeline.end_at_eof().unwrap();
    let source = "kind = \"generator\"\npartitions = 4\nrecords = 1000\nbytes = \"100B\"\n";
    let followed = WHOLE.replace(source, "kind = \"file\"\npath = \"in\"\nfollow = true\n");
    let mut followed: Pipeline = followed.parse().unwrap();
    followed.end_at_eof().unwrap();
    assert!(matches!(followed.source, SourceConfig::File(FileSource { follow: false, .. })));
    #[cfg(feature = "zmq")]
    {
        let socket =
            WHOLE.replace(source, "kind = \"zmq\"\npattern = \"pull\"\nbind = [\"ipc:///run/in\"]\n");
        let error = socket.parse::<Pipeline>().unwrap().end_at_eof().unwrap_err().to_string();
        assert!(error.contains("source.kind is \"zmq\", which has no end"), "{error}");
    }
}

/// Rules: VX-436.
#[test]
fn restarts_are_unlimited_unless_a_limit_is_set() {
    let pipeline: Pipeline = WHOLE.parse().unwrap();
    assert_eq!(pipeline.restarts(), None);
    let limited = WHOLE.replace("workers = 2", "workers = 2\nmax_restarts = 3\nrestart_window = \"1m\"");
    let limited: Pipeline = limited.parse().unwrap();
    assert_eq!(limited.restarts(), NonZeroU32::new(3).map(|most| (most, Nanos::from_secs(60))));
}

/// Rules: VX-855.
#[cfg(all(feature = "hub", feature = "nats"))]
#[test]
fn the_pipelines_of_the_guide_are_valid() {
    let guide = include_str!("../../../../docs/guides/vertex/ends.md");
    let files: Vec<&str> = guide.split("\n```toml ").skip(1).collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let (name, rest) = file.split_once('\n').unwrap();
        let text = rest.split("\n```").next().unwrap();
        text.parse::<Pipeline>().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[cfg(feature = "nats")]
const STREAM: &str = "kind = \"jetstream\"\nmode = \"partition\"\nurl = \"nats://a\"\nstream = \"IN\"
subject = \"in.{partition}\"\npartitions = 4\n";

/// The file with a stream for its generator.
#[cfg(feature = "nats")]
fn with_stream() -> String {
    WHOLE.replace("kind = \"generator\"\npartitions = 4\nrecords = 1000\nbytes = \"100B\"\n", STREAM)
}

/// What is wrong with the ends in JetStream and with ownership: file, line, key, what was found and what is expected.
/// Rules: VX-001, VX-837, VX-852, VX-855.
#[cfg(feature = "nats")]
#[test]
fn what_is_wrong_with_streams_and_owners_is_said_with_its_place() {
    const PLAIN: &str = "kind = \"file\"\npath = \"out\"";
    let text = with_stream();
    let owned = text.replace("[ledger]", "[ownership]\nkind = \"jetstream\"\nurl = \"nats://a\"\n[ledger]");
    let queue = text.replace("mode = \"partition\"", "mode = \"work_queue\"\nconsumer = \"work\"");
    let queue = queue.replace("partitions = 4\n", "");
    let kv = |mode| {
        text.replace(PLAIN, &format!("kind = \"kv\"\nurl = \"nats://a\"\nbucket = \"b\"\nmode = {mode:?}"))
    };
    for good in [&text, &owned, &queue, &kv("guarded"), &kv("put")] {
        good.parse::<Pipeline>().unwrap_or_else(|error| panic!("{error}: {good}"));
    }
    let guarded_epochs = kv("guarded").replace("at_least_once", "effectively_once");
    assert_eq!(guarded_epochs.parse::<Pipeline>().unwrap().sink[0].class(), crate::sink::Class::B);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.toml");
    for (text, at, parts) in [
        (text.replace("in.{partition}", "in"), "subject", ["subject = \"in\"", "no {partition}"]),
        (text.replace("partitions = 4\n", "partitions = 0\n"), "partitions", ["partitions = 0", "1 to 4096"]),
        (text.replace("mode = \"partition\"", ""), "[source]", ["mode", "missing"]),
        (text.replace("mode = \"partition\"", "mode = \"push\""), "mode", ["`push`", "`work_queue`"]),
        (text.replace("stream =", "streem ="), "streem", ["streem", "`stream`"]),
        (text.replace("partitions = 4\n", "prefetch = \"0B\"\n"), "prefetch", ["prefetch = 0B", "1KiB"]),
        (
            text.replace("partitions = 4\n", "idle_cursor = \"5ms\"\n"),
            "idle_cursor",
            ["idle_cursor = 5ms", "1s"],
        ),
        (queue.replace("\"work\"", "\"my work\""), "consumer", ["consumer = \"my work\"", "letters"]),
        (queue.replace("\"work\"", "\"work\"\nack_wait = \"1ms\""), "ack_wait", ["ack_wait = 1ms", "1s"]),
        (
            queue.replace("\"work\"", "\"work\"\nmax_ack_pending = 399"),
            "max_ack_pending",
            ["source.max_ack_pending is 399", "at least transport.max_in_flight times"],
        ),
        (
            queue.replace("at_least_once", "effectively_once"),
            "delivery",
            ["pipeline.delivery is \"effectively_once\"", "\"at_least_once\" with source.mode"],
        ),
        (kv("blind"), "mode = \"blind\"", ["`blind`", "`guarded`"]),
        (kv("guarded").replace("\"b\"", "\"b.c\""), "bucket", ["bucket = \"b.c\"", "letters"]),
        (
            kv("guarded").replace(STREAM, "kind = \"stdin\"\n"),
            "mode = \"guarded\"",
            ["sink.mode is \"guarded\" for main", "\"put\""],
        ),
        (
            kv("put").replace("at_least_once", "effectively_once"),
            "[[sink]]",
            ["sink.allow_duplicates is not set for main", "class C"],
        ),
        (
            text.replace(
                PLAIN,
                "kind = \"jetstream\"\nmode = \"strict\"\nurl = \"nats://a\"\nstream = \"O\"\nprefix = \"o\"",
            ),
            "stream = \"O\"",
            ["stream = \"O\"", "no {partition}"],
        ),
        (
            text.replace(PLAIN, "kind = \"jetstream\"\nmode = \"ids\"\nstream = \"O\"\nsubject = \"o\""),
            "[[sink]]",
            ["missing", "`url`"],
        ),
        (owned.replace("[ledger]", "lease = \"1ms\"\n[ledger]"), "lease", ["lease = 1ms", "500ms to 10m"]),
        (
            owned.replace("[ledger]", "partitions = \"x\"\n[ledger]"),
            "partitions = \"x\"",
            ["\"x\"", "\"0-3,7\""],
        ),
        (owned.replace("[ledger]", "leese = \"1s\"\n[ledger]"), "leese", ["leese", "`lease`"]),
        (
            owned.replace("[ledger]", "instance = \"${TIDEGATE_NOT_SET}\"\n[ledger]"),
            "instance",
            ["TIDEGATE_NOT_SET", "is not set"],
        ),
        (owned.replace("[ledger]\npath = \"ledger\"", ""), "", ["ledger is missing", "ownership.kind"]),
        (
            owned.replace(STREAM, "kind = \"file\"\npath = \"in\"\n"),
            "kind = \"file\"\npath = \"in\"",
            ["source.kind is file", "every host has to read the same"],
        ),
        (
            owned
                .replace("mode = \"partition\"", "mode = \"work_queue\"\nconsumer = \"w\"")
                .replace("partitions = 4\n", ""),
            "kind = \"jetstream\"\nmode = \"work_queue\"",
            ["source.kind is jetstream in work-queue mode", "partition mode"],
        ),
    ] {
        fs::write(&path, &text).unwrap();
        let error = Pipeline::read(&path).expect_err(&text).to_string();
        let line = text.find(at).map(|offset| text[..offset].matches('\n').count() + 1).expect(at);
        let has_line = at.is_empty() || error.contains(&format!("orders.toml:{line}:"));
        assert!(error.starts_with(&path.display().to_string()) && has_line, "{at:?} is line {line}: {error}");
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

/// Only sinks that confirm outputs one by one and keep the right one whatever their order.
/// Rules: VX-842.
#[cfg(feature = "nats")]
#[test]
fn sinks_that_know_outputs_again_may_do_without_order() {
    let with = |sink: &str| {
        let sink = format!("{sink}\nurl = \"nats://a\"\nordered = false");
        WHOLE.replace("kind = \"file\"\npath = \"out\"", &sink).parse::<Pipeline>()
    };
    let ids = "kind = \"jetstream\"\nmode = \"ids\"\nstream = \"S\"\nsubject = \"s\"";
    let kv = "kind = \"kv\"\nmode = \"guarded\"\nbucket = \"b\"";
    let strict = "kind = \"jetstream\"\nmode = \"strict\"\nstream = \"S{partition}\"\nprefix = \"s\"";
    for good in [ids, kv] {
        assert!(!with(good).unwrap().sink[0].ordered);
    }
    for bad in [strict, &kv.replace("guarded", "put"), &format!("required = false\n{ids}")] {
        let error = with(bad).unwrap_err().to_string();
        assert!(error.contains("sink.ordered is false for main"), "{error}");
    }
}
