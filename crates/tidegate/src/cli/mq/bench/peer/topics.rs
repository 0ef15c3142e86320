//! One publisher of 10 x `count` topics, and one subscriber of each tenth.
//!
//! A message is its topic, `t/` and eight digits, and behind it a number that counts all messages, so that the subscriber
//! knows how many were published. The topics are alike up to the last digit, which alone says whether one is asked for.

use serde_json::json;
use tidegate::mq::SocketType;

use super::{Task, finish, number_in};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

const TOPIC: usize = 10;
/// One of so many topics is asked for.
const SHARE: usize = 10;
/// From one topic to the next, so that all are visited, but not in the order of a table. A prime number.
const STEP: usize = 7_368_787;

pub(super) fn publisher(task: &Task) -> Result<(), Stop> {
    let socket = task.socket(SocketType::Pub)?;
    let topics: Vec<[u8; TOPIC]> =
        (0..task.count * SHARE).filter_map(|number| topic(number).as_bytes().try_into().ok()).collect();
    for number in 0.. {
        let next = topics.get(number * STEP % topics.len());
        let mut bytes = vec![b'x'; task.size.max(TOPIC + 8)];
        if let Some((place, rest)) = bytes.split_first_chunk_mut::<TOPIC>()
            && let (Some(topic), Some(count)) = (next, rest.first_chunk_mut())
        {
            *place = *topic;
            *count = (number as u64).to_le_bytes();
        }
        socket.send_blocking(bytes)?;
    }
    Ok(())
}

pub(super) fn subscriber(task: &Task) -> Result<(), Stop> {
    let socket = task.idle_socket(SocketType::Sub)?;
    for number in 0..task.count {
        socket.subscribe(topic(number * SHARE))?;
    }
    // Asked for last: when it comes, all the others have arrived, too.
    let last = topic((task.count - 1) * SHARE);
    socket.connect(&task.endpoint)?;
    let receive = || -> Result<_, Stop> {
        let message = socket.recv_blocking()?;
        let bytes = message.first().map_or(&[][..], |part| part.as_slice());
        let (topic, rest) = bytes.split_at_checked(TOPIC).unwrap_or_default();
        Ok((bytes.len(), topic == last.as_bytes(), number_in(rest)))
    };
    while !receive()?.1 {}
    let (mut window, mut first) = (Window::new(task.times), 0);
    loop {
        let (bytes, _, number) = receive()?;
        match window.take(bytes) {
            Place::Begin => first = number,
            Place::End => {
                let mut result = window.result();
                result["published"] = json!(number - first);
                finish(&result);
            }
            _ => {}
        }
    }
}

fn topic(number: usize) -> String {
    format!("t/{number:08}")
}
