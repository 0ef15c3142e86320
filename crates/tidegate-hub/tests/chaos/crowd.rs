//! The processes, what is done to them, and what they leave.

use std::{
    fmt::Write as _,
    io::ErrorKind,
    mem::offset_of,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidegate_hub::{
    block::{AttachError, AttachOptions, Block, InspectorViews, Role, attach},
    core::codec::{Ctl, Reg, RowState, SlotId, SlotState},
    identity::ProcessKey,
    layout::pages::{ConsumerRow, ControlPage, LockRecord, MetricsPage, SlotRecord, SyncPage},
};
use tidegate_shm::sync::Ordering::Acquire;

use crate::{
    dice::Dice,
    journal::{PENDING_COUNT, START, Written},
    judge::{Counters, End, Line, Remains},
    plan::{CHANNELS, Channel, PRODUCERS, READERS},
    roles::{DIR, LOG, ROLE, log_of},
};

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Things done between two looks whether everybody still gets on.
const BURST: u64 = 40;
/// The place of the first producer; those of readers come before, those of other producers behind it.
const PRODUCER: usize = READERS.len();

/// One process after the other in one place.
struct Place {
    name: &'static str,
    /// Kept open: at its end the process ends.
    stdin: Option<ChildStdin>,
    process: Option<Child>,
    stopped: bool,
    lives: usize,
}

pub(crate) struct Crowd {
    test: &'static str,
    dir: TempDir,
    dice: Dice,
    places: Vec<Place>,
    blocks: Vec<Arc<Block>>,
    began: Instant,
    history: Vec<String>,
    kills: u64,
}

impl Crowd {
    /// Everybody is there and reads and writes. `test` is the test that the processes are started with.
    pub(crate) fn start(test: &'static str, seed: u64) -> Self {
        let names = READERS.iter().map(|reader| reader.name).chain(PRODUCERS);
        let place = |name| Place { name, stdin: None, process: None, stopped: false, lives: 0 };
        let mut crowd = Self {
            test,
            dir: tempfile::tempdir_in("/dev/shm").unwrap(),
            dice: Dice::new(seed),
            places: names.map(place).collect(),
            blocks: Vec::new(),
            began: Instant::now(),
            history: Vec::new(),
            kills: 0,
        };
        crowd.spawn(PRODUCER);
        for channel in &CHANNELS {
            let block = crowd.attached(channel);
            crowd.blocks.push(block);
        }
        (0..crowd.places.len()).filter(|place| *place != PRODUCER).for_each(|place| crowd.spawn(place));
        crowd.calm();
        crowd
    }

    /// Kills, stops and goes on at random, `BURST` times; then everybody must get on again by himself.
    pub(crate) fn burst(&mut self) {
        for _ in 0..BURST {
            let place = self.dice.below(self.places.len() as u64) as usize;
            match self.dice.below(8) {
                0..3 => self.kill(place),
                3..5 => self.stop(place),
                5 => self.go_on(place),
                _ => self.replace_dead(),
            }
            thread::sleep(Duration::from_micros(self.dice.below(20_000)));
        }
        self.calm();
    }

    /// Ends the producers, lets everybody read to the end, and collects what is left.
    pub(crate) fn end(mut self) -> Vec<Remains> {
        let producers = PRODUCER..self.places.len();
        producers.clone().for_each(|place| self.places[place].stdin = None);
        for place in producers.chain(0..PRODUCER) {
            self.await_event(&format!("the end of {}", self.places[place].name), |crowd| {
                let process = crowd.places[place].process.as_mut().unwrap();
                process.try_wait().unwrap().is_some()
            });
            let status = self.places[place].process.take().unwrap().wait().unwrap();
            if !status.success() {
                self.check(place);
                self.fail(&format!("{} ended with {status}", self.places[place].name));
            }
        }
        CHANNELS.iter().enumerate().map(|(index, channel)| self.remains(index, channel)).collect()
    }

    /// What was done so far, newest last.
    pub(crate) fn history(&self) -> String {
        let mut text = String::new();
        self.history.iter().rev().take(200).rev().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
        text
    }

    pub(crate) fn counts(&self) -> String {
        let lives: usize = self.places.iter().map(|place| place.lives).sum();
        format!("{} kills, {lives} processes", self.kills)
    }

    /// Kills the process at `place` and says how long after its end was known to the kernel `gone` became true.
    pub(crate) fn time_after_death(
        &mut self,
        place: usize,
        gone: impl Fn(&Self, ProcessKey) -> bool,
    ) -> Duration {
        let process = self.places[place].process.as_mut().unwrap();
        let key = key_of(process.id());
        process.kill().unwrap();
        // Its address space is gone when it can be collected.
        process.wait().unwrap();
        let known = Instant::now();
        self.note(format!("kill {}", self.places[place].name));
        while !gone(self, key) {
            if known.elapsed() > PATIENCE {
                self.fail("the dead process still has its place");
            }
            thread::sleep(Duration::from_micros(50));
        }
        let time = known.elapsed();
        self.kills += 1;
        self.places[place].process = None;
        self.spawn(place);
        self.calm();
        time
    }

    /// Whether `key` is recorded nowhere in the block `index`, and no slot is being written.
    pub(crate) fn forgot(&self, index: usize, key: ProcessKey) -> bool {
        let views = self.views(index);
        let rows = (0..self.blocks[index].descriptor().spec.max_consumers).map(|row| {
            views.consumers.row(row).unwrap().u64::<{ offset_of!(ConsumerRow, owner) }>().load(Acquire)
        });
        let writer = views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().load(Acquire);
        rows.chain([writer]).all(|owner| owner != key.word())
    }

    fn spawn(&mut self, place: usize) {
        let role = if place >= PRODUCER { "producer".to_owned() } else { format!("reader {place}") };
        let log = self.log(place, self.places[place].lives);
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", self.test, "--nocapture"])
            .env(ROLE, role)
            .env(DIR, self.dir.path())
            .env(LOG, log)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let entry = &mut self.places[place];
        entry.stdin = process.stdin.take();
        entry.process = Some(process);
        entry.stopped = false;
        entry.lives += 1;
        let line =
            format!("start {} {}, pid {}", entry.name, entry.lives, entry.process.as_ref().unwrap().id());
        self.note(line);
    }

    fn log(&self, place: usize, life: usize) -> PathBuf {
        self.dir.path().join(format!("log-{}-{life}", self.places[place].name))
    }

    fn kill(&mut self, place: usize) {
        let Some(process) = &mut self.places[place].process else { return };
        if process.try_wait().unwrap().is_some() {
            return self.check(place);
        }
        // Collected later: until then it is a zombie, which is dead, too.
        process.kill().unwrap();
        self.kills += 1;
        self.places[place].stdin = None;
        self.note(format!("kill {}", self.places[place].name));
        self.await_event("a process that was killed to end", |crowd| {
            let pid = crowd.places[place].process.as_ref().unwrap().id();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
        });
    }

    fn stop(&mut self, place: usize) {
        self.signal(place, Signal::STOP, true, "stop");
    }

    fn go_on(&mut self, place: usize) {
        self.signal(place, Signal::CONT, false, "go on");
    }

    fn signal(&mut self, place: usize, signal: Signal, stopped: bool, what: &str) {
        let entry = &mut self.places[place];
        let Some(process) = entry.process.as_mut().filter(|_| entry.stopped != stopped) else { return };
        if process.try_wait().unwrap().is_some() {
            // Its number may be another's by now.
            return;
        }
        kill_process(Pid::from_child(process), signal).unwrap();
        entry.stopped = stopped;
        let line = format!("{what} {}", entry.name);
        self.note(line);
    }

    fn replace_dead(&mut self) {
        for place in 0..self.places.len() {
            let Some(process) = &mut self.places[place].process else { continue };
            if process.try_wait().unwrap().is_some() {
                self.check(place);
                self.places[place].process = None;
                self.spawn(place);
            }
        }
    }

    /// The process at `place` is gone: killed, or else it says why.
    fn check(&self, place: usize) {
        let entry = &self.places[place];
        let bad = std::fs::read_to_string(log_of(&self.log(place, entry.lives - 1), "bad"));
        // It has no standard input any more exactly if it was killed.
        match bad {
            Ok(why) => self.fail(&format!("{} found that {why}", entry.name)),
            Err(error) if error.kind() == ErrorKind::NotFound && entry.stdin.is_none() => {}
            Err(_) => self.fail(&format!("{} ended by itself", entry.name)),
        }
    }

    /// Everybody runs, and everybody gets on, without anybody helping.
    fn calm(&mut self) {
        (0..self.places.len()).for_each(|place| self.go_on(place));
        self.replace_dead();
        let ends = self.ends();
        let logs = self.marks();
        self.await_event("all channels and all readers to get on", |crowd| {
            crowd.replace_dead();
            let ends = crowd.ends().iter().zip(&ends).all(|(now, then)| now > then);
            ends && crowd.marks().iter().zip(&logs).all(|(now, then)| now != then)
        });
    }

    fn ends(&self) -> Vec<u64> {
        (0..CHANNELS.len()).map(|index| self.control(index).1).collect()
    }

    /// Something of each reader's journal that changes with each read.
    fn marks(&self) -> Vec<Option<(u64, u64, usize)>> {
        let mark = |place: usize| {
            let life = Written::read(&log_of(&self.log(place, self.places[place].lives - 1), "ids"));
            let last = life.runs.last()?;
            Some((last.0, last.1, life.runs.len()))
        };
        (0..PRODUCER).map(mark).collect()
    }

    fn await_event(&mut self, what: &str, mut happened: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !happened(self) {
            if began.elapsed() > PATIENCE {
                let states: Vec<End> =
                    CHANNELS.iter().enumerate().map(|(index, _)| self.end_of(index)).collect();
                self.fail(&format!("waited in vain for {what}: {states:#?}"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn note(&mut self, what: String) {
        let at = self.began.elapsed();
        self.history.push(format!("{:>10.3} ms {what}", at.as_secs_f64() * 1e3));
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\nafter {} and\n{}", self.counts(), self.history());
    }

    fn attached(&mut self, channel: &Channel) -> Arc<Block> {
        let options =
            AttachOptions { dir: self.dir.path().to_owned(), ..AttachOptions::new(Role::Inspector) };
        let mut found = None;
        self.await_event("the blocks", |_| match attach(&channel.file_name(), &options) {
            Ok(block) => found.replace(Arc::new(block)).is_none(),
            Err(AttachError::Open(_)) => false,
            Err(error) => panic!("{error:?}"),
        });
        found.unwrap()
    }

    fn views(&self, index: usize) -> InspectorViews {
        self.blocks[index].inspector_views().unwrap()
    }

    /// The write and the commit index.
    fn control(&self, index: usize) -> (u64, u64) {
        let views = self.views(index);
        let control = views.control.row();
        let write = control.u64::<{ offset_of!(ControlPage, write_index) }>().load(Acquire);
        (write, control.u64::<{ offset_of!(ControlPage, commit_index) }>().load(Acquire))
    }

    fn remains(&self, index: usize, channel: &Channel) -> Remains {
        let lives = |place: usize, suffix: &str| -> Vec<Written> {
            let lives = 0..self.places[place].lives;
            lives.map(|life| Written::read(&log_of(&self.log(place, life), suffix))).collect()
        };
        let readers = READERS.iter().enumerate().filter(|(_, reader)| reader.channel == index);
        let line = |(place, reader): (usize, &crate::plan::ReaderPlan)| Line {
            name: reader.name,
            held: reader.held,
            lives: lives(place, "ids"),
        };
        Remains {
            name: channel.name,
            kind: channel.kind,
            producers: in_turn(
                (PRODUCER..self.places.len()).flat_map(|place| lives(place, channel.name)).collect(),
            ),
            readers: readers.map(line).collect(),
            end: self.end_of(index),
        }
    }

    /// As [`Crowd::writer_of`], once it is somebody's.
    pub(crate) fn await_writer(&mut self, index: usize) -> usize {
        let mut writer = None;
        self.await_event("a writer", |crowd| {
            writer = crowd.writer_of(index);
            writer.is_some()
        });
        writer.unwrap()
    }

    /// The place of the process that writes the block `index`; none while it is nobody's.
    fn writer_of(&self, index: usize) -> Option<usize> {
        let views = self.views(index);
        let owner = views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().load(Acquire);
        let pid = ProcessKey::from_word(owner)?.pid();
        self.places.iter().position(|place| place.process.as_ref().is_some_and(|process| process.id() == pid))
    }

    fn end_of(&self, index: usize) -> End {
        let (write_index, commit_index) = self.control(index);
        let views = self.views(index);
        let spec = &self.blocks[index].descriptor().spec;
        let mut stuck = Vec::new();
        let mut ring = Vec::new();
        for slot in 0..spec.slot_count {
            let record = views.slot_records.row(slot).unwrap();
            let ctl = Ctl(record.u64::<{ offset_of!(SlotRecord, ctl) }>().load(Acquire));
            match (ctl.state(), SlotId::of_tag(ctl.tag())) {
                (Some(SlotState::Committed), Some(id)) => ring.push((id.0, true)),
                (Some(SlotState::Free), Some(id)) => ring.push((id.0, false)),
                (Some(SlotState::Free), None) => {}
                (state, id) => stuck.push(format!("slot {slot} is {state:?} with {id:?}")),
            }
        }
        for row in 0..spec.max_consumers {
            let record = views.consumers.row(row).unwrap();
            let reg = Reg(record.u64::<{ offset_of!(ConsumerRow, reg) }>().load(Acquire));
            let owner = record.u64::<{ offset_of!(ConsumerRow, owner) }>().load(Acquire);
            let claim = record.u64::<{ offset_of!(ConsumerRow, claim) }>().load(Acquire);
            let cursor = record.u64::<{ offset_of!(ConsumerRow, cursor) }>().load(Acquire);
            if !(reg.0 == 0 || reg.is(RowState::Free)) || owner != 0 || claim != 0 {
                let owner = ProcessKey::from_word(owner);
                stuck.push(format!(
                    "row {row} is {:?} of {owner:?}, claim {claim:#x}, cursor {cursor}",
                    reg.state()
                ));
            }
        }
        for lock in 0..tidegate_hub::layout::LOCKS {
            let record = views.locks.row(lock).unwrap();
            if record.u64::<{ offset_of!(LockRecord, owner) }>().load(Acquire) != 0 {
                stuck.push(format!("lock {lock} is held"));
            }
        }
        let writer = views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().load(Acquire);
        let maintenance =
            views.sync.row().u64::<{ offset_of!(SyncPage, maintenance_lock.owner) }>().load(Acquire);
        if let Some(owner) = ProcessKey::from_word(writer) {
            stuck.push(format!("{owner:?} is the writer"));
        }
        if let Some(owner) = ProcessKey::from_word(maintenance) {
            stuck.push(format!("{owner:?} has the maintenance lock"));
        }
        End { write_index, commit_index, ring, stuck, counters: counters(&views), kills: self.kills }
    }
}

/// What the producers of a channel wrote down, in the order in which they had it. One that died before it gave an id
/// away has the first id of the next one.
fn in_turn(mut lives: Vec<Written>) -> Vec<Written> {
    lives.sort_by_key(|life| (life.words[START], life.words[PENDING_COUNT]));
    lives
}

macro_rules! counters {
    ($page:expr, $($name:ident = $field:ident,)*) => {
        Counters { $($name: $page.u64::<{ offset_of!(MetricsPage, $field) }>().load(Acquire),)* }
    };
}

fn counters(views: &InspectorViews) -> Counters {
    let page = views.metrics.row();
    counters! { page,
        written = total_slots_written,
        aborted = slots_aborted,
        skipped = slots_skipped_held,
        joined = consumers_joined,
        left = consumers_left,
        reaped = dead_consumers_reaped,
        read = total_slots_read_retired,
        lock_takeovers = lock_takeovers,
        transition_errors = state_transition_errors,
        validation_failed = reader_validation_failed,
    }
}

/// The key of a process that runs.
fn key_of(pid: u32) -> ProcessKey {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    ProcessKey::new(pid, rest.split(' ').nth(19).unwrap().parse().unwrap()).unwrap()
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for process in self.places.iter_mut().filter_map(|place| place.process.as_mut()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
