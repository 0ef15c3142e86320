//! Orders to all vertices of a pipeline, over the store that they share partitions by: real processes, a real NATS server, and a
//! worker that is this binary again.
#![cfg(feature = "nats")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Outcome as Finished, Running, eventually, tidegate};
use tidegate_udf::{Ctx, Emit, Outcome, Record, worker};

const ROLE: &str = "TIDEGATE_TEST_WORKER";

fn copy(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    out.record().value(record.value());
    Outcome::ok()
}

/// What the vertices run.
/// Rules: VX-500.
#[test]
fn worker_process() {
    let ended = worker().map("copy", copy).run();
    if std::env::var_os(ROLE).is_some() {
        return ended.unwrap();
    }
    ended.unwrap_err();
}

/// A server with a place of its own.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
    url: String,
}

impl Server {
    fn start() -> Self {
        let dir = support::place();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("nats-server")
            // Debian puts it where only root looks.
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(dir.path().join("store"))
            .arg("--ports_file_dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server; run: apt-get install nats-server");
        let ports = dir.path().join(format!("nats-server_{}.ports", child.id()));
        let url = eventually("a server", || {
            let text = fs::read_to_string(&ports).ok()?;
            let port = text.split_once("127.0.0.1:")?.1.split('"').next()?.to_owned();
            std::net::TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
            Some(format!("nats://127.0.0.1:{port}"))
        });
        Self { child, dir, url }
    }

    /// The pipeline file of an instance; without a name, of one that has no others.
    fn file(&self, instance: Option<&str>) -> PathBuf {
        let program = std::env::current_exe().unwrap();
        let (name, url) = (instance.unwrap_or("alone"), &self.url);
        let ownership = match instance {
            Some(name) => {
                format!(
                    "[ownership]\nkind = \"jetstream\"\nurl = {url:?}\nlease = \"2s\"\ninstance = {name:?}"
                )
            }
            None => String::new(),
        };
        let text = format!(
            "version = 1
            [pipeline]
            name = \"test\"
            uid = \"00000000000000aa\"
            delivery = \"at_least_once\"
            [udf]
            command = [{program:?}, \"--exact\", \"worker_process\", \"--nocapture\"]
            batch_timeout = \"10m\"
            attach_timeout = \"5m\"
            env = {{ {ROLE} = \"1\" }}
            [source]
            kind = \"generator\"
            partitions = 2
            records = 1000000000
            [[sink]]
            name = \"main\"
            kind = \"blackhole\"
            [ledger]
            path = {ledger:?}
            [admin]
            socket = {socket:?}
            {ownership}",
            ledger = self.dir.path().join(format!("{name}.ledger")),
            socket = self.dir.path().join(format!("{name}.sock")),
        );
        let file = self.dir.path().join(format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        file
    }

    fn ask(&self, args: &[&str], file: &PathBuf) -> Finished {
        let mut command = tidegate();
        command.arg("vertex").args(args).arg("-c").arg(file).arg("--json");
        Running::start(&mut command).finish()
    }

    fn holdings(&self, file: &PathBuf) -> Vec<Value> {
        let asked = self.ask(&["group"], file).exits(0);
        asked.result()["partitions"].as_array().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rules: VX-704, VX-710, VX-860, VX-866.
#[test]
fn orders_reach_every_vertex_of_a_pipeline() {
    let server = Server::start();
    let files = ["first", "second"].map(|name| server.file(Some(name)));
    // Before the first vertex there is nobody to tell.
    let (code, message) = server.ask(&["fence", "--all", "--everywhere"], &files[0]).exits(69).error();
    assert!(code == "ownership" && message.contains("KV_tgvx_test"), "{code}: {message}");
    let _running: Vec<Running> =
        files.iter().map(|file| Running::start(tidegate().args(["vertex", "run", "-c"]).arg(file))).collect();
    eventually("a store", || (server.ask(&["group"], &files[0]).code == Some(0)).then_some(()));
    let owned = |holdings: &[Value]| holdings.iter().all(|holding| holding["owner"].is_string());
    let before = eventually("owners", || Some(server.holdings(&files[0])).filter(|found| owned(found)));
    let generation = |holdings: &[Value]| holdings[1]["generation"].as_u64().unwrap();
    // Whoever has it.
    let told = server.ask(&["fence", "--partition", "1", "--everywhere"], &files[0]).exits(0).result();
    assert_eq!((&told["order"], &told["partition"]), (&"fence".into(), &1.into()));
    eventually("a new session", || {
        let now = server.holdings(&files[1]);
        (owned(&now) && generation(&now) > generation(&before)).then_some(())
    });
    let drained = server.ask(&["drain", "--everywhere", "--timeout", "2m"], &files[1]).exits(0).result();
    assert_eq!(drained["drained"], true);
    let holdings = server.holdings(&files[0]);
    assert!(holdings.iter().all(|holding| holding["owner"].is_null() && holding["wanted"] == "drain"));
    server.ask(&["resume", "--everywhere"], &files[0]).exits(0);
    eventually("owners", || owned(&server.holdings(&files[0])).then_some(()));
    server.ask(&["pause", "--everywhere"], &files[0]).exits(0);
    assert!(server.holdings(&files[0]).iter().all(|holding| holding["wanted"] == "pause"));
}

/// Rules: VX-860.
#[test]
fn what_cannot_be_ordered_is_refused_with_its_exit_code() {
    let server = Server::start();
    let alone = server.file(None);
    let (code, message) = server.ask(&["pause", "--everywhere"], &alone).exits(65).error();
    assert!(code == "config" && message.contains("ownership.kind has to be \"jetstream\""), "{message}");
    let mut command = tidegate();
    command.args(["vertex", "fence", "--all", "--everywhere", "--json"]);
    Running::start(&mut command).finish().exits(64);
    let file = server.file(Some("first"));
    let _running = Running::start(tidegate().args(["vertex", "run", "-c"]).arg(&file));
    eventually("a store", || (server.ask(&["group"], &file).code == Some(0)).then_some(()));
    let (code, message) = server.ask(&["fence", "--partition", "2", "--everywhere"], &file).exits(3).error();
    assert!(code == "not_found" && message.contains("no partition 2"), "{message}");
}
