//! Options: their ranges, filters of listeners, descriptors made elsewhere, and the state of one peer.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
};

use tidegate_mq::{Dealer, Error, Options, Pull, Push, Router};

use crate::support::*;

/// Whether a DEALER gets through to one that is bound with `options`.
fn is_admitted(endpoint: &str, options: Options) -> bool {
    let context = context();
    let bound = Dealer::with_options(&context, options).unwrap();
    let monitor = bound.monitor();
    let endpoint = bound.bind_blocking(endpoint).unwrap();
    let connected = Dealer::with_options(&context, crate::support::options()).unwrap();
    let seen = connected.monitor();
    connected.connect(&endpoint).unwrap();
    use tidegate_mq::monitor::EventKind::{ConnectRetried, HandshakeSucceeded};
    let end = event(&seen, |kind| matches!(kind, HandshakeSucceeded { .. } | ConnectRetried(_)));
    let admitted = matches!(end.kind, HandshakeSucceeded { .. });
    if admitted {
        bounce(&bound, &connected);
    } else {
        while let Some(event) = monitor.try_next() {
            assert!(!matches!(event.kind, HandshakeSucceeded { .. }), "{event:?}");
        }
    }
    admitted
}

/// libzmq: test_filter_ipc/test_no_filters, test_filter_with_process_owner_uid/gid/pid, _with_possibly_nonexisting.
///
/// Rules: MQ-267, MQ-321.
#[test]
fn filter_ipc() {
    let user = rustix::process::getuid().as_raw();
    let group = rustix::process::getgid().as_raw();
    let process = std::process::id();
    assert!(is_admitted("ipc://*", options()));
    for (number, own) in [(58, process), (59, user), (60, group)] {
        let filter = |id: u32| with(|options| options.set_raw(number, &id.to_ne_bytes()).unwrap());
        assert!(is_admitted("ipc://*", filter(own)), "{number}");
        assert!(!is_admitted("ipc://*", filter(own + 1)), "{number}");
        let mut both = filter(own + 1);
        both.set_raw(number, &own.to_ne_bytes()).unwrap();
        assert!(is_admitted("ipc://*", both), "{number}");
    }
}

/// libzmq: test_tcp_accept_filter/*.
///
/// Rules: MQ-305.
#[test]
fn tcp_accept_filter() {
    for bad in ["foobar", "127.0.0.1/", "127.0.0.1/foo", "127.0.0.1/33", "127.0.0.1/-1", "/8"] {
        assert_eq!(Options::default().set_raw(38, bad.as_bytes()).unwrap_err().errno(), 22, "{bad}");
    }
    let filter = |texts: &[&str]| {
        with(|options| texts.iter().for_each(|text| options.set_raw(38, text.as_bytes()).unwrap()))
    };
    let at = "tcp://127.0.0.1:*";
    for matching in [&["127.0.0.1"][..], &["127.0.0.0/8"], &["10.0.0.0/8", "127.0.0.1/32"], &["0.0.0.0/0"]] {
        assert!(is_admitted(at, filter(matching)), "{matching:?}");
    }
    assert!(!is_admitted(at, filter(&["10.0.0.0/8"])));
    // An empty one clears the list.
    assert!(is_admitted(at, filter(&["10.0.0.0/8", ""])));
}

/// libzmq: test_use_fd/test_req_rep_tcp, test_req_rep_ipc, test_pair_*.
///
/// Rules: MQ-336.
#[test]
fn use_fd() {
    let place = scratch();
    let path = place.path().join("use_fd");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let at_tcp = format!("tcp://{}", tcp.local_addr().unwrap());
    let ipc = UnixListener::bind(&path).unwrap();
    let at_ipc = format!("ipc://{}", path.display());
    for (fd, endpoint) in [(OwnedFd::from(tcp), at_tcp), (OwnedFd::from(ipc), at_ipc)] {
        let context = context();
        let bound =
            Dealer::with_options(&context, with(|options| options.use_fd = Some(Arc::new(fd)))).unwrap();
        bound.bind_blocking(&endpoint).unwrap();
        let connected = Dealer::with_options(&context, options()).unwrap();
        connected.connect(&endpoint).unwrap();
        bounce(&bound, &connected);
        wait(bound.close(None));
    }
    // Who made the file removes it.
    assert!(path.exists());
    assert!(Options::default().set_raw(89, &3_i32.to_ne_bytes()).is_err());
}

/// libzmq: test_router_mandatory/test_get_peer_state, test_get_peer_state_corner_cases.
///
/// Rules: MQ-212.
#[test]
fn peer_state() {
    let context = context();
    let router = Router::with_options(
        &context,
        with(|options| {
            options.router_mandatory = true;
            options.sndhwm = 1;
        }),
    )
    .unwrap();
    router.bind_blocking("inproc://a").unwrap();
    let unknown = router.peer_state("nobody").unwrap_err();
    assert!(matches!(unknown, Error::HostUnreachable));
    let make = |id: &[u8]| {
        let dealer = Dealer::with_options(
            &context,
            with(|options| {
                options.set_raw(5, id).unwrap();
                options.rcvhwm = 1;
            }),
        )
        .unwrap();
        dealer.connect("inproc://a").unwrap();
        dealer
    };
    let (full, free) = (make(b"X"), make(b"Y"));
    assert!(router.peer_state("X").unwrap().send);
    assert!(!router.peer_state("X").unwrap().receive);
    while router.try_send(message(["X", "Hello"])).is_ok() {}
    assert!(!router.peer_state("X").unwrap().send);
    assert!(router.peer_state("Y").unwrap().send);
    free.send_blocking("Hi").unwrap();
    assert!(router.peer_state("Y").unwrap().receive);
    while full.try_recv().is_ok() {}
    assert!(router.peer_state("X").unwrap().send);
}

/// libzmq: test_setsockopt/test_setsockopt_tcp_recv_buffer, _tcp_send_buffer, test_getsockopt_memset (ranges).
///
/// Rules: MQ-287, MQ-292, MQ-296, MQ-299, MQ-300, MQ-303, MQ-332.
#[test]
fn ranges() {
    let int = |value: i32| value.to_ne_bytes();
    let mut options = Options::default();
    for (number, default, good, bad) in [
        (11, -1, 16_384, -2),
        (12, -1, 16_384, -2),
        (17, -1, 0, -2),
        (19, 100, 0, -1),
        (23, 1000, 0, -1),
        (24, 1000, 0, -1),
        (27, -1, 0, -2),
        (28, -1, 0, -2),
        (33, 0, 1, -1),
        (34, -1, 1, 2),
        (39, 0, 1, -1),
        (42, 0, 1, 2),
        (66, 30_000, 0, -1),
        (69, 0, 1, -1),
    ] {
        assert_eq!(options.raw(number).unwrap(), int(default), "{number}");
        options.set_raw(number, &int(good)).unwrap();
        assert_eq!(options.raw(number).unwrap(), int(good), "{number}");
        assert_eq!(options.set_raw(number, &int(bad)).unwrap_err().errno(), 22, "{number}");
        assert_eq!(options.set_raw(number, &[0; 3]).unwrap_err().errno(), 22, "{number}");
        assert_eq!(options.raw(number).unwrap(), int(good), "{number}");
    }
    // Some take every number that is not negative.
    for number in [33, 40, 51, 52, 53, 56, 69, 71, 74, 78, 93, 98] {
        options.set_raw(number, &int(0)).unwrap();
        options.set_raw(number, &int(2)).unwrap();
        assert_eq!(options.raw(number).unwrap(), int(1), "{number}");
        assert_eq!(options.set_raw(number, &int(-1)).unwrap_err().errno(), 22, "{number}");
    }
    let unknown = options.set_raw(9999, &int(0)).unwrap_err();
    assert!(matches!(unknown, Error::NotSupported(_)));
    // With such buffers messages still pass.
    let context = context();
    let mut small = crate::support::options();
    small.set_raw(11, &int(4096)).unwrap();
    small.set_raw(12, &int(4096)).unwrap();
    let pull = Pull::with_options(&context, small.clone()).unwrap();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let push = Push::with_options(&context, small).unwrap();
    push.connect(&endpoint).unwrap();
    push.send_blocking(vec![1; 1 << 20]).unwrap();
    assert_eq!(pull.recv_blocking().unwrap().byte_len(), 1 << 20);
}

/// A socket that is closed, and one whose context is gone, refuse every call with the number that libzmq gives for what
/// is no socket (any more).
///
/// libzmq: test_socket_null.
///
/// Rules: MQ-371.
#[test]
fn no_socket_any_more() {
    const ENOTSOCK: i32 = 88;
    const ETERM: i32 = 156_384_765;
    for (ended, errno) in [(false, ENOTSOCK), (true, ETERM)] {
        let context = context();
        let socket = Dealer::with_options(&context, options()).unwrap();
        let handle = socket.clone();
        if ended {
            context.term_blocking();
        } else {
            wait(handle.close(None));
        }
        assert_eq!(socket.try_send("x").unwrap_err().error.errno(), errno);
        assert_eq!(socket.send_blocking("x").unwrap_err().error.errno(), errno);
        assert_eq!(socket.try_recv().unwrap_err().errno(), errno);
        assert_eq!(socket.recv_blocking().unwrap_err().errno(), errno);
        assert_eq!(socket.bind_blocking("tcp://127.0.0.1:*").unwrap_err().errno(), errno);
        assert_eq!(socket.bind_blocking("inproc://a").unwrap_err().errno(), errno);
        assert_eq!(socket.connect("inproc://a").unwrap_err().errno(), errno);
        assert_eq!(socket.readiness().unwrap_err().errno(), errno);
        assert_eq!(wait(socket.drained()).unwrap_err().errno(), errno);
        // What is not there cannot be taken away.
        assert_eq!(socket.unbind("inproc://a").unwrap_err().errno(), 2);
        assert_eq!(socket.disconnect("inproc://a").unwrap_err().errno(), 2);
    }
}

/// libzmq: test_setsockopt/test_setsockopt_use_fd, test_setsockopt_bindtodevice, test_setsockopt_priority.
///
/// Rules: MQ-287, MQ-320, MQ-336, MQ-337.
#[test]
fn settings_of_the_system() {
    let int = |value: i32| value.to_ne_bytes();
    let mut options = options();
    assert_eq!(options.raw(89).unwrap(), int(-1));
    assert_eq!(options.set_raw(89, &int(3)).unwrap_err().errno(), 95);
    let fd = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
    options.use_fd = Some(Arc::new(fd));
    assert_eq!(options.raw(89).unwrap(), int(number));
    options.use_fd = None;

    assert_eq!(options.raw(92).unwrap(), b"");
    assert_eq!(options.set_raw(92, b"sixteen-letters!").unwrap_err().errno(), 22);
    options.set_raw(92, b"lo").unwrap();
    assert_eq!(options.raw(92).unwrap(), b"lo");

    assert_eq!(options.raw(112).unwrap(), int(0));
    assert_eq!(options.set_raw(112, &int(-1)).unwrap_err().errno(), 22);
    options.set_raw(112, &int(5)).unwrap();
    assert_eq!(options.raw(112).unwrap(), int(5));

    // Where the system lets us, messages pass with both; else it is told why not.
    let context = context();
    let pull = Pull::with_options(&context, options.clone()).unwrap();
    match pull.bind_blocking("tcp://127.0.0.1:*") {
        Err(error) => assert_eq!(error.errno(), 1, "{error}"),
        Ok(endpoint) => {
            let push = Push::with_options(&context, options).unwrap();
            push.connect(&endpoint).unwrap();
            push.send_blocking("through lo").unwrap();
            expect(&pull, &[b"through lo"]);
        }
    }
}
