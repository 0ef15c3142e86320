//! Whole vertices between a server's streams: their pipeline files, the functions that their workers run, and runtimes as
//! processes of their own.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::Config;
use rustix::process::{Pid, Signal, kill_process};
use tidegate_udf::{Ctx, Emit, Outcome, Record, worker};
use tidegate_vertex::{
    config::Pipeline,
    run::{Report, Vertex},
};

use crate::server::{Server, is_stopped, plain, strict};

const FUNCTION: &str = "TIDEGATE_TEST_FUNCTION";
const RUNTIME: &str = "TIDEGATE_TEST_RUNTIME";

/// What every worker runs.
#[test]
fn worker_process() {
    let Ok(function) = std::env::var(FUNCTION) else { return };
    let worker = worker();
    let worker = match function.as_str() {
        "keyed" => worker.map("keyed", keyed),
        "second try" => worker.map("second try", second_try()),
        "second fails" => worker.map("second fails", second_fails),
        held if held.starts_with('/') => worker.map("held", held_by(held.into())),
        _ => worker.map("upper", upper),
    };
    worker.run().unwrap();
}

fn upper(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    out.record().value(&record.value().to_ascii_uppercase());
    Outcome::ok()
}

/// Fails on the second record of each partition.
fn second_fails(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.value().ends_with(b"-1") { Outcome::fail("never") } else { upper(record, ctx, out) }
}

/// Returns nothing before this file is there.
fn held_by(file: PathBuf) -> impl FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome {
    move |record, ctx, out| {
        until("let go", || file.exists());
        upper(record, ctx, out)
    }
}

/// Has every third input for the first time go back to the source, and fails on every other third.
fn second_try() -> impl FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome {
    let mut seen = BTreeSet::new();
    move |record, ctx, out| {
        let position = record.position().0;
        match position % 3 {
            rest @ (1 | 2) if seen.insert(position) => match rest {
                1 => Outcome::nack(Duration::from_millis(1), "not yet"),
                _ => Outcome::fail("not yet"),
            },
            _ => upper(record, ctx, out),
        }
    }
}

/// The key is the value without all but the last of its digits: `p0-17` has the key `p0-7`.
fn keyed(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    let value = std::str::from_utf8(record.value()).unwrap();
    let (prefix, number) = value.rsplit_once('-').unwrap();
    out.record().key(format!("{prefix}-{}", &number[number.len() - 1..]).as_bytes()).value(value.as_bytes());
    Outcome::ok()
}

/// What every runtime runs until it is killed: a pipeline file.
#[test]
fn runtime_process() {
    let Some(file) = std::env::var_os(RUNTIME) else { return };
    Vertex::start(Pipeline::read(Path::new(&file)).unwrap()).unwrap().run().unwrap();
}

/// A server, a place, and the pipeline that runs between its streams. `URL` and `INSTANCE` stand for what they say.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) delivery: &'static str,
    pub(crate) function: &'static str,
    /// Further keys of `[udf]`.
    pub(crate) udf: &'static str,
    /// Keys of `[source]`.
    pub(crate) source: &'static str,
    /// The tables of the sinks.
    pub(crate) sinks: &'static str,
    /// Further tables.
    pub(crate) rest: &'static str,
}

impl World {
    /// Copies the records of two partitions in upper case, at least once.
    pub(crate) fn new(sinks: &'static str) -> Self {
        let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
        let (delivery, function) = ("at_least_once", "upper");
        Self { server, dir, delivery, function, udf: "", source: PARTITIONED, sinks, rest: "" }
    }

    /// Makes a strict stream for each of two partitions.
    pub(crate) fn create_strict(&self) {
        for partition in 0..2 {
            let name = format!("OUT{partition}");
            self.server.create(Config { subjects: vec![format!("{name}.>")], ..strict(&name) });
        }
    }

    /// Fills the stream of the source with records of two partitions that come mixed.
    pub(crate) fn produce(&self, numbers: Range<u64>) {
        let share = (numbers.end - numbers.start).div_ceil(10).max(1);
        for first in numbers.clone().step_by(share as usize) {
            for partition in 0..2 {
                let part = first..numbers.end.min(first + share);
                let values = part.map(|number| format!("p{partition}-{number}"));
                self.server.produce(&format!("in.{partition}"), values);
            }
        }
    }

    /// The stream of the source, with so many records of each partition.
    pub(crate) fn input(&self, records: u64) {
        self.server.create(plain("IN", "in.*"));
        self.produce(0..records);
    }

    pub(crate) fn text(&self, instance: &str) -> String {
        let Self { server, dir, delivery, function, udf, source, sinks, rest } = self;
        let program = std::env::current_exe().unwrap();
        let text = format!(
            "version = 1
            [pipeline]
            name = \"test\"
            uid = \"00000000000000aa\"
            delivery = {delivery:?}
            [epoch]
            interval = \"50ms\"
            max_records = 100
            [batch]
            max_records = 40
            max_bytes = \"64KiB\"
            [transport]
            ring = \"1MiB\"
            max_frame = \"256KiB\"
            max_response = \"1MiB\"
            [source]
            {source}
            {sinks}
            {rest}
            [ledger]
            path = {ledger:?}
            [udf]
            command = [{program:?}, \"--exact\", \"world::worker_process\", \"--nocapture\"]
            env = {{ {FUNCTION} = {function:?} }}
            attach_timeout = \"5m\"
            batch_timeout = \"5m\"
            {udf}",
            ledger = dir.path().join(instance),
        );
        let text = text.replace("URL", &format!("{:?}", server.url()));
        text.replace("INSTANCE", &format!("{instance:?}"))
    }

    pub(crate) fn pipeline(&self, instance: &str) -> Pipeline {
        self.text(instance).parse().unwrap()
    }

    /// Starts a runtime.
    pub(crate) fn start(&self, instance: &str) -> Process {
        self.start_until(instance, "")
    }

    /// Starts a runtime that ends or stops itself at a named step.
    pub(crate) fn start_until(&self, instance: &str, failpoint: &str) -> Process {
        let file = self.dir.path().join(format!("{instance}.toml"));
        fs::write(&file, self.text(instance)).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "world::runtime_process", "--nocapture"])
            .env(RUNTIME, file)
            .env("TIDEGATE_VX_FAILPOINT", failpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }

    /// Runs vertices until all is `done`: kills one at each of these numbers of `stored` messages, and lets the last one end.
    pub(crate) fn kill_on_the_way(&self, aims: &[u64], stored: impl Fn() -> u64, done: impl Fn() -> bool) {
        for aim in aims {
            let mut runtime = self.start("one");
            until("written", || {
                assert!(runtime.0.try_wait().unwrap().is_none(), "the runtime ended");
                stored() >= *aim
            });
        }
        self.run_until("complete", done);
    }

    /// Runs a vertex here until this is so, and lets it end.
    pub(crate) fn run_until(&self, what: &str, done: impl Fn() -> bool) -> Report {
        let vertex = Vertex::start(self.pipeline("one")).unwrap();
        let stop = vertex.stop_handle();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| vertex.run().unwrap());
            until(what, || {
                assert!(!running.is_finished(), "the vertex ended");
                done()
            });
            stop.drain();
            running.join().unwrap()
        })
    }

    /// Messages of streams.
    pub(crate) fn stored(&self, streams: &[&str]) -> u64 {
        let nats = self.server.connect();
        streams.iter().map(|stream| nats.stream(stream).unwrap().1.state.messages).sum()
    }

    /// Outputs in the strict streams; barriers are messages, too.
    pub(crate) fn outputs(&self) -> u64 {
        let data = |partition| format!("OUT{partition}.{partition}.data");
        (0..2).map(|partition| self.server.count(&format!("OUT{partition}"), &data(partition))).sum()
    }

    /// Every output is in the strict streams once and in order.
    pub(crate) fn is_whole(&self, records: u64) {
        for partition in 0..2 {
            let values = self.server.values(&format!("OUT{partition}"));
            assert!(values == expected(partition, 0..records), "partition {partition}: {}", values.len());
        }
    }
}

/// The outputs of these inputs.
pub(crate) fn expected(partition: u32, numbers: Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("P{partition}-{number}")).collect()
}

/// A process that ends with its value.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until it has stopped itself; whether it did, and did not end.
    pub(crate) fn stops(&mut self) -> bool {
        let mut stopped = false;
        until("stopped", || {
            stopped = is_stopped(self.0.id());
            stopped || self.0.try_wait().unwrap().is_some()
        });
        stopped
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(180);
    while !done() {
        assert!(Instant::now() < give_up, "not {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A subject for each of two partitions.
pub(crate) const PARTITIONED: &str = "kind = \"jetstream\"
    mode = \"partition\"
    url = URL
    stream = \"IN\"
    subject = \"in.{partition}\"
    partitions = 2
    prefetch = \"64KiB\"
    idle_cursor = \"1s\"";

pub(crate) const STRICT: &str = "[[sink]]
    name = \"main\"
    kind = \"jetstream\"
    mode = \"strict\"
    url = URL
    stream = \"OUT{partition}\"
    prefix = \"OUT{partition}\"";

pub(crate) const IDS: &str = "[[sink]]
    name = \"main\"
    kind = \"jetstream\"
    mode = \"ids\"
    url = URL
    stream = \"OUT\"
    subject = \"out.{partition}\"";

/// Ownership in a bucket of the same server.
pub(crate) const SHARED: &str = "[ownership]
    kind = \"jetstream\"
    url = URL
    lease = \"1s\"
    instance = INSTANCE
    rebalance_interval = \"1s\"";
