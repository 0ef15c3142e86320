//! The vectors of §4.6.6, which libzmq and libsodium made.

use super::*;

fn hex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const HELLO_BOX: &str = "e837536af7ea722fbc55ff508d3b84739ec8d9fb342cb415fecf81fb45f789c58f435d40ea86ba28d26dff622314ac43a96ef092a9f9fbec5fb7d33022b5d84d139af1c6be5e1d5ced00ecc21bba78b4";
const COOKIE: &str = "11111111111111111111111111111111251eaafc055449b7ae20984fbec051db58290b4fe9386b86a6fce9bdec9e2095faaf7e98c4fdabb797c0ad517a88ed5cd4828fabddc5c4db46f7194785b1b3cc74ad882b27c01f96c7ebdb62aedfde53";
const WELCOME_BOX: &str = "902806194ba615236344ab6d62618138266c79b93f6ae390a8265fc224dad6f51b8189c19cbb4a4867be7a68eb298aade6054632a18b53c31726953d2ba4e1b3d3d67cc1cab8f446c4916f422b542dc6f9496cb0ebbc0e2d250678a3dcbcc2d8431e4b3981408e98ea6a6c7294a0d77a7535861d4e85db74f92100864242a2bec7f2da581ecc75dbe8969548277c53c8";
const VOUCH_BOX: &str = "9394a542dcc930ca9ad801cfe928742a06f2212556fa8f912375e687a6454fd4b2aacad0b0c41227b04630762e627f9419f96a10226013a68bb364caaaff76c149c7c7c238b4a04786fdd4a539133dec";
const INITIATE_BOX: &str = "5e6177c328f15130f618b4ce8c768c091642f832a199eebd2a146f01afba07ef69d1cd0e60b86c5ff6b836bbfe0d907f8855b202458e10d8800fa43f54517b7da148d7d11f64b4915efe15366cc9afefad56788cea9adbdeb50fe7da6d4250ce1a7933ceaceebe202d2820b9f8c1817df6758d196c102f27e3546fc32d28a06b11d1f423fecb05bbf754704725bf8a903ad50489699a825e77e2ee9413b97a156b8176542ce80e9d29643a29aeef322d77c979";
const READY_BOX: &str =
    "1363251f19fe11dfbfd330762a61d1ac5d4c757ac17bc3bf5d319eda9ed7f6a9e5250992c644664b163198392021825acecd15";

/// Rules: MQ-158.
#[test]
fn public_keys() {
    for (first, public) in [
        (CLIENT, "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"),
        (SERVER, "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466"),
        (CLIENT_TRANSIENT, "883186b800b41d5cf0429695da9b3cc4f328ebcd184a6e482fa578c103f06c77"),
        (SERVER_TRANSIENT, "3a553d74792d727efa9b9a4cde3da1ad93f1a2d0c09cb639b1a3c0fda14cbe24"),
    ] {
        assert_eq!(secret(first).public_key().as_bytes().as_slice(), hex(public));
    }
    let server = secret(SERVER).public_key();
    assert_eq!(server.to_z85(), "wu=fu^7SXs1IC53N3vT[Z=)^JL{k:O?4CZmm+096");
    assert_eq!(crate::z85::encode(&hex("864fd26fb559f75b")).unwrap(), "HelloWorld");
}

/// Every command of the handshake, octet for octet.
///
/// Rules: MQ-142, MQ-145, MQ-158.
#[test]
fn handshake() {
    let (mut client, hello) = hello();
    let client_transient = *secret(CLIENT_TRANSIENT).public_key().as_bytes();
    let expected =
        [b"\x05HELLO\x01\x00".as_slice(), &[0; 72], &client_transient, &1u64.to_be_bytes(), &hex(HELLO_BOX)];
    assert_eq!(hello, expected.concat());

    let mut server = server();
    server.take(&hello);
    let welcome = server.sent();
    assert_eq!(welcome, [b"\x07WELCOME".as_slice(), &[0x22; 16], &hex(WELCOME_BOX)].concat());

    client.take(&welcome);
    let initiate = client.sent();
    assert_eq!(initiate.len(), 292);
    let expected = [b"\x08INITIATE".as_slice(), &hex(COOKIE), &2u64.to_be_bytes(), &hex(INITIATE_BOX)];
    assert_eq!(initiate, expected.concat());

    let request = question(server.give(&initiate));
    assert_eq!(request.credentials, Credentials::Curve(*secret(CLIENT).public_key().as_bytes()));
    done(server.run(|handshake, context| handshake.accepted(context)));
    let ready = server.sent();
    assert_eq!(ready.len(), 65);
    assert_eq!(ready, [b"\x05READY".as_slice(), &1u64.to_be_bytes(), &hex(READY_BOX)].concat());
    done(client.give(&ready));
}

/// The vouch is inside of INITIATE; here it is opened.
///
/// Rules: MQ-158.
#[test]
fn vouch() {
    let (_, _, mut initiate) = initiate();
    let key = BoxKey::agree(&secret(SERVER_TRANSIENT), &secret(CLIENT_TRANSIENT).public_key()).unwrap();
    let text = key.open(&short_nonce(nonce::INITIATE, 2), &mut initiate[113..]).unwrap();
    assert_eq!(text[..32], *secret(CLIENT).public_key().as_bytes());
    assert_eq!(text[32..128], [vec![0x33; 16], hex(VOUCH_BOX)].concat());
    let metadata = "0b536f636b65742d54797065000000064445414c4552084964656e7469747900000000";
    assert_eq!(text[128..], hex(metadata));
}

/// Rules: MQ-143, MQ-144, MQ-145, MQ-158.
#[test]
fn messages() {
    let (mut client, mut server) = established();
    let mut batch = WriteBatch::new(4096);
    client.seal(0, b"hi", &mut batch).unwrap();
    let expected = hex("0023074d4553534147450000000000000003e2217748df0127508b8f5d22bcc17e434535ec");
    assert_eq!(batch.segments()[0], expected);
    let mut body = expected[2..].to_vec();
    assert_eq!((server.open(&mut body), &body[BOXED_PAYLOAD..]), (Ok(0), b"hi".as_slice()));

    batch.clear();
    server.seal(INNER_COMMAND, b"\x04PING\x00\x00", &mut batch).unwrap();
    let expected =
        hex("0028074d4553534147450000000000000002acd376ac8b64f9c29d1ff851a588173e72b9150160d0ea03");
    assert_eq!(batch.segments()[0], expected);
    let mut body = expected[2..].to_vec();
    assert_eq!(client.open(&mut body), Ok(INNER_COMMAND));
    assert_eq!(body[BOXED_PAYLOAD..], *b"\x04PING\0\0");
}
