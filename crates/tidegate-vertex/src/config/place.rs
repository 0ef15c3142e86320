//! Where in a pipeline file a key is, for people who look for what is wrong.

use toml::de::{DeTable, DeValue};

/// The line of a key like `sink.mode`, counted from 1; of the table that it would be in, if it is not there.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    line(text, key, None)
}

/// The same in one of several tables of a name: `number` counts those from 0.
pub(super) fn line_in(text: &str, key: &str, number: usize) -> Option<usize> {
    line(text, key, Some(number))
}

fn line(text: &str, key: &str, number: Option<usize>) -> Option<usize> {
    let file = DeTable::parse(text).ok()?;
    let offset = offset_of(file.get_ref(), key, number)?;
    Some(text.get(..offset)?.matches('\n').count() + 1)
}

fn offset_of(table: &DeTable<'_>, key: &str, number: Option<usize>) -> Option<usize> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    let inner = match (value.get_ref(), rest) {
        (DeValue::Table(inner), Some(rest)) => offset_of(inner, rest, None),
        (DeValue::Array(all), rest) => match (number, rest) {
            (Some(number), rest) => all.get(number).map(|one| {
                let inner = rest.and_then(|rest| offset_of(one.get_ref().as_table()?, rest, None));
                inner.unwrap_or(one.span().start)
            }),
            (None, Some(rest)) => {
                let tables = all.iter().filter_map(|one| one.get_ref().as_table());
                tables.into_iter().find_map(|inner| offset_of(inner, rest, None))
            }
            (None, None) => None,
        },
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
    #[test]
    fn a_key_is_found_in_the_table_of_its_number() {
        let text = "[[c]]\nd = 3\n[[c]]\n# e\nd = 4\n[c.f]\ng = 5\n[[c]]\n";
        for (key, number, line) in [
            ("c.d", 0, Some(2)),
            ("c.d", 1, Some(5)),
            ("c.f.g", 1, Some(7)),
            ("c.missing", 1, Some(3)),
            ("c.d", 2, Some(8)),
            ("c", 1, Some(3)),
            ("c.d", 3, Some(1)),
        ] {
            assert_eq!(line_in(text, key, number), line, "{key} of {number}");
        }
    }
}
