//! The counters of the metrics page (17.1), each under the name it has in the sheet.

use std::mem::offset_of;

use serde::Serialize;
use tidegate_shm::{
    region::{Record, RecordMut, Row, RowMut},
    sync::Ordering,
};

use super::{as_text, histogram::Latency};
use crate::{block::PAGE_RECORD, layout::pages::MetricsPage};

/// Defines the counters; `keep` marks what a reset leaves alone (DH-246).
macro_rules! counters {
    ($($field:ident: $word:ident $action:ident,)*) => {
        /// A copy of all counters. Fields have the names and meanings of 17.1.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        #[allow(missing_docs, reason = "named as in the table of the sheet")]
        pub struct Counters {
            $(#[serde(serialize_with = "as_text")] pub $field: u64,)*
        }

        impl Counters {
            /// Loads each counter once.
            pub fn load(page: &Record<PAGE_RECORD>) -> Self {
                let row = page.row();
                // Relaxed, each: counters order nothing.
                Self {
                    $($field: u64::from(row.$word::<{ offset_of!(MetricsPage, $field) }>().load(Ordering::Relaxed)),)*
                }
            }

            /// Every counter with its name, in the order of the page.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }

        fn reset_counters(row: RowMut<'_, PAGE_RECORD>) {
            $(counters!(@$action row, $word, $field);)*
        }
    };
    (@reset $row:ident, $word:ident, $field:ident) => {
        // Relaxed: a swap loses no increment, and counters order nothing.
        $row.$word::<{ offset_of!(MetricsPage, $field) }>().swap(0, Ordering::Relaxed);
    };
    (@keep $row:ident, $word:ident, $field:ident) => {};
}

counters! {
    writer_timeout_count: u64 reset,
    writer_blocked_total_ns: u64 reset,
    write_lock_contention: u64 reset,
    write_generation_wraps: u64 reset,
    reader_not_ready_count: u64 reset,
    reader_race_detected: u64 reset,
    reader_validation_failed: u64 reset,
    reader_peak_count: u64 reset,
    last_error_timestamp_ns: u64 keep,
    last_error_code: u32 keep,
    error_sequence: u32 keep,
    slot_acquire_errors: u64 reset,
    slot_commit_errors: u64 reset,
    checksum_failures: u64 reset,
    zmq_send_failures: u64 reset,
    zmq_recv_failures: u64 reset,
    zmq_timeout_count: u64 reset,
    state_transition_errors: u64 reset,
    schema_mismatch_count: u64 reset,
    attach_rejections: u64 reset,
    lock_errors: u64 reset,
    heartbeat_sent_count: u64 reset,
    heartbeat_failed_count: u64 reset,
    last_heartbeat_ns: u64 keep,
    heartbeat_stale_seen: u64 reset,
    total_slots_written: u64 reset,
    total_slots_read_retired: u64 reset,
    total_bytes_written: u64 reset,
    uptime_seconds: u64 keep,
    total_bytes_read_retired: u64 reset,
    creation_timestamp_ns: u64 keep,
    last_write_ns: u64 keep,
    last_read_ns: u64 keep,
    writes_attempted: u64 reset,
    writer_full_timeout_count: u64 reset,
    writer_drain_timeout_count: u64 reset,
    slots_aborted: u64 reset,
    slots_skipped_held: u64 reset,
    slots_dropped_oldest: u64 reset,
    slots_unobserved: u64 reset,
    batch_writes: u64 reset,
    drain_waits: u64 reset,
    wakeups_sent: u64 reset,
    floor_scans: u64 reset,
    notifications_sent: u64 reset,
    writer_refused_count: u64 reset,
    reads_attempted_retired: u64 reset,
    reader_timeout_count: u64 reset,
    reader_lapped_slots: u64 reset,
    consumers_joined: u64 reset,
    consumers_left: u64 reset,
    consumers_evicted: u64 reset,
    dead_consumers_reaped: u64 reset,
    peak_consumer_count: u64 reset,
    lock_takeovers: u64 reset,
    maintenance_lock_waits: u64 reset,
    digests_computed: u64 reset,
    digests_verified: u64 reset,
    recovery_actions: u64 reset,
    last_recovery_timestamp_ns: u64 keep,
    forced_actions: u64 reset,
    writer_adoptions: u64 reset,
    writer_seizures: u64 reset,
}

impl Latency {
    /// Loads the sampled latencies of writes.
    pub fn load_write(page: &Record<PAGE_RECORD>) -> Self {
        let row = page.row();
        Self::from_parts(
            &bucket_bytes::<{ offset_of!(MetricsPage, write_latency) }>(&row),
            word::<{ offset_of!(MetricsPage, write_lat_count) }>(&row),
            word::<{ offset_of!(MetricsPage, write_lat_sum_ns) }>(&row),
            word::<{ offset_of!(MetricsPage, write_lat_max_ns) }>(&row),
        )
    }

    /// Loads the sampled latencies of reads.
    pub fn load_read(page: &Record<PAGE_RECORD>) -> Self {
        let row = page.row();
        Self::from_parts(
            &bucket_bytes::<{ offset_of!(MetricsPage, read_latency) }>(&row),
            word::<{ offset_of!(MetricsPage, read_lat_count) }>(&row),
            word::<{ offset_of!(MetricsPage, read_lat_sum_ns) }>(&row),
            word::<{ offset_of!(MetricsPage, read_lat_max_ns) }>(&row),
        )
    }
}

/// Sets counters and histograms to 0, except for what DH-246 keeps: the error sequence, times, and what other pages hold.
pub fn reset_metrics(page: &RecordMut<PAGE_RECORD>) {
    let row = page.row();
    reset_counters(row);
    zero::<{ offset_of!(MetricsPage, write_latency) }>(row);
    zero::<{ offset_of!(MetricsPage, read_latency) }>(row);
    // Relaxed, each: as for the counters.
    row.u64::<{ offset_of!(MetricsPage, write_lat_count) }>().swap(0, Ordering::Relaxed);
    row.u64::<{ offset_of!(MetricsPage, write_lat_sum_ns) }>().swap(0, Ordering::Relaxed);
    row.u64::<{ offset_of!(MetricsPage, write_lat_max_ns) }>().swap(0, Ordering::Relaxed);
    row.u64::<{ offset_of!(MetricsPage, read_lat_count) }>().swap(0, Ordering::Relaxed);
    row.u64::<{ offset_of!(MetricsPage, read_lat_sum_ns) }>().swap(0, Ordering::Relaxed);
    row.u64::<{ offset_of!(MetricsPage, read_lat_max_ns) }>().swap(0, Ordering::Relaxed);
}

const BUCKET_BYTES: usize = size_of::<u64>() * super::histogram::BUCKETS;

fn word<const AT: usize>(row: &Row<'_, PAGE_RECORD>) -> u64 {
    // Relaxed: counters order nothing.
    row.u64::<AT>().load(Ordering::Relaxed)
}

/// The buckets of a histogram. The copy is by whole words, so no bucket is torn.
fn bucket_bytes<const AT: usize>(row: &Row<'_, PAGE_RECORD>) -> [u8; BUCKET_BYTES] {
    let mut bytes = [0; BUCKET_BYTES];
    // The span has exactly these bytes.
    let _ = row.bytes::<AT, BUCKET_BYTES>().copy_to(&mut bytes);
    bytes
}

fn zero<const AT: usize>(row: RowMut<'_, PAGE_RECORD>) {
    // The span has exactly these bytes.
    let _ = row.bytes::<AT, BUCKET_BYTES>().copy_from(&[0; BUCKET_BYTES]);
}
