//! Benchmarks that are compared with results of before.

use std::path::Path;

use serde_json::Value;

use crate::support::Outcome;

/// Measures, makes the rates `factor` times as high, keeps them in `stored`, and measures again beside that.
pub(crate) fn beside_itself(
    short: impl Fn(&[&str]) -> Outcome,
    only: &[&str],
    stored: &Path,
    factor: f64,
) -> Outcome {
    let mut results = short(only).exits(0).results();
    for name in ["q1", "median", "q3"] {
        let value = &mut results[0]["messages_per_s"][name];
        *value = (value.as_f64().expect("a number") * factor).into();
    }
    let text: Vec<_> = results.iter().map(Value::to_string).collect();
    std::fs::write(stored, text.join("\n")).expect("room for it");
    let baseline = stored.display().to_string();
    short(&[only, &["--baseline", &baseline]].concat())
}
