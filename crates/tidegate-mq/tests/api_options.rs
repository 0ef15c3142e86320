//! Every option by libzmq's number: defaults, ranges, what is refused; and options of the context.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests and what helps them")]

use std::{sync::Arc, time::Duration};

use tidegate_mq::{
    AnySocket, Context, ContextOptions, Error, Message, Options, Pub, Pull, Push, SocketType, Sub,
    options::{
        CurvePolicy, Heartbeat30Peers, IpFilter, Mechanism, ReqOnPeerLoss, RoutingId, SlowSubscriberPolicy,
    },
};

fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn number(options: &Options, option: i32) -> i32 {
    i32::from_ne_bytes(options.raw(option).unwrap().try_into().unwrap())
}

/// Default, values that are taken, values that are refused.
type Row = (i32, i32, &'static [i32], &'static [i32]);

const INTEGERS: &[Row] = &[
    (8, 100, &[1, 1000], &[-1]),
    (9, 10_000, &[1], &[-1]),
    (11, -1, &[-1, 0, 65_536], &[-2]),
    (12, -1, &[-1, 0, 65_536], &[-2]),
    (17, -1, &[-1, 0, 500], &[-2]),
    (18, 100, &[-1, 1, 500], &[-2]),
    (19, 100, &[0, 1, 5000], &[-1]),
    (21, 0, &[0, 500], &[-1]),
    (23, 1000, &[0, 1, i32::MAX], &[-1]),
    (24, 1000, &[0, 1, i32::MAX], &[-1]),
    (25, 1, &[1, 5], &[-1]),
    (27, -1, &[-1, 0, 500], &[-2]),
    (28, -1, &[-1, 0, 500], &[-2]),
    (31, 1, &[0, 1], &[-1, 2]),
    (33, 0, &[0, 1], &[-1]),
    (34, -1, &[-1, 0, 1], &[-2, 2]),
    (35, -1, &[-1, 5], &[-2]),
    (36, -1, &[-1, 5], &[-2]),
    (37, -1, &[-1, 5], &[-2]),
    (39, 0, &[0, 1], &[-1, 2]),
    (40, 0, &[0, 1], &[-1]),
    (42, 0, &[0, 1], &[-1, 2]),
    (51, 0, &[0, 1], &[-1]),
    (52, 0, &[0, 1], &[-1]),
    (53, 0, &[0, 1], &[-1]),
    (54, 0, &[0, 1], &[-1, 2]),
    (56, 0, &[0, 1], &[-1]),
    (57, 0, &[0, 255], &[-1]),
    (66, 30_000, &[0, 1, 5000], &[-1]),
    (69, 0, &[0, 1], &[-1]),
    (71, 0, &[0, 1], &[-1]),
    (74, 0, &[0, 1], &[-1]),
    (75, 0, &[0, 500], &[-1]),
    (77, -1, &[0, 500], &[-2]),
    (78, 0, &[0, 1], &[-1]),
    (79, 0, &[0, 500], &[-1]),
    (80, 0, &[0, 500], &[-1]),
    (84, 1500, &[1, 9000], &[-1]),
    (93, 0, &[0, 1], &[-1]),
    (94, 0, &[0, 1], &[-1]),
    (96, 1, &[0, 1], &[-1]),
    (97, 0, &[0, 1, 2, 3], &[-1, 4]),
    (98, 0, &[0, 1], &[-1]),
    (101, 65_536, &[1, 8192], &[0, -1]),
    (102, 65_536, &[1, 8192], &[0, -1]),
    (108, 0, &[0, 1], &[-1]),
    (109, 0, &[0, 1, 2, 3, 4, 7], &[-1, 8]),
    (112, 0, &[0, 6], &[-1]),
    (113, 0, &[0, 50], &[-1]),
    (115, 0, &[0, 1], &[-1, 2]),
];

/// Rules: MQ-287, MQ-291, MQ-292, MQ-295, MQ-296, MQ-297, MQ-299, MQ-300, MQ-302, MQ-303, MQ-304, MQ-306, MQ-307, MQ-309, MQ-315, MQ-316, MQ-317, MQ-319, MQ-320, MQ-324, MQ-325, MQ-326, MQ-329, MQ-330, MQ-332, MQ-333, MQ-334, MQ-338, MQ-339, MQ-341, MQ-342, MQ-343, MQ-344, MQ-346.
#[test]
fn integers() {
    for (option, default, taken, refused) in INTEGERS {
        let mut options = Options::default();
        assert_eq!(number(&options, *option), *default, "default of {option}");
        for value in *taken {
            options
                .set_raw(*option, &int(*value))
                .unwrap_or_else(|error| panic!("{option} = {value}: {error}"));
            assert_eq!(number(&options, *option), *value, "{option}");
        }
        let before = number(&options, *option);
        for value in *refused {
            let error = options.set_raw(*option, &int(*value)).unwrap_err();
            assert_eq!(error.errno(), 22, "{option} = {value}: {error}");
        }
        for wrong in [&[][..], &[0], &[0; 3], &[0; 5], &[0; 16]] {
            assert_eq!(options.set_raw(*option, wrong).unwrap_err().errno(), 22, "{option}: {wrong:?}");
        }
        assert_eq!(number(&options, *option), before, "{option}: a refused value changes nothing");
    }
}

/// Rules: MQ-223.
#[test]
fn verbose_and_verboser_exclude_each_other() {
    let mut options = Options::default();
    options.set_raw(40, &int(1)).unwrap();
    options.set_raw(78, &int(1)).unwrap();
    assert_eq!((number(&options, 40), number(&options, 78)), (0, 1));
    options.set_raw(40, &int(1)).unwrap();
    assert_eq!((number(&options, 40), number(&options, 78)), (1, 0));
    options.set_raw(78, &int(0)).unwrap();
    assert_eq!((number(&options, 40), number(&options, 78)), (0, 0));
}

/// Rules: MQ-288, MQ-289, MQ-298, MQ-318, MQ-322, MQ-327, MQ-331, MQ-337, MQ-340, MQ-345.
#[test]
fn bytes_texts_and_large_numbers() {
    let mut options = Options::default();
    options.set_raw(4, &5_u64.to_ne_bytes()).unwrap();
    assert_eq!(options.raw(4).unwrap(), 5_u64.to_ne_bytes());
    assert_eq!(options.raw(22).unwrap(), (-1_i64).to_ne_bytes());
    for (value, reads) in [(100_i64, 100_i64), (0, 0), (-7, -1)] {
        options.set_raw(22, &value.to_ne_bytes()).unwrap();
        assert_eq!(options.raw(22).unwrap(), reads.to_ne_bytes());
    }
    for option in [5, 61] {
        options.set_raw(option, b"id").unwrap();
        assert_eq!(options.raw(option).unwrap(), b"id");
        options.set_raw(option, &[7; 255]).unwrap();
        for wrong in [&[][..], &[0, 1], &[7; 256]] {
            assert_eq!(options.set_raw(option, wrong).unwrap_err().errno(), 22);
        }
        assert_eq!(options.raw(option).unwrap(), [7; 255]);
    }
    options.set_raw(55, &[b'd'; 255]).unwrap();
    assert_eq!(options.set_raw(55, &[b'd'; 256]).unwrap_err().errno(), 22);
    assert_eq!(options.raw(55).unwrap(), [b'd'; 255]);
    options.set_raw(92, b"eth0").unwrap();
    assert_eq!(options.set_raw(92, b"sixteen-letters!").unwrap_err().errno(), 22);
    for option in [72, 110, 111, 114] {
        assert!(options.raw(option).unwrap().is_empty());
        options.set_raw(option, b"\0hi").unwrap();
        assert_eq!(options.raw(option).unwrap(), b"\0hi");
    }
    for (value, reads) in [(0, 0), (99, 0), (199, 100), (6_553_599, 6_553_500)] {
        options.set_raw(76, &int(value)).unwrap();
        assert_eq!(number(&options, 76), reads);
    }
    for value in [-1, 6_553_600] {
        assert_eq!(options.set_raw(76, &int(value)).unwrap_err().errno(), 22);
    }
    options.set_raw(95, b"X-a:1").unwrap();
    options.set_raw(95, b"X-b:2:3").unwrap();
    assert_eq!(options.metadata, [("X-a".into(), "1".into()), ("X-b".into(), "2:3".into())]);
    for wrong in [&b"a:1"[..], b"X-a", b"X-:1", b"X-a:", b""] {
        assert_eq!(options.set_raw(95, wrong).unwrap_err().errno(), 22, "{wrong:?}");
    }
}

/// Rules: MQ-156, MQ-310, MQ-311, MQ-312, MQ-313, MQ-314, MQ-359.
#[test]
fn security_by_number() {
    let context = Context::new();
    let mechanism = |options: &Options| number(options, 43);
    let mut options = Options::default();
    assert_eq!(mechanism(&options), 0);
    options.set_raw(44, &int(1)).unwrap();
    assert_eq!((mechanism(&options), number(&options, 44)), (1, 1));
    options.set_raw(44, &int(0)).unwrap();
    assert_eq!(mechanism(&options), 0);
    options.set_raw(45, b"user").unwrap();
    options.set_raw(46, b"hunter2").unwrap();
    assert_eq!((options.raw(45).unwrap(), options.raw(46).unwrap()), (b"user".to_vec(), b"hunter2".to_vec()));
    assert_eq!(options.set_raw(46, &[b'x'; 256]).unwrap_err().errno(), 22);
    assert!(!format!("{options:?}").contains("hunter2"), "never shown (MQ-374)");
    // Not even by mistake without any security (MQ-312).
    for option in [45, 46] {
        assert_eq!(options.set_raw(option, b"").unwrap_err().errno(), 22);
        assert_eq!(mechanism(&options), 1);
    }
    options.set_raw(44, &int(0)).unwrap();
    assert_eq!(mechanism(&options), 0);
    options.set_raw(55, b"domain").unwrap();
    assert_eq!(options.set_raw(55, b"").unwrap_err().errno(), 22);
    assert_eq!(options.raw(55).unwrap(), b"domain");
    let secret = tidegate_mq::new_secret_key();
    for text in [&b"short"[..], &[b' '; 40], &[b'0'; 39], &[]] {
        for option in [48, 49, 50] {
            assert_eq!(options.set_raw(option, text).unwrap_err().errno(), 22, "{option} {text:?}");
        }
    }
    // Half a configuration is refused when the socket is made, bound or connected, not at the first message.
    let mut server = Options::default();
    server.set_raw(47, &int(1)).unwrap();
    assert!(matches!(Push::with_options(&context, server.clone()), Err(Error::InvalidOption { .. })));
    server.set_raw(49, secret.expose()).unwrap();
    assert_eq!((mechanism(&server), number(&server, 47)), (2, 1));
    assert_eq!(server.raw(48).unwrap(), secret.public_key().as_bytes());
    assert!(Push::with_options(&context, server).is_ok());
    let mut client = Options::default();
    let text = [secret.public_key().to_z85().as_bytes(), b"\0"].concat();
    client.set_raw(50, &text).unwrap();
    assert!(matches!(Push::with_options(&context, client.clone()), Err(Error::InvalidOption { .. })));
    client.set_raw(49, secret.expose_z85().as_bytes()).unwrap();
    assert_eq!((mechanism(&client), number(&client, 47)), (2, 0));
    assert_eq!(client.raw(50).unwrap(), secret.public_key().as_bytes());
    assert!(matches!(client.mechanism, Mechanism::Curve(_)));
    assert!(!format!("{client:?}").contains(&*secret.expose_z85()));
}

/// Rules: MQ-003, MQ-308, MQ-323, MQ-336.
#[test]
fn what_is_not_supported_says_so() {
    let mut options = Options::default();
    let unsupported =
        [41, 62, 63, 64, 65, 68, 73, 85, 86, 87, 88, 89, 90, 91, 99, 100, 103, 106, 107, 117, 9999];
    for option in unsupported {
        for value in [int(1), Vec::new()] {
            let error = options.set_raw(option, &value).unwrap_err();
            assert!(matches!(error, Error::NotSupported(_)), "{option}: {error}");
        }
    }
    let context = Context::new();
    for scheme in ["pgm", "epgm", "norm", "udp", "tipc", "vmci", "vsock", "ws", "wss"] {
        let endpoint = format!("{scheme}://127.0.0.1:1");
        let socket = Push::new(&context).unwrap();
        for error in [socket.connect(&endpoint).unwrap_err(), socket.bind_blocking(&endpoint).unwrap_err()] {
            assert!(matches!(error, Error::ProtocolNotSupported { .. }), "{error}");
            assert_eq!(error.errno(), 93);
        }
    }
}

/// Rules: MQ-294, MQ-352.
#[test]
fn defaults_that_depend_on_type_and_context() {
    let context = Context::new();
    let linger = |context: &Context, kind| {
        i32::from_ne_bytes(AnySocket::of_type(context, kind).unwrap().raw(17).unwrap().try_into().unwrap())
    };
    assert_eq!(linger(&context, SocketType::Push), -1);
    assert_eq!((linger(&context, SocketType::Sub), linger(&context, SocketType::XSub)), (0, 0));
    let mut options = ContextOptions::default();
    options.set_raw(70, &int(0)).unwrap();
    options.set_raw(42, &int(1)).unwrap();
    let context = Context::with_options(options);
    assert_eq!(linger(&context, SocketType::Push), 0);
    assert!(Push::new(&context).unwrap().options().ipv6);
}

/// Rules: MQ-348, MQ-349, MQ-350, MQ-351, MQ-537.
#[test]
fn context_options_by_number() {
    let mut options = ContextOptions::default();
    let read = |options: &ContextOptions, number| {
        i32::from_ne_bytes(options.raw(number).unwrap().try_into().unwrap())
    };
    for (number, default, set) in
        [(1, 1, 2), (2, i32::MAX, 3), (5, i32::MAX, 1000), (10, 1, 0), (42, 0, 1), (70, 1, 0)]
    {
        assert_eq!(read(&options, number), default, "{number}");
        options.set_raw(number, &int(set)).unwrap();
        assert_eq!(read(&options, number), set, "{number}");
    }
    for (number, value) in [(1, -1), (2, 0), (5, 0), (10, 2), (42, -1), (70, 2)] {
        assert_eq!(options.set_raw(number, &int(value)).unwrap_err().errno(), 22, "{number}");
    }
    // There is no safe way to set priority and policy of threads.
    for number in [3, 4] {
        assert!(matches!(options.set_raw(number, &int(1)), Err(Error::NotSupported(_))), "{number}");
    }
    assert!(read(&options, 3) > 0, "the limit of sockets");
    options.set_raw(9, b"mine").unwrap();
    assert_eq!(options.raw(9).unwrap(), b"mine");

    let context = Context::with_options(options);
    let sockets: Vec<_> = (0..3).map(|_| Push::new(&context).unwrap()).collect();
    let error = Push::new(&context).unwrap_err();
    assert!(matches!(error, Error::TooManySockets { limit: 3 }));
    assert_eq!(error.errno(), 24);
    let failed = sockets[0].try_send(vec![0; 1001]).unwrap_err();
    assert!(matches!(failed.error, Error::MessageTooLarge { size: 1001, limit: 1000 }), "{failed}");
    assert_eq!((failed.error.errno(), failed.message.byte_len()), (90, 1001));
    drop(sockets);
    Push::new(&context).unwrap();

    let mut options = ContextOptions::default();
    options.io_threads = 0;
    let context = Context::with_options(options);
    let push = Push::new(&context).unwrap();
    let error = push.connect("tcp://127.0.0.1:1").unwrap_err();
    assert!(matches!(error, Error::NoIoThread(_)));
    assert_eq!(error.errno(), 156_384_766);
    let pull = Pull::new(&context).unwrap();
    pull.bind_blocking("inproc://x").unwrap();
    push.connect("inproc://x").unwrap();
    push.send_blocking("works without").unwrap();
    pull.recv_blocking().unwrap();
}

/// Rules: MQ-358.
#[test]
fn presets_are_combinations_of_options() {
    let context = Context::new();
    for options in [Options::new(), Options::low_latency(), Options::throughput(), Options::hardened()] {
        assert!(Push::with_options(&context, options).is_ok());
    }
    assert_eq!(Options::hardened().handshake_ivl, Some(Duration::from_secs(5)));
    assert!(Options::throughput().sndhwm > Options::default().sndhwm);
    assert!(Options::low_latency().out_batch_size < Options::default().out_batch_size);
}

/// Rules: MQ-353, MQ-354, MQ-355, MQ-356, MQ-357.
#[test]
fn defaults_of_what_libzmq_does_not_have() {
    let options = Options::default();
    assert_eq!((options.sndhwm_bytes, options.rcvhwm_bytes), (64 << 20, 64 << 20));
    assert_eq!((options.hard_frame_limit, options.max_message_bytes), (i32::MAX as u64, i32::MAX as u64));
    assert_eq!((options.max_message_parts, options.max_handshake_command), (65_536, 65_536));
    assert_eq!((options.max_topic_bytes, options.max_subscriptions), (65_536, 1_000_000));
    assert_eq!(options.max_subscription_bytes, 256 << 20);
    assert_eq!((options.vectored_threshold, options.inline_copy_threshold), (16_384, 256));
    assert_eq!(options.req_on_peer_loss, ReqOnPeerLoss::Wait);
    assert_eq!(options.pub_slow_policy, SlowSubscriberPolicy::Drop);
    assert_eq!(options.heartbeat_30_peers, Heartbeat30Peers::Learned);
    let off = [
        options.requeue_on_loss,
        options.ipc_takeover,
        options.strict_identity,
        options.allow_missing_socket_type,
    ];
    assert_eq!(off, [false; 4]);
    assert!(matches!(CurvePolicy::default(), CurvePolicy::Zap));
    assert!(matches!(options.mechanism, Mechanism::Null));
}

/// Where a listener is bound, its filters by number, and whether it lets us in.
type Case = (&'static str, Vec<(i32, Vec<u8>)>, bool);

/// Rules: MQ-305, MQ-321, MQ-267.
///
/// libzmq: test_filter_ipc.
#[test]
fn filters() {
    let contains = |network: &str, address: &str| {
        network.parse::<IpFilter>().unwrap().contains(address.parse().unwrap())
    };
    assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
    assert!(contains("127.0.0.0/8", "127.9.9.9") && !contains("127.0.0.0/8", "128.0.0.1"));
    assert!(contains("10.0.0.0/31", "10.0.0.1") && !contains("10.0.0.0/31", "10.0.0.2"));
    assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
    assert!(
        contains("::/0", "2001::1") && contains("2001::/16", "2001:1::1") && !contains("2001::/16", "2002::")
    );
    assert!(contains("127.0.0.1", "::ffff:127.0.0.1"));
    let mut options = Options::default();
    for wrong in ["x", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/+1", "::1/129", "1.2.3/8"] {
        assert_eq!(options.set_raw(38, wrong.as_bytes()).unwrap_err().errno(), 22, "{wrong}");
    }
    options.set_raw(38, b"10.0.0.0/8").unwrap();
    options.set_raw(38, b"127.0.0.1").unwrap();
    assert_eq!(options.tcp_accept_filter.len(), 2);
    let user = rustix::process::getuid().as_raw();
    let process = std::process::id();
    let context = Context::new();
    let cases: [Case; 7] = [
        ("tcp://127.0.0.1:*", vec![(38, b"10.0.0.0/8".to_vec())], false),
        ("tcp://127.0.0.1:*", vec![(38, b"10.0.0.0/8".to_vec()), (38, b"127.0.0.0/8".to_vec())], true),
        ("tcp://127.0.0.1:*", vec![(38, b"10.0.0.0/8".to_vec()), (38, Vec::new())], true),
        ("ipc://*", vec![(59, int((user + 1) as i32))], false),
        ("ipc://*", vec![(59, int(user as i32))], true),
        ("ipc://*", vec![(59, int((user + 1) as i32)), (58, int(process as i32))], true),
        ("ipc://*", vec![(60, int(i32::MAX))], false),
    ];
    for (endpoint, filters, admitted) in cases {
        let mut options = Options::default();
        for (option, value) in &filters {
            options.set_raw(*option, value).unwrap();
        }
        let pull = Pull::with_options(&context, options).unwrap();
        let monitor = pull.monitor();
        let bound = pull.bind_blocking(endpoint).unwrap();
        let push = Push::new(&context).unwrap();
        push.connect(&bound).unwrap();
        loop {
            use tidegate_mq::monitor::EventKind;
            match monitor.next_blocking(Some(Duration::from_secs(10))).unwrap().unwrap().kind {
                EventKind::HandshakeSucceeded { .. } => break assert!(admitted, "{endpoint} {filters:?}"),
                EventKind::AcceptFailed(_) => break assert!(!admitted, "{endpoint} {filters:?}"),
                _ => {}
            }
        }
        push.disconnect(&bound).unwrap();
    }
}

/// Rules: MQ-336.
///
/// libzmq: test_use_fd.
#[test]
fn a_listening_socket_is_adopted() {
    let context = Context::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut options = Options::default();
    options.use_fd = Some(Arc::new(listener.into()));
    options.rcvtimeo = Some(Duration::from_secs(10));
    let pull = Pull::with_options(&context, options).unwrap();
    assert_eq!(pull.bind_blocking("tcp://127.0.0.1:*").unwrap(), format!("tcp://{address}"));
    assert!(pull.options().use_fd.is_none(), "for one bind");
    assert_ne!(pull.bind_blocking("tcp://127.0.0.1:*").unwrap(), format!("tcp://{address}"));
    let push = Push::new(&context).unwrap();
    push.connect(&format!("tcp://{address}")).unwrap();
    push.send_blocking("x").unwrap();
    pull.recv_blocking().unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut options = Options::default();
    options.use_fd = Some(Arc::new(listener.into()));
    let pull = Pull::with_options(&context, options).unwrap();
    let bound = pull.bind_blocking(&format!("ipc://{}", path.display())).unwrap();
    pull.unbind(&bound).unwrap();
    context.term_blocking();
    assert!(path.exists(), "the file is its owner's");
}

/// Rules: MQ-256, MQ-274, MQ-276.
#[test]
fn resolved_endpoints_are_keys() {
    let context = Context::new();
    let publisher = Pub::new(&context).unwrap();
    let bound = publisher.bind_blocking("tcp://127.0.0.1:*").unwrap();
    assert_eq!(publisher.last_endpoint(), bound);
    let error = publisher.unbind("tcp://127.0.0.1:*").unwrap_err();
    assert!(matches!(error, Error::NotFound(_)));
    assert_eq!(error.errno(), 2);
    let sub = Sub::new(&context).unwrap();
    sub.connect(&bound).unwrap();
    sub.connect(&bound).unwrap();
    sub.disconnect(&bound).unwrap();
    assert!(matches!(sub.disconnect(&bound), Err(Error::NotFound(_))), "connected once");
    let push = Push::new(&context).unwrap();
    push.connect("inproc://twice").unwrap();
    push.try_send(Message::from("queued")).unwrap();
    push.disconnect("inproc://twice").unwrap();
    assert!(matches!(push.try_send("x").unwrap_err().error, Error::WouldBlock), "mute without peers");
    push.connect("inproc://twice").unwrap();
    push.try_send("x").unwrap();
    publisher.unbind(&bound).unwrap();
    publisher.bind_blocking(&bound).unwrap();
}

/// Rules: MQ-287, MQ-124.
#[test]
fn a_refused_change_changes_nothing() {
    let context = Context::new();
    let socket = Push::new(&context).unwrap();
    let before = socket.options().sndhwm;
    let result = socket.set_options(|options| {
        options.sndhwm = 5;
        options.zap_domain = "x".repeat(256);
        Ok(())
    });
    assert!(matches!(result, Err(Error::InvalidOption { .. })));
    assert_eq!(socket.options().sndhwm, before);
    assert!(RoutingId::new(vec![0, 1]).is_err());
    assert_eq!(socket.set_raw(97, &int(1)).unwrap_err().errno(), 22, "only a ROUTER (MQ-211)");
}
