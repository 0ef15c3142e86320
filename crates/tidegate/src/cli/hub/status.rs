//! `tidegate hub status` and `inspect`: a block on one page.

use std::os::unix::fs::PermissionsExt;

use clap::Args;
use serde_json::json;
use tidegate::hub::inspect::finding::taint_words;
use tidegate::hub::inspect::{Diagnosis, Inspector};
use tidegate::hub::layout::{DigestAlg, DigestPolicy, LAYOUT_MAJOR, PageMode};
use tidegate::hub::metrics::HubMetrics;

use super::block::{BlockArgs, problems};
use super::format::{age, grouped, latency, liveness, uptime};
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 3 when something is wrong.

Example:
  tidegate hub status --channel sensor_temperature")]
pub(crate) struct Status {
    #[command(flatten)]
    block: BlockArgs,
}

impl Status {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let block = self.block.open()?;
        let diagnosis = block.diagnose();
        output.result(
            || page(&block, &diagnosis),
            || {
                json!({
                    "block": diagnosis.block,
                    "writer": diagnosis.writer,
                    "indices": diagnosis.indices,
                    "summary": diagnosis.summary,
                    "consumers": diagnosis.consumers.len(),
                    "life": block.life(),
                    "findings": diagnosis.findings,
                    "healthy": diagnosis.healthy,
                })
            },
        )?;
        problems(!diagnosis.healthy)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 3 when something is wrong.

Example:
  tidegate hub inspect tidegate_sensor_temperature_9f3c21ab --json")]
pub(crate) struct Inspect {
    #[command(flatten)]
    block: BlockArgs,
}

impl Inspect {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let block = self.block.open()?;
        let diagnosis = block.diagnose();
        let metrics = block.metrics();
        output.result(
            || counters(&block, &diagnosis, &metrics),
            || json!({ "block": diagnosis.block, "metrics": metrics, "findings": diagnosis.findings, "healthy": diagnosis.healthy }),
        )?;
        problems(!diagnosis.healthy)
    }
}

fn page(block: &Inspector, diagnosis: &Diagnosis) -> String {
    let descriptor = block.descriptor();
    let spec = &descriptor.spec;
    let summary = &diagnosis.block;
    let taint = taint_words(summary.taint);
    let mode = std::fs::metadata(block.block().path()).map_or(0, |file| file.permissions().mode() & 0o7777);
    let dead = diagnosis.consumers.iter().filter(|consumer| consumer.is_dead()).count();
    let rows = [
        ("Block:", summary.name.clone()),
        ("Channel:", summary.channel.clone()),
        (
            "Layout:",
            format!(
                "{LAYOUT_MAJOR}.{}   state {}   taint {}   pages {}   mode {mode:04o}",
                descriptor.layout_minor,
                summary.state,
                if taint.is_empty() { "none".to_owned() } else { taint.join(", ") },
                pages(block),
            ),
        ),
        (
            "Policy:",
            format!(
                "{} x {}, {}, overflow {}, orphan {}",
                summary.policy, summary.slot_count, summary.sync, summary.overflow, summary.orphan
            ),
        ),
        (
            "Slot:",
            format!("{} B (stride {})   {}", spec.slot_size, descriptor.geometry.slot_stride, schema(block)),
        ),
        ("Digest:", digest(spec.digest_alg, spec.digest_policy)),
        ("Writer:", writer(diagnosis)),
        ("Indices:", indices(diagnosis)),
        ("Slots:", slots(diagnosis)),
        (
            "Consumers:",
            format!(
                "{} of {} ({} alive, {dead} dead)",
                diagnosis.consumers.len(),
                summary.max_consumers,
                diagnosis.consumers.len() - dead,
            ),
        ),
        ("Handover:", handover(summary.handover).to_owned()),
        ("Verdict:", diagnosis.verdict().replace(" (", ": ").replace(')', "")),
    ];
    rows.iter().map(|(name, value)| format!("{name:<14}{value}\n")).collect()
}

fn pages(block: &Inspector) -> String {
    let descriptor = block.descriptor();
    let kib = descriptor.page_size / 1024;
    let size = if kib >= 1024 { format!("{} MiB", kib / 1024) } else { format!("{kib} KiB") };
    match descriptor.page_mode {
        PageMode::Base | PageMode::Hugetlb => size,
        PageMode::TransparentHuge => format!("{size}, transparent huge"),
    }
}

fn schema(block: &Inspector) -> String {
    let info = &block.descriptor().spec.schema;
    if info.slot_hash == [0; 32] {
        return "untyped".to_owned();
    }
    let hash: String = info.slot_hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    // The name is for people, the hash is what counts.
    let name =
        info.text.lines().next().and_then(schema_name).map_or_else(String::new, |name| format!(" ({name})"));
    format!("schema {hash}… v{}.{}{name}", info.version.0, info.version.1)
}

/// The name in a canonical text, `tds1 Name size=...`.
fn schema_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("tds1 ")?.split(' ').next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

fn digest(alg: DigestAlg, policy: DigestPolicy) -> String {
    if alg == DigestAlg::None {
        "off".to_owned()
    } else {
        format!("{}, {policy}", format!("{alg}").to_lowercase())
    }
}

fn writer(diagnosis: &Diagnosis) -> String {
    let writer = &diagnosis.writer;
    if writer.key.is_none() {
        return format!("none (epoch {})", writer.epoch);
    }
    let beat = match writer.heartbeat_age {
        Some(_) => format!("last heartbeat {} ago", age(writer.heartbeat_age)),
        None => "no heartbeat yet".to_owned(),
    };
    format!("pid {} {} (epoch {}), {beat}", writer.pid, liveness(writer.liveness), writer.epoch)
}

fn indices(diagnosis: &Diagnosis) -> String {
    let indices = &diagnosis.indices;
    let count = u64::from(diagnosis.block.slot_count);
    let percent = indices.occupancy as f64 * 100.0 / count as f64;
    format!(
        "write {}   commit {}   floor {}   occupancy {}/{count} ({percent:.1} %)",
        indices.write, indices.commit, indices.floor, indices.occupancy
    )
}

fn slots(diagnosis: &Diagnosis) -> String {
    let words = ["COMMITTED", "WRITING", "DRAINING", "QUARANTINED", "FREE", "INVALID"];
    let counts =
        words.map(|word| (diagnosis.slots.iter().filter(|slot| slot.state.word() == word).count(), word));
    let present = counts.iter().filter(|(count, _)| *count > 0);
    present.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

fn handover(state: u32) -> &'static str {
    match state {
        0 => "none",
        1 => "prepared",
        2 => "cut over",
        3 => "done",
        4 => "cancelled",
        _ => "invalid",
    }
}

fn counters(block: &Inspector, diagnosis: &Diagnosis, metrics: &HubMetrics) -> String {
    let all = &metrics.counters;
    let error = match all.last_error_code {
        0 => "none".to_owned(),
        code => format!("{} ({code})", error_name(code)),
    };
    let messages =
        all.zmq_send_failures.saturating_add(all.zmq_recv_failures).saturating_add(all.zmq_timeout_count);
    let latencies = |of: &tidegate::hub::metrics::Latency| {
        format!("p50 {}   p99 {}", latency(of.percentile(0.5)), latency(of.percentile(0.99)))
    };
    let section = |name: &str, rows: &[(&str, String)]| {
        let rows: String = rows.iter().map(|(name, value)| format!("  {name:<18} {value}\n")).collect();
        format!("\n{name}:\n{rows}")
    };
    let mut text = format!("Block: {}\n", block.name());
    text += &section(
        "Performance",
        &[
            ("Slots written:", grouped(metrics.total_writes_committed)),
            ("Slots read:", grouped(metrics.total_reads_completed)),
            ("Bytes written:", grouped(metrics.total_bytes_written)),
            ("Uptime:", uptime(all.uptime_seconds)),
            ("Write latency:", latencies(&metrics.write_latency)),
            ("Read latency:", latencies(&metrics.read_latency)),
        ],
    );
    text += &section(
        "Errors",
        &[
            ("Last error:", error),
            ("Error sequence:", grouped(all.error_sequence)),
            ("Checksum failures:", grouped(all.checksum_failures)),
            ("ZMQ failures:", grouped(messages)),
        ],
    );
    text += &section(
        "Writer",
        &[
            (
                "Timeouts:",
                format!(
                    "{} (rate {:.4} %)",
                    grouped(all.writer_timeout_count),
                    100.0 * metrics.writer_timeout_rate()
                ),
            ),
            ("Blocked:", format!("{} ms", grouped(all.writer_blocked_total_ns / 1_000_000))),
            ("Contention:", grouped(all.write_lock_contention)),
        ],
    );
    text += &section(
        "Reader",
        &[
            ("Races resolved:", grouped(all.reader_race_detected)),
            ("Peak readers:", grouped(all.reader_peak_count)),
        ],
    );
    text + &format!("\nHealth: {}\n", diagnosis.verdict())
}

/// The name of an error that is recorded in a block (Annex B).
fn error_name(code: u64) -> &'static str {
    match code {
        201 => "SLOT_ACQUIRE_TIMEOUT",
        202 => "QUEUE_FULL",
        203 => "QUEUE_EMPTY",
        204 => "NOT_READY",
        205 => "LAPPED",
        206 => "LOCKED",
        207 => "FENCED",
        208 => "CLOSED",
        209 => "INVALID_STATE",
        210 => "BATCH_TOO_LARGE",
        211 => "WOULD_DEADLOCK",
        212 => "ID_SPACE_EXHAUSTED",
        213 => "LENGTH_MISMATCH",
        214 => "SLOT_READ_TIMEOUT",
        301 => "CHECKSUM_MISMATCH",
        302 => "CHECKSUM_MISSING",
        303 => "TAG_MISMATCH",
        305 => "TORN_ZONE",
        401 => "LOCK_TIMEOUT",
        402 => "NOT_OWNER",
        _ => "ERROR",
    }
}
