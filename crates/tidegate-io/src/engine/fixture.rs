//! What tests of the engine's parts open a stream with.

use std::{cell::Cell, rc::Rc, task::Waker, time::Instant};

use bytes::BytesMut;

use super::{
    address::{Side, StreamAddress, StreamInfo},
    control::Control,
};
use crate::{
    batch::WriteBatch,
    protocol::{Connection, Ended, Flow, Retry},
    wait::Wakes,
};

/// Takes everything, counts its bytes, and wakes somebody for all of it.
#[derive(Default)]
pub(super) struct Taker {
    pub(super) heard: Rc<Cell<usize>>,
    pub(super) waker: Option<Waker>,
}

impl Connection for Taker {
    fn opened(&mut self, _stream: &StreamInfo, _control: Control, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn received(&mut self, bytes: BytesMut, _now: Instant) -> Flow {
        self.heard.set(self.heard.get() + bytes.len());
        let mut wakes = Wakes::new();
        self.waker.iter().cloned().for_each(|waker| wakes.push(waker));
        Flow::Continue
    }

    fn fill(&mut self, _batch: &mut WriteBatch, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn expired(&mut self, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn closed(&mut self, _why: &Ended, _now: Instant) -> Retry {
        Retry::Never
    }
}

/// A dialed stream without names.
pub(super) fn unnamed() -> StreamInfo {
    let unnamed = StreamAddress::Unnamed;
    StreamInfo { fd: 0, side: Side::Dialed, local: unnamed.clone(), peer: unnamed, credentials: None }
}
