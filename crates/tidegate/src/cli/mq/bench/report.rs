//! Results: medians and quartiles over the repetitions, and ratios.

use serde_json::{Map, Value, json};

use super::plan::Measure;
use crate::cli::text;
use crate::output::{Output, Stop};

/// Everything measured so far.
#[derive(Default)]
pub(super) struct Results(Vec<Row>);

struct Row {
    measure: Measure,
    program: String,
    /// What the measuring end printed, one for each repetition.
    runs: Vec<Value>,
}

/// Middle and spread of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    q1: f64,
    median: f64,
    q3: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len().checked_sub(1)? as f64);
            let (below, above) = (values.get(place.floor() as usize)?, values.get(place.ceil() as usize)?);
            Some(below + (above - below) * place.fract())
        };
        Some(Self { q1: at(0.25)?, median: at(0.5)?, q3: at(0.75)? })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "q1": self.q1, "q3": self.q3 })
    }

    /// Whether neither range reaches into the other.
    fn differs(self, other: Self) -> bool {
        self.q3 < other.q1 || other.q3 < self.q1
    }
}

impl Results {
    pub(super) fn add(&mut self, measure: Measure, program: &str, run: Value) {
        let row = self.0.iter_mut().find(|row| row.measure == measure && row.program == program);
        match row {
            Some(row) => row.runs.push(run),
            None => self.0.push(Row { measure, program: program.to_owned(), runs: vec![run] }),
        }
    }

    /// A line for each measurement and program, and a last one with the ratios. `environment`: where it was measured.
    pub(super) fn print(&self, environment: &Value, output: &mut Output) -> Result<(), Stop> {
        if output.json() {
            for row in &self.0 {
                output.result(String::new, || row.json(self.baseline(row)))?;
            }
        } else {
            let headings =
                ["MEASURE", "BYTES", "PROGRAM", "MEDIAN", "QUARTILES", "P99", "CPU/MSG", "TO LIBZMQ"];
            let mut table = vec![text::heading(headings)];
            table.extend(self.0.iter().filter_map(|row| row.cells(self.baseline(row))));
            output.result(|| text::table(&table), || Value::Null)?;
        }
        output.result(
            || {
                let fields = environment.as_object().into_iter().flatten();
                let fields: Vec<String> =
                    fields.map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"'))).collect();
                format!(
                    "Rates: more is better, a ratio above 1 is faster. Round trips: less is better, a ratio below 1 is \
                     faster. (=) the quartiles overlap: no difference.\n{}",
                    fields.join(", ")
                )
            },
            || {
                let mut summary = json!({ "summary": true });
                if let (Value::Object(summary), Value::Object(environment)) = (&mut summary, environment) {
                    summary.extend(environment.clone());
                }
                summary
            },
        )
    }

    fn baseline(&self, row: &Row) -> Option<&Row> {
        self.0.iter().find(|other| other.measure == row.measure && other.program == "libzmq")
    }
}

impl Row {
    fn spread(&self, value: impl Fn(&Value) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(value).collect())
    }

    fn field(&self, name: &str) -> Option<Spread> {
        self.spread(|run| run[name].as_f64())
    }

    fn per_second(&self, name: &str) -> Option<Spread> {
        self.spread(|run| Some(run[name].as_f64()? / run["seconds"].as_f64()?))
    }

    /// The number that counts.
    fn main(&self) -> Option<Spread> {
        if self.measure.is_trips() { self.field("p50_ns") } else { self.per_second("messages") }
    }

    /// CPU time of the measuring end for each message or round trip, in nanoseconds.
    fn cpu(&self) -> Option<Spread> {
        let count = if self.measure.is_trips() { "trips" } else { "messages" };
        self.spread(|run| Some(run["cpu_seconds"].as_f64()? * 1e9 / run[count].as_f64()?))
    }

    /// Ratio of the medians to the baseline, and whether the difference counts.
    fn ratio(&self, baseline: Option<&Row>) -> Option<(f64, bool)> {
        let (own, base) = (self.main()?, baseline?.main()?);
        Some((own.median / base.median, own.differs(base)))
    }

    fn json(&self, baseline: Option<&Row>) -> Value {
        let Measure { name, transport, bytes, curve, .. } = self.measure;
        let mut fields = Map::new();
        fields.insert("measure".into(), name.into());
        fields.insert("transport".into(), transport.into());
        fields.insert("curve".into(), curve.into());
        fields.insert("bytes".into(), bytes.into());
        fields.insert("program".into(), self.program.clone().into());
        fields.insert("repetitions".into(), self.runs.len().into());
        let mut add = |name: &str, spread: Option<Spread>| {
            if let Some(spread) = spread {
                fields.insert(name.into(), spread.json());
            }
        };
        if self.measure.is_trips() {
            for name in ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "trips"] {
                add(name, self.field(name));
            }
        } else {
            add("messages_per_s", self.per_second("messages"));
            add("bytes_per_s", self.per_second("bytes"));
        }
        add("cpu_ns_each", self.cpu());
        if let Some((ratio, differs)) = self.ratio(baseline) {
            fields.insert("ratio_to_libzmq".into(), ratio.into());
            fields.insert("differs".into(), differs.into());
        }
        fields.insert("runs".into(), self.runs.clone().into());
        Value::Object(fields)
    }

    fn cells(&self, baseline: Option<&Row>) -> Option<Vec<String>> {
        let main = self.main()?;
        let unit = |value: f64| {
            if self.measure.is_trips() { format!("{:.1} us", value / 1e3) } else { format!("{:.0}/s", value) }
        };
        Some(vec![
            self.measure.name.to_owned(),
            self.measure.bytes.to_string(),
            self.program.clone(),
            unit(main.median),
            format!("{} to {}", unit(main.q1), unit(main.q3)),
            text::or_dash(self.field("p99_ns").map(|spread| unit(spread.median))),
            text::or_dash(self.cpu().map(|spread| format!("{:.0} ns", spread.median))),
            text::or_dash(
                self.ratio(baseline)
                    .map(|(ratio, differs)| format!("{ratio:.2}{}", if differs { "" } else { " (=)" })),
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_values() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]).expect("values");
        assert_eq!(spread, Spread { q1: 2.0, median: 3.0, q3: 4.0 });
        assert_eq!(Spread::of(vec![1.0, 2.0]).expect("values").median, 1.5);
        assert_eq!(Spread::of(Vec::new()), None);
        let far = Spread { q1: 4.1, median: 5.0, q3: 6.0 };
        assert!(spread.differs(far) && far.differs(spread) && !spread.differs(spread));
    }
}
