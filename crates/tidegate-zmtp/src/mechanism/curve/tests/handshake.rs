//! Each state with each command, and each command altered.

use super::*;

/// Both learn what the other says about itself, and the authenticator whom it decides on.
///
/// Rules: MQ-152.
#[test]
fn both_sides_learn_about_each_other() {
    let mut client = client();
    client.config.identity = Bytes::from_static(b"camera");
    client.config.metadata = vec![("X-site".into(), Bytes::from_static(b"north"))];
    client.run(|handshake, context| handshake.start(context)).ok();
    let mut server = server();
    server.take(&client.sent());
    client.take(&server.sent());
    let request = question(server.give(&client.sent()));
    assert_eq!(request.identity, "camera");
    assert_eq!(request.credentials, Credentials::Curve(*secret(CLIENT).public_key().as_bytes()));
    assert!(server.output.is_empty(), "READY waits for the verdict");

    let (peer, _) = done(server.run(|handshake, context| handshake.accepted(context)));
    assert_eq!((peer.socket_type, peer.identity.as_ref()), (Some(SocketType::Dealer), b"camera".as_slice()));
    assert_eq!(peer.metadata.get("X-site").unwrap(), "north");
    let (peer, _) = done(client.give(&server.sent()));
    assert_eq!(peer.socket_type, Some(SocketType::Router));
}

/// Rules: MQ-148, MQ-444.
#[test]
fn a_hello_of_another_size_or_version_is_malformed() {
    let (_, hello) = hello();
    for len in (6..hello.len()).chain([201, 400]) {
        let mut cut = hello.clone();
        cut.resize(len, 0);
        assert_eq!(server().refusal(&cut), CloseReason::MalformedHello, "{len} octets");
    }
    for version in [[0, 0], [0, 1], [1, 1], [2, 0]] {
        let mut other = hello.clone();
        other[6..8].copy_from_slice(&version);
        assert_eq!(server().refusal(&other), CloseReason::MalformedHello, "{version:?}");
    }
}

/// Rules: MQ-148.
#[test]
fn the_padding_of_hello_says_nothing() {
    let (_, mut hello) = hello();
    hello[8..80].fill(0xAA);
    server().take(&hello);
}

/// Rules: MQ-148, MQ-445, MQ-446.
#[test]
fn a_hello_that_does_not_open_is_refused() {
    let (_, hello) = hello();
    for index in 80..hello.len() {
        let mut altered = hello.clone();
        altered[index] ^= 1;
        assert_eq!(server().refusal(&altered), CloseReason::Cryptographic, "octet {index}");
    }
    let other_server = CurveClient { secret: secret(CLIENT), server: secret(0x61).public_key() };
    let mut stray = client_with(other_server);
    stray.run(|handshake, context| handshake.start(context)).ok();
    assert_eq!(server().refusal(&stray.sent()), CloseReason::Cryptographic);
    for key in LOW_ORDER {
        let mut weak = hello.clone();
        weak[80..112].copy_from_slice(&key);
        assert_eq!(server().refusal(&weak), CloseReason::Cryptographic);
    }
    let mut content = [0; 64];
    content[63] = 1;
    let transient = secret(CLIENT_TRANSIENT);
    let mut talkative = hello.clone();
    let sealed = boxed(&transient, &secret(SERVER).public_key(), &short_nonce(nonce::HELLO, 1), &content);
    talkative[120..].copy_from_slice(&sealed);
    assert_eq!(server().refusal(&talkative), CloseReason::Cryptographic);
}

/// Rules: MQ-140, MQ-155, MQ-450.
#[test]
fn a_client_refuses_every_other_welcome() {
    let (_, hello_body) = hello();
    let mut answering = server();
    answering.take(&hello_body);
    let welcome = answering.sent();
    for index in 8..welcome.len() {
        let mut altered = welcome.clone();
        altered[index] ^= 0x80;
        assert_eq!(hello().0.refusal(&altered), CloseReason::Cryptographic, "octet {index}");
        assert_eq!(hello().0.refusal(&welcome[..index]), CloseReason::Cryptographic, "{index} octets");
    }
    let long = [welcome.as_slice(), b"\0"].concat();
    assert_eq!(hello().0.refusal(&long), CloseReason::Cryptographic);

    // A WELCOME that another connection of the same client was given.
    let keys = CurveClient { secret: secret(CLIENT), server: secret(SERVER).public_key() };
    let mut random = draws([vec![0x99; 32], vec![0; 16]]);
    let mut other = client();
    other.handshake = Client::new(&keys, &mut random);
    other.run(|handshake, context| handshake.start(context)).ok();
    other.sent();
    assert_eq!(other.refusal(&welcome), CloseReason::Cryptographic);

    // One that opens, and has more in it than it should.
    let text = [secret(SERVER).public_key().as_bytes().as_slice(), &[0; 97]].concat();
    let nonce = long_nonce(nonce::WELCOME, &[0x22; 16]);
    let sealed = boxed(&secret(SERVER), &secret(CLIENT_TRANSIENT).public_key(), &nonce, &text);
    let long = [b"\x07WELCOME".as_slice(), &[0x22; 16], &sealed].concat();
    assert_eq!(hello().0.refusal(&long), CloseReason::Cryptographic);

    for key in LOW_ORDER {
        let text = [key.as_slice(), &[0; 96]].concat();
        let nonce = long_nonce(nonce::WELCOME, &[0x22; 16]);
        let sealed = boxed(&secret(SERVER), &secret(CLIENT_TRANSIENT).public_key(), &nonce, &text);
        let weak = [b"\x07WELCOME".as_slice(), &[0x22; 16], &sealed].concat();
        assert_eq!(hello().0.refusal(&weak), CloseReason::Cryptographic);
    }
}

/// Rules: MQ-140.
#[test]
fn a_client_does_not_start_with_a_server_key_of_low_order() {
    for key in LOW_ORDER {
        let mut client =
            client_with(CurveClient { secret: secret(CLIENT), server: PublicKey::from_bytes(key) });
        let refusal = client.run(|handshake, context| handshake.start(context)).err().unwrap();
        assert_eq!((refusal.reason, client.output.len()), (CloseReason::Cryptographic, 0));
    }
}

/// Rules: MQ-150, MQ-447.
#[test]
fn an_initiate_that_is_cut_or_altered_is_refused() {
    let (_, _, body) = initiate();
    for len in 9..257 {
        assert_eq!(initiate().1.refusal(&body[..len]), CloseReason::MalformedInitiate, "{len} octets");
    }
    for len in 257..body.len() {
        assert_eq!(initiate().1.refusal(&body[..len]), CloseReason::Cryptographic, "{len} octets");
    }
    for index in 9..body.len() {
        let mut altered = body.clone();
        altered[index] ^= 4;
        let reason = initiate().1.refusal(&altered);
        // An altered counter may also be one that does not grow.
        let counter = (105..113).contains(&index) && reason == CloseReason::InvalidSequence;
        assert!(counter || reason == CloseReason::Cryptographic, "octet {index}: {reason:?}");
    }
}

/// Rules: MQ-149, MQ-448.
#[test]
fn a_cookie_of_another_connection_is_refused() {
    let (_, hello) = hello();
    let (_, _, body) = initiate();
    let mut other = server_with(0x56);
    other.take(&hello);
    other.sent();
    assert_eq!(other.refusal(&body), CloseReason::Cryptographic);

    // The same cookie key, and the cookie of a client that said another C'.
    let (_, mut server, mut body) = initiate();
    let drawn = [0x11; 16];
    let mut text =
        [&[0; 16], secret(0x21).public_key().as_bytes().as_slice(), secret(SERVER_TRANSIENT).expose()]
            .concat();
    BoxKey::from_bytes(zeroize::Zeroizing::new([0x55; 32]))
        .seal(&long_nonce(nonce::COOKIE, &drawn), &mut text);
    body[25..105].copy_from_slice(&text);
    assert_eq!(server.refusal(&body), CloseReason::Cryptographic);
}

/// An INITIATE as a client would make it that chooses its vouch, counter and metadata freely.
fn forged(counter: u64, long_term: &PublicKey, vouch: &[u8], metadata: &[u8]) -> Vec<u8> {
    let (_, _, honest) = initiate();
    let text = [long_term.as_bytes(), vouch, metadata].concat();
    let nonce = short_nonce(nonce::INITIATE, counter);
    let sealed = boxed(&secret(CLIENT_TRANSIENT), &secret(SERVER_TRANSIENT).public_key(), &nonce, &text);
    [&honest[..105], &counter.to_be_bytes(), &sealed].concat()
}

fn vouch(signer: u8, transient: &PublicKey, server: &PublicKey) -> Vec<u8> {
    let text = [transient.as_bytes().as_slice(), server.as_bytes()].concat();
    let nonce = long_nonce(nonce::VOUCH, &[0x33; 16]);
    [vec![0x33; 16], boxed(&secret(signer), &secret(SERVER_TRANSIENT).public_key(), &nonce, &text)].concat()
}

const DEALER: &[u8] = b"\x0bSocket-Type\x00\x00\x00\x06DEALER";

/// Rules: MQ-150, MQ-449.
#[test]
fn both_halves_of_the_vouch_count() {
    let long_term = secret(CLIENT).public_key();
    let (transient, this, other) =
        (secret(CLIENT_TRANSIENT).public_key(), secret(SERVER).public_key(), secret(0x61).public_key());
    let good = forged(2, &long_term, &vouch(CLIENT, &transient, &this), DEALER);
    question(initiate().1.give(&good));
    for wrong in
        [vouch(CLIENT, &other, &this), vouch(CLIENT, &transient, &other), vouch(CLIENT, &this, &transient)]
    {
        let body = forged(2, &long_term, &wrong, DEALER);
        assert_eq!(initiate().1.refusal(&body), CloseReason::KeyExchange);
    }
    // Somebody who knows C and not c.
    let body = forged(2, &long_term, &vouch(0x61, &transient, &this), DEALER);
    assert_eq!(initiate().1.refusal(&body), CloseReason::Cryptographic);
    for key in LOW_ORDER {
        let body = forged(2, &PublicKey::from_bytes(key), &vouch(CLIENT, &transient, &this), DEALER);
        assert_eq!(initiate().1.refusal(&body), CloseReason::Cryptographic);
    }
}

/// Rules: MQ-147.
#[test]
fn the_counter_of_initiate_is_greater_than_that_of_hello() {
    let vouch = vouch(CLIENT, &secret(CLIENT_TRANSIENT).public_key(), &secret(SERVER).public_key());
    for counter in [0, 1] {
        let body = forged(counter, &secret(CLIENT).public_key(), &vouch, DEALER);
        assert_eq!(initiate().1.refusal(&body), CloseReason::InvalidSequence);
    }
    for counter in [2, 3, u64::MAX] {
        let body = forged(counter, &secret(CLIENT).public_key(), &vouch, DEALER);
        question(initiate().1.give(&body));
    }
}

/// The authenticator is not asked about a client whose properties are not acceptable.
///
/// Rules: MQ-152.
#[test]
fn metadata_is_checked_before_the_authenticator_is_asked() {
    let vouch = vouch(CLIENT, &secret(CLIENT_TRANSIENT).public_key(), &secret(SERVER).public_key());
    let body = forged(2, &secret(CLIENT).public_key(), &vouch, &[DEALER, b"\x01"].concat());
    assert!(matches!(initiate().1.refusal(&body), CloseReason::InvalidMetadata(_)));
    let body = forged(2, &secret(CLIENT).public_key(), &vouch, b"\x0bSocket-Type\x00\x00\x00\x03PUB");
    let refusal = initiate().1.give(&body).err().unwrap();
    assert_eq!(refusal.reason, CloseReason::InvalidSocketType);
    assert_eq!(refusal.tell, Some(b"Invalid socket type".as_slice()));
}

/// Rules: MQ-155, MQ-450.
#[test]
fn a_client_refuses_every_other_ready() {
    let (_, mut server, body) = initiate();
    question(server.give(&body));
    done(server.run(|handshake, context| handshake.accepted(context)));
    let ready = server.sent();
    for index in 6..ready.len() {
        let mut altered = ready.clone();
        altered[index] ^= 1;
        assert_eq!(initiate().0.refusal(&altered), CloseReason::Cryptographic, "octet {index}");
        assert_eq!(initiate().0.refusal(&ready[..index]), CloseReason::Cryptographic, "{index} octets");
    }
    // The READY of another connection.
    let keys = CurveClient { secret: secret(CLIENT), server: secret(SERVER).public_key() };
    let mut random = draws([vec![0x99; 32], vec![0; 16]]);
    let mut other = client();
    other.handshake = Client::new(&keys, &mut random);
    other.run(|handshake, context| handshake.start(context)).ok();
    let mut answering = super::server();
    answering.take(&other.sent());
    other.take(&answering.sent());
    other.sent();
    assert_eq!(other.refusal(&ready), CloseReason::Cryptographic);

    let nonce = short_nonce(nonce::READY, 1);
    let seal = |metadata: &[u8]| {
        let sealed =
            boxed(&secret(SERVER_TRANSIENT), &secret(CLIENT_TRANSIENT).public_key(), &nonce, metadata);
        [b"\x05READY".as_slice(), &1u64.to_be_bytes(), &sealed].concat()
    };
    let router = b"\x0bSocket-Type\x00\x00\x00\x06ROUTER";
    done(initiate().0.give(&seal(router)));
    let trailing = seal(&[router.as_slice(), b"\0"].concat());
    assert!(matches!(initiate().0.refusal(&trailing), CloseReason::InvalidMetadata(_)));
    assert!(matches!(initiate().0.refusal(&seal(b"\x01")), CloseReason::InvalidMetadata(_)));
}

/// Every pair of a state and a command that the tables do not list, on both sides; two clients and two servers are
/// among them.
///
/// Rules: MQ-113, MQ-166, MQ-443.
#[test]
fn a_command_out_of_turn_is_unexpected() {
    let (_, hello_body) = hello();
    let (_, mut server, initiate_body) = initiate();
    question(server.give(&initiate_body));
    done(server.run(|handshake, context| handshake.accepted(context)));
    let ready = server.sent();
    let mut answering = super::server();
    answering.take(&hello_body);
    let welcome = answering.sent();
    let all: [(&str, &[u8]); 9] = [
        ("HELLO", &hello_body),
        ("WELCOME", &welcome),
        ("INITIATE", &initiate_body),
        ("READY", &ready),
        ("MESSAGE", b"\x07MESSAGE\0\0\0\0\0\0\0\x03"),
        ("PING", b"\x04PING\0\0"),
        ("SUBSCRIBE", b"\x09SUBSCRIBE"),
        ("hello", b"\x05hello"),
        ("HELLOS", b"\x06HELLOS"),
    ];
    fn check<H: Handshake>(state: &str, expected: &str, make: impl Fn() -> Side<H>, all: &[(&str, &[u8])]) {
        for (name, body) in all.iter().filter(|(name, _)| *name != expected) {
            assert_eq!(make().refusal(body), CloseReason::UnexpectedCommand, "{name} in {state}");
        }
        for malformed in [b"".as_slice(), b"\0", b"\x06HELLO", b"\xff"] {
            assert_eq!(make().refusal(malformed), CloseReason::MalformedCommand, "{malformed:?} in {state}");
        }
    }
    check("client start", "", client, &all);
    check("client WaitWelcome", "WELCOME", || hello().0, &all);
    check("client WaitReady", "READY", || initiate().0, &all);
    let over = || {
        let mut client = initiate().0;
        done(client.give(&ready));
        client
    };
    check("client done", "", over, &all);
    check("server start", "HELLO", super::server, &all);
    check("server WaitInitiate", "INITIATE", || initiate().1, &all);
    let undecided = || {
        let (_, mut server, initiate) = initiate();
        question(server.give(&initiate));
        server
    };
    check("server WaitVerdict", "", undecided, &all);
    let over = || {
        let mut server = undecided();
        done(server.run(|handshake, context| handshake.accepted(context)));
        server.sent();
        server
    };
    check("server done", "", over, &all);
}

/// Rules: MQ-149.
#[test]
fn a_cookie_is_good_for_a_minute() {
    let (client, mut server, initiate) = initiate();
    assert_eq!(client.handshake.patience(), None);
    assert_eq!(super::server().handshake.patience(), None);
    assert_eq!(server.handshake.patience(), Some(Duration::from_secs(60)));
    question(server.give(&initiate));
    assert_eq!(server.handshake.patience(), None);
}

proptest! {
    /// No octets of a peer make either side panic, and none but the honest ones bring it further.
    #[test]
    fn arbitrary_commands_are_refused(
        name in prop::sample::select(vec!["HELLO", "WELCOME", "INITIATE", "READY"]),
        data in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let body = [&[name.len() as u8], name.as_bytes(), &data].concat();
        prop_assert!(super::server().give(&body).is_err());
        prop_assert!(hello().0.give(&body).is_err());
        let (mut client, mut server, _) = initiate();
        prop_assert!(client.give(&body).is_err());
        prop_assert!(server.give(&body).is_err());
    }
}
