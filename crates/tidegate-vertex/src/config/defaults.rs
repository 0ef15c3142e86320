//! What keys are that the pipeline file does not have.

use std::num::NonZeroU32;

use tidegate_shm::clock::Nanos;

use super::{
    BatchConfig, Checksum, EpochConfig, Limits, RetryConfig, TransportConfig,
    units::{Bytes, Factor, Share, Time},
};

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_records: number(500), max_bytes: Bytes(1 << 20), linger: Time(Nanos::from_millis(2)) }
    }
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            ring: Bytes(16 << 20),
            max_frame: None,
            max_in_flight: number(8),
            max_response: None,
            checksum: Checksum::Header,
            heartbeat: Time(Nanos::from_millis(200)),
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: number(5),
            crash_attempts: number(2),
            initial: Time(Nanos::from_millis(50)),
            factor: Factor(2.0),
            cap: Time(Nanos::from_secs(10)),
            jitter: Share(0.2),
            on_exhausted: None,
        }
    }
}

impl Default for EpochConfig {
    fn default() -> Self {
        Self {
            interval: Time(Nanos::from_millis(200)),
            max_records: number(10_000),
            max_bytes: Bytes(50 << 20),
            max_pending: number(3),
            rto: Time(Nanos::from_secs(60)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { epoch_buffers: Bytes(100 << 20), prefetch: Bytes(32 << 20) }
    }
}

fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
}

pub(super) fn batch_timeout() -> Time {
    Time(Nanos::from_secs(30))
}

pub(super) fn attach_timeout() -> Time {
    Time(Nanos::from_secs(10))
}

pub(super) fn restart_window() -> Time {
    Time(Nanos::from_secs(600))
}

pub(super) fn attach_retries() -> u32 {
    3
}
