//! The server's side of the handshake.

use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    Boxes, COOKIE, KEY_LEN, LONG_NONCE, PublicKey, SHORT_NONCE, SecretKey, VOUCH, nonce,
    secret_box::{BoxKey, TAG_LEN, long_nonce, short_nonce},
    split, take,
};
use crate::{
    auth::{AuthRequest, Credentials},
    close::CloseReason,
    mechanism::{Context, Handshake, Peer, Refusal, Step, Traffic},
    random::Random,
};

/// Data of a HELLO: version, padding, C', counter, tag, zeros.
const HELLO_DATA: usize = 2 + 72 + KEY_LEN + SHORT_NONCE + TAG_LEN + 64;
/// Least data of an INITIATE: cookie, counter, tag, C, vouch.
const INITIATE_DATA: usize = COOKIE + SHORT_NONCE + TAG_LEN + KEY_LEN + VOUCH;
/// Counter of READY, the first box of the server (MQ-145).
const READY_COUNTER: u64 = 1;
/// How long a cookie is good (MQ-149).
const COOKIE_LIFE: Duration = Duration::from_secs(60);

/// What a server must know.
#[derive(Clone, Debug)]
pub struct CurveServer {
    /// The server's long-term key.
    pub secret: SecretKey,
}

/// One handshake.
pub(crate) struct Server {
    secret: SecretKey,
    state: State,
}

enum State {
    WaitHello(Drawn),
    WaitInitiate { cookie_key: BoxKey, client: PublicKey, hello_counter: u64 },
    WaitVerdict { key: BoxKey, peer: Peer, initiate_counter: u64 },
    Over,
}

/// Randomness of one connection.
struct Drawn {
    transient: SecretKey,
    cookie_key: Zeroizing<[u8; KEY_LEN]>,
    welcome_nonce: [u8; LONG_NONCE],
    cookie_nonce: [u8; LONG_NONCE],
}

impl Server {
    pub(crate) fn new(keys: &CurveServer, random: &mut dyn Random) -> Self {
        let transient = SecretKey::generate(random);
        let mut drawn = Drawn {
            transient,
            cookie_key: Zeroizing::default(),
            welcome_nonce: Default::default(),
            cookie_nonce: Default::default(),
        };
        random.fill(drawn.cookie_key.as_mut_slice());
        random.fill(&mut drawn.welcome_nonce);
        random.fill(&mut drawn.cookie_nonce);
        Self { secret: keys.secret.clone(), state: State::WaitHello(drawn) }
    }

    /// Takes a HELLO and answers with WELCOME. s' lives on in the cookie only.
    fn hello(&self, drawn: Drawn, data: &mut [u8], context: &mut Context<'_>) -> Result<State, CloseReason> {
        if data.len() != HELLO_DATA || !data.starts_with(&[1, 0]) {
            return Err(CloseReason::MalformedHello);
        }
        let (head, sealed) = data.split_at_mut(HELLO_DATA - TAG_LEN - 64);
        let mut head = head.get(2 + 72..).unwrap_or_default();
        let client = take(&mut head).map(PublicKey::from_bytes).ok_or(CloseReason::MalformedHello)?;
        let counter = take(&mut head).map(u64::from_be_bytes).ok_or(CloseReason::MalformedHello)?;
        let key = BoxKey::agree(&self.secret, &client)?;
        let text = key.open(&short_nonce(nonce::HELLO, counter), sealed)?;
        if text.iter().any(|&octet| octet != 0) {
            return Err(CloseReason::Cryptographic);
        }

        let cookie_key = BoxKey::from_bytes(drawn.cookie_key);
        let mut body = Vec::with_capacity(168);
        body.extend_from_slice(b"\x07WELCOME");
        body.extend_from_slice(&drawn.welcome_nonce);
        let start = body.len();
        body.extend_from_slice(&[0; TAG_LEN]);
        body.extend_from_slice(drawn.transient.public_key().as_bytes());
        body.extend_from_slice(bake(&cookie_key, &drawn.cookie_nonce, &client, &drawn.transient).as_slice());
        let sealed = body.get_mut(start..).unwrap_or_default();
        key.seal(&long_nonce(nonce::WELCOME, &drawn.welcome_nonce), sealed);
        context.send(&body);
        Ok(State::WaitInitiate { cookie_key, client, hello_counter: counter })
    }

    /// Takes an INITIATE: who the client is, and the key of the connection.
    fn initiate(
        &self,
        cookie_key: &BoxKey,
        client: &PublicKey,
        hello_counter: u64,
        data: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(AuthRequest, State), Refusal> {
        if data.len() < INITIATE_DATA {
            return Err(CloseReason::MalformedInitiate.into());
        }
        let (cookie, rest) = data.split_first_chunk_mut::<COOKIE>().ok_or(CloseReason::MalformedInitiate)?;
        let (counter, sealed) =
            rest.split_first_chunk_mut::<SHORT_NONCE>().ok_or(CloseReason::MalformedInitiate)?;
        let transient = unbake(cookie_key, client, cookie)?;
        let counter = u64::from_be_bytes(*counter);
        if counter <= hello_counter {
            return Err(CloseReason::InvalidSequence.into());
        }
        let key = BoxKey::agree(&transient, client)?;
        let text = key.open(&short_nonce(nonce::INITIATE, counter), sealed)?;
        let (long_term, text) = text.split_first_chunk_mut().ok_or(CloseReason::MalformedInitiate)?;
        let (vouch, properties) =
            text.split_first_chunk_mut::<VOUCH>().ok_or(CloseReason::MalformedInitiate)?;
        self.check_vouch(&transient, client, &PublicKey::from_bytes(*long_term), vouch)?;
        // Before the question, so that the authenticator learns the Identity (MQ-152).
        let peer = context.peer(properties)?;
        let credentials = Credentials::Curve(*long_term);
        let request = AuthRequest { identity: peer.identity.clone(), credentials };
        Ok((request, State::WaitVerdict { key, peer, initiate_counter: counter }))
    }

    /// Both halves count: that the transient key is the client's, and that this server is meant, not one to which the
    /// client spoke and which passes its words on (MQ-150).
    fn check_vouch(
        &self,
        transient: &SecretKey,
        client: &PublicKey,
        long_term: &PublicKey,
        vouch: &mut [u8; VOUCH],
    ) -> Result<(), CloseReason> {
        let (drawn, sealed) = vouch.split_first_chunk_mut().ok_or(CloseReason::KeyExchange)?;
        let text = BoxKey::agree(transient, long_term)?.open(&long_nonce(nonce::VOUCH, drawn), sealed)?;
        let (transient_half, server_half) = text.split_at(KEY_LEN);
        let same =
            transient_half.ct_eq(client.as_bytes()) & server_half.ct_eq(self.secret.public_key().as_bytes());
        if same.into() { Ok(()) } else { Err(CloseReason::KeyExchange) }
    }
}

/// Makes the cookie, in which the client keeps s' for us.
fn bake(
    key: &BoxKey,
    drawn: &[u8; LONG_NONCE],
    client: &PublicKey,
    transient: &SecretKey,
) -> Zeroizing<[u8; COOKIE]> {
    let mut cookie = Zeroizing::new([0; COOKIE]);
    let (place, sealed) = cookie.split_at_mut(LONG_NONCE);
    let (client_place, transient_place) = sealed[TAG_LEN..].split_at_mut(KEY_LEN);
    place.copy_from_slice(drawn);
    client_place.copy_from_slice(client.as_bytes());
    transient_place.copy_from_slice(transient.expose());
    key.seal(&long_nonce(nonce::COOKIE, drawn), sealed);
    cookie
}

/// Opens the cookie of this connection and gives s'.
fn unbake(key: &BoxKey, client: &PublicKey, cookie: &mut [u8; COOKIE]) -> Result<SecretKey, CloseReason> {
    let (drawn, sealed) = cookie.split_first_chunk_mut().ok_or(CloseReason::Cryptographic)?;
    let text = key.open(&long_nonce(nonce::COOKIE, drawn), sealed)?;
    let (baked_client, transient) = text.split_at_mut(KEY_LEN);
    let same = baked_client.ct_eq(client.as_bytes());
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    bytes.copy_from_slice(transient);
    transient.fill(0);
    if same.into() { Ok(SecretKey::from_wiped(bytes)) } else { Err(CloseReason::Cryptographic) }
}

impl Handshake for Server {
    fn start(&mut self, _: &mut Context<'_>) -> Result<Step, Refusal> {
        Ok(Step::Wait)
    }

    fn command(&mut self, body: &mut [u8], context: &mut Context<'_>) -> Result<Step, Refusal> {
        let (name, data) = split(body)?;
        match (std::mem::replace(&mut self.state, State::Over), name) {
            (State::WaitHello(drawn), b"HELLO") => {
                self.state = self.hello(drawn, data, context)?;
                Ok(Step::Wait)
            }
            (State::WaitInitiate { cookie_key, client, hello_counter }, b"INITIATE") => {
                let (request, state) = self.initiate(&cookie_key, &client, hello_counter, data, context)?;
                self.state = state;
                Ok(Step::Authenticate(request))
            }
            _ => Err(CloseReason::UnexpectedCommand.into()),
        }
    }

    fn accepted(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let State::WaitVerdict { key, peer, initiate_counter } =
            std::mem::replace(&mut self.state, State::Over)
        else {
            return Err(CloseReason::UnexpectedCommand.into());
        };
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(b"\x05READY");
        body.extend_from_slice(&READY_COUNTER.to_be_bytes());
        let start = body.len();
        body.extend_from_slice(&[0; TAG_LEN]);
        body.extend_from_slice(&context.metadata());
        key.seal(&short_nonce(nonce::READY, READY_COUNTER), body.get_mut(start..).unwrap_or_default());
        context.send(&body);
        Ok(Step::Done(peer, Traffic::Boxed(Box::new(Boxes::server(key, initiate_counter)))))
    }

    fn patience(&self) -> Option<Duration> {
        matches!(self.state, State::WaitInitiate { .. }).then_some(COOKIE_LIFE)
    }
}
