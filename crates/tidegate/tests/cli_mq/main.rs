//! `tidegate mq`: real processes that talk to each other.
#![allow(clippy::expect_used, reason = "a test may fail")]

mod bench;
#[path = "../support/bench.rs"]
mod beside;
mod errors;
mod keys;
mod patterns;
mod proxies;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::fs::File;
use std::io::Write;
use std::process::Command;

use support::{Running, tidegate};

/// A command `tidegate mq ...`, with these bytes on standard input.
fn mq(args: &[&str], stdin: &str) -> Command {
    let mut file: File = tempfile::tempfile().expect("a file");
    file.write_all(stdin.as_bytes()).expect("room for it");
    std::io::Seek::rewind(&mut file).expect("a file");
    let mut command = tidegate();
    command.arg("mq").args(args).stdin(file);
    command
}

/// Starts a command that binds to a wildcard, and tells where it is bound.
fn bound(args: &[&str], stdin: &str) -> (Running, String) {
    let running = Running::start(&mut mq(args, stdin));
    let line = running.error_line();
    let endpoint = line.strip_prefix("bound to ").expect("the place it is bound to").to_owned();
    (running, endpoint)
}

/// Runs a command to its end.
fn run(args: &[&str], stdin: &str) -> support::Outcome {
    Running::start(&mut mq(args, stdin)).finish()
}
