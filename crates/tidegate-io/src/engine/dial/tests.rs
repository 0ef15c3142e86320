//! The table of section 7.6 of the specification, row by row.

#![allow(clippy::panic, reason = "a test's helpers")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::state::{Backoff, Input, Machine, Output, Phase, STAGGER, StopOn};
use crate::protocol::Retry;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn machine(backoff: Backoff) -> Machine {
    Machine::new(backoff)
}

fn stop(change: impl FnOnce(&mut StopOn)) -> Machine {
    let mut backoff = Backoff::default();
    change(&mut backoff.stop);
    machine(backoff)
}

fn step(machine: &mut Machine, input: Input) -> Vec<Output> {
    machine.step(input, &mut || 0.5).to_vec()
}

/// Up to the handshake.
fn handshaking(machine: &mut Machine) {
    assert_eq!(step(machine, Input::Start), [Output::Resolve]);
    connect(machine);
}

fn connect(machine: &mut Machine) {
    assert_eq!(step(machine, Input::Resolved(1)), [Output::Dial(0)]);
    assert_eq!(step(machine, Input::Connected), [Output::DropAttempts]);
    assert_eq!(machine.phase(), Phase::Handshaking);
}

/// The delay after which the dialer goes on.
#[track_caller]
fn delay(outputs: &[Output]) -> Duration {
    match outputs {
        [Output::Wait(delay)] => *delay,
        other => panic!("{other:?}"),
    }
}

/// Rules: MQ-283, MQ-259.
#[test]
fn the_usual_life() {
    let now = Instant::now();
    let mut m = machine(Backoff::default());
    handshaking(&mut m);
    assert_eq!(step(&mut m, Input::Established(now)), []);
    assert_eq!(m.phase(), Phase::Up { since: now });
    delay(&step(&mut m, Input::Ended(Retry::Lost, now + 5 * S)));
    assert_eq!(m.phase(), Phase::Waiting);
    assert_eq!(step(&mut m, Input::Timer), [Output::Resolve]);
    connect(&mut m);
    assert_eq!(step(&mut m, Input::Close), [Output::DropAttempts, Output::Remove]);
    assert_eq!(step(&mut m, Input::Ended(Retry::Lost, now)), [], "nothing follows");
}

/// Rules: MQ-259, MQ-277.
#[test]
fn a_failed_lookup_counts_as_an_attempt() {
    for input in [Input::ResolveFailed, Input::Resolved(0)] {
        let mut m = machine(Backoff::default());
        step(&mut m, Input::Start);
        delay(&step(&mut m, input));
        assert_eq!(step(&mut m, Input::Timer), [Output::Resolve]);
    }
}

/// Rules: MQ-257, MQ-530.
#[test]
fn addresses_are_tried_in_order_and_staggered() {
    let mut m = machine(Backoff::default());
    step(&mut m, Input::Start);
    assert_eq!(step(&mut m, Input::Resolved(3)), [Output::Dial(0), Output::Stagger(STAGGER)]);
    assert_eq!(STAGGER, 250 * MS);
    assert_eq!(step(&mut m, Input::Timer), [Output::Dial(1), Output::Stagger(STAGGER)]);
    // A failure does not wait for the timer.
    assert_eq!(step(&mut m, Input::AttemptFailed { refused: false }), [Output::Dial(2)]);
    assert_eq!(step(&mut m, Input::AttemptFailed { refused: true }), []);
    assert_eq!(step(&mut m, Input::Connected), [Output::DropAttempts], "the last one wins");

    let mut m = machine(Backoff::default());
    step(&mut m, Input::Start);
    step(&mut m, Input::Resolved(2));
    assert_eq!(step(&mut m, Input::AttemptFailed { refused: false }), [Output::Dial(1)]);
    delay(&step(&mut m, Input::AttemptFailed { refused: false }));
}

/// Rules: MQ-281.
#[test]
fn stopping_by_rule() {
    let now = Instant::now();
    let mut m = stop(|stop| stop.refused = true);
    step(&mut m, Input::Start);
    step(&mut m, Input::Resolved(1));
    delay(&step(&mut m, Input::AttemptFailed { refused: false }));
    step(&mut m, Input::Timer);
    step(&mut m, Input::Resolved(1));
    assert_eq!(step(&mut m, Input::AttemptFailed { refused: true }), [Output::Stop]);
    assert_eq!(step(&mut m, Input::Timer), []);
    assert_eq!(step(&mut m, Input::Retry), [Output::Wait(Duration::ZERO)]);

    let mut m = stop(|stop| stop.handshake_failed = true);
    handshaking(&mut m);
    assert_eq!(step(&mut m, Input::Ended(Retry::Slow, now)), [Output::Stop]);
    assert_eq!(step(&mut m, Input::Retry), [Output::Wait(Duration::ZERO)]);
    assert_eq!(step(&mut m, Input::Timer), [Output::Resolve]);
    connect(&mut m);
    step(&mut m, Input::Established(now));
    delay(&step(&mut m, Input::Ended(Retry::Lost, now)));

    let mut m = stop(|stop| stop.disconnected = true);
    handshaking(&mut m);
    delay(&step(&mut m, Input::Ended(Retry::Slow, now)));
    step(&mut m, Input::Timer);
    connect(&mut m);
    step(&mut m, Input::Established(now));
    assert_eq!(step(&mut m, Input::Ended(Retry::Lost, now)), [Output::Stop]);
    assert_eq!(m.phase(), Phase::Stopped);
}

/// Rules: MQ-277.
#[test]
fn without_a_base_there_is_no_second_attempt() {
    for base in [None, Some(Duration::ZERO)] {
        let now = Instant::now();
        let mut m = machine(Backoff { base, ..Backoff::default() });
        step(&mut m, Input::Start);
        step(&mut m, Input::Resolved(1));
        assert_eq!(step(&mut m, Input::AttemptFailed { refused: true }), [Output::Stop]);
        step(&mut m, Input::Retry);
        step(&mut m, Input::Timer);
        connect(&mut m);
        step(&mut m, Input::Established(now));
        assert_eq!(step(&mut m, Input::Ended(Retry::Lost, now + 9 * S)), [Output::Stop]);
    }
}

/// Rules: MQ-280.
#[test]
fn a_refused_dialer_waits_to_be_told() {
    let now = Instant::now();
    let mut m = machine(Backoff::default());
    handshaking(&mut m);
    assert_eq!(step(&mut m, Input::Ended(Retry::Never, now)), [Output::Refuse]);
    assert_eq!(m.phase(), Phase::Failed);
    assert_eq!(step(&mut m, Input::Timer), []);
    assert_eq!(step(&mut m, Input::Retry), [Output::Wait(Duration::ZERO)]);
}

/// One round that ends with `retry` after `up`, if it came up at all.
fn round(m: &mut Machine, retry: Retry, up: Option<Duration>, random: f64) -> Duration {
    let now = Instant::now();
    if m.phase() == Phase::Registered {
        step(m, Input::Start);
    } else {
        step(m, Input::Timer);
    }
    connect(m);
    if up.is_some() {
        step(m, Input::Established(now));
    }
    delay(&m.step(Input::Ended(retry, now + up.unwrap_or_default()), &mut || random))
}

/// Rules: MQ-278, MQ-529.
#[test]
fn only_uptime_forgets_failures() {
    let mut m = machine(Backoff { base: Some(100 * MS), max: 60 * S, ..Backoff::default() });
    let next = |m: &mut Machine, up| round(m, Retry::Lost, up, 0.5);
    assert_eq!(next(&mut m, None), 100 * MS);
    assert_eq!(next(&mut m, None), 200 * MS);
    assert_eq!(next(&mut m, Some(999 * MS)), 400 * MS, "a second is needed");
    assert_eq!(next(&mut m, Some(S)), 100 * MS);
    for times in 1..7 {
        assert_eq!(next(&mut m, None), 100 * MS * (1 << times));
    }
    assert_eq!(next(&mut m, Some(6 * S)), 12_800 * MS, "as long as the last delay");
    assert_eq!(next(&mut m, Some(12_800 * MS)), 100 * MS);
}

/// Rules: MQ-279.
#[test]
fn violations_are_retried_slowly() {
    let mut m = machine(Backoff::default());
    let delays: Vec<_> = (0..7).map(|_| round(&mut m, Retry::Slow, None, 0.0)).collect();
    assert_eq!(delays, [S, 2 * S, 4 * S, 8 * S, 16 * S, 30 * S, 30 * S]);
}

/// Rules: MQ-277.
#[test]
fn a_delay_without_end_is_no_second_attempt() {
    let now = Instant::now();
    for far in [Duration::MAX, Duration::MAX / 2, Duration::from_secs(i64::MAX as u64)] {
        for max in [Duration::ZERO, Duration::MAX] {
            for retry in [Retry::Lost, Retry::Unexplained, Retry::After(far)] {
                let mut m = machine(Backoff { base: Some(far), max, ..Backoff::default() });
                handshaking(&mut m);
                assert_eq!(m.step(Input::Ended(retry, now), &mut || 1.0).to_vec(), [Output::Stop]);
                assert_eq!(step(&mut m, Input::Retry), [Output::Wait(Duration::ZERO)], "unless it is wanted");
            }
        }
    }
}

/// Rules: MQ-280.
#[test]
fn a_refusal_may_be_retried_after_a_time_of_the_users() {
    let mut m = machine(Backoff::default());
    let mut next = |delay, random| round(&mut m, Retry::After(delay), None, random);
    for _ in 0..3 {
        assert_eq!(next(7 * S, 0.0), 7 * S, "does not grow");
    }
    assert_eq!(next(8 * S, 1.0), 10 * S, "only upwards");
    assert_eq!(next(MS, 0.0), S, "not faster than once a second");
}

/// Rules: MQ-279, MQ-463.
#[test]
fn unexplained_ends_are_retried_ever_more_slowly() {
    let mut m = machine(Backoff::default());
    let delays: Vec<_> = (0..6).map(|_| round(&mut m, Retry::Unexplained, None, 0.0)).collect();
    assert_eq!(delays, [100 * MS, 200 * MS, 400 * MS, 800 * MS, S, S]);
    let mut m = machine(Backoff { max: 3 * S, ..Backoff::default() });
    let last = (0..12).map(|_| round(&mut m, Retry::Unexplained, None, 0.0)).last();
    assert_eq!(last, Some(3 * S));
}

proptest! {
    /// Rules: MQ-277, MQ-278, MQ-279, MQ-529.
    #[test]
    fn delays_stay_within_their_bounds(
        base in 1_u64..5_000,
        max in 0_u64..100_000,
        random in 0.0_f64..1.0,
        rounds in prop::collection::vec((0_u8..3, prop::option::of(0_u64..3_000)), 1..40),
    ) {
        let (base, max) = (base as u32 * MS, max as u32 * MS);
        let mut m = machine(Backoff { base: Some(base), max, ..Backoff::default() });
        for (kind, up) in rounds {
            let retry = [Retry::Lost, Retry::Unexplained, Retry::Slow][usize::from(kind)];
            let delay = round(&mut m, retry, up.map(|ms| ms as u32 * MS), random);
            let (least, most) = match retry {
                Retry::Lost if max < base => (base, base * 2),
                Retry::Lost => (base.mul_f64(0.75), max.mul_f64(1.25)),
                Retry::Unexplained => (base, max.max(S).max(base).mul_f64(1.25)),
                _ => (S, (30 * S).mul_f64(1.25)),
            };
            prop_assert!(delay >= least && delay <= most + MS, "{retry:?} {delay:?} not in {least:?}..{most:?}");
        }
    }

    /// Whatever happens, in whatever order, a dialer is never left without anything to wait for.
    ///
    /// Rules: MQ-283.
    #[test]
    fn no_order_of_events_loses_the_dialer(inputs in prop::collection::vec(0_u8..10, 0..60)) {
        let now = Instant::now();
        let mut m = machine(Backoff::default());
        step(&mut m, Input::Start);
        for input in inputs {
            let before = m.phase();
            let input = match input {
                0 => Input::Resolved(2),
                1 => Input::ResolveFailed,
                2 => Input::Connected,
                3 => Input::AttemptFailed { refused: true },
                4 => Input::Established(now),
                5 => Input::Ended(Retry::Lost, now),
                6 => Input::Ended(Retry::Never, now),
                7 => Input::Timer,
                8 => Input::Retry,
                _ => Input::Start,
            };
            let outputs = step(&mut m, input);
            match m.phase() {
                Phase::Resolving if before != Phase::Resolving => prop_assert!(outputs.contains(&Output::Resolve)),
                Phase::Waiting if before != Phase::Waiting => prop_assert_eq!(outputs.len(), 1),
                Phase::Connecting { open, .. } => prop_assert!(open > 0, "waits for no attempt"),
                Phase::Removed | Phase::Registered => prop_assert!(false),
                _ => {}
            }
        }
        prop_assert!(step(&mut m, Input::Close).contains(&Output::Remove));
    }
}
