//! The minima of the specification (section 15.1).

use super::plan::{Kind, Measure};
use crate::cli::bench::verdict::{Against, Target};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

pub(super) const TARGETS: &[Target<Measure>] = {
    use Against::{One, Own};
    const LIBZMQ: Against<Measure> = Against::Program(super::programs::LIBZMQ);
    &[
        Target::at_most(
            "MQ-480",
            |m| m.kind == Kind::ReqRep && [64].contains(&m.bytes),
            "p50_ns",
            LIBZMQ,
            0.8,
        ),
        Target::at_most(
            "MQ-481",
            |m| m.kind == Kind::ReqRep && [64].contains(&m.bytes),
            "p99_ns",
            LIBZMQ,
            1.0,
        ),
        Target::at_most(
            "MQ-481",
            |m| m.kind == Kind::ReqRep && [64].contains(&m.bytes),
            "p999_ns",
            LIBZMQ,
            1.0,
        ),
        Target::at_most(
            "MQ-482",
            |m| m.kind == Kind::ReqRep && [KIB, 64 * KIB, MIB].contains(&m.bytes),
            "p50_ns",
            LIBZMQ,
            1.0,
        ),
        Target::at_least(
            "MQ-483",
            |m| m.kind == Kind::PushPull && [64].contains(&m.bytes),
            "messages_per_s",
            LIBZMQ,
            1.2,
        ),
        Target::at_least(
            "MQ-483",
            |m| m.kind == Kind::PushPull && [64].contains(&m.bytes),
            "messages_per_s",
            One,
            1e6,
        ),
        Target::at_least(
            "MQ-484",
            |m| m.kind == Kind::PushPull && [256, KIB, 4 * KIB].contains(&m.bytes),
            "messages_per_s",
            LIBZMQ,
            1.2,
        ),
        Target::at_least(
            "MQ-485",
            |m| m.kind == Kind::PushPull && [64 * KIB, MIB].contains(&m.bytes),
            "bytes_per_s",
            LIBZMQ,
            1.0,
        ),
        Target::at_least("MQ-486", |m| m.kind == Kind::Ipc, "messages_per_s", Own(over_tcp), 1.0),
        Target::at_most(
            "MQ-487",
            |m| m.kind == Kind::InprocTrip && [64].contains(&m.bytes),
            "p50_ns",
            LIBZMQ,
            1.0,
        ),
        Target::at_least(
            "MQ-487",
            |m| m.kind == Kind::InprocRate && [64].contains(&m.bytes),
            "messages_per_s",
            LIBZMQ,
            1.0,
        ),
        Target::at_least(
            "MQ-488",
            |m| m.kind == Kind::PubSub && [256].contains(&m.bytes),
            "messages_per_s",
            LIBZMQ,
            1.2,
        ),
        Target::at_least("MQ-489", |m| m.kind == Kind::Stalled, "messages_per_s", Own(without_stall), 0.95),
        Target::at_least("MQ-490", |m| m.kind == Kind::Topics, "published_per_s", LIBZMQ, 1.0),
        // Who drops more has more time to publish.
        Target::at_least("MQ-490", |m| m.kind == Kind::Topics, "messages_per_s", LIBZMQ, 1.0),
        Target::at_least("MQ-491", |m| m.kind == Kind::Router, "messages_per_s", LIBZMQ, 1.0),
        Target::at_least(
            "MQ-492",
            |m| m.kind == Kind::Curve && [64, 64 * KIB].contains(&m.bytes),
            "messages_per_s",
            LIBZMQ,
            1.0,
        ),
        Target::at_most("MQ-493", |m| m.kind == Kind::Connections, "bytes_per_connection", One, 16384.0),
        Target::at_most("MQ-494", |m| m.kind == Kind::Connections, "measuring_cpu_share", LIBZMQ, 1.0),
        Target::at_most("MQ-494", |m| m.kind == Kind::Connections, "up_s", One, 30.0),
    ]
};

fn over_tcp(measure: Measure) -> Measure {
    Measure { kind: Kind::PushPull, ..measure }
}

fn without_stall(measure: Measure) -> Measure {
    Measure { stalled: false, ..measure }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::bench::results::Results;
    use crate::cli::bench::turn::Figures;
    use crate::cli::bench::verdict::{Met, verdicts};

    fn measure(kind: Kind, bytes: usize) -> Measure {
        Measure { kind, bytes, count: 1, stalled: false }
    }

    fn results(rows: &[(Measure, &str, &str, [f64; 3])]) -> Results<Measure> {
        let mut results = Results::default();
        for (measure, program, field, values) in rows {
            for value in values {
                results.add(*measure, program, Figures::from_iter([((*field).to_owned(), json!(value))]));
            }
        }
        results
    }

    fn met(results: &Results<Measure>) -> Vec<(&'static str, Met)> {
        verdicts(results).iter().map(|verdict| (verdict.rule, verdict.met)).collect()
    }

    /// Every row of section 15.1 that is a measurement has a minimum here.
    #[test]
    fn each_rule_has_its_minimum() {
        let mut rules: Vec<_> = TARGETS.iter().map(|target| target.rule).collect();
        rules.dedup();
        let expected: Vec<_> = (480..=494).map(|number| format!("MQ-{number}")).collect();
        assert_eq!(rules, expected);
    }

    #[test]
    fn a_minimum_is_a_multiple_of_what_libzmq_does() {
        let at = |own: [f64; 3]| {
            let [own, other] = [("tidegate", own), ("libzmq", [99.0, 100.0, 101.0])]
                .map(|(program, values)| (measure(Kind::ReqRep, 64), program, "p50_ns", values));
            met(&results(&[own, other]))
        };
        assert_eq!(at([79.0, 80.0, 81.0]), [("MQ-480", Met::Yes)]);
        assert_eq!(at([80.0, 81.0, 82.0]), [("MQ-480", Met::Unclear)]);
        assert_eq!(at([89.0, 90.0, 91.0]), [("MQ-480", Met::No)]);
    }

    #[test]
    fn rates_have_an_absolute_minimum_too() {
        let rate = |program, value| (measure(Kind::PushPull, 64), program, "messages_per_s", [value; 3]);
        let found = met(&results(&[rate("tidegate", 9e5), rate("libzmq", 5e5)]));
        assert_eq!(found, [("MQ-483", Met::Yes), ("MQ-483", Met::No)]);
        let alone = met(&results(&[rate("tidegate", 2e6)]));
        assert_eq!(alone, [("MQ-483", Met::Unknown), ("MQ-483", Met::Yes)]);
    }

    #[test]
    fn ipc_and_stalls_are_compared_with_the_same_program() {
        let rate = |measure, program, value| (measure, program, "messages_per_s", [value; 3]);
        let [tcp, ipc] = [Kind::PushPull, Kind::Ipc].map(|kind| measure(kind, 16 * KIB));
        let found = results(&[
            rate(tcp, "tidegate-polling", 10.0),
            rate(ipc, "tidegate-polling", 11.0),
            rate(tcp, "tidegate", 12.0),
        ]);
        assert_eq!(met(&found), [("MQ-486", Met::Yes)]);
        let calm = measure(Kind::Stalled, 256);
        let stalled = Measure { stalled: true, ..calm };
        let found = results(&[rate(calm, "tidegate", 100.0), rate(stalled, "tidegate", 94.0)]);
        assert_eq!(met(&found), [("MQ-489", Met::No)]);
        assert_eq!(verdicts(&found)[0].bound(), ">= 0.95 x stalled 256 B, 1 SUB");
    }
}
