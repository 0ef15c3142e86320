#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use tidegate_zmtp::socket_type::SocketType;

use super::Options;

/// What no peer can see: where copying ends. What sessions do with it is shown with them.
///
/// Rules: MQ-356.
#[test]
fn sessions_get_the_thresholds() {
    let usual = Options::default().session(SocketType::Push, true).unwrap();
    assert_eq!((usual.vectored_threshold, usual.inline_copy_threshold), (16 << 10, 256));
    let options = Options { vectored_threshold: 12_345, inline_copy_threshold: 54, ..Options::default() };
    for accepted in [false, true] {
        let session = options.session(SocketType::Push, accepted).unwrap();
        assert_eq!((session.vectored_threshold, session.inline_copy_threshold), (12_345, 54));
    }
}

/// Zero and nothing are the same: no deadline.
///
/// Rules: MQ-324, MQ-330, MQ-295.
#[test]
fn zero_is_never() {
    let mut options = Options::default();
    assert_eq!(
        options.session(SocketType::Push, true).unwrap().handshake_ivl,
        Some(Duration::from_millis(30_000))
    );
    assert_eq!(options.backoff().base, Some(Duration::from_millis(100)));
    for none in [None, Some(Duration::ZERO)] {
        options.handshake_ivl = none;
        options.heartbeat_ivl = none;
        options.reconnect_ivl = none;
        let session = options.session(SocketType::Push, true).unwrap();
        assert_eq!((session.handshake_ivl, session.heartbeat.interval), (None, None));
        assert_eq!(options.backoff().base, None);
    }
}
