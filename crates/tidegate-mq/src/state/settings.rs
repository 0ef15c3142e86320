//! The options of a socket that its pattern looks at (chapter 8), with the sheet's defaults.
//!
//! Unless a field says *live*, it is read when a pipe is made; what is *live* is read at every call. Limits of queues
//! are live too, but are handed to the pipes by [`State::configure`](super::State::configure).

use tidegate_io::{message::Part, queue::Capacity};

/// The limit of two queues in a row: their sum, or none when one of them has none (MQ-270).
pub(crate) fn in_a_row(a: Capacity, b: Capacity) -> Capacity {
    let sum = |a: usize, b: usize| if a == 0 || b == 0 { 0 } else { a.saturating_add(b) };
    Capacity { messages: sum(a.messages, b.messages), bytes: sum(a.bytes, b.bytes) }
}

/// `sndhwm` and `rcvhwm` as they are before anybody sets them (MQ-299, MQ-353).
pub(crate) const DEFAULT_CAPACITY: Capacity = Capacity { messages: 1000, bytes: 64 << 20 };

/// What REQ does when the connection that carries its request is lost (MQ-197).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnPeerLoss {
    /// Keep waiting.
    #[default]
    Wait,
    /// The pending or next receive fails.
    Fail,
    /// Send the request to the next peer; needs `req_correlate`.
    Resend,
}

/// Which notifications of an XPUB repeat (MQ-223).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// First subscriber of a topic, last subscriber gone.
    #[default]
    Terse,
    /// Every subscription, last subscriber gone.
    Verbose,
    /// Every subscription and every cancellation.
    Verboser,
}

/// What a publisher does about a subscriber whose queue is full (MQ-222).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SlowPolicy {
    /// It misses messages.
    #[default]
    Drop,
    /// It is disconnected when it has missed this many on one connection.
    DisconnectAfter(u64),
}

/// Limits of what one subscriber may ask for (MQ-180).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionLimits {
    /// Bytes in one topic.
    pub(crate) topic: usize,
    /// Distinct topics.
    pub(crate) topics: usize,
    /// Bytes in all distinct topics together.
    pub(crate) bytes: usize,
}

impl Default for SubscriptionLimits {
    fn default() -> Self {
        Self { topic: 64 << 10, topics: 1_000_000, bytes: 256 << 20 }
    }
}

/// Options of one socket. Those that its type does not know are ignored.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `sndhwm`, `sndhwm_bytes`; live.
    pub(crate) send: Capacity,
    /// `rcvhwm`, `rcvhwm_bytes`; live.
    pub(crate) receive: Capacity,
    /// `conflate` (MQ-250).
    pub(crate) conflate: bool,
    /// `probe_router`; live (MQ-204).
    pub(crate) probe_router: bool,
    /// `req_correlate`; live (MQ-193).
    pub(crate) req_correlate: bool,
    /// `req_relaxed`; live (MQ-196).
    pub(crate) req_relaxed: bool,
    /// `req_on_peer_loss`; live (MQ-197).
    pub(crate) req_on_peer_loss: OnPeerLoss,
    /// How often one request is sent anew; live (MQ-197).
    pub(crate) req_resend_max: u32,
    /// `rep_report_drop`; live (MQ-201).
    pub(crate) rep_report_drop: bool,
    /// `router_mandatory`; live.
    pub(crate) router_mandatory: bool,
    /// `router_handover`; live (MQ-208, MQ-209).
    pub(crate) router_handover: bool,
    /// Bit 1 of `router_notify`: tell when a peer is there (MQ-211).
    pub(crate) notify_connect: bool,
    /// Bit 2 of `router_notify`: tell when a peer is lost (MQ-211).
    pub(crate) notify_disconnect: bool,
    /// `xpub_verbose` and `xpub_verboser`; live.
    pub(crate) verbosity: Verbosity,
    /// `xpub_manual` or `xpub_manual_last_value`.
    pub(crate) xpub_manual: bool,
    /// `xpub_manual_last_value`.
    pub(crate) xpub_last_value: bool,
    /// `xpub_nodrop`; live, also on PUB (MQ-217).
    pub(crate) nodrop: bool,
    /// `xpub_welcome_msg`; nothing when empty (MQ-227).
    pub(crate) welcome: Part,
    /// `invert_matching` (MQ-215).
    pub(crate) invert_matching: bool,
    /// `only_first_subscribe` (MQ-240).
    pub(crate) only_first_subscribe: bool,
    /// `sub_forward_duplicates` (MQ-231).
    pub(crate) forward_duplicates: bool,
    /// `xsub_verbose_unsubscribe` (MQ-237).
    pub(crate) verbose_unsubscribe: bool,
    /// `pub_slow_policy`; live (MQ-222).
    pub(crate) slow: SlowPolicy,
    /// `requeue_on_loss` (MQ-244).
    pub(crate) requeue_on_loss: bool,
    /// `hello_msg`; nothing when empty (MQ-214).
    pub(crate) hello: Part,
    /// `disconnect_msg`; nothing when empty (MQ-214).
    pub(crate) disconnect: Part,
    /// `hiccup_msg`; nothing when empty (MQ-214).
    pub(crate) hiccup: Part,
    /// What one subscriber may ask for.
    pub(crate) subscriptions: SubscriptionLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            send: DEFAULT_CAPACITY,
            receive: DEFAULT_CAPACITY,
            conflate: false,
            probe_router: false,
            req_correlate: false,
            req_relaxed: false,
            req_on_peer_loss: OnPeerLoss::Wait,
            req_resend_max: 3,
            rep_report_drop: false,
            router_mandatory: false,
            router_handover: false,
            notify_connect: false,
            notify_disconnect: false,
            verbosity: Verbosity::Terse,
            xpub_manual: false,
            xpub_last_value: false,
            nodrop: false,
            welcome: Part::EMPTY,
            invert_matching: false,
            only_first_subscribe: false,
            forward_duplicates: true,
            verbose_unsubscribe: false,
            slow: SlowPolicy::Drop,
            requeue_on_loss: false,
            hello: Part::EMPTY,
            disconnect: Part::EMPTY,
            hiccup: Part::EMPTY,
            subscriptions: SubscriptionLimits::default(),
        }
    }
}

#[cfg(test)]
impl Settings {
    /// `xpub_verbose`: clears `xpub_verboser` (MQ-223).
    pub(crate) fn set_xpub_verbose(&mut self, on: bool) {
        self.verbosity = if on { Verbosity::Verbose } else { Verbosity::Terse };
    }

    /// `xpub_verboser`: takes the place of `xpub_verbose`; off clears both (MQ-223).
    pub(crate) fn set_xpub_verboser(&mut self, on: bool) {
        self.verbosity = if on { Verbosity::Verboser } else { Verbosity::Terse };
    }
}
