//! What is printed: a line for each measurement and program, the minima, and where it was measured.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Measurement;
use super::error::BenchError;
use super::results::{Results, Row};
use super::verdict::{Verdict, value};
use crate::cli::text;
use crate::output::{Output, Stop};

/// Keeps results in a file, line by line, so that what there is of a run that was stopped is there.
pub(crate) struct Record(Option<(PathBuf, File)>);

impl Record {
    /// Without a path, nothing is kept. A file that is there already is replaced.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, BenchError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::create(path).map_err(|source| failed(path, source))?;
        Ok(Self(Some((path.to_owned(), file))))
    }

    fn add(&mut self, line: &Value) -> Result<(), BenchError> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        writeln!(file, "{line}").map_err(|source| failed(path, source))
    }
}

fn failed(path: &Path, source: std::io::Error) -> BenchError {
    BenchError::io(format!("write {}", path.display()), source)
}

/// With `--json` and `--save`, what is known of a measurement when its turns are over.
pub(crate) fn measured<M: Measurement>(
    results: &Results<M>,
    rows: &[&Row<M>],
    record: &mut Record,
    output: &mut Output,
) -> Result<(), Stop> {
    rows.iter().try_for_each(|row| line(row.json(results.reference(row)), record, output))
}

/// An object of JSON, where it is wanted.
fn line(object: Value, record: &mut Record, output: &mut Output) -> Result<(), Stop> {
    record.add(&object)?;
    if output.json() { output.result(String::new, || object) } else { Ok(()) }
}

/// All there is to say at the end.
pub(crate) fn summary<M: Measurement>(
    results: &Results<M>,
    verdicts: &[Verdict<M>],
    environment: &Value,
    record: &mut Record,
    output: &mut Output,
) -> Result<(), Stop> {
    verdicts.iter().try_for_each(|verdict| line(verdict.json(), record, output))?;
    line(environment.clone(), record, output)?;
    if output.json() {
        return Ok(());
    }
    let mut heading = text::heading(["MEASURE", "PROGRAM", "MEDIAN", "QUARTILES", "P99", "CPU EACH"]);
    heading.push(format!("TO {}", M::REFERENCE.to_uppercase()));
    let mut table = vec![heading];
    table.extend(results.rows().iter().filter_map(|row| cells(row, results.reference(row))));
    output.result(|| text::table(&table), || Value::Null)?;
    if !verdicts.is_empty() {
        let table = minima(verdicts);
        output.result(|| format!("\n{}", text::table(&table)), || Value::Null)?;
    }
    let fields = environment.as_object().into_iter().flatten().filter(|(name, _)| *name != "summary");
    let fields: Vec<String> =
        fields.map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"'))).collect();
    let legend = "\nRates: more is better, a ratio above 1 is faster. Times: less is better, a ratio below 1 is faster.\n\
                  (=) the difference does not exceed the quartiles of both: none. Unclear: missed by such a difference.";
    output.result(|| format!("{legend}\n{}", fields.join(", ")), || Value::Null)
}

fn cells<M: Measurement>(row: &Row<M>, reference: Option<&Row<M>>) -> Option<Vec<String>> {
    let (field, _) = row.measure.main();
    let main = row.main()?;
    let cpu = |end: &str| row.field(&format!("{end}_cpu_ns_each")).map_or(0.0, |spread| spread.median);
    Some(vec![
        row.measure.title(),
        row.program.clone(),
        value(field, main.median),
        format!("{} to {}", value(field, main.q1), value(field, main.q3)),
        text::or_dash(row.field("p99_ns").map(|spread| value("p99_ns", spread.median))),
        format!("{:.0} ns", cpu("measuring") + cpu("other")),
        text::or_dash(
            row.ratio(reference)
                .map(|(ratio, differs)| format!("{ratio:.2}{}", if differs { "" } else { " (=)" })),
        ),
    ])
}

/// A row for each minimum, with a column for each program beside this one.
fn minima<M: Measurement>(verdicts: &[Verdict<M>]) -> Vec<Vec<String>> {
    let mut programs = vec![M::REFERENCE.to_owned()];
    for (name, _) in verdicts.iter().flat_map(|verdict| &verdict.others) {
        if !programs.contains(name) {
            programs.push(name.clone());
        }
    }
    let mut heading = text::heading(["RULE", "WHAT", "OURS"]);
    heading.extend(programs.iter().map(|name| name.to_uppercase()));
    heading.extend(text::heading(["RATIO", "MINIMUM", "MET"]));
    let mut table = vec![heading];
    for verdict in verdicts {
        let driver =
            verdict.program.strip_prefix("tidegate-").map_or_else(String::new, |name| format!(" ({name})"));
        let of = match verdict.field {
            "bytes_per_connection" => ", memory of each",
            "measuring_cpu_share" => ", processor time",
            "up_s" => ", all up",
            "published_per_s" => ", published",
            "p50_ns" => ", p50",
            "p99_ns" => ", p99",
            "p999_ns" => ", p99.9",
            _ => "",
        };
        let mut row = vec![
            verdict.rule.to_owned(),
            format!("{}{of}{driver}", verdict.measure.title()),
            value(verdict.field, verdict.own.median),
        ];
        for name in &programs {
            let other = verdict.others.iter().find(|(other, _)| other == name);
            row.push(text::or_dash(other.map(|(_, number)| value(verdict.field, *number))));
        }
        row.push(text::or_dash(verdict.ratio.map(|ratio| format!("{ratio:.2}"))));
        row.push(verdict.bound());
        row.push(verdict.met.word().to_owned());
        table.push(row);
    }
    table
}

/// The last object of a run.
pub(crate) fn environment(fields: serde_json::Map<String, Value>) -> Value {
    let mut summary = json!({ "summary": true });
    if let Value::Object(summary) = &mut summary {
        summary.extend(fields);
    }
    summary
}
