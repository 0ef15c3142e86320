//! Subscriptions, from either side.

use std::{task::Poll, time::Duration};

use bytes::Bytes;

use super::Shared;
use crate::{
    error::{Error, Result},
    state::NotSupported,
};

impl Shared {
    pub(crate) fn subscribe(&self, topic: &[u8]) -> Result<()> {
        self.change_topics(|state| state.subscribe(Bytes::copy_from_slice(topic)))
    }

    pub(crate) fn unsubscribe(&self, topic: &[u8]) -> Result<()> {
        self.change_topics(|state| state.unsubscribe(Bytes::copy_from_slice(topic)))
    }

    pub(crate) fn topics_count(&self) -> usize {
        self.lock().state.topics_count().unwrap_or_default()
    }

    pub(crate) async fn wait_for_subscribers(
        &self,
        topic: &[u8],
        count: usize,
        timeout: Duration,
    ) -> Result<()> {
        let mut timer = self.context.timer(Some(timeout));
        let enough = self.watch(|inner| match inner.state.subscribers(topic) {
            Ok(present) => (present >= count).then_some(Ok(())),
            Err(NotSupported) => Some(Err(Error::NotSupported("this socket type does not publish"))),
        });
        let mut enough = std::pin::pin!(enough);
        std::future::poll_fn(|context| match enough.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                if timer.as_mut().is_some_and(|timer| timer.is_over(context.waker())) {
                    Poll::Ready(Err(Error::Timeout))
                } else {
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn change_topics(
        &self,
        change: impl FnOnce(&mut crate::state::State<super::Link>) -> Result<(), NotSupported>,
    ) -> Result<()> {
        let mut inner = self.lock();
        inner.phase.check()?;
        let changed = change(&mut inner.state);
        self.finish(inner);
        changed.map_err(|NotSupported| Error::NotSupported("an XPUB socket needs xpub_manual for this"))
    }
}
