//! What the runner asks for, and what it is told.

use std::io::{BufRead, Write};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use monocoque::rt::{TcpListener, TcpStream, UnixListener, UnixStream};
use monocoque::zmq::SocketOptions;
use serde_json::{Value, json};

use crate::Result;

const SERVER_PUBLIC: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
const SERVER_SECRET: &str = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6";
const CLIENT_PUBLIC: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
const CLIENT_SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

#[derive(Clone)]
pub struct Task {
    pub endpoint: String,
    pub size: usize,
    pub count: usize,
    pub warmup: Duration,
    pub measure: Duration,
    pub longest: Duration,
    pub least: u64,
    pub rate: f64,
    pub stalled: bool,
    security: String,
}

/// A connection, as the endpoint says.
pub enum Stream {
    Tcp(TcpStream),
    Ipc(UnixStream),
}

impl Task {
    pub fn parse(args: &[String]) -> Result<Self> {
        let [_, endpoint, settings @ ..] = args else { return Err("an endpoint is missing".into()) };
        let mut task = Self {
            endpoint: endpoint.clone(),
            size: 64,
            count: 1,
            warmup: Duration::from_secs(1),
            measure: Duration::from_secs(5),
            longest: Duration::ZERO,
            least: 0,
            rate: 1.0,
            stalled: false,
            security: String::new(),
        };
        for setting in settings {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            let seconds = || -> Result<Duration> { Ok(Duration::try_from_secs_f64(value.parse()?)?) };
            match name {
                "size" => task.size = value.parse()?,
                "count" => task.count = value.parse()?,
                "warmup" => task.warmup = seconds()?,
                "measure" => task.measure = seconds()?,
                "longest" => task.longest = seconds()?,
                "least" => task.least = value.parse()?,
                "rate" => task.rate = value.parse()?,
                "stalled" => task.stalled = value == "1",
                "security" => task.security = value.to_owned(),
                _ => return Err(format!("there is no setting {setting}").into()),
            }
        }
        std::thread::spawn(|| {
            for _ in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {}
            // The runner is gone.
            std::process::exit(0);
        });
        Ok(task)
    }

    /// Buffers that hold a few messages, high-water marks as those of all peers.
    pub fn options(&self) -> SocketOptions {
        let buffer = (4 * self.size).clamp(16 << 10, 1 << 20);
        let options = SocketOptions::default()
            .with_buffer_sizes(buffer, buffer)
            .with_recv_hwm(1000)
            .with_send_hwm(1000);
        match self.security.as_str() {
            "curve-server" => {
                options.with_curve_server(true).with_curve_keypair(key(SERVER_PUBLIC), key(SERVER_SECRET))
            }
            "curve-client" => options
                .with_curve_keypair(key(CLIENT_PUBLIC), key(CLIENT_SECRET))
                .with_curve_serverkey(key(SERVER_PUBLIC)),
            _ => options,
        }
    }

    pub fn message(&self) -> Bytes {
        vec![b'x'; self.size].into()
    }

    /// Address of a tcp endpoint.
    pub fn address(&self) -> Result<String> {
        Ok(self.endpoint.strip_prefix("tcp://").ok_or("only tcp is measured")?.replace('*', "0"))
    }

    /// Listens, says so, and takes the first connection.
    pub async fn accept(&self) -> Result<Stream> {
        if let Some(path) = self.endpoint.strip_prefix("ipc://") {
            // Of the turn before.
            let _ = std::fs::remove_file(path);
            let listener = UnixListener::bind(path).await?;
            print(&json!({ "bound": self.endpoint }));
            return Ok(Stream::Ipc(listener.accept().await?.0));
        }
        let listener = TcpListener::bind(self.address()?).await?;
        print(&json!({ "bound": format!("tcp://{}", listener.local_addr()?) }));
        Ok(Stream::Tcp(listener.accept().await?.0))
    }

    pub async fn connect(&self) -> Result<Stream> {
        Ok(match self.endpoint.strip_prefix("ipc://") {
            Some(path) => Stream::Ipc(UnixStream::connect(path).await?),
            None => Stream::Tcp(TcpStream::connect(self.address()?).await?),
        })
    }
}

pub fn print(value: &Value) {
    // Without its runner a peer has nobody to tell.
    let _ = writeln!(std::io::stdout(), "{value}");
}

/// Prints the result and stays, so that the runner can look at this process.
pub fn finish(result: &Value) -> ! {
    print(result);
    loop {
        std::thread::park();
    }
}

/// Nanoseconds of the clock that all processes share.
pub fn clock() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(60_000_000_000, 3)?)
}

/// Pairs of nanoseconds and how often.
pub fn recorded(histogram: &Histogram<u64>) -> Value {
    histogram.iter_recorded().map(|step| json!([step.value_iterated_to(), step.count_at_value()])).collect()
}

/// A key of 40 letters of Z85.
fn key(text: &str) -> [u8; 32] {
    const LETTERS: &str =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let mut key = [0; 32];
    for (letters, bytes) in text.as_bytes().chunks(5).zip(key.chunks_mut(4)) {
        let digit = |letter: &u8| LETTERS.bytes().position(|one| one == *letter).unwrap_or(0) as u32;
        let number =
            letters.iter().fold(0_u32, |number, letter| number.wrapping_mul(85).wrapping_add(digit(letter)));
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    key
}
