//! Every key that has a default, for `tidegate vertex validate --explain` (VX-855).

/// A key of the pipeline file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name, with its tables.
    pub name: &'static str,
    /// Its default, as TOML has it; empty when there is none and nothing happens without the key.
    pub default: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default, meaning }
}

/// All of them.
pub const KEYS: &[Key] = &[
    key("batch.max_records", "500", "most records of a batch"),
    key("batch.max_bytes", "\"1MiB\"", "most bytes of a batch"),
    key(
        "batch.linger",
        "\"2ms\"",
        "how long a batch that is not full waits for more while its worker is busy",
    ),
    key("transport.ring", "\"16MiB\"", "bytes of each ring, a power of two"),
    key("transport.max_frame", "", "longest frame; a quarter of the ring"),
    key("transport.max_in_flight", "8", "batches on their way to a worker"),
    key("transport.max_response", "", "longest answer to a batch; four times batch.max_bytes, at least 1MiB"),
    key("transport.checksum", "\"header\"", "what is covered by checksums: header, or full with the payload"),
    key("transport.heartbeat", "\"200ms\"", "how often a worker says that it lives"),
    key("udf.workers", "1", "worker processes"),
    key(
        "udf.listen",
        "",
        "instead of udf.command: the socket at which workers attach that somebody else starts",
    ),
    key(
        "udf.allowed_uids",
        "[]",
        "with udf.listen: users whose workers may attach besides those of the vertex's own",
    ),
    key("udf.group", "", "with udf.listen: the group that may reach the socket; only the vertex's own user"),
    key(
        "udf.order",
        "\"partition\"",
        "order of outputs: partition, with one worker for each, or none, with all workers for all of them",
    ),
    key("udf.batch_timeout", "\"30s\"", "how long a batch may be the oldest of its worker"),
    key("udf.attach_timeout", "\"10s\"", "how long a worker may take to attach"),
    key(
        "udf.max_restarts",
        "0",
        "workers of a lane that may end within the window before the vertex gives up; 0: any number",
    ),
    key("udf.restart_window", "\"10m\"", "see udf.max_restarts"),
    key(
        "udf.attach_retries",
        "3",
        "workers of other schemas that may be refused in a row before the vertex ends with 77",
    ),
    key("udf.env", "{}", "environment of the workers"),
    key("udf.params", "{}", "what the function is given"),
    key("udf.retry.attempts", "5", "tries of an input on which the function fails"),
    key("udf.retry.crash_attempts", "2", "tries of an input on which the worker dies or hangs"),
    key("udf.retry.initial", "\"50ms\"", "delay before the second try"),
    key("udf.retry.factor", "2.0", "how much longer each delay is than the one before"),
    key("udf.retry.cap", "\"10s\"", "longest delay"),
    key("udf.retry.jitter", "0.2", "share of a delay by which it is spread to either side"),
    key("schema.in", "", "file with the schema of inputs, which the function has to take; untyped bytes"),
    key("schema.out", "", "file with the schema of outputs, which the function has to make; untyped bytes"),
    key("schema.strict", "true", "whether untyped bytes, on either side, do not fit a schema on the other"),
    key("epoch.interval", "\"200ms\"", "how often progress is made durable"),
    key(
        "epoch.rto",
        "\"60s\"",
        "how long the ledger may keep an epoch waiting before the vertex ends with 78",
    ),
    key("source.partitions", "1", "with kind jetstream in partition mode, or generator: partitions"),
    key(
        "source.start",
        "\"all\"",
        "with kind jetstream in partition mode: where to begin at first, all or new",
    ),
    key(
        "source.prefetch",
        "\"32MiB\"",
        "with kind jetstream in partition mode: bytes of each partition to read ahead",
    ),
    key(
        "source.on_gap",
        "\"stop\"",
        "with kind jetstream in partition mode, or hub: what is trimmed before it was read: stop stops its partition, skip counts it",
    ),
    key(
        "source.idle_cursor",
        "\"1m\"",
        "with kind jetstream in partition mode: how often the position moves behind what is there of other subjects",
    ),
    key(
        "source.ack_wait",
        "\"30s\"",
        "with kind jetstream in work-queue mode: when an unacknowledged record comes again",
    ),
    key(
        "source.max_ack_pending",
        "20000",
        "with kind jetstream in work-queue mode: records under way, at least transport.max_in_flight times batch.max_records",
    ),
    key(
        "ownership.kind",
        "\"static\"",
        "who decides which vertex has a partition: static (the ledger's lock), jetstream (a bucket)",
    ),
    key(
        "ownership.lease",
        "\"10s\"",
        "with kind jetstream: how long an owner may be silent, 500ms to 10m; it renews every third",
    ),
    key(
        "ownership.instance",
        "",
        "with kind jetstream: name of this vertex, different for each; the host's name and a number of the ledger's path",
    ),
    key(
        "ownership.partitions",
        "\"auto\"",
        "with kind jetstream: auto, or the partitions that this vertex may have, like 0-3,7",
    ),
    key(
        "ownership.on_stale",
        "\"fence\"",
        "with kind jetstream: what to do when a partition is lost: fence (wait for it) or exit",
    ),
    key(
        "ownership.rebalance_interval",
        "\"10s\"",
        "with kind jetstream: least time between two partitions that are handed over",
    ),
    key("limits.epoch_buffers", "\"100MiB\"", "room for answers that are not final"),
    key("limits.prefetch", "\"32MiB\"", "inputs that were read and are not final"),
    key("admin.socket", "", "the admin socket; one in the node's directory with the name of the pipeline"),
    key("admin.shutdown_grace", "\"20s\"", "time to finish what was read after the first SIGTERM"),
    key("metrics.listen", "", "address of /metrics, /livez and /readyz; nowhere"),
    key("log.format", "\"text\"", "lines of the log: text or json"),
    key("log.level", "", "least important lines: error, warn, info, debug, trace; as the command line says"),
];

/// Those of ends that are tensor streams.
#[cfg(feature = "tensor")]
pub const STREAM_KEYS: &[Key] = &[
    key("source.dir", "", "kind tensor: directory of the stream's node; as for all commands"),
    key("source.format", "\"value\"", "kind tensor: value, or output for frames of another vertex"),
    key("source.dtype", "", "kind tensor: what the elements have to be; anything"),
    key("source.shape", "", "kind tensor: what the shape has to be; anything"),
    key(
        "source.on_gap",
        "\"skip\"",
        "kind tensor: what lost frames do: skip counts them, stop ends the vertex",
    ),
    key("source.prefetch", "\"32MiB\"", "kind tensor: frames that are copied ahead of the function"),
    key("sink.dir", "", "kind tensor: directory of the stream's node; as for all commands"),
];

#[cfg(test)]
mod tests {
    use super::super::{Pipeline, edit};
    use super::*;

    const LEAST: &str = "version = 1
        [pipeline]
        name = \"a\"
        delivery = \"at_least_once\"
        [udf]
        command = [\"worker\"]
        [source]
        kind = \"generator\"
        records = 1
        [[sink]]
        name = \"main\"
        kind = \"blackhole\"";

    /// A file in which the key has a meaning.
    fn file_with(name: &str) -> String {
        let queue = ["source.ack_wait", "source.max_ack_pending"].contains(&name);
        let mode = match queue {
            true => "mode = \"work_queue\"\nconsumer = \"work\"",
            false => "mode = \"partition\"\nsubject = \"in.{partition}\"",
        };
        let source = format!("kind = \"jetstream\"\nurl = \"nats://a\"\nstream = \"IN\"\n{mode}");
        if name.starts_with("source.") {
            return LEAST.replace("kind = \"generator\"\n        records = 1", &source);
        }
        if name.starts_with("ownership.") && name != "ownership.kind" {
            let uid = LEAST.replace("name = \"a\"", "name = \"a\"\nuid = \"00000000000000aa\"");
            return format!(
                "{uid}\n[ledger]\npath = \"l\"\n[ownership]\nkind = \"jetstream\"\nurl = \"nats://a\""
            );
        }
        LEAST.to_owned()
    }

    /// Rules: VX-855.
    #[cfg(feature = "nats")]
    #[test]
    fn what_is_printed_as_default_is_the_default() {
        check(KEYS, file_with);
    }

    /// Rules: VX-855.
    #[cfg(feature = "tensor")]
    #[test]
    fn what_is_printed_as_default_of_streams_is_the_default() {
        let source = LEAST.replace("\"generator\"", "\"tensor\"").replace("records = 1", "stream = \"cam\"");
        check(STREAM_KEYS, |_| source.clone());
    }

    fn check(keys: &[Key], file: impl Fn(&str) -> String) {
        for Key { name, default, .. } in keys.iter().filter(|key| !key.default.is_empty()) {
            let text = file(name);
            let least: Pipeline = text.parse().expect(name);
            let mut file = text.parse().expect("TOML");
            edit::set(&mut file, &format!("{name}={default}")).expect(name);
            let set: Pipeline = file.to_string().parse().expect(name);
            assert_eq!(format!("{set:?}"), format!("{least:?}"), "{name}");
            let mut other = text.parse().expect("TOML");
            edit::set(&mut other, &format!("{name}=\"no value of it\"")).expect(name);
            assert!(other.to_string().parse::<Pipeline>().is_err(), "{name} is not a key");
        }
    }
}
