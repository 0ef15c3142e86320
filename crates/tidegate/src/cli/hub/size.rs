//! `tidegate hub size`: how many slots a ring needs (22.2).

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::session::parse_duration;
use crate::cli::text;
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
A ring absorbs differences over time; it cannot repair a lasting one.

Example:
  tidegate hub size --rate 10000/s --drain 100/s --burst 1s")]
pub(crate) struct Size {
    /// Slots written per second during a burst
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: f64,
    /// Slots that consumers take per second
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    drain: f64,
    /// How long a burst, or a pause of a consumer, lasts
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    burst: Duration,
    /// Factor to be on the safe side
    #[arg(long, value_name = "F", default_value = "1.5", value_parser = parse_factor)]
    safety: f64,
    /// Bytes of a slot
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    slot: u64,
}

impl Size {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let backlog = ((self.rate - self.drain).max(0.0) * self.burst.as_secs_f64()).ceil();
        let safe = (backlog * self.safety).ceil();
        if safe > f64::from(tidegate::hub::layout::MAX_SLOTS) {
            let most = tidegate::hub::layout::MAX_SLOTS;
            return Err(Stop::usage(format!(
                "that takes {safe} slots, a ring has at most {most}; shorten the burst"
            )));
        }
        let (backlog, safe) = (backlog as u64, safe as u64);
        let slots = safe.max(2).next_power_of_two();
        let stride = self.slot.next_multiple_of(64);
        // Record and digest of each slot, and the pages that every block has.
        let memory = slots.saturating_mul(stride.saturating_add(128)).saturating_add(FIXED);
        output.result(
            || {
                let memory_line = format!("memory at {} B per slot:", self.slot);
                format!(
                    "backlog at end of burst:   {backlog} slots\n\
                     with safety factor {}:    {safe} slots\n\
                     rounded to power of two:   {slots} slots\n\
                     {memory_line:<26} {} (with digests)\n\
                     warning: mean rate must stay below {}/s or any ring fills",
                    self.safety,
                    text::bytes(memory),
                    self.drain,
                )
            },
            || {
                json!({
                    "backlog_slots": backlog.to_string(),
                    "safe_slots": safe.to_string(),
                    "slots": slots.to_string(),
                    "memory_bytes": memory.to_string(),
                })
            },
        )
    }
}

/// `10000/s`, or a plain number.
fn parse_rate(text: &str) -> Result<f64, String> {
    let bad = || format!("'{text}' is not a rate; write 1000/s");
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0).ok_or_else(bad)
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let bad = || format!("'{text}' is not a factor of 1 or more");
    text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor >= 1.0).ok_or_else(bad)
}

/// Pages of every block but for slots and what there is per slot.
const FIXED: u64 = 40 << 10;
