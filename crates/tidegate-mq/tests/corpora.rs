//! The committed inputs of the fuzz targets of messaging, each of which once led to code that no other did: what the
//! targets check holds for all of them. A finding of a fuzz run is added to `fuzz/seeds` with its mending.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../../../fuzz/fuzz_targets/messaging/mod.rs"]
mod messaging;

/// Runs `target` on every line of `corpus`, and on the first half of each.
fn replay(corpus: &str, target: fn(&[u8])) {
    let lines: Vec<_> = corpus.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() >= 20, "{} inputs", lines.len());
    for line in lines {
        assert_eq!(line.len() % 2, 0, "{line}");
        let octets = (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap());
        let input: Vec<u8> = octets.collect();
        let run = std::panic::catch_unwind(|| {
            target(&input);
            target(&input[..input.len() / 2]);
        });
        assert!(run.is_ok(), "the input {line}");
    }
}

macro_rules! corpus {
    ($name:literal) => {
        include_str!(concat!("../../../fuzz/seeds/mq_", $name, ".txt"))
    };
}

/// Rules: MQ-028, MQ-468, MQ-469.
#[test]
fn greetings() {
    replay(corpus!("greeting"), messaging::greeting);
}

/// Rules: MQ-028, MQ-468, MQ-469.
#[test]
fn frames() {
    replay(corpus!("frames"), messaging::frames);
}

/// Rules: MQ-028, MQ-075, MQ-468, MQ-469.
#[test]
fn subscriptions() {
    replay(corpus!("subscriptions"), messaging::subscriptions);
}

/// Rules: MQ-028, MQ-468, MQ-469.
#[test]
fn metadata() {
    replay(corpus!("metadata"), messaging::metadata);
}

/// Rules: MQ-028, MQ-468, MQ-469.
#[test]
fn plain_handshakes() {
    replay(corpus!("plain"), messaging::plain);
}

/// Rules: MQ-028, MQ-468, MQ-469.
#[test]
fn curve_handshakes() {
    replay(corpus!("curve_handshake"), messaging::curve_handshake);
}

/// Rules: MQ-146, MQ-469.
#[test]
fn curve_messages() {
    replay(corpus!("curve_stream"), messaging::curve_stream);
}

/// Rules: MQ-159, MQ-469.
#[test]
fn replies_of_handlers() {
    replay(corpus!("zap"), messaging::zap);
}

/// Rules: MQ-469.
#[test]
fn endpoints() {
    replay(corpus!("endpoint"), messaging::endpoint);
}

/// Rules: MQ-469.
#[test]
fn keys() {
    replay(corpus!("z85"), messaging::z85);
}
