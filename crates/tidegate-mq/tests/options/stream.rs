//! Options of the operating system's sockets, and of how connections come about.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};
use tidegate_mq::{
    Context, ContextOptions, Dealer, DriverChoice, Error, Options, Pull, Push,
    auth::{Decision, Peer},
    monitor::{EventKind, Monitor},
    options::{Mechanism, PlainOptions},
};

use crate::{
    free_endpoint, numbered,
    rig::{ANYWHERE, established, event, options, options_with},
};

/// A descriptor of its own for the socket that the next connection uses.
fn connection(monitor: &Monitor) -> socket2::Socket {
    let fd = event(monitor, "connection", |kind| match kind {
        EventKind::Accepted(fd) | EventKind::Connected(fd) => Some(*fd),
        _ => None,
    });
    let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    socket2::Socket::from(pidfd_getfd(me, fd, PidfdGetfdFlags::empty()).unwrap())
}

/// The sockets of both ends of a connection: accepted with `binding`, connected with `connecting`.
fn both_ends(at: &str, binding: Options, connecting: Options) -> [socket2::Socket; 2] {
    let context = Context::new();
    let pull = Pull::with_options(&context, binding).unwrap();
    let accepting = pull.monitor();
    let endpoint = pull.bind_blocking(at).unwrap();
    let push = Push::with_options(&context, connecting).unwrap();
    let dialing = push.monitor();
    push.connect(&endpoint).unwrap();
    let ends = [connection(&accepting), connection(&dialing)];
    established(&dialing);
    ends
}

/// Rules: MQ-292, MQ-303, MQ-304, MQ-320, MQ-334, MQ-537.
#[test]
fn sockets_have_what_was_asked_for() {
    let asked = numbered(&[
        (11, 50_000),
        (12, 60_000),
        (34, 1),
        (35, 3),
        (36, 11),
        (37, 7),
        (57, 0x10),
        (80, 4321),
        (112, 3),
    ]);
    for end in both_ends(ANYWHERE, asked.clone(), asked.clone()) {
        // The system doubles what it is asked for, for its own needs.
        assert_eq!(end.send_buffer_size().unwrap(), 100_000);
        assert_eq!(end.recv_buffer_size().unwrap(), 120_000);
        assert!(end.keepalive().unwrap());
        assert_eq!(end.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(end.tcp_keepalive_time().unwrap(), Duration::from_secs(11));
        assert_eq!(end.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(end.tos_v4().unwrap(), 0x10);
        assert_eq!(end.tcp_user_timeout().unwrap(), Some(Duration::from_millis(4321)));
        assert_eq!(end.priority().unwrap(), 3);
    }
    for end in both_ends("ipc://*", asked.clone(), asked) {
        assert_eq!(end.send_buffer_size().unwrap(), 100_000);
    }
    // As much as the system allows, as for everybody who asks for it.
    let probe = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let unasked = probe.send_buffer_size().unwrap();
    probe.set_send_buffer_size(2 << 20).unwrap();
    let large = probe.send_buffer_size().unwrap();
    assert!(large > unasked, "the system allows no more than it gives unasked");
    for end in both_ends("ipc://*", options(), options()) {
        assert_eq!(end.send_buffer_size().unwrap(), large);
    }
    // With the defaults they are as the system makes them.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(plain.local_addr().unwrap()).unwrap();
    let usual = socket2::SockRef::from(&stream);
    let [_, dialed] = both_ends(ANYWHERE, options(), options());
    assert_eq!(dialed.send_buffer_size().unwrap(), usual.send_buffer_size().unwrap());
    assert_eq!(dialed.recv_buffer_size().unwrap(), usual.recv_buffer_size().unwrap());
    assert_eq!(dialed.keepalive().unwrap(), usual.keepalive().unwrap());
    assert_eq!((dialed.tos_v4().unwrap(), dialed.priority().unwrap()), (0, 0));
    assert_eq!(dialed.tcp_user_timeout().unwrap(), None);
}

/// The system would let megabytes wait on the loopback, behind the back of the processor's cache. Small parts and what was asked
/// for change nothing.
///
/// Rules: MQ-292.
#[test]
fn large_parts_over_the_loopback_have_a_send_buffer_of_their_own() {
    let context = Context::new();
    let pull = Pull::new(&context).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    for (asked, large) in [(options(), 512 * 1024), (numbered(&[(11, 50_000)]), 100_000)] {
        let push = Push::with_options(&context, asked).unwrap();
        let dialing = push.monitor();
        push.connect(&endpoint).unwrap();
        let dialed = connection(&dialing);
        let take = |bytes: usize| {
            push.send_blocking(vec![0; bytes]).unwrap();
            assert_eq!(pull.recv_blocking().unwrap().parts()[0].len(), bytes);
            dialed.send_buffer_size().unwrap()
        };
        let small: Vec<usize> = (0..20).map(|_| take(128 * 1024 - 1)).collect();
        assert!(!small.contains(&(512 * 1024)), "{small:?}");
        assert_eq!(take(128 * 1024), large);
    }
}

/// Polling the device needs a privilege: with it the socket polls, without it no connection is made that only pretends.
///
/// Rules: MQ-339, MQ-537.
#[test]
fn busy_polling_is_done_or_refused() {
    let probe = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let allowed = probe.set_busy_poll(57).is_ok();
    let polling = numbered(&[(113, 57)]);
    if allowed {
        for end in both_ends(ANYWHERE, polling.clone(), polling) {
            assert_eq!(end.busy_poll().unwrap(), 57);
        }
        return;
    }
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let push = Push::with_options(&context, polling).unwrap();
    let monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    let errno = event(&monitor, "failure", |kind| match kind {
        EventKind::ConnectFailed(errno) => Some(*errno),
        _ => None,
    });
    assert_eq!(errno, Errno::PERM.raw_os_error());
}

/// Rules: MQ-337.
#[test]
fn sockets_are_confined_to_a_device() {
    let confined = options_with(|options| options.set_raw(92, b"lo").unwrap());
    for end in both_ends(ANYWHERE, confined.clone(), confined) {
        assert_eq!(end.device().unwrap(), Some(b"lo".to_vec()));
    }
    let nowhere = options_with(|options| options.bindtodevice = "no-such-device".into());
    let context = Context::new();
    let push = Push::with_options(&context, nowhere).unwrap();
    assert!(push.bind_blocking(ANYWHERE).is_err());
    let monitor = push.monitor();
    push.connect("tcp://127.0.0.1:9").unwrap();
    let errno = event(&monitor, "failure", |kind| match kind {
        EventKind::ConnectFailed(errno) => Some(*errno),
        _ => None,
    });
    assert_eq!(errno, Errno::NODEV.raw_os_error());
}

/// As many connections wait to be accepted as were asked for, while the only worker is held up.
///
/// Rules: MQ-296.
#[test]
fn so_many_wait_to_be_accepted() {
    let waiting = |backlog: i32| {
        let mut how = ContextOptions::default();
        // Under io_uring the system may accept one without the worker.
        how.driver = DriverChoice::Polling;
        let context = Context::with_options(how);
        let (entered, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let hold = move |_: Peer| {
            entered.send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            Decision::Refuse
        };
        let mut server = numbered(&[(19, backlog)]);
        server.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator: Some(Arc::new(hold)) });
        let server = Pull::with_options(&context, server).unwrap();
        let endpoint = server.bind_blocking("ipc://*").unwrap();
        let others = Context::new();
        let client = Mechanism::Plain(PlainOptions::Client { username: "u".into(), password: "p".into() });
        let client = Push::with_options(&others, options_with(|options| options.mechanism = client)).unwrap();
        client.connect(&endpoint).unwrap();
        is_held.recv_timeout(Duration::from_secs(10)).unwrap();
        let address = SocketAddrUnix::new(endpoint.strip_prefix("ipc://").unwrap()).unwrap();
        let mut streams = Vec::new();
        loop {
            let stream =
                socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
            match connect(&stream, &address) {
                Ok(()) => streams.push(stream),
                Err(Errno::AGAIN) => break,
                Err(error) => panic!("{error}"),
            }
        }
        drop(release);
        streams.len()
    };
    // The system lets one more wait than it is told.
    assert_eq!(waiting(3), 4);
    assert_eq!(waiting(8), 9);
}

/// Rules: MQ-309, MQ-257.
#[test]
fn wildcards_take_both_families_if_asked_to() {
    let context = Context::new();
    let bound = |options: Options| {
        let pull = Pull::with_options(&context, options).unwrap();
        let endpoint = pull.bind_blocking("tcp://*:*").unwrap();
        let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let reached = |host: std::net::IpAddr| TcpStream::connect(SocketAddr::from((host, port))).is_ok();
        (endpoint, reached(Ipv4Addr::LOCALHOST.into()), reached(Ipv6Addr::LOCALHOST.into()))
    };
    let (endpoint, v4, v6) = bound(options());
    assert!(endpoint.starts_with("tcp://0.0.0.0:"), "{endpoint}");
    assert_eq!((v4, v6), (true, false));
    // The older option says the opposite.
    for number in [(42, 1), (31, 0)] {
        let (endpoint, v4, v6) = bound(numbered(&[number]));
        assert!(endpoint.starts_with("tcp://[::]:"), "{endpoint}");
        assert_eq!((v4, v6), (true, true));
    }
}

/// Rules: MQ-333, MQ-282.
#[test]
fn connecting_is_given_up_in_time() {
    // A listener that accepts nobody, and has enough waiting: what else comes gets no answer.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _waiting: Vec<_> = (0..2)
        .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
        .collect();
    let context = Context::new();
    let push = Push::with_options(&context, numbered(&[(79, 50)])).unwrap();
    let monitor = push.monitor();
    push.connect(&format!("tcp://{address}")).unwrap();
    let errno = event(&monitor, "end of the attempt", |kind| match kind {
        EventKind::ConnectFailed(errno) => Some(*errno),
        _ => None,
    });
    assert_eq!(errno, Errno::TIMEDOUT.raw_os_error());
}

/// Delays in front of the first attempts to connect again, where nobody listens.
fn delays(options: Options, count: usize) -> Vec<Duration> {
    let context = Context::new();
    let push = Push::with_options(&context, options).unwrap();
    let monitor = push.monitor();
    push.connect(&free_endpoint()).unwrap();
    let next = || {
        event(&monitor, "attempt or end", |kind| match kind {
            EventKind::ConnectRetried(delay) => Some(Some(*delay)),
            EventKind::Stopped => Some(None),
            _ => None,
        })
    };
    (0..count).map_while(|_| next()).collect()
}

/// Rules: MQ-295, MQ-297.
#[test]
fn attempts_are_repeated_at_the_interval_up_to_the_longest() {
    let ms = Duration::from_millis;
    let even = delays(numbered(&[(18, 10)]), 6);
    assert_eq!(even.len(), 6);
    assert!(even.iter().all(|delay| (ms(10)..ms(20)).contains(delay)), "{even:?}");
    let growing = delays(numbered(&[(18, 10), (21, 80)]), 7);
    assert_eq!(growing.len(), 7);
    for (delay, around) in growing.iter().zip([10, 20, 40, 80, 80, 80, 80]) {
        assert!((ms(around) * 3 / 4..=ms(around) * 5 / 4).contains(delay), "{growing:?}");
    }
    // A longest below the interval counts for nothing.
    assert!(delays(numbered(&[(18, 10), (21, 5)]), 3).iter().all(|delay| *delay >= ms(10)));
    for never in [0, -1] {
        assert!(delays(numbered(&[(18, never)]), 1).is_empty());
    }
}

/// What is set holds for later binds and connects, not for those that are there.
///
/// Rules: MQ-287, MQ-298.
#[test]
fn options_hold_from_the_next_bind_on() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    let before = pull.bind_blocking(ANYWHERE).unwrap();
    pull.set_raw(22, &10_i64.to_ne_bytes()).unwrap();
    let after = pull.bind_blocking(ANYWHERE).unwrap();
    let monitor = pull.monitor();
    let push = |endpoint: &str| {
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(endpoint).unwrap();
        push
    };
    let unlimited = push(&before);
    unlimited.send_blocking(vec![7; 11]).unwrap();
    assert_eq!(pull.recv_blocking().unwrap().byte_len(), 11);
    let limited = push(&after);
    limited.send_blocking(vec![7; 10]).unwrap();
    assert_eq!(pull.recv_blocking().unwrap().byte_len(), 10);
    limited.send_blocking(vec![7; 11]).unwrap();
    let reason = crate::rig::fault(&monitor);
    assert!(reason.to_string().contains("maxmsgsize"), "{reason}");
    assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
}

/// A silent peer is waited for as long as the option says, which 0 makes for ever.
///
/// Rules: MQ-324.
#[test]
fn handshakes_take_as_long_as_they_may() {
    let context = Context::new();
    let bound = |handshake: i32| {
        let dealer = Dealer::with_options(&context, numbered(&[(66, handshake)])).unwrap();
        let monitor = dealer.monitor();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        (dealer, monitor, endpoint)
    };
    let (impatient, patient) = (bound(100), bound(0));
    let mut waited_for = crate::peer::Raw::connect(&patient.2);
    let mut given_up = crate::peer::Raw::connect(&impatient.2);
    assert!(given_up.until_closed() >= Duration::from_millis(50));
    assert!(matches!(crate::rig::fault(&impatient.1), tidegate_mq::monitor::CloseReason::TimedOut(_)));
    thread::yield_now();
    waited_for.shake("DEALER", "");
    established(&patient.1);
}
