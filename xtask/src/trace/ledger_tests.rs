//! The judgement on a planted sheet, scope and tests.

use std::path::Path;

use super::*;
use crate::workspace::{RustSource, TargetFile};

const SHEET: &str = "## 1. Wire\n
| TP-001 | MUST | first |\n| TP-002 | SHOULD | second |\n| TP-003 | MUST | third |\n
## 2. Joins\n
| TP-004 | MUST | fourth |\n
| TC-001 | setup | outcome | TP-001 |\n| TC-002 | setup | outcome | TP-004 |\n";

const SCOPE: &str = "
[specs.pool]
file = \"pool.md\"
prefix = \"TP\"
rules = 4
[[areas]]
spec = \"pool\"
name = \"wire\"
status = \"finished\"
sections = [\"1\"]
[[areas]]
spec = \"pool\"
name = \"joins\"
status = \"later\"
sections = [\"2\"]
[notes]
";

struct Outcome {
    gaps: Vec<String>,
    open: Vec<String>,
    findings: Vec<String>,
    rules: Tally,
    cases: Tally,
}

/// Judges the planted sheet with the given notes and tests.
fn judge(notes: &str, tests: &str) -> Outcome {
    judge_scope(&format!("{SCOPE}{notes}"), tests)
}

fn judge_scope(scope: &str, tests: &str) -> Outcome {
    let scope: ScopeFile = toml::from_str(scope).unwrap();
    let sheet = Sheet::parse(SHEET, "TP", &["TC".to_owned()]);
    let mut found = Vec::new();
    let placement = scope.place("pool", &sheet, &mut found);
    assert_eq!(found, Vec::<String>::new());
    let mut citations = Citations::default();
    let source = RustSource::parse(Path::new("lib.rs"), tests.to_owned()).unwrap();
    citations.add_file("pool", &TargetFile { source, module_path: Vec::new(), test_only: false });
    let ledgers = [Ledger::new("pool", &sheet, &placement, &citations, &scope.notes)];
    Outcome {
        gaps: ledgers[0].gaps().map(|line| line.id.to_string()).collect(),
        open: ledgers[0].open().map(|line| line.id.to_string()).collect(),
        findings: findings(&scope, &citations, &ledgers),
        rules: ledgers[0].tally(false),
        cases: ledgers[0].tally(true),
    }
}

/// Rules: TP-478, MQ-006, DH-300.
#[test]
fn a_must_or_case_of_a_finished_area_without_test_or_note_is_a_gap() {
    let outcome = judge("", "/// Rules: TP-001.\n#[test]\nfn a() {}");
    assert_eq!(outcome.gaps, ["TP-003", "TC-001"]);
    assert_eq!(outcome.rules, Tally { total: 3, in_scope: 2, tested: 1, noted: 0, open: 1 });
    assert_eq!(outcome.cases, Tally { total: 2, in_scope: 1, tested: 0, noted: 0, open: 1 });
}

/// Rules: TP-478, MQ-006.
#[test]
fn tests_and_notes_close_gaps_and_nothing_else_does() {
    let tests = "/// Rules: TP-001, TC-001.\n#[test]\nfn a() {}";
    let outcome = judge("TP-003 = \"read and compared by hand\"", tests);
    assert_eq!(outcome.gaps, Vec::<String>::new());
    assert_eq!(outcome.findings, Vec::<String>::new());
    assert_eq!((outcome.rules.tested, outcome.rules.noted), (1, 1));

    let ignored = tests.replace("#[test]", "#[test]\n#[ignore]");
    assert_eq!(judge("TP-003 = \"read\"", &ignored).gaps, ["TP-001", "TC-001"]);
}

/// Rules: TP-478.
#[test]
fn what_an_area_under_way_does_not_show_is_open_and_no_gap() {
    let scope = SCOPE.replace("status = \"later\"", "status = \"underway\"");
    let outcome = judge_scope(&scope, "/// Rules: TP-001, TP-003, TC-001.\n#[test]\nfn a() {}");
    assert_eq!((outcome.gaps, outcome.open), (Vec::new(), vec!["TP-004".to_owned(), "TC-002".to_owned()]));
    assert_eq!(outcome.rules, Tally { total: 3, in_scope: 3, tested: 2, noted: 0, open: 1 });
    let outcome = judge_scope(&scope, "/// Rules: TP-004, TC-002.\n#[test]\nfn a() {}");
    assert_eq!((outcome.gaps.len(), outcome.open.len()), (3, 0));
}

#[test]
fn an_unknown_id_is_a_finding() {
    let found = judge("", "/// Rules: TP-001, TP-999.\n#[test]\nfn a() {}").findings;
    assert_eq!(found, ["lib.rs:3: test `pool::a` cites TP-999, which no sheet defines"]);
}

#[test]
fn stale_empty_and_homeless_notes_are_findings() {
    let notes = "TP-001 = \"once\"\nTP-003 = \" \"\nTP-777 = \"?\"";
    let found = judge(notes, "/// Rules: TP-001.\n#[test]\nfn a() {}").findings;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("TP-001 has a note although `pool::a` shows it"), "{found:?}");
    assert!(found[1].contains("the note for TP-003 is empty"), "{found:?}");
    assert!(found[2].contains("TP-777 is about no rule"), "{found:?}");
}

#[test]
fn an_id_that_two_sheets_define_is_a_finding() {
    let scope: ScopeFile = toml::from_str(SCOPE).unwrap();
    let sheet = Sheet::parse(SHEET, "TP", &["TC".to_owned()]);
    let placement = scope.place("pool", &sheet, &mut Vec::new());
    let citations = Citations::default();
    let ledgers = ["pool", "hub"].map(|spec| Ledger::new(spec, &sheet, &placement, &citations, &scope.notes));
    let found = findings(&scope, &citations, &ledgers);
    assert_eq!(found.len(), 6, "{found:?}");
    assert_eq!(found[0], "TP-001 is defined by the sheets pool and hub");
}
