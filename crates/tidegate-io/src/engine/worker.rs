//! A worker: one thread, one compio runtime, and everything that lives on it.
//!
//! Every descriptor belongs to one worker, which alone reads, accepts and dials with it (only writing may be done by
//! senders, see [`token`](super::token)). The loop is ours: look into the mailbox, let deadlines pass, run the tasks of
//! the runtime, then sleep in its driver until something happens.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    task::Waker,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use compio::runtime::Runtime;

use super::{
    conn::Conn,
    control::Control,
    dial::{DialerTask, Lines},
    listen::ListenerTask,
    mailbox::{Inbox, Mailbox},
    table::{Key, Table},
    timers::Timers,
};
use crate::{
    batch::WriteBatch,
    buffer::with_local_slab,
    protocol::Ended,
    sync::{AtomicUsize, Ordering},
    wait::{Spin, hold},
};

/// How other threads reach a worker.
#[derive(Debug)]
pub(super) struct Door {
    mailbox: Mailbox<Work, Key>,
    /// Connections and dialers on the worker, by which the least loaded one is chosen.
    load: AtomicUsize,
    thread: ThreadId,
}

type Job = dyn FnOnce(&Rc<Worker>) + Send;

/// Something to run on a worker.
pub(super) struct Work(Box<Job>);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

impl Door {
    /// The door of the worker that the calling thread will be.
    pub(super) fn new(waker: Waker) -> Self {
        Self { mailbox: Mailbox::new(waker), load: AtomicUsize::new(0), thread: thread::current().id() }
    }

    /// Runs `job` on the worker; returns whether there still is a worker.
    pub(super) fn post(&self, job: impl FnOnce(&Rc<Worker>) + Send + 'static) -> bool {
        self.mailbox.post(Work(Box::new(job))).is_ok()
    }

    #[inline]
    pub(super) fn kick(&self, key: Key) {
        self.mailbox.kick(key);
    }

    /// Has the worker make another round.
    pub(super) fn wake(&self) {
        self.mailbox.signal();
    }

    /// Whether the calling thread is the worker.
    pub(super) fn is_here(&self) -> bool {
        self.thread == thread::current().id()
    }

    // Relaxed below: a hint for spreading load.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(super) fn add_load(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_load(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Conn(Key),
    Dialer(Key),
}

/// A worker, as what lives on it sees it.
pub(super) struct Worker {
    pub(super) door: Arc<Door>,
    /// Every worker of the engine, this one too.
    pub(super) doors: Arc<Vec<Arc<Door>>>,
    pub(super) conns: RefCell<Table<Rc<Conn>>>,
    pub(super) dialers: RefCell<Table<Rc<DialerTask>>>,
    pub(super) listeners: RefCell<Table<Rc<ListenerTask>>>,
    pub(super) lines: Lines,
    timers: RefCell<Timers<Target>>,
    /// Connections whose write pump gave way to others.
    again: RefCell<Vec<Key>>,
    pub(super) pool: Pool,
    now: Cell<Instant>,
    pub(super) spin: Spin,
    /// Bytes were read in this round.
    pub(super) heard: Cell<bool>,
    /// Rounds behind which wake-ups were held.
    held: Cell<u32>,
    /// Streams from which on wake-ups are held.
    crowd: usize,
    stopping: Cell<Option<Stop>>,
}

/// How a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// When its streams have ended.
    WhenIdle,
    /// At once.
    Now,
}

impl Worker {
    /// A worker with a thread of its own.
    pub(super) fn new(door: Arc<Door>, doors: Arc<Vec<Arc<Door>>>, spin: Duration) -> Rc<Self> {
        Self::with_crowd(door, doors, spin, CROWD)
    }

    /// A worker that holds wake-ups from `crowd` streams on.
    pub(super) fn with_crowd(
        door: Arc<Door>,
        doors: Arc<Vec<Arc<Door>>>,
        spin: Duration,
        crowd: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            door,
            doors,
            conns: RefCell::new(Table::new()),
            dialers: RefCell::new(Table::new()),
            listeners: RefCell::new(Table::new()),
            lines: Lines::default(),
            timers: RefCell::new(Timers::new()),
            again: RefCell::new(Vec::new()),
            pool: Pool::default(),
            now: Cell::new(Instant::now()),
            spin: Spin::new(spin),
            heard: Cell::new(false),
            held: Cell::new(0),
            crowd,
            stopping: Cell::new(None),
        })
    }

    /// Serves until told to stop.
    pub(super) fn run(self: &Rc<Self>, runtime: &Runtime) {
        runtime.enter(|| {
            let mut inbox = Inbox::new();
            let mut panics = 0;
            while !self.is_done() && panics < PANICS {
                match catch_unwind(AssertUnwindSafe(|| self.turn(runtime, &mut inbox, &|| false))) {
                    Ok(()) => panics = 0,
                    Err(panic) => {
                        self.report_panic("an engine worker", &*panic);
                        panics += 1;
                    }
                }
            }
        });
    }

    /// One round: serve what has come, then sleep until there is more, unless `is_wanted` says that the caller has
    /// something to do.
    pub(super) fn turn(
        self: &Rc<Self>,
        runtime: &Runtime,
        inbox: &mut Inbox<Work, Key>,
        is_wanted: &dyn Fn() -> bool,
    ) {
        let mut gave_way = false;
        for _ in 0..BUSY_ROUNDS {
            self.door.mailbox.awake();
            self.refresh_now();
            self.door.mailbox.take(inbox);
            let was_kicked = !inbox.kicked.is_empty();
            for job in inbox.jobs.drain(..) {
                (job.0)(self);
            }
            for key in inbox.kicked.drain(..) {
                if let Some(conn) = self.conn(key) {
                    conn.serve_requests(self);
                }
            }
            self.serve_again();
            self.serve_timers();
            if self.conns.borrow().len() >= self.crowd {
                hold::hold();
            }
            let more = runtime.run() || !self.again.borrow().is_empty();
            if self.holds_on(more) {
                break;
            }
            hold::release();
            if self.is_done() || is_wanted() {
                return;
            }
            if more {
                break;
            }
            if was_kicked && !std::mem::replace(&mut gave_way, true) {
                // Who has sent may be about to send more: to find that here saves putting this thread to sleep and
                // having the sender wake it. Costs next to nothing when no other thread waits for the processor.
                thread::yield_now();
                continue;
            }
            if self.spin.goes_on() {
                break;
            }
            if self.door.mailbox.may_park() {
                let own = self.timers.borrow().next().map(|at| at.saturating_duration_since(Instant::now()));
                let timeout = match (own, runtime.current_timeout()) {
                    (Some(own), Some(other)) => Some(own.min(other)),
                    (own, other) => own.or(other),
                };
                runtime.poll_with(timeout);
                return;
            }
        }
        // Woken beforehand, so that it asks the kernel for what is done without waiting for it: a wait of no length makes
        // io_uring arm a timer and schedule, which on a virtual machine takes longer than a message.
        runtime.waker().wake();
        runtime.poll_with(Some(Duration::ZERO));
    }

    /// Whether to look once more before anybody is woken. Of a crowd each says little, and hardly two at the same moment: who
    /// was woken for one would sleep again when the next is read.
    fn holds_on(&self, more: bool) -> bool {
        let heard = self.heard.take();
        let held = self.held.take();
        let holds = heard
            && !more
            && held < HELD_ROUNDS
            && self.conns.borrow().len() >= self.crowd
            && self.spin.until().is_none();
        if holds {
            self.spin.give_way();
            self.held.set(held + 1);
        }
        holds
    }

    fn serve_again(self: &Rc<Self>) {
        let mut keys = std::mem::take(&mut *self.again.borrow_mut());
        for key in keys.drain(..) {
            if let Some(conn) = self.conn(key) {
                conn.pump_again(self);
            }
        }
        let mut again = self.again.borrow_mut();
        if again.is_empty() {
            *again = keys;
        }
    }

    fn serve_timers(self: &Rc<Self>) {
        let now = self.now();
        loop {
            let target = self.timers.borrow_mut().expire(now);
            match target {
                None => return,
                Some(Target::Conn(key)) => {
                    if let Some(conn) = self.conn(key) {
                        conn.expire(self);
                    }
                }
                Some(Target::Dialer(key)) => {
                    let dialer = self.dialers.borrow().get(key).cloned();
                    if let Some(dialer) = dialer {
                        dialer.expire(self);
                    }
                }
            }
        }
    }

    /// Whether the worker was told to stop and may.
    fn is_done(&self) -> bool {
        match self.stopping.get() {
            None => false,
            Some(Stop::WhenIdle) => self.conns.borrow().len() == 0,
            Some(Stop::Now) => true,
        }
    }

    pub(super) fn stop(&self, stop: Stop) {
        self.stopping.set(Some(stop));
    }

    /// Forgets that it was told to stop, once it might: its thread has more to do than serve.
    pub(super) fn stay(&self) {
        if self.is_done() {
            self.stopping.set(None);
        }
    }

    /// Closes listeners, dialers and streams, and ends the worker when that is done.
    pub(super) fn close_everything(self: &Rc<Self>, linger: Duration) {
        let listeners = std::mem::replace(&mut *self.listeners.borrow_mut(), Table::new());
        drop(listeners);
        self.close_dialers(Some(linger));
        let conns: Vec<Rc<Conn>> = self.conns.borrow().values().cloned().collect();
        for conn in conns {
            Control(conn.shared.clone()).close_within(linger);
        }
        if self.stopping.get().is_none() {
            self.stop(Stop::WhenIdle);
        }
    }

    /// Ends what is left; returns how many streams that were.
    pub(super) fn finish(self: &Rc<Self>) -> usize {
        hold::release();
        // Whoever posted one was told that it would be run; what it starts ends with the rest.
        for job in self.door.mailbox.close() {
            guarded("a job of the engine", || (job.0)(self));
        }
        drop(std::mem::replace(&mut *self.listeners.borrow_mut(), Table::new()));
        let conns: Vec<Rc<Conn>> = self.conns.borrow().values().cloned().collect();
        for conn in &conns {
            conn.end(self, Ended::Local);
        }
        self.close_dialers(Some(Duration::ZERO));
        drop(std::mem::replace(&mut *self.dialers.borrow_mut(), Table::new()));
        conns.len()
    }

    /// The worker among those of `mask` that has the least to do.
    pub(super) fn least_loaded(&self, mask: u64) -> Arc<Door> {
        least_loaded(&self.doors, mask).unwrap_or_else(|| self.door.clone())
    }

    pub(super) fn conn(&self, key: Key) -> Option<Rc<Conn>> {
        self.conns.borrow().get(key).cloned()
    }

    /// The time, as of the start of what is being done.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    #[inline]
    pub(super) fn refresh_now(&self) {
        self.now.set(Instant::now());
    }

    pub(super) fn arm(&self, target: Target, armed: &mut Option<Instant>, wanted: Option<Instant>) {
        self.timers.borrow_mut().set(target, armed, wanted);
    }

    pub(super) fn disarm(&self, target: Target, armed: &mut Option<Instant>) {
        self.arm(target, armed, None);
    }

    /// Whether there are more streams than one.
    pub(super) fn serves_others(&self) -> bool {
        self.conns.borrow().len() > 1
    }

    pub(super) fn again(&self, key: Key) {
        self.again.borrow_mut().push(key);
    }

    /// Runs `task` on this worker until it ends by itself.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        compio::runtime::spawn(task).detach();
    }

    /// Runs `task` on this worker until it ends or the handle is dropped.
    pub(super) fn spawn_owned(
        &self,
        task: impl Future<Output = ()> + 'static,
    ) -> compio::runtime::JoinHandle<()> {
        compio::runtime::spawn(task)
    }

    /// Hands an operation to the driver.
    pub(super) fn submit<T: compio::driver::OpCode + 'static>(
        &self,
        operation: T,
    ) -> compio::runtime::Submit<T> {
        compio::runtime::submit(operation)
    }

    pub(super) fn report_panic(&self, who: &str, panic: &(dyn Any + Send)) {
        report_panic(who, panic);
    }
}

/// Runs code of the engine's user, whose panic ends nothing but itself (MQ-085).
pub(super) fn guarded(who: &str, code: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(code)) {
        report_panic(who, &*panic);
    }
}

fn report_panic(who: &str, panic: &(dyn Any + Send)) {
    let what = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    tracing::error!(panic = what.as_deref().unwrap_or("of unknown type"), "{who} panicked");
}

/// The worker among those of `mask` (0 is all) that has the least to do.
pub(super) fn least_loaded(doors: &[Arc<Door>], mask: u64) -> Option<Arc<Door>> {
    let allowed = |index: usize| mask == 0 || (index < 64 && mask >> index & 1 == 1);
    let doors = doors.iter().enumerate().filter(|(index, _)| allowed(*index));
    doors.min_by_key(|(_, door)| door.load()).map(|(_, door)| door.clone())
}

/// Panics in a row, without anything done between them, after which a worker gives up and ends its streams.
const PANICS: usize = 3;

/// Streams of a worker that are so many that what belongs to one has left the processor's caches when its turn comes.
const CROWD: usize = 1000;

/// Looks for more of a crowd before those are woken for whom there is something.
const HELD_ROUNDS: u32 = 8;

/// Rounds without a look at the driver while other threads keep posting.
const BUSY_ROUNDS: usize = 8;

/// Copied bytes of a write batch (MQ-052).
pub(super) const BATCH: usize = 64 * 1024;

/// Memory that streams of a worker borrow while they need it (MQ-026).
#[derive(Default)]
pub(super) struct Pool {
    batches: RefCell<Vec<WriteBatch>>,
    segments: RefCell<Vec<Vec<Bytes>>>,
}

impl Pool {
    /// Idle pieces that are kept of each kind.
    const KEPT: usize = 32;

    /// Room for at least `least` bytes, from the slab that the protocols of this worker use, too.
    pub(super) fn page(&self, least: usize) -> BytesMut {
        with_local_slab(|slab| slab.take(least))
    }

    pub(super) fn give_back(&self, tail: BytesMut) {
        with_local_slab(|slab| slab.give_back(tail));
    }

    pub(super) fn batch(&self) -> WriteBatch {
        self.batches.borrow_mut().pop().unwrap_or_else(|| WriteBatch::new(BATCH))
    }

    pub(super) fn put_batch(&self, batch: WriteBatch) {
        let mut batches = self.batches.borrow_mut();
        if batches.len() < Self::KEPT {
            batches.push(batch);
        }
    }

    pub(super) fn segments(&self) -> Vec<Bytes> {
        self.segments.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put_segments(&self, mut used: Vec<Bytes>) {
        used.clear();
        let mut segments = self.segments.borrow_mut();
        if segments.len() < Self::KEPT {
            segments.push(used);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream, sync::mpsc};

    use super::*;
    use crate::engine::{
        DriverChoice, Engine, EngineConfig,
        conn::Origin,
        driver,
        fixture::{Taker, unnamed},
        options::StreamOptions,
    };

    /// Where streams are many, who waits for what they say is woken when no more of it is there.
    ///
    /// Rules: MQ-057.
    #[test]
    fn of_a_crowd_is_looked_for_more_before_somebody_is_woken() {
        for crowd in [1, 2] {
            let runtime = driver::runtime(DriverChoice::Auto).unwrap();
            let door = Arc::new(Door::new(runtime.waker()));
            let worker =
                Worker::with_crowd(door.clone(), Arc::new(vec![door]), Duration::from_secs(1000), crowd);
            let woken = Arc::new(Woken::default());
            let heard = Rc::new(Cell::new(0));
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let key = Table::new().insert(|_| ());
            let protocol = Box::new(Taker { heard: heard.clone(), waker: Some(woken.clone().into()) });
            let options = StreamOptions::default();
            let count = || woken.0.load(Ordering::Relaxed);
            runtime.enter(|| {
                Conn::open(&worker, ours.into(), unnamed(), &options, Origin::Dialer(key), protocol);
                theirs.write_all(b"word").unwrap();
                let mut inbox = Inbox::new();
                let mut turn = || worker.turn(&runtime, &mut inbox, &|| heard.get() > 0);
                while heard.get() == 0 {
                    turn();
                }
                assert_eq!(count(), usize::from(crowd == 2), "{crowd}");
                turn();
                assert_eq!(count(), 1, "{crowd}");
                worker.finish();
            });
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A job that comes when the worker is about to end is run all the same: it may hold a descriptor, or somebody waits.
    #[test]
    fn what_was_posted_is_run_by_a_worker_that_ends() {
        let engine = Engine::new(&EngineConfig::default()).unwrap();
        let (tell, told) = mpsc::channel();
        engine.0.doors[0].post(move |worker| {
            worker.stop(Stop::Now);
            worker.door.post(move |_| tell.send(()).unwrap());
        });
        told.recv_timeout(Duration::from_secs(20)).expect("the job was run");
    }
}
