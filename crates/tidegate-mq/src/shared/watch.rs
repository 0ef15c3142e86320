//! For people and bindings: waiting until what was accepted is out of our hands (MQ-059), numbers, and events in
//! libzmq's form.

use std::{future::poll_fn, task::Poll};

use tidegate_io::sync::lock;

use super::{Shared, Watching};
use crate::{
    error::Result,
    metrics::PeerMetrics,
    monitor::{Event, EventKind, Forwarder, Forwarding},
    peer::Peer,
};

impl Shared {
    /// Waits for what is queued now.
    pub(crate) async fn drained(&self) -> Result<()> {
        let mut backlog = {
            let inner = self.lock();
            inner.phase.check()?;
            inner.state.backlog()
        };
        let mut watching = Watching::new(self);
        poll_fn(|context| {
            self.push_inproc();
            let mut inner = self.lock();
            inner.phase.check()?;
            inner.state.settle(&mut backlog);
            if backlog.is_empty() {
                return Poll::Ready(Ok(()));
            }
            watching.wait(&mut inner, context.waker());
            drop(inner);
            self.context.check_process()?;
            Poll::Pending
        })
        .await
    }

    /// Starts, replaces or ends the monitor in libzmq's form.
    pub(crate) fn forward_events(&self, to: Option<(&str, Forwarding)>) -> Result<()> {
        if let Some((endpoint, forwarding)) = to {
            Forwarder::check(endpoint, forwarding)?;
        }
        let mut forwarder = lock(&self.forwarder);
        // The old one is told that it is over, and its name is free.
        if let Some(old) = forwarder.take() {
            old.stop();
        }
        if let Some((endpoint, forwarding)) = to {
            let monitor = self.monitors.add();
            *forwarder = Some(Forwarder::start(&self.context, endpoint, forwarding, monitor)?);
        }
        Ok(())
    }

    /// Reports the depths of all queues to the monitors.
    pub(crate) fn report_queues(&self) {
        self.fetch_inproc();
        for PeerMetrics { peer, counters, .. } in self.peers() {
            let metrics = counters.reading();
            let kind = EventKind::QueueDepths { outbound: metrics.out.depth, inbound: metrics.inbound.depth };
            self.monitors.report(|| Event {
                peer_address: Some(peer.address().to_owned()).filter(|address| !address.is_empty()),
                peer: Some(peer),
                ..Event::new(String::new(), false, kind)
            });
        }
    }

    pub(crate) fn peers(&self) -> Vec<PeerMetrics> {
        let inner = self.lock();
        let peers = inner.state.peers();
        peers
            .map(|(peer, connected, counters)| PeerMetrics { peer: Peer::new(peer), connected, counters })
            .collect()
    }
}
