//! Many connections that do next to nothing.

use std::time::Duration;

use serde_json::json;
use tidegate::mq::{AnySocket, SocketType};

use super::{Task, clock, finish, print};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

/// On the first order connects, on the second one sends.
pub(super) fn push(task: &Task) -> Result<(), Stop> {
    let socket = task.idle_socket(SocketType::Push)?;
    task.await_order();
    for _ in 0..task.count {
        socket.connect(&task.endpoint)?;
    }
    task.await_order();
    let begin = clock();
    let mut sent = 0;
    loop {
        while (sent as f64) < clock().saturating_sub(begin) as f64 / 1e9 * task.rate {
            socket.send_blocking(task.message())?;
            sent += 1;
        }
        // Spinning would take the time of the end that is measured.
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn pull(task: &Task) -> Result<(), Stop> {
    let socket = task.socket(SocketType::Pull)?;
    let (all, count) = (socket.clone(), task.count);
    std::thread::spawn(move || await_all(&all, count));
    socket.recv_blocking()?;
    let mut window = Window::of_rare_messages(task.times);
    while window.take(socket.recv_blocking()?.byte_len()) != Place::End {}
    finish(&window.result())
}

/// Tells when so many connections work at the same time.
fn await_all(socket: &AnySocket, count: usize) {
    while socket.peers().iter().filter(|peer| peer.is_connected()).count() < count {
        // Looks seldom: each look takes time from the handshakes. A monitor would lose events of so many.
        std::thread::sleep(Duration::from_millis(20));
    }
    print(&json!({ "up": true }));
}
