//! The end that asks, and measures.

use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    Form, MESSAGE_LIMIT, Task, WINDOW,
    generated::flip_client::FlipClient,
    message::{Batch, Record},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub async fn run(task: Task, path: PathBuf, server: u32) -> Result<()> {
    let channel = connect(path).await?;
    let mut client = FlipClient::new(channel)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let (go, orders) = unbounded_channel();
    let requests = Requests::new(&task, orders);
    match task.form {
        Form::Batch => {
            let answers = client.batches(requests.map(|records| Batch { records })).await?.into_inner();
            measure(&task, server, go, answers, |batch: &Batch| &batch.records[..]).await
        }
        Form::Record => {
            let single = requests.filter_map(|mut records| records.pop());
            let answers = client.records(single).await?.into_inner();
            measure(&task, server, go, answers, std::slice::from_ref).await
        }
    }
}

async fn connect(path: PathBuf) -> Result<Channel> {
    // The address is not used, but there has to be one.
    let endpoint = Endpoint::try_from("http://[::]:1")?
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW);
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Messages of batches, one batch for each order.
struct Requests {
    orders: UnboundedReceiver<()>,
    source: Bytes,
    batch: usize,
    /// Records of a message.
    piece: usize,
    /// Records of the running batch that are still to be sent.
    left: usize,
    position: u64,
}

impl Requests {
    fn new(task: &Task, orders: UnboundedReceiver<()>) -> Self {
        let piece = match task.form {
            Form::Batch => task.piece(),
            Form::Record => 1,
        };
        let source = Bytes::from(vec![SOURCE; task.size]);
        Self { orders, source, batch: task.batch, piece, left: 0, position: 0 }
    }
}

impl Stream for Requests {
    type Item = Vec<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            if ready!(self.orders.poll_recv(context)).is_none() {
                return Poll::Ready(None);
            }
            self.left = self.batch;
        }
        let count = self.piece.min(self.left);
        self.left -= count;
        let first = self.position;
        self.position += count as u64;
        let records = (first..first + count as u64)
            .map(|position| Record { position, value: self.source.clone() })
            .collect();
        Poll::Ready(Some(records))
    }
}

async fn measure<T>(
    task: &Task,
    server: u32,
    go: UnboundedSender<()>,
    mut answers: Streaming<T>,
    records: impl Fn(&T) -> &[Record],
) -> Result<()> {
    let mut sent = VecDeque::new();
    let send = |sent: &mut VecDeque<Instant>| -> Result<()> {
        sent.push_back(Instant::now());
        Ok(go.send(())?)
    };
    for _ in 0..task.flight {
        send(&mut sent)?;
    }
    let warm = Instant::now() + task.warmup;
    let (mut begin, mut messages, mut times) = (None::<Instant>, 0_u64, BTreeMap::<u64, u64>::new());
    let (mut left, mut position) = (task.batch, 0);
    loop {
        let answer = answers.message().await?.ok_or("the server ended the stream")?;
        for record in records(&answer) {
            let right = record.position == position
                && record.value.len() == task.size
                && record.value.first() == Some(&(SOURCE ^ 1))
                && (task.size == 1 || record.value.last() == Some(&SOURCE));
            if !right {
                return Err("an answer is wrong".into());
            }
            position += 1;
        }
        left -= records(&answer).len();
        if left > 0 {
            continue;
        }
        left = task.batch;
        let now = Instant::now();
        let took = now - sent.pop_front().ok_or("an answer to nothing")?;
        match begin {
            None if now >= warm => {
                println!("{{\"begin\":true,\"workers\":[{server}]}}");
                begin = Some(Instant::now());
            }
            Some(first) => {
                messages += task.batch as u64;
                *times.entry(rounded(took)).or_default() += 1;
                if now - first >= task.measure {
                    let seconds = (now - first).as_secs_f64();
                    let bytes = messages * task.size as u64;
                    let steps: Vec<String> =
                        times.iter().map(|(time, count)| format!("[{time},{count}]")).collect();
                    println!(
                        "{{\"messages\":{messages},\"bytes\":{bytes},\"seconds\":{seconds},\"histogram\":[{}]}}",
                        steps.join(",")
                    );
                    // The runner looks at both processes and ends them.
                    std::future::pending::<()>().await;
                }
            }
            None => {}
        }
        send(&mut sent)?;
    }
}

/// To three digits, so that a long run does not print a line for each nanosecond.
fn rounded(time: Duration) -> u64 {
    let nanos = time.as_nanos() as u64;
    let step = 1 << nanos.max(1).ilog2().saturating_sub(10);
    nanos / step * step
}

const SOURCE: u8 = b'a';
