//! Named steps at which a test can end the process (DH-298), or in unit tests the simulated party.
//!
//! Without the feature `crash-points` a step is nothing at all. With it, a process started with
//! `TIDEGATE_HUB_CRASH_AT=<point>[:n]` kills itself at the n-th pass of that step, and one started with
//! `TIDEGATE_HUB_STOP_AT=<point>[:n]` stops there as SIGSTOP does.

/// Defines the steps and their names.
macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A step of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point { $($(#[$doc])* $point,)* }

        impl Point {
            /// All steps.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// The name in the sheet.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }
        }
    };
}

points! {
    /// One slot of a request is reserved.
    ReserveOne = "w.reserve.one",
    /// All slots of a request are reserved.
    ReserveAll = "w.reserve.all",
    /// The fence before looking at claims is behind.
    WriterFence = "w.fence",
    /// One slot of a request is WRITING.
    TakeOne = "w.take.one",
    /// All slots of a request are WRITING.
    TakeAll = "w.take.all",
    /// The ids are given away.
    Index = "w.index",
    /// The payload is written.
    Payload = "w.payload",
    /// Length, flags and digest are written.
    Digest = "w.digest",
    /// The slot is COMMITTED.
    Committed = "w.t6",
    /// The commit index is stored.
    Prefix = "w.prefix",
    /// Sleepers are woken.
    Wake = "w.wake",
    /// The block is CLOSED, and still has its name and its writer.
    Closed = "w.closed",
    /// An id is about to be burnt.
    Burn = "w.burn",
    /// The intended floor is stored.
    FloorIntent = "w.floor.intent",
    /// The floor is stored.
    FloorStore = "w.floor.store",
    /// A claim is stored.
    Claim = "r.claim",
    /// The fence behind it is passed.
    ReaderFence = "r.fence",
    /// The slot may be read.
    Read = "r.read",
    /// The cursor is stored.
    Cursor = "r.cursor",
    /// The claim is withdrawn.
    Unclaim = "r.unclaim",
    /// A row is JOINING.
    Joining = "j.joining",
    /// It says whose it is.
    Identity = "j.identity",
    /// It is ACTIVE.
    Active = "j.active",
    /// Its bit is set.
    Mask = "j.mask",
    /// A row is LEAVING.
    Leaving = "l.leaving",
    /// It belongs to nobody and is about to be FREE.
    LeaveFree = "l.free",
    /// The maintenance lock is held.
    LockHeld = "m.held",
    /// It was taken from a dead holder.
    LockTakeover = "m.takeover",
    /// A shared lock is owned, and does not say by which thread.
    SpinlockOwner = "k.owner",
    /// It says how often it is held.
    SpinlockDepth = "k.depth",
    /// A block is closed to its live writer, who has not lost it yet.
    AdoptClose = "a.close",
    /// The block has a new writer.
    AdoptOwn = "a.own",
    /// One slot is adopted.
    AdoptSlot = "a.slot",
    /// The indices are repaired.
    AdoptIndex = "a.index",
    /// The claim of a dead consumer is withdrawn.
    ReapClaim = "reap.claim",
    /// Its row is about to be FREE.
    ReapFree = "reap.free",
    /// A new block has its memory and no name.
    CreateAlloc = "c.alloc",
    /// It has its name.
    CreateLink = "c.link",
    /// A handover is prepared.
    HandoverPrepare = "h.prepare",
    /// All ids are resolved and none is given away.
    HandoverQuiesce = "h.quiesce",
    /// The successor has a name.
    HandoverLink = "h.link",
    /// The successor is the channel.
    HandoverCut = "h.cut",
    /// The old block is closed, its name not removed yet.
    HandoverClose = "h.close",
    /// A handover is being called off: the successor's name is gone, the old block still says that it is prepared.
    HandoverCancel = "h.cancel",
}

/// Passes a step.
#[inline]
pub(crate) fn at(point: Point) {
    #[cfg(all(test, not(loom)))]
    simulated::at(point);
    #[cfg(all(feature = "crash-points", not(test)))]
    real::at(point);
    let _ = point;
}

#[cfg(all(feature = "crash-points", not(test)))]
mod real {
    use std::{
        env, fs,
        sync::{Mutex, OnceLock, PoisonError},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    /// What is done where, and how many passes are left.
    type Plan = (Signal, Mutex<(String, u32)>);

    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

    pub(super) fn at(point: Point) {
        let Some((signal, plan)) = PLAN.get_or_init(read_plan) else { return };
        let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.0 != point.name() || plan.1 == 0 {
            return;
        }
        plan.1 -= 1;
        if plan.1 == 0 {
            // If the kernel refuses, the test that waits for it says so.
            let _ = kill_process(getpid(), *signal);
            // Another thread may be the one that gets it. Once it did, this one stops on its way back from looking.
            while is_pending(*signal) {}
        }
    }

    /// Whether a signal to the process was not taken yet.
    fn is_pending(signal: Signal) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let pending = pending.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
        pending.is_some_and(|pending| pending >> (signal.as_raw() - 1) & 1 == 1)
    }

    fn read_plan() -> Option<Plan> {
        let of = |name, signal| env::var(name).ok().map(|text| (signal, text));
        let (signal, text) =
            of("TIDEGATE_HUB_CRASH_AT", Signal::KILL).or_else(|| of("TIDEGATE_HUB_STOP_AT", Signal::STOP))?;
        let (name, pass) = text.split_once(':').unwrap_or((&text, "1"));
        Some((signal, Mutex::new((name.to_owned(), pass.parse().ok()?))))
    }
}

/// Ends the simulated party of a unit test, which unwinds up to [`simulated::until_crash`] and never runs again, or lets
/// another one act in the middle of what it does.
#[cfg(all(test, not(loom)))]
pub(super) mod simulated {
    use std::{
        cell::{Cell, RefCell},
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    };

    use super::Point;

    thread_local! {
        static PLAN: Cell<Option<(Point, u32)>> = const { Cell::new(None) };
        static MEANWHILE: RefCell<Option<(Point, Other)>> = const { RefCell::new(None) };
    }

    /// What another party does.
    type Other = Box<dyn FnOnce()>;

    struct Crashed;

    pub(super) fn at(point: Point) {
        let planned = MEANWHILE.with_borrow_mut(|plan| plan.take_if(|(planned, _)| *planned == point));
        if let Some((_, other)) = planned {
            other();
        }
        let Some((planned, passes)) = PLAN.get() else { return };
        if planned != point {
            return;
        }
        PLAN.set((passes > 1).then_some((planned, passes - 1)));
        if passes == 1 {
            resume_unwind(Box::new(Crashed));
        }
    }

    /// Runs `party`, and `other` when it comes to `point` for the first time.
    pub(in crate::core) fn meanwhile<R>(
        point: Point,
        other: impl FnOnce() + 'static,
        party: impl FnOnce() -> R,
    ) -> R {
        MEANWHILE.set(Some((point, Box::new(other))));
        let result = party();
        assert!(MEANWHILE.take().is_none(), "{point:?} was never reached");
        result
    }

    /// Runs `party` up to the `pass`-th pass of `point`; none if it ended there.
    pub(in crate::core) fn until_crash<R>(point: Point, pass: u32, party: impl FnOnce() -> R) -> Option<R> {
        PLAN.set(Some((point, pass)));
        let result = catch_unwind(AssertUnwindSafe(party));
        PLAN.set(None);
        match result {
            Ok(result) => Some(result),
            Err(cause) if cause.is::<Crashed>() => None,
            Err(cause) => resume_unwind(cause),
        }
    }
}
