//! One end of a measurement of `tidegate vertex bench`: a function behind gRPC over a Unix socket.
//!
//! ```text
//! tonic-peer version
//! tonic-peer --form=batch|record calls bind DIRECTORY [NAME=VALUE]...
//! ```
//!
//! The protocol is described at the head of `crates/tidegate/src/cli/bench/peer.rs`. The client measures; it starts the server
//! as a process of its own, whose number it tells with `begin`. One bidirectional stream, HTTP/2 windows of 16 MiB, messages of
//! up to 64 MiB, no TLS. The form is one message for each batch, up to 4 MiB, or one for each record.

/// Many records are made and dropped; the system's allocator would cost the baseline up to a third of its rate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod client;
mod message;
mod server;

mod generated {
    #![allow(clippy::all, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/bench.Flip.rs"));
}

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::Duration,
};

pub const WINDOW: u32 = 16 << 20;
pub const MESSAGE_LIMIT: usize = 64 << 20;
/// What a message of several records may have at most, and with it a frame of the ring.
const PIECE: usize = 4 << 20;
/// What a record takes beside its value in a frame of the ring, so that both cut alike.
const RECORD_HEAD: usize = 32;
const FRAME_HEAD: usize = 128;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Batch,
    Record,
}

/// What the runner asked for.
pub struct Task {
    pub form: Form,
    pub size: usize,
    pub batch: usize,
    pub flight: usize,
    pub warmup: Duration,
    pub measure: Duration,
}

impl Task {
    /// Records of a message.
    pub fn piece(&self) -> usize {
        ((PIECE - FRAME_HEAD) / (RECORD_HEAD + self.size.next_multiple_of(8))).clamp(1, self.batch)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [.., "version"] => {
            println!("{{\"version\":\"tonic 0.14\",\"optimized\":{}}}", !cfg!(debug_assertions));
            Ok(())
        }
        ["server", path] => {
            end_with_runner();
            runtime()?.block_on(server::serve(Path::new(path)))
        }
        [form, "calls", "bind", place, settings @ ..] => {
            end_with_runner();
            let form = match *form {
                "--form=batch" => Form::Batch,
                "--form=record" => Form::Record,
                other => return Err(format!("{other} is neither --form=batch nor --form=record").into()),
            };
            let Some(task) = task(form, settings)? else { return Ok(()) };
            let path = PathBuf::from(place).join(format!("{}.sock", process::id()));
            let mut server = Command::new(env::current_exe()?)
                .arg("server")
                .arg(&path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let stdout = server.stdout.take().ok_or("the server has no output")?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            runtime()?.block_on(client::run(task, path, server.id()))
        }
        _ => {
            println!("{{\"cannot\":\"it has no such role\"}}");
            Ok(())
        }
    }
}

fn task(form: Form, settings: &[&str]) -> Result<Option<Task>> {
    let (warmup, measure) = (Duration::from_millis(500), Duration::from_secs(3));
    let mut task = Task { form, size: 100, batch: 1, flight: 1, warmup, measure };
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or("a setting is NAME=VALUE")?;
        let seconds = || Ok::<_, Box<dyn Error>>(Duration::try_from_secs_f64(value.parse()?)?);
        match name {
            "size" => task.size = value.parse()?,
            "count" => task.batch = value.parse()?,
            "flight" => task.flight = value.parse()?,
            "warmup" => task.warmup = seconds()?,
            "measure" => task.measure = seconds()?,
            "least" | "longest" => {}
            _ => {
                println!("{{\"cannot\":\"it has no {setting}\"}}");
                return Ok(None);
            }
        }
    }
    Ok(Some(task))
}

/// One thread, with which an end of one stream is up to twice as fast as with several.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Ends this process when its standard input does, so that nothing is left when the runner is gone.
fn end_with_runner() {
    thread::spawn(|| {
        let mut stdin = std::io::stdin().lock();
        let mut piece = [0; 64];
        while stdin.read(&mut piece).is_ok_and(|count| count > 0) {}
        process::exit(0);
    });
}
