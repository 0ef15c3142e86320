//! Looking up host names away from the workers (MQ-259).
//!
//! The system's resolver blocks for as long as it likes. A few threads do that; they are started when needed and end
//! when there is nothing to look up.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Most lookups at a time.
const THREADS: usize = 8;
/// How long a thread waits for more to look up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a lookup gives.
pub(super) type Resolved = io::Result<Vec<SocketAddr>>;

type Answer = Box<dyn FnOnce(Resolved) + Send>;

/// Looks up names on threads of its own.
#[derive(Clone, Default)]
pub(super) struct Resolver(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    questions: VecDeque<(String, u16, bool, Answer)>,
    threads: usize,
    idle: usize,
}

impl Resolver {
    /// Looks `host` up and hands what is found to `answer`, on another thread.
    pub(super) fn lookup(&self, host: String, port: u16, ipv6: bool, answer: Answer) {
        let mut queue = lock(&self.0.queue);
        queue.questions.push_back((host, port, ipv6, answer));
        // A thread that is idle may have been told of the question before this one, and not yet have run.
        if queue.questions.len() > queue.idle && queue.threads < THREADS {
            queue.threads += 1;
            let shared = self.0.clone();
            let started =
                thread::Builder::new().name("tidegate-resolve".into()).spawn(move || shared.serve());
            if let Err(error) = started {
                queue.threads -= 1;
                if queue.threads == 0
                    && let Some((.., answer)) = queue.questions.pop_back()
                {
                    drop(queue);
                    answer(Err(error));
                }
            }
            return;
        }
        drop(queue);
        self.0.more.notify_one();
    }
}

impl Shared {
    fn serve(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if let Some((host, port, ipv6, answer)) = queue.questions.pop_front() {
                drop(queue);
                answer(now(&host, port, ipv6));
                queue = lock(&self.queue);
                continue;
            }
            queue.idle += 1;
            let (woken, timeout) =
                self.more.wait_timeout(queue, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.questions.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

/// Looks `host` up on the calling thread: without IPv6 only IPv4 addresses, else those of IPv6 first (MQ-257).
pub(super) fn now(host: &str, port: u16, ipv6: bool) -> Resolved {
    let mut found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if ipv6 {
        found.sort_by_key(SocketAddr::is_ipv4);
    } else {
        found.retain(SocketAddr::is_ipv4);
    }
    found.dedup();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address of an enabled family"));
    }
    Ok(found)
}

fn lock(queue: &Mutex<Queue>) -> std::sync::MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
