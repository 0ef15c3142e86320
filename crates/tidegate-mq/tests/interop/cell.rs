//! One cell of the interoperability matrix: two socket types, a transport, a mechanism.
//!
//! A cell is run with each release of libzmq, under each driver, with each side binding, and with a mechanism that has
//! roles with each side as server. Each run is: handshake, [`LONG`] messages, the peer closes right behind the last of
//! them, starts again in a new context on the same endpoint, [`SHORT`] messages, ours closes right behind the last.

use std::{thread, time::Duration};

use tidegate_io::sync::{AtomicU32, Ordering};
use tidegate_mq::{Driver, Options, Part, SocketType, monitor::Monitor};

use crate::{
    ours::{self, Ours, wait_down, wait_up},
    peer::{Peer, event, words},
    security::{Mechanism, Role},
    series,
};

const LONG: usize = 1000;
const SHORT: usize = 50;
/// Messages that an asking side is ahead, where the pattern allows it.
const WINDOW: usize = 50;
/// Names of ROUTERs that talk to each other.
const BINDING: &str = "binding";
const CONNECTING: &str = "connecting";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    IpcPath,
    IpcAbstract,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) ours: SocketType,
    pub(crate) theirs: SocketType,
    pub(crate) transport: Transport,
    pub(crate) mechanism: Mechanism,
}

/// Who starts, and whether there are answers.
#[derive(Clone, Copy, Debug)]
enum Flow {
    OneWayOut,
    OneWayIn,
    WeAsk,
    TheyAsk,
}

impl Cell {
    /// Runs the cell with each of the releases.
    pub(crate) fn run(self, versions: &[&'static str]) {
        thread::scope(|scope| {
            for version in versions {
                scope.spawn(move || {
                    let mut peer = Peer::start(version);
                    for driver in [Driver::IoUring, Driver::Polling] {
                        for we_bind in [true, false] {
                            for &server in self.mechanism.servers(self.theirs) {
                                let label = format!(
                                    "libzmq {version}, {driver:?}, we bind: {we_bind}, server: {server:?}"
                                );
                                // Shown when the test fails.
                                eprintln!("{self:?}: {label}");
                                Run::new(self, &mut peer, driver, we_bind, server).whole();
                            }
                        }
                    }
                });
            }
        });
    }

    /// What the two sides do, first and after the restart.
    fn flows(self) -> [Flow; 2] {
        use SocketType::{Dealer, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub};
        match (self.ours, self.theirs) {
            (Push | Pub | XPub, _) => [Flow::OneWayOut; 2],
            (Pull | Sub | XSub, _) => [Flow::OneWayIn; 2],
            (Req, _) | (Dealer, Rep | Router) => [Flow::WeAsk; 2],
            (Rep, _) | (Router, Req | Dealer) => [Flow::TheyAsk; 2],
            _ => [Flow::WeAsk, Flow::TheyAsk],
        }
    }

    fn pubsub(self) -> bool {
        matches!(self.ours, SocketType::Pub | SocketType::XPub | SocketType::Sub | SocketType::XSub)
    }
}

/// Parts ahead of a request: as sent, how many ahead of the answer, how many as the answering side gets it.
struct Envelope {
    prefix: Vec<Part>,
    asker: usize,
    answerer: usize,
}

fn envelope(asker: SocketType, answerer: SocketType, name_of_answerer: &'static str) -> Envelope {
    use SocketType::{Dealer, Rep, Req, Router};
    let (prefix, asker_strip) = match (asker, answerer) {
        (Dealer, Rep) => (vec![Part::EMPTY], 1),
        // The part behind the name tells messages of the series from probes.
        (Router, _) => (vec![name_of_answerer.into(), "series".into()], 2),
        _ => (vec![], 0),
    };
    let answerer_strip = match (asker, answerer) {
        (Req | Router, Router) => 2,
        (_, Router) => 1,
        _ => 0,
    };
    Envelope { prefix, asker: asker_strip, answerer: answerer_strip }
}

struct Run<'a> {
    cell: Cell,
    peer: &'a mut Peer,
    driver: Driver,
    we_bind: bool,
    server: Role,
    /// A place of this run's own, with a wildcard where the transport has one.
    endpoint: String,
    /// Holds the sockets of ipc paths.
    _directory: Option<tempfile::TempDir>,
}

impl<'a> Run<'a> {
    fn new(cell: Cell, peer: &'a mut Peer, driver: Driver, we_bind: bool, server: Role) -> Self {
        let (endpoint, directory) = place(cell.transport);
        Self { cell, peer, driver, we_bind, server, endpoint, _directory: directory }
    }

    fn whole(mut self) {
        let context = ours::context(self.driver);
        let ours = ours::open(&context, self.cell.ours, self.our_options());
        let monitor = ours.watch();
        if matches!(self.cell.ours, SocketType::Sub | SocketType::XSub) {
            ours.subscribe_to(b"A").unwrap();
        }
        if self.we_bind {
            self.endpoint = ours.listen(&self.endpoint).unwrap();
        }
        self.open_theirs();
        if !self.we_bind {
            ours.dial(&self.endpoint).unwrap();
        }
        assert_eq!(context.driver(), Some(self.driver));
        let [first, second] = self.cell.flows();

        self.up(&*ours, &monitor);
        self.probes(&*ours);
        self.traffic(&*ours, first, LONG, true);
        wait_down(&monitor);
        if self.cell.ours == SocketType::XPub {
            assert_eq!(ours.take().unwrap().parts(), ["\0A"], "the subscription ends with its peer");
        }

        self.open_theirs();
        self.up(&*ours, &monitor);
        self.traffic(&*ours, second, SHORT, false);
        let discarded = ours.finish(Duration::from_secs(10));
        assert_eq!(discarded, 0, "messages discarded by an orderly close");
        if !matches!(second, Flow::OneWayIn) {
            self.peer.answer();
        }
        self.peer.wait("s", event::DISCONNECTED);
        self.peer.ask("term c");
        context.term_blocking();
    }

    fn our_options(&self) -> Options {
        let mut options = ours::options();
        (options.sndhwm, options.rcvhwm, options.sndhwm_bytes, options.rcvhwm_bytes) = (0, 0, 0, 0);
        options.mechanism = self.cell.mechanism.ours(self.server);
        if (self.cell.ours, self.cell.theirs) == (SocketType::Router, SocketType::Router) {
            let (own, other) = self.names();
            options.set_raw(5, own.as_bytes()).unwrap();
            options.router_mandatory = true;
            if !self.we_bind {
                options.set_raw(61, other.as_bytes()).unwrap();
                options.probe_router = true;
            }
        }
        options
    }

    /// Our name and theirs, where both sides are ROUTERs.
    fn names(&self) -> (&'static str, &'static str) {
        if self.we_bind { (BINDING, CONNECTING) } else { (CONNECTING, BINDING) }
    }

    fn open_theirs(&mut self) {
        let theirs = self.cell.theirs;
        let mut options = String::from("sndhwm=0 rcvhwm=0 reconnect_ivl=10 ");
        // With an authenticator a REQ would close at the first reply (MQ-538).
        let authenticator = self.server == Role::Theirs && theirs != SocketType::Req;
        if authenticator {
            self.peer.ask(format!("zap c 200 {}", self.cell.mechanism.credentials()));
        }
        options += &self.cell.mechanism.theirs(self.server);
        match theirs {
            SocketType::Sub => options += " subscribe=41",
            SocketType::Router if self.cell.ours == SocketType::Router => {
                let (ours, own) = self.names();
                options += &format!(" router_mandatory=1 routing_id={}", words([own]));
                if self.we_bind {
                    options += &format!(" probe_router=1 connect_routing_id={}", words([ours]));
                }
            }
            _ => {}
        }
        self.peer.ask(format!("open s c {} {options}", theirs.name()));
        if theirs == SocketType::XSub {
            self.peer.ask("send s 0141");
        }
        if self.we_bind {
            self.peer.ask(format!("connect s {}", self.endpoint));
        } else {
            self.endpoint = self.peer.ask(format!("bind s {}", self.endpoint));
        }
    }

    /// Both sides report the handshake, and a publisher knows its subscriber.
    fn up(&mut self, ours: &dyn Ours, monitor: &Monitor) {
        wait_up(monitor);
        self.peer.wait_up("s");
        match (self.cell.ours, self.cell.theirs) {
            (SocketType::Pub, _) => ours.await_subscriber(b"A").unwrap(),
            (SocketType::XPub, _) => assert_eq!(ours.take().unwrap().parts(), ["\x01A"]),
            (_, SocketType::XPub) => assert_eq!(self.peer.ask("recv s"), "0141"),
            (_, SocketType::Pub) => {
                // It does not tell, so it sends until something arrives. Later copies are passed over.
                let attempts = 1000;
                let heard = (0..attempts).any(|_| {
                    self.peer.ask(format!("send s {}", words(["A?"])));
                    ours.take_within(Duration::from_millis(20)).is_some()
                });
                assert!(heard, "the subscription does not arrive");
            }
            _ => {}
        }
    }

    /// A connecting ROUTER that is told to shows itself by an empty message.
    fn probes(&mut self, ours: &dyn Ours) {
        if (self.cell.ours, self.cell.theirs) != (SocketType::Router, SocketType::Router) {
            return;
        }
        if self.we_bind {
            assert_eq!(ours.take().unwrap().parts(), [CONNECTING, ""]);
        } else {
            assert_eq!(self.peer.ask("recv s"), words([CONNECTING, ""]));
        }
    }

    /// `count` messages, at the end of which the peer closes if `close` is set; its last answer is left to be read
    /// otherwise, unless only it sends.
    fn traffic(&mut self, ours: &dyn Ours, flow: Flow, count: usize, close: bool) {
        let (own, other) = self.names();
        let topics: Vec<Part> = if self.cell.pubsub() { vec!["A".into()] } else { vec![] };
        let strip = topics.len();
        let asked = match flow {
            Flow::OneWayOut => format!("series_recv s {count} {strip}"),
            Flow::OneWayIn => format!("series_send s {count} {}", words(&topics)),
            Flow::WeAsk => {
                let envelope = envelope(self.cell.ours, self.cell.theirs, other);
                format!("echo s {count} {}", envelope.answerer)
            }
            Flow::TheyAsk => {
                let envelope = envelope(self.cell.theirs, self.cell.ours, own);
                let window = window(self.cell.theirs);
                format!("ping s {count} {window} {} {}", envelope.asker, words(&envelope.prefix))
            }
        };
        self.peer.tell(asked);
        if close {
            self.peer.tell("term c");
        }
        match flow {
            Flow::OneWayOut => series::send(ours, count, &topics, self.cell.pubsub().then_some("B")),
            Flow::OneWayIn => series::receive(ours, count, strip),
            Flow::WeAsk => {
                let envelope = envelope(self.cell.ours, self.cell.theirs, other);
                series::ping(ours, count, window(self.cell.ours), envelope.asker, &envelope.prefix);
            }
            Flow::TheyAsk => {
                series::echo(ours, count, envelope(self.cell.theirs, self.cell.ours, own).answerer)
            }
        }
        if close {
            self.peer.answer();
            self.peer.answer();
        } else if matches!(flow, Flow::OneWayIn) {
            self.peer.answer();
        }
    }
}

fn window(asker: SocketType) -> usize {
    if asker == SocketType::Req { 1 } else { WINDOW }
}

/// An endpoint that no other run uses, also none of another process.
pub(crate) fn place(transport: Transport) -> (String, Option<tempfile::TempDir>) {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let (count, process) = (COUNT.fetch_add(1, Ordering::Relaxed), std::process::id());
    match transport {
        // A loopback address of its own, so that its port is still free after the restart.
        Transport::Tcp => {
            let [_, _, high, low] = process.to_be_bytes();
            (format!("tcp://127.{high}.{low}.{}:*", 1 + count % 254), None)
        }
        Transport::IpcPath => {
            let directory = tempfile::tempdir().unwrap();
            (format!("ipc://{}/s", directory.path().display()), Some(directory))
        }
        Transport::IpcAbstract => (format!("ipc://@tidegate-interop-{process}-{count}"), None),
    }
}
