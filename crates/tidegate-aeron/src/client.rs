//! A connection to a media driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cnc;
use crate::connection::Connection;
use crate::counter::{self, Counter, CounterInfo};
use crate::error::{AeronError, Resource};
use crate::pending::Pending;
use crate::publication::{ExclusivePublication, Publication};
use crate::subscription::Subscription;

/// How to connect to a media driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// The driver's directory.
    pub dir: PathBuf,
    /// Name shown in the driver's counters, at most 100 bytes. Default: `tidegate`.
    pub name: String,
    /// Whether the caller drives the client by [`Client::do_work`] instead of a thread of the client. The caller must do
    /// so more often than the driver's client liveness timeout. Default: no.
    pub use_invoker: bool,
    /// How long to wait for a driver when connecting. Default: 3 s.
    pub connect_timeout: Duration,
    /// A driver that is silent for this long is gone. A live one shows itself once a second. Default: 3 s.
    pub driver_timeout: Duration,
    /// How long the client's thread sleeps when it has nothing to do; adding a stream takes about twice as long. Default:
    /// 4 ms.
    pub conductor_idle: Duration,
}

impl ClientOptions {
    /// The defaults, for the driver in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            name: "tidegate".to_owned(),
            use_invoker: false,
            connect_timeout: Duration::from_secs(3),
            driver_timeout: Duration::from_secs(3),
            conductor_idle: Duration::from_millis(4),
        }
    }
}

/// A connection to a media driver. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Arc<Connection>,
}

impl Client {
    /// Connects to the media driver of `options.dir`, waiting for it when it is not there yet.
    ///
    /// # Errors
    /// [`AeronError::NoDriver`] when no live driver shows itself within `connect_timeout`;
    /// [`AeronError::InvalidOption`]; [`AeronError::Library`] when the driver's files cannot be used.
    pub fn connect(options: &ClientOptions) -> Result<Self, AeronError> {
        if options.driver_timeout < MIN_DRIVER_TIMEOUT {
            return Err(AeronError::InvalidOption {
                option: "driver_timeout",
                reason: "must be at least 1.5 s, because a live driver shows itself once a second",
            });
        }
        await_driver(&options.dir, options.connect_timeout, options.driver_timeout)?;
        Ok(Self { connection: Arc::new(Connection::open(options)?) })
    }

    /// Adds a publication whose log is shared by all publishers of this channel and stream, and waits for it.
    ///
    /// # Errors
    /// [`AeronError::Registration`] when the driver refuses, where [`AeronError::is_channel_conflict`] tells a clash of
    /// `term-length` or `mtu` (TP-488); [`AeronError::TimedOut`] after `deadline` or the client's `driver_timeout`;
    /// [`AeronError::ClientClosed`]; [`AeronError::InvalidText`].
    pub fn add_publication(
        &self,
        channel: &str,
        stream_id: i32,
        deadline: Duration,
    ) -> Result<Publication, AeronError> {
        self.add_publication_async(channel, stream_id)?.wait(deadline)
    }

    /// Adds a publication with a log of its own, and waits for it.
    ///
    /// # Errors
    /// As [`Client::add_publication`].
    pub fn add_exclusive_publication(
        &self,
        channel: &str,
        stream_id: i32,
        deadline: Duration,
    ) -> Result<ExclusivePublication, AeronError> {
        self.add_exclusive_publication_async(channel, stream_id)?.wait(deadline)
    }

    /// Adds a subscription, and waits for it.
    ///
    /// # Errors
    /// As [`Client::add_publication`].
    pub fn add_subscription(
        &self,
        channel: &str,
        stream_id: i32,
        deadline: Duration,
    ) -> Result<Subscription, AeronError> {
        self.add_subscription_async(channel, stream_id)?.wait(deadline)
    }

    /// Adds a counter of value 0, and waits for it. It disappears when it is dropped or the client dies.
    ///
    /// # Errors
    /// As [`Client::add_publication`]. A label has at most 380 bytes.
    pub fn add_counter(&self, type_id: i32, label: &str, deadline: Duration) -> Result<Counter, AeronError> {
        self.add_counter_async(type_id, label)?.wait(deadline)
    }

    /// Starts adding a publication; see [`Client::add_publication`].
    ///
    /// # Errors
    /// When the request cannot be made; the driver's refusal comes from [`Pending::poll`].
    pub fn add_publication_async(
        &self,
        channel: &str,
        stream_id: i32,
    ) -> Result<Pending<Publication>, AeronError> {
        Pending::begin(&self.connection, Resource::Publication { channel: channel.into(), stream_id })
    }

    /// Starts adding an exclusive publication; see [`Client::add_exclusive_publication`].
    ///
    /// # Errors
    /// As [`Client::add_publication_async`].
    pub fn add_exclusive_publication_async(
        &self,
        channel: &str,
        stream_id: i32,
    ) -> Result<Pending<ExclusivePublication>, AeronError> {
        Pending::begin(
            &self.connection,
            Resource::ExclusivePublication { channel: channel.into(), stream_id },
        )
    }

    /// Starts adding a subscription; see [`Client::add_subscription`].
    ///
    /// # Errors
    /// As [`Client::add_publication_async`].
    pub fn add_subscription_async(
        &self,
        channel: &str,
        stream_id: i32,
    ) -> Result<Pending<Subscription>, AeronError> {
        Pending::begin(&self.connection, Resource::Subscription { channel: channel.into(), stream_id })
    }

    /// Starts adding a counter; see [`Client::add_counter`].
    ///
    /// # Errors
    /// As [`Client::add_publication_async`].
    pub fn add_counter_async(&self, type_id: i32, label: &str) -> Result<Pending<Counter>, AeronError> {
        Pending::begin(&self.connection, Resource::Counter { type_id, label: label.into() })
    }

    /// In invoker mode, does the client's pending work on this thread and returns how much there was (TP-438). A client
    /// with its own thread, or a closed one, has none for the caller.
    pub fn do_work(&self) -> usize {
        self.connection.do_work()
    }

    /// Whether the client is closed for good. It then has to be replaced.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Why the client is closed; `None` while it is not.
    pub fn failure(&self) -> Option<AeronError> {
        self.connection.is_closed().then(|| self.connection.closed_error())
    }

    /// The last error that the client met on its own, fatal or not.
    pub fn last_error(&self) -> Option<AeronError> {
        self.connection.last_error()
    }

    /// A number that grows whenever a publisher appears on or disappears from any subscription of this client.
    pub fn image_changes(&self) -> u64 {
        self.connection.image_changes()
    }

    /// The driver's id of this client.
    pub fn id(&self) -> i64 {
        self.connection.client_id()
    }

    /// A number that no other client of this driver was or will be given.
    pub fn next_correlation_id(&self) -> i64 {
        self.connection.next_correlation_id()
    }

    /// The driver's directory.
    pub fn dir(&self) -> &Path {
        self.connection.dir()
    }

    /// Shows every counter of the driver to `visit`, in order of id.
    pub fn counters(&self, visit: impl FnMut(CounterInfo<'_>)) {
        counter::for_each(&self.connection, visit);
    }
}

/// Below this a live driver could be taken for dead: it shows itself once a second.
const MIN_DRIVER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Waits until a live driver shows itself. The C library would wait without a deadline for a truncated file.
fn await_driver(dir: &Path, connect_timeout: Duration, driver_timeout: Duration) -> Result<(), AeronError> {
    let started = Instant::now();
    while !matches!(cnc::read(dir), Ok(state @ cnc::DriverState::Running { .. }) if state.is_alive(driver_timeout))
    {
        if started.elapsed() >= connect_timeout {
            return Err(AeronError::NoDriver { dir: dir.to_owned(), waited: connect_timeout });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
