//! The process that holds a libzmq, and what it is told (see `peer.py`).

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Events of a libzmq monitor.
pub(crate) mod event {
    pub(crate) const CONNECTED: u32 = 0x0001;
    pub(crate) const ACCEPTED: u32 = 0x0020;
    pub(crate) const DISCONNECTED: u32 = 0x0200;
    pub(crate) const HANDSHAKE_SUCCEEDED: u32 = 0x1000;
    pub(crate) const HANDSHAKE_FAILED_PROTOCOL: u32 = 0x2000;
    pub(crate) const HANDSHAKE_FAILED_AUTH: u32 = 0x4000;
}

/// A libzmq in a process of its own; ends with this value.
pub(crate) struct Peer {
    pub(crate) version: &'static str,
    process: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Peer {
    /// Starts a process with the given release of libzmq.
    ///
    /// # Panics
    /// When the release is not installed: an interoperability test without its peer has failed.
    pub(crate) fn start(version: &'static str) -> Self {
        let (library, install) = match std::env::var_os("TIDEGATE_LIBZMQ") {
            Some(dir) => (PathBuf::from(dir), "scripts/setup-libzmq.sh $TIDEGATE_LIBZMQ"),
            None => (
                PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/libzmq")),
                "scripts/setup-libzmq.sh .venv/libzmq",
            ),
        };
        let library = library.join(version);
        assert!(
            library.is_dir(),
            "libzmq {version} is not installed in {}; run `{install}` in the root of the repository",
            library.display()
        );
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let mut process = Command::new(python)
            .args(["-E", "-S", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/peer.py")])
            .arg(library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interoperability tests need python3 in the path, or its name in PYTHON");
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut peer = Self { version, process, input, answers };
        assert_eq!(peer.ask("version"), version);
        peer
    }

    /// Gives a command; its [`answer`](Self::answer) comes in turn.
    pub(crate) fn tell(&mut self, command: impl AsRef<str>) {
        writeln!(self.input, "{}", command.as_ref()).expect("the libzmq peer is gone");
    }

    /// The answer to the oldest command that has none.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> String {
        let answer = match self.answers.recv_timeout(PATIENCE * 2) {
            Ok(answer) => answer,
            Err(error) => panic!("libzmq {}: no answer: {error}", self.version),
        };
        match answer.strip_prefix("ok") {
            Some(result) => result.trim_start().to_owned(),
            None => panic!("libzmq {}: {answer}", self.version),
        }
    }

    /// A command and its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: impl AsRef<str>) -> String {
        self.tell(command);
        self.answer()
    }

    /// Waits for the next event of `mask` at a socket, drops others before it, and gives its value.
    #[track_caller]
    pub(crate) fn wait(&mut self, socket: &str, mask: u32) -> u32 {
        self.wait_any(socket, mask).1
    }

    /// As [`wait`](Self::wait), with the event.
    #[track_caller]
    pub(crate) fn wait_any(&mut self, socket: &str, mask: u32) -> (u32, u32) {
        let answer = self.ask(format!("wait {socket} {mask}"));
        let (event, value) = answer.split_once(' ').unwrap();
        (event.parse().unwrap(), value.parse().unwrap())
    }

    /// Waits until a socket has a peer whose handshake is complete, as far as this release reports it.
    #[track_caller]
    pub(crate) fn wait_up(&mut self, socket: &str) {
        self.wait(socket, event::CONNECTED | event::ACCEPTED);
        if self.version.starts_with("4.3") {
            self.wait(socket, event::HANDSHAKE_SUCCEEDED);
        }
    }

    /// Sends the process a signal: `STOP` holds it, `CONT` lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("run kill");
        assert!(status.success(), "kill -s {name} {pid}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Gone already, or to be gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Words of a command for the parts of a message.
pub(crate) fn words<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let words = parts.into_iter().map(|part| match part.as_ref() {
        [] => "-".to_owned(),
        part => hex(part),
    });
    words.collect::<Vec<_>>().join(" ")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
