//! The handshake, driven command by command with known keys, against hostile variants of every command.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_io::batch::WriteBatch;

use super::{
    secret_box::{BoxKey, Nonce, long_nonce, short_nonce, tests::LOW_ORDER},
    *,
};
use crate::{
    auth::{AuthRequest, Credentials},
    config::{Security, SessionConfig},
    mechanism::{
        BOXED_PAYLOAD, Boxing, Context, Handshake, INNER_COMMAND, INNER_MORE, Peer, Refusal, Step, Traffic,
    },
    socket_type::SocketType,
};

mod handshake;
mod traffic;
mod vectors;

/// Secret key of 32 consecutive values.
fn secret(first: u8) -> SecretKey {
    SecretKey::from_bytes(std::array::from_fn(|index| first + index as u8))
}

/// The long-term and transient keys of §4.6.6.
const CLIENT: u8 = 0x01;
const SERVER: u8 = 0x41;
const CLIENT_TRANSIENT: u8 = 0x81;
const SERVER_TRANSIENT: u8 = 0xC1;

/// What is drawn, in order; drawing more, or in other pieces, fails the test.
fn draws(draws: impl IntoIterator<Item = Vec<u8>>) -> impl FnMut(&mut [u8]) {
    let mut draws: VecDeque<_> = draws.into_iter().collect();
    move |bytes| bytes.copy_from_slice(&draws.pop_front().expect("no more is drawn"))
}

/// One side, and what it has sent.
struct Side<H> {
    handshake: H,
    config: SessionConfig,
    output: Vec<u8>,
}

impl<H: Handshake> Side<H> {
    fn run(
        &mut self,
        step: impl FnOnce(&mut H, &mut Context<'_>) -> Result<Step, Refusal>,
    ) -> Result<Step, Refusal> {
        step(&mut self.handshake, &mut Context::new(&self.config, &mut self.output))
    }

    /// Gives it a command that it must take without a question.
    fn take(&mut self, body: &[u8]) {
        assert!(matches!(self.give(body), Ok(Step::Wait)));
    }

    fn give(&mut self, body: &[u8]) -> Result<Step, Refusal> {
        self.run(|handshake, context| handshake.command(&mut body.to_vec(), context))
    }

    /// Why it closes silently on `body`.
    fn refusal(&mut self, body: &[u8]) -> CloseReason {
        let refusal = self.give(body).err().expect("a refusal");
        assert_eq!((refusal.tell, self.output.len()), (None, 0));
        refusal.reason
    }

    /// Body of the command that it has sent.
    fn sent(&mut self) -> Vec<u8> {
        let frame = std::mem::take(&mut self.output);
        let (body, len) = match frame[0] {
            0x04 => (&frame[2..], u64::from(frame[1])),
            0x06 => (&frame[9..], u64::from_be_bytes(frame[1..9].try_into().unwrap())),
            flags => panic!("frame flags {flags:#x}"),
        };
        assert_eq!(body.len() as u64, len);
        body.to_vec()
    }
}

fn client() -> Side<Client> {
    client_with(CurveClient { secret: secret(CLIENT), server: secret(SERVER).public_key() })
}

fn client_with(keys: CurveClient) -> Side<Client> {
    let mut random = draws([secret(CLIENT_TRANSIENT).expose().to_vec(), vec![0x33; 16]]);
    let handshake = Client::new(&keys, &mut random);
    let mut config = SessionConfig::new(SocketType::Dealer);
    config.security = Security::CurveClient(keys);
    Side { handshake, config, output: Vec::new() }
}

fn server() -> Side<Server> {
    server_with(0x55)
}

/// A server that draws this cookie key.
fn server_with(cookie_key: u8) -> Side<Server> {
    let keys = CurveServer { secret: secret(SERVER) };
    let transient = secret(SERVER_TRANSIENT).expose().to_vec();
    let mut random = draws([transient, vec![cookie_key; 32], vec![0x22; 16], vec![0x11; 16]]);
    let handshake = Server::new(&keys, &mut random);
    let mut config = SessionConfig::new(SocketType::Router);
    config.security = Security::CurveServer(keys);
    Side { handshake, config, output: Vec::new() }
}

fn hello() -> (Side<Client>, Vec<u8>) {
    let mut client = client();
    assert!(matches!(client.run(|handshake, context| handshake.start(context)), Ok(Step::Wait)));
    let hello = client.sent();
    (client, hello)
}

/// A client that waits for READY, a server that waits for INITIATE, and that INITIATE.
fn initiate() -> (Side<Client>, Side<Server>, Vec<u8>) {
    let (mut client, hello) = hello();
    let mut server = server();
    server.take(&hello);
    let welcome = server.sent();
    client.take(&welcome);
    let initiate = client.sent();
    (client, server, initiate)
}

fn question(step: Result<Step, Refusal>) -> AuthRequest {
    match step {
        Ok(Step::Authenticate(request)) => request,
        Err(refusal) => panic!("{refusal:?}"),
        _ => panic!("no question"),
    }
}

fn done(step: Result<Step, Refusal>) -> (Peer, Boxes) {
    match step {
        Ok(Step::Done(peer, Traffic::Boxed(boxes))) => (peer, *boxes),
        Err(refusal) => panic!("{refusal:?}"),
        _ => panic!("not complete"),
    }
}

/// Both ends of an established connection.
fn established() -> (Boxes, Boxes) {
    let (mut client, mut server, initiate) = initiate();
    question(server.give(&initiate));
    let (_, server_end) = done(server.run(|handshake, context| handshake.accepted(context)));
    let (_, client_end) = done(client.give(&server.sent()));
    (client_end, server_end)
}

/// A box of `text` under the key of the two.
fn boxed(ours: &SecretKey, theirs: &PublicKey, nonce: &Nonce, text: &[u8]) -> Vec<u8> {
    let mut sealed = [&[0; 16], text].concat();
    BoxKey::agree(ours, theirs).unwrap().seal(nonce, &mut sealed);
    sealed
}
