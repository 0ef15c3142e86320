//! Options by number, with those that only a socket itself can answer (MQ-287, MQ-293).

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use super::{Owner, Shared};
use crate::{
    error::{Error, Result},
    state::SocketType,
};

const SUBSCRIBE: i32 = 6;
const UNSUBSCRIBE: i32 = 7;
const RCVMORE: i32 = 13;
const FD: i32 = 14;
const EVENTS: i32 = 15;
const TYPE: i32 = 16;
const LAST_ENDPOINT: i32 = 32;
const ROUTER_NOTIFY: i32 = 97;
const TOPICS_COUNT: i32 = 116;

impl Shared {
    pub(crate) fn set_raw(&self, number: i32, value: &[u8]) -> Result<()> {
        match number {
            SUBSCRIBE => self.subscribe(value),
            UNSUBSCRIBE => self.unsubscribe(value),
            ROUTER_NOTIFY if self.kind != SocketType::Router => {
                Err(Error::InvalidOption { option: "router_notify", problem: "only a ROUTER has it" })
            }
            _ => self.set_options(|options| options.set_raw(number, value)),
        }
    }

    pub(crate) fn raw(owner: &Arc<Owner>, number: i32) -> Result<Vec<u8>> {
        let shared: &Shared = owner;
        let int = |value: i32| Ok(value.to_ne_bytes().to_vec());
        match number {
            RCVMORE => int(0),
            TYPE => int(type_number(shared.kind)),
            EVENTS => {
                let readiness = shared.readiness()?;
                int(i32::from(readiness.receive) | i32::from(readiness.send) << 1)
            }
            FD => int(Self::readable_fd(owner)?.as_fd().as_raw_fd()),
            LAST_ENDPOINT => {
                let mut endpoint = shared.last_endpoint().into_bytes();
                endpoint.push(0);
                Ok(endpoint)
            }
            TOPICS_COUNT => match shared.lock().state.topics_count() {
                Ok(count) => int(i32::try_from(count).unwrap_or(i32::MAX)),
                Err(_) => Err(Error::NotSupported("only PUB, XPUB, SUB and XSUB have topics")),
            },
            _ => shared.lock().options.raw(number),
        }
    }
}

/// libzmq's number of a socket type.
fn type_number(kind: SocketType) -> i32 {
    match kind {
        SocketType::Pair => 0,
        SocketType::Pub => 1,
        SocketType::Sub => 2,
        SocketType::Req => 3,
        SocketType::Rep => 4,
        SocketType::Dealer => 5,
        SocketType::Router => 6,
        SocketType::Pull => 7,
        SocketType::Push => 8,
        SocketType::XPub => 9,
        SocketType::XSub => 10,
    }
}
