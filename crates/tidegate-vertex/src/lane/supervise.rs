//! The thread that starts a worker, sees it die, and starts it again (7.2, VX-436).
//!
//! Death is what the kernel says through the pidfd; a closed socket and a batch that takes too long end the worker, whose
//! death is then seen the same way. Only when it is dead and everything it has published was taken are its other batches
//! given back, so none is processed twice at the same time (VX-432).
//!
//! A worker that somebody else started is not killed but cut off: its session is closed, its connection ended, and what it writes
//! from then on nobody reads. It may still run for a moment when its batches are given to another one; its SDK ends the process.
//! The next worker is whoever comes in by the door.

use std::{io, os::fd::OwnedFd, thread::JoinHandle};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    time::Timespec,
};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    region::SealedMemory,
    sync::{Arc, AtomicU64, Ordering},
};
use tidegate_udf::{
    control::{Control, Incoming as Arrived},
    ring::Violation,
    wire::ids::BatchId,
};

pub(crate) use super::attach::random;
pub use super::attach::{AttachError, Origin, WorkerSpec};
use super::{
    attach::{self, Attached},
    backoff::{Backoff, Ended, with_jitter},
    hears::{Ear, Heard},
    receive,
    says::Tail,
    session::{Hold, Session, Shared},
};
use crate::{
    answer::Answer,
    fence::{Bells, FenceTable},
};

/// What happens on a lane, in this order: attached, answers, ended; and again.
#[derive(Debug)]
pub enum LaneEvent {
    /// A worker is attached; batches may be sent.
    Attached(Session),
    /// A batch is answered.
    Answered(BatchId, Answer),
    /// The worker has given room back that was missing; batches may be sent again.
    Room,
    /// The session is over.
    Ended {
        /// What was sent and not answered, the oldest first.
        unanswered: Vec<BatchId>,
        /// Why.
        why: EndReason,
    },
    /// A worker could not be attached; it is tried again, or the next one is waited for.
    NotAttached(AttachError),
}

/// Why a session ended.
#[derive(Debug)]
pub enum EndReason {
    /// The worker ended by itself or was killed by somebody else; how it ended.
    Died(String),
    /// The worker broke the protocol.
    Fault(Violation),
    /// A batch took too long.
    TimedOut,
    /// Nobody's fault: the lane was stopped, or somebody ended the worker, which has said so.
    Stopped,
}

/// The supervisor of one worker.
#[derive(Debug)]
pub struct Lane {
    stop: Arc<OwnedFd>,
    tail: Arc<Tail>,
    sleeps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    /// Starts the thread. What its functions say is for `heard`; `tell` is called from it and from the thread that takes answers, and does not wait.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn start(
        number: u32,
        spec: WorkerSpec,
        fence: &FenceTable,
        heard: Arc<Heard>,
        tell: impl Fn(LaneEvent) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let tail = Arc::new(Tail::default());
        let sleeps = Arc::new(AtomicU64::new(0));
        let supervisor = Supervisor {
            number,
            spec,
            fence: fence.memory(),
            bells: fence.bells(),
            stop: stop.clone(),
            tail: tail.clone(),
            sleeps: sleeps.clone(),
            heard,
            tell: Arc::new(tell),
        };
        let thread =
            std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || supervisor.run())?;
        Ok(Self { stop, tail, sleeps, thread: Some(thread) })
    }

    /// Asks the lane to end: the worker is told, and killed or cut off if it does not go.
    pub fn stop(&self) {
        // A counter that is full is set as well.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

impl Lane {
    /// The end of what its workers printed.
    pub fn tail(&self) -> Arc<Tail> {
        self.tail.clone()
    }

    /// How often the thread that takes answers went to sleep.
    pub fn sleeps(&self) -> u64 {
        // Relaxed: for people.
        self.sleeps.load(Ordering::Relaxed)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // It panicked if this is an error, and has said so.
            let _ = thread.join();
        }
    }
}

struct Supervisor {
    number: u32,
    spec: WorkerSpec,
    fence: Arc<SealedMemory>,
    bells: Bells,
    stop: Arc<OwnedFd>,
    tail: Arc<Tail>,
    sleeps: Arc<AtomicU64>,
    heard: Arc<Heard>,
    tell: Arc<dyn Fn(LaneEvent) + Send + Sync>,
}

impl Supervisor {
    fn run(&self) {
        let mut backoff = Backoff::default();
        self.want();
        loop {
            let Some((started, attached)) = self.attach() else { return };
            let ended = match attached {
                Ok(attached) => self.oversee(attached),
                Err(error) => {
                    (self.tell)(LaneEvent::NotAttached(error));
                    Ended::default()
                }
            };
            let lasted = monotonic_now().saturating_sub(started);
            self.want();
            let delay = backoff.after(Ended { lasted, ..ended });
            // Without random numbers all lanes start at once, which is no reason not to.
            if self.is_stopped_within(with_jitter(delay, random().unwrap_or_default())) {
                return;
            }
        }
    }

    /// Has the next worker that comes by itself wait for this lane, also while the lane rests.
    fn want(&self) {
        if let Origin::Outside(hall) = &self.spec.origin {
            hall.want();
        }
    }

    /// The next worker, and since when it is there; `None` when the lane has to end before one comes.
    fn attach(&self) -> Option<(Nanos, Result<Attached, AttachError>)> {
        let Self { spec, number, fence, tail, .. } = self;
        match &spec.origin {
            Origin::Command { command, env } => {
                let started = monotonic_now();
                Some((started, attach::start(spec, (command, env), *number, fence, tail)))
            }
            Origin::Outside(hall) => {
                let newcomer = hall.next(&self.stop)?;
                let started = monotonic_now();
                Some((started, attach::welcome(spec, newcomer, *number, fence)))
            }
        }
    }

    /// From the attach to the end of the session.
    fn oversee(&self, attached: Attached) -> Ended {
        let Attached { mut worker, control, session, incoming } = attached;
        let shared = incoming.shared.clone();
        let _hung = self.bells.hang(shared.link.clone());
        let (tell, sleeps) = (self.tell.clone(), self.sleeps.clone());
        let receiving = std::thread::Builder::new()
            .name(format!("lane-{}-rx", self.number))
            .spawn(move || receive::run(incoming, &sleeps, |event| tell(event)));
        let receiving = match receiving {
            Ok(thread) => thread,
            Err(source) => {
                let error = AttachError::Io { step: "start a thread", source };
                (self.tell)(LaneEvent::NotAttached(error));
                return Ended::default();
            }
        };
        (self.tell)(LaneEvent::Attached(session));
        let mut ear = Ear::new(self.number, self.heard.clone());
        let ended = self.watch(&control, &shared, &mut ear);
        shared.close();
        if let (Watched::Stop, Hold::Child(process)) = (ended, &shared.hold) {
            process.wait_exit(monotonic_now().saturating_add(GRACE));
        }
        let status = match &mut worker {
            Some(worker) => worker.end().map_or_else(|error| error.to_string(), |status| status.to_string()),
            None => {
                shared.end();
                "it hung up or died".to_owned()
            }
        };
        ear.hear_last(&control);
        // Release: pairs with the load of the receiving thread; a worker that was started here is dead and writes nothing any
        // more, and of another one no more is taken than it was granted.
        shared.closed.store(true, Ordering::Release);
        while !receiving.is_finished() {
            // Without moving the bell a single wake could come too early (VX-325).
            shared.link.wake_own();
            std::thread::sleep(WAKE_INTERVAL.into());
        }
        // It panicked if this is an error, and has said so.
        let _ = receiving.join();
        let why = match (shared.fault(), ended) {
            (Some(violation), _) => EndReason::Fault(violation),
            (None, Watched::Gone) => EndReason::Died(status),
            (None, Watched::TimedOut) => EndReason::TimedOut,
            (None, Watched::Stop) => EndReason::Stopped,
        };
        let ended = Ended { answered: shared.has_answered(), suspect: shared.suspect(), ..Ended::default() };
        (self.tell)(LaneEvent::Ended { unanswered: shared.unanswered(), why });
        ended
    }

    /// Sleeps until there is a reason to end the session.
    fn watch(&self, control: &Control, shared: &Shared, ear: &mut Ear) -> Watched {
        loop {
            let now = monotonic_now();
            let limit = shared.stuck_since().map(|since| since.saturating_add(self.spec.batch_timeout));
            let left = limit.map_or(LONGEST_SLEEP, |limit| limit.saturating_sub(now)).min(LONGEST_SLEEP);
            if left == Nanos::ZERO {
                return Watched::TimedOut;
            }
            // A worker that says too much is left to wait; that it hangs up is seen all the same.
            let listens = ear.listens_at(now);
            let (what, left) = match listens > now {
                true => (PollFlags::empty(), left.min(listens.saturating_sub(now))),
                false => (PollFlags::IN, left),
            };
            let (message, stop, dead) = {
                let mut fds = vec![PollFd::new(control, what), PollFd::new(&self.stop, PollFlags::IN)];
                let death = shared.hold.death();
                fds.extend(death.map(|death| PollFd::from_borrowed_fd(death, PollFlags::IN)));
                match poll(&mut fds, Some(&timespec(left))) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => {
                        tracing::error!(%error, "cannot watch a worker");
                        return Watched::Gone;
                    }
                }
                let is_ready = |fd: usize| fds.get(fd).is_some_and(|fd| !fd.revents().is_empty());
                (is_ready(0), is_ready(1), is_ready(2))
            };
            if stop {
                return Watched::Stop;
            }
            if dead {
                // What it said last tells whose fault that is.
                return if ear.hear_last(control) { Watched::Stop } else { Watched::Gone };
            }
            // That it hangs up ends the session (VX-425).
            match if message { control.receive(false) } else { Ok(None) } {
                Ok(Some(Arrived::Message(datagram, _))) if ear.hear(&datagram) => return Watched::Stop,
                Ok(Some(Arrived::HangUp)) | Err(_) => return Watched::Gone,
                Ok(Some(Arrived::Message(..)) | None) => {}
            }
        }
    }

    fn is_stopped_within(&self, time: Nanos) -> bool {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(time)));
        !fds[0].revents().is_empty()
    }
}

/// What ended the watch.
#[derive(Debug, Clone, Copy)]
enum Watched {
    Gone,
    TimedOut,
    Stop,
}

fn timespec(time: Nanos) -> Timespec {
    Timespec::try_from(std::time::Duration::from(time)).unwrap_or_default()
}

const LONGEST_SLEEP: Nanos = Nanos::from_secs(1);
/// How long a worker may take to end after its session.
const GRACE: Nanos = Nanos::from_secs(2);
const WAKE_INTERVAL: Nanos = Nanos::from_millis(1);
