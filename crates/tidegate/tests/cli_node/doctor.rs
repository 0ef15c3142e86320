//! `tidegate doctor`: what crashed processes leave is found, said, and removed only when proven dead.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_aeron::{Client, ClientOptions};

use crate::fields::assert_documented;
use crate::support::{Node, Outcome, Running, eventually, place, run, tidegate};

/// Looks at one place only, and is content with any amount of free memory.
fn doctor(shm: &Path, args: &[&str]) -> Outcome {
    let mut command = tidegate();
    command.args(["doctor", "--json", "--min-free", "0", "--shm"]).arg(shm).args(args);
    Running::start(&mut command).finish()
}

/// The findings of one check.
fn findings(outcome: &Outcome, check: &str) -> Vec<Value> {
    let results = outcome.results();
    for result in &results {
        assert_documented(result, "tidegate doctor");
    }
    results.into_iter().filter(|result| result["check"] == check).collect()
}

fn only(outcome: &Outcome, check: &str) -> Value {
    let mut found = findings(outcome, check);
    assert_eq!(found.len(), 1, "{outcome:?}");
    found.remove(0)
}

#[test]
fn a_killed_node_is_found_and_removed_and_a_live_one_left_alone() {
    let place = place();
    let up = |name: &str| {
        let dir = place.path().join(name);
        let node = Running::start(tidegate().args(["--json", "up", "--dir"]).arg(&dir));
        assert_eq!(node.json()["ready"], true);
        (node, dir)
    };
    let (live, live_dir) = up("tidegate-live");
    let (dead, dead_dir) = up("tidegate-dead");
    let named = |outcome: &Outcome, dir: &Path| -> Value {
        let found = findings(outcome, "node").into_iter().find(|finding| finding["path"] == json!(dir));
        found.expect("a finding")
    };
    let healthy = doctor(place.path(), &["--fix"]).exits(0);
    for (node, dir) in [(&live, &live_dir), (&dead, &dead_dir)] {
        let finding = named(&healthy, dir);
        assert_eq!((&finding["status"], &finding["pid"]), (&json!("ok"), &json!(node.pid())));
    }
    // Regions too, so that there is something to leave.
    let dir_text = dead_dir.to_str().expect("a path");
    run(["tensor", "attach", "camera", "--role", "consumer", "--create", "--dir", dir_text]).exits(0);
    let pid = dead.pid();
    dead.signal(Signal::KILL);
    dead.finish();

    let sick = doctor(place.path(), &[]).exits(1);
    let finding = named(&sick, &dead_dir);
    assert_eq!((&finding["status"], &finding["safe_to_remove"]), (&json!("problem"), &json!(true)));
    assert_eq!(finding["pid"], pid);
    assert!(finding["bytes"].as_u64() > Some(1 << 20), "{finding}");
    let advice = finding["advice"].as_str().expect("advice");
    assert!(advice.contains(&format!("tidegate doctor --fix --shm {}", place.path().display())), "{advice}");
    assert_eq!(named(&sick, &live_dir)["status"], "ok");
    assert!(dead_dir.join("node.json").exists(), "looking changes nothing");

    let fixed = doctor(place.path(), &["--fix"]).exits(0);
    assert_eq!(named(&fixed, &dead_dir)["status"], "fixed");
    assert_eq!(named(&fixed, &live_dir)["status"], "ok");
    assert!(!dead_dir.exists(), "{:?}", fs::read_dir(&dead_dir).map(Iterator::collect::<Vec<_>>));
    run(["ls", "--dir", live_dir.to_str().expect("a path")]).exits(0);
    assert_eq!(findings(&doctor(place.path(), &[]).exits(0), "node").len(), 1);

    live.signal(Signal::TERM);
    live.finish().exits(0);
    assert!(!live_dir.exists());
}

#[test]
fn foreign_files_in_a_node_directory_stay() {
    let node = Node::start();
    fs::write(node.dir().join("notes.txt"), "mine").expect("a file");
    let (place, dir) = node.kill();
    let outcome = doctor(place.path(), &["--fix"]).exits(1);
    let finding = only(&outcome, "node");
    assert_eq!((&finding["status"], &finding["safe_to_remove"]), (&json!("problem"), &json!(false)));
    let left: Vec<PathBuf> =
        fs::read_dir(&dir).expect("it is there").map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(left, [dir.join("notes.txt")]);
}

#[test]
fn a_node_that_does_not_answer_is_named_and_not_touched() {
    let node = Node::start();
    node.signal(Signal::STOP);
    let outcome = doctor(node.place(), &["--fix"]);
    let finding = only(&outcome.exits(1), "node");
    assert_eq!((&finding["status"], &finding["safe_to_remove"]), (&json!("problem"), &json!(false)));
    assert_eq!(finding["pid"], node.pid());
    let text = |name: &str| finding[name].as_str().expect("a text").to_owned();
    assert!(text("message").contains("it is stopped"), "{finding}");
    assert!(text("advice").contains(&format!("kill -CONT {}", node.pid())), "{finding}");
    for file in ["node.json", "admin.sock", "aeron/cnc.dat", ".lock"] {
        assert!(node.dir().join(file).exists(), "{file}");
    }
}

/// A node elsewhere is looked at when it is named.
#[test]
fn directories_with_other_names_are_given() {
    let place = place();
    let dir = place.path().join("lab");
    let node = Running::start(tidegate().args(["--json", "up", "--dir"]).arg(&dir));
    assert_eq!(node.json()["ready"], true);
    let text = dir.to_str().expect("a path");
    assert!(findings(&doctor(place.path(), &[]).exits(0), "node").is_empty());
    assert_eq!(only(&doctor(place.path(), &["--dir", text]).exits(0), "node")["status"], "ok");
    let mut by_variable = tidegate();
    by_variable
        .args(["doctor", "--json", "--min-free", "0", "--shm"])
        .arg(place.path())
        .env("TIDEGATE_DIR", &dir);
    assert_eq!(only(&Running::start(&mut by_variable).finish().exits(0), "node")["path"], text);
    node.signal(Signal::TERM);
    node.finish().exits(0);
}

/// Regions beside the node, as a configuration file may put them.
#[test]
fn epochs_of_dead_drivers_go_when_they_are_quiet() {
    let node = Node::start();
    node.run("tensor attach camera --role consumer --create").exits(0);
    let live = only(&doctor(node.place(), &["--fix"]).exits(0), "regions");
    assert_eq!((&live["status"], &live["pid"]), (&json!("ok"), &json!(node.pid())));
    let path = PathBuf::from(live["path"].as_str().expect("a path"));
    let epochs = |path: &Path| fs::read_dir(path.join("20000")).map_or(0, Iterator::count);
    assert_eq!(epochs(&path), 1);
    let pid = node.pid();
    let (place, dir) = node.kill();

    // Active a moment ago: a producer could still be there.
    let early = doctor(place.path(), &["--fix"]);
    assert_eq!(only(&early, "node")["status"], "fixed");
    assert!(!dir.exists());
    let quiet = eventually("the regions are quiet", || {
        let finding = only(&doctor(place.path(), &[]), "regions");
        (finding["status"] == "problem").then_some(finding)
    });
    assert_eq!((&quiet["safe_to_remove"], &quiet["pid"]), (&json!(true), &json!(pid)));
    assert!(quiet["bytes"].as_u64() >= Some(559_296), "{quiet}");
    assert_eq!(epochs(&path), 1);
    let fixed = only(&doctor(place.path(), &["--fix"]).exits(0), "regions");
    assert_eq!(fixed["status"], "fixed");
    assert!(!path.exists() && !path.parent().expect("a parent").exists());
}

/// Regions whose maker lives stay, however old they are.
#[test]
fn epochs_of_live_processes_stay() {
    let place = place();
    let epoch = place.path().join("tensorpool-me/default/10010/1");
    fs::create_dir_all(&epoch).expect("directories");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../conformance/vectors/tensor-pool/shm/mix5/header.ring");
    let mut bytes = fs::read(golden).expect("a golden file");
    bytes[40..48].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
    fs::write(epoch.join("header.ring"), &bytes).expect("a region");
    let finding = only(&doctor(place.path(), &["--fix"]).exits(0), "regions");
    assert_eq!(
        (&finding["status"], &finding["message"]),
        (&json!("ok"), &json!("1 epoch of live processes"))
    );
    assert!(epoch.join("header.ring").exists());

    // Of nobody knows whom: reported, not removed.
    fs::write(epoch.join("header.ring"), b"nonsense").expect("a region");
    let finding = only(&doctor(place.path(), &["--fix"]).exits(1), "regions");
    assert_eq!((&finding["status"], &finding["safe_to_remove"]), (&json!("problem"), &json!(false)));
    assert!(epoch.join("header.ring").exists());
}

#[test]
fn media_drivers_are_judged_by_lock_process_and_heartbeat() {
    let place = place();
    let aeron = place.path().join("aeron-test");
    let dir = place.path().join("lab");
    let up = || {
        let mut command = tidegate();
        command.args(["--json", "up", "--dir"]).arg(&dir).arg("--aeron-dir").arg(&aeron);
        let node = Running::start(&mut command);
        assert_eq!(node.json()["ready"], true);
        node
    };
    let node = up();
    let live = only(&doctor(place.path(), &["--fix"]).exits(0), "media_driver");
    assert_eq!((&live["status"], &live["pid"]), (&json!("ok"), &json!(node.pid())));
    refuse_a_channel(&aeron);
    let met = only(&doctor(place.path(), &[]).exits(0), "media_driver");
    assert!(met["message"].as_str().is_some_and(|text| text.contains("carrier-pigeon")), "{met}");
    let pid = node.pid();
    node.signal(Signal::KILL);
    node.finish();

    // The kernel freed its lock, which names the run: no need to wait for the heartbeat to age.
    let dead = only(&doctor(place.path(), &[]).exits(1), "media_driver");
    assert_eq!((&dead["safe_to_remove"], &dead["pid"]), (&json!(true), &json!(pid)));
    // Without the lock a young heartbeat speaks against it.
    let lock = place.path().join("aeron-test.lock");
    let held = fs::read(&lock).expect("a lock file");
    fs::remove_file(&lock).expect("removed");
    let young = only(&doctor(place.path(), &["--fix"]).exits(1), "media_driver");
    assert_eq!((&young["status"], &young["safe_to_remove"]), (&json!("problem"), &json!(false)));
    assert!(young["message"].as_str().is_some_and(|text| text.contains("heartbeat is young")), "{young}");
    assert!(aeron.exists());
    fs::write(&lock, held).expect("put back");
    assert_eq!(only(&doctor(place.path(), &["--fix"]).exits(0), "media_driver")["status"], "fixed");
    assert!(!aeron.exists() && !lock.exists());

    // Not a media driver's directory at all.
    fs::create_dir(&aeron).expect("a directory");
    let unknown = only(&doctor(place.path(), &["--fix"]).exits(1), "media_driver");
    assert_eq!((&unknown["status"], &unknown["safe_to_remove"]), (&json!("problem"), &json!(false)));
    assert!(aeron.exists());
}

/// Makes the media driver note an error.
fn refuse_a_channel(aeron: &Path) {
    let client = Client::connect(&ClientOptions::new(aeron)).expect("a client");
    client.add_publication("aeron:carrier-pigeon", 3, Duration::from_secs(10)).expect_err("no such medium");
}

#[test]
fn too_little_memory_is_a_problem() {
    let place = place();
    let shm = place.path().to_str().expect("a path");
    let outcome = run(["doctor", "--json", "--shm", shm, "--min-free", "1000000000"]).exits(1);
    let memory = only(&outcome, "memory");
    assert_eq!((&memory["status"], &memory["path"]), (&json!("problem"), &json!(shm)));
    assert!(memory["advice"].as_str().is_some_and(|text| text.contains("remount")), "{memory}");
    assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    assert_eq!(only(&outcome, "huge_pages")["status"], "ok");
    let text = run(["doctor", "--shm", shm, "--min-free", "0"]).exits(0).stdout;
    assert!(text.starts_with("ok       memory "), "{text}");
    assert_eq!(run(["doctor", "--json", "--shm", "/no/such/place"]).exits(3).error().0, "not_found");
}
