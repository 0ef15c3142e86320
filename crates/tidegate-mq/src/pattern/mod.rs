//! The socket types: each the tables of its section of chapter 6, on top of [`Core`].
//!
//! | module | types | built of |
//! |---|---|---|
//! | [`push`], [`pull`], [`dealer`] | PUSH, PULL, DEALER | [`lanes`] |
//! | [`pair`] | PAIR | |
//! | [`router`] | ROUTER | [`lanes`], routing table |
//! | [`req`], [`rep`] | REQ, REP | [`lanes`], [`envelope`] |
//! | [`publisher`], [`xpub`] | PUB, XPUB | [`fanout`], [`notices`] |
//! | [`sub`], [`xsub`] | SUB, XSUB | [`lanes`], [`interest`] |
//!
//! A pattern holds what its table calls state, and chooses pipes. Queues, limits and counters are the core's. What a
//! type does not do is refused by the defaults of [`Pattern`].

mod dealer;
pub(crate) mod envelope;
mod fanout;
mod interest;
mod lanes;
mod notices;
mod pair;
mod publisher;
mod pull;
mod push;
mod rep;
mod req;
mod router;
mod sub;
mod xpub;
mod xsub;

use bytes::Bytes;
use tidegate_io::{
    message::{Message, Part},
    packed::Packed,
    peer::PeerKey,
};

use self::envelope::{Parcel, Payload};
pub(crate) use self::{
    rep::{ReplyRefusal, Request, WayBack, reply},
    xpub::Event,
};
use crate::state::{Core, RecvRefusal, Refusal, SendRefusal, Settings, SocketType, Violation};

/// Makes the pattern of a socket type. `seed` starts request ids and generated routing ids (MQ-128, MQ-193).
pub(crate) fn of<L: Clone>(kind: SocketType, seed: u32) -> Box<dyn Pattern<L>> {
    match kind {
        SocketType::Req => Box::new(req::Req::new(seed)),
        SocketType::Rep => Box::new(rep::Rep::default()),
        SocketType::Dealer => Box::new(dealer::Dealer::default()),
        SocketType::Router => Box::new(router::Router::new(seed)),
        SocketType::Pub => Box::new(publisher::Publisher::default()),
        SocketType::Sub => Box::new(sub::Sub::default()),
        SocketType::XPub => Box::new(xpub::XPub::default()),
        SocketType::XSub => Box::new(xsub::XSub::default()),
        SocketType::Push => Box::new(push::Push::default()),
        SocketType::Pull => Box::new(pull::Pull::default()),
        SocketType::Pair => Box::new(pair::Pair::default()),
    }
}

/// What a socket type does with what happens. The calls come under the socket's lock, one at a time.
///
/// The life of a pipe: [`opened`](Self::opened), then [`up`](Self::up) and [`lost`](Self::lost) any number of times,
/// then [`closing`](Self::closing), then [`gone`](Self::gone). A pipe that is made by its connection is up first and
/// opened then.
pub(crate) trait Pattern<L: Clone>: Send {
    /// A pipe exists and may be given messages. `assigned` is its `connect_routing_id`, if set.
    fn opened(&mut self, core: &mut Core<L>, key: PeerKey) {
        let _ = (core, key);
    }

    /// The pipe shall be reachable by this routing id before its connection is up (MQ-207).
    fn assign(&mut self, core: &mut Core<L>, key: PeerKey, routing_id: Part) -> Result<(), Refusal> {
        let _ = (core, key, routing_id);
        Ok(())
    }

    /// Whether [`up`](Self::up) would let in who announces this routing id, on a pipe that has no connection.
    ///
    /// # Errors
    ///
    /// It would not; what a refusal changes has changed.
    fn admit(&mut self, core: &mut Core<L>, key: PeerKey, routing_id: &[u8]) -> Result<(), Refusal> {
        let _ = (core, key, routing_id);
        Ok(())
    }

    /// The pipe has a new connection.
    ///
    /// # Errors
    ///
    /// The peer is not let in; nothing has changed.
    fn up(&mut self, core: &mut Core<L>, key: PeerKey) -> Result<(), Refusal> {
        let _ = (core, key);
        Ok(())
    }

    /// The connection is lost, the pipe stays.
    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        let _ = (core, key);
    }

    /// The pipe takes no more part in sending. Its queue may still be written.
    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        let _ = (core, key);
    }

    /// The pipe's last connection is gone; what is queued for sending will be discarded, what was received stays.
    fn gone(&mut self, core: &mut Core<L>, key: PeerKey) {
        let _ = (core, key);
    }

    /// What was received on the pipe and not read is to be forgotten.
    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        let _ = (core, key);
    }

    /// Nobody dials for the pipe, which has no connection: it takes nothing until [`room`](Self::room) is called for it.
    fn idle(&mut self, core: &mut Core<L>, key: PeerKey) {
        let _ = (core, key);
    }

    /// A full pipe has room again.
    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        let _ = (core, key);
    }

    /// A message arrived; it is taken out of `payload` where it is kept.
    ///
    /// # Errors
    ///
    /// The peer may not send this.
    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation>;

    /// Messages arrived; they are taken out of `arrivals` until no more are to be read.
    ///
    /// # Errors
    ///
    /// The peer may not send this.
    fn received_many(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        arrivals: &mut Packed,
    ) -> Result<(), Violation> {
        let mut message = Message::new();
        while core.takes_more(key) && arrivals.pop_into(&mut message) {
            self.received(core, key, &mut Payload::verbatim(std::mem::take(&mut message)))?;
        }
        Ok(())
    }

    /// The peer subscribed to a topic.
    ///
    /// # Errors
    ///
    /// The peer may not do this, or asks for too much.
    fn subscribed(&mut self, core: &mut Core<L>, key: PeerKey, topic: Bytes) -> Result<(), Violation> {
        let _ = (core, key, topic);
        Err(Violation::UnexpectedCommand)
    }

    /// The peer cancelled a subscription.
    ///
    /// # Errors
    ///
    /// The peer may not do this.
    fn cancelled(&mut self, core: &mut Core<L>, key: PeerKey, topic: Bytes) -> Result<(), Violation> {
        let _ = (core, key, topic);
        Err(Violation::UnexpectedCommand)
    }

    /// Takes a message, which has at least one part, for sending; leaves it as it is when it refuses.
    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        let _ = (core, message);
        Err(SendRefusal::NotSupported)
    }

    /// How many messages would be taken one after the other, for types whose senders may have to wait for room (MQ-076).
    ///
    /// # Errors
    ///
    /// Nothing may be sent now, or no type of socket that does this.
    fn room_to_keep(&self, core: &Core<L>) -> Result<usize, SendRefusal> {
        let _ = core;
        Err(SendRefusal::NotSupported)
    }

    /// Sends a message for which room was kept. When that went with its pipe, the message counts as queued on that pipe:
    /// it is dropped unless another pipe can take it.
    fn send_promised(&mut self, core: &mut Core<L>, message: &mut Message) {
        if self.send(core, message).is_ok() {
            return;
        }
        match core.any_open() {
            // Full by a lowered limit, or by bytes: one more than allowed is what was promised.
            Some(key) => {
                core.enqueue(key, Parcel::verbatim(message));
            }
            None => {
                core.count_unroutable();
                message.clear();
            }
        }
    }

    /// Puts the next message for the application into `place`; answers by which pipe it came.
    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        let _ = (core, place);
        Err(RecvRefusal::NotSupported)
    }

    /// Whether [`recv`](Self::recv) would give something other than `WouldBlock` or `WrongState`.
    fn is_readable(&self, core: &Core<L>) -> bool {
        let _ = core;
        false
    }

    /// Whether [`send`](Self::send) of some message would be taken.
    fn is_writable(&self, core: &Core<L>) -> bool {
        let _ = core;
        false
    }

    /// Options have changed.
    fn configured(&mut self, core: &mut Core<L>, before: &Settings) {
        let _ = (core, before);
    }

    /// What only some types do.
    fn extras(&mut self) -> Extras<'_> {
        Extras::None
    }
}

/// Calls that only some types know.
pub(crate) enum Extras<'a> {
    /// None of these.
    None,
    /// Requests with a way back.
    Rep(&'a mut rep::Rep),
    /// State of single peers.
    Router(&'a mut router::Router),
    /// Who subscribed.
    Publisher(&'a mut fanout::Fanout),
    /// That, typed notifications, and subscriptions made by hand.
    XPub(&'a mut xpub::XPub),
    /// Own subscriptions.
    Subscriber(&'a mut interest::Interest),
}
