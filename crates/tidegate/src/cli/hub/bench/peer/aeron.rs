//! Records by Aeron IPC. The end that binds runs the media driver, whose agents sleep.

use std::time::Duration;

use tidegate_aeron as aeron;

use super::{BATCH, Direction, From, Out, TOUCHED, Task, Way, failed};
use crate::output::Stop;

const WAIT: Duration = Duration::from_secs(20);
/// An eighth of it is the longest message.
const TERM: usize = 16 << 20;
pub(super) const ROLES: &[&str] = &["source", "batch-source", "sink", "batch-sink", "trips", "echo"];

pub(super) struct Aeron {
    client: aeron::Client,
    _driver: Option<aeron::MediaDriver>,
}

impl Way for Aeron {
    type Out = AeronOut;
    type From = AeronFrom;

    fn prepare(task: &Task) -> Result<Self, Stop> {
        let dir = task.place.join("aeron");
        let options = aeron::MediaDriverOptions {
            ipc_term_buffer_length: TERM,
            ..aeron::MediaDriverOptions::new(&dir)
        };
        let driver = task.binds.then(|| aeron::MediaDriver::launch(&options)).transpose();
        let driver = driver.map_err(|error| failed("start the media driver", error))?;
        let client = aeron::Client::connect(&aeron::ClientOptions::new(&dir));
        Ok(Self {
            client: client.map_err(|error| failed("connect to the media driver", error))?,
            _driver: driver,
        })
    }

    fn out(&self, task: &Task, direction: Direction) -> Result<AeronOut, Stop> {
        let publication = self.client.add_exclusive_publication("aeron:ipc", stream(direction), WAIT);
        let publication = publication.map_err(|error| failed("publish", error))?;
        Ok(AeronOut { publication, message: vec![7; task.size] })
    }

    fn from(&self, _: &Task, direction: Direction) -> Result<AeronFrom, Stop> {
        let subscription = self.client.add_subscription("aeron:ipc", stream(direction), WAIT);
        Ok(AeronFrom { subscription: subscription.map_err(|error| failed("subscribe", error))? })
    }
}

fn stream(direction: Direction) -> i32 {
    match direction {
        Direction::Up => 1,
        Direction::Down => 2,
    }
}

pub(super) struct AeronOut {
    publication: aeron::ExclusivePublication,
    message: Vec<u8>,
}

impl Out for AeronOut {
    #[inline]
    fn send(&mut self) -> Result<(), Stop> {
        use aeron::OfferError::{AdminAction, BackPressured, NotConnected};
        loop {
            match self.publication.offer(&self.message) {
                Ok(_) => return Ok(()),
                Err(AdminAction | BackPressured | NotConnected) => std::hint::spin_loop(),
                Err(error) => return Err(failed("offer", error)),
            }
        }
    }

    fn send_batch(&mut self) -> Result<(), Stop> {
        (0..BATCH).try_for_each(|_| self.send())
    }
}

pub(super) struct AeronFrom {
    subscription: aeron::Subscription,
}

impl AeronFrom {
    /// Takes up to `limit` fragments; tells how many messages they made.
    #[inline]
    fn poll(&mut self, limit: usize) -> Result<usize, Stop> {
        let mut messages = 0;
        let mut copy = [0; TOUCHED];
        let taken = self.subscription.poll(limit, &mut |fragment| {
            let len = fragment.data.len().min(TOUCHED);
            copy[..len].copy_from_slice(&fragment.data[..len]);
            messages += 1;
        });
        taken.map_err(|error| failed("poll", error))?;
        std::hint::black_box(copy);
        Ok(messages)
    }

    #[inline]
    fn poll_until(&mut self, limit: usize) -> Result<usize, Stop> {
        loop {
            match self.poll(limit)? {
                0 => std::hint::spin_loop(),
                messages => return Ok(messages),
            }
        }
    }
}

impl From for AeronFrom {
    #[inline]
    fn receive(&mut self) -> Result<(), Stop> {
        self.poll_until(1).map(drop)
    }

    fn receive_batch(&mut self) -> Result<usize, Stop> {
        self.poll_until(BATCH as usize)
    }
}
