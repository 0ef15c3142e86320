//! `conformance/areas.toml`: which rules must be shown by now, and the verification notes.
//!
//! An area is a set of chapters (`sections`) or of single rules and cases (`rules`, then with a `reason`). A rule
//! belongs to the area that names it by id, else to the one that names the longest chapter number around it. A case that
//! is not named by id is as far as the least finished of the rules it shows; one that names no rules belongs to its
//! chapter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::{RuleId, Sheet};
use crate::error::{Result, XtaskError};

/// The scope file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScopeFile {
    /// Sheets by name.
    pub(crate) specs: BTreeMap<String, SpecEntry>,
    pub(crate) areas: Vec<Area>,
    /// Verification notes of rules and cases that no program can test.
    #[serde(default)]
    pub(crate) notes: BTreeMap<String, String>,
}

/// Where a sheet is and what to expect in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecEntry {
    /// Relative to the workspace root.
    pub(crate) file: PathBuf,
    pub(crate) prefix: String,
    /// How many rules the sheet has; a parser that misses some must not pass unseen.
    pub(crate) rules: usize,
    #[serde(default)]
    pub(crate) cases: CaseEntry,
}

/// What to expect of a sheet's cases; nothing, if it has none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseEntry {
    /// What their ids begin with.
    pub(crate) prefixes: Vec<String>,
    /// How many there are.
    pub(crate) count: usize,
}

/// A set of rules that share a status.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Area {
    pub(crate) spec: String,
    pub(crate) name: String,
    pub(crate) status: Status,
    /// Chapters with everything below them; `*` is the whole sheet.
    #[serde(default)]
    pub(crate) sections: Vec<String>,
    /// Single rules and cases, stronger than any chapter.
    #[serde(default)]
    pub(crate) rules: Vec<String>,
    pub(crate) reason: Option<String>,
}

/// How far an area is, the furthest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// What is not shown is a gap, and the gate fails.
    Finished,
    /// What is not shown is listed as open.
    Underway,
    /// Not begun: nothing counts.
    Later,
}

/// Status of every rule and case of one sheet, with the area it comes from.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    placed: BTreeMap<RuleId, (Status, String)>,
}

impl ScopeFile {
    /// Reads the scope file.
    ///
    /// # Errors
    /// When it cannot be read or has another form than described above.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| XtaskError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| XtaskError::Toml { path: path.to_owned(), source: Box::new(source) })
    }

    /// What is wrong with the file itself, whatever the sheets say.
    pub(crate) fn inconsistencies(&self) -> Vec<String> {
        let mut found = Vec::new();
        for area in &self.areas {
            let name = &area.name;
            if !self.specs.contains_key(&area.spec) {
                found.push(format!("area `{name}` names the unknown spec `{}`", area.spec));
            }
            if area.sections.is_empty() == area.rules.is_empty() {
                found.push(format!("area `{name}` needs either `sections` or `rules`"));
            }
            if !area.rules.is_empty() && area.reason.as_deref().is_none_or(str::is_empty) {
                found.push(format!("area `{name}` lists single rules and must give the `reason`"));
            }
        }
        found
    }

    /// Gives every rule and case of the sheet `spec` its status; problems are appended to `found`.
    pub(crate) fn place(&self, spec: &str, sheet: &Sheet, found: &mut Vec<String>) -> Placement {
        let areas: Vec<&Area> = self.areas.iter().filter(|area| area.spec == spec).collect();
        let by_id = placed_by_id(&areas, sheet, found);
        for area in &areas {
            for section in &area.sections {
                if !sheet.sections.iter().any(|(number, _)| contains(section, number)) {
                    found.push(format!(
                        "area `{}` names chapter {section}, which the sheet does not have",
                        area.name
                    ));
                }
            }
        }

        let mut chapters = BTreeMap::new();
        for area in &areas {
            for section in &area.sections {
                if let Some(other) = chapters.insert(section, &area.name) {
                    found.push(format!(
                        "chapter {section} is named by the areas `{other}` and `{}`",
                        area.name
                    ));
                }
            }
        }

        let mut placed = BTreeMap::new();
        for rule in &sheet.rules {
            let place = by_id.get(&rule.id).cloned().or_else(|| placed_by_section(&areas, &rule.section));
            match place {
                Some(place) => drop(placed.insert(rule.id.clone(), place)),
                None => found.push(format!("{} (chapter {}) is in no area", rule.id, rule.section)),
            }
        }
        for case in &sheet.cases {
            let place = by_id.get(&case.id).cloned().unwrap_or_else(|| {
                let of_rules = case.rules.iter().map(|rule| match placed.get(rule) {
                    Some((status, area)) => (*status, area.clone()),
                    None => (Status::Later, format!("{rule} is in no area")),
                });
                let least_finished =
                    of_rules.reduce(|least, next| if next.0 > least.0 { next } else { least });
                least_finished
                    .or_else(|| placed_by_section(&areas, &case.section))
                    .unwrap_or_else(|| (Status::Later, format!("chapter {} is in no area", case.section)))
            });
            placed.insert(case.id.clone(), place);
        }
        Placement { placed }
    }
}

impl Placement {
    /// How far a rule or case is.
    pub(crate) fn status(&self, id: &RuleId) -> Status {
        self.placed.get(id).map_or(Status::Later, |(status, _)| *status)
    }

    /// Name of the area that decides about a rule.
    pub(crate) fn area(&self, id: &RuleId) -> &str {
        self.placed.get(id).map_or("", |(_, area)| area)
    }
}

fn placed_by_id(
    areas: &[&Area],
    sheet: &Sheet,
    found: &mut Vec<String>,
) -> BTreeMap<RuleId, (Status, String)> {
    let known: BTreeSet<&RuleId> =
        sheet.rules.iter().map(|rule| &rule.id).chain(sheet.cases.iter().map(|case| &case.id)).collect();
    let mut placed = BTreeMap::new();
    for area in areas {
        for text in &area.rules {
            let Some(id) = RuleId::parse(text).filter(|id| known.contains(id)) else {
                found.push(format!("area `{}` names {text}, which is not in the sheet", area.name));
                continue;
            };
            if let Some((_, other)) = placed.insert(id, (area.status, area.name.clone())) {
                found.push(format!("{text} is named by the areas `{other}` and `{}`", area.name));
            }
        }
    }
    placed
}

/// The area with the longest chapter number around `section`. No two areas name the same chapter.
fn placed_by_section(areas: &[&Area], section: &str) -> Option<(Status, String)> {
    let mut best: Option<(usize, &Area)> = None;
    for area in areas {
        for chapter in area.sections.iter().filter(|chapter| contains(chapter, section)) {
            let length = if chapter == "*" { 0 } else { chapter.len() };
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, area));
            }
        }
    }
    best.map(|(_, area)| (area.status, area.name.clone()))
}

/// Whether `section` is `chapter` or below it: `10` contains `10.5`, but not `1` or `100`.
fn contains(chapter: &str, section: &str) -> bool {
    chapter == "*"
        || section.strip_prefix(chapter).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHEET: &str = "\
## 10. Wire\n\n| TP-001 | MUST | a |\n\n### 10.5 Streams\n\n| TP-002 | MUST | b |\n| TP-003 | MUST | c |\n
## 1. First\n\n| TP-004 | MUST | d |\n
| TC-001 | x | y | TP-001, TP-003 |\n| TC-002 | x | y | TP-001, TP-002 |\n| TC-003 | x | y | TP-001 |
| TC-004 | shows no rule |\n";

    fn place(areas: &str) -> (Placement, Vec<String>) {
        let head = "[specs.pool]\nfile = \"x\"\nprefix = \"TP\"\nrules = 4\n";
        let scope: ScopeFile = toml::from_str(&format!("{head}{areas}")).unwrap();
        let mut found = scope.inconsistencies();
        let placement = scope.place("pool", &Sheet::parse(SHEET, "TP", &["TC".to_owned()]), &mut found);
        (placement, found)
    }

    fn area(status: &str, rest: &str) -> String {
        format!("[[areas]]\nspec = \"pool\"\nname = \"some\"\nstatus = \"{status}\"\n{rest}\n")
    }

    fn with_status(placement: &Placement, status: Status) -> Vec<String> {
        let all = ["TP-001", "TP-002", "TP-003", "TP-004", "TC-001", "TC-002", "TC-003", "TC-004"];
        let is_so = |id: &&str| placement.status(&RuleId::parse(id).unwrap()) == status;
        all.into_iter().filter(is_so).map(str::to_owned).collect()
    }

    fn finished(placement: &Placement) -> Vec<String> {
        with_status(placement, Status::Finished)
    }

    #[test]
    fn an_id_beats_a_chapter_and_a_longer_chapter_beats_a_shorter_one() {
        let areas = [
            area("finished", "sections = [\"10\", \"1\"]"),
            area("later", "sections = [\"10.5\"]"),
            area("finished", "rules = [\"TP-003\"]\nreason = \"needed\""),
            area("later", "rules = [\"TC-003\"]\nreason = \"needs more than its rule\""),
        ];
        let (placement, found) = place(&areas.concat());
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(finished(&placement), ["TP-001", "TP-003", "TP-004", "TC-001", "TC-004"]);
    }

    #[test]
    fn a_case_is_as_far_as_its_least_finished_rule_or_its_chapter() {
        let areas = [
            area("finished", "sections = [\"10\"]"),
            area("underway", "sections = [\"1\"]"),
            area("underway", "rules = [\"TP-003\"]\nreason = \"being built\""),
            area("later", "rules = [\"TP-002\"]\nreason = \"not begun\""),
        ];
        let (placement, found) = place(&areas.concat());
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(finished(&placement), ["TP-001", "TC-003"]);
        assert_eq!(with_status(&placement, Status::Underway), ["TP-003", "TP-004", "TC-001", "TC-004"]);
        assert_eq!(with_status(&placement, Status::Later), ["TP-002", "TC-002"]);
    }

    #[test]
    fn reports_rules_without_area_and_names_that_match_nothing() {
        let areas = [
            area("finished", "sections = [\"10\", \"99\"]"),
            area("later", "rules = [\"TP-002\", \"TP-888\"]\nreason = \"x\""),
            area("later", "rules = [\"TP-002\"]\nreason = \"x\""),
            area("later", "rules = [\"TP-001\"]"),
            area("later", "sections = []"),
            area("later", "sections = [\"10\"]"),
        ];
        let (_, found) = place(&areas.concat());
        let found = found.join("\n");
        for part in [
            "TP-004 (chapter 1) is in no area",
            "chapter 99, which the sheet does not have",
            "TP-888, which is not in the sheet",
            "TP-002 is named by the areas",
            "chapter 10 is named by the areas",
            "must give the `reason`",
            "needs either `sections` or `rules`",
        ] {
            assert!(found.contains(part), "{part} not in:\n{found}");
        }
    }

    #[test]
    fn a_star_takes_the_whole_sheet_but_yields_to_chapters() {
        let areas = [area("later", "sections = [\"*\"]"), area("finished", "sections = [\"1\"]")];
        assert_eq!(finished(&place(&areas.concat()).0), ["TP-004", "TC-004"]);
    }
}
