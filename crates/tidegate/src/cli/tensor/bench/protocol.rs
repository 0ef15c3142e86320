//! What the processes of a measurement say to each other: one JSON object per line, orders on standard input, answers on
//! standard output. A worker ends when its standard input does, so that none outlives its parent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a process of a measurement is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Role {
    /// Runs a private node.
    Node,
    /// Sends first and holds the stop watch.
    Ping,
    /// Answers, or reads.
    Pong,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Ping => "ping",
            Self::Pong => "pong",
        })
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Reference: two words in shared memory, one written by each side.
    CacheLine,
    /// Reference: an Aeron publication and subscription in each direction.
    AeronIpc,
    /// Round trip of frames; both sides copy every byte in and out.
    Copy,
    /// Round trip of frames that are claimed and committed, and looked at in place.
    Claim,
    /// Reference: copying between private buffers laid out as a ring of slots.
    Memcpy,
    /// One copying `offer`; the reader looks at each frame in place.
    Publish,
    /// Frames one way, every byte copied in, copied out and compared, as fast as the reader takes them.
    Stream,
}

/// One measured quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Measure {
    pub(super) kind: Kind,
    /// Payload bytes.
    pub(super) bytes: usize,
}

/// What a worker is told to do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Exchange frames until both directions work.
    Meet { run: u64 },
    /// Measure for so many milliseconds. `run` grows from order to order.
    Measure { run: u64, measure: Measure, millis: u64 },
    /// Wait for frames that do not come, as a reader does by default.
    Idle { millis: u64 },
}

/// What a worker answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Attached and waiting for orders; payloads have at most so many bytes.
    Ready(usize),
    /// The order was carried out.
    Done(Outcome),
    /// It was not.
    Failed(String),
}

/// What one order found out. Empty from the side that does not hold the stop watch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// This round.
    pub(super) round: Distribution,
    /// All rounds of this measure so far.
    pub(super) all: Distribution,
    /// Frames per second of this round, for [`Kind::Stream`].
    pub(super) frames_per_second: f64,
}

/// Times in nanoseconds; exact values out of all samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Distribution {
    pub(super) samples: u64,
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Distribution {
    /// Sorts `samples`. Each stands for `per` operations.
    pub(super) fn of(samples: &mut [u64], per: u32) -> Self {
        samples.sort_unstable();
        // The smallest sample that is not exceeded by the given part of all.
        let rank = |part: f64| {
            let index = (part * samples.len() as f64).ceil() as usize;
            samples.get(index.saturating_sub(1)).map_or(0.0, |&nanos| nanos as f64 / f64::from(per))
        };
        Self {
            samples: samples.len() as u64,
            min: rank(0.0),
            p50: rank(0.5),
            p99: rank(0.99),
            p999: rank(0.999),
            max: rank(1.0),
        }
    }

    /// The same with every time divided, as one way is half a round trip.
    pub(super) fn divided(self, by: f64) -> Self {
        Self {
            samples: self.samples,
            min: self.min / by,
            p50: self.p50 / by,
            p99: self.p99 / by,
            p999: self.p999 / by,
            max: self.max / by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples: Vec<u64> = (1..=1000).rev().collect();
        let distribution = Distribution::of(&mut samples, 1);
        let expected =
            Distribution { samples: 1000, min: 1.0, p50: 500.0, p99: 990.0, p999: 999.0, max: 1000.0 };
        assert_eq!(distribution, expected);
        assert_eq!(Distribution::of(&mut [7], 2), Distribution { samples: 1, ..all(3.5) });
        assert_eq!(Distribution::of(&mut [], 1), Distribution::default());
    }

    fn all(nanos: f64) -> Distribution {
        Distribution { samples: 0, min: nanos, p50: nanos, p99: nanos, p999: nanos, max: nanos }
    }
}
