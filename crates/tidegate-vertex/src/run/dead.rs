//! Dead letters: inputs that cannot be processed, with what happened to them, as outputs of their epoch (9.4).

use tidegate_shm::clock::realtime_now;
use tidegate_udf::wire::ids::EpochId;

use crate::{
    batch::{Input, Record},
    config::Pipeline,
    flow::Death,
    sink::{Output, Session},
};

/// Where dead letters go and what they say about the vertex.
#[derive(Debug)]
pub(super) struct Letters {
    /// Index of the sink.
    pub(super) sink: usize,
    pipeline: String,
    source: &'static str,
}

impl Letters {
    /// `None` without a sink for them.
    pub(super) fn of(pipeline: &Pipeline) -> Option<Self> {
        let sink = pipeline.dead_letters()?;
        Some(Self { sink, pipeline: pipeline.pipeline.name.clone(), source: pipeline.source.kind() })
    }

    /// The letter of an input that cannot be processed.
    pub(super) fn of_input(&self, input: &Input, death: &Death, session: &Session, epoch: EpochId) -> Output {
        let record = self.record(&input.record, input.position.0, death, session, epoch);
        Output { position: input.position, number: 0, record }
    }

    /// The letter of an output that sink number `sink` refuses.
    pub(super) fn of_output(
        &self,
        output: &Output,
        sink: usize,
        reason: String,
        session: &Session,
        epoch: EpochId,
    ) -> Output {
        let death = Death { class: "SINK_REJECTED", reason, attempts: 1 };
        let record = self.record(&output.record, output.position.0, &death, session, epoch);
        // Different from that of the input, and of what other sinks refuse.
        let number = (sink as u32 + 1) << 16 | output.number & 0xFFFF;
        Output { position: output.position, number, record }
    }

    fn record(
        &self,
        record: &Record,
        position: u64,
        death: &Death,
        session: &Session,
        epoch: EpochId,
    ) -> Record {
        let mut headers = record.headers.to_vec();
        let reason = death.reason.as_bytes();
        let time = realtime_now().0 / 1_000_000;
        let numbers = [
            ("tg-attempts", u64::from(death.attempts)),
            ("tg-partition", session.partition.0.into()),
            ("tg-position", position),
            ("tg-generation", session.generation.0),
            ("tg-epoch", epoch.0),
            ("tg-time", time),
        ];
        add(&mut headers, "tg-error-class", death.class.as_bytes());
        add(&mut headers, "tg-error-message", reason.get(..MESSAGE).unwrap_or(reason));
        add(&mut headers, "tg-pipeline", self.pipeline.as_bytes());
        add(&mut headers, "tg-source", self.source.as_bytes());
        for (name, value) in numbers {
            add(&mut headers, name, value.to_string().as_bytes());
        }
        Record { headers: headers.into(), ..record.clone() }
    }
}

/// Adds a header as it is on the wire.
fn add(headers: &mut Vec<u8>, name: &str, value: &[u8]) {
    headers.extend_from_slice(&(name.len() as u16).to_le_bytes());
    headers.extend_from_slice(&(value.len() as u32).to_le_bytes());
    headers.extend_from_slice(name.as_bytes());
    headers.extend_from_slice(value);
}

/// Bytes of a message that are kept.
const MESSAGE: usize = 4096;

#[cfg(test)]
#[path = "dead_tests.rs"]
mod tests;
