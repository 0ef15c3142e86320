//! Directories of measurements, `tidegate.bench-*`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidegate::node::NodePlace;
use tidegate::shm::lock::DirLock;
use tidegate::shm::process::ProcessId;

use super::{Check, Finding, Found, Remains, foreign_owner, nodes, of_another_user, tree};
use crate::cli::tensor::BenchPlace;

/// Judges the directory of a measurement.
pub(super) fn look(dir: &Path, fix: &str) -> Found {
    let check = Check::Bench;
    if let Some(owner) = foreign_owner(dir) {
        return of_another_user(check, dir, owner).into();
    }
    let place = BenchPlace(dir);
    let named: Option<ProcessId> =
        fs::read_to_string(place.lock()).ok().and_then(|text| text.trim_end().parse().ok());
    let pid = named.map(|id| id.pid);
    let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
    let node = nodes::look(&place.node(), fix).map(|found| found.finding);
    let mut found = match File::open(place.lock()).map(|file| file.try_lock_shared().is_ok()) {
        Ok(false) => Finding::ok(check, Some(dir), format!("{who} is measuring")).into(),
        Ok(true) => match node {
            Some(node) if !node.safe_to_remove => {
                let message = format!("left by {who}, which is gone; its node is not: {}", node.message);
                let advice = "the node ends by itself: look again in some seconds".to_owned();
                Finding::problem(check, Some(dir), message, advice).into()
            }
            _ => {
                let message = format!("left by {who}, which is gone");
                let finding = Finding::problem(check, Some(dir), message, format!("safe to remove: {fix}"));
                Found::dead(finding, BenchRemains { dir: dir.to_owned() })
            }
        },
        Err(_) => {
            let message = "has no lock that says whether its measurement goes on".to_owned();
            let advice = format!("when `tidegate tensor bench` does not run: rm -r {}", dir.display());
            Finding::problem(check, Some(dir), message, advice).into()
        }
    };
    found.finding.pid = pid;
    found.finding.bytes = Some(tree::size(dir));
    found
}

struct BenchRemains {
    dir: PathBuf,
}

impl Remains for BenchRemains {
    fn remove(&self) -> Result<(), tree::Kept> {
        let place = BenchPlace(&self.dir);
        let lock = DirLock::acquire(&place.lock())?;
        if place.node().exists() {
            nodes::remove(&NodePlace::find(Some(place.node()), None))?;
        }
        tree::remove_file(&place.lines())?;
        tree::remove_file(&place.lock())?;
        drop(lock);
        tree::remove_empty(&self.dir)
    }
}
