//! A port for tests of who is dialed before he listens.

#![allow(unreachable_pub, reason = "a module of several tests")]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::{
    net::{SocketAddr, SocketAddrV4, TcpListener},
    os::fd::OwnedFd,
};

/// A port at which nobody listens, and which nobody else is given meanwhile.
pub struct Kept(OwnedFd);

impl Kept {
    pub fn new() -> (Self, SocketAddr) {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddrV4::new([127, 0, 0, 1].into(), 0)).unwrap();
        let place = SocketAddrV4::try_from(getsockname(&socket).unwrap()).unwrap();
        (Self(socket), place.into())
    }

    pub fn listen(self) -> TcpListener {
        rustix::net::listen(&self.0, 8).unwrap();
        self.0.into()
    }
}
