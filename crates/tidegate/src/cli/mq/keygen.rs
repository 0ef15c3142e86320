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
        let mut public_path = path.clone().into_os_string();
        public_path.push(".pub");
        let public_path = PathBuf::from(public_path);
        if self.raw {
            self.write(path, 0o600, secret.expose())?;
            self.write(&public_path, 0o644, secret.public_key().as_bytes())?;
        } else {
            self.write(path, 0o600, secret.expose_z85().as_bytes())?;
            self.write(&public_path, 0o644, format!("{public}\n").as_bytes())?;
        }
        output.result(
            || public.clone(),
            || json!({ "public_key": public, "secret_file": path, "public_file": public_path }),
        )
    }

    fn write(&self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Stop> {
        if self.force {
            // So that the new file gets its mode; that there is none is fine.
            let _ = std::fs::remove_file(path);
        }
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let written = opened.and_then(|mut file| {
            // Half a key would be in the way of the next try.
            file.write_all(bytes).inspect_err(|_| drop(std::fs::remove_file(path)))
        });
        written.map_err(|error| {
            let (exit, code) = match error.kind() {
                std::io::ErrorKind::AlreadyExists => (Exit::Refused, "exists"),
                _ => crate::output::exit_of_io(&error),
            };
            let remedy = if code == "exists" { "; --force replaces it" } else { "" };
            Stop::Error { exit, code, message: format!("cannot write {}: {error}{remedy}", path.display()) }
        })
    }
}
