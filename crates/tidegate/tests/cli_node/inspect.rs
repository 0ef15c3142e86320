//! `tidegate tensor inspect`: the golden regions of the C implementation, damaged copies of them, and live streams.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fields::assert_documented;
use crate::support::{Node, Outcome, Running, eventually, place, run};

fn golden(set: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/vectors/tensor-pool/shm").join(set)
}

/// A copy with the mode that a driver gives its files; a checkout has others.
fn copy(set: &str) -> TempDir {
    let place = place();
    for name in ["header.ring", "1.pool", "2.pool"] {
        let path = place.path().join(name);
        fs::write(&path, fs::read(golden(set).join(name)).expect("a golden file")).expect("a copy");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("the mode is set");
    }
    place
}

fn inspect(args: &[&str], path: &Path) -> Outcome {
    let args = ["tensor", "inspect", "--json"].iter().chain(args).map(AsRef::as_ref);
    run(args.chain([path.as_os_str()]))
}

fn of_kind<'a>(results: &'a [Value], kind: &str) -> Vec<&'a Value> {
    results.iter().filter(|result| result["kind"] == kind).collect()
}

/// Field, expectation and finding.
type Problem<'a> = (&'a str, &'a str, &'a str);
/// Bytes to be written at an offset, and what is to be found then.
type Damage = (u64, &'static [u8], Problem<'static>);

fn problems(object: &Value) -> Vec<Problem<'_>> {
    let list = object["problems"].as_array().expect("a list");
    list.iter().map(|one| (text(one, "field"), text(one, "expected"), text(one, "found"))).collect()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().expect("a string")
}

/// Rules: TP-075, TP-077, TP-078, TP-477.
#[test]
fn golden_regions_are_as_expected() {
    for (set, committed) in [("fresh", 0_u64), ("mix5", 5)] {
        let expected: Value =
            serde_json::from_slice(&fs::read(golden(set).join("expected.json")).expect("values"))
                .expect("JSON");
        let place = copy(set);
        let outcome = inspect(&["--slots", "all"], place.path()).exits(0);
        let results = outcome.results();

        let regions = of_kind(&results, "region");
        let names: Vec<&str> = regions
            .iter()
            .map(|region| Path::new(region["path"].as_str().expect("a path")).file_name().expect("a name"))
            .map(|name| name.to_str().expect("text"))
            .collect();
        assert_eq!(names, ["header.ring", "1.pool", "2.pool"]);
        for (region, name) in regions.iter().zip(&names) {
            assert_documented(region, "tidegate tensor inspect");
            check_superblock(region, &expected["superblocks"][name]);
            assert_eq!(region["size"], expected["files"][name]["size"], "{name}");
            assert_eq!(region["required_size"], region["size"], "{name}");
            assert_eq!((&region["valid"], &region["problems"]), (&json!(true), &json!([])));
        }
        let last = committed.checked_sub(1);
        let counts = json!({
            "committed": committed, "in_progress": 0, "empty": 8 - committed, "invalid": 0, "last_seq": last,
        });
        assert_eq!(regions[0]["slots"], counts);

        let slots = of_kind(&results, "slot");
        assert_eq!(slots.len(), 8);
        for (slot, expected) in slots.iter().zip(expected["slots"].as_array().expect("a list")) {
            assert_documented(slot, "One slot");
            check_slot(slot, expected);
        }
    }
}

fn check_superblock(region: &Value, expected: &Value) {
    let found = &region["superblock"];
    assert_eq!(found["magic"], expected["magic_hex"]);
    for (name, golden) in [
        ("layout_version", "layoutVersion"),
        ("epoch", "epoch"),
        ("stream_id", "streamId"),
        ("region_type", "regionType"),
        ("pool_id", "poolId"),
        ("nslots", "nslots"),
        ("slot_bytes", "slotBytes"),
        ("stride_bytes", "strideBytes"),
        ("pid", "pid"),
        ("start_timestamp_ns", "startTimestampNs"),
        ("activity_timestamp_ns", "activityTimestampNs"),
    ] {
        assert!(expected[golden].is_u64() && found[name] == expected[golden], "{name}: {region}");
    }
}

fn check_slot(slot: &Value, expected: &Value) {
    assert_eq!((&slot["slot"], &slot["seq_commit"]), (&expected["index"], &expected["seqCommit"]));
    if expected["committed"] == false {
        assert_eq!(
            (&slot["state"], &slot["seq"], &slot["dtype"]),
            (&json!("empty"), &json!(null), &json!(null))
        );
        return;
    }
    assert_eq!(slot["state"], "committed");
    let tensor = &expected["tensor"];
    for (name, value) in [
        ("seq", &expected["seq"]),
        ("values_len", &expected["valuesLenBytes"]),
        ("payload_slot", &expected["payloadSlot"]),
        ("pool", &expected["poolId"]),
        ("payload_offset", &expected["payloadOffset"]),
        ("timestamp_ns", &expected["timestampNs"]),
        ("meta_version", &expected["metaVersion"]),
        ("progress_stride_bytes", &tensor["progressStrideBytes"]),
    ] {
        assert!(value.is_u64() && slot[name] == *value, "{name}: {slot}");
    }
    let name = tensor["dtype_name"].as_str().expect("a name").to_lowercase();
    assert_eq!(slot["dtype"], name);
    let ndims = usize::try_from(tensor["ndims"].as_u64().expect("a number")).expect("small");
    for (name, golden) in [("shape", "dims"), ("strides", "strides")] {
        assert_eq!(
            slot[name].as_array().expect("a list")[..],
            tensor[golden].as_array().expect("a list")[..ndims]
        );
    }
    let order = ["", "row", "column"]
        [usize::try_from(tensor["majorOrder"].as_u64().expect("a number")).expect("small")];
    assert_eq!(slot["order"], order);
    assert_eq!((&slot["typed"], &slot["valid"]), (&json!(true), &json!(true)));
}

/// Every field of the superblock is named when it is wrong, and all of them at once.
///
/// Rules: TP-075, TP-077, TP-078, TP-080, TP-082, TP-083, TP-084.
#[test]
fn a_damaged_superblock_is_explained() {
    let break_at = |file: &str, changes: &[(u64, &[u8])]| {
        let place = copy("mix5");
        let opened = fs::OpenOptions::new().write(true).open(place.path().join(file)).expect("a file");
        for (offset, bytes) in changes {
            opened.write_all_at(bytes, *offset).expect("written");
        }
        place
    };
    let ring: [Damage; 6] = [
        (0, b"1MHSLPOX", ("magic", "0x544f504c53484d31", "0x584f504c53484d31")),
        (8, &[2], ("layout_version", "1", "2")),
        (24, &[2], ("region_type", "1", "2")),
        (26, &[7], ("pool_id", "0", "7")),
        (28, &[7], ("nslots", "a power of two", "7")),
        (32, &[0, 2], ("slot_bytes", "256", "512")),
    ];
    for (offset, bytes, problem) in ring {
        let place = break_at("header.ring", &[(offset, bytes)]);
        let outcome = inspect(&[], &place.path().join("header.ring")).exits(1);
        let results = outcome.results();
        assert_documented(&results[0], "tidegate tensor inspect");
        assert_eq!((&results[0]["valid"], problems(&results[0])), (&json!(false), vec![problem]));
        assert!(outcome.stderr.is_empty(), "the result says it all: {}", outcome.stderr);
    }
    let pool: [Damage; 6] = [
        (12, &[8], ("epoch", "3560101126615", "3560101126408")),
        (20, &[27], ("stream_id", "10010", "10011")),
        (24, &[1], ("region_type", "2", "1")),
        (28, &[16], ("nslots", "8", "16")),
        (32, &[1, 0, 0, 0], ("slot_bytes", "1024", "1")),
        (36, &[65], ("stride_bytes", "a multiple of 64, at least 64", "1089")),
    ];
    for (offset, bytes, problem) in pool {
        let place = break_at("1.pool", &[(offset, bytes)]);
        let results = inspect(&[], place.path()).exits(1).results();
        let regions = of_kind(&results, "region");
        assert!(problems(regions[1]).contains(&problem), "{problem:?}: {}", regions[1]);
        assert_eq!((&regions[0]["valid"], &regions[2]["valid"]), (&json!(true), &json!(true)), "{problem:?}");
    }
    // All at once, with what can be read printed all the same.
    let place = break_at("header.ring", &[(0, &[0]), (8, &[9]), (32, &[0, 0])]);
    let results = inspect(&["--slots", "2"], place.path()).exits(1).results();
    let fields: Vec<&str> = problems(&results[0]).into_iter().map(|(field, ..)| field).collect();
    assert_eq!(fields, ["magic", "layout_version", "slot_bytes"]);
    let slots: Vec<&Value> = of_kind(&results, "slot").into_iter().map(|slot| &slot["seq"]).collect();
    assert_eq!(slots, [3, 4], "the two newest");

    let text = run(["tensor", "inspect", place.path().to_str().expect("a path")]).exits(1).stdout;
    assert!(text.contains("header.ring: NOT VALID"), "{text}");
    assert!(text.contains("  PROBLEM layout_version: expected 1, found 9\n"), "{text}");
}

/// Rules: TP-088, TP-090, TP-093, TP-094, TP-100, TP-102, TP-103.
#[test]
fn a_damaged_slot_is_explained() {
    // Slot 1 holds sequence 1: two axes of float32, 24 bytes in pool 1.
    let cases: [Damage; 10] = [
        (0, &[7], ("seq_commit", "a sequence that is 1 modulo 8", "sequence 3")),
        (8, &[0, 5], ("values_len_bytes", "at most 1024", "1280")),
        (12, &[2], ("payload_slot", "1", "2")),
        (16, &[9], ("pool_id", "one of 1, 2", "9")),
        (18, &[64], ("payload_offset", "0", "64")),
        (60, &[191], ("headerBytes length", "192", "191")),
        (
            66,
            &[53],
            ("embedded header", "[184, 52, 900, 1] (length, template, schema, version)", "[184, 53, 900, 1]"),
        ),
        (72, &[12], ("dtype", "an assigned element type", "12")),
        (76, &[9], ("ndims", "1 to 8", "9")),
        (115, &[4], ("strides[0]", "at least 12", "4")),
    ];
    for (offset, bytes, problem) in cases {
        let place = copy("mix5");
        let ring = fs::OpenOptions::new().write(true).open(place.path().join("header.ring")).expect("a file");
        ring.write_all_at(bytes, 64 + 256 + offset).expect("written");
        let results = inspect(&["--slots", "1"], place.path()).exits(1).results();
        let regions = of_kind(&results, "region");
        assert_eq!((&regions[0]["valid"], &regions[0]["slots"]["invalid"]), (&json!(true), &json!(1)));
        let slots = of_kind(&results, "slot");
        let shown: Vec<&Value> = slots.iter().map(|slot| &slot["slot"]).collect();
        assert_eq!(shown, [1, 4], "the broken one and the newest");
        assert_eq!(problems(slots[0]), [problem]);
        assert_documented(slots[0], "One slot");
    }
    // A frame that is being written is no mistake.
    let place = copy("mix5");
    let ring = fs::OpenOptions::new().write(true).open(place.path().join("header.ring")).expect("a file");
    ring.write_all_at(&[26], 64 + 5 * 256).expect("written");
    let results = inspect(&[], place.path()).exits(0).results();
    let slot = of_kind(&results, "slot")[5];
    assert_eq!(
        (&slot["state"], &slot["seq"], &slot["values_len"]),
        (&json!("in_progress"), &json!(13), &json!(null))
    );
}

/// Rules: TP-059, TP-062, TP-069, TP-476.
#[test]
fn paths_and_sizes_are_checked() {
    let place = copy("mix5");
    let ring = place.path().join("header.ring");
    let refused = |args: &[&str], path: &Path| {
        let outcome = inspect(args, path).exits(4);
        assert!(outcome.stdout.is_empty());
        let (code, message) = outcome.error();
        assert_eq!(code, "region_refused");
        message
    };
    // Outside of the allowed directories; inside when they are named.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let empty = elsewhere.path().join("empty");
    fs::create_dir(&empty).expect("a directory");
    let elsewhere_dir = elsewhere.path().to_str().expect("a path");
    assert!(refused(&["--allow", elsewhere_dir], &ring).contains("in none of the allowed base directories"));
    inspect(&["--allow", elsewhere_dir, "--allow", place.path().to_str().expect("a path")], &ring).exits(0);
    let foreign = elsewhere.path().join("header.ring");
    fs::copy(&ring, &foreign).expect("a copy");
    refused(&[], &foreign);
    // A link on the way.
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&ring, &link).expect("a link");
    assert!(refused(&[], &link).contains("symbolic link"));
    // Open to everybody.
    fs::set_permissions(&ring, Permissions::from_mode(0o644)).expect("the mode is set");
    assert!(refused(&[], &ring).contains("mode 0644"));
    inspect(&["--any-mode"], &ring).exits(0);
    fs::set_permissions(&ring, Permissions::from_mode(0o640)).expect("the mode is set");
    // By URI.
    let uri = format!("shm:file?path={}", ring.display());
    inspect(&[], Path::new(&uri)).exits(0);
    let huge = format!("{uri}|require_hugepages=true");
    assert!(refused(&[], Path::new(&huge)).contains("hugetlbfs"));

    // Too short for its slots, and for a superblock.
    let file = fs::OpenOptions::new().write(true).open(&ring).expect("a file");
    file.set_len(64 + 3 * 256).expect("cut");
    let results = inspect(&[], &ring).exits(1).results();
    assert_eq!(problems(&results[0]), [("file size", "at least 2112", "832")]);
    assert_eq!(results[0]["slots"]["committed"], 3, "those that are there");
    file.set_len(63).expect("cut");
    let results = inspect(&[], &ring).exits(1).results();
    assert_eq!(problems(&results[0]), [("file size", "at least 64", "63")]);
    assert_documented(&results[0], "tidegate tensor inspect");

    assert_eq!(inspect(&[], &place.path().join("9.pool")).exits(3).error().0, "not_found");
    assert_eq!(inspect(&[], &empty).exits(3).error().0, "not_found");
}

/// No file is opened for writing, no page mapped writable.
///
/// Rules: TP-476.
#[test]
fn regions_are_opened_read_only() {
    let place = copy("mix5");
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let status = Command::new("strace")
        .args(["-f", "-e", "trace=openat,mmap", "-o"])
        .arg(trace.path())
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .args(["tensor", "inspect"])
        .arg(place.path())
        .stdout(Stdio::null())
        .status()
        .expect("strace is installed, `make setup` does it");
    assert!(status.success());
    let trace = fs::read_to_string(trace.path()).expect("a trace");
    for name in ["header.ring", "1.pool", "2.pool"] {
        let opened: Vec<&str> = trace.lines().filter(|line| line.contains(&format!("\"{name}\""))).collect();
        assert!(
            !opened.is_empty() && opened.iter().all(|line| line.contains("O_RDONLY")),
            "{name}: {opened:?}"
        );
    }
    let shared: Vec<&str> = trace.lines().filter(|line| line.contains("MAP_SHARED")).collect();
    assert!(shared.iter().any(|line| line.contains("PROT_READ,")), "the ring is mapped: {shared:?}");
    assert!(shared.iter().all(|line| !line.contains("PROT_WRITE")), "{shared:?}");
}

#[test]
fn a_live_stream_is_inspected_while_it_is_written() {
    let node = Node::with_leases_of(50);
    let frame = node.place().join("frame.raw");
    fs::write(&frame, [7; 3000]).expect("a frame");
    let mut command = node.command("tensor pub camera --dtype uint8 --shape 3000 --rate max --loop forever");
    let publisher = Running::start(command.arg("--input").arg(&frame));
    let attached = publisher.json();
    let consumer = node.run("tensor attach camera --role consumer").exits(0).result();

    eventually("frames are there", || {
        let results = node.run("tensor inspect camera").exits(0).results();
        (results[1]["slots"]["committed"].as_u64() >= Some(7)).then_some(())
    });
    for _ in 0..5 {
        let outcome = node.run("tensor inspect camera --slots all").exits(0);
        let results = outcome.results();
        assert_documented(&results[0], "tidegate tensor ls");
        assert_eq!((&results[0]["name"], &results[0]["epoch"]), (&json!("camera"), &attached["epoch"]));
        assert_eq!(results[1]["superblock"]["epoch"], attached["epoch"]);
        assert_eq!(
            (&results[1]["superblock"]["pid"], &results[1]["pid_alive"]),
            (&json!(node.pid()), &json!(true))
        );
        for slot in of_kind(&results, "slot") {
            assert_eq!(slot["valid"], true, "{slot}");
            if slot["state"] == "committed" {
                assert_eq!((&slot["shape"], &slot["pool"]), (&json!([3000]), &json!(1)));
            }
        }
        assert_eq!(of_kind(&results, "region").len(), 3);
    }
    let leases = node.run("tensor ls").exits(0).result()["leases"].take();
    let known =
        |client: &Value| leases.as_array().expect("a list").iter().any(|lease| lease["client"] == *client);
    assert!(known(&attached["client"]), "{leases} {consumer}");

    assert_eq!(node.run("tensor inspect nobody").exits(3).error().0, "unknown_stream");
    drop(publisher);
    node.stop();
}
