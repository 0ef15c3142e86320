//! `tidegate mq bench-peer`: one end of a measurement, with default options.
//!
//! The protocol is that of all peers, see [`crate::cli::bench::peer`]; besides, `crowd-pull` says `{"up":true}` when all
//! connections work.
//!
//! | file | roles |
//! |---|---|
//! | `rate` | `push` sends for ever, `pull` counts; `pair-rate` is both in one process |
//! | `trips` | `rep` echoes, `req` takes the time of each round trip; `pair-trips` is both in one process |
//! | `publish` | `pub` sends for ever, `subs` counts over `count` sockets, and with `stalled=1` one more that is never read |
//! | `topics` | `topic-pub` sends under 10 x `count` topics, `topic-sub` asks for each tenth of them |
//! | `routing` | `dealers` sends for ever with `count` sockets, `router` counts, also each |
//! | `paced` | `paced-push` sends `rate` messages a second, stamped with when they were due; `paced-pull` takes their age |
//! | `crowd` | `crowd-push` connects `count` times and sends one message a second over each; `crowd-pull` counts |

mod crowd;
mod many;
mod paced;
mod publish;
mod rate;
mod routing;
mod topics;
mod trips;

use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tidegate::mq::options::{CurveOptions, CurvePolicy, Mechanism};
use tidegate::mq::{AnySocket, Context, Message, Options, PublicKey, Pull, SecretKey, SocketType};

use crate::cli::bench::peer::{Times, finish, histogram, number, orders, print, recorded};
use crate::output::Stop;

// The pairs of all peers.
const SERVER_PUBLIC: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
const SERVER_SECRET: &str = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6";
const CLIENT_SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

#[derive(Debug, Args)]
pub(crate) struct Peer {
    role: String,
    #[arg(value_parser = ["bind", "connect"], default_value = "bind")]
    how: String,
    #[arg(default_value = "")]
    endpoint: String,
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

/// What the runner asked for.
struct Task {
    context: Context,
    binds: bool,
    endpoint: String,
    /// Bytes of a message.
    size: usize,
    times: Times,
    /// Sockets, connections or topics.
    count: usize,
    /// Messages a second.
    rate: f64,
    stalled: bool,
    security: Security,
    /// Lines of standard input.
    orders: Mutex<Receiver<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    None,
    CurveServer,
    CurveClient,
}

impl Peer {
    pub(crate) fn run(self) -> Result<(), Stop> {
        if self.role == "version" {
            return version();
        }
        let task = self.task()?;
        match self.role.as_str() {
            "push" => rate::push(&task),
            "pull" => rate::pull(&task),
            "pair-rate" => rate::pair(&task),
            "req" => trips::req(&task),
            "rep" => trips::rep(&task),
            "pair-trips" => trips::pair(&task),
            "pub" => publish::publisher(&task),
            "subs" => publish::subscribers(&task),
            "topic-pub" => topics::publisher(&task),
            "topic-sub" => topics::subscriber(&task),
            "router" => routing::router(&task),
            "dealers" => routing::dealers(&task),
            "paced-push" => paced::push(&task),
            "paced-pull" => paced::pull(&task),
            "crowd-push" => crowd::push(&task),
            "crowd-pull" => crowd::pull(&task),
            other => {
                print(&json!({ "cannot": format!("there is no role {other}") }));
                Ok(())
            }
        }
    }

    fn task(&self) -> Result<Task, Stop> {
        let mut task = Task {
            context: Context::new(),
            binds: self.how == "bind",
            endpoint: self.endpoint.clone(),
            size: 64,
            times: Times::default(),
            count: 1,
            rate: 1.0,
            stalled: false,
            security: Security::None,
            orders: Mutex::new(orders()),
        };
        for setting in &self.settings {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            match name {
                "size" => task.size = number(value)?,
                "count" => task.count = number(value)?,
                "rate" => task.rate = number(value)?,
                "stalled" => task.stalled = value == "1",
                "security" if value == "curve-server" => task.security = Security::CurveServer,
                "security" if value == "curve-client" => task.security = Security::CurveClient,
                _ if task.times.take(name, value)? => {}
                _ => return Err(Stop::usage(format!("{setting}: there is no such setting"))),
            }
        }
        Ok(task)
    }
}

impl Task {
    /// A socket that is bound or connected, as the task says.
    fn socket(&self, kind: SocketType) -> Result<AnySocket, Stop> {
        let socket = self.idle_socket(kind)?;
        if self.binds {
            print(&json!({ "bound": socket.bind_blocking(&self.endpoint)? }));
        } else {
            socket.connect(&self.endpoint)?;
        }
        Ok(socket)
    }

    /// A socket with the options of the task, and defaults for all else.
    fn idle_socket(&self, kind: SocketType) -> Result<AnySocket, Stop> {
        let secret = |key: &str| SecretKey::parse(key.as_bytes()).map_err(Stop::usage);
        let mut options = Options::default();
        options.linger = Some(std::time::Duration::ZERO);
        options.mechanism = match self.security {
            Security::None => Mechanism::Null,
            Security::CurveServer => Mechanism::Curve(CurveOptions::Server {
                secret_key: secret(SERVER_SECRET)?,
                policy: CurvePolicy::AnyKey,
            }),
            Security::CurveClient => Mechanism::Curve(CurveOptions::Client {
                server_key: PublicKey::parse(SERVER_PUBLIC.as_bytes()).map_err(Stop::usage)?,
                secret_key: secret(CLIENT_SECRET)?,
            }),
        };
        Ok(AnySocket::of_type_with(&self.context, kind, options)?)
    }

    /// Two sockets of this process that are connected.
    fn pair(&self) -> Result<[AnySocket; 2], Stop> {
        let near = self.idle_socket(SocketType::Pair)?;
        near.bind_blocking("inproc://bench")?;
        let far = self.idle_socket(SocketType::Pair)?;
        far.connect("inproc://bench")?;
        Ok([near, far])
    }

    /// A message with the number in its first 8 bytes, if it is that long.
    fn numbered(&self, number: u64) -> Message {
        let mut bytes = vec![b'x'; self.size.max(8)];
        if let Some(place) = bytes.first_chunk_mut() {
            *place = number.to_le_bytes();
        }
        bytes.into()
    }

    fn message(&self) -> Message {
        vec![b'x'; self.size].into()
    }

    /// Tells that it waits, and waits for the runner.
    fn await_order(&self) {
        print(&json!({ "ready": true }));
        // At the end of standard input the process ends.
        let _ = self.orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
    }
}

fn version() -> Result<(), Stop> {
    let context = Context::new();
    Pull::new(&context)?.bind_blocking("tcp://127.0.0.1:*")?;
    print(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "driver": context.driver().map(|driver| format!("{driver:?}")),
        "optimized": !cfg!(debug_assertions),
    }));
    Ok(())
}

/// The number in the first bytes of a message of [`Task::numbered`].
fn number_in(bytes: &[u8]) -> u64 {
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// Nanoseconds of the clock that all processes share.
fn clock() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + rest.unwrap_or(0)
}
