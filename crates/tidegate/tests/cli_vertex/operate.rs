//! Status, fence, drain, pause and signals, over the admin socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Running, eventually, run as run_to_end, tidegate};
use crate::world::{BLACKHOLE, ENDLESS, FUNCTION, Unread, Vertex, command};

/// An endless source, small buffers, this sink, and as long for an end as it takes.
fn endless(sink: &str) -> String {
    format!(
        "{ENDLESS}
        {sink}
        [batch]
        max_records = 10
        max_bytes = \"8KiB\"
        [transport]
        ring = \"64KiB\"
        max_response = \"1MiB\"
        [limits]
        prefetch = \"1MiB\"
        [admin]
        shutdown_grace = \"10m\""
    )
}

fn sum(status: &Value, field: &str) -> u64 {
    status["partitions"].as_array().unwrap().iter().map(|partition| partition[field].as_u64().unwrap()).sum()
}

/// Rules: VX-307, VX-862, VX-867.
#[test]
fn the_status_says_where_everything_is() {
    let vertex = Vertex::new();
    let running = vertex.start(&endless(BLACKHOLE));
    let status = vertex.until(|status| {
        status["counts"]["delivered"].as_u64() > Some(100) && sum(status, "epoch_committed") > 1
    });
    assert_eq!((&status["pipeline"], &status["partitions"][1]["state"]), (&"test".into(), &"active".into()));
    assert_eq!(status["lanes"][0]["ready"], true);
    let credit = &status["lanes"][0]["requests"];
    assert!(
        credit["used_bytes"].as_u64() <= credit["granted_bytes"].as_u64()
            && credit["used_batches"].as_u64() > Some(0)
    );
    assert!(status["sinks"][0]["guarantee"].as_str().unwrap().contains("at least once"), "{status}");
    assert!(
        status["memory"]
            .as_array()
            .unwrap()
            .iter()
            .any(|term| term["term"] == "prefetch" && term["bound"] == 1 << 20)
    );
    let socket = vertex.path("vertex/test.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    vertex.stop(running);
    assert!(!socket.exists());
}

/// Where they come from is said by `validate`, and by `status` how many are there.
/// Rules: VX-420, VX-865.
#[test]
fn workers_that_somebody_else_starts_are_waited_for() {
    let vertex = Vertex::new();
    let mut run = vertex.command(&endless(BLACKHOLE));
    let (file, socket) = (vertex.path("pipeline.toml"), vertex.path("door/socket"));
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("env = "));
    let lines = lines.map(|line| match line.trim_start().starts_with("command = ") {
        true => format!("listen = {socket:?}\n"),
        false => format!("{line}\n"),
    });
    fs::write(&file, lines.collect::<String>()).unwrap();
    let file = file.to_str().unwrap();
    let valid = vertex.ask(&["validate", "-c", file]).exits(0).result();
    assert_eq!(valid["workers"], serde_json::json!({ "count": 1, "listen": socket }));
    let told = run_to_end(["vertex", "validate", "-c", file]).exits(0).stdout;
    assert!(told.contains(&format!("TIDEGATE_VX_SOCKET={}", socket.display())), "{told}");
    let running = Running::start(&mut run);
    eventually("an answer", || vertex.status());
    let status = vertex.until(|status| status["counts"]["read"].as_u64() > Some(0));
    assert_eq!((&status["outside"]["attached"], &status["outside"]["workers"]), (&0.into(), &1.into()));
    assert_eq!((&status["lanes"][0]["pid"], &status["counts"]["delivered"]), (&Value::Null, &0.into()));
    let [program, arguments @ ..] = command();
    let mut worker = Command::new(program);
    worker.args(arguments).env(FUNCTION, "copy").env("TIDEGATE_VX_SOCKET", &socket);
    let mut worker = worker.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let status = vertex.until(|status| status["counts"]["delivered"].as_u64() > Some(0));
    assert_eq!(status["outside"]["attached"], 1);
    assert_eq!(status["lanes"][0]["pid"], worker.id());
    let mut told = tidegate();
    let told = told.args(["vertex", "status"]).env("TIDEGATE_DIR", vertex.dir.path());
    let told = Running::start(told).finish().exits(0).stdout;
    assert!(told.contains(&format!("1 of 1 workers are attached at {}", socket.display())), "{told}");
    vertex.stop(running);
    assert!(worker.wait().unwrap().success());
    assert!(!socket.exists());
}

/// What records are is said by `validate` and `status`, and what does not fit by `run`, which ends with a code of its own.
/// Rules: VX-422, VX-860, VX-865.
#[test]
fn schemas_are_shown_and_a_worker_of_others_is_refused() {
    let vertex = Vertex::new();
    let schema = vertex.path("schema.json");
    fs::write(&schema, "{\n  \"type\": \"object\",\n  \"required\": [\"id\"]\n}\n").unwrap();
    let tables =
        |strict: bool| format!("{}\n[schema]\nin = {schema:?}\nstrict = {strict}\n", endless(BLACKHOLE));
    // Of {"required":["id"],"type":"object"}, by another program.
    let (id, text) = ("019679b717eb12d0", "schemas: in 019679b717eb12d0, out untyped bytes, not strict");
    let file = vertex.file(&tables(false));
    let file = file.to_str().unwrap();
    let expected = serde_json::json!({ "in": id, "out": null, "strict": false });
    assert_eq!(vertex.ask(&["validate", "-c", file]).exits(0).result()["schemas"], expected);
    let told = run_to_end(["vertex", "validate", "-c", file]).exits(0).stdout;
    assert!(told.contains(text), "{told}");
    let running = vertex.start(&tables(false));
    let status = vertex.until(|status| status["counts"]["delivered"].as_u64() > Some(0));
    assert_eq!(status["schemas"], expected);
    let mut told = tidegate();
    let told = told.args(["vertex", "status"]).env("TIDEGATE_DIR", vertex.dir.path());
    let told = Running::start(told).finish().exits(0).stdout;
    assert!(told.contains(text), "{told}");
    vertex.stop(running);
    let refused = Running::start(&mut vertex.command(&tables(true))).finish().exits(77).stderr;
    for part in [id, "the worker takes 0 (untyped bytes)", "schema.strict = false"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

/// Rules: VX-866.
#[test]
fn a_pause_ends_reading_and_a_resume_begins_it_again() {
    let vertex = Vertex::new();
    let running = vertex.start(&endless(BLACKHOLE));
    vertex.until(|status| status["counts"]["delivered"].as_u64() > Some(0));
    let paused = vertex.ask(&["pause", "--timeout", "1m"]).exits(0).result();
    assert_eq!((&paused["paused"], &paused["unfinished"]), (&true.into(), &0.into()));
    let read = vertex.status().unwrap()["counts"]["read"].clone();
    assert_eq!(vertex.status().unwrap()["counts"]["read"], read);
    vertex.ask(&["resume"]).exits(0);
    vertex.until(|status| status["counts"]["read"].as_u64() > read.as_u64());
    vertex.stop(running);
}

/// Rules: VX-704, VX-866.
#[test]
fn a_drain_finishes_commits_and_gives_away() {
    let vertex = Vertex::new();
    let running = vertex.start(&endless(BLACKHOLE));
    vertex.until(|status| status["counts"]["delivered"].as_u64() > Some(0));
    let one = vertex.ask(&["drain", "--partition", "1", "--timeout", "1m"]).exits(0).result();
    assert_eq!((&one["drained"], &one["partitions"][0]["state"]), (&true.into(), &"drained".into()));
    assert_eq!(vertex.status().unwrap()["partitions"][0]["state"], "active");
    assert_eq!(vertex.ask(&["drain", "--partition", "7"]).exits(3).error().0, "not_found");
    vertex.ask(&["drain", "--timeout", "1m", "--exit"]).exits(0);
    let finished = running.finish().exits(0);
    assert!(finished.stdout.contains(" 0 not finished"), "{}", finished.stdout);
    // What it says is what is there.
    let ledger = vertex.ask(&["inspect", vertex.path("ledger").to_str().unwrap()]).exits(0).result();
    let record = ledger["partitions"][0]["records"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(record["status"], "committed");
    assert!(record["resume"].as_u64() > Some(0), "{record}");
}

/// A drain that cannot be finished: the function holds everything.
/// Cases: CT-52.
/// Rules: VX-510, VX-866.
#[test]
fn a_drain_that_takes_too_long_says_what_is_left() {
    let vertex = Vertex::new();
    fs::write(vertex.path("gate"), "").unwrap();
    let running = vertex.start(&endless(BLACKHOLE));
    vertex.until(|status| sum(status, "unfinished") > 0);
    let answer = vertex.ask(&["drain", "--timeout", "100ms"]).exits(5).result();
    assert_eq!(answer["drained"], false);
    assert!(
        answer["unfinished"].as_u64() > Some(0) && answer["partitions"][0]["state"] == "draining",
        "{answer}"
    );
    // What the function works on is a copy: its place in the ring is free (VX-510).
    vertex.until(|status| {
        let lane = &status["lanes"][0];
        let (sent, in_ring) = (lane["in_flight"].as_u64(), lane["requests"]["outstanding_batches"].as_u64());
        sent > Some(1) && in_ring.map(|batches| batches + 1) == sent
    });
    fs::remove_file(vertex.path("gate")).unwrap();
    vertex.ask(&["drain", "--timeout", "1m", "--exit"]).exits(0);
    running.finish().exits(0);
}

/// A worker that never attaches: what was read stays, and whoever asks is told so.
/// Cases: CT-52.
/// Rules: VX-866.
#[test]
fn without_a_worker_a_drain_and_a_pause_say_what_is_left() {
    let vertex = Vertex::new();
    let mut command = vertex.command(&endless(BLACKHOLE));
    let file = vertex.path("pipeline.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, behind) = text.split_once("command = [").unwrap();
    let behind = behind.split_once(']').unwrap().1;
    fs::write(&file, format!("{before}command = [\"sleep\", \"1000\"]{behind}")).unwrap();
    let _running = Unread(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("an answer", || vertex.status());
    let status = vertex.until(|status| sum(status, "unfinished") > 0);
    assert_eq!((&status["lanes"][0]["ready"], &status["counts"]["delivered"]), (&false.into(), &0.into()));
    let paused = vertex.ask(&["pause", "--timeout", "50ms"]).exits(5).result();
    assert!(paused["paused"] == false && paused["unfinished"].as_u64() > Some(0), "{paused}");
    let drained = vertex.ask(&["drain", "--timeout", "50ms"]).exits(5).result();
    assert!(drained["drained"] == false && drained["unfinished"].as_u64() > Some(0), "{drained}");
    vertex.ask(&["fence", "--all", "--wait", "1m"]).exits(0);
}

/// A drain that could not end is over when the right to write goes.
/// Cases: CT-52.
/// Rules: VX-727, VX-866.
#[test]
fn a_revoke_ends_a_drain() {
    let vertex = Vertex::new();
    fs::write(vertex.path("gate"), "").unwrap();
    let running = vertex.start(&endless(BLACKHOLE));
    vertex.until(|status| status["partitions"][1]["unfinished"].as_u64() > Some(0));
    let mut command = tidegate();
    command.args(["vertex", "drain", "--partition", "1", "--timeout", "10m", "--json"]);
    let draining = Running::start(command.env("TIDEGATE_DIR", vertex.dir.path()));
    vertex.until(|status| status["partitions"][1]["state"] == "draining");
    vertex.ask(&["fence", "--partition", "1", "--wait", "1m"]).exits(0);
    let finished = draining.finish();
    assert_ne!(finished.code, Some(0), "{}", finished.stdout);
    let answer = finished.result();
    assert_eq!((&answer["drained"], &answer["partitions"][0]["state"]), (&false.into(), &"fenced".into()));
    fs::remove_file(vertex.path("gate")).unwrap();
    running.signal(Signal::TERM);
    running.finish().exits(75);
}

/// Standard output that nobody reads: the thread that runs the vertex is stuck in it. Nothing is read any more, what is in
/// memory stays within its bound, and the fence works.
/// Cases: CT-12, CT-28.
/// Rules: VX-310, VX-314, VX-725, VX-867, VX-905.
#[test]
fn a_sink_that_takes_nothing_stops_the_source_but_not_the_operator() {
    let vertex = Vertex::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = vertex.command(&endless("[[sink]]\nname = \"main\"\nkind = \"stdout\""));
    let _running = Unread(command.stdout(writer).stderr(Stdio::null()).spawn().unwrap());
    drop(command);
    eventually("an answer", || vertex.status());
    let stuck =
        |status: &Value| status["doing"] == "writing to a sink" && status["age_ms"].as_u64() > Some(1_000);
    let status = vertex.until(stuck);
    let later = vertex.until(|status| stuck(status) && status["age_ms"].as_u64() > Some(2_000));
    assert_eq!(status["counts"]["read"], later["counts"]["read"]);
    // What was read and is not with the sink fits into the window of each partition.
    let partitions = later["partitions"].as_array().unwrap();
    assert!(partitions.iter().all(|one| one["batches"].as_u64() <= Some(9)), "{later}");
    let pid = later["pid"].as_u64().unwrap();
    let memory = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").trim().parse().unwrap();
    let bound: u64 =
        later["memory"].as_array().unwrap().iter().map(|term| term["bound"].as_u64().unwrap()).sum();
    assert!(resident * 1024 <= bound + bound / 10, "{resident} kB resident, {bound} bytes are the bound");
    let fenced = vertex.ask(&["fence", "--all", "--wait", "50ms"]).exits(5).result();
    let all = fenced["fenced"].as_array().unwrap();
    assert!(
        all.iter().any(|one| one["quiesced"] == false && one["pending"].as_str().unwrap().contains("sink")),
        "{fenced}"
    );
    let status = vertex.status().unwrap();
    assert!(status["partitions"].as_array().unwrap().iter().all(|one| one["revoked"] == true), "{status}");
    drop(reader);
}

/// Rules: VX-724, VX-728, VX-860.
#[test]
fn a_fenced_vertex_ends_as_such() {
    let vertex = Vertex::new();
    let running = vertex.start(&endless(BLACKHOLE));
    let one = vertex.ask(&["fence", "--partition", "0", "--wait", "1m"]).exits(0).result();
    assert_eq!((&one["fenced"][0]["partition"], &one["fenced"][0]["quiesced"]), (&0.into(), &true.into()));
    let before = vertex.until(|status| status["partitions"][0]["state"] == "fenced");
    // The other one goes on.
    vertex.until(|status| {
        status["partitions"][1]["resume"].as_u64() > before["partitions"][1]["resume"].as_u64()
    });
    vertex.ask(&["fence", "--all", "--wait", "1m", "--reason", "a test"]).exits(0);
    running.finish().exits(75);
}

/// Rules: VX-727.
#[test]
fn the_second_signal_takes_the_right_to_write() {
    let vertex = Vertex::new();
    fs::write(vertex.path("gate"), "").unwrap();
    let running = vertex.start(&endless(BLACKHOLE));
    vertex.until(|status| sum(status, "unfinished") > 0);
    running.signal(Signal::TERM);
    vertex.until(|status| status["partitions"][0]["state"] == "draining");
    running.signal(Signal::TERM);
    running.finish().exits(75);
}

/// Rules: VX-860.
#[test]
fn wrong_usage_ends_with_64() {
    let vertex = Vertex::new();
    vertex.ask(&["run"]).exits(64);
    vertex.ask(&["fence"]).exits(64);
    vertex.ask(&["nonsense"]).exits(64);
    let (code, message) = vertex.ask(&["status"]).exits(69).error();
    assert!(code == "unreachable" && message.contains("no vertex runs"), "{message}");
}
