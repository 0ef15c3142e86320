//! REP: receives a request, then answers it (6.4).
//!
//! A request that was taken by [`Rep::recv_request`] carries its way back itself and leaves the alternation alone, so
//! that several may be answered in any order (MQ-202).

use tidegate_io::{
    message::Message,
    peer::{Epoch, PeerKey},
};

use super::{
    Extras, Pattern,
    envelope::{Body, Envelope, Payload},
    lanes::Incoming,
};
use crate::state::{Core, RecvRefusal, SendRefusal, Violation};

#[derive(Debug, Default)]
pub(crate) struct Rep {
    incoming: Incoming,
    /// To whom the next reply goes: the state Reply. None in Idle.
    owed: Option<WayBack>,
}

/// Where a reply goes: the connection that the request came by, and the envelope.
#[derive(Debug)]
pub(crate) struct WayBack {
    pipe: PeerKey,
    epoch: Epoch,
    envelope: Envelope,
}

/// A request with its way back.
#[derive(Debug)]
pub(crate) struct Request {
    /// What was asked.
    pub(crate) body: Message,
    /// For [`reply`].
    pub(crate) way_back: WayBack,
    /// The pipe it came by.
    pub(crate) from: PeerKey,
}

impl Rep {
    /// The next request, to be answered by [`reply`](Self::reply).
    pub(crate) fn recv_request<L: Clone>(&mut self, core: &mut Core<L>) -> Result<Request, RecvRefusal> {
        let mut received = Message::new();
        let key = self.incoming.next(core, &mut received)?;
        let (envelope, body) = Envelope::open(Payload::verbatim(received));
        let way_back = WayBack { pipe: key, epoch: core.epoch(key), envelope };
        Ok(Request { body: body.into_message(), way_back, from: key })
    }
}

/// Why a reply was not taken, and the way back if it still leads somewhere.
pub(crate) type ReplyRefusal = (SendRefusal, Option<Box<WayBack>>);

/// Answers a request. A reply that cannot be queued is dropped and counted, or with `rep_report_drop` refused: then the
/// message is left as it is (MQ-201).
pub(crate) fn reply<L: Clone>(
    core: &mut Core<L>,
    way_back: WayBack,
    message: &mut Message,
) -> Result<(), ReplyRefusal> {
    let report = core.settings.rep_report_drop;
    let WayBack { pipe, epoch, .. } = way_back;
    if !core.is_connected(pipe, epoch) || !core.is_open(pipe) {
        core.count_unroutable();
        if report {
            return Err((SendRefusal::PeerGone, None));
        }
    } else if core.is_writable(pipe) {
        let mut reply = way_back.envelope.seal(Body::new(std::mem::take(message)));
        core.enqueue(pipe, reply.parcel());
    } else {
        core.count_missed(pipe);
        if report {
            return Err((SendRefusal::ReplyWouldBlock, Some(Box::new(way_back))));
        }
    }
    message.clear();
    Ok(())
}

impl<L: Clone> Pattern<L> for Rep {
    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        // Requests of the lost connection are still read, but their replies must not go to its successor.
        if let Some(heir) = core.hand_down_received(key) {
            self.incoming.forget(core, key);
            self.incoming.adopt(core, heir);
        }
    }

    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.incoming.forget(core, key);
    }

    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        if Envelope::fits(payload) {
            self.incoming.arrived(core, key, payload);
        } else {
            core.drop_received(key, payload);
        }
        Ok(())
    }

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        let way_back = self.owed.take().ok_or(SendRefusal::WrongState)?;
        reply(core, way_back, message).map_err(|(refusal, way_back)| {
            self.owed = way_back.map(|way_back| *way_back);
            refusal
        })
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        if self.owed.is_some() {
            return Err(RecvRefusal::WrongState);
        }
        let request = self.recv_request(core)?;
        self.owed = Some(request.way_back);
        *place = request.body;
        Ok(request.from)
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        self.owed.is_none() && !self.incoming.is_empty()
    }

    fn is_writable(&self, _core: &Core<L>) -> bool {
        self.owed.is_some()
    }

    fn extras(&mut self) -> Extras<'_> {
        Extras::Rep(self)
    }
}
