//! Ending a socket: what is queued is sent for as long as it may linger, then every connection ends (MQ-080 to MQ-082).

use std::{
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use tidegate_io::{
    peer::{Epoch, PeerKey},
    wait::block_on,
};

use super::{BoundPlace, Connected, ConnectedPlace, Leaving};
use crate::{
    inproc::InprocLink,
    shared::{Inner, Link, Phase, Shared, Watching},
};

/// Time that streams are given to end after their last byte was written: the peer may still be sending.
const ENDING: Duration = Duration::from_millis(500);

impl Shared {
    /// Closes in the background.
    pub(crate) fn start_close(&self, linger: Option<Duration>) {
        self.push_inproc();
        let inner = self.lock();
        let (open, queued) = (inner.phase == Phase::Open, inner.state.queued_to_go());
        // Closed by `close`: nothing is left to do.
        if inner.counted {
            return;
        }
        drop(inner);
        if open {
            self.set_phase(Phase::Closed);
        }
        if self.context.check_process().is_err() {
            return;
        }
        // What waits for a connection or a slow peer has nobody else to wait with it.
        if queued > 0
            && linger != Some(Duration::ZERO)
            && let Ok(this) = self.arc()
        {
            let thread = thread::Builder::new().name("tidegate-mq-linger".into());
            if thread.spawn(move || block_on(this.drain(linger), None)).is_ok() {
                return;
            }
        }
        self.count_left();
        self.end_endpoints(linger);
    }

    /// Closes and waits until nothing is left to send, or the linger time is over. Returns how many messages were
    /// discarded.
    pub(crate) async fn close(&self, linger: Option<Duration>) -> u64 {
        // For whoever waits for this socket as well: when this future is dropped, or the context is shut down.
        self.lock().options.linger = linger;
        self.set_phase(Phase::Closed);
        self.drain(linger).await
    }

    /// Sends what is queued, for at most `linger`, then ends every connection and waits for that, too: the last bytes
    /// are with the operating system, and have not been destroyed by a reset (MQ-082).
    pub(crate) async fn drain(&self, linger: Option<Duration>) -> u64 {
        // A forked child has nobody who would send, and all it could end is its parent's.
        if self.context.check_process().is_err() {
            return 0;
        }
        self.stop_listening();
        // Who is to fetch it may have ended, or wait for us to do the same.
        self.push_inproc();
        let until = linger.and_then(|linger| Instant::now().checked_add(linger));
        self.settle(linger, |inner| inner.counted || inner.state.queued_to_go() == 0).await;
        let left = self.count_left();
        let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
        self.end_endpoints(rest);
        let most = rest.map(|rest| rest + ENDING);
        self.settle(most, |inner| !inner.has_streams()).await;
        left
    }

    /// Counts what is given up, once.
    fn count_left(&self) -> u64 {
        let mut inner = self.lock();
        let left = if inner.counted { 0 } else { inner.state.queued_in_all() as u64 };
        inner.counted = true;
        self.context.count_discarded(left);
        left
    }

    /// Waits until `done`, but not for longer than `most`. Asked again after every change of queues and connections.
    async fn settle(&self, most: Option<Duration>, mut done: impl FnMut(&mut Inner) -> bool) {
        let mut timer = self.context.timer(most);
        let mut watching = Watching::new(self);
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if done(&mut inner) {
                return Poll::Ready(());
            }
            watching.wait(&mut inner, context.waker());
            drop(inner);
            if timer.as_mut().is_some_and(|timer| timer.is_over(context.waker())) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn stop_listening(&self) {
        let bound = std::mem::take(&mut self.lock().endpoints.bound);
        for bound in bound {
            match bound.place {
                BoundPlace::Listener(listener) => listener.close_keep(),
                BoundPlace::Inproc(name) => self.context.names.unbind(&name, self),
            }
        }
    }

    /// Ends everything; streams may write what they have for `linger`.
    fn end_endpoints(&self, linger: Option<Duration>) {
        let mut inner = self.lock();
        let bound = std::mem::take(&mut inner.endpoints.bound);
        let connected = std::mem::take(&mut inner.endpoints.connected);
        let leaving = std::mem::take(&mut inner.endpoints.leaving);
        // Also of endpoints that are gone already.
        let links: Vec<_> = inner.state.links().cloned().collect();
        drop(inner);
        for control in links.iter().filter_map(Link::stream) {
            match linger {
                None => control.close(),
                Some(Duration::ZERO) => control.abort(),
                Some(linger) => control.close_within(linger),
            }
        }
        for bound in bound {
            match bound.place {
                BoundPlace::Listener(listener) => listener.close(linger),
                BoundPlace::Inproc(name) => self.context.names.unbind(&name, self),
            }
        }
        for Connected { pipe, place, .. } in connected {
            self.end_place(place, pipe, linger);
        }
        for Leaving { pipe, place, .. } in leaving {
            self.end_place(place, pipe, linger);
        }
        links.iter().filter_map(Link::inproc).for_each(InprocLink::part);
    }

    /// Ends what keeps an endpoint connected.
    pub(super) fn end_place(
        &self,
        place: ConnectedPlace,
        pipe: Option<(PeerKey, Epoch)>,
        linger: Option<Duration>,
    ) {
        match place {
            ConnectedPlace::Dialer(dialer) => dialer.close(linger),
            ConnectedPlace::Inproc(name) => {
                if let Some(pipe) = pipe {
                    self.context.names.forget(&name, self, pipe);
                }
            }
        }
    }
}
