//! `tidegate tensor config` through the real binary.

use std::fs;

use serde_json::{Value, json};

use crate::support::{finish, run, tidegate};

const GOOD: &str = r#"
[driver]
instance_id = "camera-host"
control_stream_id = 1000

[profiles.small]
header_nslots = 8
payload_pools = [{ pool_id = 1, stride_bytes = 4096 }]

[streams.camera]
stream_id = 10000
profile = "small"
"#;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("written");
    file
}

#[test]
fn a_good_file_is_described() {
    let file = file(&format!("{GOOD}\n[policies]\ncolour = 1\n"));
    let path = file.path().to_str().expect("a path");
    let outcome = run(&["tensor", "config", "check", path, "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let result = &outcome.results()[0];
    assert_eq!((&result["source"], &result["ok"]), (&json!(path), &json!(true)));
    assert_eq!(result["warnings"][0]["key"], "policies.colour");
    let pools = json!([{ "pool_id": 1, "stride_bytes": 4096 }]);
    // 64 + 8 * 256 bytes of header ring, 64 + 8 * 4096 of pool.
    let profile =
        json!({ "name": "small", "header_nslots": 8, "payload_pools": pools, "region_bytes": 34944 });
    assert_eq!(result["profiles"], json!([profile]));
    assert_eq!(result["streams"], json!([{ "name": "camera", "stream_id": 10000, "profile": "small" }]));
    assert_eq!(result["dynamic_streams"], false);

    let outcome = run(&["tensor", "config", "check", path]);
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stdout.starts_with(&format!("{path}: ok\n")), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("  stream camera: id 10000, profile small\n"), "{}", outcome.stdout);
}

/// Rules: TP-463, TP-466.
#[test]
fn a_bad_file_is_refused_with_the_key() {
    for (text, part) in [
        (GOOD.replace("= 1000\n", "= -1\n"), "driver.control_stream_id"),
        (GOOD.replace("\"small\"", "\"large\""), "streams.camera.profile"),
        ("[driver".to_owned(), "line 1"),
    ] {
        let outcome = finish(tidegate().args(["tensor", "config", "check", "-", "--json"]), text.as_bytes());
        let error = outcome.error();
        assert_eq!((outcome.code, &error["code"]), (Some(1), &json!("configuration")), "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.starts_with("standard input: ") && message.contains(part), "{message}");
    }
}

#[test]
fn inputs_that_are_no_configuration() {
    let outcome = run(&["tensor", "config", "check", "/no/such/file", "--json"]);
    assert_eq!((outcome.code, &outcome.error()["code"]), (Some(3), &json!("not_found")));
    for bytes in [vec![0xff; 10], vec![b'#'; (1 << 20) + 1]] {
        let outcome = finish(tidegate().args(["tensor", "config", "check", "-", "--json"]), &bytes);
        assert_eq!((outcome.code, &outcome.error()["code"]), (Some(1), &json!("not_a_configuration")));
    }
}

/// Rules: TP-462, TC-121.
#[test]
fn the_environment_wins_over_the_file() {
    let dump = |variable: Option<&str>| -> Value {
        let mut command = tidegate();
        command.args(["tensor", "config", "dump", "-", "--json"]);
        if let Some(value) = variable {
            command.env("DRIVER_CONTROL_STREAM_ID", value);
        }
        let outcome = finish(&mut command, GOOD.as_bytes());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.results().remove(0)
    };
    assert_eq!(dump(None)["driver"]["control_stream_id"], 1000);
    let overridden = dump(Some("1010"));
    assert_eq!(overridden["driver"]["control_stream_id"], 1010);
    assert_eq!(overridden["driver"]["instance_id"], "camera-host");
}

#[test]
fn a_dump_loads_to_itself() {
    for args in [&["tensor", "config", "dump"][..], &["tensor", "config", "dump", "-"]] {
        let first = finish(tidegate().args(args), GOOD.as_bytes());
        assert_eq!(first.code, Some(0), "{first:?}");
        let again = finish(tidegate().args(["tensor", "config", "dump", "-"]), first.stdout.as_bytes());
        assert_eq!(again.stdout, first.stdout);
        let check =
            finish(tidegate().args(["tensor", "config", "check", "-", "--json"]), first.stdout.as_bytes());
        assert_eq!(check.results()[0]["warnings"], json!([]));
    }
}
