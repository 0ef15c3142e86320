//! Random runs: a naive model of pipes with the rules common to all types, a [`Table`] per type, and the comparison.
//!
//! Besides results, after every step is checked: what is queued has been announced to the writer once; reading waits
//! exactly where the model says so; whoever could be waiting is woken when readiness appears from outside, and who waits
//! for a certain pipe as soon as the model would not have that message wait; and the counters add up.

use std::collections::VecDeque;

use super::*;

/// One pipe as the model sees it.
#[derive(Clone, Debug)]
pub(super) struct ModelPipe {
    pub(super) peer: Peer,
    pub(super) dialed: bool,
    pub(super) up: bool,
    pub(super) open: bool,
    /// Its connection is to end, by the table; it is open again if it is kept then.
    pub(super) cut: bool,
    pub(super) retired: bool,
    pub(super) out: VecDeque<Frames>,
    pub(super) full: bool,
    pub(super) inbound: VecDeque<Frames>,
    pub(super) inbound_full: bool,
    pub(super) identity: String,
    /// The writer was told, and has not found the pipe empty since.
    announced: bool,
    /// The reader was told to stop.
    pub(super) stopped: bool,
}

impl ModelPipe {
    pub(super) fn new(key: PeerKey, dialed: bool, identity: &str) -> Self {
        Self {
            peer: Peer { key, epoch: Epoch::ZERO },
            dialed,
            up: false,
            open: true,
            cut: false,
            retired: false,
            out: VecDeque::new(),
            full: false,
            inbound: VecDeque::new(),
            inbound_full: false,
            identity: identity.to_owned(),
            announced: false,
            stopped: false,
        }
    }

    pub(super) fn takes(&self) -> bool {
        self.open && !self.full
    }
}

/// Pipes and limits of the model.
pub(super) struct Pipes {
    pub(super) all: Vec<ModelPipe>,
    pub(super) send: usize,
    pub(super) receive: usize,
    pub(super) settings: Settings,
}

impl Pipes {
    pub(super) fn queue(&mut self, at: usize, parts: Frames) {
        let limit = self.send;
        let pipe = &mut self.all[at];
        pipe.out.push_back(parts);
        pipe.full |= limit != 0 && pipe.out.len() >= limit;
    }

    pub(super) fn drop_queued(&mut self, at: usize) {
        self.all[at].out.clear();
        self.all[at].full = false;
    }

    pub(super) fn arrive(&mut self, at: usize, parts: Frames) {
        let limit = self.receive;
        let pipe = &mut self.all[at];
        pipe.inbound.push_back(parts);
        pipe.inbound_full |= limit != 0 && pipe.inbound.len() >= limit;
    }

    pub(super) fn read(&mut self, at: usize) -> Frames {
        let limit = self.receive;
        let pipe = &mut self.all[at];
        let parts = pipe.inbound.pop_front().expect("the model has a message");
        pipe.inbound_full &= pipe.inbound.len() > limit / 2;
        parts
    }
}

/// Peers in turn, the first one first.
#[derive(Default)]
pub(super) struct Turns(pub(super) VecDeque<usize>);

impl Turns {
    pub(super) fn join(&mut self, at: usize) {
        if !self.0.contains(&at) {
            self.0.push_back(at);
        }
    }

    pub(super) fn leave(&mut self, at: usize) {
        self.0.retain(|other| *other != at);
    }

    /// The peer whose turn it is goes to the end.
    pub(super) fn next(&mut self) -> Option<usize> {
        let at = self.0.pop_front()?;
        self.0.push_back(at);
        Some(at)
    }
}

/// Load balancing as the table of 6.5 tells it.
#[derive(Default)]
pub(super) struct SendLane(pub(super) Turns);

impl SendLane {
    pub(super) fn join(&mut self, pipes: &Pipes, at: usize) {
        if pipes.all[at].takes() {
            self.0.join(at);
        }
    }

    /// Who gets the message.
    pub(super) fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Option<usize> {
        while let Some(&at) = self.0.0.front() {
            if !pipes.all[at].takes() {
                self.0.0.pop_front();
                continue;
            }
            self.0.next();
            pipes.queue(at, parts);
            if !pipes.all[at].takes() {
                self.0.leave(at);
            }
            return Some(at);
        }
        None
    }
}

/// Fair queueing as the table of 6.5 tells it.
#[derive(Default)]
pub(super) struct ReceiveLane(pub(super) Turns);

impl ReceiveLane {
    pub(super) fn arrive(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) {
        pipes.arrive(at, parts);
        self.0.join(at);
    }

    pub(super) fn next(&mut self, pipes: &mut Pipes) -> Option<(usize, Frames)> {
        let at = self.0.next()?;
        let parts = pipes.read(at);
        if pipes.all[at].inbound.is_empty() {
            self.0.leave(at);
        }
        Some((at, parts))
    }
}

/// A state table, told naively. What it answers is compared with the state machine.
pub(super) trait Table: Default {
    const KIND: SocketType;

    /// Options that the random run chooses from `bits`.
    fn options(settings: &mut Settings, bits: u8) {
        let _ = (settings, bits);
    }

    /// A message as the application or a peer might send it; `number` makes it unlike all others.
    fn outgoing(&self, pipes: &Pipes, a: u8, number: u32) -> Frames {
        let _ = (pipes, a);
        vec![format!("out {number}").into_bytes()]
    }

    fn incoming(&self, a: u8, number: u32) -> Frames {
        vec![format!("in {number} {a}").into_bytes()]
    }

    fn opened(&mut self, pipes: &mut Pipes, at: usize);

    /// False when the peer is not let in.
    fn up(&mut self, pipes: &mut Pipes, at: usize) -> bool;

    fn lost(&mut self, pipes: &mut Pipes, at: usize) {
        let _ = (pipes, at);
    }

    fn closing(&mut self, pipes: &mut Pipes, at: usize);

    fn gone(&mut self, pipes: &mut Pipes, at: usize) {
        let _ = (pipes, at);
    }

    fn forget_received(&mut self, pipes: &mut Pipes, at: usize) {
        let _ = (pipes, at);
    }

    fn room(&mut self, pipes: &mut Pipes, at: usize) {
        let _ = (pipes, at);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation>;

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        let _ = (pipes, parts);
        Err(SendRefusal::NotSupported)
    }

    /// Whether a sender of this message, who was told for which pipe to wait, still has to.
    fn has_to_wait(&self, pipes: &Pipes, parts: &[Vec<u8>]) -> bool {
        let _ = (pipes, parts);
        false
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        let _ = pipes;
        Err(RecvRefusal::NotSupported)
    }

    /// An event of this type only.
    fn special(&mut self, rig: &mut Rig, pipes: &mut Pipes, a: u8, b: u8) {
        let _ = (rig, pipes, a, b);
    }

    /// Changes of subscriptions that were taken for writing: all there were.
    fn commands(&mut self, pipes: &Pipes, at: usize, taken: Vec<Command>) {
        let _ = (pipes, at);
        assert_eq!(taken, []);
    }

    /// Compares what only this type has.
    fn check(&mut self, rig: &mut Rig, pipes: &Pipes) {
        let _ = (rig, pipes);
    }
}

/// One step of a random run.
pub(super) type Step = (u8, u8, u8);

/// Runs the steps through the state machine and the model.
pub(super) fn run<T: Table>(bits: u8, limits: (usize, usize), steps: &[Step]) {
    let mut rig = Rig::with(T::KIND, |settings| {
        settings.send = messages(limits.0);
        settings.receive = messages(limits.1);
        T::options(settings, bits);
    });
    let settings = rig.state.settings().clone();
    let mut run = Run {
        table: T::default(),
        pipes: Pipes { all: Vec::new(), send: limits.0, receive: limits.1, settings },
        stale: Vec::new(),
        number: 0,
        wait: Readiness::default(),
        waiting: Vec::new(),
    };
    for (at, step) in steps.iter().enumerate() {
        run.wait = rig.state.readiness();
        let outside = run.step(&mut rig, *step);
        run.check(&mut rig, outside, at, *step);
    }
}

struct Run<T> {
    table: T,
    pipes: Pipes,
    /// Connections that are gone.
    stale: Vec<Peer>,
    number: u32,
    wait: Readiness,
    /// Messages of senders that wait, each for a pipe.
    waiting: Vec<(Frames, PeerKey)>,
}

impl<T: Table> Run<T> {
    const PUBLISHES: bool = matches!(T::KIND, SocketType::Pub | SocketType::XPub);

    /// Does one step; true when it came from outside.
    fn step(&mut self, rig: &mut Rig, (what, a, b): Step) -> bool {
        match what % 20 {
            0 => self.accept(rig, a),
            1 => self.dial(rig),
            2 | 3 => self.reconnect(rig, a, b),
            4 => self.down(rig, a),
            5 => self.stale(rig, a, b),
            6..=9 => self.data(rig, a, b),
            10 | 11 => self.take(rig, a, b),
            12 => self.limits(rig, a, b),
            13 => self.detach(rig, a, b),
            14 => {
                self.table.special(rig, &mut self.pipes, a, b);
                return false;
            }
            15..=17 => {
                self.number += 1;
                let parts = self.table.outgoing(&self.pipes, a, self.number);
                let borrowed: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                let mut sent = rig.send(&borrowed);
                if let Err(SendRefusal::WouldBlock(Awaited::RoomOn(full))) = sent {
                    self.waiting.push((parts.clone(), full));
                    if Self::PUBLISHES {
                        // Of several that are full any may be named.
                        assert!(!rig.state.core.is_writable(full));
                        sent = Err(SendRefusal::WouldBlock(Awaited::Room));
                    }
                }
                assert_eq!(sent, self.expected_send(parts), "send");
                return false;
            }
            _ => {
                let expected = self.table.recv(&mut self.pipes);
                assert_eq!(rig.recv(), expected, "recv");
                return false;
            }
        }
        true
    }

    fn expected_send(&mut self, parts: Frames) -> Result<(), SendRefusal> {
        self.table.send(&mut self.pipes, parts)
    }

    /// A pipe that is not retired.
    fn some_pipe(&self, a: u8, fits: impl Fn(&ModelPipe) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.pipes.all.len())
            .filter(|at| !self.pipes.all[*at].retired && fits(&self.pipes.all[*at]))
            .collect();
        fitting.get(usize::from(a) % fitting.len().max(1)).copied()
    }

    fn add(&mut self, key: PeerKey, dialed: bool, identity: &str) -> usize {
        self.pipes.all.push(ModelPipe::new(key, dialed, identity));
        self.pipes.all.len() - 1
    }

    fn accept(&mut self, rig: &mut Rig, a: u8) {
        let identity = identity(a);
        let result = rig.try_accept(identity);
        let key = result.map_or(PeerKey::new(u32::MAX), |peer| peer.key);
        let at = self.add(key, false, identity);
        self.pipes.all[at].up = true;
        let let_in = self.table.up(&mut self.pipes, at);
        assert_eq!(result.is_ok(), let_in, "accept {identity:?}: {result:?}");
        match result {
            Ok(peer) => {
                self.pipes.all[at].peer = peer;
                self.table.opened(&mut self.pipes, at);
            }
            Err(_) => self.pipes.all[at].retired = true,
        }
    }

    fn dial(&mut self, rig: &mut Rig) {
        let key = rig.dial();
        let at = self.add(key, true, "");
        self.table.opened(&mut self.pipes, at);
    }

    /// A dialed pipe gets a connection, also while it still has one.
    fn reconnect(&mut self, rig: &mut Rig, a: u8, b: u8) {
        let Some(at) = self.some_pipe(a, |pipe| pipe.dialed && (pipe.open || pipe.cut)) else { return };
        let identity = identity(b);
        let result = rig.try_up(self.pipes.all[at].peer.key, identity);
        if self.pipes.all[at].up {
            self.lose(at);
        }
        let pipe = &mut self.pipes.all[at];
        pipe.up = true;
        pipe.identity = identity.to_owned();
        let let_in = self.table.up(&mut self.pipes, at);
        assert_eq!(result.is_ok(), let_in, "up {identity:?}: {result:?}");
        match result {
            Ok(peer) => self.pipes.all[at].peer = peer,
            Err(_) => self.pipes.all[at].up = false,
        }
    }

    fn lose(&mut self, at: usize) {
        let pipe = &mut self.pipes.all[at];
        self.stale.push(pipe.peer);
        (pipe.up, pipe.announced, pipe.stopped) = (false, false, false);
        if std::mem::take(&mut pipe.cut) {
            pipe.open = true;
            return;
        }
        self.table.lost(&mut self.pipes, at);
    }

    fn down(&mut self, rig: &mut Rig, a: u8) {
        let Some(at) = self.some_pipe(a, |pipe| pipe.up) else { return };
        let pipe = &self.pipes.all[at];
        let keep = pipe.dialed && a < 200;
        rig.down(pipe.peer, keep);
        if keep && (pipe.open || pipe.cut) {
            self.lose(at);
        } else {
            self.end(at);
        }
    }

    fn end(&mut self, at: usize) {
        if self.pipes.all[at].open {
            self.table.closing(&mut self.pipes, at);
        }
        let pipe = &mut self.pipes.all[at];
        if pipe.up {
            self.stale.push(pipe.peer);
        }
        (pipe.open, pipe.cut, pipe.up, pipe.retired) = (false, false, false, true);
        self.table.gone(&mut self.pipes, at);
        self.pipes.all[at].out.clear();
    }

    /// News of a connection that is gone changes nothing.
    fn stale(&mut self, rig: &mut Rig, a: u8, b: u8) {
        let Some(peer) = self.stale.get(usize::from(a) % self.stale.len().max(1)).copied() else { return };
        match b % 4 {
            0 => rig.down(peer, false),
            1 => assert_eq!(rig.receive(peer, &[b"late"]), Received::Stale),
            2 => assert_eq!(rig.subscribe(peer, "late"), Received::Stale),
            _ => assert_eq!(rig.take(peer), Vec::<Frames>::new()),
        }
    }

    fn data(&mut self, rig: &mut Rig, a: u8, b: u8) {
        let Some(at) = self.some_pipe(a, |pipe| pipe.up) else { return };
        self.number += 1;
        let parts = self.table.incoming(b, self.number);
        let borrowed: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let peer = self.pipes.all[at].peer;
        let result = rig.receive(peer, &borrowed);
        if !self.pipes.all[at].open {
            assert_eq!(result, Received::Stale);
            return;
        }
        let expected = match self.table.received(&mut self.pipes, at, parts) {
            Err(violation) => Received::Violation(violation),
            Ok(()) if self.pipes.all[at].inbound_full => Received::Full,
            Ok(()) => Received::Taken,
        };
        assert_eq!(result, expected, "received");
        if result == Received::Full {
            self.pipes.all[at].stopped = true;
        }
    }

    fn take(&mut self, rig: &mut Rig, a: u8, b: u8) {
        let Some(at) = self.some_pipe(a, |pipe| pipe.up) else { return };
        let most = usize::from(b % 4);
        let commands = rig.commands(self.pipes.all[at].peer);
        self.table.commands(&self.pipes, at, commands);
        let taken = rig.take_some(self.pipes.all[at].peer, most);
        let limit = self.pipes.send;
        let pipe = &mut self.pipes.all[at];
        let count = most.min(pipe.out.len());
        assert_eq!(taken, pipe.out.drain(..count).collect::<Vec<_>>(), "taken for writing");
        pipe.announced &= count > 0 || !pipe.out.is_empty();
        let had_no_room = pipe.full;
        pipe.full &= count == 0 || pipe.out.len() > limit / 2;
        if had_no_room && !pipe.full && pipe.open {
            self.table.room(&mut self.pipes, at);
        }
    }

    fn limits(&mut self, rig: &mut Rig, a: u8, b: u8) {
        let (send, receive) = (usize::from(a % 6), usize::from(b % 6));
        rig.state.configure(|settings| {
            settings.send = messages(send);
            settings.receive = messages(receive);
        });
        if (send, receive) == (self.pipes.send, self.pipes.receive) {
            return;
        }
        (self.pipes.send, self.pipes.receive) = (send, receive);
        let mut order: Vec<usize> = (0..self.pipes.all.len()).collect();
        order.sort_by_key(|at| self.pipes.all[*at].peer.key);
        for at in order {
            let pipe = &mut self.pipes.all[at];
            pipe.inbound_full = receive != 0 && pipe.inbound.len() >= receive;
            let had_no_room = pipe.full;
            pipe.full = send != 0 && pipe.out.len() >= send;
            if had_no_room && !pipe.full && pipe.open {
                self.table.room(&mut self.pipes, at);
            }
        }
    }

    fn detach(&mut self, rig: &mut Rig, a: u8, b: u8) {
        let Some(at) = self.some_pipe(a, |_| true) else { return };
        let key = self.pipes.all[at].peer.key;
        let unread = if b & 1 == 0 { Unread::Keep } else { Unread::Discard };
        let ends = b & 2 == 0;
        if ends {
            rig.state.remove_pipe(key, unread);
        } else {
            rig.state.detach_pipe(key, unread);
        }
        if self.pipes.all[at].open {
            self.table.closing(&mut self.pipes, at);
            self.pipes.all[at].open = false;
        }
        self.pipes.all[at].cut = false;
        if unread == Unread::Discard {
            self.table.forget_received(&mut self.pipes, at);
            self.pipes.all[at].inbound.clear();
            self.pipes.all[at].inbound_full = false;
        }
        if ends {
            self.end(at);
        }
    }

    fn check(&mut self, rig: &mut Rig, outside: bool, number: usize, step: Step) {
        let effects = rig.effects();
        for effect in &effects.list {
            match effect {
                Effect::Write { pipe: key, epoch, .. } => {
                    let peer = Peer { key: *key, epoch: *epoch };
                    let pipe = self.pipes.all.iter_mut().find(|pipe| pipe.peer == peer && !pipe.retired);
                    if let Some(pipe) = pipe {
                        assert!(!pipe.announced, "step {number} {step:?}: announced twice");
                        pipe.announced = true;
                    }
                }
                Effect::Close { pipe: key, epoch, .. } => {
                    let peer = Peer { key: *key, epoch: *epoch };
                    let pipe = self.pipes.all.iter().find(|pipe| pipe.peer == peer);
                    assert!(pipe.is_some_and(|pipe| !pipe.open), "step {number}: closed by the table too");
                }
                _ => {}
            }
        }
        for pipe in self.pipes.all.iter_mut().filter(|pipe| pipe.up) {
            assert!(
                pipe.out.is_empty() || pipe.announced,
                "step {number} {step:?}: {pipe:?} was not announced"
            );
            if pipe.stopped && !pipe.inbound_full {
                let link = rig.state.core.pipe(pipe.peer.key).and_then(|pipe| pipe.link);
                let resumed =
                    |effect: &Effect<u32>| matches!(effect, Effect::Resume { link: l } if Some(*l) == link);
                assert!(
                    effects.list.iter().any(resumed) || !pipe.open,
                    "step {number} {step:?}: not resumed"
                );
                pipe.stopped = false;
            }
        }
        let now = rig.state.readiness();
        if outside && now.readable && !self.wait.readable {
            assert!(effects.receivers > 0, "step {number} {step:?}: receivers sleep");
        }
        // Senders of a publisher wait for pipes, each as its message has it.
        if outside && now.writable && !self.wait.writable && !Self::PUBLISHES {
            let woken = effects.senders > 0 || effects.list.iter().any(|e| matches!(e, Effect::WakeFor(_)));
            assert!(woken, "step {number} {step:?}: senders sleep");
        }
        let Self { table, pipes, waiting, .. } = self;
        waiting.retain_mut(|(parts, full)| {
            let is_about = |effect: &Effect<u32>| matches!(effect, Effect::WakeFor(key) | Effect::WakeAllFor(key) if key == full);
            let woken = effects.all_senders || effects.list.iter().any(is_about);
            let waits = table.has_to_wait(pipes, parts);
            assert!(woken || waits, "step {number} {step:?}: the sender of {parts:?} sleeps");
            if woken && waits {
                let borrowed: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                match rig.send(&borrowed) {
                    Err(SendRefusal::WouldBlock(Awaited::RoomOn(next))) => *full = next,
                    sent => panic!("step {number} {step:?}: {sent:?} instead of waiting"),
                }
            }
            waits
        });
        let queued: usize = self.pipes.all.iter().map(|pipe| pipe.out.len()).sum();
        assert_eq!(rig.state.queued_in_all(), queued, "step {number} {step:?}");
        let Reading { out, inbound, .. } = rig.state.totals();
        for flow in [out, inbound] {
            let gone = flow.left + flow.dropped_by_rule + flow.discarded;
            assert_eq!(flow.entered, gone + flow.depth, "step {number} {step:?}: {flow:?}");
        }
        self.table.check(rig, &self.pipes);
    }
}

fn identity(a: u8) -> &'static str {
    ["", "A", "B", "C", ""][usize::from(a) % 5]
}
