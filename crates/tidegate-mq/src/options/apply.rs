//! What options mean to the socket's state, to sessions and to streams.

use std::{sync::Arc, time::Duration};

use tidegate_io::{
    engine::{Backoff, ListenLimits, StopOn, StreamOptions},
    message::Part,
    queue::Capacity,
};
use tidegate_zmtp::{
    auth::PlainCredentials,
    config::{Heartbeat, Limits, OldPeers, Security, SessionConfig},
    mechanism::curve::{CurveClient, CurveServer},
    socket_type::SocketType,
};

use super::{
    CurveOptions, Heartbeat30Peers, Mechanism, Options, PlainOptions, ReqOnPeerLoss, RouterNotify,
    SlowSubscriberPolicy,
};
use crate::{
    error::{Error, Result},
    state::{OnPeerLoss, Settings, SlowPolicy, SubscriptionLimits, Verbosity},
};

fn invalid(option: &'static str, problem: &'static str) -> Result<()> {
    Err(Error::InvalidOption { option, problem })
}

impl Options {
    /// Whether every value is one that a socket of this kind can have. Asked whenever options change (MQ-211, MQ-287).
    pub(crate) fn check_values(&self, kind: SocketType) -> Result<()> {
        self.check_fields()?;
        if self.router_notify != RouterNotify::default() && kind != SocketType::Router {
            return invalid("router_notify", "only a ROUTER reports its peers by messages");
        }
        if let Mechanism::Plain(PlainOptions::Client { username, password }) = &self.mechanism
            && (username.len() > 255 || password.len() > 255)
        {
            return invalid("mechanism", "user name and password are at most 255 bytes long");
        }
        if self.heartbeat_ttl > Duration::from_millis(6_553_599) {
            return invalid("heartbeat_ttl", "the most is 6553599 ms");
        }
        if self.tcp_maxrt.as_millis() > i32::MAX as u128 {
            return invalid("tcp_maxrt", "the most is 2147483647 ms");
        }
        for (name, value) in &self.metadata {
            if !name.starts_with("X-") || name.len() < 3 || name.len() > 255 || value.is_empty() {
                return invalid("metadata", "names begin with X-, and neither name nor value is empty");
            }
        }
        if matches!(self.req_on_peer_loss, ReqOnPeerLoss::Resend(_)) && !self.req_correlate {
            return invalid(
                "req_on_peer_loss",
                "resending needs req_correlate, which tells late replies apart",
            );
        }
        Ok(())
    }

    /// Whether the options fit together, too. Asked when a socket is made, bound or connected: what is set one by one
    /// need not fit before the last is set (MQ-359).
    pub(crate) fn check(&self, kind: SocketType) -> Result<()> {
        self.check_values(kind)?;
        if self.curve_keys.are_incomplete() {
            return invalid(
                "curve keys",
                "a server needs its secret key, a client its own and the server's public key",
            );
        }
        Ok(())
    }

    /// Warns of options that are allowed and hardly meant. Done at every bind and connect (MQ-359).
    pub(crate) fn warn(&self, kind: SocketType) {
        if self.req_relaxed && !self.req_correlate {
            tracing::warn!(
                "req_relaxed without req_correlate: a late reply may be taken for the one to a later request"
            );
        }
        if self.conflate
            && !matches!(
                kind,
                SocketType::Pull | SocketType::Push | SocketType::Sub | SocketType::Pub | SocketType::Dealer
            )
        {
            tracing::warn!("conflate has no effect on a {} socket: it needs every message", kind.name());
        }
    }

    /// What the pattern needs.
    pub(crate) fn settings(&self, _kind: SocketType) -> Settings {
        let (on_loss, resend) = match self.req_on_peer_loss {
            ReqOnPeerLoss::Wait => (OnPeerLoss::Wait, 0),
            ReqOnPeerLoss::Fail => (OnPeerLoss::Fail, 0),
            ReqOnPeerLoss::Resend(most) => (OnPeerLoss::Resend, most),
        };
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let part = |bytes: &bytes::Bytes| Part::copy_from(bytes);
        Settings {
            send: Capacity { messages: self.sndhwm as usize, bytes: bytes(self.sndhwm_bytes) },
            receive: Capacity { messages: self.rcvhwm as usize, bytes: bytes(self.rcvhwm_bytes) },
            conflate: self.conflate,
            probe_router: self.probe_router,
            req_correlate: self.req_correlate,
            req_relaxed: self.req_relaxed,
            req_on_peer_loss: on_loss,
            req_resend_max: resend,
            rep_report_drop: self.rep_report_drop,
            router_mandatory: self.router_mandatory,
            router_handover: self.router_handover,
            notify_connect: self.router_notify.connect,
            notify_disconnect: self.router_notify.disconnect,
            verbosity: match (self.xpub_verboser, self.xpub_verbose) {
                (true, _) => Verbosity::Verboser,
                (false, true) => Verbosity::Verbose,
                (false, false) => Verbosity::Terse,
            },
            xpub_manual: self.xpub_manual || self.xpub_manual_last_value,
            xpub_last_value: self.xpub_manual_last_value,
            nodrop: self.xpub_nodrop,
            welcome: part(&self.xpub_welcome_msg),
            invert_matching: self.invert_matching,
            only_first_subscribe: self.only_first_subscribe,
            forward_duplicates: self.sub_forward_duplicates,
            verbose_unsubscribe: self.xsub_verbose_unsubscribe,
            slow: match self.pub_slow_policy {
                SlowSubscriberPolicy::Drop => SlowPolicy::Drop,
                SlowSubscriberPolicy::Disconnect(after) => SlowPolicy::DisconnectAfter(after.into()),
            },
            requeue_on_loss: self.requeue_on_loss,
            hello: part(&self.hello_msg),
            disconnect: part(&self.disconnect_msg),
            hiccup: part(&self.hiccup_msg),
            subscriptions: SubscriptionLimits {
                topic: self.max_topic_bytes as usize,
                topics: self.max_subscriptions as usize,
                bytes: bytes(self.max_subscription_bytes),
            },
        }
    }

    /// What sessions need. `accepted`: for connections that come to a listener.
    pub(crate) fn session(&self, kind: SocketType, accepted: bool) -> Result<Arc<SessionConfig>> {
        let security = match &self.mechanism {
            Mechanism::Null => Security::Null { authenticate: accepted && !self.zap_domain.is_empty() },
            Mechanism::Plain(PlainOptions::Server { .. }) => Security::PlainServer,
            Mechanism::Plain(PlainOptions::Client { username, password }) => {
                let credentials = PlainCredentials::new(username.as_bytes(), password.as_bytes());
                Security::PlainClient(credentials.ok_or(Error::InvalidOption {
                    option: "mechanism",
                    problem: "user name and password are at most 255 bytes long",
                })?)
            }
            Mechanism::Curve(CurveOptions::Server { secret_key, .. }) => {
                Security::CurveServer(CurveServer { secret: secret_key.clone() })
            }
            Mechanism::Curve(CurveOptions::Client { server_key, secret_key }) => {
                Security::CurveClient(CurveClient { server: *server_key, secret: secret_key.clone() })
            }
        };
        let mut config = SessionConfig::new(kind);
        config.identity = self.routing_id.as_ref().map(|id| id.as_bytes().clone()).unwrap_or_default();
        config.metadata = self
            .metadata
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes().into()))
            .collect();
        config.security = security;
        config.limits = Limits {
            max_msg_size: self.maxmsgsize,
            hard_frame: self.hard_frame_limit,
            message_bytes: self.max_message_bytes,
            message_parts: self.max_message_parts as usize,
            handshake_command: self.max_handshake_command.into(),
            topic_bytes: self.max_topic_bytes as usize,
        };
        config.heartbeat = Heartbeat {
            interval: self.heartbeat_ivl.filter(|interval| !interval.is_zero()),
            timeout: self.heartbeat_timeout,
            ttl: self.heartbeat_ttl,
            old_peers: match self.heartbeat_30_peers {
                Heartbeat30Peers::Learned => OldPeers::Learned,
                Heartbeat30Peers::Always => OldPeers::Always,
                Heartbeat30Peers::Never => OldPeers::Never,
            },
        };
        config.handshake_ivl = self.handshake_ivl.filter(|time| !time.is_zero());
        config.allow_missing_socket_type = self.allow_missing_socket_type;
        config.strict_identity = self.strict_identity;
        config.only_first_subscribe = self.only_first_subscribe;
        config.inline_copy_threshold = self.inline_copy_threshold as usize;
        config.vectored_threshold = self.vectored_threshold as usize;
        Ok(Arc::new(config))
    }

    /// What streams need.
    pub(crate) fn stream(&self) -> StreamOptions {
        StreamOptions {
            send_buffer: self.sndbuf,
            receive_buffer: self.rcvbuf,
            tos: u8::try_from(self.tos).unwrap_or(u8::MAX),
            priority: self.priority,
            busy_poll: self.busy_poll,
            keepalive: self.tcp_keepalive,
            keepalive_count: self.tcp_keepalive_cnt,
            keepalive_idle: self.tcp_keepalive_idle.map(|seconds| Duration::from_secs(seconds.into())),
            keepalive_interval: self.tcp_keepalive_intvl.map(|seconds| Duration::from_secs(seconds.into())),
            user_timeout: (!self.tcp_maxrt.is_zero()).then_some(self.tcp_maxrt),
            device: (!self.bindtodevice.is_empty()).then(|| self.bindtodevice.clone()),
            ipv6: self.ipv6,
            backlog: self.backlog,
            reuse_port: self.reuse_port,
            unix_takeover: self.ipc_takeover,
        }
    }

    /// How many connections a listener takes in a time.
    pub(crate) fn listen_limits(&self) -> ListenLimits {
        ListenLimits {
            pending: self.max_pending_handshakes as usize,
            pending_per_ip: self.max_pending_handshakes_per_ip as usize,
            per_second: self.accept_rate_limit,
        }
    }

    /// How many connections all listeners of the socket take.
    pub(crate) fn most_connections(&self) -> usize {
        self.max_connections.map_or(usize::MAX, |most| most as usize)
    }

    /// When to connect again.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff {
            base: self.reconnect_ivl.filter(|interval| !interval.is_zero()),
            max: self.reconnect_ivl_max,
            stop: StopOn {
                refused: self.reconnect_stop.connection_refused,
                handshake_failed: self.reconnect_stop.handshake_failed,
                disconnected: self.reconnect_stop.after_disconnect,
            },
        }
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
