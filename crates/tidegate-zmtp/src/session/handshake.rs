//! From the first octet of the peer to the end of the handshake (§4.8).

use bytes::{Buf, BytesMut};
use tidegate_io::buffer::Slab;

use super::{Event, PeerInfo, Session, State, heartbeat::Heartbeat};
use crate::{
    close::{CloseReason, Limit},
    command,
    config::Security,
    mechanism::{Context, Handshake, Refusal, Step},
};

impl Session {
    /// Works on the greeting; gives whether there may be more to do.
    pub(super) fn greet(&mut self) -> Result<bool, Refusal> {
        let chunk = self.input.chunk();
        let (taken, version) = self.greeting.receive(chunk, &self.config.security)?;
        chunk.advance(taken);
        let Some(version) = version else {
            *chunk = BytesMut::new();
            return Ok(false);
        };
        self.version = version;
        self.state = State::Handshake;
        self.advance(|handshake, context| handshake.start(context))?;
        Ok(true)
    }

    /// Works on one command of the handshake; gives whether there may be more to do.
    pub(super) fn shake(&mut self, slab: &mut Slab) -> Result<bool, Refusal> {
        let limit = self.config.limits.handshake_command;
        let frame = self.input.next(false, slab, |header| {
            if !header.command() {
                return Err(CloseReason::UnexpectedCommand);
            }
            if header.size > limit {
                return Err(CloseReason::MessageTooLarge(Limit::HandshakeCommand));
            }
            Ok(())
        })?;
        let Some(frame) = frame else {
            return Ok(false);
        };
        let body = self.input.body(frame);
        if let Some(data) = error_data(body, &self.config.security) {
            return Err(command::error_reason(data).into());
        }
        // The body leaves the input for the call, which needs the rest of the session.
        let mut input = std::mem::take(&mut self.input);
        let result = self.advance(|handshake, context| handshake.command(input.body_mut(frame), context));
        input.discard(frame);
        self.input = input;
        result?;
        Ok(true)
    }

    /// Lets the mechanism do a step.
    pub(super) fn advance(
        &mut self,
        step: impl FnOnce(&mut dyn Handshake, &mut Context<'_>) -> Result<Step, Refusal>,
    ) -> Result<(), Refusal> {
        let Some(handshake) = &mut self.handshake else {
            return Err(CloseReason::UnexpectedCommand.into());
        };
        let mut context = Context::new(&self.config, self.output.handshake());
        match step(handshake.as_mut(), &mut context)? {
            Step::Wait => {}
            Step::Authenticate(request) => {
                self.undecided = true;
                self.event = Some(Event::Authenticate(request));
            }
            Step::Done(peer, traffic) => {
                let (user_id, extra) = self.user.take().unwrap_or_default();
                let mut metadata = peer.metadata;
                metadata.merge(extra);
                self.event = Some(Event::Up(PeerInfo {
                    socket_type: peer.socket_type,
                    routing_id: peer.identity,
                    mechanism: self.config.security.mechanism(),
                    user_id,
                    metadata,
                    version: self.version,
                }));
                self.state = State::Active;
                self.traffic = traffic;
                self.heartbeat = Some(Heartbeat::new(&self.config.heartbeat, self.version, self.now));
                self.handshake = None;
            }
        }
        let patience = self.handshake.as_ref().and_then(|handshake| handshake.patience());
        self.patience_deadline = patience.and_then(|patience| self.now.checked_add(patience));
        Ok(())
    }
}

/// The data of the ERROR command in `body`, if it is one. Some PLAIN servers misspell its name (MQ-535).
fn error_data<'a>(body: &'a [u8], security: &Security) -> Option<&'a [u8]> {
    if matches!(security, Security::PlainClient(_))
        && let Some(data) = body.strip_prefix(b"\x5eRROR")
    {
        return Some(data);
    }
    match command::split(body) {
        Ok((b"ERROR", data)) => Some(data),
        _ => None,
    }
}
