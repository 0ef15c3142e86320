//! `cargo xtask trace`: every MUST of a finished area is shown by a test or has a verification note (TP-478).
//!
//! Sheets ([`spec`]) give the rules, `conformance/areas.toml` ([`scope`]) says which of them count by now, doc
//! comments of tests ([`citations`]) say what shows them. [`ledger`] brings the three together; [`mapping`] and
//! [`report`] put the result into the committed table and on the screen.

mod citations;
mod ledger;
mod mapping;
mod report;
mod scope;
mod spec;

use std::path::Path;

use self::citations::Citations;
use self::ledger::Ledger;
use self::report::{Report, SpecReport};
use self::scope::{Placement, ScopeFile};
use self::spec::Sheet;
use crate::error::{Result, XtaskError};
use crate::workspace::{Workspace, target_files};

const FOLDER: &str = "conformance";

/// Command line of the gate.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the tables in conformance/ instead of failing when they are stale
    #[arg(long)]
    write: bool,
    /// List what areas under way do not show yet
    #[arg(long)]
    open: bool,
    /// Print a machine-readable summary
    #[arg(long)]
    json: bool,
}

/// Runs the gate; `true` means no gap and no finding.
///
/// # Errors
/// When a sheet, the scope file or a source file cannot be read, or a table cannot be written.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let scope = ScopeFile::read(&workspace.root.join(FOLDER).join("areas.toml"))?;
    let citations = collect_citations(workspace)?;
    let mut findings = scope.inconsistencies();
    let sheets = read_sheets(workspace, &scope, &mut findings)?;
    let ledgers: Vec<Ledger<'_>> = sheets
        .iter()
        .map(|(name, sheet, placement)| Ledger::new(name, sheet, placement, &citations, &scope.notes))
        .collect();
    findings.extend(ledger::findings(&scope, &citations, &ledgers));
    for ledger in ledgers.iter().filter(|ledger| ledger.has_finished_area()) {
        findings.extend(write_or_compare(&workspace.root, ledger, options.write)?);
    }

    let specs: Vec<SpecReport<'_>> = ledgers.iter().map(SpecReport::new).collect();
    let passed = findings.is_empty() && !specs.iter().any(SpecReport::has_gaps);
    let report =
        Report { passed, specs, findings: &findings, ignored_tests: ledger::ignored_tests(&citations) };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(|source| XtaskError::Json { source })?);
    } else {
        print!("{}", report.text(options.open));
    }
    Ok(passed)
}

fn read_sheets(
    workspace: &Workspace,
    scope: &ScopeFile,
    findings: &mut Vec<String>,
) -> Result<Vec<(String, Sheet, Placement)>> {
    let mut sheets = Vec::new();
    for (name, entry) in &scope.specs {
        let path = workspace.root.join(&entry.file);
        let text = std::fs::read_to_string(&path).map_err(|source| XtaskError::Read { path, source })?;
        let sheet = Sheet::parse(&text, &entry.prefix, &entry.cases.prefixes);
        let mut found = sheet.inconsistencies(entry.rules, entry.cases.count);
        let placement = scope.place(name, &sheet, &mut found);
        findings.extend(found.into_iter().map(|finding| format!("{}: {finding}", entry.file.display())));
        sheets.push((name.clone(), sheet, placement));
    }
    Ok(sheets)
}

/// Citations of all targets whose tests run.
fn collect_citations(workspace: &Workspace) -> Result<Citations> {
    let mut citations = Citations::default();
    for package in &workspace.packages {
        for target in package.targets.iter().filter(|target| target.runs_tests()) {
            let binary_id = package.binary_id(target);
            for mut file in target_files(&target.src_path)? {
                file.source.path = workspace.relative(&file.source.path).to_owned();
                citations.add_file(&binary_id, &file);
            }
        }
    }
    Ok(citations)
}

/// Writes the table of a sheet, or says that the committed one is stale.
fn write_or_compare(root: &Path, ledger: &Ledger<'_>, write: bool) -> Result<Option<String>> {
    let name = format!("{FOLDER}/{}.md", ledger.spec);
    let path = root.join(&name);
    let page = mapping::render(ledger);
    if write {
        std::fs::write(&path, page).map_err(|source| XtaskError::Write { path, source })?;
        return Ok(None);
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    Ok((current != page).then(|| format!("{name} is stale; run `cargo xtask trace --write` and commit it")))
}
