//! A vertex from a generator over the function to nowhere.

use std::thread;
use std::time::Instant;

use serde_json::json;
use tidegate::vertex::config::Pipeline;
use tidegate::vertex::run::Vertex;

use super::{Task, failed};
use crate::cli::bench::peer::{finish, print};
use crate::output::Stop;

pub(super) fn run(task: &Task) -> Result<(), Stop> {
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let text = format!(
        "version = 1
        [pipeline]
        name = \"bench\"
        delivery = \"at_least_once\"
        [batch]
        max_records = {}
        [transport]
        max_in_flight = {}
        [udf]
        command = [{:?}, \"--quiet\", \"vertex\", \"bench-peer\", \"worker\"]
        [source]
        kind = \"generator\"
        records = {}
        bytes = \"{}B\"
        [[sink]]
        name = \"main\"
        kind = \"blackhole\"",
        task.batch,
        task.flight,
        program,
        i64::MAX,
        task.size,
    );
    let pipeline: Pipeline = text.parse().map_err(|error| failed(&error))?;
    let vertex = Vertex::start(pipeline).map_err(|error| failed(&error))?;
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
