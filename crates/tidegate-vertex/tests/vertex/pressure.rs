//! What waits holds nothing up that need not wait for it: inputs that are tried again, workers that hold theirs, sinks that take
//! nothing, answers that are too long. And what is lost with one session is that session's alone.

use std::{
    fs,
    time::{Duration, Instant},
};

use tidegate_udf::wire::ids::PartitionId;
use tidegate_vertex::{
    config::Pipeline,
    fence::{Quiesce, Reason},
    run::Vertex,
};

use crate::world::{
    World, epoch_files, epoch_sink, file_sink, ledger, of, pipeline, runtime, runtime_place, wait_for,
};

fn expected(partition: u32, records: u64) -> Vec<String> {
    (0..records).map(|position| format!("UPPER {partition}:{position}")).collect()
}

fn lines_of(lines: &[String], partition: u32) -> Vec<String> {
    let prefix = format!("UPPER {partition}:");
    lines.iter().filter(|line| line.starts_with(&prefix)).cloned().collect()
}

fn tried_again_and_again(dir: &std::path::Path) -> Pipeline {
    let retry = "retry = { initial = \"1ms\", cap = \"2ms\", attempts = 1000000 }";
    let rest = format!("{retry}{}[epoch]\ninterval = \"1ms\"", ledger(dir));
    let source = "kind = \"generator\"\nrecords = 300";
    of(dir, "effectively_once", "gate on 123", &rest, source, &epoch_sink(dir)).parse().unwrap()
}

/// An input is tried for many intervals; what is before it is committed meanwhile, nothing behind it is, and a runtime that is
/// killed then begins at it.
/// Cases: CT-43, CT-60.
/// Rules: VX-316, VX-441, VX-600.
#[test]
fn what_is_before_an_input_that_is_tried_again_is_committed() {
    if let Some(dir) = runtime_place() {
        Vertex::start(tried_again_and_again(&dir)).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let dir = world.path("");
    let test = "pressure::what_is_before_an_input_that_is_tried_again_is_committed";
    let mut killed = runtime(test, &world).spawn().unwrap();
    let visible = || epoch_files(&dir.join("epochs"), 0).concat();
    let tries = || fs::metadata(dir.join("tries")).map_or(0, |file| file.len());
    wait_for("what is before it", || visible().len() >= 123);
    let before = tries();
    wait_for("ten more tries", || tries() >= before + 10);
    assert_eq!(visible(), expected(0, 123));
    killed.kill().unwrap();
    killed.wait().unwrap();
    fs::write(dir.join("gate"), "").unwrap();
    let report = Vertex::start(tried_again_and_again(&dir)).unwrap().run().unwrap();
    assert_eq!((report.read, report.redone), (300 - 123, 0), "{report:?}");
    assert_eq!(visible(), expected(0, 300));
}

/// One of two workers holds an input; the partitions of the other go on to their end.
/// Rules: VX-440, VX-444.
#[test]
fn a_lane_that_is_stuck_holds_no_other_up() {
    let world = World::new();
    let source = "kind = \"generator\"\npartitions = 4\nrecords = 500";
    let vertex = world.start("hold partition 1", "workers = 2", source).unwrap();
    let running = std::thread::spawn(move || vertex.run());
    let lines = || fs::read_to_string(world.path("out")).unwrap_or_default();
    let count = |partition| lines().matches(&format!("UPPER {partition}:")).count();
    wait_for("the other lane", || count(0) == 500 && count(2) == 500);
    assert!(count(1) <= 10, "the held input has an output");
    fs::write(world.path("gate"), "").unwrap();
    let report = running.join().unwrap().unwrap();
    assert_eq!((report.delivered, report.restarts), (2_000, 0));
    for partition in 0..4 {
        assert_eq!(lines_of(&world.lines(), partition), expected(partition, 500));
    }
}

/// Seven of eight partitions hold what they may, for good or until an input of theirs is done; all of them have more than there is
/// room for.
/// Rules: VX-310, VX-444, VX-600, VX-601.
#[test]
fn partitions_that_wait_keep_no_other_from_being_read() {
    for (attempts, stopped) in [(1, 7), (1_000_000, 0)] {
        let world = World::new();
        let udf = format!(
            "retry = {{ initial = \"1ms\", cap = \"50ms\", attempts = {attempts} }}\n[limits]\nprefetch = \"32KiB\""
        );
        let source = "kind = \"generator\"\npartitions = 8\nrecords = 2000";
        let vertex = world.start("fail all but 7", &udf, source).unwrap();
        let running = std::thread::spawn(move || vertex.run());
        let lines = || fs::read_to_string(world.path("out")).unwrap_or_default();
        wait_for("the one that goes", || lines().matches("UPPER 7:").count() == 2_000);
        fs::write(world.path("gate"), "").unwrap();
        let report = running.join().unwrap().unwrap();
        assert!(report.balances() && report.stopped.len() == stopped, "{report:?}");
        assert_eq!(report.delivered, (8 - stopped as u64) * 2_000, "{report:?}");
        assert_eq!(lines_of(&world.lines(), 7), expected(7, 2_000));
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| line.rsplit(':').next().and_then(|number| number.parse::<u64>().ok()));
    lines
}

/// Without order one input that is held holds up what its worker was given with it only; a runtime that is killed then begins at
/// it.
/// Rules: VX-440, VX-441, VX-444.
#[test]
fn without_order_an_input_that_is_held_holds_no_other_up() {
    let unordered = |dir: &std::path::Path| {
        let source = "kind = \"generator\"\nrecords = 3000";
        let rest = format!("workers = 2\norder = \"none\"{}[epoch]\ninterval = \"1ms\"", ledger(dir));
        Vertex::start(pipeline(dir, "hold 10", &rest, source)).unwrap()
    };
    if let Some(dir) = runtime_place() {
        unordered(&dir).run().unwrap();
        return;
    }
    let world = World::new();
    let test = "pressure::without_order_an_input_that_is_held_holds_no_other_up";
    let mut killed = runtime(test, &world).spawn().unwrap();
    let lines = || fs::read_to_string(world.path("out")).unwrap_or_default().lines().count();
    wait_for("all but its worker's", || lines() >= 3_000 - 4 * 50);
    killed.kill().unwrap();
    killed.wait().unwrap();
    fs::write(world.path("gate"), "").unwrap();
    let report = unordered(&world.path("")).run().unwrap();
    assert_eq!((report.read, report.delivered, report.returned), (3_000, 3_000, 0), "began behind it");
    assert_eq!(sorted(world.lines()), expected(0, 3_000));
}

/// A worker that is stopped is seen, is not killed for it, and gets nothing new while there is another one.
/// Rules: VX-433.
#[test]
fn a_worker_that_stands_still_is_told_and_waited_for() {
    let world = World::new();
    let source = "kind = \"generator\"\nrecords = 3000";
    let vertex = world.start("stop once", "workers = 2\norder = \"none\"", source).unwrap();
    let control = vertex.control();
    let running = std::thread::spawn(move || vertex.run());
    let suspect = || control.status().lanes.into_iter().find(|lane| lane.suspect);
    wait_for("a suspect", || suspect().is_some());
    let lane = suspect().unwrap();
    // At most its window is missing.
    wait_for("the other one", || world.lines().len() >= 3_000 - 4 * 50);
    assert!(lane.ready && world.lines().len() < 3_000);
    let stopped = rustix::process::Pid::from_raw(lane.pid.unwrap() as i32).unwrap();
    rustix::process::kill_process(stopped, rustix::process::Signal::CONT).unwrap();
    let report = running.join().unwrap().unwrap();
    assert_eq!((report.delivered, report.restarts), (3_000, 0));
    assert_eq!(sorted(world.lines()), expected(0, 3_000));
}

/// Cases: CT-27.
/// Rules: VX-726.
#[test]
fn one_of_sixteen_partitions_is_fenced_and_the_others_go_on() {
    let world = World::new();
    let source = "kind = \"generator\"\npartitions = 16\nrecords = 400";
    let vertex = world.start("slow upper", "", source).unwrap();
    let stop = vertex.stop_handle();
    let running = std::thread::spawn(move || vertex.run());
    wait_for("outputs", || fs::metadata(world.path("out")).is_ok_and(|file| file.len() > 0));
    let [(id, guard)] = stop.fence(Some(PartitionId(5)), Reason::Operator).try_into().unwrap();
    assert_eq!(id, PartitionId(5));
    wait_for("quiesced", || guard.quiesce(|| false) == Quiesce::Quiesced);
    wait_for("forgotten", || stop.fence(Some(PartitionId(5)), Reason::Operator).is_empty());
    let report = running.join().unwrap().unwrap();
    assert_eq!(report.fenced, [(5, 1)]);
    assert!(report.balances() && report.returned > 0, "{report:?}");
    let lines = world.lines();
    for partition in 0..16 {
        let (found, all) = (lines_of(&lines, partition), expected(partition, 400));
        if partition == 5 {
            assert!(found.len() < 400 && all.starts_with(&found));
        } else {
            assert_eq!(found, all);
        }
    }
}

/// A sink takes nothing, so the vertex stands; answers that are longer together than their ring are taken out of it all the
/// same, or the worker could not go on to its last batch.
/// Rules: VX-313.
#[test]
fn answers_are_taken_while_a_sink_hangs() {
    let world = World::new();
    let out = world.path("out");
    rustix::fs::mknodat(rustix::fs::CWD, &out, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&out).unwrap();
    // Each batch is one input, and its answer is half of the ring; the vertex hangs at the first.
    let source = "kind = \"generator\"\nrecords = 4\nbytes = \"20KiB\"";
    let sink = file_sink(&world.path(""));
    let text =
        of(&world.path(""), "at_least_once", "four copies", "[epoch]\ninterval = \"1h\"", source, &sink)
            .replace("max_bytes = \"8KiB\"", "max_bytes = \"30KiB\"")
            .replace("max_records = 50", "max_records = 1")
            .replace("ring = \"64KiB\"", "ring = \"128KiB\"");
    let vertex = Vertex::start(text.parse().unwrap()).unwrap();
    let stop = vertex.stop_handle();
    let running = std::thread::spawn(move || vertex.run());
    wait_for("the first output", || rustix::io::ioctl_fionread(&reader).unwrap() > 0);
    wait_for("the last call", || fs::read_to_string(world.path("calls")).unwrap_or_default().len() == 4);
    let [(_, guard)] = stop.fence(None, Reason::Operator).try_into().unwrap();
    let mut taken = vec![0; 64 << 10];
    while guard.quiesce(|| false) != Quiesce::Quiesced {
        if rustix::io::ioctl_fionread(&reader).unwrap() > 0 {
            rustix::io::read(&reader, &mut taken).unwrap();
        }
    }
    running.join().unwrap().unwrap_err();
}

/// Room for one answer, sixteen partitions, and answers far longer than what is reserved for them: batches are cut until
/// their answers fit, a single input whose does not goes to the dead letters, and nobody waits for ever.
/// Cases: CT-11, CT-59.
/// Rules: VX-311, VX-312, VX-610.
#[test]
fn answers_that_are_too_long_end_in_no_deadlock() {
    let world = World::new();
    let dir = world.path("");
    let source = "kind = \"generator\"\npartitions = 16\nrecords = 25";
    let sinks = format!(
        "{}[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"file\"\nmode = \"epoch\"\ndir = {:?}",
        epoch_sink(&dir),
        dir.join("dead")
    );
    let rest = format!(
        "retry = {{ initial = \"1ms\", attempts = 3 }}{}[epoch]\ninterval = \"1ms\"\n\
         [limits]\nepoch_buffers = \"128KiB\"",
        ledger(&dir)
    );
    let text = of(&dir, "effectively_once", "amplify", &rest, source, &sinks)
        .replace("max_response = \"2MiB\"", "max_response = \"64KiB\"")
        .replace("max_records = 50", "max_records = 8");
    let report = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
    assert_eq!((report.read, report.dead, report.delivered), (400, 16, 384), "{report:?}");
    for partition in 0..16 {
        let lines = epoch_files(&dir.join("epochs"), partition).concat();
        let outputs = (0..25).filter(|position| *position != 7).flat_map(|position| [position; 40]);
        assert_eq!(lines, outputs.map(|position: u64| format!("{partition}:{position}")).collect::<Vec<_>>());
        let [letter] = epoch_files(&dir.join("dead"), partition).concat().try_into().unwrap();
        let letter: serde_json::Value = serde_json::from_str(&letter).unwrap();
        assert_eq!(
            (&letter["headers"]["tg-error-class"], &letter["headers"]["tg-position"]),
            (&"OUTPUT_TOO_LARGE".into(), &"7".into())
        );
    }
}

/// A batch goes to its worker only when there is room for its answer.
/// Rules: VX-311.
#[test]
fn no_more_is_sent_than_there_is_room_for_answers() {
    let in_flight = |control: &tidegate_vertex::operate::Control| {
        control.status().lanes.iter().map(|lane| lane.in_flight).sum::<u64>()
    };
    let world = World::new();
    let limits = "[limits]\nepoch_buffers = \"4MiB\"";
    let vertex = world.start("slow upper", limits, "kind = \"generator\"\nrecords = 1000").unwrap();
    let control = vertex.control();
    let running = std::thread::spawn(move || vertex.run());
    while !running.is_finished() {
        assert!(in_flight(&control) <= 1, "on their way with room for one answer");
    }
    assert_eq!(running.join().unwrap().unwrap().delivered, 1_000);
    // With more room there are more: who looks like this would see it.
    let world = World::new();
    let vertex = world.start("slow upper", "", "kind = \"generator\"\nrecords = 1000000000").unwrap();
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let running = std::thread::spawn(move || vertex.run());
    wait_for("two batches on their way", || in_flight(&control) > 1);
    stop.drain();
    running.join().unwrap().unwrap();
}

/// A worker that rings without reason.
/// Cases: CT-67.
/// Rules: VX-011, VX-327.
#[test]
fn a_worker_that_rings_without_end_costs_no_processor() {
    if let Some(dir) = runtime_place() {
        let vertex =
            Vertex::start(pipeline(&dir, "storm", "", "kind = \"generator\"\nrecords = 50")).unwrap();
        let begun = (Instant::now(), processor_time());
        let error = vertex.run().unwrap_err();
        let (passed, used) = (begun.0.elapsed(), processor_time() - begun.1);
        // The storm lasts for a second, and there are two of them.
        assert!(passed > Duration::from_secs(1), "{error}");
        assert!(used < passed / 3, "{used:?} of processor time in {passed:?}");
        return;
    }
    let world = World::new();
    let test = "pressure::a_worker_that_rings_without_end_costs_no_processor";
    assert!(runtime(test, &world).status().unwrap().success());
}

fn processor_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Vertices one after the other in one process, each with a worker that dies once: nothing of them stays.
/// Cases: CT-55.
/// Rules: VX-102, VX-103.
#[test]
fn sessions_leave_nothing_behind() {
    if let Some(dir) = runtime_place() {
        let cycle = || {
            let _ = fs::remove_file(dir.join("died"));
            let source = "kind = \"generator\"\nrecords = 1020";
            let report = Vertex::start(pipeline(&dir, "die once", "", source)).unwrap().run().unwrap();
            assert_eq!((report.restarts, report.delivered), (1, 1_020));
        };
        segments_are_mapped_for_who_writes_them(&dir);
        (0..2).for_each(|_| cycle());
        let before = held();
        (0..5).for_each(|_| cycle());
        let after = held();
        assert_eq!((after.0, after.1), (before.0, before.1), "descriptors and segments");
        // Who was joined may be listed a moment longer.
        wait_for("the threads of all sessions to end", || held().2 <= before.2);
        return;
    }
    let world = World::new();
    assert!(runtime("pressure::sessions_leave_nothing_behind", &world).status().unwrap().success());
}

/// The runtime can write D and F, and U not at all.
fn segments_are_mapped_for_who_writes_them(dir: &std::path::Path) {
    let source = "kind = \"generator\"\nrecords = 1000000000";
    let vertex = Vertex::start(pipeline(dir, "upper", "", source)).unwrap();
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let running = std::thread::spawn(move || vertex.run());
    wait_for("a worker", || control.status().lanes.iter().any(|lane| lane.ready));
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of = |name: &str| {
        let lines: Vec<&str> = maps.lines().filter(|line| line.contains(name)).collect();
        assert!(!lines.is_empty(), "{name} is not mapped: {maps}");
        lines.iter().filter(|line| line.contains(" rw-s ")).count()
    };
    assert_eq!((of("memfd:tidegate-up"), of("memfd:tidegate-down")), (0, 1));
    stop.drain();
    running.join().unwrap().unwrap();
    fs::remove_file(dir.join("out")).unwrap();
}

/// Descriptors, mappings of segments, and threads of this process.
fn held() -> (usize, usize, usize) {
    let count = |dir| fs::read_dir(dir).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    (count("/proc/self/fd"), maps.matches("memfd:tidegate").count(), count("/proc/self/task"))
}

/// Workers that take a batch and do nothing with it, or do not let themselves be given one: each once, and then one that works.
/// Cases: CT-58.
/// Rules: VX-434.
#[test]
fn a_worker_that_is_silent_is_ended_by_the_clock_of_the_runtime() {
    for role in ["takes and is silent", "grants nothing"] {
        let world = World::new();
        let source = "kind = \"generator\"\nrecords = 100";
        let report = world.run(role, "batch_timeout = \"1s\"", source).unwrap();
        assert!(world.path("silent").exists());
        assert_eq!((report.restarts, report.delivered), (1, 100), "{role}");
        assert_eq!(world.lines(), expected(0, 100), "{role}");
    }
}

fn named_sink(dir: &std::path::Path, name: &str, more: &str) -> String {
    format!("[[sink]]\nname = {name:?}\nkind = \"file\"\npath = {:?}\n{more}\n", dir.join(name))
}

/// A sink with `linger` is given what is full, and at the end the rest, in its order; others get theirs batch by batch.
/// Rules: VX-842.
#[test]
fn outputs_for_a_sink_that_lingers_are_put_together() {
    for delivery in ["at_least_once", "at_most_once"] {
        let world = World::new();
        let dir = world.path("");
        let linger = "linger = \"1h\"\nmax_records = 200";
        let sinks = named_sink(&dir, "first", linger) + &named_sink(&dir, "second", "");
        let source = "kind = \"generator\"\nrecords = 1500";
        let text = of(&dir, delivery, "by thirds", &ledger(&dir), source, &sinks);
        // One batch of 50 inputs after the other; a third of them has no output for the first sink.
        let text = text.replace("max_in_flight = 4", "max_in_flight = 1");
        let vertex = Vertex::start(text.parse().unwrap()).unwrap();
        let control = vertex.control();
        let report = vertex.run().unwrap();
        assert_eq!((report.read, report.delivered), (1_500, 1_500), "{report:?}");
        let status = control.last_status();
        let calls: Vec<u64> = status.sinks.iter().map(|sink| sink.seconds.count()).collect();
        // 1000 outputs in parts of up to 200; and as many as were final at once.
        assert!((5..=10).contains(&calls[0]) && calls[0] < calls[1], "{calls:?}");
        let outputs: Vec<u64> = status.sinks.iter().map(|sink| sink.outputs).collect();
        assert_eq!(outputs, [1_000, 1_000]);
        for (name, without) in [("first", 1), ("second", 0)] {
            let expected: Vec<String> =
                (0..1_500).filter(|n| n % 3 != without).map(|n| format!("0:{n}")).collect();
            let text = fs::read_to_string(dir.join(name)).unwrap();
            assert!(text.lines().eq(expected.iter().map(String::as_str)), "{delivery} {name}");
        }
    }
}

/// Nothing is committed before it is with all its sinks, however long that waits; and nothing is left when the vertex ends.
/// Rules: VX-441, VX-842.
#[test]
fn what_lingers_is_not_committed() {
    let world = World::new();
    let dir = world.path("");
    let sinks = named_sink(&dir, "first", "linger = \"1h\"") + &named_sink(&dir, "second", "");
    let rest = ledger(&dir) + "[epoch]\ninterval = \"1ms\"";
    // Of lines of equal length some are for the second sink alone.
    world.write("input", &(0..300).map(|n| format!("{n:03}\n")).collect::<String>());
    let source = format!("{}\nfollow = true", world.file_source("input"));
    let text = of(&dir, "at_least_once", "odd for both", &rest, &source, &sinks);
    let vertex = Vertex::start(text.parse().unwrap()).unwrap();
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let lines = |name: &str| fs::read_to_string(dir.join(name)).map_or(0, |text| text.lines().count());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| vertex.run().unwrap());
        wait_for("the second sink", || lines("second") == 300);
        // Inputs up to the first that has an output for the first sink; commits go on meanwhile.
        for _ in 0..20 {
            let status = control.status();
            assert!(status.partitions[0].resume <= 4, "{status:?}");
            assert_eq!(status.counts.read, status.counts.delivered + status.partitions[0].unfinished);
        }
        assert_eq!(lines("first"), 0);
        assert_eq!(control.status().sinks[0].in_flight, 150);
        stop.drain();
        let report = running.join().unwrap();
        assert_eq!((report.delivered, report.returned), (300, 0), "{report:?}");
    });
    assert_eq!((lines("first"), control.last_status().partitions[0].resume), (150, 1_200));
}

/// Rules: VX-842.
#[test]
fn what_lingers_goes_when_it_has_waited_long_enough() {
    let world = World::new();
    let dir = world.path("");
    world.write("input", "1\n2\n3\n");
    let source = format!("{}\nfollow = true", world.file_source("input"));
    let sinks = named_sink(&dir, "out", "linger = \"20ms\"");
    let vertex =
        Vertex::start(of(&dir, "at_least_once", "upper", "", &source, &sinks).parse().unwrap()).unwrap();
    let stop = vertex.stop_handle();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| vertex.run().unwrap());
        wait_for("its outputs", || {
            fs::read_to_string(dir.join("out")).is_ok_and(|text| text.lines().count() == 3)
        });
        stop.drain();
        running.join().unwrap();
    });
}
