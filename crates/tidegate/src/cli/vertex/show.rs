//! Answers of a running vertex, for people.

use serde::Deserialize;
use serde_json::Value;
use tidegate::vertex::operate::status::SchemaStatus;

use super::super::text;

/// `GET /status`.
pub(super) fn status(status: &Value) -> String {
    let mut lines = vec![format!(
        "{} (pid {}, {}): {}",
        word(&status["pipeline"]),
        status["pid"],
        word(&status["delivery"]),
        word(&status["doing"])
    )];
    if status["age_ms"].as_u64() > Some(OLD_MS) {
        lines.push(format!(
            "its running thread was last seen {} ms ago: all but the fences is as it was then",
            status["last_seen_ms"]
        ));
    }
    let mut partitions =
        vec![text::heading(["PARTITION", "STATE", "GENERATION", "EPOCH", "RESUME", "UNFINISHED", "PENDING"])];
    for partition in list(&status["partitions"]) {
        let revoked = if partition["revoked"] == true { " (revoked)" } else { "" };
        let careful = if partition["careful"] == true { " (careful)" } else { "" };
        partitions.push(vec![
            partition["partition"].to_string(),
            format!("{}{revoked}{careful}", word(&partition["state"])),
            partition["generation"].to_string(),
            partition["epoch_committed"].to_string(),
            partition["resume"].to_string(),
            partition["unfinished"].to_string(),
            text::or_dash(partition["source_pending"].as_u64()),
        ]);
    }
    lines.push(text::table(&partitions));
    let mut lanes =
        vec![text::heading(["LANE", "WORKER", "RESTARTS", "IN FLIGHT", "CREDIT", "USED", "LAST END"])];
    for lane in list(&status["lanes"]) {
        let requests = &lane["requests"];
        let suspect = if lane["suspect"] == true { " (stands still)" } else { "" };
        lanes.push(vec![
            lane["lane"].to_string(),
            format!("{}{suspect}", text::or_dash(lane["pid"].as_u64())),
            lane["restarts"].to_string(),
            lane["in_flight"].to_string(),
            requests["granted_bytes"].to_string(),
            requests["used_bytes"].to_string(),
            text::or_dash(lane["last_error"].as_str()),
        ]);
    }
    lines.push(text::table(&lanes));
    let schemas = SchemaStatus::deserialize(&status["schemas"]).unwrap_or_default();
    if schemas.is_typed() {
        lines.push(format!("schemas: {schemas}"));
    }
    let outside = &status["outside"];
    if outside.is_object() {
        let mut line = format!(
            "{} of {} workers are attached at {}, {} are attaching, {} were refused",
            outside["attached"],
            outside["workers"],
            word(&outside["socket"]),
            outside["attaching"],
            outside["refused"]
        );
        if let Some(last) = outside["last_refusal"].as_str() {
            line.push_str(&format!("; the last one: {last}"));
        }
        lines.push(line);
    }
    for sink in list(&status["sinks"]) {
        lines.push(format!(
            "sink {} (class {}): {}",
            word(&sink["sink"]),
            word(&sink["class"]),
            word(&sink["guarantee"])
        ));
        if sink["lost"].as_u64() > Some(0) {
            lines.push(format!("sink {} lost {} outputs", word(&sink["sink"]), sink["lost"]));
        }
    }
    let counts = &status["counts"];
    lines.push(format!(
        "read {}, delivered {}, filtered {}, dead letters {}, dropped {}, given back {}",
        counts["read"],
        counts["delivered"],
        counts["filtered"],
        counts["dead"],
        counts["dropped"],
        counts["nacked"]
    ));
    for (name, count) in status["function"]["counters"].as_object().into_iter().flatten() {
        lines.push(format!("counted {name}: {count}"));
    }
    for partition in list(&status["partitions"]) {
        if let Some([position, reason]) = partition["stopped"].as_array().map(Vec::as_slice) {
            lines.push(format!(
                "partition {} stopped at position {position}: {}",
                partition["partition"],
                word(reason)
            ));
        }
    }
    lines.join("\n")
}

/// `POST /fence`.
pub(super) fn fenced(answer: &Value) -> String {
    let line = |one: &Value| {
        let (partition, generation) = (&one["partition"], &one["generation"]);
        match (one["quiesced"] == true, generation.as_u64()) {
            (_, Some(0)) => format!("partition {partition}: not owned"),
            (true, _) => format!("partition {partition}, generation {generation}: quiesced"),
            (false, _) => {
                format!(
                    "partition {partition}, generation {generation}: revoked, pending: {}",
                    word(&one["pending"])
                )
            }
        }
    };
    list(&answer["fenced"]).map(line).collect::<Vec<_>>().join("\n")
}

/// `POST /drain` and `/pause`.
pub(super) fn rest(answer: &Value, what: &str) -> String {
    let mut text = match answer[what] == true {
        true => what.to_owned(),
        false => format!("not {what}: {} inputs are not finished", answer["unfinished"]),
    };
    for partition in list(&answer["partitions"]) {
        text.push_str(&format!(
            "\npartition {}: {}, {} not finished, goes on at {}",
            partition["partition"],
            word(&partition["state"]),
            partition["unfinished"],
            partition["resume"]
        ));
    }
    text
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A status is asked for anew each time.
const OLD_MS: u64 = 1_000;
