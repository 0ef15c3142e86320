//! The other end of an admin socket.

#![cfg(feature = "vertex")]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
}

/// Asks the server at a socket, which has to answer within a time.
pub(crate) fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
    within: Duration,
) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: vertex\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let text = String::from_utf8(bytes).map_err(|_| nonsense())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(nonsense)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(nonsense)?;
    Ok(Answer { code, body: body.to_owned() })
}

const MAX_ANSWER: u64 = 64 << 20;
