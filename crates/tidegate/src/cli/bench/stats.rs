//! Middle and spread of repeated measurements, and what they allow to say (MQ-504, MQ-506).

use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) q1: f64,
    pub(crate) median: f64,
    pub(crate) q3: f64,
}

impl Spread {
    /// Of any number of values but none; quartiles lie between them where they must.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len().checked_sub(1)? as f64);
            let (below, above) = (values.get(place.floor() as usize)?, values.get(place.ceil() as usize)?);
            Some(below + (above - below) * place.fract())
        };
        Some(Self { q1: at(0.25)?, median: at(0.5)?, q3: at(0.75)? })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let field = |name: &str| value[name].as_f64();
        Some(Self { q1: field("q1")?, median: field("median")?, q3: field("q3")? })
    }

    pub(crate) fn json(self) -> Value {
        json!({ "median": self.median, "q1": self.q1, "q3": self.q3 })
    }

    /// Inter-quartile range.
    fn range(self) -> f64 {
        self.q3 - self.q1
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        Self { q1: self.q1 * factor, median: self.median * factor, q3: self.q3 * factor }
    }

    /// Whether the difference of the medians exceeds both ranges.
    pub(crate) fn differs(self, other: Self) -> bool {
        (self.median - other.median).abs() > self.range().max(other.range())
    }

    /// Whether this is at least, or with `more` false at most, `bound`; `None` when it is not, but by no difference that
    /// counts.
    pub(crate) fn keeps(self, bound: Self, more: bool) -> Option<bool> {
        let kept = if more { self.median >= bound.median } else { self.median <= bound.median };
        if kept { Some(true) } else { self.differs(bound).then_some(false) }
    }

    /// Share by which this is worse than `before`, if that is more than `tolerance` and a difference that counts.
    pub(crate) fn regression(self, before: Self, more: bool, tolerance: f64) -> Option<f64> {
        let lost = if more { before.median - self.median } else { self.median - before.median };
        let worse = lost / before.median;
        (worse > tolerance && self.differs(before)).then_some(worse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values.to_vec()).expect("values")
    }

    /// Rules: MQ-504.
    #[test]
    fn quartiles_lie_between_the_values() {
        assert_eq!(spread(&[5.0, 1.0, 4.0, 2.0, 3.0]), Spread { q1: 2.0, median: 3.0, q3: 4.0 });
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Spread { q1: 1.75, median: 2.5, q3: 3.25 });
        assert_eq!(spread(&[7.0]), Spread { q1: 7.0, median: 7.0, q3: 7.0 });
        assert_eq!(Spread::of(Vec::new()), None);
        let there = spread(&[1.0, 2.0, 4.0]);
        assert_eq!(Spread::from_json(&there.json()), Some(there));
    }

    /// Rules: MQ-504.
    #[test]
    fn a_difference_counts_beyond_both_ranges() {
        let [narrow, wide] = [spread(&[99.0, 100.0, 101.0]), spread(&[90.0, 110.0, 130.0])];
        assert!(!narrow.differs(wide) && !wide.differs(narrow));
        let far = spread(&[101.0, 121.0, 141.0]);
        assert!(narrow.differs(far) && far.differs(narrow) && !wide.differs(far));
    }

    /// Rules: MQ-504.
    #[test]
    fn a_bound_is_kept_missed_or_unclear() {
        let bound = spread(&[98.0, 100.0, 102.0]);
        let keeps = |middle: f64, more| spread(&[middle - 2.0, middle, middle + 2.0]).keeps(bound, more);
        assert_eq!(
            [keeps(100.0, true), keeps(99.0, true), keeps(90.0, true)],
            [Some(true), None, Some(false)]
        );
        assert_eq!(
            [keeps(100.0, false), keeps(101.0, false), keeps(110.0, false)],
            [Some(true), None, Some(false)]
        );
    }

    /// Rules: MQ-506.
    #[test]
    fn more_than_five_per_cent_worse_beyond_both_ranges_is_a_regression() {
        let before = spread(&[99.0, 100.0, 101.0]);
        let now = |middle: f64, half: f64| spread(&[middle - half, middle, middle + half]);
        assert_eq!(now(94.0, 1.0).regression(before, true, 0.05), Some(0.06));
        assert_eq!(now(106.0, 1.0).regression(before, false, 0.05), Some(0.06));
        // Better, or not by that much, or not for sure.
        assert_eq!(now(94.0, 1.0).regression(before, false, 0.05), None);
        assert_eq!(now(95.5, 1.0).regression(before, true, 0.05), None);
        assert_eq!(now(94.0, 7.0).regression(before, true, 0.05), None);
        assert_eq!(now(94.0, 1.0).regression(spread(&[90.0, 100.0, 110.0]), true, 0.05), None);
    }
}
