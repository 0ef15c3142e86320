//! A peer made of octets: what it sends is up to the test.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Time that anything may take before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Raw(pub(crate) TcpStream);

/// The address in a `tcp://` endpoint.
pub(crate) fn address(endpoint: &str) -> SocketAddr {
    endpoint.strip_prefix("tcp://").unwrap().parse().unwrap()
}

impl Raw {
    pub(crate) fn connect(endpoint: &str) -> Self {
        Self::of(TcpStream::connect(address(endpoint)).unwrap())
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// A peer of type `kind` whose handshake is complete.
    pub(crate) fn up(endpoint: &str, kind: &str, identity: &str) -> Self {
        let mut peer = Self::connect(endpoint);
        peer.shake(kind, identity);
        peer
    }

    /// Does its part of a NULL handshake and waits for the other side's.
    pub(crate) fn shake(&mut self, kind: &str, identity: &str) {
        self.send(&[greeting("NULL"), ready(kind, identity)].concat());
        self.take(64);
        let (flags, body) = self.frame();
        assert_eq!((flags & 4, &body[..6]), (4, &b"\x05READY"[..]));
    }

    #[track_caller]
    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.0.write_all(octets).unwrap();
    }

    /// Sends although the other side may be closing.
    pub(crate) fn try_send(&mut self, octets: &[u8]) -> bool {
        self.0.write_all(octets).is_ok()
    }

    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.0.read_exact(&mut octets).unwrap();
        octets
    }

    /// The next frame: flags and body.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        let size = if head[0] & 2 == 0 {
            usize::from(head[1])
        } else {
            let mut size = [0; 8];
            size[0] = head[1];
            self.0.read_exact(&mut size[1..]).unwrap();
            usize::try_from(u64::from_be_bytes(size)).unwrap()
        };
        (head[0], self.take(size))
    }

    /// Waits until the other side has taken note of everything that was sent.
    #[track_caller]
    pub(crate) fn has_been_heard(&mut self) {
        self.send(&command("PING", b"\0\0heard"));
        assert_eq!(self.frame(), (4, b"\x04PONGheard".to_vec()));
    }

    /// Reads until the other side has closed, and tells how long that took.
    #[track_caller]
    pub(crate) fn until_closed(&mut self) -> Duration {
        let start = Instant::now();
        let mut sink = [0; 65_536];
        loop {
            match self.0.read(&mut sink) {
                Ok(0) => return start.elapsed(),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return start.elapsed(),
                Err(error) => panic!("not closed after {:?}: {error}", start.elapsed()),
            }
        }
    }

    /// Closes with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub(crate) fn greeting(mechanism: &str) -> Vec<u8> {
    let mut octets = vec![0; 64];
    octets[0] = 0xff;
    octets[8] = 1;
    octets[9] = 0x7f;
    octets[10] = 3;
    octets[11] = 1;
    octets[12..12 + mechanism.len()].copy_from_slice(mechanism.as_bytes());
    octets
}

pub(crate) fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let size = match u8::try_from(body.len()) {
        Ok(len) => vec![flags, len],
        Err(_) => long(flags, body.len() as u64),
    };
    [size.as_slice(), body].concat()
}

/// The header of a frame that says it has `size` octets.
pub(crate) fn long(flags: u8, size: u64) -> Vec<u8> {
    [&[flags | 2], size.to_be_bytes().as_slice()].concat()
}

pub(crate) fn command(name: &str, data: &[u8]) -> Vec<u8> {
    frame(4, &[&[name.len() as u8], name.as_bytes(), data].concat())
}

/// A message of several parts.
pub(crate) fn message(parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    let frames = parts.iter().enumerate().map(|(index, part)| frame(u8::from(index < last), part));
    frames.flatten().collect()
}

pub(crate) fn ready(kind: &str, identity: &str) -> Vec<u8> {
    let mut data = property("Socket-Type", kind);
    if !identity.is_empty() {
        data.extend(property("Identity", identity));
    }
    command("READY", &data)
}

fn property(name: &str, value: &str) -> Vec<u8> {
    let size = u32::try_from(value.len()).unwrap().to_be_bytes();
    [&[name.len() as u8], name.as_bytes(), &size, value.as_bytes()].concat()
}
