//! Chaos: a vertex from a file to files, whose runtime and worker are killed and stopped at random and started again, at any
//! moment and at the named steps of an epoch. Each input ends in exactly one place: its line in a file of an epoch, the dead
//! letters, or nowhere because the function left it out.
//!
//! `TIDEGATE_CHAOS_SECONDS` says for how long (half a minute), `TIDEGATE_CHAOS_SEED` repeats what is done to whom.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

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

const LINES: u64 = 30_000;
const PLACE: &str = "TIDEGATE_CHAOS_PLACE";
const ROLE: &str = "TIDEGATE_CHAOS_ROLE";
const TEST: &str = "every_input_ends_in_one_place_whoever_is_killed";

/// Cases: CT-53.
/// Rules: VX-003, VX-432, VX-620, VX-763, VX-767, VX-780, VX-781, VX-853.
#[test]
fn every_input_ends_in_one_place_whoever_is_killed() {
    match env::var(ROLE).as_deref() {
        Ok("worker") => return worker().map("chaos", function).run().unwrap(),
        Ok(_) => {
            let report = Vertex::start(pipeline(&place(""))).unwrap().run().unwrap();
            assert!(report.balances(), "{report:?}");
            return;
        }
        Err(_) => {}
    }
    let length = Duration::from_secs(number("TIDEGATE_CHAOS_SECONDS").unwrap_or(30));
    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("TIDEGATE_CHAOS_SEED").unwrap_or(clock & 0xFFFF_FFFF);
    println!("TIDEGATE_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let began = Instant::now();
    let mut counts = BTreeMap::new();
    while began.elapsed() < length {
        round(&mut dice, began + length, &mut counts);
    }
    println!("{counts:?}, all well");
    assert!(counts.get("runtime killed").is_some_and(|kills| *kills > 0), "nobody was killed: {counts:?}");
}

/// One input file to its end: disturbed until `calm`, then in peace.
fn round(dice: &mut Dice, calm: Instant, counts: &mut BTreeMap<&'static str, u32>) {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    fs::write(dir.path().join("in"), lines).unwrap();
    loop {
        let disturbed = Instant::now() < calm;
        let mut runtime = start(dir.path(), disturbed.then(|| dice.failpoint()).flatten());
        let give_up = Instant::now() + Duration::from_secs(200);
        let status = loop {
            if let Some(status) = runtime.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < give_up, "the vertex does not end");
            if disturbed {
                disturb(dice, dir.path(), &mut runtime, counts);
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        if status.success() {
            break;
        }
        assert!(disturbed || status.code().is_none(), "it ended by itself: {status}\n{}", log(dir.path()));
        *counts.entry("runtime killed").or_default() += 1;
    }
    *counts.entry("rounds").or_default() += 1;
    judge(dir.path());
}

fn start(dir: &Path, failpoint: Option<String>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture"]).env(PLACE, dir).env(ROLE, "runtime");
    if let Some(failpoint) = failpoint {
        command.env("TIDEGATE_VX_FAILPOINT", failpoint);
    }
    let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Waits a little and does something to somebody.
fn disturb(dice: &mut Dice, dir: &Path, runtime: &mut Child, counts: &mut BTreeMap<&'static str, u32>) {
    std::thread::sleep(Duration::from_millis(dice.below(300)));
    let own = Pid::from_child(runtime);
    // Whoever has ended meanwhile is no longer there to be disturbed.
    let worker = fs::read_to_string(dir.join("pids")).ok();
    let worker = worker.and_then(|pids| pids.lines().last()?.parse::<u32>().ok());
    let worker = worker.and_then(|pid| ProcessHandle::open(ProcessId::of(pid).ok()?).ok());
    let what = match dice.below(5) {
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
        _ => {
            if let Some(worker) = worker {
                let _ = worker.kill();
            }
            "worker shot"
        }
    };
    *counts.entry(what).or_default() += 1;
}

/// Every input is in one place, and the outputs are in order.
fn judge(dir: &Path) {
    let mut files: Vec<PathBuf> = entries(&dir.join("out"));
    files.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let outputs: Vec<u64> =
        text.lines().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect();
    let expected: Vec<u64> = (0..LINES).filter(|number| number % 7 != 3 && number % 997 != 5).collect();
    if outputs != expected {
        let first = outputs.iter().zip(&expected).position(|(found, expected)| found != expected);
        panic!("{} outputs of {}, different from {first:?} on\n{}", outputs.len(), expected.len(), log(dir));
    }
    let mut letters = entries(&dir.join("dead"));
    letters.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    let text: String = letters.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let dead = text.lines().count() as u64;
    let expected = (0..LINES).filter(|number| number % 7 != 3 && number % 997 == 5).count() as u64;
    assert_eq!(dead, expected, "dead letters\n{}", log(dir));
}

/// What the runtimes have said.
fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
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

fn pipeline(dir: &Path) -> Pipeline {
    let program = env::current_exe().unwrap();
    let text = format!(
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
        [source]
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
        dir = {dead:?}
        [ledger]
        path = {ledger:?}
        [epoch]
        interval = \"10ms\"
        max_records = 500
        [udf]
        command = [{program:?}, \"--exact\", {TEST:?}, \"--nocapture\"]
        env = {{ {ROLE} = \"worker\" }}
        attach_timeout = \"5m\"
        batch_timeout = \"5m\"
        retry = {{ crash_attempts = 1000 }}",
        input = dir.join("in"),
        out = dir.join("out"),
        dead = dir.join("dead"),
        ledger = dir.join("ledger"),
    );
    text.parse().unwrap()
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
