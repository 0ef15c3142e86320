//! Named steps at which a test can end or stop the process (VX-785).
//!
//! Without the feature `failpoints` a step is nothing at all. With it, a process started with
//! `TIDEGATE_VX_FAILPOINT=<point>[:n]` kills itself at the n-th pass of that step, with `stop:<point>[:n]` it stops itself.

/// Defines the steps and their names.
macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A step, by its name in the sheet (12.6).
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
    /// The generation is durable, nothing was read.
    Claimed = "C0",
    /// A request was published.
    Requested = "C1",
    /// An answer was accepted.
    Answered = "C2",
    /// An epoch is sealed.
    Sealed = "C3",
    /// It is about to be persisted.
    BeforePersist = "C4",
    /// Inside the transaction that persists it.
    InPersist = "C5",
    /// It is PREPARED, no sink has a byte of it.
    Prepared = "C6",
    /// Half of it is staged.
    HalfStaged = "C7",
    /// Half of it is visible.
    HalfVisible = "C8",
    /// All sinks have confirmed it.
    Confirmed = "C9",
    /// Inside the transaction that commits it.
    InCommit = "C10",
    /// It is COMMITTED, the source does not know.
    Committed = "C11",
    /// The source knows.
    Acknowledged = "C12",
    /// A sink has a permit and writes now (Z2).
    Permitted = "permit",
}

/// Passes a step.
#[inline]
pub(crate) fn at(point: Point) {
    #[cfg(feature = "failpoints")]
    armed::at(point);
    let _ = point;
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::env;

    use rustix::process::Signal;
    use tidegate_shm::sync::Mutex;

    use super::Point;

    /// What to do where, and how many passes are left.
    struct Plan {
        signal: Signal,
        point: String,
        left: u32,
    }

    static PLAN: std::sync::OnceLock<Option<Mutex<Plan>>> = std::sync::OnceLock::new();

    pub(super) fn at(point: Point) {
        let Some(plan) = PLAN.get_or_init(read_plan) else { return };
        let mut plan = plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if plan.point != point.name() {
            return;
        }
        plan.left = plan.left.saturating_sub(1);
        if plan.left > 0 {
            return;
        }
        plan.point.clear();
        let signal = plan.signal;
        drop(plan);
        // To this thread: a signal to the process may wait for another one, and this one would go on. It cannot fail; nothing
        // comes after SIGKILL.
        let _ = signal_hook::low_level::raise(signal.as_raw());
    }

    fn read_plan() -> Option<Mutex<Plan>> {
        let text = env::var("TIDEGATE_VX_FAILPOINT").ok()?;
        let (signal, rest) = match text.strip_prefix("stop:") {
            Some(rest) => (Signal::STOP, rest),
            None => (Signal::KILL, text.as_str()),
        };
        let (point, left) = match rest.split_once(':') {
            Some((point, passes)) => (point, passes.parse().ok()?),
            None => (rest, 1),
        };
        Some(Mutex::new(Plan { signal, point: point.to_owned(), left }))
    }
}
