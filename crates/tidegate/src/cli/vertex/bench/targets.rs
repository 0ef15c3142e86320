//! What is wanted of the transport beside gRPC (VX-902 to VX-907).

use super::plan::{Kind, Measure};
use crate::cli::bench::verdict::{Against, Target};

/// The two forms of the baseline.
pub(super) const GRPC: &[&str] = &["grpc-batch", "grpc-record"];

const BETTER: Against<Measure> = Against::Better(GRPC);

/// Rows of the table in 22: bytes of a value, records of a batch, greatest ratio of the median and least ratio of the rate with one
/// batch on its way, least ratio of the rate with eight.
macro_rules! table {
    ($([$bytes:literal, $batch:literal: $p50:literal, $rate:literal $(, $streamed:literal)?])*) => {
        &[
            $(Target::at_most("VX-902", |m| is(m, Kind::Call, $bytes, $batch), "p50_ns", BETTER, $p50),
            Target::at_least("VX-902", |m| is(m, Kind::Call, $bytes, $batch), "messages_per_s", BETTER, $rate),
            $(Target::at_least("VX-902", |m| is(m, Kind::Stream, $bytes, $batch), "messages_per_s", BETTER, $streamed),)?)*
            Target::at_most("VX-902 (should)", |m| is(m, Kind::Call, 100, 1), "p50_ns", Against::One, 25e3),
            Target::at_most("VX-902 (should)", |m| is(m, Kind::Call, 100, 100), "p50_ns", Against::One, 60e3),
            Target::at_most("VX-902 (should)", |m| is(m, Kind::Call, 1024, 1), "p50_ns", Against::One, 30e3),
            Target::at_most("VX-902 (should)", |m| is(m, Kind::Call, 65536, 1), "p50_ns", Against::One, 60e3),
            Target::at_least("VX-902 (should)", |m| is(m, Kind::Stream, 100, 1), "messages_per_s", Against::One, 150e3),
            Target::at_least("VX-902 (should)", |m| is(m, Kind::Stream, 100, 100), "messages_per_s", Against::One, 4e6),
            Target::at_least("VX-902 (should)", |m| is(m, Kind::Stream, 100, 500), "messages_per_s", Against::One, 5e6),
            Target::at_least("VX-902 (should)", |m| is(m, Kind::Stream, 100, 2000), "messages_per_s", Against::One, 5e6),
            Target::at_least("VX-902 (should)", |m| is(m, Kind::Stream, 1024, 1), "messages_per_s", Against::One, 120e3),
            Target::at_least("VX-902 (should)", |m| many(m, 1024), "messages_per_s", Against::One, 1e6),
            Target::at_least("VX-902 (should)", |m| is(m, Kind::Stream, 65536, 1), "messages_per_s", Against::One, 30e3),
            Target::at_least("VX-902 (should)", |m| many(m, 65536), "messages_per_s", Against::One, 40e3),
            Target::at_most("VX-903", |m| matches!(m.kind, Kind::Call | Kind::Stream), "p99_ns", BETTER, 1.0),
            Target::at_most("VX-904", |m| m.kind == Kind::Idle, "measuring_cpu_share", Against::One, 0.001),
            Target::at_most("VX-904", |m| m.kind == Kind::Idle, "other_cpu_share", Against::One, 0.001),
            Target::at_most("VX-904", |m| m.kind == Kind::Idle, "measuring_sleeps_each", Against::One, 12.0),
            Target::at_least("VX-906", |m| permitted(m, 100), "messages_per_s", Against::Program(STUBBED), 0.99),
            Target::at_least("VX-906", |m| permitted(m, 1), "messages_per_s", Against::Program(STUBBED), 0.95),
            Target::at_most("VX-906", |m| m.kind == Kind::Revoke, "p99_ns", Against::One, 10e3),
            Target::at_most("VX-906", |m| m.kind == Kind::Quiesce, "p99_ns", Against::One, 1e6),
            Target::at_least("VX-907 (should)", |m| m.kind == Kind::Whole, "messages_per_s", Against::One, 1e6),
            Target::at_least("VX-907 (should)", |m| m.kind == Kind::Epochs, "messages_per_s", Against::One, 200e3),
            // Twice the interval of the epochs.
            Target::at_most("VX-907 (should)", |m| m.kind == Kind::Epochs, "commit_lag_p99_ns", Against::One, 400e6),
            Target::at_least("VX-907 (should)", |m| m.kind == Kind::Python, "messages_per_s", Against::One, 250e3),
            Target::at_least("VX-907 (should)", |m| m.kind == Kind::Table, "messages_per_s", Against::One, 2e6),
        ]
    };
}

pub(super) const TARGETS: &[Target<Measure>] = table! {
    [100, 1: 1.0, 1.0, 1.5]
    [100, 100: 1.1, 1.0, 2.5]
    [100, 500: 0.6, 1.8, 2.5]
    [100, 2000: 0.5, 2.5, 2.5]
    [1024, 1: 1.8, 0.7, 1.5]
    [1024, 100: 0.7, 1.6, 2.5]
    [1024, 500: 0.5, 2.0, 2.5]
    [1024, 2000: 0.4, 2.5, 2.5]
    [65536, 1: 1.1, 1.0, 2.5]
    [65536, 100: 0.5, 2.0, 2.5]
    [65536, 500: 0.6, 1.5]
    [65536, 2000: 0.6, 1.5]
};

/// This program, writing without permits.
const STUBBED: &str = "no-permits";

fn is(measure: &Measure, kind: Kind, bytes: usize, batch: usize) -> bool {
    measure.kind == kind && measure.bytes == bytes && measure.batch == batch
}

fn many(measure: &Measure, bytes: usize) -> bool {
    measure.kind == Kind::Stream && measure.bytes == bytes && measure.batch > 1
}

fn permitted(measure: &Measure, batch: usize) -> bool {
    measure.bytes == 100 && measure.batch == batch && measure.kind == Kind::Stream
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::bench::results::Results;
    use crate::cli::bench::turn::Figures;
    use crate::cli::bench::verdict::{Met, verdicts};

    /// Rules: VX-902, VX-903.
    #[test]
    fn a_cell_is_judged_beside_the_better_form() {
        let call = Measure { kind: Kind::Call, bytes: 100, batch: 500, flight: 1 };
        let mut results = Results::default();
        for (program, p50, p99, rate) in
            [("tidegate", 50.0, 95.0, 19.0), (GRPC[0], 100.0, 110.0, 9.0), (GRPC[1], 80.0, 90.0, 11.0)]
        {
            let figures = [("p50_ns", p50), ("p99_ns", p99), ("messages_per_s", rate)];
            let figures = figures.map(|(name, value)| (name.to_owned(), json!(value)));
            results.add(call, program, Figures::from_iter(figures));
        }
        let verdicts: Vec<_> = verdicts(&results);
        let judged: Vec<_> = verdicts.iter().map(|one| (one.field, one.ratio, one.met)).collect();
        // 50 of 80 is more than 0.6, 19 of 11 is less than 1.8, and 95 is more than 90.
        let rate = ("messages_per_s", Some(19.0 / 11.0), Met::No);
        assert_eq!(judged, [("p50_ns", Some(0.625), Met::No), rate, ("p99_ns", Some(95.0 / 90.0), Met::No)]);
        assert_eq!(verdicts[0].bound(), "<= 0.6 x the better of grpc-batch, grpc-record");
    }
}
