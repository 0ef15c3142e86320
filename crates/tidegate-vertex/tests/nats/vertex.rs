//! Whole vertices between two streams, killed and started again.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tidegate_udf::{Ctx, Emit, Outcome, Record, worker};
use tidegate_vertex::{config::Pipeline, ledger::inspect, run::Vertex, source::SourceError};

use crate::server::{Server, plain, strict};

const FUNCTION: &str = "TIDEGATE_TEST_FUNCTION";
const RUNTIME: &str = "TIDEGATE_TEST_RUNTIME";
const RECORDS: u64 = 3_000;

/// What every worker runs.
#[test]
fn worker_process() {
    if std::env::var_os(FUNCTION).is_some() {
        worker().map("upper", upper).run().unwrap();
    }
}

fn upper(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    out.record().value(&record.value().to_ascii_uppercase());
    Outcome::ok()
}

/// What every runtime runs until it is killed: `<url>|<mode>|<directory>`.
#[test]
fn runtime_process() {
    let Ok(role) = std::env::var(RUNTIME) else { return };
    let parts: Vec<&str> = role.split('|').collect();
    let [url, mode, dir] = parts[..] else { panic!("{role}") };
    Vertex::start(pipeline(url, mode, Path::new(dir))).unwrap().run().unwrap();
}

fn pipeline(url: &str, mode: &str, dir: &Path) -> Pipeline {
    let program = std::env::current_exe().unwrap();
    let sink = match mode {
        "strict" => "mode = \"strict\"\nstream = \"OUT{partition}\"\nprefix = \"OUT{partition}\"",
        _ => "mode = \"ids\"\nstream = \"OUT\"\nsubject = \"out.{partition}\"",
    };
    let text = format!(
        "version = 1
        [pipeline]
        name = \"test\"
        uid = \"00000000000000aa\"
        delivery = \"at_least_once\"
        [epoch]
        interval = \"50ms\"
        [batch]
        max_records = 40
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
        partitions = 2
        prefetch = \"64KiB\"
        [[sink]]
        name = \"main\"
        kind = \"jetstream\"
        url = {url:?}
        {sink}
        [ledger]
        path = {ledger:?}
        [udf]
        command = [{program:?}, \"--exact\", \"vertex::worker_process\", \"--nocapture\"]
        env = {{ {FUNCTION} = \"upper\" }}
        attach_timeout = \"5m\"
        batch_timeout = \"5m\"",
        ledger = dir.join("ledger"),
    );
    // Batches as large as their frames allow.
    text.replace("max_records = 40", "max_records = 40\nmax_bytes = \"64KiB\"").parse().unwrap()
}

fn runtime(url: &str, mode: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "vertex::runtime_process", "--nocapture"])
        .env(RUNTIME, format!("{url}|{mode}|{}", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Streams with records of two partitions that come mixed.
fn input(server: &Server) {
    server.create(plain("IN", "in.*"));
    for part in 0..10 {
        for partition in 0..2 {
            let share = RECORDS / 10;
            let numbers = part * share..(part + 1) * share;
            server
                .produce(&format!("in.{partition}"), numbers.map(|number| format!("p{partition}-{number}")));
        }
    }
}

fn expected(partition: u32) -> Vec<String> {
    (0..RECORDS).map(|number| format!("P{partition}-{number}")).collect()
}

fn stored(server: &Server, stream: &str) -> u64 {
    server.connect().stream(stream).unwrap().1.state.messages
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(180);
    while !done() {
        assert!(Instant::now() < give_up, "not {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs vertices until the streams have so many messages together, killing some of them on the way.
fn killed_on_the_way(server: &Server, mode: &str, streams: &[&str], dir: &Path) {
    let all = || streams.iter().map(|stream| stored(server, stream)).sum::<u64>();
    for share in 1..=3 {
        let mut runtime = runtime(&server.url(), mode, dir);
        let aim = RECORDS * 2 * share / 4;
        until("written", || {
            assert!(runtime.try_wait().unwrap().is_none(), "the runtime ended");
            all() >= aim
        });
        runtime.kill().unwrap();
        runtime.wait().unwrap();
    }
    let last = Vertex::start(pipeline(&server.url(), mode, dir)).unwrap();
    let stop = last.stop_handle();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| last.run().unwrap());
        // Barriers are messages too; the last ones are there when nothing more comes.
        until("complete", || {
            streams.iter().map(|stream| server.values(stream).len() as u64).sum::<u64>() >= RECORDS * 2
        });
        stop.drain();
        running.join().unwrap();
    });
}

/// Cases: CT-38.
/// Rules: VX-835, VX-836, VX-840, VX-845, VX-848.
#[test]
fn strict_streams_have_every_output_once_however_often_the_vertex_is_killed() {
    let server = Server::start();
    input(&server);
    for partition in 0..2 {
        let name = format!("OUT{partition}");
        server.create(async_nats::jetstream::stream::Config {
            subjects: vec![format!("{name}.>")],
            ..strict(&name)
        });
    }
    let dir = tempfile::tempdir().unwrap();
    killed_on_the_way(&server, "strict", &["OUT0", "OUT1"], dir.path());
    for partition in 0..2 {
        assert!(server.values(&format!("OUT{partition}")) == expected(partition), "partition {partition}");
    }
}

/// Cases: CT-38, CT-40.
/// Rules: VX-835, VX-843, VX-844.
#[test]
fn a_stream_with_ids_has_every_output_once_however_often_the_vertex_is_killed() {
    let server = Server::start();
    input(&server);
    server.create(plain("OUT", "out.*"));
    let dir = tempfile::tempdir().unwrap();
    killed_on_the_way(&server, "ids", &["OUT"], dir.path());
    let values = server.values("OUT");
    for partition in 0..2 {
        let prefix = format!("P{partition}-");
        let own: Vec<&String> = values.iter().filter(|value| value.starts_with(&prefix)).collect();
        assert!(own.iter().copied().eq(&expected(partition)), "partition {partition}");
    }
}

/// Cases: CT-48.
/// Rules: VX-832, VX-833.
#[test]
fn a_stream_that_was_made_anew_or_trimmed_is_refused() {
    let server = Server::start();
    input(&server);
    server.create(plain("OUT", "out.*"));
    let dir = tempfile::tempdir().unwrap();
    // One that is killed before its first commit remembers nothing that could be missed.
    let ledger = dir.path().join("ledger");
    let has_committed = || {
        let found = inspect(&ledger, None).unwrap();
        found.is_some_and(|found| found.to_string().contains(r#""status":"committed""#))
    };
    while !has_committed() {
        let mut runtime = runtime(&server.url(), "ids", dir.path());
        until("written", || stored(&server, "OUT") >= 500);
        runtime.kill().unwrap();
        runtime.wait().unwrap();
    }
    let nats = server.connect();
    let refused = || match Vertex::start(pipeline(&server.url(), "ids", dir.path())).err().unwrap() {
        tidegate_vertex::run::VertexError::Source(error) => error,
        other => panic!("{other}"),
    };
    let (stream, info) = nats.stream("IN").unwrap();
    nats.wait(async { stream.purge().sequence(info.state.last_sequence).await }).unwrap().unwrap();
    let error = refused();
    assert!(matches!(error, SourceError::Trimmed { .. }), "{error}");
    nats.wait(nats.context().delete_stream("IN")).unwrap().unwrap();
    input(&server);
    let error = refused();
    assert!(
        matches!(error, SourceError::Replaced { what: "the time when the stream was made", .. }),
        "{error}"
    );
}
