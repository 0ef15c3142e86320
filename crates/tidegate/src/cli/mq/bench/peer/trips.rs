//! Round trips, one at a time, each with its time (MQ-502).

use tidegate::mq::{AnySocket, SocketType};

use super::{Task, finish};
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
    finish(&task.times.measure_trips(trip)?)
}
