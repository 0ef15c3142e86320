//! Owners that are stopped, overtaken and woken again, as processes, against real servers (11.5).
//!
//! Each owner is this binary started again: it claims the partition, places its barrier, reads back, and publishes epochs whose
//! commit point is the ownership document. Stopped is a real SIGSTOP, at any moment or directly behind the permit of a write.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use signal_hook::low_level::raise;
use tidegate_shm::clock::{Nanos, boottime_now, monotonic_now};
use tidegate_udf::wire::ids::{PartitionId, Position};
use tidegate_vertex::{
    fence::{FenceTable, Fenced, WriteKind, WritePermit},
    nats::{
        Endpoint, Nats,
        ids::{IdStream, Sent},
        own::{Bucket, Claimant, Commit, Contender, OwnError, Owned, SinkState, Standing},
        strict::{Names, Place, StrictStream},
    },
    own::Known,
};

use crate::{
    server::{Server, messages, plain, strict, values as expected},
    world::{Process, until},
};

const ROLE: &str = "TIDEGATE_TEST_OWNER";
const PARTITION: PartitionId = PartitionId(0);
const LEASE: Nanos = Nanos::from_secs(2);
const EPOCH: u64 = 400;
const TOTAL: u64 = 20 * EPOCH;

/// How an owner ended.
const DONE: i32 = 0;
const FENCED: i32 = 75;
const REFUSED: i32 = 78;

/// An owner, in a process of its own: `<store url> <sink url> <class> <pause> <directory>`.
#[test]
fn owner_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let parts: Vec<&str> = role.split(' ').collect();
    let [store, sink, class, pause, dir] = parts[..] else { panic!("{role}") };
    let code = Owner { sink, class, pause: pause.parse().unwrap(), dir: Path::new(dir) }.run(store);
    std::process::exit(code);
}

struct Owner<'a> {
    sink: &'a str,
    class: &'a str,
    /// The epoch in which it stops itself behind a permit; 0 is never.
    pause: u64,
    dir: &'a Path,
}

enum Sink {
    Strict(Box<StrictStream>),
    Ids(Box<IdStream>),
}

impl Owner<'_> {
    fn run(&self, store: &str) -> i32 {
        let mut owned = claim(store);
        let session = owned.session();
        let mut fence = FenceTable::create(1, 1).unwrap();
        let (_, guard) = fence.bind(PARTITION, session.generation).unwrap();
        guard.extend(owned.deadline());
        let permit = || guard.permit(WriteKind::Sink);
        let nats = Nats::connect(&Endpoint::open(self.sink), "owner").unwrap();
        let last = owned.document().commit.clone();
        let mut sink = if self.class == "A" {
            let names = Names {
                stream: "OUT".to_owned(),
                data: "OUT.0.data".to_owned(),
                fence: "OUT.0.fence".to_owned(),
                keep: Duration::from_secs(60),
            };
            let mut stream = StrictStream::open(nats, names, 0xaa, session).unwrap();
            if let Err(error) = stream.barrier(permit) {
                return ended(self.dir, &error);
            }
            let since = last.as_ref().map(|commit| parse(&commit.sinks[0].token));
            stream.read_back(since).unwrap();
            Sink::Strict(Box::new(stream))
        } else {
            Sink::Ids(Box::new(IdStream::open(nats, "OUT", "OUT.0.data", Duration::from_secs(120)).unwrap()))
        };
        let (mut epoch, mut next) = last.map_or((0, 0), |commit| (commit.epoch, commit.resume));
        while next < TOTAL {
            if boottime_now() >= owned.renew_at() {
                match owned.renew() {
                    Ok(_) => guard.extend(owned.deadline()),
                    Err(error) => return ended(self.dir, &error),
                }
            }
            epoch += 1;
            let messages = messages(next..next + EPOCH, epoch);
            let permit = || self.paused(epoch, guard.permit(WriteKind::Sink)?);
            let token = match &mut sink {
                Sink::Strict(stream) => match stream.publish(Position(next), &messages, permit) {
                    Ok(place) => format!("{}:{}", place.created, place.sequence),
                    Err(error) => return ended(self.dir, &error),
                },
                Sink::Ids(stream) => match stream.publish(&session, &messages, permit) {
                    Ok(Sent::All) => String::new(),
                    Ok(sent) => return ended(self.dir, &format!("{sent:?}")),
                    Err(error) => return ended(self.dir, &error),
                },
            };
            next += EPOCH;
            let commit = Commit {
                epoch,
                generation: session.generation.0,
                digest: String::new(),
                resume: next,
                identity: String::new(),
                sinks: vec![SinkState { name: "main".to_owned(), token }],
            };
            match owned.decide(Some(commit), None, || Ok::<_, Fenced>(())) {
                Ok(()) => guard.extend(owned.deadline()),
                Err(error) => return ended(self.dir, &error),
            }
            fs::write(self.dir.join(format!("{session:?}.epochs")), epoch.to_string()).unwrap();
        }
        owned.release().unwrap();
        DONE
    }

    /// Stops here when the epoch is the one to stop in: the permit is taken, nothing is sent.
    fn paused(&self, epoch: u64, permit: WritePermit) -> Result<WritePermit, Fenced> {
        if epoch == self.pause {
            // This thread at once, not when another one takes the signal.
            raise(Signal::STOP.as_raw()).unwrap();
        }
        Ok(permit)
    }
}

/// Waits until the partition is free, and claims it.
fn claim(store: &str) -> Owned {
    let connect =
        || Bucket::open(Nats::connect(&Endpoint::open(store), "owner").unwrap(), "zombies").unwrap();
    // The same name for all of them: it is no identity (Z9).
    let claimant = Claimant { uid: 0xaa, owner: "host".to_owned(), lease: LEASE };
    let mut contender = Contender::new(PARTITION, claimant);
    let bucket = connect();
    loop {
        match contender.look(&bucket, monotonic_now()).unwrap() {
            Standing::Held { .. } => std::thread::sleep(Duration::from_millis(20)),
            Standing::Free(found) => {
                let nonce = boottime_now().0 ^ u64::from(std::process::id());
                match contender.claim(connect(), found, nonce, &Known::default(), false) {
                    Ok(owned) => return owned,
                    Err(OwnError::Taken { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// Leaves a note of what ended it, and says how.
fn ended(dir: &Path, why: &(impl std::fmt::Debug + ?Sized)) -> i32 {
    let text = format!("{why:?}");
    fs::write(dir.join(format!("{}.why", std::process::id())), &text).unwrap();
    if text.contains("Fenced") || text.contains("Expired") || text.contains("Taken") {
        FENCED
    } else {
        REFUSED
    }
}

fn parse(token: &str) -> Place {
    let (created, sequence) = token.split_once(':').unwrap();
    Place { created: created.parse().unwrap(), sequence: sequence.parse().unwrap() }
}

/// Two owners, one after the other, and what they share.
struct Scene {
    store: Server,
    sink: Server,
    class: &'static str,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new(class: &'static str) -> Self {
        let (store, sink) = (Server::start(), Server::start());
        sink.create(if class == "A" { strict("OUT") } else { plain("OUT", "OUT.0.>") });
        Self { store, sink, class, dir: tempfile::tempdir().unwrap() }
    }

    fn start(&self, pause: u64) -> Process {
        let dir = self.dir.path().display();
        let role = format!("{} {} {} {pause} {dir}", self.store.url(), self.sink.url(), self.class);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "zombies::owner_process", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }

    /// Lets owners run until one has finished; one that a slow machine kept from its renewals is followed by the next.
    fn finish(&self) {
        loop {
            let mut owner = self.start(0);
            let code = owner.wait().code();
            match code {
                Some(DONE) => return,
                code => assert_eq!(code, Some(FENCED), "{}", self.why(&owner)),
            }
        }
    }

    /// An owner that has stopped itself behind a permit of its fourth epoch.
    fn stopped_behind_permit(&self) -> Process {
        loop {
            let mut owner = self.start(4);
            if owner.stops() {
                return owner;
            }
            assert_eq!(owner.wait().code(), Some(FENCED), "{}", self.why(&owner));
        }
    }

    /// Everything exactly once and in order.
    fn is_whole(&self) {
        let values = self.sink.values("OUT");
        let expected = expected(0..TOTAL);
        let distinct: BTreeSet<&String> = values.iter().collect();
        assert_eq!((values.len(), distinct.len()), (expected.len(), expected.len()));
        assert!(values == expected, "order");
    }

    /// What a process noted when it ended.
    fn why(&self, process: &Process) -> String {
        let path: PathBuf = self.dir.path().join(format!("{}.why", process.0.id()));
        fs::read_to_string(path).unwrap()
    }

    fn stored(&self) -> usize {
        self.sink.connect().stream("OUT").unwrap().1.state.last_sequence as usize
    }
}

/// Z1 and Z3: stopped wherever it is, most likely among messages that are sent without waiting for each other.
/// Cases: CT-30, CT-32.
/// Rules: VX-716, VX-721, VX-755, VX-845, VX-848.
#[test]
fn an_owner_that_was_stopped_anywhere_writes_nothing_when_it_wakes() {
    let scene = Scene::new("A");
    let mut old = scene.start(0);
    until("writing", || scene.stored() > 3 * EPOCH as usize + 150);
    old.signal(Signal::STOP);
    scene.finish();
    old.signal(Signal::CONT);
    let status = old.wait();
    assert!(matches!(status.code(), Some(FENCED | REFUSED)), "{status}: {}", scene.why(&old));
    scene.is_whole();
}

/// Z2: the permit is taken, the bytes are sent only after another owner has finished everything.
/// Cases: CT-31.
/// Rules: VX-711, VX-740, VX-755, VX-845.
#[test]
fn a_write_whose_permit_is_older_than_the_takeover_is_refused_by_the_stream() {
    let scene = Scene::new("A");
    let mut old = scene.stopped_behind_permit();
    scene.finish();
    let stored = scene.stored();
    old.signal(Signal::CONT);
    assert_eq!(old.wait().code(), Some(REFUSED), "{}", scene.why(&old));
    assert!(scene.why(&old).contains("Newer"), "{}", scene.why(&old));
    assert_eq!(scene.stored(), stored);
    scene.is_whole();
}

/// Z2 with ids: what is late has the same ids, and no commit.
/// Cases: CT-31.
/// Rules: VX-711, VX-843.
#[test]
fn a_late_write_with_ids_is_a_duplicate_and_commits_nothing() {
    let scene = Scene::new("B");
    let mut old = scene.stopped_behind_permit();
    scene.finish();
    old.signal(Signal::CONT);
    assert_eq!(old.wait().code(), Some(FENCED));
    scene.is_whole();
}

/// Z4: nobody answers about ownership while the sink does.
/// Cases: CT-37.
/// Rules: VX-716, VX-719.
#[test]
fn an_owner_that_cannot_reach_the_store_stops_writing_at_its_deadline() {
    let scene = Scene::new("A");
    let mut old = scene.start(0);
    until("writing", || scene.stored() > 2 * EPOCH as usize);
    scene.store.signal(Signal::STOP);
    assert_eq!(old.wait().code(), Some(FENCED));
    scene.store.signal(Signal::CONT);
    scene.finish();
    scene.is_whole();
}

/// Killed at any moment, several owners in turn.
/// Cases: CT-42.
/// Rules: VX-711, VX-848.
#[test]
fn owners_that_are_killed_leave_nothing_twice_and_nothing_out() {
    let scene = Scene::new("A");
    for share in 1..=4 {
        let old = scene.start(0);
        until("writing", || scene.stored() > share * 4 * EPOCH as usize - 77 * share);
        drop(old);
    }
    scene.finish();
    scene.is_whole();
}
