//! Measuring this program beside others: what `tidegate mq bench` and `tidegate hub bench` have in common.
//!
//! The runner starts two processes of a program, which speak the protocol of [`peer`], and reads what they cost from the
//! kernel. For each measurement the programs take turns, and the turns are repeated: what the machine does meanwhile hits
//! all of them alike. A ratio is taken between medians, and counts only when the difference exceeds the ranges of both
//! (MQ-504).
//!
//! | module | |
//! |---|---|
//! | `program`, `processes` | who is measured; their processes |
//! | `turn`, `counts` | one measurement with one program |
//! | `options` | what every such command is told |
//! | `session` | the turns of a run |
//! | `results`, `stats` | all of them; medians and ranges |
//! | `verdict`, `baseline`, `report` | the minima; stored results; what is printed |
//! | `environment` | where it is measured |
//! | `peer`, `window` | what ends of a measurement have in common |

pub(crate) mod baseline;
pub(crate) mod counts;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod report;
pub(crate) mod results;
pub(crate) mod session;
pub(crate) mod stats;
pub(crate) mod turn;
pub(crate) mod verdict;
pub(crate) mod window;

use std::path::Path;

use serde_json::{Map, Value};

use self::verdict::Target;

/// What is measured, by the programs of one command.
pub(crate) trait Measurement: Copy + PartialEq + 'static {
    /// The program that every result is compared with.
    const REFERENCE: &'static str;
    /// Share by which a number may be worse than a stored one.
    const TOLERANCE: f64;
    /// The minima.
    const TARGETS: &'static [Target<Self>];

    /// Its name, without sizes.
    fn name(&self) -> &'static str;

    /// For people.
    fn title(&self) -> String;

    /// What tells it from others, in JSON.
    fn fields(&self) -> Map<String, Value>;

    /// The number that counts, and whether more of it is better.
    fn main(&self) -> (&'static str, bool);

    /// Payload.
    fn bytes(&self) -> usize;

    /// How many of what it is measured with: connections, consumers; else 1.
    fn count(&self) -> usize;

    /// Open files that one process needs.
    fn files(&self) -> usize {
        64
    }

    /// Who talks to whom.
    fn ends(&self) -> Ends;

    /// What the end that binds is to bind to; `place` is a directory for files.
    fn endpoint(&self, place: &Path) -> String;

    /// What it is counted in.
    fn unit(&self) -> Unit;

    /// What its peers are told besides sizes and times; `rate`: messages a second, for those that send at a rate.
    fn settings(&self, how: &str, rate: f64) -> Vec<String>;

    /// How many connections are made, where that is measured.
    fn connections(&self) -> Option<usize> {
        None
    }

    /// Whether allocations and system calls are counted for each message.
    fn is_counted(&self) -> bool {
        true
    }
}

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Roles of the end that binds and of the one that connects; the index of the one that measures.
    Two { roles: [&'static str; 2], measuring: usize },
    /// Both in one process.
    One { role: &'static str },
}

/// What a measurement needs a least number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Messages,
    Trips,
    /// No least number: the time counts.
    Time,
}

/// Tells people how far it is.
pub(crate) fn progress(line: &str) {
    use std::io::Write;
    // It can be missed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Bytes for people.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a number above 0".to_owned())
}

pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let unit = |letters: &[char], shift: u32| text.strip_suffix(letters).map(|number| (number, shift));
    let (number, shift) = unit(&['k', 'K'], 10).or_else(|| unit(&['m', 'M'], 20)).unwrap_or((text, 0));
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes <= 1 << 30 => Ok(bytes),
        _ => Err("a size is a number of bytes such as 64, 64k or 1m, up to 1024m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(["64", "4k", "1m"].map(parse_size), [Ok(64), Ok(4096), Ok(1 << 20)]);
        assert!(["", "k", "-1", "1025m", "1g"].iter().all(|text| parse_size(text).is_err()));
        assert!(positive("0").is_err());
        assert_eq!([64, 4096, 1 << 20, 1500].map(size), ["64 B", "4 KiB", "1 MiB", "1500 B"]);
    }
}
