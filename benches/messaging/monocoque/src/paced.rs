//! Open loop: messages that are sent when they are due, and their age when they arrive.

use monocoque::zmq::{PullSocket, PushSocket};

use crate::Result;
use crate::task::{Stream, Task, clock, finish, histogram, recorded};
use crate::window::{Place, Window};

pub async fn push(task: &Task) -> Result<()> {
    let Stream::Tcp(stream) = task.connect().await? else { return Err("only tcp is measured".into()) };
    // Coalesced, since at a part of the greatest rate of that mode; what waits is flushed when nothing is due.
    let options = task.options().with_write_coalescing(true);
    let mut socket = PushSocket::from_tcp_with_options(stream, options).await?;
    let begin = clock();
    for number in 0_u64.. {
        let due = begin + (number as f64 * 1e9 / task.rate) as u64;
        if clock() < due {
            socket.flush().await?;
            while clock() < due {
                std::thread::yield_now();
            }
        }
        let mut bytes = vec![b'x'; task.size.max(8)];
        bytes[..8].copy_from_slice(&due.to_le_bytes());
        socket.send_one(bytes.into()).await?;
    }
    Ok(())
}

pub async fn pull(task: &Task) -> Result<()> {
    let Stream::Tcp(stream) = task.accept().await? else { return Err("only tcp is measured".into()) };
    let mut socket = PullSocket::from_tcp_with_options(stream, task.options()).await?;
    let mut message = Vec::new();
    socket.recv_into(&mut message).await?;
    let (mut window, mut ages) = (Window::new(task), histogram()?);
    while socket.recv_into(&mut message).await? {
        let bytes = message.first().ok_or("an empty message")?;
        match window.take(bytes.len()) {
            Place::Inside => {
                ages.saturating_record(clock().saturating_sub(u64::from_le_bytes(bytes[..8].try_into()?)))
            }
            Place::End => {
                let mut result = window.result();
                result["histogram"] = recorded(&ages);
                finish(&result);
            }
            _ => {}
        }
    }
    Err("the sender is gone".into())
}
