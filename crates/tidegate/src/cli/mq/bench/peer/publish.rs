//! One publisher, and many subscribers of everything.

use std::cell::{Cell, RefCell};

use tidegate::mq::{AnySocket, Error, Message, SocketType};

use super::many::{BURST, drive, step_back};
use super::{Task, finish, rate};
use crate::cli::bench::window::{Place, Window};
use crate::output::Stop;

pub(super) fn publisher(task: &Task) -> Result<(), Stop> {
    rate::flood(task, &task.socket(SocketType::Pub)?)
}

pub(super) fn subscribers(task: &Task) -> Result<(), Stop> {
    let subscriber = || -> Result<AnySocket, Stop> {
        let socket = task.idle_socket(SocketType::Sub)?;
        socket.subscribe("")?;
        socket.connect(&task.endpoint)?;
        Ok(socket)
    };
    let sockets: Vec<_> = (0..task.count).map(|_| subscriber()).collect::<Result<_, _>>()?;
    let stalled = if task.stalled { Some(subscriber()?) } else { None };
    let audience = Audience { missing: Cell::new(sockets.len()), window: RefCell::default() };
    drive(sockets.iter().map(|socket| audience.count(task, socket)))?;
    drop(stalled);
    finish(&audience.window.borrow().as_ref().map_or_else(Default::default, Window::result))
}

/// All that are read.
struct Audience {
    /// How many have not received anything yet.
    missing: Cell<usize>,
    /// From when none is missing.
    window: RefCell<Option<Window>>,
}

impl Audience {
    async fn count(&self, task: &Task, socket: &AnySocket) -> Result<(), Stop> {
        socket.recv().await?;
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0 {
            *self.window.borrow_mut() = Some(Window::new(task.times));
        }
        loop {
            if self.take(&socket.recv().await?) {
                return Ok(());
            }
            for _ in 1..BURST {
                match socket.try_recv() {
                    Ok(message) if self.take(&message) => return Ok(()),
                    Ok(_) => {}
                    Err(Error::WouldBlock) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            step_back().await;
        }
    }

    /// Whether this was the last message.
    fn take(&self, message: &Message) -> bool {
        let mut window = self.window.borrow_mut();
        window.as_mut().is_some_and(|window| window.take(message.byte_len()) == Place::End)
    }
}
