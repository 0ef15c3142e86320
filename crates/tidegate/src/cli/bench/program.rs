//! The programs that are measured.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::error::BenchError;
use super::processes::Processes;
use crate::cli::signal::Interrupt;

/// Name of this program.
const OWN: &str = "tidegate";

/// A program that speaks the protocol of [`peer`](super::peer).
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    path: PathBuf,
    /// Arguments before those of the protocol.
    first: Vec<String>,
    /// A variable of its environment; one that another program has is not passed on.
    variable: Option<(&'static str, Option<&'static str>)>,
}

impl Program {
    /// This program as an end of `noun`'s measurements, in a way that `name` tells.
    pub(crate) fn own(noun: &str, name: &str) -> Result<Self, BenchError> {
        let path = std::env::current_exe()
            .map_err(|source| BenchError::io("find this program".to_owned(), source))?;
        let first = ["--quiet", noun, "bench-peer"].map(str::to_owned).to_vec();
        Ok(Self { name: name.to_owned(), path, first, variable: None })
    }

    /// Another program.
    pub(crate) fn at(name: &str, path: PathBuf) -> Self {
        Self { name: name.to_owned(), path, first: Vec::new(), variable: None }
    }

    /// Another program, as `NAME=PATH`.
    pub(crate) fn named(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("write NAME=PATH")?;
        Ok(Self::at(name, path.into()))
    }

    /// With one more argument before those of the protocol.
    #[must_use]
    pub(crate) fn with_argument(mut self, argument: &str) -> Self {
        self.first.push(argument.to_owned());
        self
    }

    /// With this variable in its environment, or without it.
    #[must_use]
    pub(crate) fn with_variable(self, name: &'static str, value: Option<&'static str>) -> Self {
        Self { variable: Some((name, value)), ..self }
    }

    /// Whether it is this program, in some way.
    pub(crate) fn is_own(&self) -> bool {
        is_own(&self.name)
    }

    /// What it says about itself.
    pub(crate) fn version(&self, interrupt: &Interrupt) -> Result<Value, BenchError> {
        let mut processes = Processes::new(&self.name, interrupt);
        processes.start(self.command(["version"]), None)?;
        processes.await_field(0, "version", Duration::from_secs(10))
    }

    /// Its call with these arguments.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.first).args(args).stderr(Stdio::inherit());
        match self.variable {
            Some((name, Some(value))) => command.env(name, value),
            Some((name, None)) => command.env_remove(name),
            None => &mut command,
        };
        command
    }
}

/// Whether a program of this name is this one, in some way.
pub(crate) fn is_own(name: &str) -> bool {
    name.strip_prefix(OWN).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
