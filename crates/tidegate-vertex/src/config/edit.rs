//! Changing pipeline files: a value for one run, and the uid that a pipeline gets once.

use toml::{Table, Value};

use super::ConfigError;
use crate::lane::supervise::{AttachError, random};

/// Sets `KEY=VALUE`: a key with dots, and a value as TOML has it, or else a text.
pub(super) fn set(file: &mut Table, setting: &str) -> Result<(), ConfigError> {
    let wrong = || ConfigError::Setting { setting: setting.to_owned() };
    let (key, text) = setting.split_once('=').ok_or_else(wrong)?;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(wrong)?;
    let mut table = file;
    for part in parts {
        let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        table = inner.as_table_mut().ok_or_else(wrong)?;
    }
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut one| one.remove("value"));
    table.insert(last.to_owned(), parsed.unwrap_or_else(|| Value::String(text.to_owned())));
    Ok(())
}

/// A uid for a pipeline that has none.
///
/// # Errors
/// The system has no random numbers.
pub fn fresh_uid() -> Result<String, AttachError> {
    Ok(format!("{:016x}", random()?.max(1)))
}

/// The text of a pipeline file with a uid; `None` when it has one, or no table `[pipeline]` to put it in.
pub fn with_uid(text: &str, uid: &str) -> Option<String> {
    let file: Table = text.parse().ok()?;
    if file.get("pipeline")?.as_table()?.contains_key("uid") {
        return None;
    }
    let header =
        text.lines().find(|line| line.split('#').next().unwrap_or_default().trim() == "[pipeline]")?;
    Some(text.replacen(header, &format!("{header}\nuid = \"{uid}\""), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_replaces_or_adds_a_value() {
        let mut file: Table = "[udf]\nworkers = 1\n[pipeline]\nname = \"a\"".parse().expect("TOML");
        for setting in
            ["udf.workers=4", "pipeline.name=other", "batch.max_bytes=\"8KiB\"", "udf.retry.attempts=2"]
        {
            set(&mut file, setting).expect(setting);
        }
        assert_eq!(file["udf"]["workers"].as_integer(), Some(4));
        assert_eq!(file["pipeline"]["name"].as_str(), Some("other"));
        assert_eq!(file["batch"]["max_bytes"].as_str(), Some("8KiB"));
        assert_eq!(file["udf"]["retry"]["attempts"].as_integer(), Some(2));
        for wrong in ["udf.workers", "=1", "udf.=1", "udf.workers.more=1"] {
            assert!(matches!(set(&mut file, wrong), Err(ConfigError::Setting { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_uid_is_given_once() {
        let text = "version = 1\n[pipeline] # first\nname = \"a\"\n";
        let with = with_uid(text, "00000000000000ab").expect("a table");
        assert_eq!(with, "version = 1\n[pipeline] # first\nuid = \"00000000000000ab\"\nname = \"a\"\n");
        assert_eq!(with_uid(&with, "00000000000000cd"), None);
        assert_eq!(with_uid("version = 1", "00000000000000ab"), None);
        let (one, other) = (fresh_uid().expect("random"), fresh_uid().expect("random"));
        assert!(one.len() == 16 && one != other, "{one} {other}");
    }
}
