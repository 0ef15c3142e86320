//! Directories of measurements of the hub, `tidegate.hub-bench-*`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidegate::shm::lock::DirLock;
use tidegate::shm::process::ProcessId;

use super::{Check, Finding, Found, Remains, foreign_owner, of_another_user, tree};
use crate::cli::hub::bench_lock_of;

/// Judges the directory of a measurement. Its ends end with the process that runs them.
pub(super) fn look(dir: &Path, fix: &str) -> Found {
    let check = Check::Bench;
    if let Some(owner) = foreign_owner(dir) {
        return of_another_user(check, dir, owner).into();
    }
    let lock = bench_lock_of(dir);
    let named: Option<ProcessId> =
        fs::read_to_string(&lock).ok().and_then(|text| text.trim_end().parse().ok());
    let pid = named.map(|id| id.pid);
    let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
    let mut found = match File::open(&lock).map(|file| file.try_lock_shared().is_ok()) {
        Ok(false) => Finding::ok(check, Some(dir), format!("{who} is measuring")).into(),
        Ok(true) => {
            let message = format!("left by {who}, which is gone");
            let finding = Finding::problem(check, Some(dir), message, format!("safe to remove: {fix}"));
            Found::dead(finding, Left { dir: dir.to_owned() })
        }
        Err(_) => {
            let message = "has no lock that says whether its measurement goes on".to_owned();
            let advice = format!("when `tidegate hub bench` does not run: rm -r {}", dir.display());
            Finding::problem(check, Some(dir), message, advice).into()
        }
    };
    found.finding.pid = pid;
    found.finding.bytes = Some(tree::size(dir));
    found
}

struct Left {
    dir: PathBuf,
}

impl Remains for Left {
    fn remove(&self) -> Result<(), tree::Kept> {
        let _lock = DirLock::acquire(&bench_lock_of(&self.dir))?;
        tree::remove_all(&self.dir)
    }
}
