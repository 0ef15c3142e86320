//! The minima of the specification (section 15.1), and whether they are met.

use serde_json::{Map, Value, json};

use super::plan::{Kind, Measure};
use super::programs::{LIBZMQ, is_own};
use super::results::{Results, Row};
use super::stats::Spread;

/// A minimum for one number of one kind of measurement.
struct Target {
    rule: &'static str,
    kind: Kind,
    /// The sizes it is for; none stands for all.
    sizes: &'static [usize],
    field: &'static str,
    against: Against,
    bound: f64,
    /// Whether the bound is the least value, or the greatest.
    at_least: bool,
}

/// What the bound is a multiple of.
#[derive(Clone, Copy)]
enum Against {
    Libzmq,
    /// Another measurement of the same program.
    Own(fn(Measure) -> Measure),
    /// Nothing: it is a value by itself.
    One,
}

const fn at_least(
    rule: &'static str,
    kind: Kind,
    sizes: &'static [usize],
    field: &'static str,
    against: Against,
    bound: f64,
) -> Target {
    Target { rule, kind, sizes, field, against, bound, at_least: true }
}

const fn at_most(
    rule: &'static str,
    kind: Kind,
    sizes: &'static [usize],
    field: &'static str,
    against: Against,
    bound: f64,
) -> Target {
    Target { rule, kind, sizes, field, against, bound, at_least: false }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const TARGETS: [Target; 19] = {
    use Against::{Libzmq, One, Own};
    [
        at_most("MQ-480", Kind::ReqRep, &[64], "p50_ns", Libzmq, 0.8),
        at_most("MQ-481", Kind::ReqRep, &[64], "p99_ns", Libzmq, 1.0),
        at_most("MQ-481", Kind::ReqRep, &[64], "p999_ns", Libzmq, 1.0),
        at_most("MQ-482", Kind::ReqRep, &[KIB, 64 * KIB, MIB], "p50_ns", Libzmq, 1.0),
        at_least("MQ-483", Kind::PushPull, &[64], "messages_per_s", Libzmq, 1.2),
        at_least("MQ-483", Kind::PushPull, &[64], "messages_per_s", One, 1e6),
        at_least("MQ-484", Kind::PushPull, &[256, KIB, 4 * KIB], "messages_per_s", Libzmq, 1.2),
        at_least("MQ-485", Kind::PushPull, &[64 * KIB, MIB], "bytes_per_s", Libzmq, 1.0),
        at_least("MQ-486", Kind::Ipc, &[], "messages_per_s", Own(over_tcp), 1.0),
        at_most("MQ-487", Kind::InprocTrip, &[64], "p50_ns", Libzmq, 1.0),
        at_least("MQ-487", Kind::InprocRate, &[64], "messages_per_s", Libzmq, 1.0),
        at_least("MQ-488", Kind::PubSub, &[256], "messages_per_s", Libzmq, 1.2),
        at_least("MQ-489", Kind::Stalled, &[], "messages_per_s", Own(without_stall), 0.95),
        at_least("MQ-490", Kind::Topics, &[], "published_per_s", Libzmq, 1.0),
        at_least("MQ-491", Kind::Router, &[], "messages_per_s", Libzmq, 1.0),
        at_least("MQ-492", Kind::Curve, &[64, 64 * KIB], "messages_per_s", Libzmq, 1.0),
        at_most("MQ-493", Kind::Connections, &[], "bytes_per_connection", One, 16384.0),
        at_most("MQ-494", Kind::Connections, &[], "measuring_cpu_share", Libzmq, 1.0),
        at_most("MQ-494", Kind::Connections, &[], "up_s", One, 30.0),
    ]
};

fn over_tcp(measure: Measure) -> Measure {
    Measure { kind: Kind::PushPull, ..measure }
}

fn without_stall(measure: Measure) -> Measure {
    Measure { stalled: false, ..measure }
}

/// What became of a minimum.
pub(super) struct Verdict {
    pub(super) rule: &'static str,
    pub(super) measure: Measure,
    pub(super) field: &'static str,
    pub(super) program: String,
    pub(super) own: Spread,
    /// What libzmq, and each foreign program, has.
    pub(super) others: Vec<(String, f64)>,
    /// To what the bound is a multiple of.
    pub(super) ratio: Option<f64>,
    pub(super) minimum: f64,
    at_least: bool,
    against: Against,
    pub(super) met: Met,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    Yes,
    No,
    /// Missed, but not by a difference that counts.
    Unclear,
    /// There is nothing to compare with.
    Unknown,
}

impl Met {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unclear => "unclear",
            Self::Unknown => "unknown",
        }
    }
}

/// All minima for what was measured, in the order of their rules.
pub(super) fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for target in &TARGETS {
        let rows = results.rows().iter().filter(|row| is_own(&row.program) && target.is_for(row.measure));
        verdicts.extend(rows.filter_map(|row| target.verdict(row, results)));
    }
    verdicts
}

impl Target {
    fn is_for(&self, measure: Measure) -> bool {
        let compared = !matches!(self.against, Against::Own(other) if other(measure) == measure);
        self.kind == measure.kind
            && compared
            && (self.sizes.is_empty() || self.sizes.contains(&measure.bytes))
    }

    fn verdict(&self, row: &Row, results: &Results) -> Option<Verdict> {
        let own = row.field(self.field)?;
        let base = match self.against {
            Against::Libzmq => results.reference(row).and_then(|other| other.field(self.field)),
            Against::Own(other) => {
                results.find(other(row.measure), &row.program).and_then(|other| other.field(self.field))
            }
            Against::One => Some(Spread { q1: 1.0, median: 1.0, q3: 1.0 }),
        };
        let met = match base.map(|base| own.keeps(base.times(self.bound), self.at_least)) {
            Some(Some(true)) => Met::Yes,
            Some(Some(false)) => Met::No,
            Some(None) => Met::Unclear,
            None => Met::Unknown,
        };
        let others =
            results.rows().iter().filter(|other| other.measure == row.measure && !is_own(&other.program));
        Some(Verdict {
            rule: self.rule,
            measure: row.measure,
            field: self.field,
            program: row.program.clone(),
            own,
            others: others
                .filter_map(|other| Some((other.program.clone(), other.field(self.field)?.median)))
                .collect(),
            ratio: match self.against {
                Against::One => None,
                _ => base.map(|base| own.median / base.median),
            },
            minimum: self.bound,
            at_least: self.at_least,
            against: self.against,
            met,
        })
    }
}

impl Verdict {
    /// The minimum, for people.
    pub(super) fn bound(&self) -> String {
        let sign = if self.at_least { ">=" } else { "<=" };
        match self.against {
            Against::Libzmq => format!("{sign} {} x {LIBZMQ}", self.minimum),
            Against::Own(other) => {
                let other = other(self.measure);
                let name = if other.kind == self.measure.kind { "without it" } else { other.kind.name() };
                format!("{sign} {} x {name}", self.minimum)
            }
            Against::One => format!("{sign} {}", value(self.field, self.minimum)),
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("rule".into(), self.rule.into());
        fields.extend(self.measure.fields());
        let rest = json!({
            "program": self.program,
            "field": self.field,
            "value": self.own.median,
            "others": self.others.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>(),
            "ratio": self.ratio,
            "minimum": self.minimum,
            "at_least": self.at_least,
            "met": self.met.word(),
        });
        fields.extend(rest.as_object().cloned().unwrap_or_default());
        Value::Object(fields)
    }
}

/// A number of the field of this name with its unit.
pub(super) fn value(field: &str, value: f64) -> String {
    match field {
        field if field.ends_with("_ns") => format!("{:.1} us", value / 1e3),
        "bytes_per_s" => format!("{:.0} MB/s", value / 1e6),
        field if field.ends_with("_per_s") => format!("{value:.0}/s"),
        "bytes_per_connection" => format!("{:.1} KiB", value / 1024.0),
        field if field.ends_with("_share") => format!("{:.1} %", value * 100.0),
        "up_s" => format!("{value:.2} s"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mq::bench::turn::Figures;

    fn measure(kind: Kind, bytes: usize) -> Measure {
        Measure { kind, bytes, count: 1, stalled: false }
    }

    fn results(rows: &[(Measure, &str, &str, [f64; 3])]) -> Results {
        let mut results = Results::default();
        for (measure, program, field, values) in rows {
            for value in values {
                results.add(*measure, program, Figures::from_iter([((*field).to_owned(), json!(value))]));
            }
        }
        results
    }

    fn met(results: &Results) -> Vec<(&'static str, Met)> {
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
        assert_eq!(verdicts(&found)[0].bound(), ">= 0.95 x without it");
    }
}
