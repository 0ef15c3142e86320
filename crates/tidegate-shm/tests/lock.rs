//! The directory lock between real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Command,
};

use children::{Child, PATIENCE, linger, role, say};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::{Pid, Signal, kill_process, umask},
};
use tidegate_shm::{
    clock::monotonic_now,
    lock::{DirLock, LockError},
    process::{ProcessHandle, ProcessId},
};

fn wait_for_death(handle: &ProcessHandle) {
    assert!(handle.wait_exit(monotonic_now().saturating_add(PATIENCE.into())));
}

#[test]
fn a_killed_holder_is_named_and_then_replaced() {
    if let Some(place) = role("holder") {
        let _lock = DirLock::acquire(&place.join("lock")).unwrap();
        say("locked");
        return linger();
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("lock");
    let mut holder = Child::start("a_killed_holder_is_named_and_then_replaced", "holder", place.path());
    holder.wait_for("locked");
    let id = ProcessId::of(holder.pid()).unwrap();
    match DirLock::acquire(&path) {
        Err(LockError::Held { path: held, holder }) => assert_eq!((held, holder), (path.clone(), Some(id))),
        other => panic!("{other:?}"),
    }

    let handle = ProcessHandle::open(id).unwrap();
    holder.kill();
    wait_for_death(&handle);
    let lock = DirLock::acquire(&path).expect("the dead holder's lock is free");
    assert_eq!(lock.path(), path);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", ProcessId::current().unwrap()));
}

#[test]
fn a_program_started_by_the_holder_does_not_keep_the_lock() {
    if let Some(place) = role("holder") {
        let _lock = DirLock::acquire(&place.join("lock")).unwrap();
        let mut heir = Command::new("sleep").arg("600").spawn().unwrap();
        say(&format!("heir {}", heir.id()));
        heir.wait().unwrap();
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let test = "a_program_started_by_the_holder_does_not_keep_the_lock";
    let mut holder = Child::start(test, "holder", place.path());
    let heir: i32 = holder.wait_for("heir ").parse().unwrap();
    let handle = ProcessHandle::open(ProcessId::of(holder.pid()).unwrap()).unwrap();
    holder.kill();
    wait_for_death(&handle);
    let lock = DirLock::acquire(&place.path().join("lock"));
    kill_process(Pid::from_raw(heir).unwrap(), Signal::KILL).expect("the heir lived until now");
    lock.expect("the heir does not hold the lock");
}

/// A child has all descriptors of its parent until it comes to its exec.
#[test]
fn a_lock_that_is_dropped_is_free_whoever_is_started_at_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            for _ in 0..300 {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        while !starting.is_finished() {
            drop(DirLock::acquire(&path).unwrap());
        }
    });
}

/// Such a child has the lock of a parent that is killed meanwhile, too.
#[test]
fn a_killed_holder_is_replaced_whoever_it_was_starting() {
    if let Some(place) = role("holder") {
        let _lock = DirLock::acquire(&place.join("lock")).unwrap();
        say("locked");
        loop {
            let _ = Command::new("true").status();
        }
    }
    let place = tempfile::tempdir().unwrap();
    for _ in 0..100 {
        let test = "a_killed_holder_is_replaced_whoever_it_was_starting";
        let mut holder = Child::start(test, "holder", place.path());
        holder.wait_for("locked");
        let handle = ProcessHandle::open(ProcessId::of(holder.pid()).unwrap()).unwrap();
        holder.kill();
        wait_for_death(&handle);
        DirLock::acquire(&place.path().join("lock")).unwrap();
    }
}

#[test]
fn one_process_cannot_hold_a_lock_twice_but_again() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("lock");
    let first = DirLock::acquire(&path).unwrap();
    assert!(matches!(DirLock::acquire(&path), Err(LockError::Held { .. })));
    drop(first);
    assert_eq!(fs::read(&path).unwrap(), b"", "a released lock names nobody");
    DirLock::acquire(&path).unwrap();
}

#[test]
fn the_lock_file_has_mode_0600_under_any_umask() {
    if let Some(place) = role("masked") {
        umask(Mode::from_raw_mode(0o777));
        DirLock::acquire(&place.join("lock")).unwrap();
        return;
    }
    let place = tempfile::tempdir().unwrap();
    Child::start("the_lock_file_has_mode_0600_under_any_umask", "masked", place.path()).succeed();
    assert_eq!(fs::metadata(place.path().join("lock")).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn only_a_regular_file_serves_as_lock() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("target"), "precious").unwrap();
    std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
    mkfifoat(CWD, at("fifo"), Mode::RWXU).unwrap();
    fs::create_dir(at("dir")).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    for name in ["link", "fifo", "dir", "socket"] {
        let result = DirLock::acquire(&at(name));
        assert!(matches!(result, Err(LockError::NotRegular { .. })), "{name}: {result:?}");
    }
    assert_eq!(fs::read(at("target")).unwrap(), b"precious");
    assert!(matches!(DirLock::acquire(Path::new("/nowhere/lock")), Err(LockError::Io { .. })));
}

#[test]
fn a_file_with_a_second_name_is_refused_unchanged() {
    let place = tempfile::tempdir().unwrap();
    let (precious, path) = (place.path().join("precious"), place.path().join("lock"));
    fs::write(&precious, "content").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(&precious, &path).unwrap();
    let refused = DirLock::acquire(&path);
    assert!(matches!(refused, Err(LockError::Linked { .. })), "{refused:?}");
    assert_eq!(fs::read(&precious).unwrap(), b"content");
    assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o7777, 0o640);
    fs::remove_file(&precious).unwrap();
    DirLock::acquire(&path).unwrap();
}

#[test]
fn nonsense_in_the_lock_file_is_not_a_holder() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("lock");
    let lock = DirLock::acquire(&path).unwrap();
    for nonsense in [&b""[..], b"\xff\xfe", b"12@", b"12@34 and more", &[b'9'; 1000]] {
        fs::write(&path, nonsense).unwrap();
        let result = DirLock::acquire(&path);
        assert!(matches!(result, Err(LockError::Held { holder: None, .. })), "{nonsense:?}: {result:?}");
    }
    drop(lock);
}
