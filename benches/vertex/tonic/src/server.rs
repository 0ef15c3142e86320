//! The function, behind a Unix socket.

use std::{error::Error, path::Path, pin::Pin};

use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    MESSAGE_LIMIT, WINDOW,
    message::{OwnedBatch, OwnedRecord},
};

mod generated {
    #![allow(clippy::all, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/server/bench.Flip.rs"));
}
use generated::flip_server::{Flip, FlipServer};

struct Function;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Flip for Function {
    type BatchesStream = Answers<OwnedBatch>;
    type RecordsStream = Answers<OwnedRecord>;

    async fn batches(
        &self,
        requests: Request<Streaming<OwnedBatch>>,
    ) -> Result<Response<Self::BatchesStream>, Status> {
        let answers = requests.into_inner().map(|batch| {
            batch.map(|mut batch| {
                batch.records.iter_mut().for_each(flip);
                batch
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn records(
        &self,
        requests: Request<Streaming<OwnedRecord>>,
    ) -> Result<Response<Self::RecordsStream>, Status> {
        let answers = requests.into_inner().map(|record| {
            record.map(|mut record| {
                flip(&mut record);
                record
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The value was copied when it was decoded.
fn flip(record: &mut OwnedRecord) {
    if let Some(first) = record.value.first_mut() {
        *first ^= 1;
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
        .max_frame_size(crate::frame_size())
        .add_service(service)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await?;
    Ok(())
}
