//! Messages one way, as fast as they go.

use tidegate::mq::{AnySocket, SocketType};

use super::{Task, finish};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

pub(super) fn push(task: &Task) -> Result<(), Stop> {
    flood(task, &task.socket(SocketType::Push)?)
}

pub(super) fn pull(task: &Task) -> Result<(), Stop> {
    count(task, &task.socket(SocketType::Pull)?)
}

pub(super) fn pair(task: &Task) -> Result<(), Stop> {
    let [near, far] = task.pair()?;
    std::thread::scope(|scope| {
        // Ends with the process.
        scope.spawn(|| flood(task, &far));
        count(task, &near)
    })
}

/// Sends for ever.
pub(super) fn flood(task: &Task, socket: &AnySocket) -> Result<(), Stop> {
    loop {
        socket.send_blocking(task.message())?;
    }
}

fn count(task: &Task, socket: &AnySocket) -> Result<(), Stop> {
    socket.recv_blocking()?;
    let mut window = Window::new(task.times);
    while window.take(socket.recv_blocking()?.byte_len()) != Place::End {}
    finish(&window.result())
}
