//! Sessions without security or with PLAIN, driven by octets and by time.

mod greeting;
mod handshake;
mod heartbeat;
mod splits;
mod support;
mod table;
mod traffic;
