//! The end of the old block (15.3, step 6).

use std::{
    mem::offset_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::Ordering,
};

use super::{HandoverState, page::Writing};
use crate::{
    attachment::audit::{Entry, Operation},
    block::registry::Holding,
    core::{config::Deadline, crash, crash::Point},
    identity::ProcessKey,
    layout::{InitState, pages::ControlPage},
    upkeep::{self, Member, ProducerMember},
};

/// An old block whose consumers are on their way to the new one. The process's thread keeps it until it is over.
struct Retiring {
    member: Arc<ProducerMember>,
    /// When whoever is still here is left behind.
    over: Nanos,
    /// Held while it is ended, so that who finds it over finds its file gone.
    end: Mutex<End>,
}

struct End {
    is_over: bool,
    /// The writer's place until then, of a block that this process has from a dead producer.
    place: Option<Holding>,
}

/// The blocks before that of a producer, as long as they retire: their end is at the latest that of the channel.
#[derive(Debug, Default)]
pub(crate) struct Predecessors(Vec<Weak<Retiring>>);

impl Predecessors {
    /// With the block of `member` as well, which the channel has left; the process's thread ends it when nobody reads
    /// there any more, or it is `over`.
    pub(super) fn and(&self, member: Arc<ProducerMember>, place: Option<Holding>, over: Nanos) -> Self {
        let retiring = Retiring::start(member, place, over);
        let mut all: Vec<_> = self.0.iter().filter(|one| one.strong_count() > 0).cloned().collect();
        all.push(Arc::downgrade(&retiring));
        Self(all)
    }

    /// Ends them all: the thread may not live to do it.
    pub(crate) fn finish(&self) {
        self.0.iter().filter_map(Weak::upgrade).for_each(|retiring| retiring.finish());
    }
}

impl Retiring {
    fn start(member: Arc<ProducerMember>, place: Option<Holding>, over: Nanos) -> Arc<Self> {
        let retiring = Arc::new(Self { member, over, end: Mutex::new(End { is_over: false, place }) });
        if let Err(error) = upkeep::keep(retiring.clone()) {
            tracing::warn!(%error, "the old block of a handover is ended at once: there is no thread for it");
            retiring.finish();
        }
        retiring
    }

    fn step(&self) {
        let core = self.member.core();
        if !self.is_ours() {
            self.lock().set();
            return;
        }
        // Not now is the next time.
        let _ = core.reap(Deadline::Immediate);
        if core.active_consumers() == 0 || monotonic_now() >= self.over {
            self.finish();
        }
    }

    fn is_ours(&self) -> bool {
        self.member.core().host().block().check().is_ok() && self.member.is_writer()
    }

    fn finish(&self) {
        let mut end = self.lock();
        // Given up when all is done.
        let (was_over, _place) = end.set();
        if was_over || !self.is_ours() {
            return;
        }
        let core = self.member.core();
        let page = core.words().views().control.row();
        Writing(page).store_state(HandoverState::Done);
        // Relaxed: for people.
        page.u64::<{ offset_of!(ControlPage, closed_ns) }>().store(monotonic_now().0, Ordering::Relaxed);
        let closed = InitState::Closed.code();
        // Release: pairs with the acquire of consumers, who see all commits before the end.
        page.u32::<{ offset_of!(ControlPage, init_state) }>().store(closed, Ordering::Release);
        core.wake_readers();
        core.host().audit_ring().write(&Entry {
            actor: core.key(),
            operation: Operation::Handover,
            forced: false,
            target: 0,
            before: HandoverState::Cut as u64,
            after: HandoverState::Done as u64,
        });
        crash::at(Point::HandoverClose);
        core.host().block().remove_name();
        // The writer stays recorded: through its handle writes end in `Closed`, not in `Fenced` (DH-224).
    }

    fn lock(&self) -> MutexGuard<'_, End> {
        // It is set before anything is done, so that nothing is done twice.
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    /// It is over. Whether it was already, and the place.
    fn set(&mut self) -> (bool, Option<Holding>) {
        (std::mem::replace(&mut self.is_over, true), self.place.take())
    }
}

impl Member for Retiring {
    fn beat_every(&self) -> Option<Nanos> {
        Some(STEP)
    }

    fn beat(&self) {
        self.member.beat();
        self.step();
    }

    fn watched(&self, into: &mut Vec<ProcessKey>) {
        self.member.watched(into);
    }

    fn clean_up(&self, dead: &[ProcessKey]) -> bool {
        self.member.clean_up(dead)
    }

    fn remind(&self, now: Nanos) -> Option<Nanos> {
        self.member.remind(now)
    }

    fn is_over(&self) -> bool {
        self.lock().is_over
    }
}

/// How often to look who is still here.
const STEP: Nanos = Nanos::from_millis(20);
