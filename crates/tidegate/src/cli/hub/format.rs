//! Numbers and times of blocks as people read them.

use std::time::Duration;

use tidegate::hub::identity::Liveness;
use tidegate::hub::inspect::Owner;

/// With a comma between each three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A latency: `620 ns`, `1.1 us`, `3.0 ms`, or a dash.
pub(crate) fn latency(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    match time.as_nanos() {
        ns @ 0..1_000 => format!("{ns} ns"),
        ns @ 1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        ns @ 1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        ns => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// An age: `46 s`, `26 h`, or a dash where it cannot be told.
pub(crate) fn age(age: Option<Duration>) -> String {
    let Some(age) = age else { return "-".to_owned() };
    match age.as_secs() {
        seconds @ 0..600 => format!("{seconds} s"),
        seconds @ 600..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// How long something runs: `1d 02h 30m`.
pub(crate) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) if minutes == 0 => format!("{seconds}s"),
        (0, 0) => format!("{minutes}m"),
        (0, _) => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h {minutes:02}m"),
    }
}

/// The word for what is known about a process.
pub(crate) fn liveness(liveness: Liveness) -> &'static str {
    tidegate::hub::inspect::owner::liveness_word(liveness)
}

/// `pid 12345 DEAD`, or `none`.
pub(crate) fn owner(owner: Option<Owner>) -> String {
    match owner {
        Some(owner) => format!("pid {} {}", owner.key.pid(), liveness(owner.liveness)),
        None => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times() {
        let numbers = [0, 999, 1_000, 1_234_567, u64::MAX].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
        let latencies =
            [620, 1_149, 3_000_000, 2_000_000_000].map(|ns| latency(Some(Duration::from_nanos(ns))));
        assert_eq!(latencies, ["620 ns", "1.1 us", "3.0 ms", "2.0 s"]);
        let ages = [0, 46, 599, 600, 93_600].map(|seconds| age(Some(Duration::from_secs(seconds))));
        assert_eq!(ages, ["0 s", "46 s", "599 s", "10 min", "26 h"]);
        assert_eq!([5, 120, 3_720, 95_400].map(uptime), ["5s", "2m", "1h 02m", "1d 02h 30m"]);
        assert_eq!((age(None), latency(None)), ("-".to_owned(), "-".to_owned()));
    }
}
