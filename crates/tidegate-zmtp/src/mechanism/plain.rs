//! PLAIN: the client says who it is in clear text (§4.5).
//!
//! ```text
//! client: HELLO = length (1) user name, length (1) password        server: WELCOME, or ERROR
//! client: INITIATE = metadata                                      server: READY = metadata
//! ```

use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

use super::{Context, Handshake, Refusal, Step, Traffic};
use crate::{
    auth::{AuthRequest, Credentials, PlainCredentials},
    close::CloseReason,
    command,
};

/// The side that presents credentials.
pub(super) struct Client {
    /// Until HELLO is sent.
    credentials: Option<PlainCredentials>,
    welcomed: bool,
}

impl Client {
    pub(super) fn new(credentials: PlainCredentials) -> Self {
        Self { credentials: Some(credentials), welcomed: false }
    }
}

impl Handshake for Client {
    fn start(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        if let Some(credentials) = self.credentials.take() {
            // Room for all of it at once, so that growing leaves no copy behind.
            let mut body = Zeroizing::new(Vec::with_capacity(6 + 2 * 256));
            body.extend_from_slice(b"\x05HELLO");
            for secret in [credentials.username.as_bytes(), credentials.password.as_bytes()] {
                body.push(secret.len() as u8);
                body.extend_from_slice(secret);
            }
            context.send(&body);
        }
        Ok(Step::Wait)
    }

    fn command(&mut self, body: &mut [u8], context: &mut Context<'_>) -> Result<Step, Refusal> {
        match (command::split(body)?, self.welcomed) {
            ((b"WELCOME", b""), false) => {
                self.welcomed = true;
                context.send(&[b"\x08INITIATE", context.metadata().as_slice()].concat());
                Ok(Step::Wait)
            }
            ((b"WELCOME", _), false) => Err(CloseReason::MalformedWelcome.into()),
            ((b"READY", properties), true) => Ok(Step::Done(context.peer(properties)?, Traffic::Clear)),
            _ => Err(CloseReason::UnexpectedCommand.into()),
        }
    }

    fn accepted(&mut self, _context: &mut Context<'_>) -> Result<Step, Refusal> {
        Err(CloseReason::UnexpectedCommand.into())
    }
}

/// The side that has credentials verified.
pub(super) struct Server {
    awaiting: Awaiting,
}

/// What comes next: a command of the client, or the authenticator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    Hello,
    Verdict,
    Initiate,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { awaiting: Awaiting::Hello }
    }
}

impl Handshake for Server {
    fn start(&mut self, _context: &mut Context<'_>) -> Result<Step, Refusal> {
        Ok(Step::Wait)
    }

    fn command(&mut self, body: &mut [u8], context: &mut Context<'_>) -> Result<Step, Refusal> {
        match (command::split(body)?, self.awaiting) {
            ((b"HELLO", data), Awaiting::Hello) => {
                let credentials = hello(data).ok_or(CloseReason::MalformedHello);
                body.zeroize();
                let request =
                    AuthRequest { identity: Bytes::new(), credentials: Credentials::Plain(credentials?) };
                self.awaiting = Awaiting::Verdict;
                Ok(Step::Authenticate(request))
            }
            ((b"INITIATE", properties), Awaiting::Initiate) => {
                let peer = context.peer(properties)?;
                context.send(&[b"\x05READY", context.metadata().as_slice()].concat());
                Ok(Step::Done(peer, Traffic::Clear))
            }
            _ => Err(CloseReason::UnexpectedCommand.into()),
        }
    }

    fn accepted(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        context.send(b"\x07WELCOME");
        self.awaiting = Awaiting::Initiate;
        Ok(Step::Wait)
    }
}

/// The credentials in the data of a HELLO that is exactly right (MQ-134).
fn hello(data: &[u8]) -> Option<PlainCredentials> {
    let (&len, rest) = data.split_first()?;
    let (username, rest) = rest.split_at_checked(usize::from(len))?;
    let (&len, password) = rest.split_first()?;
    if password.len() != usize::from(len) {
        return None;
    }
    PlainCredentials::new(username, password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::SessionConfig, socket_type::SocketType};

    /// Nothing of a HELLO is left where it was received, whether it could be read or not.
    ///
    /// Rules: MQ-137.
    #[test]
    fn a_hello_is_wiped() {
        for hello in [b"\x05HELLO\x03ann\x06s3cret", b"\x05HELLO\x03ann\x07s3cret"] {
            let (config, mut output, mut body) =
                (SessionConfig::new(SocketType::Pull), Vec::new(), hello.to_vec());
            let step = Server::new().command(&mut body, &mut Context::new(&config, &mut output));
            assert_eq!(step.is_ok(), hello[10] == 6);
            assert!(body.iter().all(|octet| *octet == 0), "{body:?}");
        }
    }
}
