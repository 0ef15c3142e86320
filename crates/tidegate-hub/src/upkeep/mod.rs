//! The one background thread of a process: it beats for its handles and watches the processes that may be in their way
//! (chapter 16).
//!
//! A process that ends makes its descriptor readable, so the thread wakes at once, whoever sleeps where: it removes what
//! the dead one held and wakes those who waited for that. Whom to watch is looked up when a handle comes or goes and
//! whenever a thread of this process begins to wait and finds that the others have changed since. Between beats the
//! thread sleeps; without handles there is none.

mod beats;
mod member;
mod recover;
mod thread;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rustix::event::{EventfdFlags, eventfd};
use tidegate_shm::{clock::Nanos, fork::ForkGuard};

pub(crate) use beats::Beats;
pub(crate) use member::{ConsumerMember, ProducerMember, Recovery};

use crate::identity::ProcessKey;

/// A handle, as the thread sees it.
pub(crate) trait Member: Send + Sync {
    /// How often to beat for it; none if the caller does.
    fn beat_every(&self) -> Option<Nanos>;
    /// Says that the handle is used by a living process.
    fn beat(&self);
    /// Adds the processes whose death it wants to know of.
    fn watched(&self, into: &mut Vec<ProcessKey>);
    /// Removes what the processes `dead` left. True if there is nothing left to do.
    fn clean_up(&self, dead: &[ProcessKey]) -> bool;
    /// Warns once if the caller is to beat and does not (DH-233). When to look again; none if the thread beats.
    fn remind(&self, now: Nanos) -> Option<Nanos>;
    /// Whether it is kept no longer, if it was given to be kept.
    fn is_over(&self) -> bool {
        false
    }
}

/// Adds a handle, for as long as it lives.
///
/// # Errors
/// No thread or no descriptor is to be had.
pub(crate) fn register(member: Weak<dyn Member>) -> io::Result<()> {
    let process = ForkGuard::new()?.process();
    let mut state = state();
    if state.process != process {
        // What a forked child finds here is its parent's.
        *state = State { process, ..State::default() };
    }
    state.members.push(member);
    let running = match &state.bell {
        Some(bell) => bell.clone(),
        None => {
            let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            thread::start(bell.clone())?;
            state.bell = Some(bell.clone());
            bell
        }
    };
    ring(&running);
    Ok(())
}

/// Adds something that nobody else keeps, until it is over.
///
/// # Errors
/// As [`register`].
pub(crate) fn keep(member: Arc<dyn Member>) -> io::Result<()> {
    register(Arc::downgrade(&member))?;
    state().kept.push(member);
    Ok(())
}

/// Lets the thread look again at who is there.
pub(crate) fn look() {
    if let Some(bell) = &state().bell {
        ring(bell);
    }
}

/// What the threads of this process know of each other.
#[derive(Default)]
struct State {
    process: u64,
    members: Vec<Weak<dyn Member>>,
    /// Those that only the thread keeps.
    kept: Vec<Arc<dyn Member>>,
    /// Wakes the thread; none while there is none.
    bell: Option<Arc<OwnedFd>>,
}

/// The handles that still live; none left means that the thread ends.
fn members() -> Option<Vec<Arc<dyn Member>>> {
    let mut state = state();
    state.kept.retain(|member| !member.is_over());
    state.members.retain(|member| member.strong_count() > 0);
    if state.members.is_empty() {
        state.bell = None;
        return None;
    }
    Some(state.members.iter().filter_map(Weak::upgrade).collect())
}

fn state() -> MutexGuard<'static, State> {
    static STATE: Mutex<State> =
        Mutex::new(State { process: 0, members: Vec::new(), kept: Vec::new(), bell: None });
    // No operation leaves it half changed.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ring(bell: &OwnedFd) {
    // Full means that it rings already.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}
