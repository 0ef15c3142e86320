//! A directory of blocks, and processes that use them until they are killed.
//!
//! A process is this test program again, started for the same test with a script in its environment: what to do with which
//! block, one step after the other. It says when it has done it and then waits for its end.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, exit},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tidegate_hub::{
    attachment::{Process, WriterWords, consumer_core, writer_core},
    block::{AttachOptions, Block, CreateOptions, Role, attach, create},
    core::{
        Start, TakeOver,
        config::{Deadline, Timing, WaitStrategy},
        reader::{Reader, Release},
        words::RowNames,
        writer::{CommitInfo, Writer},
    },
    inspect::{Inspector, Thresholds},
    layout::{BlockSpec, ChannelName, ZoneSpec},
    recover::Recovery,
};
use tidegate_shm::clock::{Nanos, monotonic_now};

const SCRIPT: &str = "TIDEGATE_TEST_SCRIPT";
const PLACE: &str = "TIDEGATE_TEST_PLACE";
const BLOCK: &str = "TIDEGATE_TEST_BLOCK";
/// Longest time that anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The writer of a real block.
pub(crate) type BlockWriter = Writer<WriterWords, Process>;

/// A ring of eight slots that every consumer reads in full; slots of 256 bytes and one zone.
pub(crate) fn spec() -> BlockSpec {
    BlockSpec {
        zones: vec![ZoneSpec { lock: Some(0), consumer_writable: true, ..ZoneSpec::untyped("state", 256) }],
        first_slot_id: 100,
        ..BlockSpec::ring(ChannelName::new("sensor").unwrap(), 8, 256)
    }
}

/// The blocks of one test.
pub(crate) struct World {
    dir: TempDir,
    test: &'static str,
}

impl World {
    /// The world of the test with this path. In a process of that test, plays its part instead and never returns.
    pub(crate) fn of(test: &'static str) -> Self {
        if let Ok(script) = env::var(SCRIPT) {
            let place = PathBuf::from(env::var_os(PLACE).unwrap());
            play(&script, &place, env::var(BLOCK).ok());
            exit(0);
        }
        Self { dir: tempfile::tempdir_in("/dev/shm").unwrap(), test }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn options(&self, role: Role) -> AttachOptions<'static> {
        AttachOptions { dir: self.dir().to_owned(), ..AttachOptions::new(role) }
    }

    /// A block of this process with its writer.
    pub(crate) fn block(&self, spec: &BlockSpec) -> (Arc<Block>, BlockWriter) {
        let options = CreateOptions { dir: self.dir().to_owned(), ..CreateOptions::default() };
        let block = Arc::new(create(spec, &options).unwrap());
        let writer = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap().created().unwrap();
        (block, writer)
    }

    /// A process that makes a block, does what `script` says, and waits. Returns it and the name of the block.
    pub(crate) fn producer(&self, script: &str) -> (Actor, String) {
        let actor = self.start(&format!("create;{script}"), None);
        let name = actor.said("block ");
        actor.said("done");
        (actor, name)
    }

    /// A process that attaches a block, does what `script` says, and waits.
    pub(crate) fn actor(&self, block: &str, script: &str) -> Actor {
        let actor = self.start(script, Some(block));
        actor.said("done");
        actor
    }

    /// The same, without waiting for it to have done it.
    pub(crate) fn start(&self, script: &str, block: Option<&str>) -> Actor {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", self.test, "--nocapture", "--test-threads=1"]);
        command.env(SCRIPT, script).env(PLACE, self.dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(block) = block {
            command.env(BLOCK, block);
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    break;
                }
            }
        });
        Actor { child, lines }
    }

    /// Looks at a block. Nobody here beats, so heartbeats count as stale after ten minutes only.
    pub(crate) fn inspector(&self, name: &str) -> Inspector {
        let thresholds = Thresholds { heartbeat_stale: Duration::from_secs(600), ..Thresholds::default() };
        Inspector::open(name, &self.options(Role::Inspector)).unwrap().with_thresholds(thresholds)
    }

    pub(crate) fn recovery(&self, name: &str) -> Recovery {
        Recovery::open(name, &self.options(Role::Recovery)).unwrap()
    }

    /// The block as its next producer adopts it.
    pub(crate) fn adopt(&self, name: &str) -> (Arc<Block>, BlockWriter) {
        let block = Arc::new(attach(name, &self.options(Role::Writer)).unwrap());
        let core = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap();
        (block, core.adopt(TakeOver::IfDead, soon()).unwrap().writer)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        tidegate_hub::block::names(self.dir()).unwrap()
    }
}

/// A process of the test. Killed when dropped.
pub(crate) struct Actor {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Actor {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says a line that begins so; returns the rest.
    pub(crate) fn said(&self, beginning: &str) -> String {
        let marked = format!("@{beginning}");
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("the process says what it did");
            if let Some(at) = line.find(&marked) {
                return line[at + marked.len()..].trim_end().to_owned();
            }
        }
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it as SIGSTOP does.
    pub(crate) fn stop(&self) {
        signal(self.pid(), rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        signal(self.pid(), rustix::process::Signal::CONT);
    }

    /// Tells it to do its last step, for which it waits.
    pub(crate) fn tell(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A deadline that nothing is to reach.
pub(crate) fn soon() -> Deadline {
    Deadline::At(monotonic_now().saturating_add(Nanos::from_secs(20)))
}

/// Writes one value.
pub(crate) fn write(writer: &BlockWriter, block: &Block, bytes: &[u8]) -> u64 {
    let id = writer.allocate(1, soon()).unwrap().first;
    let slot = writer.core().config().index(id);
    block.slot_mut(slot.0).unwrap().write_at(0, bytes).unwrap();
    writer.commit(id, CommitInfo { len: bytes.len() as u64, user_flags: 0, slot_flags: 0 }).unwrap();
    id.0
}

fn say(line: &str) {
    println!("@{line}");
    std::io::stdout().flush().unwrap();
}

/// Plays the part of a process.
fn play(script: &str, dir: &Path, name: Option<String>) {
    let options = |role| AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(role) };
    let timing = Timing::default;
    let mut block: Option<Arc<Block>> = None;
    let mut writer: Option<BlockWriter> = None;
    let mut reader = None;
    for step in script.split(';') {
        let mut words = step.split_whitespace();
        let (verb, number) = (words.next().unwrap(), words.next().and_then(|word| word.parse::<u32>().ok()));
        match verb {
            "create" => {
                let options = CreateOptions { dir: dir.to_owned(), ..CreateOptions::default() };
                let made = Arc::new(create(&spec(), &options).unwrap());
                say(&format!("block {}", made.descriptor().file_name()));
                writer = Some(writer_core(&made, WaitStrategy::Hybrid, timing()).unwrap().created().unwrap());
                block = Some(made);
            }
            "write" => {
                for _ in 0..number.unwrap() {
                    write(writer.as_ref().unwrap(), block.as_ref().unwrap(), b"value");
                }
            }
            "open" => {
                let _open = writer.as_ref().unwrap().allocate(number.unwrap(), soon()).unwrap();
            }
            "join" => {
                let seen = Arc::new(attach(name.as_ref().unwrap(), &options(Role::Consumer)).unwrap());
                let core = consumer_core(&seen, WaitStrategy::Hybrid, timing()).unwrap();
                let mut uid = [0; 40];
                let text = format!("CONS-{}", std::process::id());
                uid[..text.len()].copy_from_slice(text.as_bytes());
                let names = RowNames { uid, name: [0; 32], pid_namespace: 0 };
                reader = Some(Reader::join(core, Start::Oldest, &names, 1, soon()).unwrap());
                block = Some(seen);
            }
            "read" => {
                let reader = reader.as_mut().unwrap();
                for _ in 0..number.unwrap() {
                    let acquired = reader.acquire_ordered(soon()).unwrap();
                    reader.release(&acquired, Release::Consumed).unwrap();
                }
            }
            "hold" => {
                reader.as_mut().unwrap().acquire_ordered(soon()).unwrap();
            }
            "lock" => {
                // As a lock looks whose holder is inside.
                let block = block.as_ref().unwrap();
                let locks = block.consumer_views().unwrap().locks;
                let row = locks.row(number.unwrap()).unwrap();
                row.u32::<0x28>().fetch_or(1, tidegate_shm::sync::Ordering::Relaxed);
                row.u32::<0x1C>().store(1, tidegate_shm::sync::Ordering::Relaxed);
                row.u64::<0x00>().store(block.own_key().word(), tidegate_shm::sync::Ordering::Release);
            }
            "maintenance" => {
                let core = reader.as_ref().unwrap().core();
                core.words().clone().views().sync.row();
                let block = block.as_ref().unwrap();
                let sync = block.consumer_views().unwrap().sync;
                sync.row().u64::<0x00>().store(block.own_key().word(), tidegate_shm::sync::Ordering::Release);
            }
            // Writes and says how it ended, once told to.
            "later" => {
                say("done");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).unwrap();
                let result = writer.as_ref().unwrap().allocate(1, Deadline::Immediate);
                say(&format!("result {result:?}"));
            }
            "stream" => {
                say("done");
                for number in 0_u64.. {
                    write(writer.as_ref().unwrap(), block.as_ref().unwrap(), &number.to_le_bytes());
                }
            }
            "drink" => {
                say("done");
                let reader = reader.as_mut().unwrap();
                loop {
                    let acquired = reader.acquire_ordered(Deadline::Never).unwrap();
                    reader.release(&acquired, Release::Consumed).unwrap();
                }
            }
            other => panic!("no such step: {other}"),
        }
    }
    say("done");
    loop {
        thread::park();
    }
}
