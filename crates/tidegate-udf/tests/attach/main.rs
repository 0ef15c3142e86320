//! A worker process as a runtime sees it: this binary is the worker, and a test plays the runtime, byte for byte. What a
//! worker refuses, what it answers, and when it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod runtime;

use std::{path::Path, time::Duration};

use tidegate_shm::{clock::boottime_now, region::SealedMemory};
use tidegate_udf::{
    Ctx, Emit, Level, Outcome, Record, SchemaId, WorkerError,
    wire::{
        message::{FromWorker, Sums},
        segment::{BUSY_BATCH_AT, BUSY_SINCE_AT, HEARTBEAT_AT, PANIC_AT, PID_AT, SDK_AT, Word},
        status::Status,
    },
    worker,
};

use runtime::{Damage, GENERATION, PARTITION, Runtime, eventually, role};

/// The schemas of what it takes, and of what it makes.
const TAKES: [SchemaId; 2] = [SchemaId(7), SchemaId(9)];
const MAKES: SchemaId = SchemaId(8);

/// What every worker runs; in a test run it shows that nothing is taken from a process that no runtime started.
/// Rules: VX-500.
#[test]
fn worker_process() {
    let mut calls = 0u32;
    let ended = worker()
        .map("roles", move |record, ctx, out| {
            calls += 1;
            function(record, ctx, out, calls)
        })
        .schema_in(TAKES[0])
        .schema_in(TAKES[1])
        .schema_out(MAKES)
        .run();
    if role() {
        return ended.unwrap();
    }
    assert!(matches!(ended, Err(WorkerError::NotManaged)), "{ended:?}");
}

/// Does what its input says.
fn function(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>, calls: u32) -> Outcome {
    let text = std::str::from_utf8(record.value()).unwrap();
    let (what, argument) = text.split_once(' ').unwrap_or((text, ""));
    match what {
        "calls" => out.record().value(calls.to_string().as_bytes()),
        "long" => out.record().value(&vec![7; argument.parse().unwrap()]),
        "panic" => panic!("{argument}"),
        "hold" => {
            let before = ctx.is_current();
            while !Path::new(argument).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            out.record().value(format!("{before} {}", ctx.is_current()).as_bytes());
        }
        "context" => out.record().value(
            format!(
                "{} {} {} {} {} {} {} {:?} {} {:?} {}",
                ctx.pipeline(),
                ctx.partition(),
                ctx.generation(),
                ctx.epoch(),
                ctx.batch(),
                ctx.attempt(),
                ctx.is_replay(),
                ctx.watermark(),
                ctx.params(),
                ctx.routes(),
                ctx.route("late").unwrap()
            )
            .as_bytes(),
        ),
        "time-left" => {
            let left = ctx.time_left();
            std::thread::sleep(Duration::from_millis(2));
            let less = ctx.time_left();
            let fits = left <= Duration::from_secs(30) && less < left && !less.is_zero();
            out.record().value(fits.to_string().as_bytes());
        }
        "stop" => {
            let stop = ctx.stop();
            let before = stop.is_set() || stop.wait(Duration::from_millis(1));
            std::fs::write(argument, "").unwrap();
            let after = stop.wait(Duration::from_secs(600)) && stop.is_set();
            out.record().value(format!("{before} {after}").as_bytes());
        }
        "count" => ctx.count(argument, 2),
        "log" => ctx.log(Level::Warn, argument, &[("n", 1.into()), ("who", "me".into())]),
        "lines" => {
            let line = "x".repeat(3_000);
            (0..argument.parse().unwrap()).for_each(|_| ctx.log(Level::Info, &line, &[]));
            ctx.count("done", 1);
        }
        "names" => (0..1_000).for_each(|n| ctx.count(&format!("n{n}"), 1)),
        other => panic!("no such role: {other}"),
    }
    Outcome::ok()
}

/// What a runtime of another version, or somebody who is none, would send.
/// Cases: CT-06, CT-15.
/// Rules: VX-100, VX-120, VX-422, VX-423.
#[test]
fn a_worker_refuses_what_it_cannot_trust() {
    for (damage, said) in [
        (Damage::DownUnsealed, "Unsealed { segment: \"D\" }"),
        (Damage::FenceUnsealed, "Unsealed { segment: \"F\" }"),
        (Damage::UpWithoutSeals, "NotSealed"),
        (Damage::TwoDescriptors, "NoSession"),
        (Damage::DownHeader, "D.header_crc32c"),
        (Damage::OtherSession, "U.session_id"),
        (Damage::OtherInstance, "F.vertex_instance_id"),
        (Damage::DownNotReady, "D.ready"),
        (Damage::FenceNotReady, "F.ready"),
        (Damage::OtherInputs, "D.schema_in"),
        (Damage::OtherOutputs, "D.schema_out"),
    ] {
        let runtime = Runtime::offer(Some(damage));
        let (status, text) = runtime.ends();
        assert!(!status.success() && text.contains(said), "{said}: {text}");
    }
    let (status, text) = Runtime::rejects("SCHEMA", "two texts");
    assert!(!status.success() && text.contains("Rejected") && text.contains("two texts"), "{text}");
}

/// A session of any schema that the function takes; of another one a batch is not processed, and ends the session.
/// Rules: VX-422.
#[test]
fn a_batch_of_another_schema_is_refused_by_its_status() {
    for input in TAKES {
        let mut runtime = Runtime::typed(input, MAKES);
        let answer = runtime.exchange(&["calls"]);
        assert_eq!((answer.status, answer.frame.schema), (Status::Ok, MAKES));
        assert_eq!(answer.values(), ["1"]);
        let place = tempfile::tempdir().unwrap();
        let called = place.path().join("called");
        for other in [SchemaId(5), SchemaId::NONE] {
            let mut runtime = Runtime::typed(input, MAKES);
            runtime.schema = other;
            let answer = runtime.exchange(&[&format!("stop {}", called.display())]);
            assert_eq!((answer.status, answer.frame.record_count), (Status::SchemaMismatch, 0));
            let (status, text) = runtime.ends();
            assert!(!status.success() && text.contains("Schema {"), "{text}");
            assert!(text.contains(&format!("{other:?}")) && text.contains(&format!("{input:?}")), "{text}");
        }
        assert!(!called.exists(), "the function saw it");
    }
}

/// The function does not see a batch of a generation that is over, of another partition than the slot's, or behind the lease;
/// the batch is answered all the same, and sent again it is processed.
/// Cases: CT-69.
/// Rules: VX-230.
#[test]
fn a_batch_that_is_not_current_is_answered_and_not_processed() {
    let mut runtime = Runtime::start();
    let (generation, partition) = (GENERATION, PARTITION);
    for (word, deadline, of) in [
        (generation + 1, u64::MAX, partition),
        (generation | 1 << 63, u64::MAX, partition),
        (generation, boottime_now().0, partition),
        (generation, u64::MAX, partition + 1),
    ] {
        runtime.set_fence(word, deadline, of);
        let answer = runtime.exchange(&["calls"]);
        assert_eq!((answer.status, answer.frame.record_count), (Status::StaleGeneration, 0));
    }
    runtime.set_fence(generation, u64::MAX, partition);
    let answer = runtime.exchange(&["calls", "calls"]);
    assert_eq!((answer.status, answer.frame.inputs_done), (Status::Ok, 2));
    assert_eq!(answer.values(), ["1", "2"]);
}

/// Rules: VX-304, VX-312, VX-401.
#[test]
fn an_answer_that_is_too_long_is_its_status_alone() {
    let mut runtime = Runtime::start();
    // Each fits a frame; five of them are longer than an answer may be.
    let answer = runtime.exchange(&["long 12000"; 5]);
    assert_eq!((answer.status, answer.frame.record_count), (Status::OutputTooLarge, 0));
    assert!(answer.payload.is_empty());
    let answer = runtime.exchange(&["long 12000", "long 12000", "calls"]);
    assert_eq!((answer.status, answer.values()[2].as_str()), (Status::Ok, "8"));
    assert!(answer.fragments > 1);
}

/// What a worker says about itself, for people.
/// Rules: VX-433, VX-434, VX-436, VX-510.
#[test]
fn a_worker_says_what_it_does() {
    let place = tempfile::tempdir().unwrap();
    let gate = place.path().join("gate");
    let mut runtime = Runtime::start();
    assert_eq!(runtime.up_u32(PID_AT), runtime.pid());
    assert_eq!(runtime.up_u32(SDK_AT), 1);
    let first = runtime.up_u64(HEARTBEAT_AT);
    let batch = runtime.send(&[&format!("hold {}", gate.display())]);
    eventually("user code runs", || runtime.up_u64(BUSY_BATCH_AT) == batch);
    let now = boottime_now().0;
    assert!(runtime.up_u64(BUSY_SINCE_AT) <= now && runtime.up_u64(BUSY_SINCE_AT) > 0);
    // Its place in the ring is free while the function works on the copy.
    assert_eq!(runtime.up_word(Word::Consumed), runtime.down_word(Word::Head));
    assert_eq!(runtime.up_word(Word::ConsumedBatches), 1);
    // It beats although the function does not come back.
    eventually("a heartbeat", || runtime.up_u64(HEARTBEAT_AT) > now.max(first));
    std::fs::write(&gate, "").unwrap();
    assert_eq!(runtime.receive().values(), ["true true"]);
    assert_eq!(runtime.up_u64(BUSY_BATCH_AT), 0);
    let answer = runtime.exchange(&["panic over there"]);
    assert_eq!(answer.status, Status::Partial);
    assert!(runtime.up_text(PANIC_AT).contains("over there"));
}

/// Rules: VX-230, VX-501.
#[test]
fn a_function_can_ask_whether_it_still_has_the_right() {
    let place = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::start();
    for (number, end) in
        [Runtime::revoke as fn(&Runtime), Runtime::let_the_lease_run_out].into_iter().enumerate()
    {
        runtime.set_fence(GENERATION, u64::MAX, PARTITION);
        let gate = place.path().join(number.to_string());
        let batch = runtime.send(&[&format!("hold {}", gate.display())]);
        eventually("user code runs", || runtime.up_u64(BUSY_BATCH_AT) == batch);
        end(&runtime);
        std::fs::write(&gate, "").unwrap();
        assert_eq!(runtime.receive().values(), ["true false"]);
    }
}

/// Rules: VX-501.
#[test]
fn a_function_knows_what_is_around_its_input() {
    let mut runtime = Runtime::start();
    let answer = runtime.exchange(&["context", "time-left"]);
    let around = r#"test 7 5 1 1 0 false Some(-77) {"limit":3} ["main", "late"] 1"#;
    assert_eq!(answer.values(), [around, "true"]);
    runtime.attempt = 3;
    let again = around.replace(" 1 0 false ", " 2 3 true ");
    assert_eq!(runtime.exchange(&["context"]).values(), [again]);
}

/// A function that takes long learns that its answer is worth nothing any more.
/// Rules: VX-501.
#[test]
fn a_stop_token_is_set_when_the_right_to_write_goes() {
    let place = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::start();
    for (number, end) in
        [Runtime::revoke as fn(&Runtime), Runtime::let_the_lease_run_out].into_iter().enumerate()
    {
        runtime.set_fence(GENERATION, u64::MAX, PARTITION);
        let waits = place.path().join(number.to_string());
        runtime.send(&[&format!("stop {}", waits.display())]);
        eventually("user code waits", || waits.exists());
        end(&runtime);
        assert_eq!(runtime.receive().values(), ["false true"]);
    }
}

fn heard_sums(runtime: &Runtime, is_so: impl Fn(&Sums) -> bool) -> Sums {
    loop {
        let FromWorker::Metric(sums) = runtime.hear() else { continue };
        if is_so(&sums) {
            return sums;
        }
    }
}

/// Rules: VX-501.
#[test]
fn lines_and_counters_of_a_function_come_over_the_socket() {
    let mut runtime = Runtime::start();
    runtime.exchange(&["log something\nodd", "count hits", "count a name", "count hits"]);
    let FromWorker::Log(line) = runtime.hear() else { panic!("no line") };
    assert_eq!((line.level, line.message.as_str()), (Level::Warn, "something\nodd"));
    assert_eq!((line.partition.0, line.batch.0), (PARTITION, 1));
    assert_eq!(serde_json::Value::Object(line.fields).to_string(), r#"{"n":1,"who":"me"}"#);
    let all = [("a_name".to_owned(), 2), ("hits".to_owned(), 4)];
    heard_sums(&runtime, |sums| sums.counters == all);
    // Sums since the session began; and at its end those that were not told yet.
    runtime.exchange(&["count hits"]);
    heard_sums(&runtime, |sums| sums.counters[1].1 == 6);
    runtime.exchange(&["names"]);
    let sums = heard_sums(&runtime, |sums| sums.refused > 0);
    assert_eq!((sums.counters.len(), sums.refused), (256, 1_000 - 254));
    runtime.exchange(&["count hits"]);
    runtime.close();
    let sums =
        heard_sums(&runtime, |sums| sums.counters.iter().any(|(name, sum)| name == "hits" && *sum == 8));
    assert_eq!(sums.lines, 0);
}

/// Nobody reads what it says: that costs the function nothing, and is counted.
/// Rules: VX-426, VX-501.
#[test]
fn a_runtime_that_does_not_listen_holds_no_function_up() {
    let mut runtime = Runtime::start();
    for _ in 0..20 {
        let answer = runtime.exchange(&["lines 1000"]);
        assert_eq!(answer.status, Status::Ok);
    }
    // All that found room, and behind it how many did not.
    let mut lines = 0;
    let left_out = loop {
        match runtime.hear() {
            FromWorker::Log(_) => lines += 1,
            FromWorker::Metric(sums) if sums.counters == [("done".to_owned(), 20)] => break sums.lines,
            FromWorker::Metric(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lines + left_out, 20_000);
    assert!((1..10_000).contains(&lines), "{lines}");
}

/// Cases: CT-09.
/// Rules: VX-300, VX-304.
#[test]
fn without_credit_nothing_is_answered() {
    let mut runtime = Runtime::without_credit();
    let batch = runtime.send(&["calls"]);
    eventually("the batch was taken", || runtime.up_word(Word::ConsumedBatches) == batch);
    eventually("user code is done", || {
        runtime.up_u64(BUSY_SINCE_AT) > 0 && runtime.up_u64(BUSY_BATCH_AT) == 0
    });
    eventually("it waits", || runtime.sleepers() > 0);
    assert_eq!((runtime.up_word(Word::Head), runtime.up_word(Word::Batches)), (0, 0));
    runtime.grant();
    assert_eq!(runtime.receive().values(), ["1"]);
}

/// A session that is over ends its worker, also while the function is busy and while it waits for credit.
/// Cases: CT-20.
/// Rules: VX-103, VX-434, VX-437.
#[test]
fn a_worker_does_not_outlive_its_session() {
    for hang_up in [false, true] {
        let mut runtime = Runtime::start();
        let batch = runtime.send(&["hold /no/such/gate"]);
        eventually("user code runs", || runtime.up_u64(BUSY_BATCH_AT) == batch);
        runtime.end_session(hang_up);
        assert!(!runtime.ends().0.success(), "user code came back");
    }
    // Nothing to do: it ends by itself.
    let mut runtime = Runtime::start();
    runtime.exchange(&["calls"]);
    runtime.end_session(false);
    let (status, text) = runtime.ends();
    assert!(status.success(), "{text}");
}

/// A runtime that breaks the protocol is left, with the reason.
/// Cases: CT-03, CT-10.
/// Rules: VX-220, VX-303.
#[test]
fn a_worker_leaves_a_runtime_that_lies() {
    type Lie = (fn(&Runtime), &'static str);
    let lies: [Lie; 3] = [
        (|runtime| runtime.set_down(Word::Head, 128), "not published"),
        (|runtime| runtime.set_down(Word::Head, 100), "not a multiple"),
        (|runtime| runtime.set_down(Word::Head, 1 << 40), "head"),
    ];
    for (lie, said) in lies {
        let runtime = Runtime::start();
        lie(&runtime);
        let (status, text) = runtime.ends();
        assert!(!status.success(), "{said}");
        assert!(text.contains("Violation"), "{said}: {text}");
    }
}

/// Memory that is handed over is allocated before anybody uses it.
/// Rules: VX-104.
#[test]
fn memory_of_a_session_is_there_from_the_beginning() {
    use std::os::fd::AsFd;
    let memory = SealedMemory::create("tidegate-test", 1 << 20).unwrap();
    let stat = rustix::fs::fstat(memory.as_fd()).unwrap();
    assert!(stat.st_blocks as u64 * 512 >= 1 << 20, "{} blocks", stat.st_blocks);
}
