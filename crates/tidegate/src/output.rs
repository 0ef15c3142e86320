//! What a command prints, and how it ends.
//!
//! Results go to standard output: text for people, or with `--json` one JSON object per line. Errors and logs go to
//! standard error; with `--json` an error is one line `{"error":{"code":...,"exit":...,"message":...}}`.
//! Field names are stable; `docs/json.md` lists them.
//!
//! When the reader of standard output goes away (`tidegate ... | head`), the command ends quietly and successfully.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

/// How a command that did not simply succeed ends. The codes are those of every command, but for `tidegate hub`, which
/// has those of DH-266.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed.
    Failed,
    /// The command line, or a variable that stands for an option, is wrong.
    Usage,
    /// Something that was named is not there.
    NotFound,
    /// Permission, or a fence, is against it.
    Refused,
    /// What was waited for did not come in time.
    TimedOut,
    /// A command of `tidegate hub`, with its own code.
    #[cfg(feature = "hub")]
    Hub(HubExit),
    /// A command of `tidegate vertex`, with the codes that supervisors of processes know.
    #[cfg(feature = "vertex")]
    Vertex(VertexExit),
}

/// The exit codes of `tidegate vertex` (VX-860).
#[cfg(feature = "vertex")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VertexExit {
    /// The command line is wrong.
    Usage = 64,
    /// The pipeline file is not valid.
    Config = 65,
    /// A worker or a file is missing at the start.
    Unavailable = 69,
    /// It failed.
    Failed = 70,
    /// The ledger cannot be used.
    Ledger = 73,
    /// The right to write was lost.
    Fenced = 75,
    /// A worker broke the protocol.
    Protocol = 76,
    /// The worker's schema does not match.
    Schema = 77,
    /// The ledger does not keep up.
    Behind = 78,
}

/// The exit codes of `tidegate hub` beyond 1 and 2 (DH-266).
#[cfg(feature = "hub")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubExit {
    /// Problems were found, also by a dry run that would act.
    Problems = 3,
    /// Refused as unsafe.
    Unsafe = 4,
    /// What was named is not there.
    NotFound = 5,
    /// Permission or authentication is against it.
    Permission = 6,
    /// The block is damaged or of another version.
    Damaged = 7,
}

impl Exit {
    /// The exit code of the process.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Refused => 4,
            Self::TimedOut => 5,
            #[cfg(feature = "hub")]
            Self::Hub(exit) => exit as u8,
            #[cfg(feature = "vertex")]
            Self::Vertex(exit) => exit as u8,
        }
    }
}

/// An error of a library as the command line reports it: [`Display`](std::fmt::Display) says what happened, to what, and
/// what to do next.
pub(crate) trait Report: std::error::Error {
    /// The exit code.
    fn exit(&self) -> Exit;

    /// What happened, for programs: one stable word.
    fn code(&self) -> &'static str;

    /// What to do next with this command line, where the error itself cannot know.
    fn remedy(&self) -> Option<&'static str> {
        None
    }
}

/// A command that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody reads standard output any more: success, there is nothing left to say.
    ReaderGone,
    /// The results already say what failed.
    Reported(Exit),
    /// An error that is still to be printed.
    Error {
        /// The exit code.
        exit: Exit,
        /// One stable word.
        code: &'static str,
        /// For people.
        message: String,
    },
}

impl<E: Report> From<E> for Stop {
    fn from(error: E) -> Self {
        let remedy = error.remedy().map_or_else(String::new, |remedy| format!("; {remedy}"));
        Self::Error {
            exit: error.exit(),
            code: error.code(),
            message: format!("{}{remedy}", with_causes(&error)),
        }
    }
}

/// An error with those of its causes that it does not name itself.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

impl Stop {
    /// The command line is wrong in a way that its parser cannot see.
    pub(crate) fn usage(message: impl std::fmt::Display) -> Self {
        Self::Error { exit: Exit::Usage, code: "usage", message: message.to_string() }
    }

    /// Prints the error, if there is one to print, and gives the exit code of the process.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        match self {
            Self::ReaderGone => ExitCode::SUCCESS,
            Self::Reported(exit) => ExitCode::from(exit.code()),
            Self::Error { exit, code, message } => {
                let line = if json {
                    json!({ "error": error_object(code, Some(*exit), message) }).to_string()
                } else {
                    format!("tidegate: {message}")
                };
                // There is no place left to complain to when standard error is closed.
                let _ = writeln!(io::stderr(), "{line}");
                ExitCode::from(exit.code())
            }
        }
    }
}

/// The object under `error`. The exit code is left out where the command goes on.
pub(crate) fn error_object(code: &str, exit: Option<Exit>, message: &str) -> Value {
    match exit {
        Some(exit) => json!({ "code": code, "exit": exit.code(), "message": message }),
        None => json!({ "code": code, "message": message }),
    }
}

/// How an error of the operating system ends a command.
pub(crate) fn exit_of_io(error: &io::Error) -> (Exit, &'static str) {
    match error.kind() {
        io::ErrorKind::NotFound => (Exit::NotFound, "not_found"),
        io::ErrorKind::PermissionDenied => (Exit::Refused, "permission"),
        _ => (Exit::Failed, "io"),
    }
}

/// Standard output of a command.
pub(crate) struct Output {
    json: bool,
    to: Box<dyn Write>,
}

impl Output {
    /// Prints to standard output, line by line.
    pub(crate) fn stdout(json: bool) -> Self {
        Self { json, to: Box::new(io::stdout()) }
    }

    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Prints one result: `text` for people, which may have several lines, or `value` on one line.
    pub(crate) fn result(
        &mut self,
        text: impl FnOnce() -> String,
        value: impl FnOnce() -> Value,
    ) -> Result<(), Stop> {
        if self.json { self.print(&value().to_string()) } else { self.print(text().trim_end_matches('\n')) }
    }

    /// Prints bytes as they are.
    #[cfg(feature = "zmq")]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.to.write_all(bytes).and_then(|()| self.to.flush()).map_err(refused)
    }

    fn print(&mut self, text: &str) -> Result<(), Stop> {
        writeln!(self.to, "{text}").map_err(refused)
    }
}

/// Standard output did not take what was written.
fn refused(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::ReaderGone,
        _ => Stop::Error {
            exit: Exit::Failed,
            code: "io",
            message: format!("cannot write to standard output: {error}; give it a place with room"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sink(io::ErrorKind);

    impl Write for Sink {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn print_to(kind: io::ErrorKind) -> Result<(), Stop> {
        Output { json: false, to: Box::new(Sink(kind)) }.result(|| "text".to_owned(), || Value::Null)
    }

    #[test]
    fn a_gone_reader_is_no_error_but_a_full_disk_is() {
        assert_eq!(print_to(io::ErrorKind::BrokenPipe), Err(Stop::ReaderGone));
        assert!(matches!(print_to(io::ErrorKind::StorageFull), Err(Stop::Error { exit: Exit::Failed, .. })));
    }

    #[test]
    fn system_errors_have_their_exit_codes() {
        let exit = |kind: io::ErrorKind| exit_of_io(&kind.into());
        assert_eq!(exit(io::ErrorKind::NotFound), (Exit::NotFound, "not_found"));
        assert_eq!(exit(io::ErrorKind::PermissionDenied), (Exit::Refused, "permission"));
        assert_eq!(exit(io::ErrorKind::StorageFull), (Exit::Failed, "io"));
    }
}
