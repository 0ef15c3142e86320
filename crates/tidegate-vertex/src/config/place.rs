//! Where in a pipeline file a key is, for people who look for what is wrong.

use toml::de::{DeTable, DeValue};

/// The line of a key like `sink.mode`, counted from 1; of the table that it would be in, if it is not there.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let file = DeTable::parse(text).ok()?;
    let offset = offset_of(file.get_ref(), key)?;
    Some(text.get(..offset)?.matches('\n').count() + 1)
}

fn offset_of(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    let inner = match (value.get_ref(), rest) {
        (DeValue::Table(inner), Some(rest)) => offset_of(inner, rest),
        (DeValue::Array(all), Some(rest)) => {
            let tables = all.iter().filter_map(|one| one.get_ref().as_table());
            tables.into_iter().find_map(|inner| offset_of(inner, rest))
        }
        _ => None,
    };
    Some(inner.unwrap_or(name.span().start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_table() {
        let text = "version = 1\n[a]\nb = 2\n\n[[c]]\nd = 3\n[[c]]\n# e\ne = 4\n[a.f]\ng = 5";
        for (key, line) in [
            ("version", Some(1)),
            ("a.b", Some(3)),
            ("a.missing", Some(2)),
            ("c.d", Some(6)),
            ("c.e", Some(9)),
            ("a.f.g", Some(11)),
            ("h", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
    }
}
