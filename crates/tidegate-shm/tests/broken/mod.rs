//! Showing that a weakened model breaks.

use std::process::Command;

/// Says in a process of its own, because a broken model may end in an abort, whether the explorer finds the model
/// broken in the expected way. `test` is the name of the calling test.
pub(crate) fn breaks<R>(test: &str, report: &str, model: impl FnOnce() -> R) -> bool {
    const INSIDE: &str = "TIDEGATE_BROKEN_MODEL";
    if std::env::var_os(INSIDE).is_some() {
        model();
        // Not broken: the caller's assertion must not fail in here.
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(report)
}
