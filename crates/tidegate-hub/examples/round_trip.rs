//! How long a value takes to another process and back, and how many go one way.
//!
//! `cargo run --release -p tidegate-hub --example round_trip`; with `-- --quick` only whether it works.

use std::{
    env,
    error::Error,
    process::{Child, Command},
    time::{Duration, Instant},
};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout, WaitStrategy},
    consumer::Consumer,
    layout::{ChannelName, DigestAlg},
    producer::Producer,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LONG: Timeout = Timeout::After(Duration::from_secs(30));
/// Measurements of one thread, round trips, values that go one way.
const MEASURED: (u32, u64, u64) = (2_000, 200_000, 20_000_000);
const QUICK: (u32, u64, u64) = (2, 200, 20_480);
const BATCH: u32 = 256;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo", name, uuid] => echo(name, uuid.parse()?),
        ["count", name, values] => count(name, values.parse()?),
        ["--quick"] => run(QUICK),
        _ => run(MEASURED),
    }
}

fn run((repeats, rounds, values): (u32, u64, u64)) -> Result<()> {
    alone(repeats)?;
    round_trips(rounds)?;
    one_way(values)
}

fn config(channel: &str, slots: u32) -> Result<HubConfig> {
    let config = HubConfig::new(ChannelName::new(channel)?, BufferPolicy::ring(slots), 64);
    Ok(HubConfig { digest_alg: DigestAlg::None, wait: WaitStrategy::Spin, ..config })
}

fn attach(name: &str, max_held: u32) -> Result<Consumer> {
    let config = ConsumerConfig { wait: WaitStrategy::Spin, max_held, ..ConsumerConfig::default() };
    Ok(Consumer::attach(name, &config)?)
}

fn again(args: &[&str]) -> Result<Child> {
    Ok(Command::new(env::current_exe()?).args(args).spawn()?)
}

/// What a value costs both sides when nobody has to wait: the best of many, so that other programs do not count.
fn alone(repeats: u32) -> Result<()> {
    let producer = Producer::create(&config("bench.alone", 1024)?)?;
    let mut consumer = attach(&producer.name(), BATCH)?;
    let mut bytes = [0; 8];
    let (mut single, mut many) = (Duration::MAX, Duration::MAX);
    for _ in 0..repeats {
        let start = Instant::now();
        for value in 0..BATCH.into() {
            producer.send(&u64::to_le_bytes(value), LONG)?;
            consumer.next(LONG)?.read_into(&mut bytes);
        }
        single = single.min(start.elapsed() / BATCH);
        let start = Instant::now();
        let mut batch = producer.acquire_write_batch(BATCH, LONG)?;
        for index in 0..batch.len() {
            batch.put_bytes(index, &(index as u64).to_le_bytes())?;
        }
        batch.commit()?;
        for (_, payload) in consumer.acquire_read_batch(BATCH, LONG)?.iter() {
            payload.read_at(0, &mut bytes)?;
        }
        many = many.min(start.elapsed() / BATCH);
    }
    println!(
        "written and read by one thread: {} ns one by one, {} ns in batches",
        single.as_nanos(),
        many.as_nanos()
    );
    Ok(())
}

fn round_trips(rounds: u64) -> Result<()> {
    let requests = Producer::create(&config("bench.requests", 64)?)?;
    let key = std::process::id();
    let mut child = again(&["echo", &requests.name(), &key.to_string()])?;
    let replies = loop {
        let name = format!("/dev/shm/tidegate-echo-{key}");
        match std::fs::read_to_string(&name) {
            Ok(text) if !text.is_empty() => {
                std::fs::remove_file(&name)?;
                break text;
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut replies = attach(&replies, 1)?;
    let mut times = Vec::with_capacity(rounds as usize);
    let mut bytes = [0; 8];
    for round in 0..rounds {
        let start = Instant::now();
        requests.send(&round.to_le_bytes(), LONG)?;
        replies.next(LONG)?.read_into(&mut bytes);
        times.push(start.elapsed());
        assert_eq!(u64::from_le_bytes(bytes), round);
    }
    drop(requests);
    child.wait()?;
    times.sort_unstable();
    let at = |part: f64| times[(part * rounds as f64) as usize].as_nanos();
    println!("round trip of 8 bytes: p50 {} ns, p90 {} ns, p99 {} ns", at(0.5), at(0.9), at(0.99));
    Ok(())
}

fn echo(name: &str, key: u32) -> Result<()> {
    let mut requests = attach(name, 1)?;
    let replies = Producer::create(&config("bench.replies", 64)?)?;
    std::fs::write(format!("/dev/shm/tidegate-echo-{key}"), replies.name())?;
    let mut bytes = [0; 8];
    while let Ok(slot) = requests.next(LONG) {
        slot.read_into(&mut bytes);
        drop(slot);
        replies.send(&bytes, LONG)?;
    }
    Ok(())
}

fn one_way(values: u64) -> Result<()> {
    let producer = Producer::create(&config("bench.stream", 4096)?)?;
    let mut child = again(&["count", &producer.name(), &values.to_string()])?;
    while producer.consumer_count() == 0 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    let mut sent = 0;
    while sent < values {
        let mut batch = producer.acquire_write_batch(BATCH, LONG)?;
        for index in 0..batch.len() {
            batch.put_bytes(index, &(sent + index as u64).to_le_bytes())?;
        }
        sent += batch.len() as u64;
        batch.commit()?;
    }
    producer.close()?;
    child.wait()?;
    let rate = values as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("one way, {BATCH} values of 8 bytes at a time: {rate:.1} million/s");
    Ok(())
}

fn count(name: &str, values: u64) -> Result<()> {
    let mut consumer = attach(name, BATCH)?;
    let mut expected = 0;
    let mut bytes = [0; 8];
    while expected < values {
        let Ok(batch) = consumer.acquire_read_up_to(BATCH) else { continue };
        for (_, payload) in batch.iter() {
            payload.read_at(0, &mut bytes)?;
            assert_eq!(u64::from_le_bytes(bytes), expected);
            expected += 1;
        }
    }
    Ok(())
}
