//! Who may connect: authenticators in this process (MQ-164).
//!
//! A server asks its [`Authenticator`] when it has one, else the context's ZAP handler, which is a REP or ROUTER
//! socket bound to `inproc://zeromq.zap.01` as with libzmq. An authenticator is a function that decides at once, a future,
//! [`Blocking`], or the table of users [`PlainTable`].

mod blocking;
mod table;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
};

use bytes::Bytes;
pub use tidegate_zmtp::auth::{Credentials, PlainCredentials};
use tidegate_zmtp::{
    auth::{AuthCode, AuthRequest, Verdict},
    mechanism::curve::PublicKey,
    metadata::Metadata,
};

use crate::{
    context::ContextInner,
    options::{CurveOptions, CurvePolicy, Mechanism, Options, PlainOptions},
    zap,
};

pub use self::{blocking::Blocking, table::PlainTable};

/// A peer that asks to be admitted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// The socket's `zap_domain`.
    pub domain: String,
    /// Address without port; `localhost:UID:GID:PID` for ipc.
    pub address: String,
    /// Routing id, if it is known by now.
    pub routing_id: Bytes,
    /// What the peer shows.
    pub credentials: Credentials,
}

/// Answer of an authenticator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Admitted, under this user id, which messages carry as `User-Id`.
    Admit {
        /// The user id; may be empty.
        user_id: String,
    },
    /// Refused; the peer is told 400 and stops trying.
    Refuse,
    /// Not now; the connection is closed without a word and the peer tries again (300).
    TryLater,
    /// The authenticator failed; the peer is told 500.
    Failed,
}

/// An answer that takes time.
pub type DecisionFuture = Pin<Box<dyn Future<Output = Decision> + Send>>;

/// Decides who may connect.
///
/// It is called on an engine worker and must not block there: what takes time goes into the returned future, which is
/// polled on the worker and dropped when the handshake's deadline passes. What cannot be a future is made one by [`Blocking`].
pub trait Authenticator: Send + Sync {
    /// Decides about `peer`.
    fn authenticate(&self, peer: Peer) -> DecisionFuture;
}

impl<F> Authenticator for F
where
    F: Fn(Peer) -> Decision + Send + Sync,
{
    fn authenticate(&self, peer: Peer) -> DecisionFuture {
        Box::pin(std::future::ready(self(peer)))
    }
}

/// Asks whoever is to decide about a peer.
pub(crate) struct Asker {
    context: Weak<ContextInner>,
    domain: String,
    /// Whether everybody is refused, because a domain is asked for and there is none.
    lacks_domain: bool,
    way: Way,
}

enum Way {
    Anybody,
    AllowList(Arc<[PublicKey]>),
    Ask(Arc<dyn Authenticator>),
    Zap,
}

/// What asking led to.
pub(crate) enum Asking {
    /// It is decided.
    Decided(Verdict),
    /// It takes time.
    Pending(Pin<Box<dyn Future<Output = Verdict>>>),
}

impl Asker {
    pub(crate) fn new(context: &Arc<ContextInner>, options: &Options) -> Self {
        let way = match &options.mechanism {
            Mechanism::Plain(PlainOptions::Server { authenticator: Some(authenticator) }) => {
                Way::Ask(authenticator.clone())
            }
            Mechanism::Curve(CurveOptions::Server { policy, .. }) => match policy {
                CurvePolicy::Zap => Way::Zap,
                CurvePolicy::AnyKey => Way::Anybody,
                CurvePolicy::AllowList(keys) => Way::AllowList(keys.clone()),
                CurvePolicy::Ask(authenticator) => Way::Ask(authenticator.clone()),
            },
            _ => Way::Zap,
        };
        let has_users = !matches!(options.mechanism, Mechanism::Null);
        Self {
            context: Arc::downgrade(context),
            domain: options.zap_domain.clone(),
            lacks_domain: options.zap_enforce_domain && has_users && options.zap_domain.is_empty(),
            way,
        }
    }

    pub(crate) fn ask(&self, request: AuthRequest, address: &str) -> Asking {
        if self.lacks_domain {
            return Asking::Decided(Verdict::Unanswered);
        }
        match &self.way {
            Way::Anybody => Asking::Decided(Verdict::accept()),
            Way::AllowList(keys) => Asking::Decided(match request.credentials {
                Credentials::Curve(key) if keys.iter().any(|known| known.as_bytes() == &key) => {
                    Verdict::accept()
                }
                _ => Verdict::Refuse(AuthCode::Denied),
            }),
            Way::Ask(authenticator) => {
                let decision = authenticator.authenticate(Peer {
                    domain: self.domain.clone(),
                    address: address.to_owned(),
                    routing_id: request.identity,
                    credentials: request.credentials,
                });
                Asking::Pending(Box::pin(async move { verdict(decision.await) }))
            }
            Way::Zap => {
                let context = self.context.upgrade();
                match context.as_ref().and_then(zap::Client::new) {
                    Some(client) => Asking::Pending(Box::pin(client.ask(
                        request,
                        self.domain.clone(),
                        address.to_owned(),
                    ))),
                    // With the context the handler went first: the peer is not refused, and may try the next one.
                    None if context.is_none_or(|context| context.is_terminated()) => {
                        Asking::Decided(Verdict::Refuse(AuthCode::Temporary))
                    }
                    None => Asking::Decided(Verdict::Unanswered),
                }
            }
        }
    }
}

fn verdict(decision: Decision) -> Verdict {
    match decision {
        Decision::Admit { user_id } => {
            Verdict::Accept { user_id: user_id.into_bytes().into(), metadata: Metadata::default() }
        }
        Decision::Refuse => Verdict::Refuse(AuthCode::Denied),
        Decision::TryLater => Verdict::Refuse(AuthCode::Temporary),
        Decision::Failed => Verdict::Refuse(AuthCode::Internal),
    }
}
