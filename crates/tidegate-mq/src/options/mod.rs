//! Options of a socket (MQ-287): what they mean, their defaults, and libzmq's numbers for them.
//!
//! A socket is made with a set of options; [`Options`] is that set. The table below is the only list there is: fields,
//! defaults, the setter by number for bindings and the option reference all come from it.

mod apply;
mod filter;
mod raw;
mod types;

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use bytes::Bytes;

pub(crate) use self::filter::Admission;
pub use self::{
    filter::IpFilter,
    raw::OptionInfo,
    types::{
        CurveOptions, CurvePolicy, Heartbeat30Peers, Mechanism, Password, PlainOptions, ReconnectStop,
        ReqOnPeerLoss, RouterNotify, RoutingId, SlowSubscriberPolicy,
    },
};
use self::{
    raw::{Codec, CurveKeys},
    types::millis,
};
use crate::error::Error;

/// Makes [`Options`] out of one table.
macro_rules! options {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:expr, $number:expr, $codec:expr, $when:ident;
    )*) => {
        /// Options of one socket.
        ///
        /// Unless its description says that it is *live*, an option holds for binds and connects made after it was
        /// set. Durations that libzmq writes as -1 ("no limit") are `None`.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Options {
            $( $(#[doc = $doc])+ pub $name: $type, )*
            /// Security: which mechanism the socket speaks, and in which role. Default: none (NULL).
            pub mechanism: Mechanism,
            curve_keys: CurveKeys,
            /// Settings without effect, by number.
            idle: BTreeMap<i32, i32>,
        }

        impl Default for Options {
            fn default() -> Self {
                Self { $( $name: $default, )* mechanism: Mechanism::Null, curve_keys: CurveKeys::default(), idle: BTreeMap::new() }
            }
        }

        impl Options {
            /// Every option, for the reference and for bindings.
            pub const REFERENCE: &'static [OptionInfo] = &[
                $( OptionInfo {
                    name: stringify!($name),
                    number: $number,
                    default: stringify!($default),
                    live: matches!(stringify!($when).as_bytes(), b"live"),
                    description: concat!($($doc, "\n"),+),
                }, )*
            ];

            fn set_field(&mut self, number: i32, value: &[u8]) -> Result<bool, Error> {
                $( if Some(number) == $number {
                    ($codec).set(stringify!($name), &mut self.$name, value)?;
                    return Ok(true);
                } )*
                Ok(false)
            }

            /// Whether every field is in the range that it has by number, too.
            fn check_fields(&self) -> Result<(), Error> {
                $( ($codec).check(stringify!($name), &self.$name)?; )*
                Ok(())
            }

            fn get_field(&self, number: i32) -> Option<Vec<u8>> {
                $( if Some(number) == $number {
                    return ($codec).get(&self.$name);
                } )*
                None
            }
        }
    };
}

options! {
    /// Bitmap of the engine workers that new connections may use; 0 is all.
    affinity: u64 = 0, Some(4), raw::U64, later;
    /// Name by which a ROUTER addresses this socket.
    routing_id: Option<RoutingId> = None, Some(5), raw::Id, later;
    /// Send buffer of the operating system in bytes; `None` is the system's choice for tcp, but 256 KiB once a part of
    /// 128 KiB or more is sent over the loopback, and 2 MiB for ipc, as far as the system allows.
    sndbuf: Option<u32> = None, Some(11), raw::OptionalInt { none: -1 }, later;
    /// Receive buffer of the operating system in bytes; `None` is the system's choice.
    rcvbuf: Option<u32> = None, Some(12), raw::OptionalInt { none: -1 }, later;
    /// How long a closed socket goes on sending what is queued; `None` is until all is sent. Live.
    linger: Option<Duration> = None, Some(17), raw::Millis { none: -1 }, live;
    /// Time before the first attempt to connect again; `None` is never.
    reconnect_ivl: Option<Duration> = Some(millis(100)), Some(18), raw::Millis { none: -1 }, later;
    /// Longest time between attempts to connect again, doubling from `reconnect_ivl`; zero keeps `reconnect_ivl`.
    reconnect_ivl_max: Duration = Duration::ZERO, Some(21), raw::PlainMillis, later;
    /// Connections that wait to be accepted.
    backlog: u32 = 100, Some(19), raw::Int { min: 0, max: i32::MAX }, later;
    /// Largest frame that is received, in bytes; `None` leaves `hard_frame_limit`.
    maxmsgsize: Option<u64> = None, Some(22), raw::OptionalI64, later;
    /// Messages that may wait to be sent to one peer; 0 is no limit. Live.
    sndhwm: u32 = 1000, Some(23), raw::Int { min: 0, max: i32::MAX }, live;
    /// Messages of one peer that may wait to be received; 0 is no limit. Live.
    rcvhwm: u32 = 1000, Some(24), raw::Int { min: 0, max: i32::MAX }, live;
    /// Bytes that may wait to be sent to one peer; 0 is no limit. Live.
    sndhwm_bytes: u64 = 64 << 20, None, raw::U64, live;
    /// Bytes of one peer that may wait to be received; 0 is no limit. Live.
    rcvhwm_bytes: u64 = 64 << 20, None, raw::U64, live;
    /// How long a receive waits; `None` is for ever. Live.
    rcvtimeo: Option<Duration> = None, Some(27), raw::Millis { none: -1 }, live;
    /// How long a send waits for room; `None` is for ever. Live.
    sndtimeo: Option<Duration> = None, Some(28), raw::Millis { none: -1 }, live;
    /// ROUTER: refuse messages to unknown peers, and wait for full ones, instead of dropping. Live.
    router_mandatory: bool = false, Some(33), raw::Flag, live;
    /// TCP keep-alive: `None` is the system's choice.
    tcp_keepalive: Option<bool> = None, Some(34), raw::OptionalBool, later;
    /// Keep-alive probes before the connection is given up.
    tcp_keepalive_cnt: Option<u32> = None, Some(35), raw::OptionalInt { none: -1 }, later;
    /// Idle time before the first keep-alive probe, in seconds.
    tcp_keepalive_idle: Option<u32> = None, Some(36), raw::OptionalInt { none: -1 }, later;
    /// Time between keep-alive probes, in seconds.
    tcp_keepalive_intvl: Option<u32> = None, Some(37), raw::OptionalInt { none: -1 }, later;
    /// Queue messages only for connections that are up.
    immediate: bool = false, Some(39), raw::Bool, later;
    /// XPUB: report every subscription, not only the first of a topic. Live.
    xpub_verbose: bool = false, Some(40), raw::Flag, live;
    /// XPUB: report every subscription and every cancellation. Live.
    xpub_verboser: bool = false, Some(78), raw::Flag, live;
    /// Use IPv6 where a name or wildcard allows both.
    ipv6: bool = false, Some(42), raw::Bool, later;
    /// Send an empty message on every new connection, so that a ROUTER learns the peer. Live.
    probe_router: bool = false, Some(51), raw::Flag, live;
    /// REQ: number requests and take only the reply with that number. Live.
    req_correlate: bool = false, Some(52), raw::Flag, live;
    /// REQ: a new request may be sent before the reply to the last one has come. Live.
    req_relaxed: bool = false, Some(53), raw::Flag, live;
    /// Keep only the newest message of each queue.
    conflate: bool = false, Some(54), raw::Bool, later;
    /// Domain given to the authentication handler; with NULL, a domain turns authentication on.
    zap_domain: String = String::new(), Some(55), raw::Text { max: 255 }, later;
    /// Refuse peers when the domain is empty or no handler is there.
    zap_enforce_domain: bool = false, Some(93), raw::Flag, later;
    /// ROUTER: a new peer with a routing id in use takes it over. Live.
    router_handover: bool = false, Some(56), raw::Flag, live;
    /// Type-of-service bits of sent IP packets.
    tos: u32 = 0, Some(57), raw::Int { min: 0, max: 255 }, later;
    /// Priority of sent packets in the operating system (`SO_PRIORITY`); 0 leaves what follows from `tos`, more than 6
    /// needs privileges.
    priority: u32 = 0, Some(112), raw::Int { min: 0, max: i32::MAX }, later;
    /// Time in microseconds for which the operating system polls the network device when nothing has come
    /// (`SO_BUSY_POLL`); 0 is the system's choice, anything else needs privileges.
    busy_poll: u32 = 0, Some(113), raw::Int { min: 0, max: i32::MAX }, later;
    /// Name under which the peer of the next connect is addressed by a ROUTER.
    connect_routing_id: Option<RoutingId> = None, Some(61), raw::Id, later;
    /// Time a connection may take from being established until its handshake is complete; `None` is no limit.
    handshake_ivl: Option<Duration> = Some(millis(30_000)), Some(66), raw::Millis { none: 0 }, later;
    /// Accept TCP connections from these networks only; empty accepts all. Old: prefer an authenticator.
    tcp_accept_filter: Vec<IpFilter> = Vec::new(), Some(38), raw::Filters, later;
    /// Accept Unix connections of these processes only. With several lists of this kind, one match is enough. Old: prefer
    /// an authenticator.
    ipc_filter_pid: Vec<u32> = Vec::new(), Some(58), raw::Ids, later;
    /// Accept Unix connections of these users only.
    ipc_filter_uid: Vec<u32> = Vec::new(), Some(59), raw::Ids, later;
    /// Accept Unix connections of these groups only.
    ipc_filter_gid: Vec<u32> = Vec::new(), Some(60), raw::Ids, later;
    /// A socket that is bound and listens already, for the next bind only; its name in the file system is not removed.
    use_fd: Option<Arc<OwnedFd>> = None, None, raw::Unset, later;
    /// PUB and XPUB: wait for a full subscriber instead of dropping. Live.
    xpub_nodrop: bool = false, Some(69), raw::Flag, live;
    /// XPUB: subscriptions are reported, and take effect only by calls.
    xpub_manual: bool = false, Some(71), raw::Flag, later;
    /// XPUB: as `xpub_manual`, and the message after a call goes to that subscriber only.
    xpub_manual_last_value: bool = false, Some(98), raw::Flag, later;
    /// XPUB: first message to every new subscriber.
    xpub_welcome_msg: Bytes = Bytes::new(), Some(72), raw::Blob, later;
    /// Deliver what does not match instead of what does.
    invert_matching: bool = false, Some(74), raw::Flag, later;
    /// Time between heartbeats; `None` sends none.
    heartbeat_ivl: Option<Duration> = None, Some(75), raw::Millis { none: 0 }, later;
    /// Time after which the peer shall drop the connection when it hears nothing, in steps of 100 ms; zero is never.
    heartbeat_ttl: Duration = Duration::ZERO, Some(76), raw::Ttl, later;
    /// Time to wait for any sign of life after a heartbeat; `None` is `heartbeat_ivl`.
    heartbeat_timeout: Option<Duration> = None, Some(77), raw::Millis { none: -1 }, later;
    /// Whether peers of protocol 3.0, some of which take a heartbeat for a message, are sent heartbeats.
    heartbeat_30_peers: Heartbeat30Peers = Heartbeat30Peers::Learned, None, raw::Unset, later;
    /// Time that connecting may take; `None` is the system's limit.
    connect_timeout: Option<Duration> = None, Some(79), raw::Millis { none: 0 }, later;
    /// Time that sent data may stay unacknowledged before a TCP connection is given up; zero is the system's limit.
    tcp_maxrt: Duration = Duration::ZERO, Some(80), raw::PlainMillis, later;
    /// Network interface that the socket is confined to.
    bindtodevice: String = String::new(), Some(92), raw::Text { max: 15 }, later;
    /// Properties sent to peers in the handshake; names begin with `X-`.
    metadata: Vec<(String, String)> = Vec::new(), Some(95), raw::Property, later;
    /// ROUTER: report peers that come or go.
    router_notify: RouterNotify = RouterNotify::default(), Some(97), raw::Notify, later;
    /// Bytes read from a connection at once; more than 65536 is as 65536. Large frames are read whole.
    in_batch_size: u32 = 65_536, Some(101), raw::Int { min: 1, max: i32::MAX }, later;
    /// Bytes of small messages written to a connection at once; the message that reaches it is written whole.
    out_batch_size: u32 = 65_536, Some(102), raw::Int { min: 1, max: i32::MAX }, later;
    /// XPUB and XSUB: only the first part of a message may be a subscription.
    only_first_subscribe: bool = false, Some(108), raw::Flag, later;
    /// When not to connect again.
    reconnect_stop: ReconnectStop = ReconnectStop::default(), Some(109), raw::Stop, later;
    /// ROUTER and DEALER: first message to every new peer.
    hello_msg: Bytes = Bytes::new(), Some(110), raw::Blob, later;
    /// ROUTER: what is received when a peer is lost.
    disconnect_msg: Bytes = Bytes::new(), Some(111), raw::Blob, later;
    /// DEALER: what is received when the connection to a peer is lost.
    hiccup_msg: Bytes = Bytes::new(), Some(114), raw::Blob, later;
    /// XSUB: pass every cancellation on.
    xsub_verbose_unsubscribe: bool = false, Some(115), raw::Bool, later;
    /// SUB: pass every subscription on, also a repeated one.
    sub_forward_duplicates: bool = true, None, raw::Bool, later;
    /// REQ: what happens when the peer that has the request is lost. Live.
    req_on_peer_loss: ReqOnPeerLoss = ReqOnPeerLoss::Wait, None, raw::Unset, live;
    /// REP: report a reply that cannot be sent instead of dropping it. Live.
    rep_report_drop: bool = false, None, raw::Bool, live;
    /// PUB and XPUB: what happens to a subscriber that does not keep up. Live.
    pub_slow_policy: SlowSubscriberPolicy = SlowSubscriberPolicy::Drop, None, raw::Unset, live;
    /// PUSH and DEALER: give a lost peer's unsent messages to others, in any order.
    requeue_on_loss: bool = false, None, raw::Bool, later;
    /// Bind an ipc path although somebody listens on it.
    ipc_takeover: bool = false, None, raw::Bool, later;
    /// Allow several sockets to listen on one TCP port.
    reuse_port: bool = false, None, raw::Bool, later;
    /// Refuse every routing id that begins with a zero byte.
    strict_identity: bool = false, None, raw::Bool, later;
    /// Accept peers that do not say what they are.
    allow_missing_socket_type: bool = false, None, raw::Bool, later;
    /// Time after an authentication refusal until connecting is tried again, at least a second; `None` stops.
    auth_retry_ivl: Option<Duration> = None, None, raw::Millis { none: 0 }, later;
    /// Largest frame under any setting, in bytes.
    hard_frame_limit: u64 = (2 << 30) - 1, None, raw::U64, later;
    /// Largest message, all parts together, in bytes.
    max_message_bytes: u64 = (2 << 30) - 1, None, raw::U64, later;
    /// Most parts of a message.
    max_message_parts: u32 = 65_536, None, raw::Int { min: 1, max: i32::MAX }, later;
    /// Largest command of a handshake, in bytes.
    max_handshake_command: u32 = 65_536, None, raw::Int { min: 512, max: i32::MAX }, later;
    /// Longest topic a subscriber may ask for, in bytes.
    max_topic_bytes: u32 = 65_536, None, raw::Int { min: 0, max: i32::MAX }, later;
    /// Most topics of one subscriber.
    max_subscriptions: u32 = 1_000_000, None, raw::Int { min: 0, max: i32::MAX }, later;
    /// Most bytes of topics of one subscriber.
    max_subscription_bytes: u64 = 256 << 20, None, raw::U64, later;
    /// Most accepted connections at a time, of all endpoints that the socket is bound to; `None` is no limit. A newcomer
    /// beyond that is closed.
    max_connections: Option<u32> = None, None, raw::OptionalInt { none: -1 }, later;
    /// Connections that one endpoint accepts in a second, on average over a second; others wait in the backlog. `None`
    /// is no limit.
    accept_rate_limit: Option<u32> = None, None, raw::OptionalInt { none: -1 }, later;
    /// Most accepted connections of one endpoint that have not completed their handshake. Newcomers beyond that wait in
    /// the backlog while these do so; when the oldest of these has not after 300 ms, it is closed.
    max_pending_handshakes: u32 = 1024, None, raw::Int { min: 1, max: i32::MAX }, later;
    /// The same for one remote address.
    max_pending_handshakes_per_ip: u32 = 128, None, raw::Int { min: 1, max: i32::MAX }, later;
    /// Frames of at least this many bytes are written without copying.
    vectored_threshold: u32 = 16_384, None, raw::Int { min: 1, max: i32::MAX }, later;
    /// Received frames of at most this many bytes are copied, so that they do not keep a receive page alive. Less than 256
    /// acts as 256, since queues keep parts up to that size as copies.
    inline_copy_threshold: u32 = 256, None, raw::Int { min: 0, max: 65_536 }, later;
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// For public networks: short handshakes, few half-open ones, bounded messages (MQ-358).
    pub fn hardened() -> Self {
        Self {
            handshake_ivl: Some(millis(5_000)),
            max_pending_handshakes: 256,
            max_pending_handshakes_per_ip: 16,
            max_message_bytes: 64 << 20,
            hard_frame_limit: 64 << 20,
            max_message_parts: 1024,
            strict_identity: true,
            heartbeat_ivl: Some(millis(10_000)),
            ..Self::default()
        }
    }

    /// For small messages that must not wait behind large ones (MQ-358).
    pub fn low_latency() -> Self {
        Self { out_batch_size: 8_192, in_batch_size: 8_192, ..Self::default() }
    }

    /// For streams of many messages (MQ-358).
    pub fn throughput() -> Self {
        Self { out_batch_size: 262_144, sndhwm: 10_000, rcvhwm: 10_000, ..Self::default() }
    }

    /// Sets an option by libzmq's number and in libzmq's encoding, for bindings.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when the value does not fit, [`Error::NotSupported`] when the option is not there;
    /// nothing is changed then.
    pub fn set_raw(&mut self, number: i32, value: &[u8]) -> Result<(), Error> {
        // Not cleared by what may well be a mistake: without a domain nobody is asked.
        if number == raw::ZAP_DOMAIN && value.is_empty() {
            return Err(Error::InvalidOption { option: "zap_domain", problem: "the domain is empty" });
        }
        if !self.set_field(number, value)? {
            return raw::set_special(self, number, value);
        }
        // The two exclude each other (MQ-223).
        match number {
            raw::XPUB_VERBOSE => self.xpub_verboser = false,
            raw::XPUB_VERBOSER => self.xpub_verbose = false,
            _ => {}
        }
        Ok(())
    }

    /// An option by libzmq's number, in libzmq's encoding.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the option is not there or cannot be read.
    pub fn raw(&self, number: i32) -> Result<Vec<u8>, Error> {
        match self.get_field(number) {
            Some(value) => Ok(value),
            None => raw::get_special(self, number),
        }
    }
}
