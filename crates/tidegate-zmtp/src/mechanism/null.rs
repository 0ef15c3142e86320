//! NULL: both sides say READY (§4.4).

use bytes::Bytes;

use super::{Context, Handshake, Refusal, Step, Traffic};
use crate::{
    auth::{AuthRequest, Credentials},
    close::CloseReason,
    command,
};

/// Either side; they behave alike, except that the accepting one may have to ask the authenticator first.
pub(super) struct Null {
    authenticate: bool,
}

impl Null {
    pub(super) fn new(authenticate: bool) -> Self {
        Self { authenticate }
    }
}

impl Handshake for Null {
    fn start(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        if self.authenticate {
            let request = AuthRequest { identity: Bytes::new(), credentials: Credentials::None };
            return Ok(Step::Authenticate(request));
        }
        Ok(ready(context))
    }

    fn command(&mut self, body: &mut [u8], context: &mut Context<'_>) -> Result<Step, Refusal> {
        match command::split(body)? {
            (b"READY", properties) => Ok(Step::Done(context.peer(properties)?, Traffic::Clear)),
            _ => Err(CloseReason::UnexpectedCommand.into()),
        }
    }

    fn accepted(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        Ok(ready(context))
    }
}

/// Sends READY without waiting for that of the peer (MQ-129).
fn ready(context: &mut Context<'_>) -> Step {
    let metadata = context.metadata();
    context.send(&[b"\x05READY", metadata.as_slice()].concat());
    Step::Wait
}
