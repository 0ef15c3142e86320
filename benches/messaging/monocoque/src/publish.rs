//! Publishers and subscribers; the messages are those of the other peers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use monocoque::rt;
use monocoque::zmq::{PubSocket, SubSocket};
use serde_json::json;

use crate::Result;
use crate::task::{Task, finish, print};
use crate::window::{Place, Window};

const TOPIC: usize = 10;
/// One of so many topics is asked for.
const SHARE: usize = 10;
/// From one topic to the next.
const STEP: usize = 7_368_787;

async fn publishing(task: &Task, subscribers: usize) -> Result<PubSocket> {
    let options = task.options().with_write_coalescing(true);
    let mut socket = PubSocket::bind_with_options(task.address()?, options).await?;
    print(&json!({ "bound": format!("tcp://{}", socket.local_addr()?) }));
    for _ in 0..subscribers {
        socket.accept_subscriber().await?;
    }
    Ok(socket)
}

async fn subscribing(task: &Task) -> Result<SubSocket> {
    Ok(SubSocket::connect_with_options(task.address()?, task.options()).await?)
}

pub async fn publisher(task: &Task) -> Result<()> {
    let mut socket = publishing(task, task.count + usize::from(task.stalled)).await?;
    loop {
        socket.send_frames(&[task.message()]).await?;
    }
}

pub async fn subscribers(task: &Task) -> Result<()> {
    // Lives as long as the process, as tasks of the runtime must.
    let (missing, window) = (Rc::new(Cell::new(task.count)), Rc::new(RefCell::new(None::<Window<'static>>)));
    let task: &'static Task = Box::leak(Box::new(task.clone()));
    let mut stalled = None;
    for index in 0..task.count + usize::from(task.stalled) {
        let mut socket = subscribing(task).await?;
        socket.subscribe(b"").await?;
        if index == task.count {
            stalled = Some(socket);
            break;
        }
        let (missing, window) = (Rc::clone(&missing), Rc::clone(&window));
        rt::spawn_detached(async move {
            let mut message = Vec::new();
            let mut seen = false;
            while let Ok(true) = socket.recv_into(&mut message).await {
                if !std::mem::replace(&mut seen, true) {
                    missing.set(missing.get() - 1);
                    if missing.get() == 0 {
                        *window.borrow_mut() = Some(Window::new(task));
                    }
                } else if let Some(window) = &mut *window.borrow_mut()
                    && window.take(message.iter().map(Bytes::len).sum()) == Place::End
                {
                    finish(&window.result());
                }
            }
        });
    }
    std::future::pending::<()>().await;
    drop(stalled);
    Ok(())
}

pub async fn topics(task: &Task) -> Result<()> {
    let mut socket = publishing(task, 1).await?;
    let topics: Vec<_> = (0..task.count * SHARE).map(topic).collect();
    for number in 0.. {
        let mut bytes = vec![b'x'; task.size.max(TOPIC + 8)];
        bytes[..TOPIC].copy_from_slice(topics[number * STEP % topics.len()].as_bytes());
        bytes[TOPIC..TOPIC + 8].copy_from_slice(&(number as u64).to_le_bytes());
        socket.send_frames(&[bytes.into()]).await?;
    }
    Ok(())
}

pub async fn topic_subscriber(task: &Task) -> Result<()> {
    let mut socket = subscribing(task).await?;
    for number in 0..task.count {
        socket.subscribe(topic(number * SHARE).as_bytes()).await?;
    }
    let last = topic((task.count - 1) * SHARE);
    let mut message = Vec::new();
    let mut window = None;
    let mut first = 0;
    while socket.recv_into(&mut message).await? {
        let bytes = message.first().ok_or("an empty message")?;
        let number = u64::from_le_bytes(bytes[TOPIC..TOPIC + 8].try_into()?);
        match &mut window {
            // Asked for last: all the others have arrived, too.
            None if bytes.starts_with(last.as_bytes()) => window = Some(Window::new(task)),
            None => {}
            Some(window) => match window.take(bytes.len()) {
                Place::Begin => first = number,
                Place::End => {
                    let mut result = window.result();
                    result["published"] = json!(number - first);
                    finish(&result);
                }
                _ => {}
            },
        }
    }
    Err("the publisher is gone".into())
}

fn topic(number: usize) -> String {
    format!("t/{number:08}")
}
