//! Vertices between streams and channels of real processes: a node, producers, readers, and what all of it costs while nothing
//! happens.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate::hub::config::{BufferPolicy, HubConfig, Timeout};
use tidegate::hub::layout::ChannelName;
use tidegate::hub::producer::Producer;

use crate::support::{Node, Running, eventually, tidegate};
use crate::world::{Unread, Vertex};

/// Tables of a vertex from this source to this sink.
fn between(source: &str, sink: &str) -> String {
    format!(
        "[source]
        {source}
        [[sink]]
        name = \"main\"
        {sink}
        [batch]
        max_bytes = \"64KiB\"
        [transport]
        ring = \"512KiB\"
        [limits]
        prefetch = \"1MiB\"
        [epoch]
        interval = \"10ms\""
    )
}

/// A process that publishes frames of four bytes, one for each number it is told.
struct Publisher(Unread);

impl Publisher {
    fn start(node: &Path, stream: &str) -> Self {
        let child = tidegate()
            .args(["tensor", "pub", stream, "--quiet", "--json", "--rate", "max", "--input", "-"])
            .args(["--dtype", "uint8", "--shape", "4", "--linger", "0s", "--dir"])
            .arg(node)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(Unread(child))
    }

    fn send(&mut self, number: u32) {
        let stdin = self.0.0.stdin.as_mut().unwrap();
        stdin.write_all(&number.to_le_bytes()).and_then(|()| stdin.flush()).unwrap();
    }
}

fn tensor(node: &Path, stream: &str) -> String {
    format!("kind = \"tensor\"\nstream = {stream:?}\ndir = {node:?}")
}

fn count(status: &Value, name: &str) -> u64 {
    status["counts"][name].as_u64().unwrap()
}

/// From one stream to another one, through a producer that is killed. Every frame that was read is published, and what was lost
/// on the way is counted; nothing is left in the node's place or the vertex's when all have ended.
/// Rules: VX-002, VX-830, VX-851, VX-862.
#[test]
fn frames_go_through_a_vertex_from_stream_to_stream() {
    // So short that the place of a killed producer is free soon.
    let node = Node::with_leases_of(15);
    let vertex = Vertex::new();
    let mut publisher = Publisher::start(node.dir(), "raw");
    publisher.send(0);
    eventually("the stream has a name", || {
        (node.run("tensor sub raw --count 0 --wait 0s").code == Some(0)).then_some(())
    });
    let sink = format!("{}\ndtype = \"uint8\"\nshape = [2, 2]", tensor(node.dir(), "done"));
    let running = vertex.start(&between(&tensor(node.dir(), "raw"), &sink));
    let reader = Running::start(&mut node.command("tensor sub done"));
    let mut sent = 0;
    for publishers in 1..=2 {
        let before = vertex.status().map_or(0, |status| count(&status, "delivered"));
        eventually("frames of this producer", || {
            sent += 1;
            publisher.send(sent);
            vertex.status().filter(|status| count(status, "delivered") > before + 5)
        });
        if publishers == 1 {
            // Killed.
            drop(publisher);
            publisher = Publisher::start(node.dir(), "raw");
        }
    }
    let frame = reader.json();
    assert_eq!((&frame["dtype"], &frame["shape"]), (&"uint8".into(), &serde_json::json!([2, 2])), "{frame}");
    let status = vertex.until(|status| count(status, "read") == count(status, "delivered"));
    let (read, lost) = (count(&status, "read"), count(&status, "lost"));
    assert!(read > 10 && read + lost <= u64::from(sent) + 1, "{read} and {lost} of {sent}");
    let promise = status["sinks"][0]["guarantee"].as_str().unwrap();
    assert!(promise.contains("a reader that is too slow loses frames"), "{promise}");
    drop((publisher, reader));
    vertex.stop(running);
    node.stop();
}

/// Rules: VX-860.
#[test]
fn a_node_or_stream_that_is_not_there_is_said_at_the_start() {
    let vertex = Vertex::new();
    let sink = "kind = \"blackhole\"";
    let run = |source: &str| Running::start(&mut vertex.command(&between(source, sink))).finish();
    let ended = run(&tensor(&vertex.path("none"), "raw")).exits(69);
    assert!(ended.stderr.contains("no node is running on"), "{}", ended.stderr);
    let node = Node::start();
    let ended = run(&tensor(node.dir(), "raw")).exits(69);
    assert!(ended.stderr.contains("raw"), "{}", ended.stderr);
    let source = format!("kind = \"tensor\"\nstream = 70000\ndir = {:?}", node.dir());
    let ended = run(&source).exits(69);
    assert!(ended.stderr.contains("does not serve stream 70000"), "{}", ended.stderr);
    node.stop();
}

/// What a thread has done since its start.
#[derive(Debug, Clone, Copy, Default)]
struct Thread {
    sleeps: u64,
    cpu_ns: u64,
}

/// The threads of a process, by number and name.
fn threads(pid: u32) -> BTreeMap<String, Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
    let look = |task: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).ok();
        let (status, schedule, name) = (read("status")?, read("schedstat")?, read("comm")?);
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let thread = Thread { sleeps: sleeps.and_then(number)?, cpu_ns: number(&schedule)? };
        Some((format!("{} {}", task.file_name().to_string_lossy(), name.trim()), thread))
    };
    tasks.filter_map(|task| look(task.unwrap())).collect()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Wake-ups of a vertex and its worker while nothing comes, by thread, and what its memory grew by. Counted against the time that
/// really went by, so that a machine that stands still makes no difference.
fn idles(vertex: &Vertex, running: &Running, most_a_second: u64) {
    let worker = vertex.until(|status| status["lanes"][0]["ready"] == true);
    let pids = [running.pid(), worker["lanes"][0]["pid"].as_u64().unwrap().try_into().unwrap()];
    // What was begun comes to rest: commits, and looks that follow the last record for a second.
    std::thread::sleep(Duration::from_secs(2));
    let (memory, before, begun) = (resident(pids[0]), pids.map(threads), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let (after, time) = (pids.map(threads), begun.elapsed());
    let mut woken = BTreeMap::new();
    for (before, after) in before.iter().zip(&after) {
        for (thread, now) in after {
            let then = before.get(thread).copied().unwrap_or_default();
            let slept = now.sleeps - then.sleeps;
            let ran = Duration::from_nanos(now.cpu_ns - then.cpu_ns);
            assert!(
                ran <= Duration::from_millis(10) * u32::try_from(slept + 1).unwrap(),
                "{thread} ran for {ran:?}"
            );
            if slept > 0 {
                woken.insert(thread.clone(), slept);
            }
        }
    }
    let sum: u64 = woken.values().sum();
    let most = most_a_second * (time.as_millis() as u64).div_ceil(1000) + SLACK;
    assert!(sum <= most, "{sum} wake-ups in {time:?}, at most {most}: {woken:?}");
    let grown = resident(pids[0]).saturating_sub(memory);
    assert!(grown <= 1024, "{grown} KiB more");
}

/// Wake-ups a second of one lane: its thread in the vertex ten times, its worker twice (VX-323, VX-904).
const LANE: u64 = 12;
/// The worker beats every 200 ms (VX-433), its supervisor and the vertex look once a second at most.
const BEATS: u64 = 5 + 2;
/// An end that looks at what does not ring: a stream, or a channel whose producer dies between a commit and the ring.
const LOOKS: u64 = 11;
/// For what happens once: a heartbeat that begins, a page that is read.
const SLACK: u64 = 20;

/// Rules: VX-904.
#[test]
fn an_idle_vertex_wakes_seldom_between_files() {
    let vertex = Vertex::new();
    let input = vertex.path("input");
    fs::write(&input, "one\n").unwrap();
    let source = format!("kind = \"file\"\npath = {input:?}\nfollow = true");
    let sink = format!("kind = \"file\"\npath = {:?}", vertex.path("out"));
    let running = vertex.start(&between(&source, &sink));
    vertex.until(|status| count(status, "delivered") == 1);
    idles(&vertex, &running, LANE + BEATS);
    vertex.stop(running);
}

/// Rules: VX-904.
#[test]
fn an_idle_vertex_wakes_seldom_between_channels() {
    let vertex = Vertex::new();
    let mut config = HubConfig::new(ChannelName::new("in").unwrap(), BufferPolicy::ring(8), 64);
    config.dir = vertex.path("");
    let producer = Producer::create(&config).unwrap();
    let end = |name: &str| format!("kind = \"hub\"\nchannel = {name:?}\ndir = {:?}", vertex.path(""));
    let running =
        vertex.start(&between(&end("in"), &format!("{}\nslots = 8\nslot_size = \"256B\"", end("out"))));
    producer.send(b"one", Timeout::After(Duration::from_secs(30))).unwrap();
    vertex.until(|status| count(status, "delivered") == 1);
    // And the thread of the hub, which beats for each handle every two seconds.
    idles(&vertex, &running, LANE + BEATS + LOOKS + 1);
    vertex.stop(running);
}

/// Rules: VX-904.
#[test]
fn an_idle_vertex_wakes_seldom_between_streams() {
    let node = Node::with_leases_of(50);
    let vertex = Vertex::new();
    let mut publisher = Publisher::start(node.dir(), "raw");
    publisher.send(0);
    eventually("the stream has a name", || {
        (node.run("tensor sub raw --count 0 --wait 0s").code == Some(0)).then_some(())
    });
    let sink = format!("{}\ndtype = \"uint8\"\nshape = [4]", tensor(node.dir(), "done"));
    let running = vertex.start(&between(&tensor(node.dir(), "raw"), &sink));
    let mut number = 0;
    eventually("a frame", || {
        number += 1;
        publisher.send(number);
        vertex.status().filter(|status| count(status, "delivered") > 0)
    });
    // A look for each end.
    idles(&vertex, &running, LANE + BEATS + 2 * LOOKS);
    drop(publisher);
    vertex.stop(running);
    node.stop();
}
