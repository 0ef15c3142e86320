//! The programs that are measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

use super::error::BenchError;
use super::processes::Processes;
use crate::cli::signal::Interrupt;

/// The peer of libzmq, in C.
const LIBZMQ_PEER: &str = include_str!("../../../../../../benches/messaging/libzmq_peer.c");
/// Name of the program that minima refer to.
pub(super) const LIBZMQ: &str = "libzmq";

/// How this program does I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Driver {
    /// The one that is taken when nothing is said
    Auto,
    #[value(name = "io_uring")]
    IoUring,
    Polling,
}

/// A program that speaks the protocol of [`peer`](super::peer).
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) name: String,
    path: PathBuf,
    /// Arguments before those of the protocol.
    first: Vec<String>,
    /// `TIDEGATE_MQ_DRIVER`.
    driver: Option<&'static str>,
}

impl Program {
    /// This program.
    pub(super) fn own(driver: Driver) -> Result<Self, BenchError> {
        let path = std::env::current_exe()
            .map_err(|source| BenchError::io("find this program".to_owned(), source))?;
        let (name, driver) = match driver {
            Driver::Auto => ("tidegate", None),
            Driver::IoUring => ("tidegate-io_uring", Some("io_uring")),
            Driver::Polling => ("tidegate-polling", Some("polling")),
        };
        let first = ["--quiet", "mq", "bench-peer"].map(str::to_owned).to_vec();
        Ok(Self { name: name.to_owned(), path, first, driver })
    }

    /// The peer of libzmq, compiled into `place`, with this library or the one that the system has.
    pub(super) fn libzmq(place: &Path, library: Option<&Path>) -> Result<Self, BenchError> {
        let (source, path) = (place.join("libzmq_peer.c"), place.join("libzmq_peer"));
        std::fs::write(&source, LIBZMQ_PEER)
            .map_err(|error| BenchError::io(format!("write {}", source.display()), error))?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-o"]).args([&path, &source]);
        match library {
            Some(library) => {
                let whole = library
                    .canonicalize()
                    .map_err(|error| BenchError::io(format!("find {}", library.display()), error))?;
                let directory = whole.parent().unwrap_or(Path::new("/")).display().to_string();
                // Its own dependencies may lie beside it.
                compiler.arg(&whole).arg(format!("-Wl,-rpath,{directory},-rpath-link,{directory}"));
            }
            None => {
                compiler.arg("-lzmq");
            }
        }
        let compiled =
            compiler.arg("-lpthread").output().map_err(|source| BenchError::NoCompiler { source })?;
        if !compiled.status.success() {
            let text = String::from_utf8_lossy(&compiled.stderr);
            let reason = text.lines().find(|line| line.contains("error") || line.contains("cannot find"));
            return Err(BenchError::NoLibzmq { reason: reason.unwrap_or("cc failed").trim().to_owned() });
        }
        Ok(Self { name: LIBZMQ.to_owned(), path, first: Vec::new(), driver: None })
    }

    /// Another program, as `NAME=PATH`.
    pub(super) fn named(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("write NAME=PATH")?;
        Ok(Self { name: name.to_owned(), path: path.into(), first: Vec::new(), driver: None })
    }

    /// Whether it is this program, with some driver.
    pub(super) fn is_own(&self) -> bool {
        is_own(&self.name)
    }

    /// What it says about itself.
    pub(super) fn version(&self, interrupt: &Interrupt) -> Result<Value, BenchError> {
        let mut processes = Processes::new(&self.name, interrupt);
        processes.start(self.command(["version"]), None)?;
        processes.await_field(0, "version", Duration::from_secs(10))
    }

    /// Its call with these arguments.
    pub(super) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.first).args(args).env_remove("TIDEGATE_MQ_DRIVER").stderr(Stdio::inherit());
        if let Some(driver) = self.driver {
            command.env("TIDEGATE_MQ_DRIVER", driver);
        }
        command
    }
}

/// Whether a program of this name is this one, with some driver.
pub(super) fn is_own(name: &str) -> bool {
    name == "tidegate" || name.starts_with("tidegate-")
}
