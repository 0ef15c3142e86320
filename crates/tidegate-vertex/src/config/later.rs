//! Keys of the sheet that this version does not have yet: refused with the phase that they belong to (VX-881), where a key that
//! nobody knows is just unknown.

use toml::{Table, Value};

use super::ConfigError;

/// A key, the value that is not there yet if others are, and the phase.
type Later = (&'static str, Option<&'static str>, u32);

const LATER: &[Later] = &[
    ("udf.kind", Some("aggregate"), 3),
    ("udf.kind", Some("window"), 3),
    ("udf.kind", Some("batch_table"), 5),
    ("udf.kind", Some("sink"), 5),
    ("udf.kind", Some("source"), 5),
    ("udf.order", Some("key"), 3),
    ("udf.pin", None, 5),
    ("state", None, 3),
    ("watermark", None, 3),
    ("ledger.store", Some("fjall"), 3),
    ("ledger.remote", None, 5),
    ("ledger.snapshot_interval", None, 5),
    ("source.kind", Some("udf"), 5),
    ("sink.kind", Some("udf"), 5),
    ("transport.encoding", Some("arrow"), 5),
    ("transport.encoding", Some("ref"), 5),
    ("transport.spin", None, 5),
    ("schema.upcast", None, 5),
    ("side_input", None, 5),
    ("dlq.max_ratio", None, 5),
    ("limits.rate", None, 5),
    ("sink.when", None, 5),
    ("sink.on_success", None, 5),
    ("sink.compaction", None, 5),
    ("log.spans", None, 5),
];

/// Refuses the first key of a later phase.
pub(super) fn refuse(file: &Table) -> Result<(), ConfigError> {
    for &(key, value, phase) in LATER {
        if has(file, key, value) {
            let key = value.map_or_else(|| key.to_owned(), |value| format!("{key} = {value:?}"));
            return Err(ConfigError::Later { key, phase });
        }
    }
    Ok(())
}

fn has(table: &Table, key: &str, wanted: Option<&str>) -> bool {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let Some(value) = table.get(first) else { return false };
    match (value, rest) {
        (Value::Table(inner), Some(rest)) => has(inner, rest, wanted),
        (Value::Array(all), Some(rest)) => {
            all.iter().filter_map(Value::as_table).any(|inner| has(inner, rest, wanted))
        }
        (_, Some(_)) => false,
        (value, None) => wanted.is_none_or(|wanted| value.as_str() == Some(wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: VX-881.
    #[test]
    fn keys_of_later_phases_are_refused_with_their_phase() {
        for (text, expected) in [
            ("[udf]\nkind = \"window\"", Some(("udf.kind = \"window\"", 3))),
            ("[udf]\nkind = \"map\"", None),
            ("[state]\nttl = \"24h\"", Some(("state", 3))),
            ("[ownership]\nkind = \"jetstream\"", None),
            ("[[sink]]\nkind = \"file\"\n[[sink]]\nkind = \"udf\"", Some(("sink.kind = \"udf\"", 5))),
            ("[limits]\nrate = { in_flight = 3 }", Some(("limits.rate", 5))),
            ("[limits]\nepoch_buffers = \"1MiB\"", None),
            ("nonsense = 1", None),
        ] {
            let refused = refuse(&text.parse().expect("TOML")).err();
            let found = refused.as_ref().map(|error| match error {
                ConfigError::Later { key, phase } => (key.as_str(), *phase),
                other => panic!("{other}"),
            });
            assert_eq!(found, expected, "{text}");
        }
        let said = ConfigError::Later { key: "limits.rate".to_owned(), phase: 5 }.to_string();
        assert!(said.contains("limits.rate") && said.contains("phase 5"), "{said}");
    }
}
