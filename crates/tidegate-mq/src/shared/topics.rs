//! Subscriptions, from either side.

use std::time::Duration;

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
        self.watch(timeout, |inner| match inner.state.subscribers(topic) {
            Ok(present) => (present >= count).then_some(Ok(())),
            Err(NotSupported) => Some(Err(Error::NotSupported("this socket type does not publish"))),
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
