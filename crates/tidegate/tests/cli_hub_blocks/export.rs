//! The `/metrics` page of `tidegate hub export`.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::block::{Example, NAME};
use crate::support::{DEADLINE, Running, tidegate};

/// What the server at `address` answers.
fn ask(address: &str, request: &[u8]) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    connection.write_all(request).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// Rules: DH-250.
#[test]
fn blocks_come_and_go_on_the_page() {
    let example = Example::new();
    let dir = example.dir.path();
    let server = Running::start(
        tidegate().args(["--json", "hub", "export", "--listen", "127.0.0.1:0", "--dir"]).arg(dir),
    );
    let ready = server.json();
    let url = ready["url"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
    let page = ask(&address, b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("application/openmetrics-text"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    assert!(body.contains(&format!(
        "tidegate_hub_writes_total{{block=\"{NAME}\",channel=\"sensor_temperature\"}} 1234567"
    )));
    assert!(body.ends_with("# EOF\n"));
    std::fs::remove_file(dir.join(NAME)).unwrap();
    assert!(!ask(&address, b"GET /metrics HTTP/1.0\n\n").contains(NAME));

    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nbytes", "405"),
        (b"\xFF\xFE\r\n\r\n", "400"),
    ] {
        let answer = ask(&address, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 4300]].concat();
    assert!(ask(&address, &long).starts_with("HTTP/1.1 431 "));
    // One that says nothing is not waited for longer than two seconds.
    let silent = TcpStream::connect(&address).unwrap();
    assert!(ask(&address, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    drop(silent);
    server.signal(rustix::process::Signal::TERM);
    server.finish().exits(0);
}

/// Rules: DH-250.
#[test]
fn the_page_is_for_this_host_only() {
    let out = crate::support::run(["hub", "export", "--listen", "0.0.0.0:9464", "--json"]).exits(2);
    assert_eq!(out.error().0, "not_loopback");
}
