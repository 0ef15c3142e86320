//! A socket under attack with a good peer beside the attacker.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::time::{Duration, Instant};

use tidegate_mq::{
    Context, ContextOptions, DriverChoice, Error, Options, Pull, Push,
    monitor::{CloseReason, EventKind, Monitor},
};

pub(crate) use super::peer::PATIENCE;

/// Every test runs on each.
pub(crate) const DRIVERS: [DriverChoice; 2] = [DriverChoice::IoUring, DriverChoice::Polling];

pub(crate) const ANYWHERE: &str = "tcp://127.0.0.1:*";

/// Numbers without a pattern, the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub(crate) fn context(driver: DriverChoice) -> Context {
    let mut options = ContextOptions::default();
    options.driver = driver;
    Context::with_options(options)
}

/// Nothing waits for ever, and closing waits for nothing.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.rcvtimeo = Some(PATIENCE);
    options.sndtimeo = Some(PATIENCE);
    options.linger = Some(Duration::ZERO);
    options
}

pub(crate) fn options_with(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = options();
    change(&mut options);
    options
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The next event that `wanted` wants; others are passed over.
#[track_caller]
pub(crate) fn event<T>(monitor: &Monitor, what: &str, mut wanted: impl FnMut(&EventKind) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match monitor.next_blocking(Some(left)) {
            Ok(Some(event)) => {
                if let Some(found) = wanted(&event.kind) {
                    return found;
                }
            }
            Ok(None) => panic!("the socket is gone before {what}"),
            Err(_) => panic!("no {what}"),
        }
    }
}

/// Why the next connection is closed for a fault of its peer.
#[track_caller]
pub(crate) fn fault(monitor: &Monitor) -> CloseReason {
    event(monitor, "fault", |kind| match kind {
        EventKind::HandshakeFailed(reason) => Some(reason.clone()),
        _ => None,
    })
}

/// The next peer is up.
#[track_caller]
pub(crate) fn established(monitor: &Monitor) {
    event(monitor, "handshake", |kind| matches!(kind, EventKind::HandshakeSucceeded { .. }).then_some(()));
}

pub(crate) fn disconnected(kind: &EventKind) -> Option<()> {
    matches!(kind, EventKind::Disconnected { .. }).then_some(())
}

/// A PULL socket that is attacked, and a PUSH socket that goes on sending to it.
pub(crate) struct Attacked {
    pub(crate) context: Context,
    pub(crate) pull: Pull,
    pub(crate) endpoint: String,
    pub(crate) monitor: Monitor,
    push: Push,
    push_monitor: Monitor,
    sent: u32,
}

impl Attacked {
    pub(crate) fn new(driver: DriverChoice, options: Options) -> Self {
        let context = context(driver);
        let pull = Pull::with_options(&context, options).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let monitor = pull.monitor();
        let push = Push::with_options(&context, self::options()).unwrap();
        let push_monitor = push.monitor();
        push.connect(&endpoint).unwrap();
        established(&push_monitor);
        established(&monitor);
        let mut attacked = Self { context, pull, endpoint, monitor, push, push_monitor, sent: 0 };
        attacked.serves();
        attacked
    }

    /// The good peer's messages arrive, whole and at once.
    #[track_caller]
    pub(crate) fn serves(&mut self) {
        let start = Instant::now();
        for _ in 0..10 {
            self.sent += 1;
            self.push.send_blocking(self.sent.to_le_bytes().as_slice()).unwrap();
            let got = self.pull.recv_blocking().unwrap();
            assert_eq!(got.parts()[0], self.sent.to_le_bytes());
            assert_eq!(got.len(), 1);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the good peer waits: {:?}", start.elapsed());
    }

    /// The good peer is served still, was never disconnected, and nothing came of the attack.
    #[track_caller]
    pub(crate) fn ends_unharmed(mut self) {
        self.serves();
        assert!(matches!(self.pull.try_recv(), Err(Error::WouldBlock)), "the attacker was heard");
        while let Some(event) = self.push_monitor.try_next() {
            assert!(disconnected(&event.kind).is_none(), "the good peer was disconnected");
        }
        self.context.term_blocking();
    }
}
