//! A peer written by hand: greeting, frames and commands over a plain stream.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// A stream to a bound tcp endpoint that fails rather than waits for ever.
pub fn connect(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    patient(&stream);
    stream
}

pub fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// A greeting of ZMTP 3.`minor`.
pub fn greeting(minor: u8, mechanism: &str, as_server: bool) -> [u8; 64] {
    let mut greeting = [0; 64];
    greeting[0] = 0xFF;
    greeting[8] = 1;
    greeting[9] = 0x7F;
    greeting[10] = 3;
    greeting[11] = minor;
    greeting[12..12 + mechanism.len()].copy_from_slice(mechanism.as_bytes());
    greeting[32] = u8::from(as_server);
    greeting
}

pub fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 9);
    match u8::try_from(body.len()) {
        Ok(len) => frame.extend([flags, len]),
        Err(_) => {
            frame.push(flags | 2);
            frame.extend((body.len() as u64).to_be_bytes());
        }
    }
    frame.extend(body);
    frame
}

pub fn command(name: &str, data: &[u8]) -> Vec<u8> {
    let mut body = vec![name.len() as u8];
    body.extend(name.as_bytes());
    body.extend(data);
    frame(4, &body)
}

pub fn property(name: &str, value: &[u8]) -> Vec<u8> {
    let mut property = vec![name.len() as u8];
    property.extend(name.as_bytes());
    property.extend((value.len() as u32).to_be_bytes());
    property.extend(value);
    property
}

/// Reads one frame: its flags and its body.
pub fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut flags = [0];
    stream.read_exact(&mut flags)?;
    let len = if flags[0] & 2 == 0 {
        let mut len = [0];
        stream.read_exact(&mut len)?;
        usize::from(len[0])
    } else {
        let mut len = [0; 8];
        stream.read_exact(&mut len)?;
        u64::from_be_bytes(len) as usize
    };
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok((flags[0], body))
}

/// Exchanges greetings.
pub fn greet(stream: &mut TcpStream, minor: u8, mechanism: &str) {
    patient(stream);
    stream.write_all(&greeting(minor, mechanism, false)).unwrap();
    stream.read_exact(&mut [0; 64]).unwrap();
}

/// A whole NULL handshake as `socket_type`.
pub fn handshake(stream: &mut TcpStream, minor: u8, socket_type: &str, identity: &[u8]) {
    greet(stream, minor, "NULL");
    let mut ready = property("Socket-Type", socket_type.as_bytes());
    ready.extend(property("Identity", identity));
    stream.write_all(&command("READY", &ready)).unwrap();
    let (flags, body) = read_frame(stream).unwrap();
    assert_eq!(flags, 4);
    assert!(body.starts_with(b"\x05READY"), "{body:?}");
}

/// Reads until the peer closes; false when something else happened.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}
