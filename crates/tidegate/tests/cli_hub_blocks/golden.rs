//! What people see: the examples of 19.2, with the pids of the day replaced by those of the sheet. The example here has no
//! schema and no enforced digests; ages are those that the block was made with, and may be a second more.

use crate::block::{Example, NAME};

/// The output with ages that may have grown by a second put back.
#[track_caller]
fn same(found: &str, expected: &str) {
    let lines =
        |text: &str| text.trim_end().lines().map(str::trim_end).map(str::to_owned).collect::<Vec<_>>();
    let (found, expected) = (lines(found), lines(expected));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
    for (line, wanted) in found.iter().zip(&expected) {
        let (have, want) = (words(line), words(wanted));
        let mut pairs = have.iter().zip(&want).enumerate();
        let close = |a: &str, b: &str| match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.abs_diff(b) <= 20,
            _ => false,
        };
        let is_age =
            |at: usize| have.get(at + 1).is_some_and(|unit| unit.trim_end_matches([',', ')']) == "s");
        let same =
            have.len() == want.len() && pairs.all(|(at, (a, b))| a == b || (is_age(at) && close(a, b)));
        assert!(same, "found:    {line}\nexpected: {wanted}\nin\n{}", found.join("\n"));
    }
}

/// T-06.
/// Rules: DH-264, DH-265, T-06, T-07.
#[test]
fn status() {
    let example = Example::new();
    let out = example.hub(&["status", "--shm-name", NAME]).exits(3);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "Block:        tidegate_sensor_temperature_9f3c21ab
Channel:      sensor_temperature
Layout:       1.0   state READY   taint none   pages 4 KiB   mode 0600
Policy:       RingBuffer x 8, AllReaders, overflow Block, orphan Retain
Slot:         4096 B (stride 4096)   untyped
Digest:       blake3, Manual
Writer:       pid 12345 DEAD (epoch 3), last heartbeat 46 s ago
Indices:      write 1043   commit 1042   floor 1036   occupancy 7/8 (87.5 %)
Slots:        7 COMMITTED, 1 WRITING
Consumers:    3 of 8 (2 alive, 1 dead)
Handover:     none
Verdict:      UNHEALTHY: writer dead, 1 stuck slot, 1 dead consumer, 1 lock of a dead process",
    );
    let by_channel = example.hub(&["status", "--channel", "sensor_temperature", "--no-color"]).exits(3);
    assert_eq!(by_channel.stdout.lines().next(), out.stdout.lines().next());
}

/// Rules: DH-265, T-06.
#[test]
fn inspect() {
    let example = Example::new();
    let out = example.hub(&["inspect", NAME]).exits(3);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "Block: tidegate_sensor_temperature_9f3c21ab

Performance:
  Slots written:     1,234,567
  Slots read:        1,234,560
  Bytes written:     5,056,786,432
  Uptime:            1d 02h 30m
  Write latency:     p50 -   p99 -
  Read latency:      p50 -   p99 -

Errors:
  Last error:        SLOT_ACQUIRE_TIMEOUT (201)
  Error sequence:    42
  Checksum failures: 0
  ZMQ failures:      0

Writer:
  Timeouts:          42 (rate 0.0034 %)
  Blocked:           123 ms
  Contention:        0

Reader:
  Races resolved:    5
  Peak readers:      3

Health: UNHEALTHY (writer dead, 1 stuck slot, 1 dead consumer, 1 lock of a dead process)",
    );
    let mut writer = example.heal();
    let healthy = example.hub(&["inspect", NAME]).exits(0);
    assert_eq!(healthy.stdout.lines().last(), Some("Health: OK"));
    writer.kill().unwrap();
    writer.wait().unwrap();
}

/// Rules: DH-265, DH-252, T-06.
#[test]
fn diagnose() {
    let example = Example::new();
    let out = example.hub(&["diagnose", "--shm-name", NAME]).exits(3);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "Block:   tidegate_sensor_temperature_9f3c21ab   RingBuffer/AllReaders   capacity 8
Writer:  pid 12345 DEAD
Status:  1 stuck, 7 healthy

SLOT  STATE      SLOT ID  GEN  LENGTH  READERS  AGE   NOTE
0     COMMITTED  1040     131  4096    -        46 s  ok
1     COMMITTED  1041     131  4096    23456    45 s  ok
2     WRITING    1042     131  -       -        45 s  STUCK: owner pid 12345 DEAD -> tidegate hub reset-slot --slot 2
3     COMMITTED  1035     130  4096    -        51 s  ok
4     COMMITTED  1036     130  4096    -        50 s  ok
5     COMMITTED  1037     130  4096    -        49 s  ok
6     COMMITTED  1038     130  4096    -        48 s  ok
7     COMMITTED  1039     130  4096    -        47 s  ok

ROW  PID    UID             LIVENESS  HEARTBEAT  CURSOR  LAG  CLAIM
0    23456  CONS-ui-01      alive     1 s        1041    1    1041
1    34567  CONS-logger-01  alive     2 s        1042    0    -
2    45678  CONS-probe-02   DEAD      12 s       1036    6    -

Also:
  lock 8 is held by pid 45678, which is dead -> `force-unlock-all`; the next locker does it itself",
    );
    let one = example.hub(&["diagnose", NAME, "--slot", "2", "--verbose"]).exits(3);
    let text = example.as_in_the_sheet(&one.stdout);
    let start = text.split("start tick ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    same(
        &text.replace(&start, "987654"),
        "Slot 2
  State:          WRITING (since 45 s)
  Slot id:        1042   generation 131
  Owner:          pid 12345, start tick 987654, DEAD
  Owner thread:   1
  Readers:        0
  Writer waiting: no
  Stuck:          YES
  Record offset:  0x9080   data offset 0xd000
Recommendation:   safe to reset, the owner is dead
  tidegate hub reset-slot --shm-name tidegate_sensor_temperature_9f3c21ab --slot 2",
    );
}

/// Rules: DH-260, DH-265, DH-268, T-06, T-08.
#[test]
fn auto_recover() {
    let example = Example::new();
    let file = example.dir.path().join(NAME);
    let before = std::fs::read(&file).unwrap();
    let out = example.hub(&["auto-recover", "--shm-name", NAME]).exits(3);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "Scanning tidegate_sensor_temperature_9f3c21ab ...
Found 3 issues:
  [1] writer pid 12345 DEAD: slot 2 holds abandoned id 1042
      action: adopt, slot 2 -> FREE, id 1042 becomes a hole, commit index 1042 -> 1043
  [2] consumer row 2: pid 45678 DEAD, last heartbeat 12 s ago
      action: reap row 2, floor may rise 1036 -> 1041
  [3] spinlock 8 (calib): pid 45678 DEAD
      action: release lock 8, mark it poisoned
Dry run: nothing changed. Repeat with --apply to perform 3 actions.",
    );
    assert!(std::fs::read(&file).unwrap() == before, "a dry run changes nothing, not even a counter");
    let json = example.hub(&["auto-recover", NAME, "--dry-run", "--json"]).exits(3).result();
    assert_eq!(json["plan"][0]["code"], "adopt");
    assert_eq!(json["applied"], false);
    let out = example.hub(&["auto-recover", "--shm-name", NAME, "--apply"]).exits(0);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "  [1] adopted block, slot 2 -> FREE, id 1042 is a hole
  [2] spinlock 8 (calib): released, marked poisoned
  [3] reaped consumer row 2 (pid 45678)
Recovery complete: 3 actions applied.",
    );
    let again = example.hub(&["auto-recover", NAME]).exits(0);
    assert!(again.stdout.ends_with("Found nothing to do.\n"), "{}", again.stdout);
    let audit = example.hub(&["audit", NAME, "--json"]).exits(0).result();
    let done: Vec<_> =
        audit["audit"].as_array().unwrap().iter().map(|entry| entry["operation"].as_str().unwrap()).collect();
    assert_eq!(done, ["adopt", "reset-slot", "reap", "unlock"]);
}

/// Rules: DH-265, DH-269, T-06.
#[test]
fn reset_slot() {
    let example = Example::new();
    let out = example.hub(&["reset-slot", "--shm-name", NAME, "--slot", "2"]).exits(0);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "slot 2: WRITING id 1042, owner pid 12345
liveness of pid 12345: DEAD
before: state=WRITING id=1042 owner=12345 readers=0
after:  state=FREE    id=1042 owner=-     readers=0
slot 2 reset to FREE; id 1042 is a hole",
    );
}

/// Rules: DH-265, T-06.
#[test]
fn validate() {
    let example = Example::new();
    let out = example.hub(&["validate", "--shm-name", NAME]).exits(0);
    same(
        &out.stdout,
        "Header:         ok
Region table:   ok
Control words:  ok
Slot states:    ok
Consumer rows:  ok
Locks:          ok
Corrupted slots: 0
Overall: VALID",
    );
}

/// Rules: DH-265, T-06.
#[test]
fn show_readers_and_list_locks() {
    let example = Example::new();
    let out = example.hub(&["show-readers", "--shm-name", NAME, "--slot", "1"]).exits(0);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "Slot 1, id 1041, COMMITTED
  row 0  pid 23456  CONS-ui-01  alive  claim since 3 s
Held back by cursors at or below 1041:
  row 0  pid 23456  CONS-ui-01     cursor 1041
  row 2  pid 45678  CONS-probe-02  cursor 1036  DEAD",
    );
    let out = example.hub(&["list-locks", "--shm-name", NAME]).exits(0);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "KIND         INDEX  LABEL          OWNER  LIVENESS  DEPTH  HELD  FLAGS
writer       -      -              12345  DEAD      -      26 s  -
maintenance  -      -              -      -         -      -     -
spinlock     0      zone:metadata  -      -         -      -     system
spinlock     8      calib          45678  DEAD      1      12 s  -
2 held, 2 by dead owners",
    );
    let out = example.hub(&["force-unlock-all", "--shm-name", NAME]).exits(0);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "spinlock 8 (calib): owner pid 45678 DEAD -> released, marked poisoned
1 lock released, 0 skipped",
    );
}

/// Rules: DH-265, DH-268, DH-236, T-06.
#[test]
fn release_zombies_and_cleanup_heartbeats() {
    let example = Example::new();
    let out = example.hub(&["cleanup-heartbeats", "--shm-name", NAME, "--timeout", "5s"]).exits(3);
    let found = example.as_in_the_sheet(&out.stdout);
    // Where the test took so long that they are stale.
    let found: Vec<_> = found
        .lines()
        .map(|line| if line.ends_with("ago  ") { format!("{line}alive") } else { line.to_owned() })
        .collect();
    same(
        &found.join("\n"),
        "row 0: pid 23456  last seen 1 s ago   alive
row 1: pid 34567  last seen 2 s ago   alive
row 2: pid 45678  last seen 12 s ago  DEAD   would be removed
Dry run: nothing changed. Repeat with --apply to remove 1 row.",
    );
    example.hub(&["release-zombies", NAME, "--readers"]).exits(3);
    let out = example.hub(&["release-zombies", "--shm-name", NAME, "--readers", "--apply"]).exits(0);
    same(
        &example.as_in_the_sheet(&out.stdout),
        "row 2: pid 45678 DEAD, no claim, cursor 1036 -> reaped
1 row reaped",
    );
    let out = example.hub(&["cleanup-heartbeats", NAME, "--timeout", "1h"]).exits(0);
    assert!(out.stdout.ends_with("Nothing to remove.\n"), "{}", out.stdout);
}

/// Rules: DH-255, DH-257, DH-265, DH-269, T-06.
#[test]
fn force_unlink() {
    let example = Example::new();
    let out = example.hub(&["force-unlink", "--shm-name", NAME]).exits(4);
    let mut live = [example.pids[1], example.pids[2]];
    live.sort_unstable();
    assert!(
        out.stderr.contains(&format!("2 may be alive: {}, {}; use --force", live[0], live[1])),
        "{}",
        out.stderr
    );
    let out = example.hub(&["force-unlink", "--shm-name", NAME, "--force"]).exits(4);
    assert!(out.stderr.contains("--yes"), "nobody is at a terminal: {}", out.stderr);
    assert!(example.dir.path().join(NAME).exists());
    let out = example.hub(&["force-unlink", "--shm-name", NAME, "--force", "--yes"]).exits(0);
    assert_eq!(out.stdout, format!("removed {NAME}\n"));
    assert!(!example.dir.path().join(NAME).exists());
}

/// Rules: DH-246, DH-265, T-06.
#[test]
fn metrics_and_size() {
    let example = Example::new();
    let out = example.hub(&["metrics", "--shm-name", NAME]).exits(0);
    assert!(
        out.stdout.lines().any(|line| line.split_whitespace().eq(["writer_timeout_count", "42"])),
        "{}",
        out.stdout
    );
    let out = example.hub(&["metrics", "--shm-name", NAME, "--reset"]).exits(0);
    assert_eq!(out.stdout, "metrics reset (kept: error_sequence 42, creation time, consumer rows)\n");
    let json = example.hub(&["metrics", NAME, "--json"]).exits(0).result();
    assert_eq!(json["counters"]["writer_timeout_count"], "0");
    assert_eq!(json["counters"]["error_sequence"], "42");
    let out = crate::support::run([
        "hub", "size", "--rate", "10000/s", "--drain", "100/s", "--burst", "1s", "--safety", "1.5",
    ])
    .exits(0);
    assert_eq!(
        out.stdout,
        "backlog at end of burst:   9900 slots
with safety factor 1.5:    14850 slots
rounded to power of two:   16384 slots
memory at 4096 B per slot: 66.0 MiB (with digests)
warning: mean rate must stay below 100/s or any ring fills
"
    );
}

/// N-47.
/// Rules: DH-281, N-47.
#[test]
fn help_has_the_procedures() {
    let out = crate::support::run(["hub", "help", "recovery"]).exits(0);
    for number in 1..=11 {
        assert!(out.stdout.contains(&format!("\nPR-{number}  ")), "PR-{number}");
    }
    for part in ["sign  ", "look  ", "act   ", "loss  ", "never delete by age alone", "[ ] every block"] {
        assert!(out.stdout.contains(part), "{part}");
    }
    let json = crate::support::run(["hub", "help", "recovery", "--json"]).exits(0).result();
    assert_eq!(json["procedures"].as_array().unwrap().len(), 11);
    assert!(crate::support::run(["hub", "help", "diagnose"]).exits(0).stdout.contains("--threshold"));
    crate::support::run(["hub", "help", "nothing"]).exits(2);
}

/// The fields are those of `docs/json.md`.
/// Rules: DH-265.
#[test]
fn json_has_the_documented_fields() {
    let example = Example::new();
    for (words, heading) in [
        (["status", NAME].as_slice(), "tidegate hub status"),
        (&["diagnose", NAME], "tidegate hub diagnose"),
        (&["diagnose", NAME, "--slot", "2"], "One slot of a block"),
        (&["validate", NAME], "tidegate hub validate"),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        crate::fields::assert_documented(&example.hub(&words).result(), heading);
    }
    let slot = &example.hub(&["diagnose", NAME, "--json"]).result()["slots"][2];
    crate::fields::assert_documented(slot, "One slot of a block");
    assert_eq!((&slot["id"], &slot["recommendation"]), (&"1042".into(), &"reset-slot".into()));
}
