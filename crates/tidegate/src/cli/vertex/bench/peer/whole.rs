//! A whole vertex, from its source over the function to its sink.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::thread;
use std::time::Instant;

use serde_json::json;
use tidegate::vertex::config::Pipeline;
use tidegate::vertex::operate::histogram::Histogram;
use tidegate::vertex::run::Vertex;

use super::{Task, failed};
use crate::cli::bench::peer::{finish, print};
use crate::output::Stop;

/// The function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Rust,
    /// A list of values for a list of records.
    Python,
    /// An array for an array.
    Table,
}

/// A vertex from a generator to nowhere, at least once.
pub(super) fn run(task: &Task, function: Function) -> Result<(), Stop> {
    let ends = format!(
        "[source]
        kind = \"generator\"
        records = {}
        bytes = \"{}B\"
        [[sink]]
        name = \"main\"
        kind = \"blackhole\"",
        i64::MAX,
        task.size,
    );
    let vertex = start(task, "at_least_once", &command(task, function)?, &ends)?;
    let stop = vertex.stop_handle();
    print(&json!({ "begin": true }));
    let begin = Instant::now();
    let (warmup, measure) = (task.times.warmup, task.times.measure);
    thread::spawn(move || {
        thread::sleep(warmup + measure);
        stop.drain();
    });
    // The start of the worker is a part of it.
    let report = vertex.run().map_err(|error| failed(&error))?;
    let seconds = begin.elapsed().as_secs_f64();
    finish(&json!({ "messages": report.delivered, "seconds": seconds }))
}

/// A vertex from a file to files of epochs, effectively once, with its ledger in the same place; to the end of the file.
pub(super) fn epochs(task: &Task, place: &Path) -> Result<(), Stop> {
    let dir = tempfile::tempdir_in(place).map_err(|error| failed(&error))?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let records = (RATE * task.times.measure.as_secs_f64()) as u64;
    write(&dir.path().join("in"), records, task.size).map_err(|error| failed(&error))?;
    let ends = format!(
        "[source]
        kind = \"file\"
        path = {:?}
        [[sink]]
        name = \"main\"
        kind = \"file\"
        mode = \"epoch\"
        dir = {:?}
        [ledger]
        path = {:?}",
        path("in"),
        path("out"),
        path("ledger"),
    );
    let vertex = start(task, "effectively_once", &command(task, Function::Rust)?, &ends)?;
    let control = vertex.control();
    print(&json!({ "begin": true }));
    let begin = Instant::now();
    let report = vertex.run().map_err(|error| failed(&error))?;
    let seconds = begin.elapsed().as_secs_f64();
    if report.delivered != records {
        return Err(failed(&format_args!("{} of {records} records were delivered", report.delivered)));
    }
    // A process that is ended by its runner removes nothing.
    drop(dir);
    let status = control.last_status();
    let lag = status.histograms.get("commit_lag_seconds").and_then(|lags| upper(lags, 0.99));
    finish(&json!({ "messages": records, "seconds": seconds, "commit_lag_p99_ns": lag }))
}

fn start(task: &Task, delivery: &str, command: &str, ends: &str) -> Result<Vertex, Stop> {
    let text = format!(
        "version = 1
        [pipeline]
        name = \"bench\"
        uid = \"00000000000000be\"
        delivery = {delivery:?}
        [batch]
        max_records = {}
        [transport]
        max_in_flight = {}
        [udf]
        command = {command}
        {ends}",
        task.batch, task.flight,
    );
    let pipeline: Pipeline = text.parse().map_err(|error| failed(&error))?;
    Vertex::start(pipeline).map_err(|error| failed(&error))
}

/// How the function is started, as the file of a pipeline has it.
fn command(task: &Task, function: Function) -> Result<String, Stop> {
    let form = match function {
        Function::Rust => {
            let program = std::env::current_exe().map_err(|error| failed(&error))?;
            return Ok(format!("[{program:?}, \"--quiet\", \"vertex\", \"bench-peer\", \"worker\"]"));
        }
        Function::Python => "list",
        Function::Table => "table",
    };
    let size = task.size.to_string();
    Ok(format!("{:?}", [&task.python, "-c", include_str!("function.py"), form, &size]))
}

/// Lines of `size` bytes.
fn write(path: &Path, records: u64, size: usize) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut line = String::new();
    for number in 0..records {
        line.clear();
        // Writing to a string does not fail.
        let _ = write!(line, "{number:0size$}");
        writeln!(file, "{line}")?;
    }
    file.into_inner()?.sync_all()
}

/// The bound under which this share of the values is.
fn upper(values: &Histogram, share: f64) -> Option<u64> {
    let least = (values.count() as f64 * share).ceil() as u64;
    let mut sum = 0;
    let place = values.counts.iter().position(|count| {
        sum += count;
        sum >= least
    });
    values.bounds.get(place?).copied().filter(|_| values.count() > 0)
}

/// Records of the file for each second of the measurement: the least rate that is wanted.
const RATE: f64 = 200e3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_its_share() {
        let mut values = Histogram::up_to(1_000);
        assert_eq!(upper(&values, 0.99), None);
        (0..99).for_each(|_| values.add(9));
        values.add(600);
        assert_eq!((upper(&values, 0.99), upper(&values, 0.991)), (Some(10), Some(1_000)));
    }
}
