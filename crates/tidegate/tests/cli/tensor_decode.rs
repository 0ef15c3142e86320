//! `tidegate tensor decode` against the golden messages.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{finish, run, tidegate};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/vectors/tensor-pool")
}

/// Every golden message: its values file, read.
fn golden() -> Vec<Value> {
    let index = fs::read(vectors().join("index.json")).expect("the index");
    let names: Vec<String> = serde_json::from_slice(&index).expect("a list of names");
    assert_eq!(names.len(), 57);
    let read = |name: &String| {
        let path = vectors().join(name);
        let mut values: Value =
            serde_json::from_slice(&fs::read(path.with_extension("json")).expect("the values"))
                .expect("JSON");
        let bytes = fs::read(&path).expect("the bytes");
        values["hex"] = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        values
    };
    names.iter().map(read).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("a string")
}

/// Rules: TP-481, TC-002, TC-214.
#[test]
fn golden_messages_give_their_values() {
    let (layouts, messages): (Vec<Value>, Vec<Value>) =
        golden().into_iter().partition(|vector| vector["message_header"].is_null());
    let lines: String = messages.iter().map(|vector| format!("{}\n", text(vector, "hex"))).collect();
    let outcome = finish(tidegate().args(["tensor", "decode", "--file", "-", "--json"]), lines.as_bytes());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let results = outcome.results();
    assert_eq!(results.len(), messages.len());
    for (result, expected) in results.iter().zip(&messages) {
        check(result, expected);
    }

    assert_eq!(layouts.len(), 3);
    for expected in &layouts {
        let layout = if text(expected, "message") == "SlotHeader" { "slot" } else { "superblock" };
        let outcome = run(&["tensor", "decode", "--json", "--layout", layout, text(expected, "hex")]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        check(&outcome.results()[0], expected);
    }
}

fn check(result: &Value, expected: &Value) {
    let wanted = json!({
        "schema": expected["schema"],
        "template": expected["template_id"],
        "message": expected["message"],
        "values": expected["values"],
    });
    // As text, so that the order of fields counts too.
    assert_eq!(result.to_string(), wanted.to_string());
}

#[test]
fn a_bad_line_is_reported_and_the_others_decoded() {
    let good = golden().swap_remove(0);
    let good = text(&good, "hex");
    let spaced: Vec<String> =
        good.as_bytes().chunks(4).map(|digits| String::from_utf8_lossy(digits).into_owned()).collect();
    let lines = format!("\n{}\n  xyz\n00\n{good}", spaced.join(" ").to_uppercase());

    let outcome = finish(tidegate().args(["tensor", "decode", "--json", "--file", "-"]), lines.as_bytes());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    let results = outcome.results();
    assert_eq!(results.len(), 4);
    assert_eq!(results[0], results[3]);
    assert_eq!((&results[1]["input"], &results[1]["error"]["code"]), (&json!(3), &json!("hex")));
    assert_eq!((&results[2]["input"], &results[2]["error"]["code"]), (&json!(4), &json!("malformed")));

    let outcome = finish(tidegate().args(["tensor", "decode", "--file", "-"]), lines.as_bytes());
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.stdout.matches("TensorHeader (template 52)\n").count(), 2, "{}", outcome.stdout);
    assert!(
        outcome.stderr.contains("tidegate: input 3: `x` at digit 1 is not hexadecimal"),
        "{}",
        outcome.stderr
    );
}

/// Rules: TP-007, TP-009, TP-010.
#[test]
fn messages_that_are_not_ours_or_not_of_our_version() {
    let header = |block: u16, template: u16, schema: u16, version: u16| {
        let fields = [block, template, schema, version];
        fields
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let body = "00".repeat(64);
    for (header, code, part) in [
        (header(40, 4, 899, 1), "foreign", "schema 899"),
        (header(40, 99, 900, 1), "foreign", "template 99"),
        (header(40, 4, 900, 2), "malformed", "version 2"),
        (header(40, 4, 900, 0), "malformed", "version 0"),
    ] {
        let outcome = run(&["tensor", "decode", "--json", &format!("{header}{body}")]);
        assert_eq!(outcome.code, Some(1));
        let error = &outcome.results()[0]["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(text(error, "message").contains(part), "{error}");
    }
}

#[test]
fn inputs_that_cannot_be_read() {
    let outcome = run(&["tensor", "decode", "--json", "--file", "/no/such/file"]);
    assert_eq!((outcome.code, text(&outcome.error(), "code")), (Some(3), "not_found"));
    let outcome = run(&["tensor", "decode", "--file", "/"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.starts_with("tidegate: cannot read /: "), "{}", outcome.stderr);
    let outcome = run(&["tensor", "decode", "00", "--file", "-"]);
    assert_eq!(outcome.code, Some(2));
}
