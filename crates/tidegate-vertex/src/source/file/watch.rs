//! Tells when files of a directory have changed: inotify, in a thread that sleeps until there is something.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, thread};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{self, CreateFlags, Reader, WatchFlags},
    io::{Errno, write},
};
use tidegate_shm::sync::Arc;

use crate::wake::Waker;

/// A directory that is watched until this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<OwnedFd>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    /// Wakes whenever something in `dir` was written or got another name.
    pub(super) fn start(dir: &Path, waker: Waker) -> io::Result<Self> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let kinds = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
        inotify::add_watch(&changes, dir, kinds)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = stop.clone();
        let watch = move || {
            let mut room = [MaybeUninit::uninit(); 4096];
            loop {
                let mut fds = [PollFd::new(&changes, PollFlags::IN), PollFd::new(&*stopped, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(_) if fds[1].revents().is_empty() => {}
                    Err(Errno::INTR) => continue,
                    _ => return,
                }
                // What changed does not matter, only that something did.
                let mut events = Reader::new(&changes, &mut room);
                while events.next().is_ok() {}
                waker.wake();
            }
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(watch)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An eventfd takes a number unless it is about to overflow, and then it is readable.
        let _ = write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
