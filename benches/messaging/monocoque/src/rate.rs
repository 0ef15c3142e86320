//! Messages one way, as fast as they go.

use bytes::Bytes;
use monocoque::zmq::{PullSocket, PushSocket};

use crate::Result;
use crate::task::{Stream, Task, finish};
use crate::window::{Place, Window};

/// The same for both kinds of streams, which are types of their own.
macro_rules! flood {
    ($task:expr, $socket:expr) => {{
        let mut socket = $socket;
        loop {
            socket.send_one($task.message()).await?;
        }
    }};
}

macro_rules! count {
    ($task:expr, $socket:expr) => {{
        let mut socket = $socket;
        let mut message = Vec::new();
        socket.recv_into(&mut message).await?;
        let mut window = Window::new($task);
        loop {
            if !socket.recv_into(&mut message).await? {
                return Err("the sender is gone".into());
            }
            if window.take(message.iter().map(Bytes::len).sum()) == Place::End {
                finish(&window.result());
            }
        }
    }};
}

pub async fn push(task: &Task) -> Result<()> {
    let options = task.options().with_write_coalescing(true);
    match task.connect().await? {
        Stream::Tcp(stream) => flood!(task, PushSocket::from_tcp_with_options(stream, options).await?),
        Stream::Ipc(stream) => {
            flood!(task, PushSocket::from_unix_stream_with_options(stream, options).await?)
        }
    }
}

pub async fn pull(task: &Task) -> Result<()> {
    match task.accept().await? {
        Stream::Tcp(stream) => count!(task, PullSocket::from_tcp_with_options(stream, task.options()).await?),
        Stream::Ipc(stream) => {
            count!(task, PullSocket::from_unix_stream_with_options(stream, task.options()).await?)
        }
    }
}
