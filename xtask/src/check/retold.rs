//! Every case of libzmq's test suite that the messaging sheet lists (chapter 17, MQ-510) is told again by a test that
//! names it.
//!
//! The second column of that table and the doc comments of tests are read alike:
//!
//! ```text
//! | 8 | test_connect_rid/router_2_router_named, _unnamed | ...        in the sheet
//! /// libzmq: test_connect_rid/router_2_router_named, _unnamed.        on a test
//! ```
//!
//! A name is `file/case`. What follows without a file belongs to the file before, unless it begins with `_` behind a name
//! without a case: then it replaces the end of the file's name, or adds to it after `file/*`. `*` stands for anything.
//! A test may give a case more words than the sheet does. What stands behind a name or in parentheses, and in a doc
//! comment everything behind the first sentence, is for people.

use std::path::Path;

use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta};

use super::Finding;
use crate::workspace::{RustSource, has_attribute};

pub(super) const SHEET: &str = "docs/spec/messaging.md";
const CHAPTER: &str = "## 17. ";
const MARK: &str = "libzmq:";

/// One case of libzmq's test suite; the case is empty where a whole file is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    file: String,
    case: String,
}

impl Name {
    fn is_told_by(&self, told: &Self) -> bool {
        let case = format!("{}*", self.case.trim_start_matches('_'));
        let in_word = |from: usize| {
            let before = told.case.get(..from).and_then(|before| before.chars().next_back());
            before.is_some_and(char::is_alphanumeric)
        };
        let mut words = (0..=told.case.len()).filter(|from| !in_word(*from));
        matches(&self.file, &told.file)
            && words.any(|from| told.case.get(from..).is_some_and(|words| matches(&case, words)))
    }
}

/// The names that tests of this file tell again.
pub(super) fn told(source: &RustSource) -> Vec<Name> {
    let mut names = Vec::new();
    add_told(&source.ast.items, &mut names);
    names
}

/// What the sheet lists and no test tells.
pub(super) fn check(sheet: &str, told: &[Name]) -> Vec<Finding> {
    let path = Path::new(SHEET);
    let chapter = sheet
        .lines()
        .zip(1..)
        .skip_while(|(line, _)| !line.starts_with(CHAPTER))
        .skip(1)
        .take_while(|(line, _)| !line.starts_with("## "));
    let rows = chapter.filter_map(|(line, number)| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        cells.next()?.parse::<u32>().ok()?;
        Some((number, cells.next()?))
    });
    let mut findings = Vec::new();
    let mut listed = 0;
    for (line, cell) in rows {
        for name in names(cell) {
            listed += 1;
            if !told.iter().any(|told| name.is_told_by(told)) {
                let Name { file, case } = name;
                let full = if case.is_empty() { file } else { format!("{file}/{case}") };
                findings.push(Finding::new(
                    path,
                    line,
                    format!("no test tells `{full}` again; name it on one: `/// {MARK} {full}.`"),
                ));
            }
        }
    }
    if listed == 0 {
        findings.push(Finding::new(path, 0, format!("no table of libzmq's tests under `{CHAPTER}`")));
    }
    findings
}

fn add_told(items: &[Item], names: &mut Vec<Name>) {
    for item in items {
        match item {
            Item::Fn(function)
                if has_attribute(&function.attrs, "test") && !has_attribute(&function.attrs, "ignore") =>
            {
                let text = doc_text(&function.attrs);
                for paragraph in text.split("\n\n") {
                    if let Some((_, list)) = paragraph.split_once(MARK) {
                        names.extend(self::names(first_sentence(&list.replace('\n', " "))));
                    }
                }
            }
            Item::Mod(module) => {
                if let Some((_, items)) = &module.content {
                    add_told(items, names);
                }
            }
            _ => {}
        }
    }
}

/// The doc comment, a line each, without the spaces around them.
fn doc_text(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn first_sentence(text: &str) -> &str {
    let text = text.split_once(". ").map_or(text, |(first, _)| first).trim_end();
    text.strip_suffix('.').unwrap_or(text)
}

/// Reads a list of names.
fn names(list: &str) -> Vec<Name> {
    let list = without_parentheses(list).replace(" and _", ",_").replace(" / ", ",");
    let words = list.split([',', ';']).filter_map(|text| text.split_whitespace().next());
    let mut names: Vec<Name> = Vec::new();
    // What `_` continues.
    let mut stem = String::new();
    for word in words {
        let last = names.last();
        let continues = word.starts_with('_') && last.is_some_and(|last| matches!(&*last.case, "" | "*"));
        let name = if word.starts_with("test_") || word.starts_with("unittest_") {
            let name = full(word);
            stem = match name.file.rsplit_once('_') {
                Some((stem, _)) if name.case.is_empty() => stem.to_owned(),
                _ => name.file.clone(),
            };
            name
        } else if continues {
            full(&format!("{stem}{word}"))
        } else if let Some(last) = last {
            Name { file: last.file.clone(), case: word.to_owned() }
        } else {
            continue;
        };
        names.push(name);
    }
    names
}

/// `file/case` or `file`.
fn full(text: &str) -> Name {
    let (file, case) = text.split_once('/').unwrap_or((text, ""));
    Name { file: file.to_owned(), case: case.to_owned() }
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_usize;
    let outside = |letter: &char| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    };
    text.chars().filter(outside).collect()
}

/// Whether `text` fits `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).filter_map(|from| text.get(from..)).any(|text| matches(rest, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
## 16. Interop matrix
| 1 | test_elsewhere | not in this chapter |
## 17. libzmq test-suite cases to re-create
| # | libzmq test | What to assert |
|---|---|---|
| 1 | test_hwm/finite_*, infinite (both) | a |
| 2 | test_pair_tcp, _ipc | b |
| 3 | test_stream/*, _ends, _timeout / test_msg_* | c |
| 4 | test_*_fuzzer (bind), test_manual/* and _last/value 3 | d |
## 18. Next
| 5 | test_later | not in this chapter |
";

    const TESTS: &str = "
        /// libzmq: test_hwm/finite_both, infinite_send. Not this: test_none.
        ///
        /// Rules: MQ-270.
        #[test]
        fn a() {}
        mod b {
            /// What it shows.
            ///
            /// libzmq: test_pair_tcp,
            /// test_pair_ipc; test_stream/to_dealer, test_stream_ends, _timeout.
            #[test]
            fn c() {}
            /// libzmq: test_msg_init, test_bind_fuzzer (all), test_manual/basic, test_manual_last/value.
            #[test]
            fn d() {}
        }";

    fn findings(table: &str, tests: &str) -> Vec<(usize, String)> {
        let source = RustSource::parse(Path::new("tests/a.rs"), tests.to_owned()).unwrap();
        let tell = |finding: Finding| {
            let name = finding.message.split('`').nth(1).unwrap().to_owned();
            (finding.line, name)
        };
        check(table, &told(&source)).into_iter().map(tell).collect()
    }

    /// Rules: MQ-510.
    #[test]
    fn accepts_tests_that_tell_every_case() {
        assert_eq!(findings(TABLE, TESTS), []);
    }

    /// Rules: MQ-510.
    #[test]
    fn names_each_case_that_no_test_tells() {
        for (told, line, missing) in [
            ("finite_both, ", 6, "test_hwm/finite_*"),
            ("infinite_send", 6, "test_hwm/infinite"),
            ("test_pair_ipc", 7, "test_pair_ipc"),
            ("test_stream/to_dealer", 8, "test_stream/*"),
            ("_timeout", 8, "test_stream_timeout"),
            ("test_msg_init", 8, "test_msg_*"),
            ("test_bind_fuzzer", 9, "test_*_fuzzer"),
            ("test_manual_last/value", 9, "test_manual_last/value"),
        ] {
            assert_eq!(findings(TABLE, &TESTS.replace(told, "")), [(line, missing.to_owned())], "{told}");
        }
    }

    /// Rules: MQ-510.
    #[test]
    fn a_test_that_is_not_run_tells_nothing() {
        let ignored = TESTS.replacen("#[test]", "#[test] #[ignore]", 1);
        assert_eq!(findings(TABLE, &ignored).len(), 2);
        let helper = TESTS.replacen("#[test]", "", 1);
        assert_eq!(findings(TABLE, &helper).len(), 2);
    }

    /// Rules: MQ-510.
    #[test]
    fn a_sheet_without_the_table_is_a_finding() {
        let renamed = TABLE.replace("## 17. ", "## 17: ");
        assert_eq!(findings(&renamed, TESTS), [(0, CHAPTER.to_owned())]);
    }
}
