//! Round trips, one at a time, each with its time.

use std::time::Instant;

use monocoque::zmq::{RepSocket, ReqSocket};
use serde_json::json;

use crate::Result;
use crate::task::{Stream, Task, finish, histogram, print, recorded};

pub async fn rep(task: &Task) -> Result<()> {
    let Stream::Tcp(stream) = task.accept().await? else { return Err("only tcp is measured".into()) };
    let mut socket = RepSocket::from_tcp_with_options(stream, task.options()).await?;
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

pub async fn req(task: &Task) -> Result<()> {
    let mut socket = ReqSocket::connect_with_options(&task.endpoint, task.options()).await?;
    let mut reply = Vec::new();
    let warm = Instant::now() + task.warmup;
    while Instant::now() < warm {
        socket.send_one(task.message()).await?;
        socket.recv_into(&mut reply).await?;
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
        socket.send_one(task.message()).await?;
        socket.recv_into(&mut reply).await?;
        times.saturating_record(u64::try_from(sent.elapsed().as_nanos())?);
        messages += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    finish(&json!({ "messages": messages, "seconds": seconds, "histogram": recorded(&times) }))
}
