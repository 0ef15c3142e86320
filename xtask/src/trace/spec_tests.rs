//! The sheet reader on small sheets, and on the four real ones.

use super::*;

const SMALL: &str = "\
| Item | Value |
|---|---|
| Rules in this sheet | 3 numbered rules (1 MUST, 1 SHOULD, 1 MAY) |
| Conformance cases | 1 cases, appendix C |

## 4. Region URI

### 4.1 Grammar

| Id | Level | Rule |
|---|---|---|
| TP-038 | MUST | Emits `\\|x` only when true, see TP-039. |
| TP-039 | SHOULD | Second. |

```text
| TP-999 | MUST | an example, not a rule |
```

## Appendix A. Tools

| TP-040 | MAY | Third. |

### C.4 Cases

| TC-001 | setup | outcome | TP-038, TP-039 |
";

fn ids(sheet: &Sheet) -> Vec<String> {
    sheet.rules.iter().map(|rule| rule.id.to_string()).collect()
}

#[test]
fn reads_rows_with_their_section_level_and_escaped_bars() {
    let sheet = Sheet::parse(SMALL, "TP");
    assert_eq!(ids(&sheet), ["TP-038", "TP-039", "TP-040"]);
    let first = &sheet.rules[0];
    assert_eq!((first.level, first.section.as_str()), (Level::Must, "4.1"));
    assert_eq!(first.text, "Emits `|x` only when true, see TP-039.");
    assert_eq!((sheet.rules[2].level, sheet.rules[2].section.as_str()), (Level::May, "A"));
    assert_eq!(sheet.title("4.1"), "Grammar");
}

#[test]
fn reads_cases_with_the_rules_they_show() {
    let sheet = Sheet::parse(SMALL, "TP");
    let [case] = &sheet.cases[..] else { panic!("one case") };
    assert_eq!((case.id.to_string().as_str(), case.section.as_str()), ("TC-001", "C.4"));
    assert_eq!(case.text, "setup => outcome");
    assert_eq!(case.rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["TP-038", "TP-039"]);
}

#[test]
fn reads_list_items_with_and_without_level_word_and_their_continuation() {
    let sheet = Sheet::parse(
        "## 1. A\n- **DH-001 SHOULD** one\n* **DH-002** The kernel SHOULD do; it MAY rest\n  and MUST end.\n\
         * **DH-003** No word at all.\n  - a sub-item\n\n  Another paragraph.\n- **MQ-004** other sheet\n\
         | DH-005 | OPTION (4) | int |\n",
        "DH",
    );
    let found: Vec<_> = sheet.rules.iter().map(|rule| (rule.level, rule.text.as_str())).collect();
    let expected = [
        (Level::Should, "one"),
        (Level::Must, "The kernel SHOULD do; it MAY rest and MUST end."),
        (Level::Must, "No word at all. - a sub-item"),
        (Level::Must, "OPTION (4) | int"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_consistent_sheet_has_nothing_to_report() {
    assert_eq!(Sheet::parse(SMALL, "TP").inconsistencies(3), Vec::<String>::new());
}

#[test]
fn reports_a_count_that_the_sheet_states_and_the_parser_misses() {
    let broken = SMALL.replace("| TP-039 | SHOULD |", "| TP-039 , SHOULD |");
    let found = Sheet::parse(&broken, "TP").inconsistencies(3).join("\n");
    for part in ["2 rules parsed", "0 SHOULD rules", "TP-039 is mentioned but not defined"] {
        let words = part.replace("2 rules parsed", "2 rules (count stated by the sheet) parsed");
        assert!(found.contains(&words), "{words} not in:\n{found}");
    }
}

#[test]
fn reports_double_ids_missing_cases_and_a_wrong_pinned_count() {
    let double = format!("{SMALL}| TP-038 | MUST | again |\n").replace("| TC-001 |", "| XX |");
    let found = Sheet::parse(&double, "TP").inconsistencies(7).join("\n");
    for part in ["pinned in conformance/areas.toml) parsed, but 7", "TP-038 is defined twice", "0 cases"] {
        assert!(found.contains(part), "{part} not in:\n{found}");
    }
}

#[test]
fn an_id_is_written_in_one_way_only() {
    assert_eq!(RuleId::parse("TP-107").map(|id| id.to_string()).as_deref(), Some("TP-107"));
    for wrong in ["TP-7", "TP-0107", "tp-107", "TP107", "TP-", "T-107", "TP-10a", "TP-+07"] {
        assert_eq!(RuleId::parse(wrong), None, "{wrong}");
    }
    let all: Vec<_> =
        RuleId::all_in("(TP-007; see VX-1000.) IP-20 TP-007..TP-009").map(|id| id.to_string()).collect();
    assert_eq!(all, ["TP-007", "VX-1000", "TP-007", "TP-009"]);
}

/// The real sheets: what a wrong count would hide is a rule that nobody has to show.
#[test]
fn reads_every_rule_of_the_four_sheets() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spec");
    for (file, prefix, rules, cases) in [
        ("tensor-pool.md", "TP", 493, 214),
        ("data-hub.md", "DH", 300, 0),
        ("messaging.md", "MQ", 539, 0),
        ("vertex.md", "VX", 255, 0),
    ] {
        let sheet = Sheet::parse(&std::fs::read_to_string(folder.join(file)).unwrap(), prefix);
        assert_eq!(sheet.inconsistencies(rules), Vec::<String>::new(), "{file}");
        assert_eq!(sheet.cases.len(), cases, "{file}");
    }
}
