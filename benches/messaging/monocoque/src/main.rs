//! One end of a measurement with monocoque-rs, in its best documented mode for each metric: coalesced writes for rates,
//! eager ones for round trips.
//!
//! Takes the arguments and prints the lines of `../libzmq_peer.c`; knows push, pull, req and rep over tcp without CURVE.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use monocoque::rt::{LocalRuntime, TcpListener, TcpStream};
use monocoque::zmq::{PullSocket, PushSocket, RepSocket, ReqSocket, SocketOptions};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, role, how, endpoint, size, warmup, measure] = &args[..] else {
        return Err("usage: monocoque-peer ROLE bind|connect ENDPOINT SIZE WARMUP_S MEASURE_S".into());
    };
    let address = endpoint.strip_prefix("tcp://").ok_or("only tcp is measured")?.replace('*', "0");
    let (size, time) = (size.parse::<usize>()?, Time { warmup: seconds(warmup)?, measure: seconds(measure)? });
    let binds = how == "bind";
    LocalRuntime::new()?.block_on(async {
        match (role.as_str(), binds) {
            ("pull", true) => count(&mut PullSocket::from_tcp_with_options(accept(&address).await?, options(size)).await?, time).await,
            ("push", false) => {
                let options = options(size).with_write_coalescing(true);
                flood(&mut PushSocket::connect_with_options(address.as_str(), options).await?, size).await
            }
            ("rep", true) => {
                let mut socket = RepSocket::from_tcp_with_options(accept(&address).await?, options(size)).await?;
                while let Some(message) = socket.recv().await? {
                    socket.send(message).await?;
                }
                Ok(())
            }
            ("req", false) => {
                ping(&mut ReqSocket::connect_with_options(&format!("tcp://{address}"), options(size)).await?, size, time).await
            }
            _ => Err("this peer binds pull and rep, and connects push and req".into()),
        }
    })
}

#[derive(Clone, Copy)]
struct Time {
    warmup: Duration,
    measure: Duration,
}

fn seconds(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

/// Buffers that hold a few messages.
fn options(size: usize) -> SocketOptions {
    let buffer = (4 * size).clamp(16 << 10, 1 << 20);
    SocketOptions::default().with_buffer_sizes(buffer, buffer)
}

async fn accept(address: &str) -> Result<TcpStream> {
    let listener = TcpListener::bind(address).await?;
    println!("{}", json!({ "bound": format!("tcp://{}", listener.local_addr()?) }));
    Ok(listener.accept().await?.0)
}

async fn flood(socket: &mut PushSocket, size: usize) -> Result<()> {
    loop {
        socket.send_one(Bytes::from(vec![b'x'; size])).await?;
    }
}

async fn count(socket: &mut PullSocket, time: Time) -> Result<()> {
    let mut message = Vec::new();
    socket.recv_into(&mut message).await?;
    let begin = Instant::now() + time.warmup;
    let mut first: Option<(Instant, Duration)> = None;
    let (mut messages, mut bytes) = (0_u64, 0_u64);
    for round in 0_u64.. {
        if !socket.recv_into(&mut message).await? {
            return Err("the sender is gone".into());
        }
        let length: usize = message.iter().map(Bytes::len).sum();
        if round.is_multiple_of(64) || length > 16 << 10 {
            let now = Instant::now();
            match first {
                None if now >= begin => {
                    first = Some((now, cpu_time()));
                    (messages, bytes) = (0, 0);
                    continue;
                }
                Some((first, cpu)) if now - first >= time.measure => {
                    let result = json!({
                        "messages": messages, "bytes": bytes, "seconds": (now - first).as_secs_f64(),
                        "cpu_seconds": (cpu_time() - cpu).as_secs_f64(),
                    });
                    println!("{result}");
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

async fn ping(socket: &mut ReqSocket, size: usize, time: Time) -> Result<()> {
    let begin = Instant::now() + time.warmup;
    let end = begin + time.measure;
    let mut times: Vec<u64> = Vec::with_capacity(1 << 22);
    let mut cpu = None;
    let mut reply = Vec::new();
    loop {
        let sent = Instant::now();
        if cpu.is_none() && sent >= begin {
            cpu = Some(cpu_time());
            times.clear();
        }
        if times.len() == times.capacity() || cpu.is_some() && sent >= end {
            break;
        }
        socket.send_one(Bytes::from(vec![b'x'; size])).await?;
        socket.recv_into(&mut reply).await?;
        times.push(u64::try_from(sent.elapsed().as_nanos())?);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    let result = json!({
        "trips": times.len(), "p50_ns": at(0.5), "p90_ns": at(0.9), "p99_ns": at(0.99), "p999_ns": at(0.999),
        "max_ns": at(1.0), "cpu_seconds": (cpu_time() - cpu.unwrap_or_default()).as_secs_f64(),
    });
    println!("{result}");
    Ok(())
}

/// Processor time of this process, user and system.
fn cpu_time() -> Duration {
    // utime and stime in ticks of 10 ms, counted behind the name, which may hold anything.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
