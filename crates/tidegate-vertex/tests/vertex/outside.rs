//! Workers that come by themselves: they wait for the vertex, each gets a lane, others are told that there is none, and what they
//! are or do ends no more than their own connection.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, kill_process},
    time::Timespec,
};
use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::{
    control::{Control, Incoming},
    wire::message::{FromRuntime, FromWorker, Ready},
};
use tidegate_vertex::{
    operate::{Control as Steering, status::OutsideStatus},
    run::{Report, Vertex, VertexError},
};

use crate::{
    GENERATOR,
    world::{World, pipeline, runtime, runtime_place},
};

const MANY: &str = "kind = \"generator\"\nrecords = 3000";
const PATIENCE: Duration = Duration::from_secs(100);

fn expected(end: u64) -> Vec<String> {
    (0..end).map(|position| format!("UPPER 0:{position}")).collect()
}

/// A worker that somebody has started; killed when dropped.
pub(crate) struct Outsider {
    child: Child,
    /// What it prints.
    lines: Receiver<String>,
}

impl Outsider {
    pub(crate) fn start(mut command: Command, world: &World, role: &str) -> Self {
        command
            .env("TIDEGATE_TEST_FUNCTION", role)
            .env("TIDEGATE_TEST_PLACE", world.path(""))
            .env("TIDEGATE_VX_SOCKET", socket(world))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (say, lines) = channel();
        thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        Self { child, lines }
    }

    pub(crate) fn of(world: &World, role: &str) -> Self {
        Self::start(program(), world, role)
    }

    /// Waits until it prints something with this in it.
    pub(crate) fn says(&self, part: &str) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(give_up.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("it did not say {part:?}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        eventually("the worker ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker_process", "--nocapture"]);
    command
}

fn socket(world: &World) -> std::path::PathBuf {
    world.path("door/socket")
}

/// Keys of `[udf]` for workers that come by themselves.
pub(crate) fn listen(dir: &Path, more: &str) -> String {
    format!("listen = {:?}\n{more}", dir.join("door/socket"))
}

pub(crate) fn eventually<T>(what: &str, mut happened: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = happened() {
            return found;
        }
        assert!(Instant::now() < give_up, "{what}: never");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A vertex that runs in a thread of its own.
pub(crate) struct Running {
    steering: Steering,
    ended: Receiver<Result<Report, VertexError>>,
}

impl Running {
    pub(crate) fn start(world: &World, more: &str, source: &str) -> Self {
        Self::of(
            Vertex::start(pipeline(&world.path(""), "", &listen(&world.path(""), more), source)).unwrap(),
        )
    }

    pub(crate) fn of(vertex: Vertex) -> Self {
        let steering = vertex.control();
        let (end, ended) = channel();
        // Nobody waits any more when a test has failed.
        thread::spawn(move || drop(end.send(vertex.run())));
        Self { steering, ended }
    }

    fn outside(&self) -> OutsideStatus {
        self.steering.status().outside.unwrap()
    }

    /// Waits until so many workers are attached.
    pub(crate) fn attaches(&self, workers: u64) {
        eventually("workers attach", || (self.outside().attached == workers).then_some(()));
    }

    pub(crate) fn ends(self) -> Report {
        self.ended().unwrap()
    }

    pub(crate) fn ended(self) -> Result<Report, VertexError> {
        self.ended.recv_timeout(PATIENCE).expect("the vertex does not end")
    }
}

/// One is there before the vertex and one comes later; both work, and end with it.
/// Rules: VX-420, VX-425, VX-430, VX-436, VX-437, VX-440.
#[test]
fn workers_wait_for_their_vertex_and_end_with_it() {
    let world = World::new();
    let mut first = Outsider::of(&world, "upper");
    let said = first.says("waiting for the runtime");
    assert!(said.contains("door/socket") && said.contains("No such file"), "{said}");
    let vertex = Running::start(&world, "workers = 2", GENERATOR);
    vertex.attaches(1);
    let mut second = Outsider::of(&world, "upper");
    let report = vertex.ends();
    assert_eq!((report.read, report.delivered, report.restarts), (4_000, 4_000, 0));
    assert_eq!(world.lines().len(), 4_000);
    assert!(first.ends().success() && second.ends().success());
    assert_eq!(fs::read_to_string(world.path("pids")).unwrap().lines().count(), 2);
    assert!(!socket(&world).exists(), "the socket is still there");
    assert_eq!(fs::metadata(world.path("door")).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Killed in the middle of a batch; another one was told that there is no place, and gets it then.
/// Cases: CT-04, CT-16.
/// Rules: VX-420, VX-430, VX-432, VX-436.
#[test]
fn a_spare_worker_takes_the_place_of_one_that_is_killed() {
    let world = World::new();
    let vertex = Running::start(&world, "", MANY);
    let mut first = Outsider::of(&world, "hold 10");
    vertex.attaches(1);
    let second = Outsider::of(&world, "hold 10");
    let said = second.says("(FULL)");
    assert!(said.contains("the vertex has its 1 workers (udf.workers)"), "{said}");
    // The worker is told before the status is.
    let last = eventually("it is told", || vertex.outside().last_refusal);
    assert!(vertex.outside().refused > 0);
    let pid = format!("process {} of user", second.child.id());
    assert!(last.contains("(FULL)") && last.contains(&pid), "{last}");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    world.write("gate", "");
    let report = vertex.ends();
    assert_eq!((report.restarts, report.delivered), (1, 3_000));
    assert_eq!(world.lines(), expected(3_000));
}

/// Stopped in the middle of a batch; another one has done its work by the time it goes on.
/// Rules: VX-430, VX-434, VX-437.
#[test]
fn a_worker_that_was_stopped_is_cut_off_and_does_no_harm_when_it_wakes() {
    let world = World::new();
    // Long enough for a worker that only waits for a processor.
    let vertex = Running::start(&world, "batch_timeout = \"2s\"", MANY);
    let mut first = Outsider::of(&world, "stop once");
    vertex.attaches(1);
    let _second = Outsider::of(&world, "stop once");
    let report = vertex.ends();
    assert!(world.path("stopped").exists() && report.restarts >= 1, "{report:?}");
    assert_eq!((report.delivered, world.lines()), (3_000, expected(3_000)));
    assert!(first.child.try_wait().unwrap().is_none(), "the vertex has killed it");
    first.signal(Signal::CONT);
    // It finds the session closed, or is ended before it comes back from the function.
    first.ends();
    assert_eq!(world.lines(), expected(3_000));
}

/// A runtime that is killed: its worker ends, busy as it is, and the next runtime takes the socket that is left.
/// Cases: CT-20.
/// Rules: VX-420, VX-437.
#[test]
fn a_worker_does_not_outlive_its_runtime_and_the_socket_is_taken_over() {
    if let Some(place) = runtime_place() {
        let hangs = pipeline(&place, "", &listen(&place, ""), "kind = \"generator\"\nrecords = 125");
        Vertex::start(hangs).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let test = "outside::a_worker_does_not_outlive_its_runtime_and_the_socket_is_taken_over";
    let mut killed = runtime(test, &world).spawn().unwrap();
    let mut worker = Outsider::of(&world, "hang on 123");
    eventually("the worker comes to the input", || world.path("hangs").exists().then_some(()));
    // While it lives, nobody else listens there.
    let other = pipeline(&world.path(""), "", &listen(&world.path(""), ""), MANY);
    let refused = Vertex::start(other).err().unwrap();
    assert!(matches!(refused, VertexError::Listen(_)), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("another vertex listens") && said.contains(&killed.id().to_string()), "{said}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!worker.ends().success(), "user code came back");
    assert!(socket(&world).exists(), "the next runtime finds nothing to take over");
    let vertex = Running::start(&world, "", MANY);
    let _worker = Outsider::of(&world, "upper");
    assert_eq!(vertex.ends().delivered, 3_000);
}

/// Who asks, and by what right.
/// Rules: VX-420.
#[test]
fn only_users_that_are_named_may_attach() {
    const NOBODY: u32 = 65_534;
    let as_nobody = || {
        let mut command = program();
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    assert!(
        rustix::process::geteuid().is_root(),
        "this test starts processes of others and needs to run as root"
    );
    for (keys, refusal) in [
        (String::new(), Some("Permission denied")),
        (format!("group = {NOBODY}"), Some("(UID)")),
        (format!("group = {NOBODY}\nallowed_uids = [{NOBODY}]"), None),
    ] {
        let world = World::new();
        // The place of the test itself is open.
        fs::set_permissions(world.path(""), Permissions::from_mode(0o777)).unwrap();
        let vertex = Running::start(&world, &keys, MANY);
        let mut stranger = Outsider::start(as_nobody(), &world, "upper");
        let Some(refusal) = refusal else {
            assert_eq!(vertex.ends().delivered, 3_000);
            assert!(stranger.ends().success());
            continue;
        };
        let said = stranger.says("Err");
        assert!(!stranger.ends().success(), "{keys}");
        let own = Outsider::of(&world, "upper");
        let refused = vertex.outside().last_refusal;
        assert_eq!(vertex.ends().delivered, 3_000);
        drop(own);
        if refusal == "(UID)" {
            let refused = refused.unwrap();
            assert!(refused.contains(refusal) && refused.contains("user 65534"), "{refused}");
            assert!(said.contains("udf.allowed_uids"), "{said}");
        } else {
            assert!(said.contains("PermissionDenied"), "{said}");
        }
    }
}

/// What the vertex says last, and that it hangs up then.
fn is_refused(control: &Control) -> Option<String> {
    let deadline = monotonic_now().saturating_add(Nanos::from_secs(100));
    let mut code = None;
    loop {
        match control.receive_until(deadline, true).unwrap() {
            Some(Incoming::Message(datagram, _)) => match FromRuntime::decode(&datagram).unwrap() {
                FromRuntime::Reject(reject) => code = Some(reject.code),
                other => panic!("{other:?}"),
            },
            Some(Incoming::HangUp) => return code,
            None => panic!("the vertex holds the connection"),
        }
    }
}

fn knock(world: &World) -> Control {
    // Busy, or about to listen.
    eventually("the vertex listens", || Control::connect(&socket(world)).ok())
}

/// Rules: VX-011, VX-424, VX-426.
#[test]
fn whoever_says_nothing_sensible_is_turned_away() {
    let world = World::new();
    let vertex = Running::start(&world, "attach_timeout = \"1s\"", MANY);
    let ready = FromWorker::Ready(Ready { sealed: true }).encode();
    for nonsense in [&b"nonsense"[..], b"{}", b"\xff\xfe", b"{\"type\":\"hello\"}", &ready, &[b' '; 70_000]] {
        let control = knock(&world);
        control.send(nonsense, &[]).unwrap();
        assert_eq!(
            is_refused(&control).as_deref(),
            Some("MESSAGE"),
            "{:?}",
            &nonsense[..nonsense.len().min(20)]
        );
    }
    // One for each lane and four more.
    let silent: Vec<Control> = (0..5).map(|_| knock(&world)).collect();
    eventually("all are seen", || (vertex.outside().attaching == 5).then_some(()));
    assert_eq!(is_refused(&knock(&world)).as_deref(), Some("BUSY"));
    for control in &silent {
        assert_eq!(is_refused(control).as_deref(), Some("TIMEOUT"));
    }
    eventually("all are gone", || (vertex.outside().attaching == 0).then_some(()));
    assert_eq!(vertex.outside().refused, 6 + 1 + 5);
    let _worker = Outsider::of(&world, "upper");
    assert_eq!((vertex.ends().delivered, world.lines()), (3_000, expected(3_000)));
}

/// Descriptors that come with a message are nobody's: the other end of a pipe is closed as soon as the message is read.
/// Rules: VX-426.
#[test]
fn descriptors_that_a_worker_sends_are_not_taken() {
    let world = World::new();
    let vertex = Running::start(&world, "", MANY);
    let (reader, writer) = std::io::pipe().unwrap();
    let control = knock(&world);
    control.send(b"take this", &[writer.as_fd(), writer.as_fd()]).unwrap();
    drop(writer);
    assert_eq!(is_refused(&control).as_deref(), Some("MESSAGE"));
    let mut fds = [PollFd::new(&reader, PollFlags::empty())];
    let patience = Timespec { tv_sec: 100, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "somebody has the other end");
    assert!(fds[0].revents().contains(PollFlags::HUP));
    let _worker = Outsider::of(&world, "upper");
    assert_eq!(vertex.ends().delivered, 3_000);
}

/// Connections without end and without a word, from several sides; a worker gets through all the same.
/// Rules: VX-011, VX-426.
#[test]
fn a_flood_of_connections_is_bounded() {
    let world = World::new();
    let vertex = Running::start(&world, "attach_timeout = \"1s\"", MANY);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut held = Vec::new();
                for _ in 0..400 {
                    held.extend(Control::connect(&socket(&world)));
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        for _ in 0..100 {
            let outside = vertex.outside();
            assert!(outside.attaching <= 5, "{outside:?}");
            thread::sleep(Duration::from_millis(4));
        }
    });
    assert!(vertex.outside().refused > 0);
    let _worker = Outsider::of(&world, "upper");
    assert_eq!((vertex.ends().delivered, world.lines()), (3_000, expected(3_000)));
}

/// Its connection does not end, and its death is seen all the same.
/// Cases: CT-17.
/// Rules: VX-430.
#[test]
fn a_child_that_a_dead_worker_left_with_its_socket_holds_nothing_up() {
    let world = World::new();
    let vertex = Running::start(&world, "", MANY);
    let _first = Outsider::of(&world, "heir");
    let child = eventually("it leaves a child", || {
        fs::read_to_string(world.path("children")).ok()?.trim().parse().ok().and_then(Pid::from_raw)
    });
    let _second = Outsider::of(&world, "upper");
    let report = vertex.ends();
    // It was there all the time.
    kill_process(child, Signal::KILL).unwrap();
    assert_eq!((report.restarts, report.delivered, world.lines()), (1, 3_000, expected(3_000)));
}

/// Nobody kills them: what they write after the end of their session is read by nobody, and their lane goes on.
/// Rules: VX-011, VX-103, VX-430, VX-432, VX-434.
#[test]
fn a_hostile_worker_that_lives_on_holds_nothing_up() {
    for (role, keys) in
        [("lie head far ahead", ""), ("lie answered twice", ""), ("endless", "batch_timeout = \"2s\"")]
    {
        let world = World::new();
        let vertex = Running::start(&world, keys, MANY);
        let mut hostile = Outsider::of(&world, role);
        // It may have been cut off before anybody looked.
        eventually("it attaches", || {
            let status = vertex.steering.status();
            (status.counts.restarts > 0 || status.outside.unwrap().attached > 0).then_some(())
        });
        let _worker = Outsider::of(&world, "upper");
        let report = vertex.ends();
        assert!(report.restarts >= 1, "{role}: {report:?}");
        assert_eq!((report.delivered, world.lines()), (3_000, expected(3_000)), "{role}");
        assert!(hostile.child.try_wait().unwrap().is_none(), "{role}: it was killed");
    }
}
