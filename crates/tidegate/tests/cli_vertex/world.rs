//! Places of vertices, their pipeline files, and the functions that their workers run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::Signal;
use serde_json::Value;
use tidegate_udf::{Ctx, Emit, Level, Outcome, Record, WorkerError, worker};

use crate::support::{Outcome as Finished, Running, eventually, place, tidegate};

/// Names what a worker runs.
pub(crate) const FUNCTION: &str = "TIDEGATE_TEST_FUNCTION";
const GATE: &str = "TIDEGATE_TEST_GATE";

/// What the vertices run; by itself it shows that a worker without a runtime says what to do.
/// Rules: VX-500.
#[test]
fn worker_process() {
    match std::env::var(FUNCTION).as_deref() {
        Ok("upper") => worker().map("upper", upper).run().unwrap(),
        Ok(_) => worker().map("copy", copy).run().unwrap(),
        Err(_) => {
            let error = worker().map("copy", copy).run().unwrap_err();
            assert!(matches!(error, WorkerError::NotManaged), "{error}");
            assert!(error.to_string().contains("udf.command"), "{error}");
        }
    }
}

fn upper(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    match record.value() {
        b"bad" => return Outcome::reject("bad"),
        b"skip" => return Outcome::drop("skipped"),
        b"talk" => {
            ctx.log(Level::Warn, "one\nline", &[("bytes", record.value().len().into())]);
            ctx.count("talks", 1);
        }
        _ => {}
    }
    out.record().value(&record.value().to_ascii_uppercase());
    Outcome::ok()
}

fn copy(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    // Held as long as the file is there.
    if let Some(gate) = std::env::var_os(GATE) {
        while Path::new(&gate).exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    out.record().value(record.value());
    Outcome::ok()
}

/// The command of a worker.
pub(crate) fn command() -> [String; 4] {
    let program = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    [program, "--exact".to_owned(), "world::worker_process".to_owned(), "--nocapture".to_owned()]
}

/// Two partitions that do not end.
pub(crate) const ENDLESS: &str = "[source]
    kind = \"generator\"
    partitions = 2
    records = 1000000000";

pub(crate) const BLACKHOLE: &str = "[[sink]]
    name = \"main\"
    kind = \"blackhole\"";

/// A vertex that copies, with a place of its own. Its worker is held while the file `gate` is there.
pub(crate) struct Vertex {
    pub(crate) dir: tempfile::TempDir,
}

impl Vertex {
    pub(crate) fn new() -> Self {
        Self { dir: place() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its pipeline file, with these tables beside those of every vertex here.
    pub(crate) fn file(&self, tables: &str) -> PathBuf {
        let text = format!(
            "version = 1
            [pipeline]
            name = \"test\"
            uid = \"00000000000000aa\"
            delivery = \"at_least_once\"
            [udf]
            command = {command:?}
            batch_timeout = \"10m\"
            attach_timeout = \"5m\"
            env = {{ {FUNCTION} = \"copy\", {GATE} = {gate:?} }}
            [ledger]
            path = {ledger:?}
            {tables}",
            command = command(),
            gate = self.path("gate"),
            ledger = self.path("ledger"),
        );
        let file = self.path("pipeline.toml");
        fs::write(&file, text).unwrap();
        file
    }

    /// What runs it.
    pub(crate) fn command(&self, tables: &str) -> Command {
        let mut command = tidegate();
        command.args(["vertex", "run", "-c"]).arg(self.file(tables)).env("TIDEGATE_DIR", self.dir.path());
        command
    }

    /// Runs it until its worker is there.
    pub(crate) fn start(&self, tables: &str) -> Running {
        let running = Running::start(&mut self.command(tables));
        self.until(|status| status["lanes"][0]["ready"] == true);
        running
    }

    pub(crate) fn ask(&self, args: &[&str]) -> Finished {
        let mut command = tidegate();
        command.arg("vertex").args(args).arg("--json").env("TIDEGATE_DIR", self.dir.path());
        Running::start(&mut command).finish()
    }

    pub(crate) fn status(&self) -> Option<Value> {
        let asked = self.ask(&["status"]);
        (asked.code == Some(0)).then(|| asked.result())
    }

    /// Waits until the status is so.
    pub(crate) fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually("such a status", || self.status().filter(|status| is_so(status)))
    }

    /// Ends it in order. Nothing of it is left in its place but what was put there.
    pub(crate) fn stop(&self, running: Running) {
        running.signal(Signal::TERM);
        running.finish().exits(0);
        assert!(!self.path("vertex").exists(), "the directory of its admin socket");
    }
}

/// A process whose output nobody reads.
pub(crate) struct Unread(pub(crate) Child);

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
