//! A CURVE client written by hand, which may do every step of the handshake wrong.

use std::{io::Write, net::TcpStream};

use crypto_box::{PublicKey, SalsaBox, SecretKey, aead::Aead};

use crate::{
    raw,
    security::{Handler, PROTOCOL, Server, careful, curve_server, key, number, secured, serve},
    support::*,
};

/// The keys a client uses, and what it believes to be the server's.
struct Client {
    public: PublicKey,
    secret: SecretKey,
    server: PublicKey,
}

impl Client {
    /// One that is admitted.
    fn known() -> Self {
        let secret = SecretKey::from([1; 32]);
        Self { public: secret.public_key(), secret, server: SecretKey::from([9; 32]).public_key() }
    }

    /// Talks to `server` up to INITIATE, which goes through `change`; the stream, and the frame that comes then, if
    /// any.
    fn shake(
        &self,
        server: &Server,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> (TcpStream, Option<(u8, Vec<u8>)>) {
        let transient = SecretKey::from([0x81; 32]);
        let mut stream = raw::connect(&server.endpoint);
        raw::greet(&mut stream, 1, "CURVE");
        let signature = seal(&self.server, &transient, b"CurveZMQHELLO---", 1, &[0; 64]);
        let hello =
            [&[1, 0], &[0; 72][..], transient.public_key().as_bytes(), &counter(1), &signature].concat();
        stream.write_all(&raw::command("HELLO", &hello)).unwrap();
        let Ok((4, welcome)) = raw::read_frame(&mut stream) else { return (stream, None) };
        let (head, sealed) = welcome.split_at(24);
        let nonce: [u8; 24] = [b"WELCOME-", &head[8..]].concat().try_into().unwrap();
        let opened = SalsaBox::new(&self.server, &transient).decrypt(&nonce.into(), sealed).unwrap();
        let (server_transient, cookie) = opened.split_at(32);
        let server_transient = PublicKey::from_slice(server_transient).unwrap();

        let vouched = [transient.public_key().as_bytes(), self.server.as_bytes().as_slice()].concat();
        let vouch_nonce = [b"VOUCH---", [0x33; 16].as_slice()].concat();
        let vouch_nonce: [u8; 24] = vouch_nonce.try_into().unwrap();
        let vouch =
            SalsaBox::new(&server_transient, &self.secret).encrypt(&vouch_nonce.into(), &*vouched).unwrap();
        let metadata = raw::property("Socket-Type", b"DEALER");
        let text = [self.public.as_bytes(), &vouch_nonce[8..], &vouch, &metadata].concat();
        let sealed = seal(&server_transient, &transient, b"CurveZMQINITIATE", 2, &text);
        let mut initiate = [b"\x08INITIATE", cookie, &counter(2), &sealed].concat();
        change(&mut initiate);
        stream.write_all(&raw::frame(4, &initiate)).unwrap();
        let answer = raw::read_frame(&mut stream).ok();
        (stream, answer)
    }
}

fn counter(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

fn seal(to: &PublicKey, from: &SecretKey, prefix: &[u8; 16], value: u64, text: &[u8]) -> Vec<u8> {
    let nonce: [u8; 24] = [prefix.as_slice(), &counter(value)].concat().try_into().unwrap();
    SalsaBox::new(to, from).encrypt(&nonce.into(), text).unwrap()
}

/// How a server fails over a client that does something wrong; nobody is asked about it, and it is told nothing.
fn failure(client: &Client, change: impl FnOnce(&mut Vec<u8>)) -> (u64, u64) {
    let context = context();
    let handler = Handler::start(&context, careful);
    let server = serve(&context, secured(curve_server(), "ours"));
    let (mut stream, answer) = client.shake(&server, change);
    assert_eq!(answer, None);
    assert!(raw::is_closed(&mut stream));
    assert_eq!(handler.asked(), 0);
    number(&server.monitor)
}

const UNEXPECTED_COMMAND: (u64, u64) = (PROTOCOL, 0x1000_0001);
const MALFORMED_INITIATE: (u64, u64) = (PROTOCOL, 0x1000_0014);
const CRYPTOGRAPHIC: (u64, u64) = (PROTOCOL, 0x1100_0001);

/// What the cases below change is right before.
///
/// libzmq: test_security_curve/curve_security_with_valid_credentials.
///
/// Rules: MQ-150, MQ-151.
#[test]
fn what_is_right_is_admitted() {
    let context = context();
    let handler = Handler::start(&context, careful);
    let server = serve(&context, secured(curve_server(), "ours"));
    let (_stream, ready) = Client::known().shake(&server, |_| {});
    let (flags, body) = ready.unwrap();
    assert_eq!((flags, &body[..6]), (4, &b"\x05READY"[..]));
    peers(&server.monitor, &server.endpoint, 1);
    assert_eq!(handler.asked(), 1);
}

/// libzmq: test_security_curve/null_server_key (its name there is garbage_server_key).
///
/// Rules: MQ-148, MQ-445, MQ-446.
#[test]
fn null_server_key() {
    let client = Client { server: PublicKey::from([0; 32]), ..Client::known() };
    assert_eq!(failure(&client, |_| {}), CRYPTOGRAPHIC);
    let client = Client { server: SecretKey::from([8; 32]).public_key(), ..Client::known() };
    assert_eq!(failure(&client, |_| {}), CRYPTOGRAPHIC);
}

/// libzmq: test_security_curve/null_client_public_key, null_client_secret_key.
///
/// Rules: MQ-150.
#[test]
fn null_client_keys() {
    let client = Client { public: PublicKey::from([0; 32]), ..Client::known() };
    assert_eq!(failure(&client, |_| {}), CRYPTOGRAPHIC);
    let client = Client { secret: SecretKey::from([0; 32]), ..Client::known() };
    assert_eq!(failure(&client, |_| {}), CRYPTOGRAPHIC);
    // Both of them zero, and one of a stranger with the key of somebody who is admitted.
    let zero = SecretKey::from([0; 32]);
    let client = Client { public: PublicKey::from([0; 32]), secret: zero, ..Client::known() };
    assert_eq!(failure(&client, |_| {}), CRYPTOGRAPHIC);
    let client = Client { secret: SecretKey::from([2; 32]), ..Client::known() };
    assert_eq!(failure(&client, |_| {}), CRYPTOGRAPHIC);
    assert_eq!(Client::known().public.as_bytes(), key(1).public_key().as_bytes());
}

/// libzmq: test_security_curve/invalid_initiate_wrong_length, invalid_initiate_wrong_command_name,
/// invalid_initiate_wrong_command_encrypted_cookie, invalid_initiate_wrong_command_encrypted_content.
///
/// Rules: MQ-150, MQ-447.
#[test]
fn invalid_initiate() {
    let known = Client::known();
    assert_eq!(failure(&known, |initiate| initiate.truncate(256)), MALFORMED_INITIATE);
    assert_eq!(failure(&known, |initiate| initiate.truncate(9)), MALFORMED_INITIATE);
    assert_eq!(failure(&known, |initiate| initiate[8] = b'X'), UNEXPECTED_COMMAND);
    // The cookie's nonce, its box, and the same of what the client says itself.
    for place in [9, 24, 25, 104, 112, 113, 128, 256] {
        assert_eq!(failure(&known, |initiate| initiate[place] ^= 1), CRYPTOGRAPHIC, "{place}");
    }
}
