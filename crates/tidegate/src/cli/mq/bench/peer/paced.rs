//! Open loop: messages that are sent when they are due, whatever became of those before, and their age when they arrive
//! (MQ-502). A late sender makes old messages: the time at which one was to be sent counts, not when it was.

use tidegate::mq::SocketType;

use super::{Task, clock, finish, histogram, number_in, recorded};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

pub(super) fn push(task: &Task) -> Result<(), Stop> {
    let socket = task.socket(SocketType::Push)?;
    let begin = clock();
    for number in 0_u64.. {
        let due = begin + (number as f64 * 1e9 / task.rate) as u64;
        while clock() < due {
            // Sleeping would be late by more than what is measured.
            std::thread::yield_now();
        }
        socket.send_blocking(task.numbered(due))?;
    }
    Ok(())
}

pub(super) fn pull(task: &Task) -> Result<(), Stop> {
    let socket = task.socket(SocketType::Pull)?;
    socket.recv_blocking()?;
    let (mut window, mut ages) = (Window::new(task.times), histogram()?);
    loop {
        let message = socket.recv_blocking()?;
        let due = message.first().map_or(0, |part| number_in(part.as_slice()));
        match window.take(message.byte_len()) {
            Place::Inside => ages.saturating_record(clock().saturating_sub(due)),
            Place::End => {
                let mut result = window.result();
                result["histogram"] = recorded(&ages);
                finish(&result);
            }
            _ => {}
        }
    }
}
