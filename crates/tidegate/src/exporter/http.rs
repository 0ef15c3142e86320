//! One request, one answer, and the connection is closed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;

/// Bytes of the longest request that is read.
pub const MAX_REQUEST: usize = 4096;
/// Time within which a request must be there, and again for taking the answer.
pub const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Answers one connection.
pub(super) fn answer(mut connection: TcpStream, registry: &Registry) -> io::Result<()> {
    connection.set_nonblocking(false)?;
    let (status, body) = match read_request(&mut connection)? {
        Ok(()) => match tidegate_hub::metrics::prometheus::exposition(registry) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("500 Internal Server Error", "a collector failed\n".to_owned()),
        },
        Err(refusal) => (refusal, format!("{refusal}; GET /metrics\n")),
    };
    let kind = if status == "200 OK" { OPEN_METRICS } else { "text/plain; charset=utf-8" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    write_within(&mut connection, &[head.as_bytes(), body.as_bytes()])
}

/// Reads up to the end of the head of a request. `Ok(Err(..))` is the status to refuse it with.
fn read_request(connection: &mut TcpStream) -> io::Result<Result<(), &'static str>> {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut request = Vec::new();
    let mut piece = [0; 512];
    while !ends_head(&request) {
        if request.len() > MAX_REQUEST {
            return Ok(Err("431 Request Header Fields Too Large"));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err("408 Request Timeout"));
        }
        connection.set_read_timeout(Some(left))?;
        match connection.read(&mut piece) {
            Ok(0) => return Ok(Err("400 Bad Request")),
            Ok(count) => request.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(judge(&request))
}

/// Whether the request is for the page.
fn judge(request: &[u8]) -> Result<(), &'static str> {
    let line = request.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    match (method, target, version) {
        (Some(_), Some(_), Some(version)) if !version.starts_with(b"HTTP/1.") => Err("400 Bad Request"),
        (Some(b"GET"), Some(target), Some(_)) => {
            let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
            if path == b"/metrics" { Ok(()) } else { Err("404 Not Found") }
        }
        (Some(_), Some(_), Some(_)) => Err("405 Method Not Allowed"),
        _ => Err("400 Bad Request"),
    }
}

fn ends_head(request: &[u8]) -> bool {
    request.windows(4).any(|end| end == b"\r\n\r\n") || request.windows(2).any(|end| end == b"\n\n")
}

fn write_within(connection: &mut TcpStream, parts: &[&[u8]]) -> io::Result<()> {
    let deadline = Instant::now() + REQUEST_TIME;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            connection.set_write_timeout(Some(left))?;
            let count = connection.write(rest)?;
            rest = rest.get(count..).unwrap_or_default();
        }
    }
    connection.flush()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_is_served() {
        let judged = |text: &str| judge(text.as_bytes()).err().map_or("200", |status| &status[..3]);
        assert_eq!(judged("GET /metrics HTTP/1.1\r\n\r\n"), "200");
        assert_eq!(judged("GET /metrics?a=b HTTP/1.0\r\n\r\n"), "200");
        assert_eq!(judged("GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(judged("GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(judged("POST /metrics HTTP/1.1\r\n\r\n"), "405");
        for nonsense in
            ["\r\n\r\n", "GET\r\n\r\n", "GET /metrics\r\n\r\n", "GET /metrics SPDY/3\r\n\r\n", "\0\0 \0 \0"]
        {
            assert_eq!(judged(nonsense), "400", "{nonsense:?}");
        }
    }
}
