//! Asking the context's ZAP handler: a REP or ROUTER socket bound to `inproc://zeromq.zap.01` (MQ-159 to MQ-165).
//!
//! Every question goes by a DEALER of its own, so that a slow answer delays no other and nothing is left behind when the
//! connection that asks is gone. Limits on what the application does must not turn into refusals: that DEALER is none of
//! its sockets, and what is asked and answered does not count as queued.

use std::{future::Future, sync::Arc, time::Duration};

use tidegate_zmtp::{
    auth::{AuthCode, AuthRequest, Verdict},
    socket_type::SocketType,
    zap,
};

use crate::{
    context::{Context, ContextInner},
    error::Error,
    options::Options,
    shared::Owner,
};

/// One question.
pub(crate) struct Client {
    socket: Owner,
}

/// Whether whoever is bound to this endpoint is the handler.
pub(crate) fn is_handler(endpoint: &str) -> bool {
    endpoint == zap::ENDPOINT
}

impl Client {
    /// `None` when no handler is there.
    pub(crate) fn new(context: &Arc<ContextInner>) -> Option<Self> {
        let name = zap::ENDPOINT.strip_prefix("inproc://")?;
        context.names.bound(name)?;
        let context = Context::from_inner(context.clone());
        let mut options = Options::default();
        options.linger = Some(Duration::ZERO);
        let socket = Owner::internal(&context, SocketType::Dealer, options).ok()?;
        socket.connect(zap::ENDPOINT).ok()?;
        Some(Self { socket })
    }

    /// Puts the question. Dropping the future forgets it.
    pub(crate) fn ask(
        self,
        request: AuthRequest,
        domain: String,
        address: String,
    ) -> impl Future<Output = Verdict> {
        const ID: &[u8] = b"1";
        async move {
            let question = zap::request(ID, domain.as_bytes(), address.as_bytes(), &request);
            let reply = match self.socket.send(question).await {
                Ok(()) => self.socket.recv().await,
                Err(failed) => Err(failed.error),
            };
            match reply {
                Ok(reply) => zap::verdict(ID, &reply),
                // Who comes while the context ends is not refused: it may try the next one.
                Err(Error::Terminated) => Verdict::Refuse(AuthCode::Temporary),
                Err(_) => Verdict::Unanswered,
            }
        }
    }
}
