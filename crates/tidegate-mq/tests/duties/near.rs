//! Within a process.

use bytes::Bytes;
use tidegate_mq::{Context, ContextOptions, Error, Message, Part, Pull, Push};

use super::rig::{ANYWHERE, options};

/// Without any engine thread messages pass between sockets of a context, and all but small parts stay where they are; what
/// needs a thread says so.
///
/// Rules: MQ-041, MQ-269.
#[test]
fn messages_move_without_an_engine_and_without_a_copy() {
    let mut without = ContextOptions::default();
    without.io_threads = 0;
    let context = Context::with_options(without);
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://near").unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://near").unwrap();
    for size in [257, 10_000, 1 << 20] {
        let bytes = Bytes::from(vec![7; size]);
        let message: Message = [Part::from(bytes.clone()), Part::from("tail")].into_iter().collect();
        push.send_blocking(message).unwrap();
        let got = pull.recv_blocking().unwrap();
        assert_eq!((got.parts()[0].as_ptr(), got.parts()[0].len()), (bytes.as_ptr(), size));
        assert_eq!(got.parts()[1], "tail");
    }
    assert!(matches!(pull.bind_blocking(ANYWHERE), Err(Error::NoIoThread(_))));
    assert!(matches!(push.connect("tcp://127.0.0.1:9"), Err(Error::NoIoThread(_))));
    assert_eq!(ContextOptions::default().io_threads, 1);
}
