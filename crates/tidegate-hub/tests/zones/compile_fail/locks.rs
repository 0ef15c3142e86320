use tidegate_hub::lock::{LockGuard, LockTable};

fn is_send<T: Send>(_: T) {}

fn guard_on_another_thread(guard: LockGuard<'_>) {
    is_send(guard);
}

fn guard_without_its_table(table: LockTable) -> LockGuard<'static> {
    table.of_zone(0).unwrap().acquire(tidegate_hub::core::config::Deadline::Never).unwrap().into_guard()
}

fn main() {}
