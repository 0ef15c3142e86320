//! The programs that are measured, and a measurement with one of them at both ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::BenchError;
use super::plan::{Ends, Measure};
use crate::cli::signal::Interrupt;

/// The peer of libzmq, in C.
const LIBZMQ_PEER: &str = include_str!("../../../../../../benches/messaging/libzmq_peer.c");
/// How long an end may take beyond measuring.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which signals are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// A program that speaks the arguments and lines of `bench-peer`.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) name: String,
    path: PathBuf,
    /// Arguments before those of the protocol.
    first: Vec<String>,
}

impl Program {
    /// This program.
    pub(super) fn own() -> Result<Self, BenchError> {
        let path = std::env::current_exe()
            .map_err(|source| BenchError::Io { action: "find this program".to_owned(), source })?;
        let first = ["--quiet", "mq", "bench-peer"].map(str::to_owned).to_vec();
        Ok(Self { name: "tidegate".to_owned(), path, first })
    }

    /// The peer of libzmq, compiled into `place`.
    pub(super) fn libzmq(place: &Path) -> Result<Self, BenchError> {
        let (source, path) = (place.join("libzmq_peer.c"), place.join("libzmq_peer"));
        std::fs::write(&source, LIBZMQ_PEER).map_err(|error| BenchError::Io {
            action: format!("write {}", source.display()),
            source: error,
        })?;
        let compiled = Command::new("cc")
            .args(["-O2", "-o"])
            .args([&path, &source])
            .args(["-lzmq", "-lpthread"])
            .output()
            .map_err(|source| BenchError::NoCompiler { source })?;
        if !compiled.status.success() {
            let text = String::from_utf8_lossy(&compiled.stderr);
            let reason = text.lines().find(|line| line.contains("error") || line.contains("cannot find"));
            return Err(BenchError::NoLibzmq { reason: reason.unwrap_or("cc failed").trim().to_owned() });
        }
        Ok(Self { name: "libzmq".to_owned(), path, first: Vec::new() })
    }

    /// Another program, as `NAME=PATH`.
    pub(super) fn named(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("write NAME=PATH")?;
        Ok(Self { name: name.to_owned(), path: path.into(), first: Vec::new() })
    }

    /// Measures with this program at both ends.
    pub(super) fn measure(&self, run: &Run<'_>, measure: &Measure) -> Result<Value, BenchError> {
        let [server, client] = match measure.ends {
            Ends::OneProcess { how } => {
                let mut only = self.start(run, "pair", how, "inproc://bench", measure, "")?;
                return only.value(run.patience(), run.interrupt, self);
            }
            Ends::PushPull => [("pull", true), ("push", false)],
            Ends::PubSub => [("pub", false), ("sub", true)],
            Ends::ReqRep => [("rep", false), ("req", true)],
        };
        let [server_security, client_security] =
            if measure.curve { ["curve-server", "curve-client"] } else { ["", ""] };
        let endpoint = match measure.transport {
            "ipc" => format!("ipc://{}", run.place.join("socket").display()),
            _ => "tcp://127.0.0.1:*".to_owned(),
        };
        let mut serving = self.start(run, server.0, "bind", &endpoint, measure, server_security)?;
        let bound = serving.value(PATIENCE, run.interrupt, self)?;
        let endpoint = bound["bound"].as_str().unwrap_or_default().to_owned();
        let mut dialing = self.start(run, client.0, "connect", &endpoint, measure, client_security)?;
        let measuring = if client.1 { &mut dialing } else { &mut serving };
        measuring.value(run.patience(), run.interrupt, self)
    }

    fn start(
        &self,
        run: &Run<'_>,
        role: &str,
        how: &str,
        endpoint: &str,
        measure: &Measure,
        security: &str,
    ) -> Result<End, BenchError> {
        let failed = |source| BenchError::Io { action: format!("start {}", self.path.display()), source };
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let mut command = Command::new(&self.path);
        command
            .args(&self.first)
            .args([role, how, endpoint, &measure.bytes.to_string(), &seconds(run.warmup), &seconds(run.time)])
            .args(Some(security).filter(|security| !security.is_empty()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A signal from the terminal is for the parent.
            .process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let lines = child.stdout.take().map(lines);
        Ok(End { child, lines })
    }
}

/// What all measurements of a run have in common.
pub(super) struct Run<'a> {
    pub(super) place: &'a Path,
    pub(super) interrupt: &'a Interrupt,
    pub(super) warmup: Duration,
    pub(super) time: Duration,
}

impl Run<'_> {
    fn patience(&self) -> Duration {
        self.warmup + self.time + PATIENCE
    }
}

/// A process of a measurement; killed when dropped.
struct End {
    child: Child,
    lines: Option<Receiver<String>>,
}

impl End {
    fn value(
        &mut self,
        within: Duration,
        interrupt: &Interrupt,
        program: &Program,
    ) -> Result<Value, BenchError> {
        let name = || program.name.clone();
        let lines = self.lines.as_ref().ok_or_else(|| BenchError::Ended { program: name() })?;
        let deadline = Instant::now() + within;
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => {
                    return serde_json::from_str(&line)
                        .map_err(|source| BenchError::Answer { program: name(), source });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(BenchError::Ended { program: name() }),
                Err(RecvTimeoutError::Timeout) if interrupt.is_set() => return Err(BenchError::Interrupted),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return Err(BenchError::NoAnswer { program: name(), after: within });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // Harmless for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    // Ends with the process that writes.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
