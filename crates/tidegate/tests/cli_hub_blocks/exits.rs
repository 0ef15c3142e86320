//! How commands end (DH-266), what they refuse, and what they never change or show.

use std::mem::offset_of;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tidegate::hub::block::{AttachOptions, Block, CreateOptions, Role, attach, create};
use tidegate::hub::core::codec::{Ctl, SlotState};
use tidegate::hub::layout::pages::{ControlPage, SlotRecord, SyncPage};
use tidegate::shm::sync::Ordering::Relaxed;

use crate::block::{Example, NAME, process};
use crate::support::{Running, tidegate};

/// Commands that only look.
const LOOKING: [&[&str]; 10] = [
    &["status"],
    &["inspect"],
    &["metrics"],
    &["watch", "--count", "2", "--interval", "10ms"],
    &["diagnose"],
    &["diagnose", "--slot", "1"],
    &["validate", "--deep"],
    &["show-readers"],
    &["list-locks"],
    &["audit"],
];

/// T-07.
/// Rules: DH-266, T-07.
#[test]
fn exit_codes() {
    let example = Example::new();
    example.hub(&["status", NAME]).exits(3);
    let mut writer = example.heal();
    example.hub(&["status", NAME]).exits(0);
    example.hub(&["diagnose", NAME]).exits(0);
    writer.kill().unwrap();
    writer.wait().unwrap();

    example.hub(&["status", "--bad-option"]).exits(2);
    example.hub(&["status"]).exits(2);
    example.hub(&["status", NAME, "--channel", "x"]).exits(2);
    let (code, _) = example.hub(&["status", "tidegate_none_00000000", "--json"]).exits(5).error();
    assert_eq!(code, "not_found");
    example.hub(&["status", "--channel", "none"]).exits(5);
    example.hub(&["diagnose", NAME, "--slot", "8"]).exits(5);
    example.hub(&["reset-slot", NAME, "--slot", "8"]).exits(5);
    example.hub(&["status", "../etc/passwd"]).exits(1);

    let path = example.dir.path().join(NAME);
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o666);
    let (code, _) = example.hub(&["status", NAME, "--json"]).exits(6).error();
    assert_eq!(code, "untrusted_owner");
    mode(0o600);

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0x80] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for words in LOOKING {
        let words: Vec<&str> = words.iter().copied().chain([NAME]).collect();
        example.hub(&words).exits(7);
    }
    example.hub(&["reset-slot", NAME, "--slot", "2"]).exits(7);
    example.hub(&["force-unlink", NAME]).exits(7);
    example.hub(&["force-unlink", NAME, "--force", "--yes"]).exits(0);
}

/// What is not in the header is damage that can be looked at.
/// Rules: DH-253, DH-266.
#[test]
fn damage_behind_the_header_is_named() {
    let example = Example::new();
    let slots = example.block.writer_views().unwrap().slot_records;
    slots.row(3).unwrap().u64::<{ offset_of!(SlotRecord, payload_len) }>().store(1 << 40, Relaxed);
    let out = example.hub(&["validate", NAME]).exits(3);
    assert!(
        out.stdout.contains("slot 3: payload_len is 1099511627776, expected 0 to 4096"),
        "{}",
        out.stdout
    );
    assert!(out.stdout.contains("Slot states:    INVALID") && out.stdout.ends_with("Overall: INVALID\n"));
    let json = example.hub(&["validate", NAME, "--json"]).exits(3).result();
    assert_eq!(
        (&json["findings"][0]["field"], &json["corrupted_slots"][0]),
        (&"payload_len".into(), &3.into())
    );
}

/// T-09, the command's part.
/// Rules: DH-257, DH-258, DH-266, DH-269, T-09.
#[test]
fn a_live_writer_is_cut_off_by_confirmed_force_only() {
    let example = Example::new();
    let (mut writer, key) = process();
    let views = example.block.writer_views().unwrap();
    views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().store(key.word(), Relaxed);
    views.slot_records.row(2).unwrap().u64::<{ offset_of!(SlotRecord, owner) }>().store(key.word(), Relaxed);
    let state = || {
        let slots = example.block.inspector_views().unwrap().slot_records;
        Ctl(slots.row(2).unwrap().u64::<{ offset_of!(SlotRecord, ctl) }>().load(Relaxed)).state()
    };
    let out = example.hub(&["reset-slot", NAME, "--slot", "2"]).exits(4);
    assert!(out.stdout.contains(&format!("liveness of pid {}: ALIVE", writer.id())), "{}", out.stdout);
    assert!(out.stderr.contains(&format!("writer {} is cut off", writer.id())), "{}", out.stderr);
    example.hub(&["reset-slot", NAME, "--slot", "2", "--force"]).exits(4);
    example.hub(&["reset-all", NAME, "--discard"]).exits(4);
    example.hub(&["release-zombies", NAME, "--writers", "--apply"]).exits(4);
    example.hub(&["force-unlink", NAME]).exits(4);
    example.hub(&["evict", NAME, "--row", "0"]).exits(4);
    assert_eq!(state(), Some(SlotState::Writing), "nothing was changed");
    example.hub(&["reset-slot", NAME, "--slot", "2", "--yes"]).exits(2);
    example.hub(&["reset-slot", NAME, "--slot", "2", "--force", "--yes"]).exits(0);
    assert_eq!(state(), Some(SlotState::Quarantined));
    let out = example.hub(&["status", NAME]).exits(3);
    assert!(out.stdout.contains("taint writer seized alive"), "{}", out.stdout);
    example.hub(&["reset-slot", NAME, "--slot", "2"]).exits(4);
    writer.kill().unwrap();
    writer.wait().unwrap();
    example.hub(&["reset-slot", NAME, "--slot", "2"]).exits(0);
    assert_eq!(state(), Some(SlotState::Free));
    example.hub(&["evict", NAME, "--row", "0", "--force", "--yes"]).exits(0);
    // Who was evicted already is not evicted again, and keeps nobody else from it.
    let stale = ["cleanup-heartbeats", NAME, "--timeout", "1ms", "--apply", "--force", "--yes"];
    example.hub(&stale).exits(0);
    let audit = example.hub(&["audit", NAME]).exits(0).stdout;
    assert!(audit.contains("seize FORCED") && audit.contains("evict"), "{audit}");
}

/// Who takes over from a dead writer removes dead consumers as well; the dry run says so.
/// Rules: DH-260, DH-268.
#[test]
fn what_goes_with_a_dead_writer_is_said_before() {
    let example = Example::new();
    let planned = example.hub(&["release-zombies", NAME, "--writers", "--json"]).exits(3).result();
    let codes: Vec<_> = planned["plan"].as_array().unwrap().iter().map(|repair| &repair["code"]).collect();
    assert_eq!(codes, ["adopt", "reap"]);
    let out = example.hub(&["release-zombies", NAME, "--writers", "--apply"]).exits(0).stdout;
    assert!(out.starts_with("writer: ") && out.contains("consumer row 2: reaped"), "{out}");
    assert!(out.ends_with("1 row reaped\n"), "{out}");
    let planned = example.hub(&["release-zombies", NAME, "--json"]).exits(0).result();
    assert_eq!(planned["plan"].as_array().unwrap().len(), 0, "{planned}");
}

/// Who does not confirm has changed nothing, not even what would have been safe.
/// Rules: DH-257, DH-268.
#[test]
fn cleaning_up_by_force_asks_first() {
    let example = Example::new();
    let path = example.dir.path().join(NAME);
    let before = std::fs::read(&path).unwrap();
    let words = ["cleanup-heartbeats", NAME, "--timeout", "1ms", "--apply", "--force"];
    let out = example.hub(&words).exits(4);
    assert!(out.stderr.contains("nothing was changed"), "{}", out.stderr);
    assert!(std::fs::read(&path).unwrap() == before);
    let steps = example.hub(&[words.as_slice(), &["--yes", "--json"]].concat()).exits(0).result();
    assert_eq!(steps["steps"].as_array().unwrap().len(), 3, "one was dead, two are stale: {steps}");
}

/// The dry run lists what there is to do: also what a writer has left open that is known no more.
/// Rules: DH-260, DH-268.
#[test]
fn what_a_dry_run_of_release_zombies_lists_is_done() {
    let example = Example::new();
    let views = example.block.writer_views().unwrap();
    let row = views.control.row();
    let owner = row.u64::<{ offset_of!(ControlPage, writer_owner) }>();
    let handover = row.u32::<{ offset_of!(ControlPage, handover_state) }>();
    let (mut live, key) = process();
    let dead = owner.load(Relaxed);
    let [dry, apply] = [
        ["release-zombies", NAME, "--writers", "--dry-run", "--json"],
        ["release-zombies", NAME, "--writers", "--apply", "--json"],
    ];
    // A writer that lives, and one whose channel has gone on elsewhere.
    for (writer, state, code) in [(key.word(), 0, 4), (dead, 2, 0), (dead, 3, 0)] {
        owner.store(writer, Relaxed);
        handover.store(state, Relaxed);
        let planned = example.hub(&dry).exits(0).result();
        assert_eq!(planned["plan"].as_array().unwrap().len(), 0, "{planned}");
        let out = example.hub(&apply).exits(code);
        assert!(code != 0 || out.result()["steps"].as_array().unwrap().is_empty(), "{}", out.stdout);
        assert_eq!(owner.load(Relaxed), writer, "nothing was changed");
    }
    live.kill().unwrap();
    live.wait().unwrap();
    owner.store(0, Relaxed);
    handover.store(0, Relaxed);
    let planned = example.hub(&dry).exits(3).result();
    assert_eq!(
        (planned["plan"].as_array().unwrap().len(), &planned["plan"][0]["code"]),
        (2, &"adopt".into())
    );
    let done = example.hub(&apply).exits(0).result();
    assert_eq!((done["steps"].as_array().unwrap().len(), &done["steps"][0]["object"]), (2, &"writer".into()));
    example.hub(&dry).exits(0);
}

/// T-11: a file that nobody may write can be looked at with every one of them, and no byte of it changes.
/// Rules: DH-267, DH-270, T-11, N-45.
#[test]
fn looking_changes_nothing_and_shows_no_payload() {
    let example = Example::new();
    let path = example.dir.path().join(NAME);
    let secret = b"canary-in-a-slot";
    for slot in 0..8 {
        example.block.slot_mut(slot).unwrap().write_at(0, secret).unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    for words in LOOKING {
        for json in [None, Some("--json")] {
            let words: Vec<&str> = words.iter().copied().chain([NAME]).chain(json).collect();
            let out = example.hub(&words);
            assert!(matches!(out.code, Some(0 | 3)), "{words:?}: {}", out.stderr);
            assert!(!out.stdout.contains("canary"), "{words:?}");
            if json.is_some() {
                assert!(!out.results().is_empty());
            }
        }
    }
    assert!(std::fs::read(&path).unwrap() == before);
}

/// N-45.
/// Rules: DH-264, DH-268, N-45.
#[test]
fn a_channel_with_two_blocks_is_not_guessed() {
    let example = Example::new();
    let options = tidegate::hub::block::CreateOptions {
        dir: example.dir.path().to_owned(),
        ..tidegate::hub::block::CreateOptions::default()
    };
    let other = tidegate::hub::block::create(&crate::block::spec(), &options).unwrap();
    let out = example.hub(&["status", "--channel", "sensor_temperature", "--json"]).exits(2);
    let (code, message) = out.error();
    assert_eq!(code, "ambiguous");
    assert!(message.contains(NAME) && message.contains(&other.descriptor().file_name()), "{message}");
    drop(other);
    // Its writer, this process, holds it no more, but lives: nothing of this is proven dead.
    let out = example.hub(&["reclaim"]).exits(0);
    assert_eq!(out.stdout, "Nothing to remove.\n");
}

/// Rules: DH-241, DH-268, N-45.
#[test]
fn reclaim_removes_what_is_dead_and_only_when_told() {
    let example = Example::new();
    let views = example.block.writer_views().unwrap();
    for row in 0..2 {
        let dead = crate::block::dead_process().word();
        views.consumers.row(row).unwrap().u64::<0x08>().store(dead, Relaxed);
    }
    let out = example.hub(&["reclaim"]).exits(3);
    assert!(out.stdout.contains(NAME) && out.stdout.contains("Dry run"), "{}", out.stdout);
    assert!(example.dir.path().join(NAME).exists());
    let out = example.hub(&["reclaim", "--apply", "--json"]).exits(0).result();
    assert_eq!(out["removed"][0], NAME);
    assert!(!example.dir.path().join(NAME).exists());
}

/// A block whose writer is dead.
fn abandoned(dir: &std::path::Path) -> Block {
    let options = CreateOptions { dir: dir.to_owned(), ..CreateOptions::default() };
    let name = create(&crate::block::spec(), &options).unwrap().descriptor().file_name();
    let options = AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(Role::Recovery) };
    let block = attach(&name, &options).unwrap();
    let control = block.writer_views().unwrap().control;
    let owner = control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>();
    owner.store(crate::block::dead_process().word(), Relaxed);
    block
}

/// What another one has removed meanwhile is left out; a block that cannot be had keeps none of the others.
/// Rules: DH-241, DH-262, N-43.
#[test]
fn reclaim_goes_on_behind_blocks_that_it_does_not_get() {
    let dir = crate::support::place();
    let words = ["hub", "reclaim", "--apply", "--json", "--dir", dir.path().to_str().unwrap()];
    let removed = |out: &Value| out["removed"].as_array().unwrap().len();
    let blocks: Vec<Block> = (0..24).map(|_| abandoned(dir.path())).collect();
    let both = [(); 2].map(|()| Running::start(tidegate().args(words)));
    let both = both.map(|running| running.finish().exits(0).result());
    assert_eq!(both.iter().map(removed).sum::<usize>(), blocks.len());

    let mut blocks: Vec<Block> = (0..3).map(|_| abandoned(dir.path())).collect();
    blocks.sort_by_key(|block| block.descriptor().file_name());
    let lock = blocks[0].consumer_views().unwrap().sync;
    let lock = lock.row().u64::<{ offset_of!(SyncPage, maintenance_lock) }>();
    lock.store(blocks[0].own_key().word(), Relaxed);
    let out = Running::start(tidegate().args(words)).finish().exits(1);
    assert_eq!((removed(&out.result()), out.error().0.as_str()), (2, "lock_timeout"));
    assert!(blocks[0].path().exists());
}
