//! Round trips, one at a time, each with its time (MQ-502).

use std::time::Instant;

use serde_json::json;
use tidegate::mq::{AnySocket, SocketType};

use super::{Task, finish, histogram, print, recorded};
use crate::output::Stop;

pub(super) fn req(task: &Task) -> Result<(), Stop> {
    ping(task, &task.socket(SocketType::Req)?)
}

pub(super) fn rep(task: &Task) -> Result<(), Stop> {
    echo(&task.socket(SocketType::Rep)?)
}

pub(super) fn pair(task: &Task) -> Result<(), Stop> {
    let [near, far] = task.pair()?;
    std::thread::scope(|scope| {
        // Ends with the process.
        scope.spawn(|| echo(&far));
        ping(task, &near)
    })
}

/// Sends back for ever.
fn echo(socket: &AnySocket) -> Result<(), Stop> {
    loop {
        socket.send_blocking(socket.recv_blocking()?)?;
    }
}

fn ping(task: &Task, socket: &AnySocket) -> Result<(), Stop> {
    let trip = || -> Result<(), Stop> {
        socket.send_blocking(task.message())?;
        socket.recv_blocking()?;
        Ok(())
    };
    trip()?;
    let warm = Instant::now() + task.warmup;
    while Instant::now() < warm {
        trip()?;
    }
    let (mut times, mut messages) = (histogram()?, 0);
    print(&json!({ "begin": true }));
    let begin = Instant::now();
    loop {
        let sent = Instant::now();
        let elapsed = sent - begin;
        if elapsed >= task.measure && (messages >= task.least || elapsed >= task.longest) {
            break;
        }
        trip()?;
        times.saturating_record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
        messages += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    finish(&json!({ "messages": messages, "seconds": seconds, "histogram": recorded(&times) }))
}
