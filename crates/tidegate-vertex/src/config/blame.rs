//! Which key of a pipeline file is wrong. A part that is one of several kinds is read as a whole, and its errors do not say where
//! they are; so the part is read again without each of its keys.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{ConfigError, OwnershipConfig, SinkConfig, SourceConfig};

/// What is wrong with the first of these parts that cannot be read.
pub(super) fn blame(file: &Table) -> Option<ConfigError> {
    let part = |name: &str| file.get(name).and_then(Value::as_table);
    let sinks = file.get("sink").and_then(Value::as_array).into_iter().flatten();
    let mut sinks = sinks.enumerate().filter_map(|(number, sink)| Some((number, sink.as_table()?)));
    part("source")
        .and_then(|table| wrong::<SourceConfig>("source", 0, table))
        .or_else(|| sinks.find_map(|(number, table)| wrong::<SinkConfig>("sink", number, table)))
        .or_else(|| part("ownership").and_then(|table| wrong::<OwnershipConfig>("ownership", 0, table)))
}

fn wrong<T: DeserializeOwned>(part: &str, number: usize, table: &Table) -> Option<ConfigError> {
    let fault = |table: &Table| {
        let error = T::deserialize(table.clone()).err()?;
        Some(error.message().to_owned())
    };
    let message = fault(table)?;
    let mut path = Vec::new();
    // A key that is not there cannot be taken out.
    if !message.starts_with("missing field") {
        path = culprit(table, &message, &fault).unwrap_or_default();
    }
    let parent =
        path.iter().rev().skip(1).rev().fold(part.to_owned(), |parent, key| format!("{parent}.{key}"));
    let (key, message) = match path.last() {
        Some(last) if message.starts_with(&format!("{last} ")) => {
            (format!("{parent}.{last}"), format!("{parent}.{message}"))
        }
        Some(last) => (format!("{parent}.{last}"), format!("{parent}.{last}: {message}")),
        None => (parent.clone(), format!("{parent}: {message}")),
    };
    Some(ConfigError::Key { key, number, message })
}

/// The key that is to blame, with the tables around it.
fn culprit(table: &Table, message: &str, fault: &dyn Fn(&Table) -> Option<String>) -> Option<Vec<String>> {
    let mut best: Option<(u32, &String, &Value)> = None;
    for (key, value) in table {
        let mut without = table.clone();
        without.remove(key);
        let sure = match fault(&without) {
            _ if message.starts_with(&format!("{key} ")) => 5,
            Some(same) if same == message => continue,
            // It may be right, and have to be there.
            Some(other) if other.starts_with("missing field") => {
                u32::from(message.contains(key.as_str())) + 2 * u32::from(shows(message, value))
            }
            _ => 4,
        };
        if best.is_none_or(|(most, ..)| sure > most) {
            best = Some((sure, key, value));
        }
    }
    let (_, key, value) = best.filter(|(sure, ..)| *sure > 0)?;
    let mut path = vec![key.clone()];
    if let Value::Table(inner) = value {
        let in_its_place = |inner: &Table| {
            let mut with = table.clone();
            with.insert(key.clone(), Value::Table(inner.clone()));
            fault(&with)
        };
        path.extend(culprit(inner, message, &in_its_place).unwrap_or_default());
    }
    Some(path)
}

/// Whether a message has a value in it, as what was found.
fn shows(message: &str, value: &Value) -> bool {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    [format!("`{text}`"), format!("{text:?}"), format!(" {text} ")]
        .iter()
        .any(|shown| message.contains(shown))
}
