//! Death of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;

use std::{fs, time::Duration};

use children::{Child, PATIENCE, linger, role, say};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    process::{ProcessError, ProcessHandle, ProcessId, pid_is_alive},
};

fn soon(duration: Duration) -> Nanos {
    monotonic_now().saturating_add(duration.into())
}

#[test]
fn a_killed_process_is_dead_as_a_zombie_already() {
    if role("victim").is_some() {
        say("ready");
        return linger();
    }
    let mut victim = Child::start("a_killed_process_is_dead_as_a_zombie_already", "victim", "/".as_ref());
    victim.wait_for("ready");
    let id = ProcessId::of(victim.pid()).unwrap();
    let handle = ProcessHandle::open(id).unwrap();
    assert!(handle.is_alive() && pid_is_alive(id.pid));

    victim.kill();
    assert!(handle.wait_exit(soon(PATIENCE)), "the kill was not seen");
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.pid)).unwrap();
    assert_eq!(
        stat.rsplit(')').next().unwrap().trim_start().chars().next(),
        Some('Z'),
        "not a zombie: {stat}"
    );
    assert!(!handle.is_alive() && !pid_is_alive(id.pid));
    assert!(matches!(ProcessHandle::open(id), Err(ProcessError::Gone { .. })));
    assert_eq!(ProcessId::of(id.pid).unwrap(), id, "a zombie keeps its identity");

    victim.collect();
    assert!(!handle.is_alive() && !pid_is_alive(id.pid));
    assert!(matches!(ProcessHandle::open(id), Err(ProcessError::Gone { .. })));
}

#[test]
fn waiting_for_a_living_process_ends_at_the_deadline() {
    let handle = ProcessHandle::open(ProcessId::current().unwrap()).unwrap();
    let deadline = soon(Duration::from_millis(30));
    assert!(!handle.wait_exit(deadline));
    assert!(monotonic_now() >= deadline);
    assert!(!handle.wait_exit(Nanos::ZERO));
}

#[test]
fn identities_of_two_processes_differ() {
    if role("other").is_some() {
        say(&format!("id {}", ProcessId::current().unwrap()));
        return linger();
    }
    let mut other = Child::start("identities_of_two_processes_differ", "other", "/".as_ref());
    let id: ProcessId = other.wait_for("id ").parse().unwrap();
    assert_eq!(id, ProcessId::of(other.pid()).unwrap());
    assert_ne!(id, ProcessId::current().unwrap());
    let wrong_time = ProcessId { start_time: id.start_time + 1, ..id };
    assert!(matches!(ProcessHandle::open(wrong_time), Err(ProcessError::Gone { .. })));
}

#[test]
fn a_thread_id_is_not_a_process() {
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let (_keep, kept) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).unwrap();
            // Ends when the other side of the channel is dropped.
            let _ = kept.recv();
        });
        let thread = told.recv().unwrap();
        assert_ne!(thread, std::process::id());
        assert!(!pid_is_alive(thread));
        let namesake = ProcessId::of(thread).unwrap();
        assert!(matches!(ProcessHandle::open(namesake), Err(ProcessError::Gone { pid }) if pid == thread));
        drop(_keep);
    });
}
