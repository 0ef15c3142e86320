//! Minima, and whether they are met.

use serde_json::{Map, Value, json};

use super::program::is_own;
use super::results::{Results, Row};
use super::stats::Spread;
use super::{Measurement, size};

/// A minimum for one number of one kind of measurement.
pub(crate) struct Target<M> {
    pub(crate) rule: &'static str,
    /// Whether it is for this measurement.
    pub(crate) applies: fn(&M) -> bool,
    pub(crate) field: &'static str,
    pub(crate) against: Against<M>,
    pub(crate) bound: f64,
    /// Whether the bound is the least value, or the greatest.
    pub(crate) at_least: bool,
}

/// What the bound is a multiple of.
pub(crate) enum Against<M> {
    /// What another program makes of the same.
    Program(&'static str),
    /// What the better one of several programs makes of the same.
    Better(&'static [&'static str]),
    /// Another measurement of the same program.
    Own(fn(M) -> M),
    /// Nothing: it is a value by itself.
    One,
}

impl<M> Clone for Against<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Against<M> {}

impl<M> Target<M> {
    pub(crate) const fn at_least(
        rule: &'static str,
        applies: fn(&M) -> bool,
        field: &'static str,
        against: Against<M>,
        bound: f64,
    ) -> Self {
        Self { rule, applies, field, against, bound, at_least: true }
    }

    pub(crate) const fn at_most(
        rule: &'static str,
        applies: fn(&M) -> bool,
        field: &'static str,
        against: Against<M>,
        bound: f64,
    ) -> Self {
        Self { rule, applies, field, against, bound, at_least: false }
    }
}

/// What became of a minimum.
pub(crate) struct Verdict<M> {
    pub(crate) rule: &'static str,
    pub(crate) measure: M,
    pub(crate) field: &'static str,
    pub(crate) program: String,
    pub(crate) own: Spread,
    /// What each other program has.
    pub(crate) others: Vec<(String, f64)>,
    /// To what the bound is a multiple of.
    pub(crate) ratio: Option<f64>,
    pub(crate) minimum: f64,
    at_least: bool,
    against: Against<M>,
    pub(crate) met: Met,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    No,
    /// Missed, but not by a difference that counts.
    Unclear,
    /// There is nothing to compare with.
    Unknown,
}

impl Met {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unclear => "unclear",
            Self::Unknown => "unknown",
        }
    }
}

/// All minima for what was measured, in the order of their rules.
pub(crate) fn verdicts<M: Measurement>(results: &Results<M>) -> Vec<Verdict<M>> {
    let mut verdicts = Vec::new();
    for target in M::TARGETS {
        let rows = results.rows().iter().filter(|row| is_own(&row.program) && target.is_for(row.measure));
        verdicts.extend(rows.filter_map(|row| target.verdict(row, results)));
    }
    verdicts
}

impl<M: Measurement> Target<M> {
    fn is_for(&self, measure: M) -> bool {
        let compared = !matches!(self.against, Against::Own(other) if other(measure) == measure);
        compared && (self.applies)(&measure)
    }

    fn verdict(&self, row: &Row<M>, results: &Results<M>) -> Option<Verdict<M>> {
        let own = row.field(self.field)?;
        let base = match self.against {
            Against::Program(name) => {
                results.find(row.measure, name).and_then(|other| other.field(self.field))
            }
            Against::Better(names) => {
                let all = names.iter().filter_map(|name| results.find(row.measure, name)?.field(self.field));
                let order = |a: &Spread, b: &Spread| a.median.total_cmp(&b.median);
                if self.at_least { all.max_by(order) } else { all.min_by(order) }
            }
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

impl<M: Measurement> Verdict<M> {
    /// The minimum, for people.
    pub(crate) fn bound(&self) -> String {
        let sign = if self.at_least { ">=" } else { "<=" };
        match self.against {
            Against::Program(name) => format!("{sign} {} x {name}", self.minimum),
            Against::Better(names) => {
                format!("{sign} {} x the better of {}", self.minimum, names.join(", "))
            }
            Against::Own(other) => {
                let other = other(self.measure);
                let name = match &self.measure {
                    own if own.name() != other.name() => other.name().to_owned(),
                    own if own.bytes() != other.bytes() => size(other.bytes()),
                    own if own.count() != other.count() => format!("with {}", other.count()),
                    _ => other.title(),
                };
                format!("{sign} {} x {name}", self.minimum)
            }
            Against::One => format!("{sign} {}", value(self.field, self.minimum)),
        }
    }

    pub(crate) fn json(&self) -> Value {
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
pub(crate) fn value(field: &str, value: f64) -> String {
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
