//! What a worker prints: given on to the runtime's standard error with the number of the worker in front of each line, not
//! faster than somebody can read, and the end of it kept for `status` (VX-436).
//!
//! A worker that prints without end costs a thread of the runtime what it prints, and nothing else; what is left out is
//! counted. A process that the worker left behind may hold the pipe open, so reading ends with the session and not with the
//! pipe.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{
        PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{Errno, ioctl_fionbio},
};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Arc, Mutex},
};
use tidegate_udf::pace::Pace;

/// The end of what the workers of a lane printed.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Mutex<VecDeque<u8>>,
}

impl Tail {
    /// The text, cut at the front.
    pub fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let (front, back) = bytes.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }

    fn add(&self, more: &[u8]) {
        let more = more.get(more.len().saturating_sub(TAIL)..).unwrap_or_default();
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (bytes.len() + more.len()).saturating_sub(TAIL);
        bytes.drain(..over);
        bytes.extend(more);
    }
}

/// The thread that listens to one worker.
#[derive(Debug)]
pub(super) struct Says {
    stop: OwnedFd,
    ended: Receiver<()>,
}

impl Says {
    /// Listens to worker `number`.
    pub(super) fn listen(number: u32, pipe: PipeReader, tail: Arc<Tail>) -> io::Result<Self> {
        // Read until nothing is there, without waiting for more.
        ioctl_fionbio(&pipe, true)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let (ending, ended) = sync_channel(1);
        std::thread::Builder::new().name(format!("lane-{number}-says")).spawn(move || {
            let mut lines = Lines::new(number);
            listen(pipe, &stopped, |bytes| {
                tail.add(bytes);
                lines.take(bytes, monotonic_now(), &mut io::stderr());
            });
            lines.end(monotonic_now(), &mut io::stderr());
            // Nobody may be waiting any more.
            let _ = ending.send(());
        })?;
        Ok(Self { stop, ended })
    }

    /// Gives on what is there already, and ends. Does not wait for ever for a standard error that nobody reads.
    pub(super) fn finish(&self) {
        // A counter that is full is set as well.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// Reads until the pipe ends, or until it is empty after the stop.
fn listen(mut pipe: PipeReader, stop: &OwnedFd, mut take: impl FnMut(&[u8])) {
    let mut bytes = [0; 4096];
    // What may still come after the stop.
    let mut left = LAST_WORDS;
    loop {
        let mut fds =
            [PollFd::new(&pipe, PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let stopped = !fds[1].revents().is_empty();
        match pipe.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                take(bytes.get(..count).unwrap_or_default());
                if stopped {
                    left = left.saturating_sub(count);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stopped => {}
            Err(_) => return,
        }
        if left == 0 {
            return;
        }
    }
}

/// Lines with a name in front, as many as may be printed.
struct Lines {
    number: u32,
    line: Vec<u8>,
    pace: Pace,
}

impl Lines {
    fn new(number: u32) -> Self {
        Self { number, line: Vec::new(), pace: Pace::new(BURST, INTERVAL) }
    }

    fn take(&mut self, bytes: &[u8], now: Nanos, to: &mut impl Write) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = LONGEST.saturating_sub(self.line.len());
            self.line.extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or_default());
            if piece.ends_with(b"\n") {
                self.print(now, to);
            }
        }
    }

    fn end(&mut self, now: Nanos, to: &mut impl Write) {
        if !self.line.is_empty() {
            self.print(now, to);
        }
        let left_out = self.pace.left_out();
        self.tell(left_out, to);
    }

    fn print(&mut self, now: Nanos, to: &mut impl Write) {
        let line = std::mem::take(&mut self.line);
        let Some(left_out) = self.pace.take(now) else { return };
        self.tell(left_out, to);
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
        // There is no place left to complain to when standard error is closed.
        let _ = to.write_all(format!("worker {}: {text}\n", self.number).as_bytes());
    }

    fn tell(&self, left_out: u64, to: &mut impl Write) {
        if left_out > 0 {
            let _ = to.write_all(format!("worker {}: ({left_out} lines left out)\n", self.number).as_bytes());
        }
    }
}

/// What is kept.
const TAIL: usize = 64 << 10;
/// Bytes of a line that are printed.
const LONGEST: usize = 4 << 10;
/// Lines that may be printed at once, and how soon there may be one more.
const BURST: u64 = 200;
const INTERVAL: Nanos = Nanos::from_millis(20);
/// Bytes that are read after the end of a worker, whoever writes them.
const LAST_WORDS: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(lines: &mut Lines, bytes: &[u8], now: Nanos) -> String {
        let mut to = Vec::new();
        lines.take(bytes, now, &mut to);
        String::from_utf8(to).expect("text")
    }

    /// Rules: VX-436.
    #[test]
    fn lines_have_the_number_of_their_worker_and_a_limit() {
        let now = Nanos::from_secs(5);
        let mut lines = Lines::new(3);
        assert_eq!(printed(&mut lines, b"one\ntw", now), "worker 3: one\n");
        assert_eq!(printed(&mut lines, b"o\n", now), "worker 3: two\n");
        let flood = "x\n".repeat(1000);
        assert_eq!(printed(&mut lines, flood.as_bytes(), now).lines().count() as u64, BURST - 2);
        assert_eq!(printed(&mut lines, b"lost\n", now), "");
        let later = now.saturating_add(INTERVAL);
        let expected = format!("worker 3: ({} lines left out)\nworker 3: seen\n", 1000 - (BURST - 2) + 1);
        assert_eq!(printed(&mut lines, b"seen\n", later), expected);
        let long = "y".repeat(LONGEST + 100) + "\n";
        let line = printed(&mut lines, long.as_bytes(), later.saturating_add(INTERVAL));
        assert_eq!(line.len(), "worker 3: \n".len() + LONGEST);
    }

    /// Rules: VX-436.
    #[test]
    fn the_last_64_kib_are_kept() {
        let tail = Tail::default();
        tail.add(b"first");
        tail.add(&vec![b'.'; TAIL - 5]);
        assert!(tail.text().starts_with("first"));
        tail.add(b"last");
        let text = tail.text();
        assert!(text.len() == TAIL && text.starts_with("t.") && text.ends_with(".last"), "{}", &text[..9]);
        tail.add(&vec![b'z'; 3 * TAIL]);
        assert_eq!(tail.text(), "z".repeat(TAIL));
    }

    /// A pipe that stays open behind its worker.
    /// Rules: VX-436.
    #[test]
    fn what_is_there_is_taken_and_a_pipe_that_does_not_end_is_left() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let tail = Arc::new(Tail::default());
        let says = Says::listen(0, reader, tail.clone()).expect("a thread");
        writer.write_all(b"the last words\n").expect("room");
        says.finish();
        assert_eq!(tail.text(), "the last words\n");
        drop(writer);
    }
}
