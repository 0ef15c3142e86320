//! `tidegate mq bench-peer`: one end of a measurement, with default options.
//!
//! Takes the arguments and prints the lines of `benches/messaging/libzmq_peer.c`, so that the runner can put either
//! program at either end: `{"bound":ENDPOINT}` from an end that listens, and from the end that measures one object with
//! what it measured. An end that only serves runs until it is killed.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tidegate::mq::options::{CurveOptions, CurvePolicy, Mechanism};
use tidegate::mq::{
    AnySocket, Context, Error, Message, Options, PublicKey, SecretKey, SendError, SocketType,
};

use crate::output::Stop;

// The pairs of the C program.
const SERVER_PUBLIC: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
const SERVER_SECRET: &str = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6";
const CLIENT_SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

#[derive(Debug, Args)]
pub(crate) struct Peer {
    role: Role,
    how: How,
    endpoint: String,
    /// Bytes of a message
    size: usize,
    /// Seconds before measuring begins
    warmup: f64,
    /// Seconds of measuring
    measure: f64,
    security: Option<Security>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Push,
    Pull,
    Pub,
    Sub,
    Req,
    Rep,
    Dealer,
    Router,
    /// Both ends in this process: `bind` measures the rate one way, `connect` round trips
    Pair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    Bind,
    Connect,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Security {
    CurveServer,
    CurveClient,
}

impl Peer {
    pub(crate) fn run(self) -> Result<(), Stop> {
        let context = Context::new();
        if matches!(self.role, Role::Pair) {
            return self.pair(&context);
        }
        let socket = AnySocket::of_type_with(&context, self.kind(), self.options()?)?;
        if matches!(self.role, Role::Sub) {
            socket.subscribe("")?;
        }
        if self.how == How::Bind {
            print(&json!({ "bound": socket.bind_blocking(&self.endpoint)? }));
        } else {
            socket.connect(&self.endpoint)?;
        }
        match self.role {
            Role::Push | Role::Pub | Role::Dealer => Err(flood(&socket, self.size).into()),
            Role::Rep => Err(echo(&socket).into()),
            Role::Req => self.ping(&socket),
            _ => self.count(&socket),
        }
    }

    fn kind(&self) -> SocketType {
        match self.role {
            Role::Push => SocketType::Push,
            Role::Pull => SocketType::Pull,
            Role::Pub => SocketType::Pub,
            Role::Sub => SocketType::Sub,
            Role::Req => SocketType::Req,
            Role::Rep => SocketType::Rep,
            Role::Dealer => SocketType::Dealer,
            Role::Router => SocketType::Router,
            Role::Pair => SocketType::Pair,
        }
    }

    fn options(&self) -> Result<Options, Stop> {
        let secret = |key: &str| SecretKey::parse(key.as_bytes()).map_err(Stop::usage);
        let mut options = Options::default();
        options.linger = Some(Duration::ZERO);
        options.mechanism = match self.security {
            None => Mechanism::Null,
            Some(Security::CurveServer) => Mechanism::Curve(CurveOptions::Server {
                secret_key: secret(SERVER_SECRET)?,
                policy: CurvePolicy::AnyKey,
            }),
            Some(Security::CurveClient) => Mechanism::Curve(CurveOptions::Client {
                server_key: PublicKey::parse(SERVER_PUBLIC.as_bytes()).map_err(Stop::usage)?,
                secret_key: secret(CLIENT_SECRET)?,
            }),
        };
        Ok(options)
    }

    fn pair(&self, context: &Context) -> Result<(), Stop> {
        const NAME: &str = "inproc://bench";
        let near = AnySocket::of_type_with(context, SocketType::Pair, Options::default())?;
        near.bind_blocking(NAME)?;
        let far = AnySocket::of_type_with(context, SocketType::Pair, Options::default())?;
        far.connect(NAME)?;
        let (size, echoes) = (self.size, self.how == How::Connect);
        // Ends with the process.
        std::thread::spawn(move || if echoes { echo(&far) } else { flood(&far, size).error });
        if echoes { self.ping(&near) } else { self.count(&near) }
    }

    /// Counts messages for the time given, after a warm-up that begins with the first one.
    fn count(&self, socket: &AnySocket) -> Result<(), Stop> {
        /// Larger ones are slow enough to look at the clock for each.
        const LARGE: usize = 16 << 10;
        socket.recv_blocking()?;
        let begin = Instant::now() + Duration::from_secs_f64(self.warmup);
        let measure = Duration::from_secs_f64(self.measure);
        let mut first: Option<(Instant, Duration)> = None;
        let (mut messages, mut bytes) = (0_u64, 0_u64);
        for round in 0_u64.. {
            let length = socket.recv_blocking()?.byte_len();
            if round.is_multiple_of(64) || length > LARGE {
                let now = Instant::now();
                match first {
                    None if now >= begin => {
                        first = Some((now, cpu_time()));
                        (messages, bytes) = (0, 0);
                        continue;
                    }
                    Some((first, cpu)) if now - first >= measure => {
                        print(&json!({
                            "messages": messages,
                            "bytes": bytes,
                            "seconds": (now - first).as_secs_f64(),
                            "cpu_seconds": (cpu_time() - cpu).as_secs_f64(),
                        }));
                        break;
                    }
                    _ => {}
                }
            }
            messages += 1;
            bytes += length as u64;
        }
        Ok(())
    }

    /// Round trips, one at a time.
    fn ping(&self, socket: &AnySocket) -> Result<(), Stop> {
        let begin = Instant::now() + Duration::from_secs_f64(self.warmup);
        let end = begin + Duration::from_secs_f64(self.measure);
        let mut times: Vec<u64> = Vec::with_capacity(1 << 22);
        let mut cpu = None;
        loop {
            let sent = Instant::now();
            if cpu.is_none() && sent >= begin {
                cpu = Some(cpu_time());
                times.clear();
            }
            if times.len() == times.capacity() || cpu.is_some() && sent >= end {
                break;
            }
            socket.send_blocking(message(self.size))?;
            socket.recv_blocking()?;
            times.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        print(&json!({
            "trips": times.len(),
            "p50_ns": at(0.5),
            "p90_ns": at(0.9),
            "p99_ns": at(0.99),
            "p999_ns": at(0.999),
            "max_ns": at(1.0),
            "cpu_seconds": (cpu_time() - cpu.unwrap_or_default()).as_secs_f64(),
        }));
        Ok(())
    }
}

fn message(size: usize) -> Message {
    vec![b'x'; size].into()
}

/// Sends for ever.
fn flood(socket: &AnySocket, size: usize) -> SendError {
    loop {
        if let Err(error) = socket.send_blocking(message(size)) {
            return error;
        }
    }
}

/// Sends back for ever.
fn echo(socket: &AnySocket) -> Error {
    loop {
        let sent = match socket.recv_blocking() {
            Ok(message) => socket.send_blocking(message),
            Err(error) => return error,
        };
        if let Err(failed) = sent {
            return failed.error;
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

fn print(value: &Value) {
    // Without its runner an end has nobody to tell.
    let _ = writeln!(std::io::stdout(), "{value}");
}
