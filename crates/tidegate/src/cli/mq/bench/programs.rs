//! The programs that are measured.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::cli::bench::error::BenchError;
use crate::cli::bench::program::Program;

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

/// This program, with a driver.
pub(super) fn own(driver: Driver) -> Result<Program, BenchError> {
    let (name, driver) = match driver {
        Driver::Auto => ("tidegate", None),
        Driver::IoUring => ("tidegate-io_uring", Some("io_uring")),
        Driver::Polling => ("tidegate-polling", Some("polling")),
    };
    Ok(Program::own("mq", name)?.with_variable("TIDEGATE_MQ_DRIVER", driver))
}

/// The peer of libzmq, compiled into `place`, with this library or the one that the system has.
pub(super) fn libzmq(place: &Path, library: Option<&Path>) -> Result<Program, BenchError> {
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
    let compiled = compiler.arg("-lpthread").output().map_err(|source| BenchError::NoCompiler { source })?;
    if !compiled.status.success() {
        let text = String::from_utf8_lossy(&compiled.stderr);
        let reason = text.lines().find(|line| line.contains("error") || line.contains("cannot find"));
        return Err(BenchError::NoLibzmq { reason: reason.unwrap_or("cc failed").trim().to_owned() });
    }
    Ok(Program::at(LIBZMQ, path))
}
