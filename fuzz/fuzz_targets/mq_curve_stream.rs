//! CURVE messages: what was altered, repeated, left out or cut is never delivered.

#![no_main]

mod session;

use libfuzzer_sys::fuzz_target;
use session::established;
use tidegate_io::batch::WriteBatch;
use tidegate_io::message::Message;
use tidegate_zmtp::SocketType;
use tidegate_zmtp::config::Security;
use tidegate_zmtp::mechanism::curve::{CurveClient, CurveServer, SecretKey};

fuzz_target!(|input: &[u8]| {
    let secret = SecretKey::from_bytes([1; 32]);
    let client = CurveClient { server: secret.public_key(), secret: SecretKey::from_bytes([2; 32]) };
    let (mut pull, mut push) = established(
        (SocketType::Pull, SocketType::Push),
        (Security::CurveServer(CurveServer { secret }), Security::CurveClient(client)),
    );
    let mut batch = WriteBatch::new(64 * 1024);
    let mut frames = Vec::new();
    for number in 0..8_u8 {
        push.session.encode(&Message::from([number; 20].as_slice()), &mut batch);
        let frame: Vec<u8> = batch.segments().iter().flatten().copied().collect();
        batch.advance(frame.len());
        frames.push(frame);
    }
    pull.history.clear();
    // Each pair of octets sends one of the frames, whole or with an octet changed, or is sent itself.
    let mut genuine = Vec::new();
    for change in input.chunks_exact(2) {
        let (which, how) = (usize::from(change[0] % 9), change[1]);
        match frames.get(which) {
            Some(frame) if how < 128 => {
                genuine.push(which);
                pull.receive(frame);
            }
            Some(frame) => {
                let mut frame = frame.clone();
                let place = usize::from(how & 127) % frame.len();
                frame[place] ^= 0x55;
                pull.receive(&frame);
            }
            None => pull.receive(change),
        }
    }
    let delivered: Vec<_> = pull.history.iter().filter(|event| event.starts_with("[[")).collect();
    let texts: Vec<_> = (0..8_u8).map(|number| format!("{:?}", [vec![number; 20]])).collect();
    let numbers: Vec<_> =
        delivered.iter().map(|text| texts.iter().position(|known| known == *text).expect("forged")).collect();
    assert!(numbers.is_sorted_by(|one, two| one < two), "replayed or out of order: {numbers:?}");
    assert!(numbers.iter().all(|number| genuine.contains(number)));
});
