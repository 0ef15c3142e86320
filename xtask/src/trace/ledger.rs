//! The judgement: for every rule of a sheet, what shows it, and what is wrong.

use std::collections::BTreeMap;

use super::citations::{BadCitation, Citations};
use super::scope::{Placement, ScopeFile, Status};
use super::spec::{Level, RuleId, Sheet};

/// One rule or case with everything that is known about it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) id: &'a RuleId,
    /// `None` for a case.
    pub(crate) level: Option<Level>,
    pub(crate) text: &'a str,
    pub(crate) section: &'a str,
    pub(crate) status: Status,
    /// The area that decides about `status`.
    pub(crate) area: &'a str,
    /// Names of the tests that cite it, sorted.
    pub(crate) tests: Vec<&'a str>,
    pub(crate) note: Option<&'a str>,
}

/// The judgement about one sheet.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    pub(crate) spec: &'a str,
    pub(crate) sheet: &'a Sheet,
    pub(crate) lines: Vec<Line<'a>>,
}

/// How many of something are shown, and by what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Tally {
    pub(crate) total: usize,
    pub(crate) in_scope: usize,
    pub(crate) tested: usize,
    pub(crate) noted: usize,
    /// Gaps and what is open in areas under way.
    pub(crate) open: usize,
}

impl Line<'_> {
    /// A MUST or a case of a finished area that neither a test nor a note shows.
    pub(crate) fn is_gap(&self) -> bool {
        self.status == Status::Finished && self.is_missing()
    }

    /// The same in an area under way.
    pub(crate) fn is_open(&self) -> bool {
        self.status == Status::Underway && self.is_missing()
    }

    fn is_missing(&self) -> bool {
        let is_binding = matches!(self.level, None | Some(Level::Must));
        is_binding && self.tests.is_empty() && self.note.is_none()
    }
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(
        spec: &'a str,
        sheet: &'a Sheet,
        placement: &'a Placement,
        citations: &'a Citations,
        notes: &'a BTreeMap<String, String>,
    ) -> Self {
        let mut tests: BTreeMap<&RuleId, Vec<&str>> = BTreeMap::new();
        for test in citations.tests.iter().filter(|test| !test.ignored) {
            for id in &test.ids {
                tests.entry(id).or_default().push(&test.name);
            }
        }
        let line = |id: &'a RuleId, level, text: &'a str, section: &'a str| {
            let mut tests = tests.get(id).cloned().unwrap_or_default();
            tests.sort_unstable();
            tests.dedup();
            let note = notes.get(&id.to_string()).map(String::as_str);
            Line {
                id,
                level,
                text,
                section,
                status: placement.status(id),
                area: placement.area(id),
                tests,
                note,
            }
        };
        let rules =
            sheet.rules.iter().map(|rule| line(&rule.id, Some(rule.level), &rule.text, &rule.section));
        let cases = sheet.cases.iter().map(|case| line(&case.id, None, &case.text, &case.section));
        Self { spec, sheet, lines: rules.chain(cases).collect() }
    }

    pub(crate) fn gaps(&self) -> impl Iterator<Item = &Line<'a>> {
        self.lines.iter().filter(|line| line.is_gap())
    }

    /// What areas under way do not show yet.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Line<'a>> {
        self.lines.iter().filter(|line| line.is_open())
    }

    /// Counts of the MUST rules, or of the cases.
    pub(crate) fn tally(&self, cases: bool) -> Tally {
        let mut tally = Tally::default();
        let level = if cases { None } else { Some(Level::Must) };
        for line in self.lines.iter().filter(|line| line.level == level) {
            tally.total += 1;
            if line.status != Status::Later {
                tally.in_scope += 1;
                tally.tested += usize::from(!line.tests.is_empty());
                tally.noted += usize::from(line.tests.is_empty() && line.note.is_some());
                tally.open += usize::from(line.is_gap() || line.is_open());
            }
        }
        tally
    }

    pub(crate) fn has_finished_area(&self) -> bool {
        self.lines.iter().any(|line| line.status == Status::Finished)
    }
}

/// What is wrong with citations and notes: bad form, unknown ids, notes that a test has made stale.
pub(crate) fn findings(scope: &ScopeFile, citations: &Citations, ledgers: &[Ledger<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines: BTreeMap<&RuleId, &Line<'_>> = BTreeMap::new();
    let mut specs: BTreeMap<&RuleId, &str> = BTreeMap::new();
    for ledger in ledgers {
        for line in &ledger.lines {
            lines.insert(line.id, line);
            if let Some(other) = specs.insert(line.id, ledger.spec)
                && other != ledger.spec
            {
                found.push(format!("{} is defined by the sheets {other} and {}", line.id, ledger.spec));
            }
        }
    }

    let mut bad: Vec<&BadCitation> = citations.bad.iter().collect();
    bad.sort();
    bad.dedup();
    for BadCitation { path, line, reason } in bad {
        found.push(format!("{}:{line}: {reason}", path.display()));
    }
    for test in &citations.tests {
        let place = format!("{}:{}", test.path.display(), test.line);
        for id in test.ids.iter().filter(|id| !lines.contains_key(id)) {
            found.push(format!("{place}: test `{}` cites {id}, which no sheet defines", test.name));
        }
    }
    for (id, note) in &scope.notes {
        match RuleId::parse(id).and_then(|id| lines.get(&id).copied()) {
            None => {
                found.push(format!("conformance/areas.toml: the note for {id} is about no rule of any sheet"))
            }
            Some(line) => {
                if note.trim().is_empty() {
                    found.push(format!("conformance/areas.toml: the note for {id} is empty"));
                }
                if let Some(test) = line.tests.first() {
                    found.push(format!(
                        "conformance/areas.toml: {id} has a note although `{test}` shows it; remove the note"
                    ));
                }
            }
        }
    }
    found
}

/// Tests whose citations do not count because they are not run.
pub(crate) fn ignored_tests(citations: &Citations) -> Vec<&str> {
    citations.tests.iter().filter(|test| test.ignored).map(|test| test.name.as_str()).collect()
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
