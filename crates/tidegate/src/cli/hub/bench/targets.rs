//! What is wanted of the hub beside other programs (DH-284), and of its closures beside its guards (DH-131).

use super::plan::{Call, ICEORYX2, KIB, Kind, MIB, Measure};
use crate::cli::bench::verdict::{Against, Target};

/// Aeron IPC, by the client and the driver that are in this program.
pub(super) const AERON: &str = "aeron";
/// Shared memory and futexes without anything around them.
pub(super) const BARE: &str = "bare";

const RULE: &str = "DH-284";
/// A record takes about 200 ns by guards in one thread, of which a tenth is less than the limit of 30 ns.
const CLOSURES: &str = "DH-131";

pub(super) const TARGETS: &[Target<Measure>] = {
    use Against::{One, Own, Program};
    &[
        Target::at_most(RULE, |m| small(m, Kind::Trip), "p50_ns", Program(ICEORYX2), 0.5),
        Target::at_most(RULE, |m| small(m, Kind::Trip), "p50_ns", Program(AERON), 1.0),
        Target::at_most(RULE, |m| small(m, Kind::Trip), "p50_ns", Program(BARE), 2.0),
        Target::at_most(RULE, |m| m.kind == Kind::Trip, "p50_ns", Own(of_64_bytes), 1.25),
        Target::at_least(RULE, |m| small(m, Kind::OneWay), "messages_per_s", Program(ICEORYX2), 2.0),
        Target::at_least(RULE, |m| small(m, Kind::Batch), "messages_per_s", Program(AERON), 1.0),
        Target::at_most(RULE, |m| small(m, Kind::Wake), "p50_ns", Program(BARE), 2.0),
        // P-11, and two wake-ups at that.
        Target::at_most(RULE, |m| small(m, Kind::Wake), "p99_ns", One, 200_000.0),
        Target::at_least(RULE, |m| m.kind == Kind::Readers, "messages_per_s", Own(one_reader), 1.0),
        // F-02.
        Target::at_least(RULE, |m| is_scaled(m, 8), "messages_per_s", Own(one_reader), 7.8),
        Target::at_least(RULE, |m| is_scaled(m, 16), "messages_per_s", Own(one_reader), 14.0),
        // F-03.
        Target::at_least(
            RULE,
            |m| m.call == Some(Call::AcquireBatch),
            "messages_per_s",
            Own(one_by_one),
            2.0,
        ),
        Target::at_least(CLOSURES, |m| m.kind == Kind::Closures, "messages_per_s", Own(by_guards), 0.9),
        Target::at_most(RULE, |m| m.kind == Kind::Idle, "measuring_cpu_share", One, 0.01),
        // The table of 22.3. A trip is two of its latencies.
        Target::at_most(RULE, |m| small(m, Kind::SingleTrip), "p50_ns", One, 400.0),
        Target::at_most(RULE, |m| small(m, Kind::SingleTrip), "p99_ns", One, 1600.0),
        Target::at_least(RULE, |m| small(m, Kind::Single), "messages_per_s", One, 10e6),
        Target::at_most(RULE, |m| of(m, Kind::SingleTrip, 4 * KIB), "p50_ns", One, 1000.0),
        Target::at_least(RULE, |m| of(m, Kind::Single, 4 * KIB), "messages_per_s", One, 2e6),
        Target::at_most(RULE, |m| of(m, Kind::DoubleTrip, 4 * MIB), "p50_ns", One, 24e6),
        Target::at_most(RULE, |m| of(m, Kind::DoubleTrip, 4 * MIB), "p99_ns", One, 36e6),
        Target::at_least(RULE, |m| of(m, Kind::Double, 4 * MIB), "messages_per_s", One, 30.0),
        Target::at_most(RULE, |m| of(m, Kind::DigestTrip, 4 * KIB), "p50_ns", One, 10_000.0),
        Target::at_most(RULE, |m| of(m, Kind::DigestTrip, 4 * KIB), "p99_ns", One, 40_000.0),
        Target::at_least(RULE, |m| of(m, Kind::Digest, 4 * KIB), "messages_per_s", One, 500e3),
        Target::at_most(RULE, |m| of(m, Kind::Trip, KIB), "p50_ns", One, 1600.0),
        Target::at_most(RULE, |m| of(m, Kind::Trip, KIB), "p99_ns", One, 6000.0),
        Target::at_least(RULE, |m| of(m, Kind::OneWay, KIB), "messages_per_s", One, 2e6),
        // The operations below it: 200, 300, 50, 20 and 50 ns, and 10 us.
        Target::at_least(RULE, |m| m.call == Some(Call::Acquire), "messages_per_s", One, 5e6),
        Target::at_least(RULE, |m| m.call == Some(Call::Read), "messages_per_s", One, 3.3e6),
        Target::at_least(RULE, |m| m.call == Some(Call::Commit), "messages_per_s", One, 20e6),
        Target::at_least(RULE, |m| m.call == Some(Call::Poll), "messages_per_s", One, 50e6),
        Target::at_least(RULE, |m| m.call == Some(Call::Lock), "messages_per_s", One, 20e6),
        Target::at_least(RULE, |m| m.call == Some(Call::Reap), "messages_per_s", One, 100e3),
    ]
};

fn of(measure: &Measure, kind: Kind, bytes: usize) -> bool {
    measure.kind == kind && measure.bytes == bytes
}

fn small(measure: &Measure, kind: Kind) -> bool {
    of(measure, kind, 64)
}

/// Whether these are so many readers of 4 KiB, with a processor each and one for the producer.
fn is_scaled(measure: &Measure, readers: usize) -> bool {
    scales(measure, readers, std::thread::available_parallelism().map_or(1, usize::from))
}

fn scales(measure: &Measure, readers: usize, cores: usize) -> bool {
    of(measure, Kind::Readers, 4 * KIB) && measure.count == readers && cores > readers
}

fn one_by_one(measure: Measure) -> Measure {
    Measure { call: Some(Call::Acquire), ..measure }
}

fn of_64_bytes(measure: Measure) -> Measure {
    Measure { bytes: 64, ..measure }
}

fn one_reader(measure: Measure) -> Measure {
    Measure { count: 1, ..measure }
}

fn by_guards(measure: Measure) -> Measure {
    Measure { kind: Kind::Guards, ..measure }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::bench::results::Results;
    use crate::cli::bench::turn::Figures;
    use crate::cli::bench::verdict::{Met, verdicts};

    /// Rules: DH-131, X-08.
    #[test]
    fn closures_may_cost_a_tenth_of_a_record_and_no_more() {
        let met = |by_guards: f64, by_closures: f64| {
            let mut results = Results::default();
            for (kind, nanos) in [(Kind::Guards, by_guards), (Kind::Closures, by_closures)] {
                let measure = Measure { kind, bytes: 64, count: 1, call: None };
                let figures = [("messages_per_s".to_owned(), json!(1e9 / nanos))];
                results.add(measure, "tidegate", Figures::from_iter(figures));
            }
            let verdicts = verdicts(&results);
            assert_eq!((verdicts.len(), verdicts[0].rule), (1, "DH-131"));
            verdicts[0].met
        };
        assert_eq!([met(200.0, 205.0), met(200.0, 220.0), met(200.0, 230.0)], [Met::Yes, Met::Yes, Met::No]);
    }

    fn judged(rows: &[(Measure, &str, f64)]) -> Vec<(String, Met)> {
        let mut results = Results::default();
        for &(measure, field, value) in rows {
            results.add(measure, "tidegate", Figures::from_iter([(field.to_owned(), json!(value))]));
        }
        verdicts(&results).iter().map(|one| (one.bound(), one.met)).collect()
    }

    /// Rules: P-11, F-02, F-03.
    #[test]
    fn waking_batches_and_many_readers_are_judged() {
        let wake = |p99: f64| {
            judged(&[(Measure { kind: Kind::Wake, bytes: 64, count: 1, call: None }, "p99_ns", p99)])
        };
        assert_eq!(wake(199_000.0), [("<= 200.0 us".to_owned(), Met::Yes)]);
        assert_eq!(wake(201_000.0), [("<= 200.0 us".to_owned(), Met::No)]);

        let calls = |batch: f64| {
            let of = |call, rate| {
                (Measure { kind: Kind::Calls, bytes: 64, count: 1, call: Some(call) }, "messages_per_s", rate)
            };
            let all = judged(&[of(Call::Acquire, 10e6), of(Call::AcquireBatch, batch)]);
            all.into_iter().filter(|(bound, _)| bound.contains(" x ")).collect::<Vec<_>>()
        };
        let bound = || ">= 2 x calls 64 B, acquire".to_owned();
        assert_eq!([calls(21e6), calls(19e6)], [[(bound(), Met::Yes)], [(bound(), Met::No)]]);

        let readers = |count| Measure { kind: Kind::Readers, bytes: 4 * KIB, count, call: None };
        assert!(scales(&readers(8), 8, 9) && scales(&readers(16), 16, 17));
        assert!(!scales(&readers(8), 8, 8) && !scales(&readers(8), 16, 17));
        assert!(!scales(&Measure { bytes: 64, ..readers(8) }, 8, 9));
        let times = |wanted: usize| {
            let mut targets = TARGETS.iter().filter(|target| matches!(target.against, Against::Own(other) if other(readers(wanted)) == readers(1)));
            targets.any(|target| target.bound == if wanted == 8 { 7.8 } else { 14.0 })
        };
        assert!(times(8) && times(16));
    }

    /// Rules: DH-284.
    #[test]
    fn a_trip_is_judged_beside_each_program_and_beside_itself() {
        let trip = |bytes| Measure { kind: Kind::Trip, bytes, count: 1, call: None };
        let mut results = Results::default();
        let rows = [
            (trip(64), "tidegate", 40.0),
            (trip(64), ICEORYX2, 100.0),
            (trip(64), AERON, 30.0),
            (trip(1 << 20), "tidegate", 45.0),
        ];
        for (measure, program, value) in rows {
            results.add(measure, program, Figures::from_iter([("p50_ns".to_owned(), json!(value))]));
        }
        let met: Vec<_> = verdicts(&results).iter().map(|one| (one.bound(), one.met)).collect();
        let expected = [
            ("<= 0.5 x iceoryx2", Met::Yes),
            ("<= 1 x aeron", Met::No),
            ("<= 2 x bare", Met::Unknown),
            ("<= 1.25 x 64 B", Met::Yes),
        ];
        assert_eq!(met, expected.map(|(bound, met)| (bound.to_owned(), met)));
    }
}
