//! Dialers: keep one stream to a target up, by the rules of [`state`].

mod connect;
mod line;
pub(super) mod state;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use compio::runtime::JoinHandle;
use socket2::SockAddr;

pub(super) use self::line::Lines;
pub use self::state::{Backoff, StopOn};
use self::{
    connect::Failure,
    line::Turn,
    state::{Input, Machine, Output},
};
use super::{
    address::{Side, StreamAddress, StreamInfo, Target},
    bind,
    conn::{Conn, Origin},
    control::Control,
    event::StreamEvent,
    listen::stream_info,
    options::StreamOptions,
    random::Random,
    resolve::Resolver,
    table::Key,
    timers::later,
    worker::{Door, Target as Timed, Worker, guarded},
};
use crate::protocol::{Connection, Retry};

/// Makes connections of the streams of a dialer.
///
/// Called on one worker thread.
pub trait Dialing: Send + Sync + 'static {
    /// The connection for a stream that is up.
    fn connect(&self, stream: &StreamInfo) -> Box<dyn Connection>;

    /// Something happened.
    fn event(&self, event: &StreamEvent<'_>) {
        let _ = event;
    }
}

/// What to dial, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Whom.
    pub target: Target,
    /// Options of the streams.
    pub options: StreamOptions,
    /// When to dial again.
    pub backoff: Backoff,
    /// How long reaching an address may take; `None` leaves it to the operating system (MQ-282).
    pub connect_timeout: Option<Duration>,
    /// Bit set of the workers that may be used; 0 is all.
    pub workers: u64,
}

impl Dial {
    /// Dials `target` with defaults.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            options: StreamOptions::default(),
            backoff: Backoff::default(),
            connect_timeout: None,
            workers: 0,
        }
    }
}

/// Keeps a stream up. Dropping it ends the stream at once.
#[derive(Debug)]
pub struct Dialer {
    door: Arc<Door>,
    /// Set on the worker.
    key: Arc<std::sync::OnceLock<Key>>,
    closed: bool,
}

impl Dialer {
    /// Dials anew if the dialer has stopped or was refused (MQ-280).
    pub fn retry(&self) {
        self.with(|dialer, worker| dialer.step(worker, Input::Retry));
    }

    /// Ends dialing once there has been one more stream: when the next handshake is complete, that stream is closed after
    /// it has written what it has to. Ends at once if the dialer has stopped, or when it stops. To be told while no
    /// stream's handshake is complete.
    pub fn finish(&self) {
        self.with(DialerTask::finish);
    }

    /// Ends dialing; a stream that is up is closed after it has written what it has to, at most for `linger`.
    pub fn close(mut self, linger: Option<Duration>) {
        self.end(linger);
    }

    fn end(&mut self, linger: Option<Duration>) {
        if !std::mem::replace(&mut self.closed, true) {
            self.with(move |dialer, worker| dialer.close(worker, linger));
        }
    }

    fn with(&self, action: impl FnOnce(&Rc<DialerTask>, &Rc<Worker>) + Send + 'static) {
        let key = self.key.clone();
        self.door.post(move |worker| {
            let dialer = key.get().and_then(|key| worker.dialers.borrow().get(*key).cloned());
            if let Some(dialer) = dialer {
                action(&dialer, worker);
            }
        });
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.end(Some(Duration::ZERO));
    }
}

/// A dialer on its worker.
pub(super) struct DialerTask {
    key: Key,
    dial: Dial,
    dialing: Arc<dyn Dialing>,
    resolver: Resolver,
    state: RefCell<State>,
}

struct State {
    machine: Machine,
    random: Random,
    addresses: Vec<SockAddr>,
    /// Number of the present lookup or of the last attempt; answers to older ones are not wanted.
    number: u64,
    attempts: Vec<(u64, JoinHandle<()>)>,
    conn: Option<Rc<Conn>>,
    /// While the handshake is under way.
    turn: Option<Turn>,
    /// The next stream is the last one.
    finishing: bool,
    removing: bool,
    armed: Option<Instant>,
}

/// Starts a dialer on the worker behind `door`.
pub(super) fn start(
    dial: Dial,
    dialing: Arc<dyn Dialing>,
    resolver: Resolver,
    door: Arc<Door>,
) -> Option<Dialer> {
    let key = Arc::new(std::sync::OnceLock::new());
    let task_key = key.clone();
    // Now, so that whoever dials next sees it.
    door.add_load();
    let started = door.post(move |worker| {
        let key = worker.dialers.borrow_mut().insert(|key| {
            Rc::new(DialerTask {
                key,
                state: RefCell::new(State {
                    machine: Machine::new(dial.backoff),
                    random: Random::seeded(),
                    addresses: Vec::new(),
                    number: 0,
                    attempts: Vec::new(),
                    conn: None,
                    turn: None,
                    finishing: false,
                    removing: false,
                    armed: None,
                }),
                dial,
                dialing,
                resolver,
            })
        });
        let _ = task_key.set(key);
        worker.with_dialer(key, |dialer| dialer.step(worker, Input::Start));
    });
    if !started {
        door.remove_load();
        return None;
    }
    Some(Dialer { door, key, closed: false })
}

impl DialerTask {
    fn step(self: &Rc<Self>, worker: &Rc<Worker>, input: Input) {
        let mut state = self.state.borrow_mut();
        let State { machine, random, .. } = &mut *state;
        let outputs = machine.step(input, &mut || random.fraction());
        drop(state);
        for output in outputs {
            self.perform(worker, output);
        }
        self.end_if_finished(worker);
    }

    fn finish(self: &Rc<Self>, worker: &Rc<Worker>) {
        self.state.borrow_mut().finishing = true;
        self.end_if_finished(worker);
    }

    /// Ends what is to be finished when its stream is there, or when none will come any more.
    fn end_if_finished(self: &Rc<Self>, worker: &Rc<Worker>) {
        let mut state = self.state.borrow_mut();
        if state.finishing && !state.machine.is_trying() {
            state.finishing = false;
            drop(state);
            self.close(worker, None);
        }
    }

    fn perform(self: &Rc<Self>, worker: &Rc<Worker>, output: Output) {
        match output {
            Output::Resolve => self.resolve(worker),
            Output::Dial(index) => self.attempt(worker, index),
            Output::Stagger(after) => self.arm(worker, later(worker.now(), after)),
            Output::DropAttempts => {
                self.arm(worker, None);
                let attempts = std::mem::take(&mut self.state.borrow_mut().attempts);
                drop(attempts);
            }
            Output::Wait(delay) => {
                self.arm(worker, later(worker.now(), delay));
                self.event(&StreamEvent::Retried { delay });
            }
            Output::Stop => self.event(&StreamEvent::Stopped),
            Output::Refuse => self.event(&StreamEvent::Refused),
            Output::Remove => {
                let mut state = self.state.borrow_mut();
                state.removing = true;
                let up = state.conn.is_some();
                drop(state);
                if !up {
                    self.remove(worker);
                }
            }
        }
    }

    fn close(self: &Rc<Self>, worker: &Rc<Worker>, linger: Option<Duration>) {
        self.step(worker, Input::Close);
        let conn = self.state.borrow().conn.clone();
        if let Some(conn) = conn {
            let control = Control(conn.shared.clone());
            match linger {
                None => control.close(),
                Some(Duration::ZERO) => control.abort(),
                Some(linger) => control.close_within(linger),
            }
        }
    }

    fn remove(&self, worker: &Worker) {
        if worker.dialers.borrow_mut().remove(self.key).is_some() {
            worker.door.remove_load();
            self.event(&StreamEvent::Removed);
        }
    }

    fn arm(&self, worker: &Worker, wanted: Option<Instant>) {
        worker.arm(Timed::Dialer(self.key), &mut self.state.borrow_mut().armed, wanted);
    }

    /// The timer has run out.
    pub(super) fn expire(self: &Rc<Self>, worker: &Rc<Worker>) {
        self.state.borrow_mut().armed = None;
        self.step(worker, Input::Timer);
    }

    fn resolve(self: &Rc<Self>, worker: &Rc<Worker>) {
        let addresses = match &self.dial.target {
            Target::Path(path) => bind::path_address(path).map(|address| vec![address]),
            Target::Abstract(name) => bind::abstract_address(name).map(|address| vec![address]),
            Target::Tcp { host, port, .. } => match host.parse::<IpAddr>() {
                Ok(ip) => Ok(vec![SocketAddr::new(ip, *port).into()]),
                Err(_) => return self.look_up(worker, host.clone(), *port),
            },
        };
        let addresses = addresses.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error));
        self.resolved(worker, addresses);
    }

    fn look_up(self: &Rc<Self>, worker: &Rc<Worker>, host: String, port: u16) {
        let number = self.next_number();
        let (door, key) = (worker.door.clone(), self.key);
        let answer = Box::new(move |found: io::Result<Vec<SocketAddr>>| {
            door.post(move |worker| {
                worker.with_dialer(key, |dialer| {
                    if dialer.state.borrow().number == number {
                        dialer
                            .resolved(worker, found.map(|found| found.into_iter().map(Into::into).collect()));
                    }
                });
            });
        });
        self.resolver.lookup(host, port, self.dial.options.ipv6, answer);
    }

    fn resolved(self: &Rc<Self>, worker: &Rc<Worker>, addresses: io::Result<Vec<SockAddr>>) {
        match addresses {
            Ok(addresses) => {
                let total = addresses.len();
                self.state.borrow_mut().addresses = addresses;
                self.step(worker, Input::Resolved(total));
            }
            Err(error) => {
                self.event(&StreamEvent::ResolveFailed(&error));
                self.step(worker, Input::ResolveFailed);
            }
        }
    }

    fn next_number(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.number += 1;
        state.number
    }

    fn attempt(self: &Rc<Self>, worker: &Rc<Worker>, index: usize) {
        let Some(address) = self.state.borrow().addresses.get(index).cloned() else { return };
        let number = self.next_number();
        let (task_worker, task_self) = (worker.clone(), self.clone());
        let task = worker.spawn_owned(async move {
            let named = StreamAddress::from_socket(&address);
            let turn = task_worker.lines.of(&named).acquire_arc().await;
            let outcome = connect::connect(&task_worker, &task_self.dial, &address, |fd| {
                task_self.event(&StreamEvent::ConnectDelayed { fd, address: &named });
            })
            .await;
            task_worker.refresh_now();
            task_self.attempted(&task_worker, number, &named, outcome.map(|fd| (fd, turn)));
        });
        self.state.borrow_mut().attempts.push((number, task));
    }

    /// An attempt has ended. Called by its task, which is detached first: it must not cancel itself.
    fn attempted(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        number: u64,
        address: &StreamAddress,
        outcome: Result<(OwnedFd, Turn), Failure>,
    ) {
        let mut state = self.state.borrow_mut();
        let place = state.attempts.iter().position(|(attempt, _)| *attempt == number);
        let Some(place) = place else { return };
        state.attempts.swap_remove(place).1.detach();
        drop(state);
        let outcome = outcome.and_then(|(fd, turn)| match stream_info(&fd, Side::Dialed, address.clone()) {
            Ok(info) => Ok((fd, info, turn)),
            Err(error) => Err(Failure { fd: Some(std::os::fd::AsRawFd::as_raw_fd(&fd)), error }),
        });
        match outcome {
            Ok((fd, info, turn)) => {
                self.state.borrow_mut().turn = Some(turn);
                self.up(worker, fd, info);
            }
            Err(Failure { fd, error }) => {
                self.event(&StreamEvent::ConnectFailed { fd, address, error: &error });
                let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                self.step(worker, Input::AttemptFailed { refused });
            }
        }
    }

    fn up(self: &Rc<Self>, worker: &Rc<Worker>, fd: OwnedFd, info: StreamInfo) {
        self.event(&StreamEvent::Connected(&info));
        self.step(worker, Input::Connected);
        let made = catch_unwind(AssertUnwindSafe(|| self.dialing.connect(&info)));
        match made {
            Ok(protocol) => {
                let conn =
                    Conn::prepare(worker, fd, info, &self.dial.options, Origin::Dialer(self.key), protocol);
                self.state.borrow_mut().conn = conn.clone();
                if let Some(conn) = conn {
                    conn.start(worker);
                }
            }
            Err(panic) => {
                worker.report_panic("a dialer's protocol", &*panic);
                self.state.borrow_mut().turn = None;
                self.step(worker, Input::Ended(Retry::Slow, worker.now()));
            }
        }
    }

    fn event(&self, event: &StreamEvent<'_>) {
        guarded("a dialer's user", || self.dialing.event(event));
    }
}

impl Worker {
    fn with_dialer(self: &Rc<Self>, key: Key, action: impl FnOnce(&Rc<DialerTask>)) {
        let dialer = self.dialers.borrow().get(key).cloned();
        if let Some(dialer) = dialer {
            action(&dialer);
        }
    }

    /// The handshake of a dialer's stream is complete.
    pub(super) fn dialer_established(self: &Rc<Self>, key: Key) {
        self.with_dialer(key, |dialer| {
            dialer.state.borrow_mut().turn = None;
            dialer.step(self, Input::Established(self.now()));
        });
    }

    /// The stream of a dialer has ended.
    pub(super) fn dialer_ended(self: &Rc<Self>, key: Key, event: &StreamEvent<'_>, retry: Retry) {
        self.with_dialer(key, |dialer| {
            dialer.event(event);
            let mut state = dialer.state.borrow_mut();
            state.conn = None;
            state.turn = None;
            let removing = state.removing;
            drop(state);
            if removing {
                dialer.remove(self);
            } else {
                dialer.step(self, Input::Ended(retry, self.now()));
            }
        });
    }

    /// Closes every dialer, as its handle would.
    pub(super) fn close_dialers(self: &Rc<Self>, linger: Option<Duration>) {
        let dialers: Vec<_> = self.dialers.borrow().values().cloned().collect();
        for dialer in dialers {
            dialer.close(self, linger);
        }
    }
}
