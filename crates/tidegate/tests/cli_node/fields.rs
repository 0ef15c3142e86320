//! The field tables of `docs/json.md`, against which output is compared.

use serde_json::Value;

/// Fields of the first table under a heading.
fn documented(heading: &str) -> Vec<String> {
    let text = include_str!("../../../../docs/json.md");
    let mut lines = text.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    assert!(lines.next().is_some(), "no heading '{heading}' in docs/json.md");
    let table = lines
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with("| field |"))
        .take_while(|line| line.starts_with('|'));
    let fields = table.filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned));
    fields.collect()
}

/// Fails the test unless the object has exactly the documented fields, in the documented order.
#[track_caller]
pub(crate) fn assert_documented(object: &Value, heading: &str) {
    assert_documented_without(object, heading, &[]);
}

/// As [`assert_documented`], for objects that leave out fields under the conditions given there.
#[track_caller]
pub(crate) fn assert_documented_without(object: &Value, heading: &str, absent: &[&str]) {
    let found: Vec<&String> = object.as_object().expect("an object").keys().collect();
    let mut expected = documented(heading);
    expected.retain(|field| !absent.contains(&field.as_str()));
    assert!(!expected.is_empty(), "no table under '{heading}'");
    assert_eq!(found, expected.iter().collect::<Vec<_>>(), "fields of '{heading}'");
}
