//! Everything that was measured.

use serde_json::{Map, Value};

use super::plan::Measure;
use super::programs::LIBZMQ;
use super::stats::Spread;
use super::turn::Figures;

#[derive(Default)]
pub(super) struct Results(Vec<Row>);

/// One measurement of one program.
pub(super) struct Row {
    pub(super) measure: Measure,
    pub(super) program: String,
    /// One for each repetition.
    runs: Vec<Figures>,
    /// What was counted in a turn of its own.
    counts: Figures,
}

impl Results {
    pub(super) fn add(&mut self, measure: Measure, program: &str, run: Figures) {
        self.row(measure, program).runs.push(run);
    }

    pub(super) fn add_counts(&mut self, measure: Measure, program: &str, counts: Figures) {
        self.row(measure, program).counts = counts;
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.0
    }

    pub(super) fn find(&self, measure: Measure, program: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.measure == measure && row.program == program)
    }

    /// What libzmq made of the same.
    pub(super) fn reference(&self, row: &Row) -> Option<&Row> {
        self.find(row.measure, LIBZMQ)
    }

    fn row(&mut self, measure: Measure, program: &str) -> &mut Row {
        let known = self.0.iter().position(|row| row.measure == measure && row.program == program);
        let index = known.unwrap_or(self.0.len());
        if known.is_none() {
            let (runs, counts) = (Vec::new(), Figures::new());
            self.0.push(Row { measure, program: program.to_owned(), runs, counts });
        }
        &mut self.0[index]
    }
}

impl Row {
    /// Middle and spread of one number over the repetitions.
    pub(super) fn field(&self, name: &str) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.get(name)?.as_f64()).collect())
    }

    /// The number that counts.
    pub(super) fn main(&self) -> Option<Spread> {
        self.field(self.measure.kind.main().0)
    }

    /// Ratio of the medians of the number that counts, and whether the difference counts.
    pub(super) fn ratio(&self, reference: Option<&Self>) -> Option<(f64, bool)> {
        let (own, other) = (self.main()?, reference?.main()?);
        Some((own.median / other.median, own.differs(other)))
    }

    /// All numbers, and what each repetition gave.
    pub(super) fn json(&self, reference: Option<&Self>) -> Value {
        let mut fields = self.measure.fields();
        fields.insert("program".into(), self.program.clone().into());
        fields.insert("repetitions".into(), self.runs.len().into());
        for name in self.runs.first().into_iter().flat_map(Map::keys) {
            if let Some(spread) = self.field(name) {
                fields.insert(name.clone(), spread.json());
            }
        }
        fields.extend(self.counts.clone());
        if let Some((ratio, differs)) = self.ratio(reference) {
            fields.insert("ratio_to_libzmq".into(), ratio.into());
            fields.insert("differs".into(), differs.into());
        }
        fields.insert("runs".into(), self.runs.iter().cloned().map(Value::Object).collect());
        Value::Object(fields)
    }
}
