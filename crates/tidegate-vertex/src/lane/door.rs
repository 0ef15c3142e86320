//! Where workers come in that somebody else starts (7.1): one thread listens, looks who it is, hears its `hello`, and gives it to
//! the next lane that has no worker.
//!
//! ```text
//!  connect --> user allowed? --> hello in time, one that fits? --> a lane without a worker? --> its lane: welcome, ready
//!                 | no                 | no                            | no
//!                 +----- reject -------+------------- reject ----------+
//! ```
//!
//! Whoever knocks is hostile until its session says otherwise: connections that are not attached are bounded, each has a deadline,
//! none waits for another, and those that are turned away are so at a bounded rate, and are told why. Nothing that a worker does
//! here ends the vertex.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::PoisonError,
    thread::JoinHandle,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    time::Timespec,
};
use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    peer::Peer,
    sync::{Arc, Mutex, MutexGuard},
};
use tidegate_udf::{
    control::{Control, Incoming as Arrived},
    pace::Pace,
    wire::message::{BUSY, FULL, FromRuntime, FromWorker, Reject},
};

use super::{
    attach::{Agreed, AttachError, judge},
    listen::Listening,
    session::{Stranger, Typing},
};
use crate::operate::status::OutsideStatus;

pub use super::listen::ListenError;

/// Who may attach, and where.
#[derive(Debug, Clone)]
pub struct DoorSpec {
    /// The socket.
    pub path: PathBuf,
    /// A group that may connect besides this user.
    pub group: Option<u32>,
    /// Users whose processes may attach besides those of this user.
    pub allowed: Vec<u32>,
    /// Lanes.
    pub workers: NonZeroU32,
    /// What records are.
    pub typing: Typing,
    /// How long a worker may take to say who it is.
    pub attach_timeout: Nanos,
}

/// An open door; closed when dropped.
#[derive(Debug)]
pub struct Door {
    hall: Hall,
    path: PathBuf,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Where those who came in wait for a lane. Clones are handles of one.
#[derive(Debug, Clone)]
pub struct Hall {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts those who wait.
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// Lanes without a worker that nobody here is meant for.
    wanted: u32,
    waiting: VecDeque<Newcomer>,
    /// Connections that are not attached, wherever they are.
    unfinished: u32,
    refused: u64,
    last_refusal: Option<String>,
}

/// A worker that has said who it is and fits.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) control: Arc<Control>,
    pub(super) stranger: Stranger,
    pub(super) agreed: Agreed,
    /// Until it is attached, or not.
    pub(super) place: Place,
}

/// One of the connections that are not attached.
#[derive(Debug)]
pub(super) struct Place {
    hall: Hall,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hall.state().unfinished -= 1;
    }
}

impl Door {
    /// Listens, and lets workers in from now on. `tell` is called for each whose schemas do not fit, and does not wait.
    ///
    /// # Errors
    /// Another vertex listens there, the place is not safe, or the system refuses.
    pub fn open(spec: DoorSpec, tell: impl Fn(AttachError) + Send + 'static) -> Result<Self, ListenError> {
        let listening = Listening::at(&spec.path, spec.group)?;
        let path = spec.path.clone();
        let failed = |step| {
            let path = path.clone();
            move |source: io::Error| ListenError::Io { step, path, source }
        };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell =
            eventfd(0, flags | EventfdFlags::SEMAPHORE).map_err(|errno| failed("wait at")(errno.into()))?;
        let stop = Arc::new(eventfd(0, flags).map_err(|errno| failed("wait at")(errno.into()))?);
        let hall = Hall { shared: Arc::new(Shared { state: Mutex::new(State::default()), bell }) };
        let porter = Porter {
            spec,
            listening,
            hall: hall.clone(),
            stop: stop.clone(),
            pace: Pace::new(1, SAY_INTERVAL),
            tell: Box::new(tell),
        };
        let thread = std::thread::Builder::new().name("door".to_owned()).spawn(move || porter.run());
        let thread = thread.map_err(failed("start a thread for"))?;
        Ok(Self { hall, path, stop, thread: Some(thread) })
    }

    /// Where those who came in wait.
    pub fn hall(&self) -> Hall {
        self.hall.clone()
    }

    /// What there is to know; `attached` of so many lanes have a worker.
    pub fn status(&self, attached: u64, workers: NonZeroU32) -> OutsideStatus {
        let state = self.hall.state();
        OutsideStatus {
            socket: self.path.display().to_string(),
            workers: workers.get().into(),
            attached,
            attaching: state.unfinished.into(),
            refused: state.refused,
            last_refusal: state.last_refusal.clone(),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // A counter that is full is set as well.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It panicked if this is an error, and has said so.
            let _ = thread.join();
        }
        // They are hung up on, and come again when there is a runtime again. Not under the lock, which each takes.
        let waiting = std::mem::take(&mut self.hall.state().waiting);
        drop(waiting);
    }
}

impl Hall {
    /// A lane has no worker.
    pub(super) fn want(&self) {
        self.state().wanted += 1;
    }

    /// The next worker, when there is one for a lane that wants it; `None` when the lane has to end.
    pub(super) fn next(&self, stop: &OwnedFd) -> Option<Newcomer> {
        loop {
            let mut fds = [
                PollFd::new(&self.shared.bell, PollFlags::IN),
                PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot wait for a worker");
                    return None;
                }
            }
            if !fds[1].revents().is_empty() {
                return None;
            }
            // Another lane may have been faster.
            if rustix::io::read(&self.shared.bell, &mut [0; 8]).is_err() {
                continue;
            }
            let newcomer = self.state().waiting.pop_front();
            if newcomer.is_some() {
                return newcomer;
            }
        }
    }

    /// A place among those who are not attached, if there is one.
    fn place(&self, most: u32) -> Option<Place> {
        let mut state = self.state();
        if state.unfinished >= most {
            return None;
        }
        state.unfinished += 1;
        Some(Place { hall: self.clone() })
    }

    /// Gives a worker to the next lane; back if there is none.
    fn give(&self, newcomer: Newcomer) -> Result<(), Newcomer> {
        let mut state = self.state();
        if state.wanted == 0 {
            return Err(newcomer);
        }
        state.wanted -= 1;
        state.waiting.push_back(newcomer);
        drop(state);
        // Room for 2^64 of them.
        let _ = rustix::io::write(&self.shared.bell, &1u64.to_ne_bytes());
        Ok(())
    }

    fn refused(&self, why: String) {
        let mut state = self.state();
        state.refused += 1;
        state.last_refusal = Some(why);
    }

    /// The data is whole at every moment: a thread that panicked while it had the lock changes nothing about that.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread at the door.
struct Porter {
    spec: DoorSpec,
    listening: Listening,
    hall: Hall,
    stop: Arc<OwnedFd>,
    pace: Pace,
    tell: Box<dyn Fn(AttachError) + Send>,
}

/// Somebody who has not said yet who it is.
struct Knocking {
    control: Control,
    stranger: Stranger,
    place: Place,
    deadline: Nanos,
    /// CLOCK_BOOTTIME at a moment before it connected.
    before: Nanos,
}

impl Porter {
    fn run(mut self) {
        let mut knocking: Vec<Knocking> = Vec::new();
        // Nobody can have connected before.
        let mut quiet = boottime_now();
        // When the next one is looked at, after somebody was turned away.
        let mut open_at = Nanos::ZERO;
        loop {
            let now = monotonic_now();
            let is_open = now >= open_at;
            let first = knocking.iter().map(|one| one.deadline).min();
            let until = first.into_iter().chain((!is_open).then_some(open_at)).min();
            let Some((stop, comes, says)) = self.sleep(&knocking, is_open, until) else { return };
            if stop {
                return;
            }
            let now = monotonic_now();
            for (one, says) in std::mem::take(&mut knocking).into_iter().zip(says) {
                match self.hear(one, says, now) {
                    Heard::Nothing(one) => knocking.push(one),
                    Heard::Taken => {}
                    Heard::Refused => open_at = now.saturating_add(AFTER_REFUSAL),
                }
            }
            if !comes {
                continue;
            }
            let looked = boottime_now();
            match self.listening.accept() {
                Ok(Some(socket)) => match self.look(socket, quiet) {
                    Some(one) => knocking.push(one),
                    None => open_at = now.saturating_add(AFTER_REFUSAL),
                },
                // Whoever is seen next has connected since.
                Ok(None) => quiet = looked,
                Err(error) => {
                    self.say(&format!("cannot take a connection: {error}"));
                    open_at = now.saturating_add(AFTER_ERROR);
                }
            }
        }
    }

    /// Sleeps until something happens: whether to stop, whether somebody connects, and who says something.
    fn sleep(
        &self,
        knocking: &[Knocking],
        is_open: bool,
        until: Option<Nanos>,
    ) -> Option<(bool, bool, Vec<bool>)> {
        let timeout = until.map(|until| timespec(until.saturating_sub(monotonic_now())));
        let comes = if is_open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.listening, comes)];
        fds.extend(knocking.iter().map(|one| PollFd::new(&one.control, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for workers; no more of them can attach");
                return None;
            }
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Some((ready.next()?, ready.next()? && is_open, ready.collect()))
    }

    /// Looks who has connected; `None` if it was turned away.
    fn look(&mut self, socket: OwnedFd, before: Nanos) -> Option<Knocking> {
        let control = Control::new(socket);
        let peer = match Peer::of(&control) {
            Ok(peer) => peer,
            Err(error) => {
                self.say(&format!("cannot see who connects: {error}"));
                return None;
            }
        };
        let Peer { pid, uid, pidfd, .. } = peer;
        let stranger = Stranger { pid, uid, pidfd };
        let own = rustix::process::geteuid().as_raw();
        if uid != own && !self.spec.allowed.contains(&uid) {
            let allowed = &self.spec.allowed;
            let message = format!(
                "the vertex takes workers of user {own} and of udf.allowed_uids {allowed:?}, the worker is of user {uid}"
            );
            self.refuse(&control, &stranger, "UID", message);
            return None;
        }
        let most = self.spec.workers.get().saturating_add(SPARE);
        let Some(place) = self.hall.place(most) else {
            let message = format!("the vertex greets {most} workers already; come again");
            self.refuse(&control, &stranger, BUSY, message);
            return None;
        };
        let deadline = monotonic_now().saturating_add(self.spec.attach_timeout);
        Some(Knocking { control, stranger, place, deadline, before })
    }

    /// Hears what somebody has to say who connected, if it says something.
    fn hear(&mut self, one: Knocking, says: bool, now: Nanos) -> Heard {
        // Descriptors that come with it are closed by the kernel: there is no room for them (VX-426).
        let arrived = if says { one.control.receive(false) } else { Ok(None) };
        let datagram = match arrived {
            Ok(Some(Arrived::Message(datagram, _))) => datagram,
            Ok(None) if now < one.deadline => return Heard::Nothing(one),
            Ok(None) => {
                let within = self.spec.attach_timeout.0 / 1_000_000;
                let message = format!("the worker did not say hello within {within} ms (udf.attach_timeout)");
                return self.refuse(&one.control, &one.stranger, "TIMEOUT", message);
            }
            // It went away again.
            Ok(Some(Arrived::HangUp)) => return Heard::Refused,
            Err(error) => {
                let message = format!("the first message cannot be received: {error}");
                return self.refuse(&one.control, &one.stranger, "MESSAGE", message);
            }
        };
        let Knocking { control, stranger, place, before, .. } = one;
        let agreed = match FromWorker::decode(&datagram) {
            Ok(FromWorker::Hello(hello)) => judge(&hello, before, self.spec.typing),
            Ok(_) => Err(("MESSAGE", "the first message was not hello".to_owned())),
            Err(fault) => Err(("MESSAGE", fault.to_string())),
        };
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err((code, message)) => {
                if code == "SCHEMA" {
                    (self.tell)(AttachError::Refused { code, message: message.clone() });
                }
                return self.refuse(&control, &stranger, code, message);
            }
        };
        let newcomer = Newcomer { control: Arc::new(control), stranger, agreed, place };
        match self.hall.give(newcomer) {
            Ok(()) => Heard::Taken,
            Err(Newcomer { control, stranger, .. }) => {
                let workers = self.spec.workers;
                let message = format!("the vertex has its {workers} workers (udf.workers)");
                self.refuse(&control, &stranger, FULL, message)
            }
        }
    }

    /// Turns somebody away, and says why.
    fn refuse(&mut self, control: &Control, who: &Stranger, code: &'static str, message: String) -> Heard {
        let why = format!("{who} was refused ({code}): {message}");
        let reject = FromRuntime::Reject(Reject { code: code.to_owned(), message });
        // One that does not read learns it from the end of the connection.
        let _ = control.send(&reject.encode(), &[]);
        self.say(&why);
        self.hall.refused(why);
        Heard::Refused
    }

    /// Says it in the log, not faster than somebody can read.
    fn say(&mut self, what: &str) {
        if let Some(left_out) = self.pace.take(monotonic_now()) {
            tracing::warn!(left_out, socket = %self.spec.path.display(), "{what}");
        }
    }
}

/// What became of somebody who connected.
enum Heard {
    Nothing(Knocking),
    Taken,
    Refused,
}

fn timespec(time: Nanos) -> Timespec {
    Timespec::try_from(std::time::Duration::from(time)).unwrap_or_default()
}

/// Attaches that may be unfinished besides one for each lane (VX-426).
const SPARE: u32 = 4;
/// Rest after one that was turned away: whoever knocks without end costs no processor.
const AFTER_REFUSAL: Nanos = Nanos::from_millis(10);
/// Rest when there is no descriptor or no memory for a connection.
const AFTER_ERROR: Nanos = Nanos::from_millis(200);
const SAY_INTERVAL: Nanos = Nanos::from_secs(1);
