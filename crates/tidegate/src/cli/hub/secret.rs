//! `tidegate hub secret ...`: key files of channels (11.5).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use tidegate::hub::secret::{generate, key_id_of_file, write_key_file};

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Producer and consumers of a channel share a secret: a block attaches only for those who have it. It is kept in a file that
its user alone may read, and never shown; its id may be.

Examples:
  tidegate hub secret gen --out camera.key
  tidegate hub secret id camera.key")]
pub(crate) enum Command {
    /// Make a random secret in a new file, mode 0600
    #[command(after_help = "Example:\n  tidegate hub secret gen --out camera.key")]
    Gen(Gen),
    /// Show the id of the secret in a file
    #[command(after_help = "Example:\n  tidegate hub secret id camera.key --json")]
    Id(Id),
}

pub(super) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Gen(command) => command.run(output),
        Command::Id(command) => command.run(output),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Gen {
    /// The file; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Gen {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        let secret = generate()?;
        write_key_file(&secret, &self.out)?;
        let key_id = secret.key_id().to_string();
        output.result(|| key_id.clone(), || json!({ "key_id": key_id, "file": self.out }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The key file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Id {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        let key_id = key_id_of_file(&self.file)?.to_string();
        output.result(|| key_id.clone(), || json!({ "key_id": key_id, "file": self.file }))
    }
}
