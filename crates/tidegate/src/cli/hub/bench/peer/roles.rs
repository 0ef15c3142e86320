//! What ends do, whichever way records go.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Direction, From, Out, Task, Way};
use crate::cli::bench::peer::{finish, print};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

/// Longer than anybody spins.
const NAP: Duration = Duration::from_millis(5);

/// Plays a role, which never ends by itself, if it is one of those that the way knows.
pub(super) fn run<W: Way>(task: &Task, known: &[&str]) -> Result<(), Stop> {
    if !known.contains(&task.role.as_str()) || task.count > 1 {
        print(&json!({ "cannot": format!("it has no role {}", task.role) }));
        return Ok(());
    }
    let way = W::prepare(task)?;
    let out = |direction| way.out(task, direction);
    let from = |direction| way.from(task, direction);
    match task.role.as_str() {
        "source" => source(&mut out(Direction::Up)?, Out::send),
        "batch-source" => source(&mut out(Direction::Up)?, Out::send_batch),
        "sink" | "batch-sink" => {
            task.tell_place();
            let mut from = from(Direction::Up)?;
            if task.role == "sink" {
                count(task, || from.receive().map(|()| 1))
            } else {
                count(task, || from.receive_batch())
            }
        }
        "echo" | "sleepy-echo" => {
            let mut out = out(Direction::Down)?;
            task.tell_place();
            let mut from = from(Direction::Up)?;
            loop {
                from.receive()?;
                out.send()?;
            }
        }
        "quiet" => {
            let _out = out(Direction::Up)?;
            loop {
                thread::park();
            }
        }
        "idle" => {
            task.tell_place();
            idle(task, from(Direction::Up)?)
        }
        _ => {
            let mut out = out(Direction::Up)?;
            let mut from = from(Direction::Down)?;
            let nap = || {
                if task.role == "sleepy-trips" {
                    thread::sleep(NAP);
                }
            };
            let trip = || {
                out.send()?;
                from.receive()
            };
            finish(&task.times.measure_trips_after(nap, trip)?)
        }
    }
}

fn source<O: Out>(out: &mut O, send: impl Fn(&mut O) -> Result<(), Stop>) -> Result<(), Stop> {
    loop {
        send(out)?;
    }
}

/// Counts records by the time between two of them.
pub(super) fn count(task: &Task, mut receive: impl FnMut() -> Result<usize, Stop>) -> Result<(), Stop> {
    receive()?;
    let mut window = Window::new(task.times);
    loop {
        for _ in 0..receive()? {
            if window.take(task.size) == Place::End {
                finish(&window.result());
            }
        }
    }
}

/// Waits in another thread, and watches that for the time.
fn idle<F: From + Send>(task: &Task, mut from: F) -> Result<(), Stop> {
    thread::scope(|scope| {
        let waiting = scope.spawn(|| from.receive());
        let warm = Instant::now() + task.times.warmup;
        watch(&waiting, warm);
        print(&json!({ "begin": true }));
        let begin = Instant::now();
        watch(&waiting, begin + task.times.measure);
        if waiting.is_finished() {
            return waiting.join().unwrap_or(Ok(()));
        }
        finish(&json!({ "messages": 1, "seconds": begin.elapsed().as_secs_f64() }))
    })
}

/// Sleeps until a time, or until the thread ends, which it should not.
fn watch<T>(waiting: &thread::ScopedJoinHandle<'_, T>, until: Instant) {
    while !waiting.is_finished() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left);
    }
}
