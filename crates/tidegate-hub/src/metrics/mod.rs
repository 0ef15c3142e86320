//! What a block says about itself in numbers (chapter 17 of the sheet): counters, latencies, and what follows from them.
//!
//! | module | gives |
//! |---|---|
//! | [`counters`] | every counter of the metrics page under its own name; resetting them |
//! | [`histogram`] | sampled latencies and their percentiles |
//! | [`snapshot`] | [`HubMetrics`]: counters together with the ring, the consumers and their health |
//! | [`rates`] | operations per second, computed by the observer |
//! | [`prometheus`] | all of it for one block or many in the format that Prometheus reads |
//!
//! Everything here only loads, except [`reset_metrics`]. Each word is loaded once, relaxed; the numbers together are no
//! atomic cut (DH-245), so whatever is computed from two of them saturates.

pub mod counters;
pub mod histogram;
pub mod prometheus;
pub mod rates;
pub mod snapshot;

mod number;

pub use counters::{Counters, reset_metrics};
pub use histogram::{Histogram, Latency};
pub use rates::{RateWindow, Rates};
pub use snapshot::HubMetrics;

pub(crate) use number::{as_text, option_as_text};
