//! The functions of the workers, by role.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};

use rustix::process::{Signal, getpid, getppid, kill_process};
use signal_hook::low_level::raise;
use tidegate_udf::{Ctx, Emit, Failure, FunctionWorker, Level, Outcome, Record, SchemaId, worker};

use crate::{garbage, hostile, schemas};

/// The role that the environment gives this process.
pub(crate) fn role() -> Option<String> {
    env::var("TIDEGATE_TEST_FUNCTION").ok()
}

pub(crate) fn run(role: &str) {
    if let Some(lie) = role.strip_prefix("lie ") {
        return hostile::lie(lie);
    }
    if let Some(round) = role.strip_prefix("garbage ") {
        return garbage::garbage(round.parse().unwrap());
    }
    match role {
        "close once" => drop(garbage::close_once()),
        "leave a child" => garbage::leave_a_child(),
        "flood" => garbage::flood(),
        "babble" => garbage::keep_the_socket(),
        "storm" => hostile::storm(),
        "endless" => hostile::endless(),
        "heir" => hostile::leave_an_heir(),
        "takes and is silent" | "grants nothing" => hostile::silent_once(role),
        _ => {}
    }
    note("pids", &format!("{}\n", std::process::id()));
    if let Some(worker) = of_another_kind(role) {
        return worker.run().unwrap();
    }
    let function: fn(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome = match role {
        "upper" | "close once" | "flood" | "takes and is silent" | "grants nothing" => upper,
        "count and log" => count_and_log,
        "babble" => babble,
        "gate on 123" => gate_on_123,
        "hold partition 1" => hold_partition_1,
        "hold 10" => hold_10,
        "fail all but 7" => fail_all_but_7,
        "four copies" => four_copies,
        "amplify" => amplify,
        "by thirds" => by_thirds,
        "odd for both" => odd_for_both,
        "slow upper" => slow_upper,
        "hundred" => hundred,
        "odd" => odd,
        "panic on 123" => panic_on_123,
        "fail twice" => fail_twice,
        "fail until mended" => fail_until_mended,
        "die once" | "leave a child" => die_once,
        "die on 123" => die_on_123,
        "hang on 123" => hang_on_123,
        "wrong route" => wrong_route,
        "who" => who,
        "stop once" => stop_once,
        "fail always" => fail_always,
        "die on 23" => die_on_23,
        "kill the runtime on 23" => kill_the_runtime_on_23,
        other => panic!("no such role: {other}"),
    };
    worker().map(role, function).run().unwrap();
}

/// The roles that are no functions of one record with an [`Emit`].
fn of_another_kind(role: &str) -> Option<FunctionWorker> {
    let third = |record: &Record<'_>| record.position().0.is_multiple_of(3);
    let worker = match role {
        "typed" => worker()
            .map(role, |record, ctx, out| {
                note("called", ".");
                upper(record, ctx, out)
            })
            .schema_in(SchemaId(7))
            .schema_in(SchemaId::of(schemas::INPUT))
            .schema_out(SchemaId::of(schemas::OUTPUT)),
        "fits by turns" => {
            let starts = fs::read_to_string(place("pids")).unwrap().lines().count();
            let worker = worker().map(role, move |record, ctx, out| {
                if starts < 4 {
                    die();
                }
                upper(record, ctx, out)
            });
            if starts.is_multiple_of(2) { worker } else { worker.schema_in(SchemaId(7)) }
        }
        "filter" => worker().filter(role, move |record, _| third(&record)),
        "flat map" => worker().flat_map(role, |record, _| {
            record.value().split(|&byte| byte == b':').map(<[u8]>::to_vec).collect::<Vec<_>>()
        }),
        "batch map" => worker().batch_map(role, move |batch, _, answers| {
            // Answered from the last one on; an input that is not mentioned is filtered.
            for record in batch.records().filter(third).collect::<Vec<_>>().iter().rev() {
                answers.of(record).record().value(&upper_of(record));
            }
            Ok(())
        }),
        "batch fails on 123" | "batch panics on 123" => {
            let panics = role.contains("panics");
            worker().batch_map(role, move |batch, _, answers| {
                for record in batch.records() {
                    answers.of(&record).record().value(&upper_of(&record));
                    assert!(!panics || record.position().0 != 123, "not this one");
                    if record.position().0 == 123 {
                        return Err(Failure::new("not this one"));
                    }
                }
                Ok(())
            })
        }
        _ => return None,
    };
    Some(worker)
}

fn upper_of(record: &Record<'_>) -> Vec<u8> {
    [b"UPPER ", record.value().to_ascii_uppercase().as_slice()].concat()
}

fn upper(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    out.record().value_with(|value| {
        value.extend_from_slice(b"UPPER ");
        value.extend_from_slice(&record.value().to_ascii_uppercase());
    });
    Outcome::ok()
}

fn slow_upper(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    std::thread::sleep(std::time::Duration::from_micros(200));
    upper(record, ctx, out)
}

fn hundred(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    for _ in 0..100 {
        out.record().value(record.value());
    }
    Outcome::ok()
}

fn odd(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    match record.position().0 {
        position if position % 2 == 1 => upper(record, ctx, out),
        position if position % 4 == 0 => Outcome::ok(),
        _ => Outcome::drop("even"),
    }
}

fn panic_on_123(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    upper(record, ctx, out);
    assert_ne!(record.position().0, 123);
    Outcome::ok()
}

/// Fails on some inputs in their first two tries.
fn fail_until_mended(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.value() == b"0:123" && !place("mended").exists() {
        return Outcome::fail("not mended");
    }
    upper(record, ctx, out)
}

fn fail_twice(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    upper(record, ctx, out);
    let first_tries = ctx.attempt() < 2;
    assert_eq!(ctx.is_replay(), ctx.attempt() > 0);
    if first_tries && record.position().0 % 100 == 7 { Outcome::fail("not yet") } else { Outcome::ok() }
}

/// Dies in the middle of a batch, the first time only.
fn die_once(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0 == 1_010
        && OpenOptions::new().create_new(true).write(true).open(place("died")).is_ok()
    {
        die();
    }
    upper(record, ctx, out)
}

/// Stops in the middle of a batch, the first time only.
fn stop_once(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0 == 1_010
        && OpenOptions::new().create_new(true).write(true).open(place("stopped")).is_ok()
    {
        // To this thread: one to the process may wait for another thread, and this one would go on.
        raise(Signal::STOP.as_raw()).unwrap();
    }
    upper(record, ctx, out)
}

fn die_on_123(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0 == 123 {
        die();
    }
    upper(record, ctx, out)
}

fn hang_on_123(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    while record.position().0 == 123 {
        note("hangs", ".");
        std::thread::park();
    }
    upper(record, ctx, out)
}

fn wrong_route(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0 == 3 {
        out.record().route(7).value(b"nowhere");
        return Outcome::ok();
    }
    upper(record, ctx, out)
}

/// Another answer from each worker.
fn who(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    let line = format!("{} {}", String::from_utf8_lossy(record.value()), std::process::id());
    out.record().value(line.as_bytes());
    out.record().route(1).value(line.as_bytes());
    Outcome::ok()
}

/// Fails on one input until the test says otherwise, and leaves a mark each time.
fn gate_on_123(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0 == 123 && !place("gate").exists() {
        note("tries", ".");
        return Outcome::fail("not yet");
    }
    upper(record, ctx, out)
}

/// Does not come back from one input of partition 1 until the test says so.
fn hold_partition_1(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    while ctx.partition().0 == 1 && record.position().0 == 10 && !place("gate").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    upper(record, ctx, out)
}

/// Does not come back from one input until the test says so.
fn hold_10(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    while record.position().0 == 10 && !place("gate").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    upper(record, ctx, out)
}

/// Fails on every input that is not of partition 7 until the test says otherwise.
fn fail_all_but_7(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if ctx.partition().0 != 7 && !place("gate").exists() {
        return Outcome::fail("not yet");
    }
    upper(record, ctx, out)
}

/// Leaves a mark for each input, and gives it four times.
fn four_copies(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    note("calls", ".");
    (0..4).for_each(|_| out.record().value(record.value()));
    Outcome::ok()
}

/// Forty outputs of an input, and of one of them more than an answer may have.
fn amplify(record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    let outputs = if record.position().0 == 7 { 3_000 } else { 40 };
    (0..outputs).for_each(|_| out.record().value(record.value()));
    Outcome::ok()
}

/// One route for each third of the inputs, and both for the last.
fn by_thirds(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    let second = ctx.route("second").unwrap();
    if record.position().0 % 3 != 1 {
        out.record().value(record.value());
    }
    if !record.position().0.is_multiple_of(3) {
        out.record().route(second).value(record.value());
    }
    Outcome::ok()
}

/// The second route for each input, and the first for those with an odd number as well.
fn odd_for_both(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    let number: u64 = std::str::from_utf8(record.value()).unwrap().parse().unwrap();
    if number % 2 == 1 {
        out.record().value(record.value());
    }
    out.record().route(ctx.route("second").unwrap()).value(record.value());
    Outcome::ok()
}

/// Fails on every fiftieth input, whatever the attempt.
fn fail_always(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0.is_multiple_of(50) { Outcome::fail("never") } else { upper(record, ctx, out) }
}

/// Dies on one input, and leaves a mark each time.
fn die_on_23(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0 == 23 {
        note("deaths", ".");
        die();
    }
    upper(record, ctx, out)
}

/// Ends its runtime, and goes with it.
fn kill_the_runtime_on_23(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    if record.position().0 == 23 {
        kill_process(getppid().unwrap(), Signal::KILL).unwrap();
        die();
    }
    upper(record, ctx, out)
}

/// Counts its inputs, and what it knows of each batch that was tried before.
fn count_and_log(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    ctx.count("inputs", 1);
    ctx.count("bytes of values", record.value().len() as u64);
    ctx.log(Level::Info, "an input", &[("position", record.position().0.into())]);
    upper(record, ctx, out)
}

/// Says whatever a worker can say beside its answers, from its first input on.
fn babble(record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>) -> Outcome {
    garbage::babble();
    ctx.count("inputs", 1);
    ctx.log(Level::Error, "nobody will hear this", &[]);
    upper(record, ctx, out)
}

fn die() {
    kill_process(getpid(), Signal::KILL).unwrap();
}

pub(crate) fn place(name: &str) -> PathBuf {
    PathBuf::from(env::var_os("TIDEGATE_TEST_PLACE").unwrap()).join(name)
}

/// Leaves a mark for the test.
pub(crate) fn note(name: &str, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(place(name)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
