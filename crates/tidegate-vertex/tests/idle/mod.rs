//! How seldom threads wake that have nothing to do.

use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// How often the thread of this name has gone to sleep, in a process that runs one test; none while it has not begun.
fn sleeps_of(thread: &str) -> Option<u64> {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_named = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread)
    };
    let status = std::fs::read_to_string(tasks.find(is_named)?.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    Some(line.trim().parse().unwrap())
}

/// Its wake-ups while nothing happens, and how many are allowed in the time that really went by.
pub(crate) fn idle_wakeups(thread: &str) -> (u64, u64) {
    let begun = Instant::now();
    let before = std::iter::repeat_with(|| sleeps_of(thread)).find_map(|sleeps| {
        assert!(begun.elapsed() < PATIENCE, "there is no thread {thread}");
        sleeps
    });
    let (before, begun) = (before.unwrap(), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let after = sleeps_of(thread).unwrap();
    (after - before, 12 * (begun.elapsed().as_millis() as u64).div_ceil(1000))
}
