//! The functions of the workers, by role.

use std::{env, fs::OpenOptions, io::Write, path::PathBuf};

use rustix::process::{Signal, getpid, kill_process};
use tidegate_udf::{Ctx, Emit, Outcome, Record, worker};

use crate::{garbage, hostile};

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
        _ => {}
    }
    note("pids", &format!("{}\n", std::process::id()));
    let function: fn(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome = match role {
        "upper" | "close once" | "flood" => upper,
        "slow upper" => slow_upper,
        "hundred" => hundred,
        "odd" => odd,
        "panic on 123" => panic_on_123,
        "fail twice" => fail_twice,
        "die once" | "leave a child" => die_once,
        "die on 123" => die_on_123,
        "hang on 123" => hang_on_123,
        "wrong route" => wrong_route,
        "who" => who,
        "stop once" => stop_once,
        "fail always" => fail_always,
        "die on 23" => die_on_23,
        other => panic!("no such role: {other}"),
    };
    worker().map(role, function).run().unwrap();
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
        kill_process(getpid(), Signal::STOP).unwrap();
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
