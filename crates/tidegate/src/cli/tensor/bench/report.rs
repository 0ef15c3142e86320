//! From outcomes to tables and ratios.
//!
//! A ratio is taken within each round, where both of its sides were measured within a second of each other, and the median
//! over the rounds is what counts; the smallest and largest show how noisy the machine was.

use serde_json::{Value, json};

use super::protocol::{Distribution, Kind, Measure, Outcome};
use crate::output::{Output, Stop};

/// Copies shorter than this are over before the clock is read.
const SHORTEST_RATED: usize = 4096;

/// All rounds of all measures, in order of measuring.
#[derive(Debug, Default)]
pub(super) struct Results {
    rows: Vec<(Measure, Vec<Outcome>)>,
}

/// A relation of two measures.
#[derive(Debug, PartialEq)]
struct Ratio {
    name: &'static str,
    /// For people.
    text: String,
    bytes: usize,
    aim: Option<Aim>,
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Aim {
    AtLeast(f64),
    AtMost(f64),
    Within(f64, f64),
}

impl Results {
    /// Adds one round.
    pub(super) fn add(&mut self, measure: Measure, outcome: Outcome) {
        match self.rows.iter_mut().find(|(known, _)| *known == measure) {
            Some((_, rounds)) => rounds.push(outcome),
            None => self.rows.push((measure, vec![outcome])),
        }
    }

    /// Prints everything.
    pub(super) fn print(&self, output: &mut Output) -> Result<(), Stop> {
        let latency = |kind| matches!(kind, Kind::CacheLine | Kind::AeronIpc | Kind::Copy | Kind::Claim);
        head(output, "one way: half a round trip", "p50", "p99", "p99.9")?;
        for (measure, rounds) in self.rows.iter().filter(|(measure, _)| latency(measure.kind)) {
            latency_row(*measure, rounds, output)?;
        }
        head(output, "\none operation", "p50", "p99", "GB/s at p50")?;
        for (measure, rounds) in self.rows.iter().filter(|(measure, _)| !latency(measure.kind)) {
            rate_row(*measure, rounds, output)?;
        }
        self.print_ratios(output)
    }

    fn print_ratios(&self, output: &mut Output) -> Result<(), Stop> {
        let ratios = self.ratios();
        output.result(
            || {
                let lines = ratios.iter().map(Ratio::line);
                format!("\nratios: median of the rounds (smallest to largest)\n{}", lines.collect::<String>())
            },
            || json!({ "summary": true, "ratios": ratios.iter().map(Ratio::json).collect::<Vec<_>>() }),
        )
    }

    fn ratios(&self) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        let sizes = |kind: Kind| {
            let of_kind = self.rows.iter().filter(move |(measure, _)| measure.kind == kind);
            of_kind.map(|(measure, _)| measure.bytes)
        };
        for bytes in sizes(Kind::Publish).filter(|&bytes| bytes >= SHORTEST_RATED) {
            // Rates are the inverse of times.
            let text = format!("publish of {} against memcpy", size(bytes));
            let aim = Some(Aim::AtLeast(0.8));
            let sides = (Kind::Memcpy, bytes, Kind::Publish, bytes);
            ratios.extend(self.ratio("publish_to_memcpy", text, aim, sides));
        }
        for bytes in sizes(Kind::AeronIpc) {
            let text = format!("latency of {} against bare Aeron IPC", size(bytes));
            let sides = (Kind::Copy, bytes, Kind::AeronIpc, bytes);
            ratios.extend(self.ratio("latency_to_aeron", text, Some(Aim::AtMost(2.0)), sides));
            let text = format!("latency of {} against a cache line", size(bytes));
            let line = sizes(Kind::CacheLine).next().unwrap_or(0);
            ratios.extend(self.ratio(
                "latency_to_cache_line",
                text,
                None,
                (Kind::Copy, bytes, Kind::CacheLine, line),
            ));
        }
        if let (Some(small), Some(large)) = (sizes(Kind::Claim).min(), sizes(Kind::Claim).max())
            && small < large
        {
            let text = format!("claim and commit of {} against {}", size(large), size(small));
            let aim = Some(Aim::Within(0.8, 1.2));
            ratios.extend(self.ratio(
                "claim_large_to_small",
                text,
                aim,
                (Kind::Claim, large, Kind::Claim, small),
            ));
        }
        ratios
    }

    /// First side divided by second, by the medians of each round.
    fn ratio(
        &self,
        name: &'static str,
        text: String,
        aim: Option<Aim>,
        (kind, bytes, other_kind, other_bytes): (Kind, usize, Kind, usize),
    ) -> Option<Ratio> {
        let rounds = |kind, bytes| {
            let wanted = Measure { kind, bytes };
            self.rows.iter().find(|(measure, _)| *measure == wanted).map(|(_, rounds)| rounds)
        };
        let pairs = rounds(kind, bytes)?.iter().zip(rounds(other_kind, other_bytes)?);
        let mut values: Vec<f64> =
            pairs.map(|(a, b)| a.round.p50 / b.round.p50.max(f64::MIN_POSITIVE)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = match values.get(middle.wrapping_sub(1)) {
            Some(lower) if values.len().is_multiple_of(2) => f64::midpoint(*lower, upper),
            _ => upper,
        };
        Some(Ratio { name, text, bytes, aim, median, min, max })
    }
}

impl Ratio {
    fn line(&self) -> String {
        let aim = self.aim.map_or(String::new(), |aim| {
            let (text, met) = match aim {
                Aim::AtLeast(least) => (format!("at least {least}"), self.median >= least),
                Aim::AtMost(most) => (format!("at most {most}"), self.median <= most),
                Aim::Within(least, most) => {
                    (format!("{least} to {most}"), (least..=most).contains(&self.median))
                }
            };
            format!("   aim: {text}, {}", if met { "met" } else { "missed" })
        });
        format!("  {:<48} {:6.2}  ({:.2} to {:.2}){aim}\n", self.text, self.median, self.min, self.max)
    }

    fn json(&self) -> Value {
        let (least, most) = match self.aim {
            None => (None, None),
            Some(Aim::AtLeast(least)) => (Some(least), None),
            Some(Aim::AtMost(most)) => (None, Some(most)),
            Some(Aim::Within(least, most)) => (Some(least), Some(most)),
        };
        let met =
            least.is_none_or(|least| self.median >= least) && most.is_none_or(|most| self.median <= most);
        json!({
            "ratio": self.name,
            "bytes": self.bytes,
            "median": self.median,
            "min": self.min,
            "max": self.max,
            "aim_at_least": least,
            "aim_at_most": most,
            "met": self.aim.is_some().then_some(met),
        })
    }
}

fn head(output: &mut Output, title: &str, a: &str, b: &str, c: &str) -> Result<(), Stop> {
    if output.json() {
        return Ok(());
    }
    let lead = if title.starts_with('\n') { "\n" } else { "" };
    let title = title.trim_start();
    output.result(|| format!("{lead}{title:<38} {a:>12} {b:>12} {c:>12}   samples"), || Value::Null)
}

fn latency_row(measure: Measure, rounds: &[Outcome], output: &mut Output) -> Result<(), Stop> {
    let Some(all) = rounds.last().map(|last| last.all.divided(2.0)) else { return Ok(()) };
    let Distribution { samples, p50, p99, p999, .. } = all;
    output.result(
        || {
            format!(
                "  {:<36} {:>12} {:>12} {:>12}   {samples}",
                title(measure),
                time(p50),
                time(p99),
                time(p999)
            )
        },
        || {
            json!({
                "measure": measure.kind,
                "bytes": measure.bytes,
                "rounds": rounds.len(),
                "samples": samples,
                "one_way_ns": times(all),
            })
        },
    )
}

fn rate_row(measure: Measure, rounds: &[Outcome], output: &mut Output) -> Result<(), Stop> {
    let Some(all) = rounds.last().map(|last| last.all) else { return Ok(()) };
    let mut rates: Vec<f64> = rounds.iter().map(|round| round.frames_per_second).collect();
    rates.sort_unstable_by(f64::total_cmp);
    let frames = rates.get(rates.len() / 2).copied().unwrap_or(0.0);
    let gigabytes = measure.bytes as f64 / all.p50.max(f64::MIN_POSITIVE);
    output.result(
        || {
            let Distribution { samples, p50, p99, .. } = all;
            let name = title(measure);
            match measure.kind {
                Kind::Stream => {
                    let through = measure.bytes as f64 * frames / 1e9;
                    format!("  {name:<36} {frames:>12.0} frames/s {through:>12.2} GB/s   {samples}")
                }
                _ => {
                    format!("  {name:<36} {:>12} {:>12} {gigabytes:>12.2}   {samples}", time(p50), time(p99))
                }
            }
        },
        || {
            let frames = (measure.kind == Kind::Stream).then_some(frames);
            json!({
                "measure": measure.kind,
                "bytes": measure.bytes,
                "rounds": rounds.len(),
                "samples": all.samples,
                "operation_ns": times(all),
                "frames_per_s": frames,
                "bytes_per_s": frames.map_or(gigabytes * 1e9, |frames| frames * measure.bytes as f64),
            })
        },
    )
}

fn times(all: Distribution) -> Value {
    json!({ "min": all.min, "p50": all.p50, "p99": all.p99, "p999": all.p999, "max": all.max })
}

fn title(measure: Measure) -> String {
    let text = match measure.kind {
        Kind::CacheLine => return "a cache line".to_owned(),
        Kind::AeronIpc => "bare Aeron IPC",
        Kind::Copy => "frames, copied in and out",
        Kind::Claim => "frames, claimed, in place",
        Kind::Memcpy => "memcpy",
        Kind::Publish => "publish by copy",
        Kind::Stream => "stream, copied in and out",
    };
    format!("{text}, {}", size(measure.bytes))
}

fn size(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

fn time(nanos: f64) -> String {
    match nanos {
        _ if nanos < 1e3 => format!("{nanos:.0} ns"),
        _ if nanos < 1e6 => format!("{:.2} us", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(p50: f64) -> Outcome {
        let round = Distribution { samples: 1, p50, ..Distribution::default() };
        Outcome { round, all: round, frames_per_second: 0.0 }
    }

    fn results(rows: &[(Kind, usize, [f64; 3])]) -> Results {
        let mut results = Results::default();
        for (kind, bytes, medians) in rows {
            for &p50 in medians {
                results.add(Measure { kind: *kind, bytes: *bytes }, round(p50));
            }
        }
        results
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // One round ran on a machine half as fast; the ratio does not see it.
        let results = results(&[
            (Kind::Memcpy, 8192, [90.0, 180.0, 95.0]),
            (Kind::Publish, 8192, [100.0, 200.0, 100.0]),
        ]);
        let ratios = results.ratios();
        let [ratio] = &ratios[..] else { panic!("{ratios:?}") };
        assert_eq!((ratio.median, ratio.min, ratio.max), (0.9, 0.9, 0.95));
        assert_eq!(ratio.json()["met"], true);
    }

    #[test]
    fn aims_can_be_missed_on_either_side() {
        let claim = |large| {
            let results = results(&[(Kind::Claim, 64, [100.0; 3]), (Kind::Claim, 8 << 20, [large; 3])]);
            results.ratios()[0].json()["met"] == true
        };
        assert!(claim(119.0) && claim(81.0) && !claim(121.0) && !claim(79.0));
        let aeron = |ours| {
            let results = results(&[(Kind::AeronIpc, 64, [100.0; 3]), (Kind::Copy, 64, [ours; 3])]);
            results.ratios()[0].json()["met"] == true
        };
        assert!(aeron(200.0) && !aeron(201.0));
    }
}
