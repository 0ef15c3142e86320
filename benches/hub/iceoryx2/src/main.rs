//! One end of a measurement of `tidegate hub bench`, by iceoryx2's publish-subscribe.
//!
//! ```text
//! iceoryx2-peer version
//! iceoryx2-peer trips|echo|source|sink bind|connect DIRECTORY [NAME=VALUE]...
//! ```
//!
//! The protocol is described at the head of `crates/tidegate/src/cli/bench/peer.rs`, the roles at that of
//! `crates/tidegate/src/cli/hub/bench/peer/mod.rs`. A record is loaned, its first 64 bytes are written and it is sent; the
//! receiver copies as many out of it, as the other programs do. There are no batch calls.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    hint::spin_loop,
    process, thread,
    time::{Duration, Instant},
};

use iceoryx2::{
    port::{publisher::Publisher, subscriber::Subscriber},
    prelude::*,
    service::port_factory::publish_subscribe::PortFactory as Records,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Service = ipc::Service;

/// Bytes that are touched in a record.
const TOUCHED: usize = 64;
/// Messages after which the clock is looked at.
const GLANCE: u64 = 64;
/// Larger messages are slow enough to look at the clock for each.
const LARGE: usize = 16 << 10;

struct Task {
    size: usize,
    warmup: Duration,
    measure: Duration,
    least: u64,
    longest: Duration,
    name: String,
}

fn main() -> Result<()> {
    set_log_level(LogLevel::Error);
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["version"] => {
            println!("{{\"version\":\"0.10\",\"optimized\":{}}}", !cfg!(debug_assertions));
            Ok(())
        }
        [role @ ("trips" | "echo" | "source" | "sink"), how, endpoint, settings @ ..] => {
            end_with_runner();
            play(role, *how == "bind", &Task::parse(*how == "bind", endpoint, settings)?)
        }
        [role, ..] => {
            println!("{{\"cannot\":\"it has no role {role}\"}}");
            Ok(())
        }
        [] => Err("usage: iceoryx2-peer ROLE bind|connect DIRECTORY [NAME=VALUE]...".into()),
    }
}

impl Task {
    fn parse(binds: bool, endpoint: &str, settings: &[&str]) -> Result<Self> {
        let place = endpoint.rsplit('/').next().unwrap_or(endpoint);
        let name = if binds { format!("{place}-{}", process::id()) } else { place.to_owned() };
        let mut task = Self {
            size: TOUCHED,
            warmup: Duration::from_secs(1),
            measure: Duration::from_secs(5),
            least: 0,
            longest: Duration::ZERO,
            name,
        };
        for setting in settings {
            let (name, value) = setting.split_once('=').ok_or("a setting is NAME=VALUE")?;
            let seconds = || Ok::<_, Box<dyn Error>>(Duration::try_from_secs_f64(value.parse()?)?);
            match name {
                "size" => task.size = value.parse()?,
                "warmup" => task.warmup = seconds()?,
                "measure" => task.measure = seconds()?,
                "longest" => task.longest = seconds()?,
                "least" => task.least = value.parse()?,
                "count" if value == "1" => {}
                _ => {
                    println!("{{\"cannot\":\"it has no {setting}\"}}");
                    loop {
                        thread::park();
                    }
                }
            }
        }
        Ok(task)
    }

    fn is_over(&self, elapsed: Duration, messages: u64) -> bool {
        elapsed >= self.measure && (messages >= self.least || elapsed >= self.longest)
    }
}

fn play(role: &str, binds: bool, task: &Task) -> Result<()> {
    let (up, down) = (Ends::open(task, "up")?, Ends::open(task, "down")?);
    let bound = || {
        if binds {
            println!("{{\"bound\":\"{}\"}}", task.name);
        }
    };
    match role {
        "trips" => {
            let (out, from) = (up.publisher()?, down.subscriber()?);
            up.wait()?;
            down.wait()?;
            trips(task, &out, &from)
        }
        "echo" => {
            let (from, out) = (up.subscriber()?, down.publisher()?);
            bound();
            loop {
                receive(&from)?;
                send(&out, task.size)?;
            }
        }
        "source" => {
            let out = up.publisher()?;
            up.wait()?;
            loop {
                send(&out, task.size)?;
            }
        }
        _ => {
            let from = up.subscriber()?;
            bound();
            sink(task, &from)
        }
    }
}

fn trips(task: &Task, out: &Out, from: &From) -> Result<()> {
    let trip = || {
        send(out, task.size)?;
        receive(from)
    };
    let warm = Instant::now() + task.warmup;
    while Instant::now() < warm {
        trip()?;
    }
    println!("{{\"begin\":true}}");
    let (begin, mut trips, mut times) = (Instant::now(), 0, BTreeMap::<u128, u64>::new());
    loop {
        let sent = Instant::now();
        if task.is_over(sent - begin, trips) {
            break;
        }
        trip()?;
        *times.entry(sent.elapsed().as_nanos()).or_default() += 1;
        trips += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let steps: Vec<String> = times.iter().map(|(time, count)| format!("[{time},{count}]")).collect();
    finish(&format!("{{\"messages\":{trips},\"seconds\":{seconds},\"histogram\":[{}]}}", steps.join(",")))
}

fn sink(task: &Task, from: &From) -> Result<()> {
    receive(from)?;
    let warm = Instant::now() + task.warmup;
    let (mut seen, mut messages, mut begin) = (0_u64, 0_u64, None::<Instant>);
    loop {
        receive(from)?;
        seen += 1;
        if seen.is_multiple_of(GLANCE) || task.size > LARGE {
            let now = Instant::now();
            match begin {
                None if now >= warm => {
                    println!("{{\"begin\":true}}");
                    begin = Some(now);
                    continue;
                }
                Some(begin) if task.is_over(now - begin, messages) => {
                    let (bytes, seconds) = (messages * task.size as u64, (now - begin).as_secs_f64());
                    return finish(&format!(
                        "{{\"messages\":{messages},\"bytes\":{bytes},\"seconds\":{seconds}}}"
                    ));
                }
                _ => {}
            }
        }
        messages += u64::from(begin.is_some());
    }
}

type Out = Publisher<Service, [u8], ()>;
type From = Subscriber<Service, [u8], ()>;

fn send(out: &Out, size: usize) -> Result<()> {
    // A publisher that blocks instead of losing records may still be out of chunks for a moment.
    let mut sample = loop {
        match out.loan_slice(size) {
            Ok(sample) => break sample,
            Err(_) => spin_loop(),
        }
    };
    for place in sample.payload_mut().iter_mut().take(TOUCHED) {
        *place = 7;
    }
    sample.send()?;
    Ok(())
}

fn receive(from: &From) -> Result<()> {
    loop {
        if let Some(sample) = from.receive()? {
            let mut copy = [0; TOUCHED];
            let len = sample.payload().len().min(TOUCHED);
            copy[..len].copy_from_slice(&sample.payload()[..len]);
            std::hint::black_box(copy);
            return Ok(());
        }
        spin_loop();
    }
}

/// One direction.
struct Ends {
    // Keeps the service.
    _node: Node<Service>,
    service: Records<Service, [u8], ()>,
    size: usize,
    depth: usize,
}

impl Ends {
    fn open(task: &Task, direction: &str) -> Result<Self> {
        // As many records on their way as the hub has slots.
        let depth = if task.size > 64 << 10 { 64 } else { 4096 };
        let node = NodeBuilder::new().create::<Service>()?;
        let service = node
            .service_builder(&format!("{}/{direction}", task.name).as_str().try_into()?)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(depth)
            .open_or_create()?;
        Ok(Self { _node: node, service, size: task.size, depth })
    }

    fn publisher(&self) -> Result<Out> {
        Ok(self.service.publisher_builder().initial_max_slice_len(self.size).create()?)
    }

    fn subscriber(&self) -> Result<From> {
        Ok(self.service.subscriber_builder().buffer_size(self.depth).create()?)
    }

    /// Waits for a port of the other end.
    fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        let ports = self.service.dynamic_config();
        while ports.number_of_subscribers() < 1 || ports.number_of_publishers() < 1 {
            if begin.elapsed() > Duration::from_secs(10) {
                return Err("the other end does not come".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Prints the result and stays, so that the runner can look at this process.
fn finish(result: &str) -> Result<()> {
    println!("{result}");
    loop {
        thread::park();
    }
}

/// Ends this process when its standard input does.
fn end_with_runner() {
    thread::spawn(|| {
        // Nothing comes; an error is an end, too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        process::exit(0);
    });
}
