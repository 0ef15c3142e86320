//! Two vertices, one bucket of ownership: owners that are killed and stopped, in `effectively_once` between streams.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tidegate_udf::{Ctx, Emit, Outcome, Record, worker};
use tidegate_vertex::{config::Pipeline, run::Vertex};

use crate::server::{Server, plain, strict};

const FUNCTION: &str = "TIDEGATE_TEST_TAKEOVER_FUNCTION";
const RUNTIME: &str = "TIDEGATE_TEST_TAKEOVER_RUNTIME";
const PARTITIONS: u32 = 2;
const RECORDS: u64 = 2_000;

/// What every worker runs.
#[test]
fn worker_process() {
    if std::env::var_os(FUNCTION).is_some() {
        worker().map("number", number).run().unwrap();
    }
}

fn number(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    out.record().value(record.value());
    Outcome::ok()
}

/// What every vertex runs: `<url>|<instance>|<directory>`.
#[test]
fn runtime_process() {
    let Ok(role) = std::env::var(RUNTIME) else { return };
    let parts: Vec<&str> = role.split('|').collect();
    let [url, instance, dir] = parts[..] else { panic!("{role}") };
    Vertex::start(pipeline(url, instance, Path::new(dir))).unwrap().run().unwrap();
}

fn pipeline(url: &str, instance: &str, dir: &Path) -> Pipeline {
    let program = std::env::current_exe().unwrap();
    let text = format!(
        "version = 1
        [pipeline]
        name = \"takeover\"
        uid = \"00000000000000aa\"
        delivery = \"effectively_once\"
        [ownership]
        kind = \"jetstream\"
        url = {url:?}
        lease = \"2s\"
        instance = {instance:?}
        rebalance_interval = \"1s\"
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
        kind = \"jetstream\"
        mode = \"partition\"
        url = {url:?}
        stream = \"IN\"
        subject = \"in.{{partition}}\"
        partitions = {PARTITIONS}
        prefetch = \"64KiB\"
        [[sink]]
        name = \"main\"
        kind = \"jetstream\"
        mode = \"strict\"
        url = {url:?}
        stream = \"OUT{{partition}}\"
        prefix = \"OUT{{partition}}\"
        [ledger]
        path = {ledger:?}
        [udf]
        command = [{program:?}, \"--exact\", \"takeover::worker_process\", \"--nocapture\"]
        env = {{ {FUNCTION} = \"1\" }}
        attach_timeout = \"5m\"
        batch_timeout = \"5m\"",
        ledger = dir.join(instance),
    );
    text.parse().unwrap()
}

struct Process(Child);

impl Process {
    fn start(server: &Server, instance: &str, dir: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "takeover::runtime_process", "--nocapture"])
            .env(RUNTIME, format!("{}|{instance}|{}", server.url(), dir.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(180);
    while !done() {
        assert!(Instant::now() < give_up, "not {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn produce(server: &Server, numbers: std::ops::Range<u64>) {
    for partition in 0..PARTITIONS {
        server.produce(&format!("in.{partition}"), numbers.clone().map(|number| number.to_string()));
    }
}

fn stored(server: &Server) -> u64 {
    (0..PARTITIONS).map(|partition| server.values(&format!("OUT{partition}")).len() as u64).sum()
}

/// The first vertex is stopped beyond its lease, the second takes over and is killed, the first wakes as a contender and finishes:
/// every output is there once and in order.
/// Cases: CT-30, CT-38.
/// Rules: VX-716, VX-717, VX-763, VX-781.
#[test]
fn owners_that_are_stopped_and_killed_leave_every_output_once() {
    let server = Server::start();
    server.create(plain("IN", "in.*"));
    for partition in 0..PARTITIONS {
        let name = format!("OUT{partition}");
        server.create(async_nats::jetstream::stream::Config {
            subjects: vec![format!("{name}.>")],
            ..strict(&name)
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(&server, "first", dir.path());
    produce(&server, 0..RECORDS);
    until("begun", || stored(&server) > 500);
    first.signal(Signal::STOP);
    let before = stored(&server);
    let second = Process::start(&server, "second", dir.path());
    produce(&server, RECORDS..2 * RECORDS);
    until("taken over", || stored(&server) > before + 500);
    first.signal(Signal::CONT);
    drop(second);
    until("complete", || stored(&server) >= 2 * RECORDS * u64::from(PARTITIONS));
    let expected: Vec<String> = (0..2 * RECORDS).map(|number| number.to_string()).collect();
    for partition in 0..PARTITIONS {
        assert!(server.values(&format!("OUT{partition}")) == expected, "partition {partition}");
    }
}
