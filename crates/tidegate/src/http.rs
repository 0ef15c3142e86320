//! Requests and answers of HTTP/1.1, as far as `/metrics` pages, health checks and admin sockets need them.
//!
//! One request for each connection, each within [`REQUEST_TIME`], [`MAX_REQUEST`] bytes of head and [`MAX_BODY`] of body; no
//! keeping alive, no encodings. Who connects is served by a thread of his own, up to a bound; beyond it connections are closed.

mod client;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tidegate_shm::sync::{AtomicUsize, Ordering};

#[cfg(feature = "vertex")]
pub(crate) use client::{Answer, ask};

/// Bytes of the longest head of a request that is read.
pub const MAX_REQUEST: usize = 4096;
/// Time within which a request must be there, and again for taking the answer.
pub const REQUEST_TIME: Duration = Duration::from_secs(2);
/// Bytes of the longest body of a request.
const MAX_BODY: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without what follows a question mark.
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// Code and words.
    pub(crate) status: &'static str,
    /// Content type.
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Response {
    /// A line of text.
    pub(crate) fn text(status: &'static str, line: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: format!("{line}\n") }
    }

    /// The same with what to do instead.
    pub(crate) fn refusal(status: &'static str, hint: &str) -> Self {
        Self::text(status, &format!("{status}; {hint}"))
    }
}

pub(crate) const NOT_FOUND: &str = "404 Not Found";
pub(crate) const WRONG_METHOD: &str = "405 Method Not Allowed";

/// Where a server listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg_attr(not(feature = "vertex"), allow(dead_code, reason = "only a vertex has an admin socket"))]
    Unix(UnixListener),
}

/// What answers requests.
pub(crate) type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A running server. Ends when it is stopped or dropped; a request that is being answered then is answered still.
#[derive(Debug)]
pub(crate) struct Server {
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<Result<(), io::Error>>>,
}

impl Server {
    /// Serves at most `most` connections at a time.
    pub(crate) fn start(
        name: &str,
        listener: Listener,
        most: usize,
        handler: Arc<Handler>,
    ) -> io::Result<Self> {
        match &listener {
            Listener::Tcp(listener) => listener.set_nonblocking(true)?,
            Listener::Unix(listener) => listener.set_nonblocking(true)?,
        }
        let (stop, stopped) = UnixStream::pair()?;
        let serve = move || serve(&listener, &stopped, most, &handler);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(serve)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Whether it still serves.
    #[cfg(feature = "hub")]
    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it; why it had ended before.
    pub(crate) fn join(&mut self) -> io::Result<()> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the server panicked")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::warn!(%error, "a server ended");
        }
    }
}

/// A connection with times.
trait Connection: Read + Write + Send + 'static {
    fn prepare(&self) -> io::Result<()>;
    fn reads_within(&self, time: Duration) -> io::Result<()>;
    fn writes_within(&self, time: Duration) -> io::Result<()>;
}

macro_rules! connection {
    ($stream:ty) => {
        impl Connection for $stream {
            fn prepare(&self) -> io::Result<()> {
                self.set_nonblocking(false)
            }
            fn reads_within(&self, time: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(time))
            }
            fn writes_within(&self, time: Duration) -> io::Result<()> {
                self.set_write_timeout(Some(time))
            }
        }
    };
}
connection!(TcpStream);
connection!(UnixStream);

fn serve(listener: &Listener, stopped: &UnixStream, most: usize, handler: &Arc<Handler>) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let listening: BorrowedFd<'_> = match listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        let mut fds = [
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(listening, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        let accepted = match listener {
            Listener::Tcp(listener) => {
                listener.accept().map(|(stream, _)| attend(stream, most, &open, handler))
            }
            Listener::Unix(listener) => {
                listener.accept().map(|(stream, _)| attend(stream, most, &open, handler))
            }
        };
        match accepted {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Without a descriptor for the connection the listener stays ready; waiting is better than spinning.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                std::thread::sleep(REQUEST_TIME / 10);
            }
        }
    }
}

/// Answers a connection on a thread of its own, unless too many are open.
fn attend(connection: impl Connection, most: usize, open: &Arc<AtomicUsize>, handler: &Arc<Handler>) {
    // Relaxed: only a bound.
    if open.fetch_add(1, Ordering::Relaxed) >= most {
        open.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (counted, handler) = (open.clone(), handler.clone());
    let spawned = std::thread::Builder::new().name("request".to_owned()).spawn(move || {
        if let Err(error) = answer(connection, &*handler) {
            tracing::debug!(%error, "a connection ended without an answer");
        }
        counted.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = spawned {
        open.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%error, "cannot serve a connection");
    }
}

fn answer(mut connection: impl Connection, handler: &Handler) -> io::Result<()> {
    connection.prepare()?;
    let response = match read_request(&mut connection)? {
        Ok(request) => handler(&request),
        Err(refusal) => Response::refusal(refusal, "one request of HTTP/1.1 for each connection"),
    };
    let Response { status, kind, body } = &response;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    write_within(&mut connection, &[head.as_bytes(), body.as_bytes()])
}

/// Reads a request. `Ok(Err(..))` is the status to refuse it with.
fn read_request(connection: &mut impl Connection) -> io::Result<Result<Request, &'static str>> {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut bytes = Vec::new();
    let mut piece = [0; 512];
    let mut head = None;
    loop {
        if head.is_none() {
            head = match end_of_head(&bytes).map(|end| (end, parse(bytes.get(..end).unwrap_or_default()))) {
                None if bytes.len() > MAX_REQUEST => return Ok(Err("431 Request Header Fields Too Large")),
                None => None,
                Some((_, Err(refusal))) => return Ok(Err(refusal)),
                Some((end, Ok((request, len)))) => Some((end, request, len)),
            };
        }
        if let Some((end, request, len)) = &head
            && let Some(body) = bytes.get(*end..end + len)
        {
            return Ok(Ok(Request { body: body.to_vec(), ..request.clone() }));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err("408 Request Timeout"));
        }
        connection.reads_within(left)?;
        match connection.read(&mut piece) {
            Ok(0) => return Ok(Err("400 Bad Request")),
            Ok(count) => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The request of a head, still without its body, and the length of that.
fn parse(head: &[u8]) -> Result<(Request, usize), &'static str> {
    const BAD: &str = "400 Bad Request";
    let text = std::str::from_utf8(head).map_err(|_| BAD)?;
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if !version.starts_with("HTTP/1.") || method.is_empty() || !target.starts_with('/') {
        return Err(BAD);
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut lens = fields.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-length"));
    let len = match lens.next() {
        None => 0,
        Some((_, len)) => len.trim().parse().map_err(|_| BAD)?,
    };
    if len > MAX_BODY {
        return Err("413 Content Too Large");
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Ok((Request { method: method.to_owned(), path, body: Vec::new() }, len))
}

/// Where the body begins.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let find =
        |end: &[u8]| bytes.windows(end.len()).position(|window| window == end).map(|at| at + end.len());
    match (find(b"\r\n\r\n"), find(b"\n\n")) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn write_within(connection: &mut impl Connection, parts: &[&[u8]]) -> io::Result<()> {
    let deadline = Instant::now() + REQUEST_TIME;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            connection.writes_within(left)?;
            let count = connection.write(rest)?;
            rest = rest.get(count..).unwrap_or_default();
        }
    }
    connection.flush()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, String, usize), &'static str> {
        parse(text.as_bytes()).map(|(request, len)| (request.method, request.path, len))
    }

    #[test]
    fn a_head_is_a_line_and_fields() {
        let post = "POST /fence?x=1 HTTP/1.1\r\nHost: here\r\nCONTENT-LENGTH: 12\r\n\r\n";
        assert_eq!(parsed(post), Ok(("POST".to_owned(), "/fence".to_owned(), 12)));
        assert_eq!(parsed("GET / HTTP/1.0\n\n"), Ok(("GET".to_owned(), "/".to_owned(), 0)));
        for nonsense in [
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET /metrics\r\n\r\n",
            "GET /metrics SPDY/3\r\n\r\n",
            "GET metrics HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 more\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "\0\0 \0 \0",
        ] {
            assert_eq!(parsed(nonsense), Err("400 Bad Request"), "{nonsense:?}");
        }
        assert_eq!(parsed("POST / HTTP/1.1\r\nContent-Length: 4097\r\n\r\n"), Err("413 Content Too Large"));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\n\r\nbody"), Some(18));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\n"), None);
    }
}
