//! Our sockets, whatever their type.

use std::time::{Duration, Instant};

use tidegate_io::wait::block_on;
use tidegate_mq::{
    Context, ContextOptions, Dealer, Driver, DriverChoice, Message, Options, Pair, Pub, Pull, Push, Rep, Req,
    Result, Router, SocketType, Sub, XPub, XSub,
    monitor::{EventKind, Monitor},
};

use crate::peer::PATIENCE;

/// A socket of any type. Calls that its type has not fail the test.
pub(crate) trait Ours: Send + Sync {
    fn listen(&self, endpoint: &str) -> Result<String>;
    fn dial(&self, endpoint: &str) -> Result<()>;
    fn watch(&self) -> Monitor;
    fn finish(self: Box<Self>, linger: Duration) -> u64;

    fn put(&self, _message: Message) -> Result<()> {
        panic!("this type does not send")
    }

    fn take(&self) -> Result<Message> {
        panic!("this type does not receive")
    }

    /// `None` when nothing comes in that time.
    fn take_within(&self, _timeout: Duration) -> Option<Message> {
        panic!("this type does not receive")
    }

    fn subscribe_to(&self, _topic: &[u8]) -> Result<()> {
        panic!("this type does not subscribe")
    }

    fn await_subscriber(&self, _topic: &[u8]) -> Result<()> {
        panic!("this type does not publish")
    }
}

macro_rules! method {
    (sends) => {
        fn put(&self, message: Message) -> Result<()> {
            Ok(self.send_blocking(message)?)
        }
    };
    (receives) => {
        fn take(&self) -> Result<Message> {
            self.recv_blocking()
        }

        fn take_within(&self, timeout: Duration) -> Option<Message> {
            block_on(self.recv(), Some(Instant::now() + timeout)).map(Result::unwrap)
        }
    };
    (subscribes) => {
        fn subscribe_to(&self, topic: &[u8]) -> Result<()> {
            self.subscribe(topic)
        }
    };
    (publishes) => {
        fn await_subscriber(&self, topic: &[u8]) -> Result<()> {
            block_on(self.wait_for_subscribers(topic, 1, PATIENCE), None).unwrap()
        }
    };
}

macro_rules! sockets {
    ($($type:ident: $($capability:ident)+;)+) => {
        $(impl Ours for $type {
            fn listen(&self, endpoint: &str) -> Result<String> {
                self.bind_blocking(endpoint)
            }

            fn dial(&self, endpoint: &str) -> Result<()> {
                self.connect(endpoint)
            }

            fn watch(&self) -> Monitor {
                self.monitor()
            }

            fn finish(self: Box<Self>, linger: Duration) -> u64 {
                block_on((*self).close(Some(linger)), None).unwrap()
            }

            $(method!($capability);)+
        })+

        /// A socket of the given type.
        pub(crate) fn open(context: &Context, kind: SocketType, options: Options) -> Box<dyn Ours> {
            match kind {
                $(SocketType::$type => Box::new($type::with_options(context, options).unwrap()),)+
            }
        }
    };
}

sockets! {
    Req: sends receives;
    Rep: sends receives;
    Dealer: sends receives;
    Router: sends receives;
    Pub: sends publishes;
    Sub: receives subscribes;
    XPub: sends receives publishes;
    XSub: sends receives subscribes;
    Push: sends;
    Pull: receives;
    Pair: sends receives;
}

/// A context with that driver, and no other.
pub(crate) fn context(driver: Driver) -> Context {
    let mut options = ContextOptions::default();
    options.driver = match driver {
        Driver::IoUring => DriverChoice::IoUring,
        Driver::Polling => DriverChoice::Polling,
    };
    Context::with_options(options)
}

/// Options that end every wait, and try often to connect.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.rcvtimeo = Some(PATIENCE);
    options.sndtimeo = Some(PATIENCE);
    options.reconnect_ivl = Some(Duration::from_millis(10));
    options
}

/// Waits for an event and drops those before it.
#[track_caller]
pub(crate) fn wait_for<T>(
    monitor: &Monitor,
    what: &str,
    mut wanted: impl FnMut(&EventKind) -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(Some(event)) = monitor.next_blocking(Some(left)) else {
            panic!("{what} did not happen, but {seen:?}");
        };
        if let Some(found) = wanted(&event.kind) {
            return found;
        }
        seen.push(event.kind);
    }
}

/// Waits for a stream and then its handshake.
#[track_caller]
pub(crate) fn wait_up(monitor: &Monitor) {
    wait_for(monitor, "a stream", |event| {
        matches!(event, EventKind::Connected(_) | EventKind::Accepted(_)).then_some(())
    });
    wait_for(monitor, "a handshake", |event| {
        matches!(event, EventKind::HandshakeSucceeded { .. }).then_some(())
    });
}

/// Waits for the end of a stream.
#[track_caller]
pub(crate) fn wait_down(monitor: &Monitor) {
    wait_for(monitor, "a disconnection", |event| {
        matches!(event, EventKind::Disconnected { .. }).then_some(())
    });
}
