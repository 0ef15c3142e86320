//! Inputs that cannot be processed and go to the dead letters.

use std::{
    fs,
    time::{Duration, Instant},
};

use tidegate_vertex::run::Vertex;

use crate::world::{World, of, runtime, runtime_place};

/// A sink for outputs and one for dead letters.
fn sinks(world: &std::path::Path) -> String {
    format!(
        "[[sink]]\nname = \"main\"\nkind = \"file\"\npath = {:?}\n\
         [[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"file\"\npath = {:?}",
        world.join("out"),
        world.join("dead")
    )
}

fn letters(world: &World) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(world.path("dead")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Cases: CT-21.
/// Rules: VX-601, VX-611, VX-620, VX-621.
#[test]
fn what_cannot_be_processed_is_there_with_what_happened_to_it() {
    let world = World::new();
    let dir = world.path("");
    let source = "kind = \"generator\"\nrecords = 2000";
    let text = of(
        &dir,
        "at_least_once",
        "panic on 123",
        "retry = { initial = \"1ms\", attempts = 3 }",
        source,
        &sinks(&dir),
    );
    let report = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
    assert_eq!((report.dead, report.delivered, report.returned), (1, 1_999, 0));
    let expected: Vec<String> = (0..2_000).filter(|n| *n != 123).map(|n| format!("UPPER 0:{n}")).collect();
    assert_eq!(world.lines(), expected);
    let [letter] = letters(&world).try_into().unwrap();
    assert_eq!(letter["id"], "00000000000000aa.dead.0.7b.0");
    // 0:123
    assert_eq!(letter["value"], "MDoxMjM=");
    let header = |name: &str| letter["headers"][name].as_str().unwrap().to_owned();
    assert_eq!(header("tg-error-class"), "UDF_ERROR");
    assert!(header("tg-error-message").contains("123"), "{letter}");
    assert_eq!((header("tg-attempts"), header("tg-position")), ("3".to_owned(), "123".to_owned()));
    assert_eq!((header("tg-pipeline"), header("tg-partition")), ("test".to_owned(), "0".to_owned()));
    assert_eq!((header("tg-source"), header("tg-generation")), ("generator".to_owned(), "1".to_owned()));
    assert!(!header("tg-epoch").is_empty() && !header("tg-time").is_empty());
}

/// An input that is bad for good is tried once.
/// Rules: VX-402, VX-611, VX-620.
#[test]
fn what_is_rejected_is_not_tried_again() {
    let world = World::new();
    let dir = world.path("");
    let source = "kind = \"generator\"\nrecords = 9";
    let text = of(&dir, "at_least_once", "wrong route", "", source, &sinks(&dir));
    let report = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
    assert_eq!((report.dead, report.delivered), (1, 8));
    let [letter] = letters(&world).try_into().unwrap();
    let header = |name: &str| letter["headers"][name].as_str().unwrap().to_owned();
    assert_eq!((header("tg-error-class"), header("tg-attempts")), ("REJECTED".to_owned(), "1".to_owned()));
    assert!(header("tg-error-message").contains("no route 7"), "{letter}");
}

/// An input that ends its worker, in a runtime that is killed after two tries, again and again: tries are not forgotten.
/// Cases: CT-22.
/// Rules: VX-602, VX-611.
#[test]
fn tries_survive_the_runtime() {
    if let Some(dir) = runtime_place() {
        let rest = format!(
            "retry = {{ initial = \"1ms\", crash_attempts = 7 }}\n[ledger]\npath = {:?}\n[epoch]\ninterval = \"10ms\"",
            dir.join("ledger")
        );
        let source = "kind = \"generator\"\nrecords = 60";
        let text = of(&dir, "at_least_once", "die on 23", &rest, source, &sinks(&dir));
        // By itself from the beginning on, so that each death is its own.
        let text = text.replace("max_records = 50", "max_records = 1");
        Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let deaths = || fs::metadata(world.path("deaths")).map_or(0, |metadata| metadata.len());
    let mut runtimes = 0;
    loop {
        let before = deaths();
        let mut running = runtime("dead_letters::tries_survive_the_runtime", &world).spawn().unwrap();
        runtimes += 1;
        let give_up = Instant::now() + Duration::from_secs(100);
        // The second death of a run means that the first is in the ledger.
        while deaths() < before + 2 && running.try_wait().unwrap().is_none() {
            assert!(Instant::now() < give_up, "{} deaths", deaths());
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = running.try_wait().unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        if ended.is_some_and(|status| status.success()) {
            break;
        }
        // Each of them adds one try at least.
        assert!(runtimes <= 7, "tries are forgotten: {} deaths", deaths());
    }
    assert!(runtimes >= 3, "{runtimes} runtimes");
    let expected: Vec<String> = (0..60).filter(|n| *n != 23).map(|n| format!("UPPER 0:{n}")).collect();
    assert_eq!(world.lines(), expected);
    let [letter] = letters(&world).try_into().unwrap();
    assert_eq!(letter["headers"]["tg-error-class"], "CRASHED");
    assert_eq!(letter["headers"]["tg-attempts"], "7");
    let ledger = tidegate_vertex::ledger::inspect(&world.path("ledger"), None).unwrap().unwrap();
    assert_eq!(
        ledger["partitions"][0]["tried_before"],
        serde_json::json!([]),
        "tries of an input with an outcome"
    );
}

/// Cases: CT-50.
/// Rules: VX-623.
#[test]
fn what_cannot_be_put_there_is_not_done() {
    let world = World::new();
    let dir = world.path("");
    let rest =
        format!("retry = {{ initial = \"1ms\", attempts = 1 }}\n[ledger]\npath = {:?}", dir.join("ledger"));
    let source = "kind = \"generator\"\nrecords = 200";
    let epochs = "mode = \"epoch\"\ndir";
    let sinks = sinks(&dir).replace("path", epochs);
    let text = of(&dir, "effectively_once", "panic on 123", &rest, source, &sinks);
    let vertex = Vertex::start(text.parse().unwrap()).unwrap();
    // Where its staging directory was there is nothing any more: as if a later session had taken it away.
    fs::remove_dir_all(dir.join("dead").join("p=0")).unwrap();
    let error = vertex.run().unwrap_err();
    assert!(matches!(error, tidegate_vertex::run::VertexError::Fenced(_)), "{error}");
    let report = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
    // Everything of the epoch is still in the outbox or read again.
    assert_eq!(report.redone + report.dead, 1);
    let files = crate::world::epoch_files(&dir.join("dead"), 0);
    assert_eq!(files.concat().len(), 1);
    assert_eq!(crate::world::epoch_files(&dir.join("out"), 0).concat().len(), 199);
}
