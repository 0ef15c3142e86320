//! The function, behind a Unix socket.

use std::{error::Error, path::Path, pin::Pin};

use bytes::BytesMut;
use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    MESSAGE_LIMIT, WINDOW,
    generated::flip_server::{Flip, FlipServer},
    message::{Batch, Record},
};

struct Function;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Flip for Function {
    type BatchesStream = Answers<Batch>;
    type RecordsStream = Answers<Record>;

    async fn batches(
        &self,
        requests: Request<Streaming<Batch>>,
    ) -> Result<Response<Self::BatchesStream>, Status> {
        let answers = requests.into_inner().map(|batch| {
            batch.map(|mut batch| {
                flip(&mut batch.records);
                batch
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn records(
        &self,
        requests: Request<Streaming<Record>>,
    ) -> Result<Response<Self::RecordsStream>, Status> {
        let answers = requests.into_inner().map(|record| {
            record.map(|mut record| {
                flip(std::slice::from_mut(&mut record));
                record
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// New values, in one piece of memory.
fn flip(records: &mut [Record]) {
    let mut memory = BytesMut::with_capacity(records.iter().map(|record| record.value.len()).sum());
    for record in records {
        memory.extend_from_slice(&record.value);
        if let Some(first) = memory.first_mut() {
            *first ^= 1;
        }
        record.value = memory.split().freeze();
    }
}

pub async fn serve(path: &Path) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(path)?;
    println!("{{\"bound\":true}}");
    let service = FlipServer::new(Function)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    Server::builder()
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .add_service(service)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await?;
    Ok(())
}
