//! The tutorial of the vertex, done: its files written, its commands run, what they print compared.
#![cfg(feature = "vertex")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const GUIDE: &str = "docs/guides/vertex/getting-started.md";

/// The fenced blocks of a text: what stands behind the fence, and the lines.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|&line| line != "```").collect();
            blocks.push((info.to_owned(), body.join("\n") + "\n"));
        }
    }
    blocks
}

/// Runs a block of commands, of which none may fail; what they print on standard output.
fn shell(dir: &Path, commands: &str) -> String {
    let root = Path::new(ROOT).canonicalize().unwrap();
    let python = root.join(".venv/bin");
    assert!(python.join("python").exists(), "{} has no python; run `make setup`", python.display());
    let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", tidegate.display(), python.display());
    let ran = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .env_clear()
        .env("PATH", path)
        .env("TIDEGATE_DIR", dir.join("node"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{commands}\n{out}\n{err}");
    out.into_owned()
}

/// Rules: VX-500, VX-861.
#[test]
fn the_tutorial_works_as_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(Path::new(ROOT).join(GUIDE)).unwrap();
    let (mut printed, mut files, mut runs, mut compared) = (String::new(), 0, 0, 0);
    for (info, body) in blocks(&text) {
        match info.split_once(' ') {
            None if info == "sh" => {
                printed = shell(dir.path(), &body);
                runs += 1;
            }
            Some(("text", "output")) => {
                assert!(printed.ends_with(&body), "expected\n{body}\nprinted\n{printed}");
                compared += 1;
            }
            Some((_, name)) => {
                fs::write(dir.path().join(name), body).unwrap();
                files += 1;
            }
            None => {}
        }
    }
    assert_eq!((files, runs, compared), (3, 5, 5));
}
