//! Comparison with stored results of the same machine: the gate for releases (MQ-506).

use std::path::Path;

use serde_json::Value;

use super::Measurement;
use super::error::BenchError;
use super::program::is_own;
use super::results::{Results, Row};
use super::stats::Spread;
use super::verdict::value;

/// Results of an earlier run.
pub(crate) struct Baseline(Vec<Value>);

/// A number that got worse.
#[derive(Debug)]
pub(crate) struct Regression {
    title: String,
    fields: serde_json::Map<String, Value>,
    program: String,
    field: &'static str,
    before: Spread,
    now: Spread,
    /// Share by which it is worse.
    worse: f64,
}

impl Baseline {
    /// Reads what an earlier run saved or printed.
    pub(crate) fn read(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BenchError::io(format!("read {}", path.display()), source))?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if !lines.iter().any(|line| line["runs"].is_array()) {
            return Err(BenchError::Baseline { path: path.to_owned() });
        }
        Ok(Self(lines))
    }

    /// What differs between the machine of the baseline and this one, of what must not.
    pub(crate) fn strange(&self, environment: &Value) -> Option<String> {
        let before = self.0.iter().find(|line| line["summary"] == true)?;
        let differs = |name: &&str| before[*name] != environment[*name];
        let names: Vec<_> = ["cpu", "cores", "kernel", "governor", "congestion_control", "optimized"]
            .into_iter()
            .filter(differs)
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// How many measurements both have, and which of them got worse.
    pub(crate) fn compare<M: Measurement>(&self, results: &Results<M>) -> (usize, Vec<Regression>) {
        let rows = results.rows().iter().filter(|row| is_own(&row.program));
        let both: Vec<_> = rows.filter_map(|row| Some((row, row.main()?, self.main_of(row)?))).collect();
        let worse = both.iter().filter_map(|&(row, now, before)| {
            let (field, more) = row.measure.main();
            let worse = now.regression(before, more, M::TOLERANCE)?;
            let (title, fields) = (row.measure.title(), row.measure.fields());
            Some(Regression { title, fields, program: row.program.clone(), field, before, now, worse })
        });
        (both.len(), worse.collect())
    }

    fn main_of<M: Measurement>(&self, row: &Row<M>) -> Option<Spread> {
        let wanted = row.measure.fields();
        let same = |line: &&Value| {
            line["program"] == row.program.as_str()
                && line["runs"].is_array()
                && wanted.iter().all(|(name, value)| line[name] == *value)
        };
        Spread::from_json(&self.0.iter().find(same)?[row.measure.main().0])
    }
}

impl Regression {
    pub(crate) fn text(&self) -> String {
        format!(
            "{}, {}: {} before, {} now, {:.1} % worse",
            self.title,
            self.program,
            value(self.field, self.before.median),
            value(self.field, self.now.median),
            self.worse * 100.0
        )
    }

    pub(crate) fn json(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("program".into(), self.program.clone().into());
        fields.insert("regression".into(), self.worse.into());
        fields.insert("field".into(), self.field.into());
        fields.insert("before".into(), self.before.json());
        fields.insert("now".into(), self.now.json());
        Value::Object(fields)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::turn::Figures;
    use super::*;
    use crate::cli::mq::bench::plan::{Kind, Measure};

    const MEASURE: Measure = Measure { kind: Kind::PubSub, bytes: 256, count: 10, stalled: false };

    fn rates(measure: Measure, program: &str, values: [f64; 3]) -> Results<Measure> {
        let mut results = Results::default();
        for value in values {
            results.add(measure, program, Figures::from_iter([("messages_per_s".to_owned(), json!(value))]));
        }
        results
    }

    fn stored(results: &Results<Measure>) -> Baseline {
        Baseline(results.rows().iter().map(|row| row.json(None)).collect())
    }

    /// Rules: MQ-506.
    #[test]
    fn what_got_worse_is_found_in_what_was_stored() {
        let before = stored(&rates(MEASURE, "tidegate", [99.0, 100.0, 101.0]));
        let (compared, worse) = before.compare(&rates(MEASURE, "tidegate", [89.0, 90.0, 91.0]));
        assert_eq!((compared, worse.len()), (1, 1));
        assert_eq!(worse[0].text(), "pub_sub 256 B, 10 SUB, tidegate: 100/s before, 90/s now, 10.0 % worse");
        let (compared, worse) = before.compare(&rates(MEASURE, "tidegate", [96.0, 97.0, 98.0]));
        assert_eq!((compared, worse.len()), (1, 0));
    }

    #[test]
    fn only_the_same_is_compared() {
        let before = stored(&rates(MEASURE, "tidegate", [100.0; 3]));
        let other = Measure { count: 100, ..MEASURE };
        assert_eq!(before.compare(&rates(other, "tidegate", [1.0; 3])).0, 0);
        assert_eq!(before.compare(&rates(MEASURE, "tidegate-polling", [1.0; 3])).0, 0);
        assert_eq!(before.compare(&rates(MEASURE, "libzmq", [1.0; 3])).0, 0);
    }

    #[test]
    fn another_machine_is_noticed() {
        let machine = |cores: u32| json!({ "summary": true, "cores": cores, "cpu": "fast", "kernel": "6" });
        let before = Baseline(vec![machine(2)]);
        assert_eq!(before.strange(&machine(2)), None);
        assert_eq!(before.strange(&machine(4)), Some("cores".to_owned()));
    }
}
