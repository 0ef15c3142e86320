//! Bytes that the client library still holds when the right to write is lost.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use tidegate_udf::wire::ids::{Generation, PartitionId, Position};
use tidegate_vertex::{
    fence::{FenceTable, Quiesce, Reason, WriteGuard, WriteKind},
    nats::{
        Endpoint, Nats,
        ids::{IdStream, Sent},
        kv::KvBucket,
        strict::{Names, StrictStream},
    },
    sink::Session,
};

use crate::server::{Server, messages, plain, strict};

/// Stands between a client and the server, and can be cut.
struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    ends: Vec<TcpStream>,
    /// Bytes that clients have sent.
    sent: usize,
}

impl Proxy {
    fn start(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, to) = (state.clone(), server.url().replace("nats://", ""));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let mut state = shared.lock().unwrap();
                if state.cut {
                    continue;
                }
                state.ends.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (back, forth) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counted = shared.clone();
                thread::spawn(move || copy(client, forth, |len| counted.lock().unwrap().sent += len));
                thread::spawn(move || copy(server, back, |_| {}));
            }
        });
        Self { port, state }
    }

    fn connect(&self) -> Nats {
        let endpoint = Endpoint::open(&format!("nats://127.0.0.1:{}", self.port));
        Nats::connect_with(&endpoint, "behind the proxy", Duration::from_millis(500)).unwrap()
    }

    /// Nothing goes through any more.
    fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut = true;
        for end in state.ends.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.state.lock().unwrap().cut = false;
    }

    fn sent(&self) -> usize {
        self.state.lock().unwrap().sent
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, count: impl Fn(usize)) {
    let mut bytes = [0; 4096];
    while let Ok(len) = from.read(&mut bytes) {
        if len == 0 || to.write_all(&bytes[..len]).is_err() {
            break;
        }
        count(len);
    }
}

/// The server cannot be reached while outputs are published, the right to write is lost meanwhile, and then the server can be
/// reached again: until the write is over it is pending, and after that not one byte of it leaves.
/// Cases: CT-61.
/// Rules: VX-725, VX-732.
#[test]
fn what_the_client_library_holds_is_pending_until_its_connection_is_gone() {
    let session = Session { partition: PartitionId(0), generation: Generation(1), nonce: 1 };
    let window = Duration::from_secs(1);
    for kind in ["ids", "strict", "put"] {
        let server = Server::start();
        server.create(strict("OUT"));
        server.create(plain("KV_latest", "$KV.latest.>"));
        let proxy = Proxy::start(&server);
        let nats = proxy.connect();
        let guard = FenceTable::create(1, 1).unwrap().bind(PartitionId(0), Generation(1)).unwrap().1;
        let (tell, begun) = mpsc::channel();
        let permit = move |guard: &WriteGuard| {
            let permit = guard.permit(WriteKind::Sink);
            tell.send(()).unwrap();
            permit
        };
        let publish: Box<dyn FnMut() + Send> = match kind {
            "ids" => {
                let mut stream = IdStream::open(nats, "OUT", "OUT.0.data", window).unwrap();
                let guard = guard.clone();
                Box::new(move || {
                    let sent = stream.publish(&session, &messages(0..20, 1), || permit(&guard)).unwrap();
                    assert!(matches!(sent, Sent::Unknown(0, _)), "{sent:?}");
                    thread::park();
                })
            }
            "strict" => {
                let (data, fence) = ("OUT.0.data".to_owned(), "OUT.0.fence".to_owned());
                let names = Names { stream: "OUT".to_owned(), data, fence, keep: window };
                let mut stream = StrictStream::open(nats, names, 0xaa, session).unwrap();
                stream.barrier(|| guard.permit(WriteKind::Sink)).unwrap();
                let guard = guard.clone();
                Box::new(move || {
                    stream.publish(Position(0), &messages(0..20, 1), || permit(&guard)).unwrap_err();
                    thread::park();
                })
            }
            _ => {
                let mut bucket = KvBucket::open(nats, "latest", false, window).unwrap();
                let guard = guard.clone();
                let mut outputs = messages(0..20, 1);
                for output in &mut outputs {
                    output.record.key = output.record.value.clone();
                }
                Box::new(move || {
                    let sent = bucket.publish(&session, 7, &outputs, || permit(&guard)).unwrap();
                    assert!(matches!(sent, Sent::Unknown(0, _)), "{sent:?}");
                    thread::park();
                })
            }
        };
        proxy.cut();
        // Left behind with its stream, as the sink's thread keeps it.
        thread::spawn(publish);
        begun.recv().unwrap();
        guard.revoke(Reason::Operator);
        let Quiesce::Pending(writes) = guard.quiesce(|| false) else { panic!("the write is not seen") };
        assert_eq!(writes.to_string(), "1 sink", "{kind}");
        while guard.quiesce(|| false) != Quiesce::Quiesced {
            thread::yield_now();
        }
        let (stored, sent) = (server.values("OUT").len() + server.content("KV_latest").len(), proxy.sent());
        proxy.mend();
        // Time for what must not happen: the library connects again after a moment and sends what it has.
        thread::sleep(Duration::from_secs(3));
        assert_eq!(proxy.sent(), sent, "{kind}: bytes after the end");
        assert_eq!(server.values("OUT").len() + server.content("KV_latest").len(), stored, "{kind}");
    }
}
