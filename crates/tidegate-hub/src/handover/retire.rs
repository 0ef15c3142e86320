//! The end of the old block (15.3, step 6).

use std::{mem::offset_of, sync::Arc};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{AtomicU32, Ordering},
};

use super::{HandoverState, page::Writing};
use crate::{
    attachment::audit::{Entry, Operation},
    core::{config::Deadline, crash, crash::Point},
    identity::ProcessKey,
    layout::{InitState, pages::ControlPage},
    upkeep::{self, Member, ProducerMember},
};

/// An old block whose consumers are on their way to the new one. The process's thread keeps it until it is over.
pub(super) struct Retiring {
    member: Arc<ProducerMember>,
    /// When whoever is still here is left behind.
    over: Nanos,
    is_over: AtomicU32,
}

impl Retiring {
    /// Ends the block when nobody reads there any more, or it is `over`.
    pub(super) fn start(member: Arc<ProducerMember>, over: Nanos) {
        let retiring = Arc::new(Self { member, over, is_over: AtomicU32::new(0) });
        if let Err(error) = upkeep::keep(retiring.clone()) {
            tracing::warn!(%error, "the old block of a handover is ended at once: there is no thread for it");
            retiring.finish();
        }
    }

    fn step(&self) {
        let core = self.member.core();
        if core.host().block().check().is_err() || !self.member.is_writer() {
            // Somebody else's.
            return self.set_over();
        }
        // Not now is the next time.
        let _ = core.reap(Deadline::Immediate);
        if core.active_consumers() == 0 || monotonic_now() >= self.over {
            self.finish();
        }
    }

    fn finish(&self) {
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
        let block = core.host().block();
        if let Err(error) = block.unlink() {
            tracing::warn!(path = %block.path().display(), %error, "the file of the old block stays");
        }
        // The writer stays recorded: through its handle writes end in `Closed`, not in `Fenced` (DH-224).
        self.set_over();
    }

    fn set_over(&self) {
        // Relaxed: read by the same thread.
        self.is_over.store(1, Ordering::Relaxed);
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
        self.is_over.load(Ordering::Relaxed) != 0
    }
}

/// How often to look who is still here.
const STEP: Nanos = Nanos::from_millis(20);
