//! The client's side of the handshake.

use super::{
    Boxes, COOKIE, KEY_LEN, LONG_NONCE, PublicKey, SHORT_NONCE, SecretKey, VOUCH, nonce,
    secret_box::{BoxKey, TAG_LEN, long_nonce, short_nonce},
    split, take,
};
use crate::{
    close::CloseReason,
    mechanism::{Context, Handshake, Refusal, Step, Traffic},
    random::Random,
};

/// Data of a WELCOME: nonce, tag, S', cookie.
const WELCOME_DATA: usize = LONG_NONCE + TAG_LEN + KEY_LEN + COOKIE;
/// Counters of the two boxes that the client sends before traffic (MQ-145).
const HELLO_COUNTER: u64 = 1;
const INITIATE_COUNTER: u64 = 2;

/// What a client must know.
#[derive(Clone, Debug)]
pub struct CurveClient {
    /// The client's own long-term key. One that is drawn for the purpose makes the client anonymous (MQ-156).
    pub secret: SecretKey,
    /// The server's long-term public key.
    pub server: PublicKey,
}

/// One handshake.
pub(crate) struct Client {
    keys: CurveClient,
    vouch_nonce: [u8; LONG_NONCE],
    state: State,
}

enum State {
    Start { transient: SecretKey },
    WaitWelcome { transient: SecretKey, key: BoxKey },
    WaitReady { key: BoxKey },
    Over,
}

impl Client {
    pub(crate) fn new(keys: &CurveClient, random: &mut dyn Random) -> Self {
        let transient = SecretKey::generate(random);
        let mut vouch_nonce = [0; LONG_NONCE];
        random.fill(&mut vouch_nonce);
        Self { keys: keys.clone(), vouch_nonce, state: State::Start { transient } }
    }

    fn hello(&self, transient: SecretKey, context: &mut Context<'_>) -> Result<State, CloseReason> {
        let key = BoxKey::agree(&transient, &self.keys.server)?;
        let mut body = Vec::with_capacity(200);
        body.extend_from_slice(b"\x05HELLO\x01\x00");
        body.resize(80, 0);
        body.extend_from_slice(transient.public_key().as_bytes());
        body.extend_from_slice(&HELLO_COUNTER.to_be_bytes());
        body.resize(200, 0);
        key.seal(&short_nonce(nonce::HELLO, HELLO_COUNTER), &mut body[120..]);
        context.send(&body);
        Ok(State::WaitWelcome { transient, key })
    }

    /// Takes a WELCOME and answers with INITIATE. c' is wiped at the end.
    fn welcome(
        &self,
        transient: &SecretKey,
        key: &BoxKey,
        data: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<State, CloseReason> {
        if data.len() != WELCOME_DATA {
            return Err(CloseReason::Cryptographic);
        }
        let (drawn, sealed) = data.split_first_chunk_mut().ok_or(CloseReason::Cryptographic)?;
        let mut text: &[u8] = key.open(&long_nonce(nonce::WELCOME, drawn), sealed)?;
        let server_transient =
            take(&mut text).map(PublicKey::from_bytes).ok_or(CloseReason::Cryptographic)?;
        let cookie = text;
        let session_key = BoxKey::agree(transient, &server_transient)?;

        let mut body = Vec::with_capacity(320);
        body.extend_from_slice(b"\x08INITIATE");
        body.extend_from_slice(cookie);
        body.extend_from_slice(&INITIATE_COUNTER.to_be_bytes());
        let start = body.len();
        body.extend_from_slice(&[0; TAG_LEN]);
        body.extend_from_slice(self.keys.secret.public_key().as_bytes());
        body.extend_from_slice(&self.vouch(&transient.public_key(), &server_transient)?);
        body.extend_from_slice(&context.metadata());
        let sealed = body.get_mut(start..).unwrap_or_default();
        session_key.seal(&short_nonce(nonce::INITIATE, INITIATE_COUNTER), sealed);
        context.send(&body);
        Ok(State::WaitReady { key: session_key })
    }

    /// Says by the long-term key that the transient one belongs to this client and is meant for this server.
    fn vouch(&self, transient: &PublicKey, server_transient: &PublicKey) -> Result<[u8; VOUCH], CloseReason> {
        let mut vouch = [0; VOUCH];
        let (drawn, sealed) = vouch.split_at_mut(LONG_NONCE);
        let (ours, theirs) = sealed[TAG_LEN..].split_at_mut(KEY_LEN);
        drawn.copy_from_slice(&self.vouch_nonce);
        ours.copy_from_slice(transient.as_bytes());
        theirs.copy_from_slice(self.keys.server.as_bytes());
        let key = BoxKey::agree(&self.keys.secret, server_transient)?;
        key.seal(&long_nonce(nonce::VOUCH, &self.vouch_nonce), sealed);
        Ok(vouch)
    }
}

/// Takes a READY: the counter to go on from, and the metadata.
fn ready<'a>(key: &BoxKey, data: &'a mut [u8]) -> Result<(u64, &'a [u8]), CloseReason> {
    let (counter, sealed) = data.split_first_chunk_mut::<SHORT_NONCE>().ok_or(CloseReason::Cryptographic)?;
    let counter = u64::from_be_bytes(*counter);
    Ok((counter, key.open(&short_nonce(nonce::READY, counter), sealed)?))
}

impl Handshake for Client {
    fn start(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start { transient } => self.state = self.hello(transient, context)?,
            _ => return Err(CloseReason::UnexpectedCommand.into()),
        }
        Ok(Step::Wait)
    }

    fn command(&mut self, body: &mut [u8], context: &mut Context<'_>) -> Result<Step, Refusal> {
        let (name, data) = split(body)?;
        match (std::mem::replace(&mut self.state, State::Over), name) {
            (State::WaitWelcome { transient, key }, b"WELCOME") => {
                self.state = self.welcome(&transient, &key, data, context)?;
                Ok(Step::Wait)
            }
            (State::WaitReady { key }, b"READY") => {
                let (counter, properties) = ready(&key, data)?;
                let peer = context.peer(properties)?;
                Ok(Step::Done(peer, Traffic::Boxed(Box::new(Boxes::client(key, counter)))))
            }
            _ => Err(CloseReason::UnexpectedCommand.into()),
        }
    }

    fn accepted(&mut self, _: &mut Context<'_>) -> Result<Step, Refusal> {
        Err(CloseReason::UnexpectedCommand.into())
    }
}
