//! Tensor streams as ends of a vertex: how they are linked to a tensor driver, and what can go wrong with them.
//!
//! A vertex knows no node: whoever runs it says by a [`Link`] where the driver of a stream is. A stream is attached when its end
//! is opened. From then on its client follows the node through restarts: while it is away a source has nothing, and a sink waits.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, Visitor},
};
use thiserror::Error;
use tidegate_shm::sync::Arc;
use tidegate_tensor::{
    agent::{Agent, IdleStrategy, RunnerError},
    client::{Adding, Client, ClientAgent, ClientError, ClientEvent, Context},
    clock::SystemClock,
    ids::{StreamId, StreamRef},
    tensor::{Dtype, TensorError as LayoutError},
    transport::Connector,
};

/// Where the driver of a stream is.
#[derive(Clone)]
pub struct Link {
    /// Number of the stream.
    pub stream: StreamId,
    /// Settings of the driver's clients.
    pub context: Context,
    /// How its media driver is reached; best without a thread of its own, since there is one that can drive it.
    pub connector: Arc<dyn Connector>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// A stream in a pipeline file, and its link once it has one.
#[derive(Debug, Clone)]
pub struct Stream {
    /// As the file names it.
    pub name: StreamRef,
    /// Where its driver is.
    pub link: Option<Box<Link>>,
}

impl Stream {
    fn link(&self) -> Result<&Link, TensorError> {
        self.link.as_deref().ok_or_else(|| TensorError::NotLinked { stream: self.name.clone() })
    }

    pub(crate) fn failed(&self, source: ClientError) -> TensorError {
        TensorError::Client { stream: self.name.clone(), source: Box::new(source) }
    }
}

/// Why a tensor stream cannot be an end of this vertex.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Nobody said where its driver is.
    #[error(
        "no tensor driver is linked to stream {stream}; run the pipeline by `tidegate vertex run`, or set its link"
    )]
    NotLinked {
        /// The stream.
        stream: StreamRef,
    },
    /// The client of the stream has failed.
    #[error("stream {stream}: {source}")]
    Client {
        /// The stream.
        stream: StreamRef,
        /// Why.
        source: Box<ClientError>,
    },
    /// The stream is not granted.
    #[error(
        "stream {stream} was not granted within {after:?}; see `tidegate ls` whether its node runs and whether another producer \
         has it"
    )]
    NotGranted {
        /// The stream.
        stream: StreamRef,
        /// How long was waited.
        after: Duration,
    },
    /// No tensor can be what the pipeline file says.
    #[error("stream {stream}: dtype and shape say {tensor}: {fault}")]
    Shape {
        /// The stream.
        stream: StreamRef,
        /// As the pipeline file says it.
        tensor: String,
        /// Why not.
        fault: Box<LayoutError>,
    },
    /// There is no thread that keeps the lease.
    #[error("stream {stream}: {source}")]
    Keeper {
        /// The stream.
        stream: StreamRef,
        /// Why.
        source: Box<RunnerError<ClientError>>,
    },
    /// A frame is another tensor than the pipeline file says.
    #[error(
        "frame {seq} of epoch {epoch} of stream {stream} has {key} {found}; source.{key} says {expected}"
    )]
    Frame {
        /// The stream.
        stream: StreamRef,
        /// The epoch.
        epoch: u64,
        /// Number of the frame.
        seq: u64,
        /// What differs, as the pipeline file calls it.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// A frame that is no output of a vertex.
    #[error(
        "frame {seq} of epoch {epoch} of stream {stream}: {field} is {found}, allowed is {allowed}; set format = \"value\" unless \
         a vertex writes the stream"
    )]
    Output {
        /// The stream.
        stream: StreamRef,
        /// The epoch.
        epoch: u64,
        /// Number of the frame.
        seq: u64,
        /// What is wrong.
        field: &'static str,
        /// What it is.
        found: u64,
        /// What it may be.
        allowed: u64,
    },
    /// Frames went by that were not read.
    #[error(
        "{lost} frames of stream {stream} were lost before frame {seq} of epoch {epoch}; read it with a larger ring or fewer \
         frames, or count what is lost with on_gap = \"skip\""
    )]
    Gap {
        /// The stream.
        stream: StreamRef,
        /// The epoch.
        epoch: u64,
        /// The frame behind them.
        seq: u64,
        /// How many.
        lost: u64,
    },
}

/// An endpoint and the client that keeps its lease, whose duty cycle is the holder's.
pub(crate) struct Attached<T> {
    pub(crate) endpoint: T,
    /// Kept as long as the endpoint.
    pub(crate) client: Client,
    pub(crate) agent: ClientAgent,
}

/// Attaches an endpoint of a stream, and drives its client until that is done.
pub(crate) fn attach<T>(
    stream: &Stream,
    ask: impl FnOnce(&Client, StreamId) -> Result<Adding<T>, ClientError>,
) -> Result<Attached<T>, TensorError> {
    let link = stream.link()?;
    let context = Context { client_name: "vertex".to_owned(), ..link.context.clone() };
    let name = stream.name.clone();
    let listener = Box::new(move |event| say(&name, &event));
    let failed = |error| stream.failed(error);
    let (client, mut agent) =
        Client::with_invoker(context, link.connector.clone(), Arc::new(SystemClock), listener)
            .map_err(failed)?;
    let mut adding = ask(&client, link.stream).map_err(failed)?;
    let begun = Instant::now();
    loop {
        let added = agent.do_work().and_then(|_| adding.poll());
        match added {
            Ok(Some(endpoint)) => return Ok(Attached { endpoint, client, agent }),
            Ok(None) if begun.elapsed() < PATIENCE => thread::sleep(SOON),
            Ok(None) => {
                agent.close();
                return Err(TensorError::NotGranted { stream: stream.name.clone(), after: PATIENCE });
            }
            Err(error) => {
                agent.close();
                return Err(failed(error));
            }
        }
    }
}

/// What becomes of a stream's lease and mapping, for the log.
fn say(stream: &StreamRef, event: &ClientEvent) {
    match event {
        ClientEvent::Connected | ClientEvent::Attached { .. } | ClientEvent::Mapped { .. } => {
            tracing::info!(%stream, ?event, "the stream is there");
        }
        _ => tracing::warn!(%stream, ?event, "the stream is away"),
    }
}

/// How the keeper of a lease idles: keepalives are due once a second, and what the driver says can wait this long (VX-904).
pub(crate) const IDLE: IdleStrategy = IdleStrategy::Sleep(LOOK);
/// Pause between two looks at what is idle.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// Pause between two looks at what is busy.
pub(crate) const SOON: Duration = Duration::from_millis(1);
/// How long a driver may take to grant a stream.
const PATIENCE: Duration = Duration::from_secs(10);

impl<'de> Deserialize<'de> for Stream {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Named;
        impl Visitor<'_> for Named {
            type Value = String;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number or the name of a stream")
            }

            fn visit_str<E>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }

            fn visit_i64<E>(self, number: i64) -> Result<String, E> {
                Ok(number.to_string())
            }
        }
        let text = from.deserialize_any(Named)?;
        let name = text.parse().map_err(|error| D::Error::custom(format!("stream is {text:?}: {error}")))?;
        Ok(Self { name, link: None })
    }
}

/// The type of elements in a pipeline file.
pub(crate) fn dtype<'de, D: Deserializer<'de>>(from: D) -> Result<Dtype, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|error| D::Error::custom(format!("dtype: {error}")))
}

/// The same where it may be missing.
pub(crate) fn maybe_dtype<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Dtype>, D::Error> {
    dtype(from).map(Some)
}

/// A shape as it is shown: `480x640`.
pub(crate) fn shape_text<T: ToString>(shape: &[T]) -> String {
    shape.iter().map(T::to_string).collect::<Vec<_>>().join("x")
}
