//! Inputs that cannot be processed and go to the dead letters.

use std::{
    fs,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tidegate_vertex::run::Vertex;

use crate::world::{World, epoch_sink, file_sink, ledger, of, runtime, runtime_place};

/// A sink for outputs and one for dead letters.
fn sinks(world: &std::path::Path) -> String {
    format!(
        "{}[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"file\"\npath = {:?}",
        file_sink(world),
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
        let retry = "retry = { initial = \"1ms\", crash_attempts = 7 }";
        let rest = format!("{retry}{}[epoch]\ninterval = \"10ms\"", ledger(&dir));
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

/// An input that ends the runtime with its worker: nobody is left to count its tries, and it is found all the same.
/// Cases: CT-68.
/// Rules: VX-604.
#[test]
fn what_ends_the_runtime_too_is_found() {
    if let Some(dir) = runtime_place() {
        let rest = ledger(&dir) + "[epoch]\ninterval = \"10ms\"";
        let source = "kind = \"generator\"\nrecords = 120";
        let text = of(&dir, "at_least_once", "kill the runtime on 23", &rest, source, &sinks(&dir));
        Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let mut deaths = 0;
    while !runtime("dead_letters::what_ends_the_runtime_too_is_found", &world).status().unwrap().success() {
        deaths += 1;
        assert!(deaths < 10, "it is not found");
    }
    // One that nobody expects, one in a batch, one by itself.
    assert_eq!(deaths, 3);
    let expected: Vec<String> = (0..120).filter(|n| *n != 23).map(|n| format!("UPPER 0:{n}")).collect();
    assert_eq!(world.lines(), expected);
    let [letter] = letters(&world).try_into().unwrap();
    assert_eq!(letter["headers"]["tg-position"], "23");
    assert_eq!(
        (&letter["headers"]["tg-error-class"], &letter["headers"]["tg-attempts"]),
        (&"CRASHED".into(), &"2".into())
    );
    let ledger = tidegate_vertex::ledger::inspect(&world.path("ledger"), None).unwrap().unwrap();
    let partition = &ledger["partitions"][0];
    assert_eq!(
        (&partition["running"], &partition["tried_before"]),
        (&serde_json::Value::Null, &serde_json::json!([]))
    );
}

/// A record that no batch can hold is there as it was, with what is wrong with it; so is one that says nothing. Those around them
/// are processed.
/// Rules: VX-213, VX-310, VX-620.
#[test]
fn what_no_function_can_be_given_is_there_as_it_was() {
    let world = World::new();
    let dir = world.path("");
    let long = "x".repeat(20_000);
    world.write("input", &format!("n\n1\n{long}\n3\n4,too many\n5\n"));
    let source = format!("{}\nformat = \"csv\"", world.file_source("input"));
    for (delivery, rest) in [("at_least_once", String::new()), ("effectively_once", ledger(&dir))] {
        let sinks = sinks(&dir).replace("kind", "allow_duplicates = true\nkind");
        let text = of(&dir, delivery, "upper", &rest, &source, &sinks);
        let report = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
        assert_eq!((report.read, report.dead, report.delivered), (5, 2, 3), "{report:?}");
        let expected = [1, 3, 5].map(|n| format!("UPPER {{\"N\":\"{n}\"}}"));
        assert_eq!(world.lines(), expected);
        let [too_long, too_many] = letters(&world).try_into().unwrap();
        let value = |letter: &serde_json::Value| STANDARD.decode(letter["value"].as_str().unwrap()).unwrap();
        assert_eq!(value(&too_long), format!("{{\"n\":\"{long}\"}}").into_bytes());
        assert_eq!(too_long["headers"]["tg-error-class"], "RECORD_TOO_LARGE");
        assert_eq!(
            (too_long["headers"]["tg-position"].as_str(), too_long["headers"]["tg-attempts"].as_str()),
            (Some("4"), Some("0"))
        );
        let message = too_long["headers"]["tg-error-message"].as_str().unwrap();
        assert!(message.contains("8192") && message.contains("batch.max_bytes"), "{message}");
        assert_eq!(value(&too_many), b"4,too many\n");
        assert_eq!(too_many["headers"]["tg-error-class"], "PARSE_ERROR");
        for name in ["out", "dead"] {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
}

/// Rules: VX-213, VX-601.
#[test]
fn without_dead_letters_the_partition_stops_at_a_record_that_no_batch_can_hold() {
    let world = World::new();
    world.write("input", &format!("one\n{}\nthree\n", "x".repeat(20_000)));
    let report = world.run("upper", "", &world.file_source("input")).unwrap();
    assert_eq!(world.lines(), ["UPPER ONE"]);
    let [(0, 4, reason)] = &report.stopped[..] else { panic!("{report:?}") };
    assert!(reason.contains("batch.max_bytes"), "{reason}");
}

/// A sink that takes nothing, and one that has everything: the second is required, the first not.
/// Cases: CT-51.
/// Rules: VX-632.
#[test]
fn a_sink_that_is_not_required_fails_alone() {
    let world = World::new();
    let dir = world.path("");
    let second =
        "[[sink]]\nname = \"second\"\nkind = \"file\"\npath = \"/dev/full\"\nallow_duplicates = true";
    let (main, rest) = (epoch_sink(&dir), ledger(&dir));
    let source = "kind = \"generator\"\nrecords = 300";
    let run = |more: &str| {
        let text =
            of(&dir, "effectively_once", "by thirds", &rest, source, &format!("{main}{second}\n{more}"));
        Vertex::start(text.parse().unwrap()).unwrap().run()
    };
    let failed = run("").unwrap_err();
    assert!(matches!(failed, tidegate_vertex::run::VertexError::Sink(_)), "{failed}");
    let report = run("required = false").unwrap();
    assert_eq!(report.lost, 200, "{report:?}");
    let expected: Vec<String> = (0..300).filter(|n| n % 3 != 1).map(|n| format!("0:{n}")).collect();
    assert_eq!(crate::world::epoch_files(&dir.join("epochs"), 0).concat(), expected);
    // Nothing is left that would be done again.
    assert_eq!(run("required = false").unwrap().read, 0);
}

/// Cases: CT-50.
/// Rules: VX-623.
#[test]
fn what_cannot_be_put_there_is_not_done() {
    let world = World::new();
    let dir = world.path("");
    let rest = format!("retry = {{ initial = \"1ms\", attempts = 1 }}{}", ledger(&dir));
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
