//! What sockets offer their applications: the calls that all share, those of single kinds, and proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests and what helps them")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod ends;
mod handles;
mod lines;
mod links;
mod many;
mod patterns;
mod proxy;
mod ready;
mod relay;
mod smoke;
#[path = "../libzmq/support.rs"]
#[allow(dead_code, reason = "shared by test programs that use some of it each")]
mod support;
mod waiting;

use std::{
    sync::{Arc, Mutex},
    task::Wake,
};

use tidegate_mq::{Context, Message, Options, Pull, Push};

use support::{PATIENCE, wait, with};

/// Options under which no call waits for ever, and closing sends what is queued.
pub(crate) fn options() -> Options {
    with(|options| options.linger = None)
}

/// A PUSH connected to a PULL over TCP, with room for so many messages in each queue.
pub(crate) fn pipeline(context: &Context, room: u32) -> (Push, Pull) {
    let mut options = options();
    options.sndhwm = room;
    options.rcvhwm = room;
    let pull = Pull::with_options(context, options.clone()).unwrap();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let push = Push::with_options(context, options).unwrap();
    wait(push.connect_ready(&endpoint, PATIENCE)).unwrap();
    (push, pull)
}

/// An in-process PUSH and PULL, between which so many messages fit.
pub(crate) fn near(context: &Context, room: u32) -> (Push, Pull) {
    let (mut sending, mut receiving) = (options(), options());
    sending.sndhwm = room - 1;
    receiving.rcvhwm = 1;
    let pull = Pull::with_options(context, receiving).unwrap();
    pull.bind_blocking("inproc://near").unwrap();
    let push = Push::with_options(context, sending).unwrap();
    push.connect("inproc://near").unwrap();
    (push, pull)
}

pub(crate) fn text(message: &Message) -> String {
    message
        .parts()
        .iter()
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect::<Vec<_>>()
        .join("|")
}

/// A waker that counts.
#[derive(Default)]
pub(crate) struct Count(pub(crate) Mutex<usize>);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
    }
}
