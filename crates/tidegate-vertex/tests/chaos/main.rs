//! Chaos: a vertex between files, and one between streams, whose runtime, worker and server are killed and stopped at random and
//! started again, at any moment and at the named steps of an epoch. Each input ends in exactly one place: among the outputs, the
//! dead letters, or nowhere because the function left it out.
//!
//! `TIDEGATE_CHAOS_SECONDS` says for how long in each test (half a minute), `TIDEGATE_CHAOS_EVENTS` how much is done to them
//! instead, `TIDEGATE_CHAOS_SEED` repeats what is done to whom.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[cfg(feature = "nats")]
#[path = "../nats/server.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod server;
#[cfg(feature = "nats")]
mod streams;

use std::{
    collections::BTreeMap,
    env, fs,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use tidegate_shm::process::{ProcessHandle, ProcessId};
use tidegate_udf::{Ctx, Emit, Outcome, Record, worker};
use tidegate_vertex::{config::Pipeline, failpoint::Point, run::Vertex};

const PLACE: &str = "TIDEGATE_CHAOS_PLACE";
const ROLE: &str = "TIDEGATE_CHAOS_ROLE";

/// What a vertex runs between.
trait Course {
    /// The test that its processes start again.
    const TEST: &'static str;

    /// Makes the input of a round.
    fn begin(dice: &mut Dice, dir: &Path) -> Self;

    /// Source, sinks and what else the pipeline file has of its own.
    fn pipeline(&self, dir: &Path) -> String;

    /// Whether everything is there that has to be, so that the vertex is told to end.
    fn is_complete(&self) -> bool;

    /// Does something to something that is neither runtime nor worker.
    fn disturb(&mut self, dice: &mut Dice) -> Option<&'static str>;

    /// The outputs in their order, and how many dead letters there are.
    fn result(&self, dir: &Path) -> (Vec<String>, u64);

    /// Inputs of a round.
    const INPUTS: u64;
}

/// A file into files of epochs.
struct Files;

impl Course for Files {
    const TEST: &'static str = "every_input_ends_in_one_place_whoever_is_killed";
    const INPUTS: u64 = 30_000;

    fn begin(_: &mut Dice, dir: &Path) -> Self {
        let lines: String = (0..Self::INPUTS).map(|number| format!("{number}\n")).collect();
        fs::write(dir.join("in"), lines).unwrap();
        Self
    }

    fn pipeline(&self, dir: &Path) -> String {
        format!(
            "[source]
            kind = \"file\"
            path = {input:?}
            [[sink]]
            name = \"main\"
            kind = \"file\"
            mode = \"epoch\"
            dir = {out:?}
            [[sink]]
            name = \"dead\"
            role = \"dlq\"
            kind = \"file\"
            mode = \"epoch\"
            dir = {dead:?}",
            input = dir.join("in"),
            out = dir.join("out"),
            dead = dir.join("dead"),
        )
    }

    /// It ends with its source.
    fn is_complete(&self) -> bool {
        false
    }

    fn disturb(&mut self, _: &mut Dice) -> Option<&'static str> {
        None
    }

    fn result(&self, dir: &Path) -> (Vec<String>, u64) {
        let lines = |name: &str| -> Vec<String> {
            let mut files = entries(&dir.join(name));
            files.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
            let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
            text.lines().map(str::to_owned).collect()
        };
        (lines("out"), lines("dead").len() as u64)
    }
}

/// Cases: CT-53.
/// Rules: VX-003, VX-432, VX-620, VX-763, VX-767, VX-780, VX-781, VX-853.
#[test]
fn every_input_ends_in_one_place_whoever_is_killed() {
    chaos::<Files>();
}

/// Plays the part of a process that a test has started, or is the test.
fn chaos<C: Course>() {
    match env::var(ROLE).as_deref() {
        Ok("worker") => return worker().map("chaos", function).run().unwrap(),
        Ok(_) => {
            let vertex = Vertex::start(Pipeline::read(&place("pipeline.toml")).unwrap()).unwrap();
            let stop = vertex.stop_handle();
            // Ends with the process.
            std::thread::spawn(move || {
                while !place("stop").exists() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                stop.drain();
            });
            let report = vertex.run().unwrap();
            assert!(report.balances(), "{report:?}");
            return;
        }
        Err(_) => {}
    }
    let length = Duration::from_secs(number("TIDEGATE_CHAOS_SECONDS").unwrap_or(30));
    let events = number("TIDEGATE_CHAOS_EVENTS");
    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("TIDEGATE_CHAOS_SEED").unwrap_or(clock & 0xFFFF_FFFF);
    println!("TIDEGATE_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let began = Instant::now();
    let mut counts = BTreeMap::new();
    let goes_on = |counts: &BTreeMap<&'static str, u32>| match events {
        Some(events) => counts.values().map(|count| u64::from(*count)).sum::<u64>() < events,
        None => began.elapsed() < length,
    };
    let mut rounds = 0;
    while goes_on(&counts) {
        round::<C>(&mut dice, &goes_on, &mut counts);
        rounds += 1;
    }
    println!("{counts:?} in {rounds} rounds and {:?}, all well", began.elapsed());
    assert!(counts.get("runtime shot").is_some_and(|kills| *kills > 0), "nobody was killed: {counts:?}");
}

/// One input to its end: disturbed for as long as it `goes_on`, then in peace.
fn round<C: Course>(
    dice: &mut Dice,
    goes_on: impl Fn(&BTreeMap<&'static str, u32>) -> bool,
    counts: &mut BTreeMap<&'static str, u32>,
) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let mut course = C::begin(dice, dir);
    fs::write(dir.join("pipeline.toml"), pipeline::<C>(&course, dir)).unwrap();
    let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
    let mut failures = 0;
    loop {
        let disturbed = goes_on(counts);
        let mut runtime = start(dir, C::TEST, disturbed.then(|| dice.failpoint()).flatten());
        let give_up = Instant::now() + Duration::from_secs(200);
        let status = loop {
            if let Some(status) = runtime.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < give_up, "the vertex does not end\n{}", log());
            if course.is_complete() {
                fs::write(dir.join("stop"), "").unwrap();
                std::thread::sleep(Duration::from_millis(20));
            } else if disturbed {
                disturb(dice, &mut course, dir, &mut runtime, counts);
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        if status.success() {
            break;
        }
        // What was done to others may end it a little later.
        failures += u32::from(!disturbed && status.code().is_some());
        assert!(failures < 4, "it ends by itself: {status}\n{}", log());
    }
    let (outputs, dead) = course.result(dir);
    let number = |line: &String| line.split_once(' ').unwrap().0.parse().unwrap();
    let outputs: Vec<u64> = outputs.iter().map(number).collect();
    let expected: Vec<u64> = (0..C::INPUTS).filter(|number| number % 7 != 3 && number % 997 != 5).collect();
    if outputs != expected {
        let first = outputs.iter().zip(&expected).position(|(found, expected)| found != expected);
        panic!("{} outputs of {}, different from {first:?} on\n{}", outputs.len(), expected.len(), log());
    }
    let expected = (0..C::INPUTS).filter(|number| number % 7 != 3 && number % 997 == 5).count() as u64;
    assert_eq!(dead, expected, "dead letters\n{}", log());
}

fn start(dir: &Path, test: &str, failpoint: Option<String>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(PLACE, dir).env(ROLE, "runtime");
    if let Some(failpoint) = failpoint {
        command.env("TIDEGATE_VX_FAILPOINT", failpoint);
    }
    let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Waits a little and does something to somebody.
fn disturb<C: Course>(
    dice: &mut Dice,
    course: &mut C,
    dir: &Path,
    runtime: &mut Child,
    counts: &mut BTreeMap<&'static str, u32>,
) {
    std::thread::sleep(Duration::from_millis(dice.below(300)));
    let own = Pid::from_child(runtime);
    // Whoever has ended meanwhile is no longer there to be disturbed.
    let worker = fs::read_to_string(dir.join("pids")).ok();
    let worker = worker.and_then(|pids| pids.lines().last()?.parse::<u32>().ok());
    let worker = worker.and_then(|pid| ProcessHandle::open(ProcessId::of(pid).ok()?).ok());
    let what = match dice.below(7) {
        0 | 1 => {
            let _ = runtime.kill();
            "runtime shot"
        }
        2 => {
            let _ = kill_process(own, Signal::STOP);
            std::thread::sleep(Duration::from_millis(dice.below(100)));
            let _ = kill_process(own, Signal::CONT);
            "runtime stopped"
        }
        3 | 4 => match course.disturb(dice) {
            Some(what) => what,
            None => return,
        },
        _ => {
            let Some(worker) = worker else { return };
            let _ = worker.kill();
            "worker shot"
        }
    };
    *counts.entry(what).or_default() += 1;
}

/// The files of the one partition, in order.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir.join("p=0")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Another answer from each worker; a seventh is left out, and some are bad.
fn function(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    let text = std::str::from_utf8(record.value()).unwrap();
    let number: u64 = text.parse().unwrap();
    if number.is_multiple_of(1_000) {
        let mut pids = OpenOptions::new().create(true).append(true).open(place("pids")).unwrap();
        writeln!(pids, "{}", std::process::id()).unwrap();
    }
    if number % 7 == 3 {
        return Outcome::drop("a seventh");
    }
    if number % 997 == 5 {
        return Outcome::reject("bad");
    }
    out.record().value(format!("{number} {}", std::process::id()).as_bytes());
    Outcome::ok()
}

fn pipeline<C: Course>(course: &C, dir: &Path) -> String {
    let (program, test) = (env::current_exe().unwrap(), C::TEST);
    format!(
        "version = 1
        [pipeline]
        name = \"chaos\"
        uid = \"00000000000000cc\"
        delivery = \"effectively_once\"
        [batch]
        max_records = 100
        max_bytes = \"16KiB\"
        [transport]
        ring = \"256KiB\"
        {ends}
        [ledger]
        path = {ledger:?}
        [epoch]
        interval = \"10ms\"
        max_records = 500
        [udf]
        command = [{program:?}, \"--exact\", {test:?}, \"--nocapture\"]
        env = {{ {ROLE} = \"worker\" }}
        attach_timeout = \"5m\"
        batch_timeout = \"5m\"
        retry = {{ crash_attempts = 1000 }}",
        ends = course.pipeline(dir),
        ledger = dir.join("ledger"),
    )
}

fn place(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(PLACE).unwrap()).join(name)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % end
    }

    /// A step at which the runtime ends, for every other one.
    fn failpoint(&mut self) -> Option<String> {
        let point = Point::ALL[self.below(Point::ALL.len() as u64) as usize];
        let pass = 1 + self.below(20);
        (self.below(2) == 0).then(|| format!("{}:{pass}", point.name()))
    }
}
