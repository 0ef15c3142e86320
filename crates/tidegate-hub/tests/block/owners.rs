//! Who somebody is, and whether he lives: zombies, reused numbers, other namespaces.

use std::fs;
use std::mem::offset_of;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use tidegate_hub::{
    block::{AttachOptions, CreateError, CreateOptions, Role, attach, create},
    identity::{Kernel, Liveness, liveness},
    layout::pages::HeaderPage,
};
use tidegate_shm::sync::Ordering::Relaxed;

use crate::{Blocks, control, forge, name_of, other_process, spec};

/// Rules: DH-033, I-02.
#[test]
fn a_zombie_is_dead() {
    let (mut child, key) = other_process();
    assert_eq!(liveness(&Kernel, key), Liveness::Alive);
    child.kill().unwrap();
    let stat = format!("/proc/{}/stat", key.pid());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(Instant::now() < deadline, "not a zombie");
        std::thread::yield_now();
    }
    assert_eq!(liveness(&Kernel, key), Liveness::Dead);
    child.wait().unwrap();
    assert_eq!(liveness(&Kernel, key), Liveness::Dead);
}

/// Without the process table nobody can say who he is, and takes no part. In a mount namespace where it is covered.
/// Rules: DH-032, N-08.
#[test]
fn who_cannot_say_who_he_is_takes_no_part() {
    const TEST: &str = "owners::who_cannot_say_who_he_is_takes_no_part";
    const PLACE: &str = "TIDEGATE_TEST_COVERED";
    let Some(place) = std::env::var_os(PLACE) else {
        let blocks = Blocks::new();
        let _block = blocks.create();
        // The binary is started by its path, which does not lead through /proc.
        let script = "mount -t tmpfs none /proc && exec \"$0\" --exact \"$1\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(TEST)
            .env(PLACE, blocks.dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "this test mounts a tmpfs and needs root: {told}"
        );
        return;
    };
    let dir = PathBuf::from(place);
    let name = tidegate_hub::block::names(&dir).unwrap().remove(0);
    let refused =
        create(&spec(), &CreateOptions { dir: dir.clone(), ..CreateOptions::default() }).unwrap_err();
    assert!(matches!(refused, CreateError::Identity(_)), "{refused:?}");
    for role in [Role::Consumer, Role::Writer] {
        let options = AttachOptions { dir: dir.clone(), ..AttachOptions::new(role) };
        assert_eq!(attach(&name, &options).unwrap_err().code(), 123, "{role:?}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

/// A pid that was given to another process: in a pid namespace, where the next one can be chosen.
/// Rules: DH-033, I-04.
#[test]
fn a_reused_pid_is_another_process() {
    const TEST: &str = "owners::a_reused_pid_is_another_process";
    const INSIDE: &str = "TIDEGATE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        let output = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", TEST])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "this test makes a pid namespace and needs root: {told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let (mut first, old) = other_process();
    assert_eq!(liveness(&Kernel, old), Liveness::Alive);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(liveness(&Kernel, old), Liveness::Dead);
    // Start times are counted in hundredths of a second; two processes in one would have one key.
    std::thread::sleep(Duration::from_millis(30));
    fs::write("/proc/sys/kernel/ns_last_pid", (old.pid() - 1).to_string()).unwrap();
    let (mut second, new) = other_process();
    assert_eq!((new.pid(), new == old), (old.pid(), false));
    assert_eq!((liveness(&Kernel, old), liveness(&Kernel, new)), (Liveness::Dead, Liveness::Alive));
    second.kill().unwrap();
    second.wait().unwrap();
}

/// Ages from another time namespace cannot be told, and nobody there is judged.
/// Rules: DH-008, DH-034, N-50.
#[test]
fn ages_of_another_time_namespace_are_unknown() {
    use tidegate_hub::inspect::Inspector;
    let blocks = Blocks::new();
    let block = blocks.create();
    let (mut other, key) = other_process();
    control!(block, writer_owner).store(key.word(), Relaxed);
    let look = || Inspector::open(&name_of(&block), &blocks.options(Role::Inspector)).unwrap();
    let here = look();
    assert!(here.writer().heartbeat_age.is_some());
    assert_eq!(here.writer().liveness, Liveness::Alive);
    forge(&block, offset_of!(HeaderPage, timens_inode), &7_u64.to_le_bytes());
    let there = look();
    assert_eq!(there.writer().heartbeat_age, None);
    assert_eq!(there.writer().liveness, Liveness::Unknown);
    assert!(
        there.findings().iter().all(|finding| finding.severity() < tidegate_hub::inspect::Severity::Problem)
    );
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(
        there.writer().liveness,
        Liveness::Unknown,
        "the death of somebody there cannot be told either"
    );
}
