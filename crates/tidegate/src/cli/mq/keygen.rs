//! `tidegate mq keygen`: key pairs for CURVE.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tidegate::mq::new_secret_key;

use super::socket::read_secret_key;
use crate::output::{Exit, Output, Stop};

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Write the secret key to FILE, for its owner's eyes only, and the public key to FILE.pub
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Files of 32 bytes instead of 40 characters of Z85
    #[arg(long, requires = "out")]
    raw: bool,
    /// Replace files that are there
    #[arg(long, requires = "out")]
    force: bool,
    /// Print the public key that belongs to the secret key in FILE, instead of making a new pair
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    public_of: Option<PathBuf>,
}

impl Keygen {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        if let Some(path) = &self.public_of {
            let public = read_secret_key(path)?.public_key().to_z85();
            return output.result(|| public.clone(), || json!({ "public_key": public }));
        }
        let secret = new_secret_key();
        let public = secret.public_key().to_z85();
        let Some(path) = &self.out else {
            let secret = secret.expose_z85();
            return output.result(
                || format!("public key  {public}\nsecret key  {}", *secret),
                || json!({ "public_key": public, "secret_key": *secret }),
            );
        };
        let public_path = with_suffix(path, ".pub");
        let public_key = secret.public_key();
        let (secret_text, public_text) = (secret.expose_z85(), format!("{public}\n"));
        let (secret_bytes, public_bytes): (&[u8], &[u8]) = if self.raw {
            (secret.expose(), public_key.as_bytes())
        } else {
            (secret_text.as_bytes(), public_text.as_bytes())
        };
        self.write([(path, 0o600, secret_bytes), (&public_path, 0o644, public_bytes)])?;
        output.result(
            || public.clone(),
            || json!({ "public_key": public, "secret_file": path, "public_file": public_path }),
        )
    }

    /// Writes both files or neither: a secret key beside the public key of another refuses everybody.
    fn write(&self, files: [(&Path, u32, &[u8]); 2]) -> Result<(), Stop> {
        for (path, ..) in files.iter().filter(|_| self.force) {
            if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
                return Err(Stop::Error {
                    exit: Exit::Refused,
                    code: "exists",
                    message: format!("{} is no file; name another", path.display()),
                });
            }
        }
        // Made anew beside what is replaced, so that they get their mode.
        let names =
            files.map(|(path, ..)| if self.force { with_suffix(path, ".new") } else { path.to_owned() });
        let undo = |names: &[PathBuf]| names.iter().for_each(|name| drop(std::fs::remove_file(name)));
        for (number, (name, (path, mode, bytes))) in names.iter().zip(files).enumerate() {
            if self.force {
                // Of a try that was interrupted; that there is none is fine.
                let _ = std::fs::remove_file(name);
            }
            let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(name);
            let made = opened.inspect_err(|_| undo(&names[..number]));
            let written =
                made.and_then(|mut file| file.write_all(bytes).inspect_err(|_| undo(&names[..=number])));
            written.map_err(|error| not_written(path, &error))?;
        }
        if self.force {
            // The public key first: what is in its way leaves the old pair.
            for (name, (path, ..)) in names.iter().zip(files).rev() {
                std::fs::rename(name, path).map_err(|error| {
                    undo(&names);
                    not_written(path, &error)
                })?;
            }
        }
        Ok(())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

fn not_written(path: &Path, error: &std::io::Error) -> Stop {
    let (exit, code) = match error.kind() {
        std::io::ErrorKind::AlreadyExists => (Exit::Refused, "exists"),
        _ => crate::output::exit_of_io(error),
    };
    let remedy = if code == "exists" { "; --force replaces it" } else { "" };
    Stop::Error { exit, code, message: format!("cannot write {}: {error}{remedy}", path.display()) }
}
