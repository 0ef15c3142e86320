//! `tidegate mq keygen`: key pairs for CURVE.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
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
    fn write(&self, files: [NewFile<'_>; 2]) -> Result<(), Stop> {
        if self.force {
            return replace(files, |from, to| std::fs::rename(from, to));
        }
        make(&files.map(|(path, ..)| path.to_owned()), files)
    }
}

/// Where it goes, with which mode, and what is in it.
type NewFile<'a> = (&'a Path, u32, &'a [u8]);

/// Makes both files under these names, or neither.
fn make(names: &[PathBuf; 2], files: [NewFile<'_>; 2]) -> Result<(), Stop> {
    let undo = |names: &[PathBuf]| names.iter().for_each(|name| drop(std::fs::remove_file(name)));
    for (number, (name, (path, mode, bytes))) in names.iter().zip(files).enumerate() {
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(name);
        let made = opened.inspect_err(|_| undo(&names[..number]));
        let written =
            made.and_then(|mut file| file.write_all(bytes).inspect_err(|_| undo(&names[..=number])));
        written.map_err(|error| not_written(path, &error))?;
    }
    Ok(())
}

/// Replaces the secret and the public key, or neither. Both are made anew, so that they get their mode, in a directory beside
/// them that is nobody else's.
fn replace(
    files: [NewFile<'_>; 2],
    rename: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> Result<(), Stop> {
    let [(secret, ..), (public, ..)] = files;
    for path in [secret, public] {
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(Stop::Error {
                exit: Exit::Refused,
                code: "exists",
                message: format!("{} is no file; name another", path.display()),
            });
        }
    }
    let beside = secret.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place = tempfile::Builder::new()
        .prefix(".tidegate-keygen-")
        .tempdir_in(beside.unwrap_or(Path::new(".")))
        .map_err(|error| not_written(secret, &error))?;
    let [new_secret, new_public, old] = ["secret", "public", "old"].map(|name| place.path().join(name));
    make(&[new_secret.clone(), new_public.clone()], files)?;
    let kept = std::fs::hard_link(public, &old).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        // Not every file may have two names.
        _ => std::fs::rename(public, &old),
    });
    kept.map_err(|error| not_written(public, &error))?;
    for (new, path) in [(new_public, public), (new_secret, secret)] {
        rename(&new, path).map_err(|error| {
            let _ = match old.symlink_metadata() {
                Ok(_) => std::fs::rename(&old, public),
                Err(_) => std::fs::remove_file(public),
            };
            not_written(path, &error)
        })?;
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

fn not_written(path: &Path, error: &std::io::Error) -> Stop {
    let (exit, code) = match error.kind() {
        ErrorKind::AlreadyExists => (Exit::Refused, "exists"),
        _ => crate::output::exit_of_io(error),
    };
    let remedy = if code == "exists" { "; --force replaces it" } else { "" };
    Stop::Error { exit, code, message: format!("cannot write {}: {error}{remedy}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: MQ-479.
    #[test]
    fn when_the_secret_key_cannot_be_replaced_the_public_one_is_not() {
        for has_public in [true, false] {
            let place = tempfile::tempdir().expect("a directory");
            let [secret, public] = ["key", "key.pub"].map(|name| place.path().join(name));
            std::fs::write(&secret, "old").expect("written");
            if has_public {
                std::fs::write(&public, "old").expect("written");
            }
            let rename = |from: &Path, to: &Path| {
                if to == secret { Err(ErrorKind::PermissionDenied.into()) } else { std::fs::rename(from, to) }
            };
            let new: [NewFile<'_>; 2] = [(&secret, 0o600, b"new"), (&public, 0o644, b"new")];
            assert!(matches!(replace(new, rename), Err(Stop::Error { exit: Exit::Refused, .. })));
            let read = |path| std::fs::read_to_string(path).ok();
            assert_eq!(read(&secret).as_deref(), Some("old"));
            assert_eq!(read(&public).as_deref(), has_public.then_some("old"));
            let left = std::fs::read_dir(place.path()).expect("a directory").count();
            assert_eq!(left, 1 + usize::from(has_public), "nothing is left behind");
        }
    }
}
