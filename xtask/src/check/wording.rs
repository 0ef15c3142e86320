//! What no committed text may contain, whatever its language.

use std::path::Path;

use super::Finding;

/// Texts that are not held to these rules: given from outside, or data.
const EXEMPT: &[&str] = &["docs/spec", "conformance/vectors"];

/// Paths of one workplace. Each is put together here so that this file does not contain it.
const PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/tmp/", "brief"), concat!("/tmp/", "venv"), concat!("/ro", "ot/")];

/// Marks of unfinished work, found as whole words.
const MARKS: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("unimple", "mented!")];

/// Findings in one text file.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if EXEMPT.iter().any(|exempt| path.starts_with(exempt)) {
        return findings;
    }
    for (index, line) in text.lines().enumerate() {
        for found in PATHS.iter().filter(|absolute| contains_path(line, absolute)) {
            findings.push(Finding::new(path, index + 1, format!("`{found}` is a path of one workplace")));
        }
        for found in MARKS.iter().filter(|mark| contains_word(line, mark)) {
            findings.push(Finding::new(
                path,
                index + 1,
                format!("`{found}`: finish the work or leave it out"),
            ));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(path, text.lines().count(), "no newline at the end of the file"));
    }
    findings
}

/// Whether `line` holds `absolute` as the beginning of a path, not in the middle of one.
fn contains_path(line: &str, absolute: &str) -> bool {
    line.match_indices(absolute).any(|(at, _)| !line.get(..at).is_some_and(ends_in_name))
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).is_some_and(ends_in_name);
        let after = line.get(at + word.len()..).and_then(|rest| rest.chars().next());
        !before && !after.is_some_and(is_name)
    })
}

fn ends_in_name(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_name)
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '.'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(Path::new(path), text).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn workplace_paths_are_found_where_a_path_begins() {
        for path in PATHS {
            assert_eq!(lines("a.md", &format!("fine\nsee {path}main\n")), [2], "{path}");
            assert_eq!(lines("a.md", &format!("\"{path}x\"\n")), [1], "{path}");
            assert_eq!(lines("a.md", &format!("docs{path}x\n")), Vec::<usize>::new(), "{path}");
        }
    }

    #[test]
    fn marks_are_found_as_words() {
        for mark in MARKS {
            for line in [format!("// {mark}: later\n"), format!("{mark}()\n"), format!("({mark})\n")] {
                assert_eq!(lines("a.rs", &line), [1], "{line}");
            }
            let word = mark.trim_end_matches('!');
            for line in [format!("x{mark}\n"), format!("{word}_y\n"), format!("{word}s\n")] {
                assert_eq!(lines("a.rs", &line), Vec::<usize>::new(), "{line}");
            }
        }
    }

    #[test]
    fn a_missing_last_newline_is_found() {
        assert_eq!(lines("a.toml", "a = 1\nb = 2"), [2]);
        assert_eq!(lines("a.toml", "a = 1\n"), Vec::<usize>::new());
        assert_eq!(lines("empty", ""), Vec::<usize>::new());
    }

    #[test]
    fn sheets_and_vectors_are_exempt() {
        for path in ["docs/spec/x.md", "conformance/vectors/a.json"] {
            assert_eq!(lines(path, PATHS[0]), Vec::<usize>::new(), "{path}");
        }
        assert_eq!(lines("docs/special/x.md", PATHS[0]), [1, 1]);
    }
}
