//! Writing by the sending thread (MQ-057): a message that finds its queue empty and its stream free goes out without
//! waking a worker, unless messages come so fast that collecting them pays.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use tidegate_io::{
    batch::WriteBatch,
    message::Message,
    packed::Packed,
    peer::{Epoch, PeerKey},
    sync::MutexGuard,
};
use tidegate_zmtp::frame;

use super::{Deeds, Inner, Link, Shared};
use crate::{
    error::SendError,
    state::{Effect, Most, SocketType},
};

/// Messages that follow each other faster than this are left to the worker, which writes many at once.
const STREAMING: Duration = Duration::from_micros(25);

const ALL: Most = Most { messages: usize::MAX, bytes: usize::MAX };

/// What a sending thread needs for writing, kept so that nothing is allocated.
struct Scratch {
    batch: WriteBatch,
    messages: Packed,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Shared {
    /// Unlocks after a message was taken for sending, and does what the state noted; writes it at once if that is best.
    ///
    /// # Errors
    /// A worker would have to be woken, and this is a forked child, which has none (MQ-084); the message comes back.
    #[inline]
    pub(crate) fn finish_send(&self, mut inner: MutexGuard<'_, Inner>) -> Result<(), SendError> {
        if std::mem::take(&mut inner.state.effects().behind) {
            inner.queued_behind = true;
        }
        if inner.has_nothing_to_tell() {
            return Ok(());
        }
        self.finish_noted(inner)
    }

    fn finish_noted(&self, mut inner: MutexGuard<'_, Inner>) -> Result<(), SendError> {
        let wakes =
            |effect: &&Effect<Link>| matches!(effect, Effect::Write { link: Link::Stream { .. }, .. });
        if let Some(Effect::Write { pipe, epoch, .. }) = inner.state.effects().list.iter().find(wakes)
            && let Err(error) = self.context.check_process()
        {
            let (pipe, epoch) = (*pipe, *epoch);
            return Err(SendError { message: self.unsend(&mut inner, pipe, epoch), error });
        }
        self.finish_sent(inner);
        Ok(())
    }

    /// Takes the message back that was queued last.
    fn unsend(&self, inner: &mut Inner, pipe: PeerKey, epoch: Epoch) -> Message {
        let mut messages = Packed::new();
        // The second one finds nothing, and so takes the note back.
        for _ in 0..2 {
            inner.state.take_outbound(pipe, epoch, ALL, &mut messages);
        }
        inner.state.effects().clear();
        let mut message = Message::new();
        while messages.pop_into(&mut message) {}
        if matches!(self.kind, SocketType::Req | SocketType::Rep) {
            // The envelope ends with an empty part.
            while message.pop_front().is_some_and(|part| !part.is_empty()) {}
        }
        message
    }

    fn finish_sent(&self, mut inner: MutexGuard<'_, Inner>) {
        let (pipe, epoch, control) = match inner.state.effects().list.as_slice() {
            [Effect::Write { pipe, epoch, link: Link::Stream { control, direct: true } }] => {
                (*pipe, *epoch, control.clone())
            }
            effects => {
                let is_near =
                    |effect: &Effect<Link>| matches!(effect, Effect::Write { link: Link::Inproc(_), .. });
                let (is_noted, is_near) = (!effects.is_empty(), effects.iter().any(is_near));
                inner.near_sends = inner.near_sends.wrapping_add(u64::from(is_near));
                inner.queued_behind |= is_noted;
                return self.finish(inner);
            }
        };
        // Messages that were queued behind others since the last note are a stream already: no need for the clock.
        if std::mem::take(&mut inner.queued_behind) {
            return self.finish(inner);
        }
        // How a change of subscriptions is written only the connection's session knows.
        if inner.state.has_commands(pipe) {
            return self.finish(inner);
        }
        let now = Instant::now();
        let last = inner.last_direct.replace(now);
        let streaming = last.is_some_and(|last| now.saturating_duration_since(last) < STREAMING);
        if streaming {
            return self.finish(inner);
        }
        let Some(writer) = control.writer() else { return self.finish(inner) };
        let mut scratch = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_else(|| {
            Box::new(Scratch { batch: WriteBatch::new(64 << 10), messages: Packed::new() })
        });
        let Scratch { batch, messages } = &mut *scratch;
        inner.state.take_outbound(pipe, epoch, Most { messages: 16, bytes: 1 << 20 }, messages);
        let taken = inner.state.taken(pipe);
        let threshold = inner.options.vectored_threshold as usize;
        // The note was for what is written here. If more is queued than was taken, the note stays with the worker.
        if inner.state.queued(pipe) == 0 {
            inner.state.take_outbound(pipe, epoch, ALL, messages);
            inner.state.effects().list.retain(|effect| !matches!(effect, Effect::Write { .. }));
        }
        let deeds = Deeds::collect(inner);
        frame::encode_all(messages, batch, threshold);
        if writer.write(batch) > 0 {
            // Once the worker is through with the rest it fills anew, and says so.
            control.kick();
        } else {
            let mut inner = self.lock();
            inner.state.wrote_up_to(pipe, epoch, taken);
            inner.wake_watchers();
            self.finish(inner);
        }
        if let Some(mut deeds) = deeds {
            deeds.perform(self);
        }
        let _ = SCRATCH.try_with(|place| place.set(Some(scratch)));
    }
}
