use tidegate_hub::lock::{LockGuard, LockTable};

fn guard_without_its_table(table: LockTable) -> LockGuard<'static> {
    table.of_zone(0).unwrap().acquire(tidegate_hub::config::Timeout::Infinite).unwrap().into_guard()
}

fn main() {}
