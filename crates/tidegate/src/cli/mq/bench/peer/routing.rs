//! One ROUTER that receives from many DEALER sockets, and how evenly.

use std::collections::HashMap;

use serde_json::json;
use tidegate::mq::{AnySocket, Part, SocketType};

use super::many::{BURST, drive, step_back};
use super::{Task, finish};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

pub(super) fn dealers(task: &Task) -> Result<(), Stop> {
    let sockets: Vec<_> =
        (0..task.count).map(|_| task.socket(SocketType::Dealer)).collect::<Result<_, _>>()?;
    drive(sockets.iter().map(|socket| flood(task, socket)))
}

async fn flood(task: &Task, socket: &AnySocket) -> Result<(), Stop> {
    loop {
        for _ in 0..BURST {
            socket.send(task.message()).await?;
        }
        step_back().await;
    }
}

pub(super) fn router(task: &Task) -> Result<(), Stop> {
    let socket = task.socket(SocketType::Router)?;
    let mut peers: HashMap<Part, u64> = HashMap::new();
    let receive = || -> Result<(Option<Part>, usize), Stop> {
        let mut message = socket.recv_blocking()?;
        let name = message.pop_front();
        Ok((name, message.byte_len()))
    };
    while peers.len() < task.count {
        peers.extend(receive()?.0.map(|name| (name, 0)));
    }
    let mut window = Window::new(task.times);
    loop {
        let (name, bytes) = receive()?;
        match window.take(bytes) {
            Place::Inside => {
                if let Some(count) = name.and_then(|name| peers.get_mut(&name)) {
                    *count += 1;
                }
            }
            Place::End => {
                let mut result = window.result();
                result["least_each"] = json!(peers.values().min());
                result["most_each"] = json!(peers.values().max());
                finish(&result);
            }
            _ => {}
        }
    }
}
