//! Everything that was measured.

use serde_json::{Map, Value};

use super::Measurement;
use super::stats::Spread;
use super::turn::Figures;

pub(crate) struct Results<M>(Vec<Row<M>>);

impl<M> Default for Results<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// One measurement of one program.
pub(crate) struct Row<M> {
    pub(crate) measure: M,
    pub(crate) program: String,
    /// One for each repetition.
    runs: Vec<Figures>,
    /// What was counted in a turn of its own.
    counts: Figures,
}

impl<M: Measurement> Results<M> {
    pub(crate) fn add(&mut self, measure: M, program: &str, run: Figures) {
        self.row(measure, program).runs.push(run);
    }

    pub(crate) fn add_counts(&mut self, measure: M, program: &str, counts: Figures) {
        self.row(measure, program).counts = counts;
    }

    pub(crate) fn rows(&self) -> &[Row<M>] {
        &self.0
    }

    pub(crate) fn find(&self, measure: M, program: &str) -> Option<&Row<M>> {
        self.0.iter().find(|row| row.measure == measure && row.program == program)
    }

    /// What the program to compare with made of the same.
    pub(crate) fn reference(&self, row: &Row<M>) -> Option<&Row<M>> {
        self.find(row.measure, M::REFERENCE)
    }

    fn row(&mut self, measure: M, program: &str) -> &mut Row<M> {
        let known = self.0.iter().position(|row| row.measure == measure && row.program == program);
        let index = known.unwrap_or(self.0.len());
        if known.is_none() {
            let (runs, counts) = (Vec::new(), Figures::new());
            self.0.push(Row { measure, program: program.to_owned(), runs, counts });
        }
        &mut self.0[index]
    }
}

impl<M: Measurement> Row<M> {
    /// Middle and spread of one number over the repetitions.
    pub(crate) fn field(&self, name: &str) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.get(name)?.as_f64()).collect())
    }

    /// The number that counts.
    pub(crate) fn main(&self) -> Option<Spread> {
        self.field(self.measure.main().0)
    }

    /// Ratio of the medians of the number that counts, and whether the difference counts.
    pub(crate) fn ratio(&self, reference: Option<&Self>) -> Option<(f64, bool)> {
        let (own, other) = (self.main()?, reference?.main()?);
        Some((own.median / other.median, own.differs(other)))
    }

    /// All numbers, and what each repetition gave.
    pub(crate) fn json(&self, reference: Option<&Self>) -> Value {
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
            fields.insert(format!("ratio_to_{}", M::REFERENCE), ratio.into());
            fields.insert("differs".into(), differs.into());
        }
        fields.insert("runs".into(), self.runs.iter().cloned().map(Value::Object).collect());
        Value::Object(fields)
    }
}
