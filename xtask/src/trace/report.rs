//! What `cargo xtask trace` prints: gaps by chapter for people, on demand what is open too, everything for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::ledger::{Ledger, Line, Tally};
use super::spec::{Level, RuleId};

/// A rule's text is cut at this many characters; `--json` prints all of it.
const TEXT_WIDTH: usize = 150;

/// The outcome of a run.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) passed: bool,
    pub(crate) specs: Vec<SpecReport<'a>>,
    /// Everything wrong apart from gaps: citations, notes, scope file, sheets, stale tables.
    pub(crate) findings: &'a [String],
    /// Tests with `#[ignore]`: their citations do not count.
    pub(crate) ignored_tests: Vec<&'a str>,
}

#[derive(Serialize)]
pub(crate) struct SpecReport<'a> {
    name: &'a str,
    rules: usize,
    must: Tally,
    cases: Tally,
    gaps: Vec<Gap<'a>>,
    /// What areas under way do not show yet.
    open: Vec<Gap<'a>>,
}

#[derive(Serialize)]
struct Gap<'a> {
    id: &'a RuleId,
    level: Option<Level>,
    section: &'a str,
    title: &'a str,
    text: &'a str,
}

impl<'a> SpecReport<'a> {
    pub(crate) fn new(ledger: &'a Ledger<'a>) -> Self {
        let gap = |line: &'a Line<'a>| Gap {
            id: line.id,
            level: line.level,
            section: line.section,
            title: ledger.sheet.title(line.section),
            text: line.text,
        };
        Self {
            name: ledger.spec,
            rules: ledger.sheet.rules.len(),
            must: ledger.tally(false),
            cases: ledger.tally(true),
            gaps: ledger.gaps().map(gap).collect(),
            open: ledger.open().map(gap).collect(),
        }
    }

    pub(crate) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }
}

impl Report<'_> {
    /// The report as text, gaps first, the summary last so that it stays on the screen. With `open`, what areas under way
    /// do not show yet comes before that.
    pub(crate) fn text(&self, open: bool) -> String {
        let mut out = String::new();
        for spec in self.specs.iter().filter(|_| open) {
            spec.write(&spec.open, "open", &mut out);
        }
        for spec in &self.specs {
            spec.write(&spec.gaps, "missing", &mut out);
        }
        if !self.findings.is_empty() {
            let _ = writeln!(out, "findings: {}", self.findings.len());
            for finding in self.findings {
                let _ = writeln!(out, "  {finding}");
            }
            out.push('\n');
        }
        for test in &self.ignored_tests {
            let _ = writeln!(out, "not counted, because ignored: {test}");
        }
        for spec in &self.specs {
            let _ = writeln!(
                out,
                "{:<12} {} rules; {}; {}",
                spec.name,
                spec.rules,
                summary("MUST", spec.must),
                summary("cases", spec.cases)
            );
        }
        out.push_str(if self.passed { "trace: ok\n" } else { "trace: FAILED\n" });
        out
    }
}

impl SpecReport<'_> {
    fn write(&self, gaps: &[Gap<'_>], what: &str, out: &mut String) {
        for chapter in gaps.chunk_by(|a, b| a.section == b.section) {
            let Some(first) = chapter.first() else { continue };
            let _ =
                writeln!(out, "{} {} {}: {} {what}", self.name, first.section, first.title, chapter.len());
            for gap in chapter {
                let level = gap.level.map_or_else(|| "case".to_owned(), |level| level.to_string());
                let _ = writeln!(out, "  {} {level:<4} {}", gap.id, shortened(gap.text));
            }
            out.push('\n');
        }
    }
}

fn summary(what: &str, tally: Tally) -> String {
    let Tally { total, in_scope, tested, noted, open } = tally;
    if in_scope == 0 {
        return format!("{total} {what}, none in scope");
    }
    format!("{total} {what}, {in_scope} in scope: {tested} tested, {noted} noted, {open} open")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_WIDTH) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or(text).trim_end()),
        None => text.to_owned(),
    }
}
