//! The committed table of a sheet: every rule with what shows it, as Markdown.

use std::fmt::Write as _;

use super::ledger::{Ledger, Line, Tally};
use super::scope::Status;

const HEAD: &str = "\
Written by `cargo xtask trace --write` from the sheet, `areas.toml` and the `Rules:` lines of the tests; do not edit.
*later* means that the area is not built yet, **open** is a gap, *open* one in an area that is being built, and a dash
stands at a rule that binds nobody to test it.
";

/// Renders the table of one sheet.
pub(crate) fn render(ledger: &Ledger<'_>) -> String {
    let mut page = format!("# Conformance: {}\n\n{HEAD}\n", ledger.spec);
    page.push_str("| | total | in scope | by test | by note | open |\n|---|---|---|---|---|---|\n");
    for (what, tally) in [("MUST rules", ledger.tally(false)), ("cases", ledger.tally(true))] {
        let Tally { total, in_scope, tested, noted, open } = tally;
        if total > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(page, "| {what} | {total} | {in_scope} | {tested} | {noted} | {open} |");
        }
    }
    let mut section = "";
    for line in &ledger.lines {
        if line.section != section {
            section = line.section;
            let title = ledger.sheet.title(section);
            let _ = write!(page, "\n## {section} {title}\n\n| Id | Level | Shown by |\n|---|---|---|\n");
        }
        let level = line.level.map_or_else(|| "case".to_owned(), |level| level.to_string());
        let _ = writeln!(page, "| {} | {level} | {} |", line.id, shown_by(line));
    }
    page
}

fn shown_by(line: &Line<'_>) -> String {
    let mut parts: Vec<String> = line.tests.iter().map(|test| format!("`{test}`")).collect();
    if let Some(note) = line.note {
        parts.push(format!("note: {}", note.trim().replace('|', "\\|").replace('\n', " ")));
    }
    if line.is_gap() {
        parts.push("**open**".to_owned());
    } else if line.is_open() {
        parts.push(format!("*open*: {}", line.area));
    } else if line.status == Status::Later {
        parts.push(format!("*later*: {}", line.area));
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join("<br>") }
}
