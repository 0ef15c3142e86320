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

fn parse(markdown: &str) -> Sheet {
    Sheet::parse(markdown, "TP", &["TC".to_owned()])
}

fn ids(sheet: &Sheet) -> Vec<String> {
    sheet.rules.iter().map(|rule| rule.id.to_string()).collect()
}

#[test]
fn reads_rows_with_their_section_level_and_escaped_bars() {
    let sheet = parse(SMALL);
    assert_eq!(ids(&sheet), ["TP-038", "TP-039", "TP-040"]);
    let first = &sheet.rules[0];
    assert_eq!((first.level, first.section.as_str()), (Level::Must, "4.1"));
    assert_eq!(first.text, "Emits `|x` only when true, see TP-039.");
    assert_eq!((sheet.rules[2].level, sheet.rules[2].section.as_str()), (Level::May, "A"));
    assert_eq!(sheet.title("4.1"), "Grammar");
}

#[test]
fn reads_cases_with_the_rules_they_show() {
    let sheet = parse(SMALL);
    let [case] = &sheet.cases[..] else { panic!("one case") };
    assert_eq!((case.id.to_string().as_str(), case.section.as_str()), ("TC-001", "C.4"));
    assert_eq!(case.text, "setup => outcome");
    assert_eq!(case.rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["TP-038", "TP-039"]);
}

#[test]
fn reads_cases_of_one_letter_with_rules_in_brackets_and_ranges() {
    let sheet = Sheet::parse(
        "### 25.2 Layout\n| DH-021 | MUST | x |\n| L-09 | `n` 0 → refused [DH-021]; more [DH-021, DH-022] |\n\
         ### 25.11 Points\n| K-01..K-03 | a, b, c → readable |\n| Q-1 | model | holds | mutants |\n\
         | O-1 | no prefix of this sheet |\n| K-05..L-07 | no range |\n",
        "DH",
        &["L", "K", "Q"].map(str::to_owned),
    );
    let found: Vec<_> = sheet
        .cases
        .iter()
        .map(|case| {
            let rules: Vec<_> = case.rules.iter().map(ToString::to_string).collect();
            (case.id.to_string(), case.section.as_str(), rules.join(" "))
        })
        .collect();
    let expected = [
        ("L-09", "25.2", "DH-021 DH-021 DH-022"),
        ("K-01", "25.11", ""),
        ("K-02", "25.11", ""),
        ("K-03", "25.11", ""),
        ("Q-1", "25.11", ""),
    ];
    assert_eq!(found, expected.map(|(id, section, rules)| (id.to_owned(), section, rules.to_owned())));
    assert_eq!(sheet.cases[4].text, "model => holds => mutants");
    let problems = sheet.inconsistencies(1, 6).join("\n");
    for part in
        ["5 cases (count pinned in conformance/areas.toml) parsed, but 6", "DH-022 is mentioned", "K-05 is"]
    {
        assert!(problems.contains(part), "{part} not in:\n{problems}");
    }
}

#[test]
fn reads_list_items_with_and_without_level_word_and_their_continuation() {
    let sheet = Sheet::parse(
        "## 1. A\n- **DH-001 SHOULD** one\n* **DH-002** The kernel SHOULD do; it MAY rest\n  and MUST end.\n\
         * **DH-003** No word at all.\n  - a sub-item\n\n  Another paragraph.\n- **MQ-004** other sheet\n\
         | DH-005 | OPTION (4) | int |\n",
        "DH",
        &[],
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
    assert_eq!(parse(SMALL).inconsistencies(3, 1), Vec::<String>::new());
}

#[test]
fn reports_a_count_that_the_sheet_states_and_the_parser_misses() {
    let broken = SMALL.replace("| TP-039 | SHOULD |", "| TP-039 , SHOULD |");
    let found = parse(&broken).inconsistencies(3, 1).join("\n");
    for part in ["2 rules parsed", "0 SHOULD rules", "TP-039 is mentioned but not defined"] {
        let words = part.replace("2 rules parsed", "2 rules (count stated by the sheet) parsed");
        assert!(found.contains(&words), "{words} not in:\n{found}");
    }
}

#[test]
fn reports_double_ids_missing_cases_and_a_wrong_pinned_count() {
    let double = format!("{SMALL}| TP-038 | MUST | again |\n").replace("| TC-001 |", "| XX |");
    let found = parse(&double).inconsistencies(7, 1).join("\n");
    for part in ["pinned in conformance/areas.toml) parsed, but 7", "TP-038 is defined twice", "0 cases"] {
        assert!(found.contains(part), "{part} not in:\n{found}");
    }
}

#[test]
fn an_id_is_written_in_one_way_only() {
    assert_eq!(RuleId::parse("TP-107").map(|id| id.to_string()).as_deref(), Some("TP-107"));
    assert_eq!(["L-09", "Q-1"].map(|id| RuleId::parse(id).unwrap().to_string()), ["L-09", "Q-1"]);
    assert_eq!(RuleId::parse("CT-04").map(|id| id.to_string()).as_deref(), Some("CT-04"));
    assert_eq!(RuleId::parse("CT-104"), None, "two digits behind CT");
    assert_ne!(RuleId::parse("Q-1"), RuleId::parse("Q-01"), "as the sheet writes it");
    for wrong in ["TP-7", "TP-0107", "tp-107", "TP107", "TP-", "T-107", "T-", "-07", "TP-10a", "TP-+07"] {
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
    let hub = ["L", "I", "S", "P", "C", "B", "X", "M", "Z", "G", "H", "V", "K", "Q", "R", "T", "F", "N"];
    for (file, prefix, rules, case_prefixes, cases) in [
        ("tensor-pool.md", "TP", 493, &["TC"][..], 214),
        ("data-hub.md", "DH", 300, &hub, 283),
        ("messaging.md", "MQ", 539, &[], 0),
        ("vertex.md", "VX", 255, &[], 0),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let case_prefixes: Vec<String> = case_prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        let sheet = Sheet::parse(&text, prefix, &case_prefixes);
        assert_eq!(sheet.inconsistencies(rules, cases), Vec::<String>::new(), "{file}");
    }
}
