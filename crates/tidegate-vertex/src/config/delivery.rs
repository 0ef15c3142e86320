//! What is promised, and whether source and sinks can give it.

use serde::Deserialize;
use tidegate_shm::clock::Nanos;

use super::{ConfigError, Exhausted, FileMode, FileSink, Pipeline, Role, SinkConfig, SinkKind};
use crate::{
    sink::Class,
    source::{Abilities, AckMode, Positions, Replay},
};

/// What is promised (VX-001).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The position advances before a batch is sent to the function.
    AtMostOnce,
    /// Outputs go to the sink as soon as their batch is done.
    AtLeastOnce,
    /// Outputs are held until their epoch is durably decided.
    EffectivelyOnce,
}

impl Delivery {
    /// As the pipeline file says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtMostOnce => "at_most_once",
            Self::AtLeastOnce => "at_least_once",
            Self::EffectivelyOnce => "effectively_once",
        }
    }
}

impl Pipeline {
    /// Whether source and sinks can give what is promised (VX-001).
    pub(super) fn check_delivery(&self) -> Result<(), ConfigError> {
        let refused = |key, found: &dyn ToString, allowed| {
            Err(ConfigError::Value { key, number: 0, found: found.to_string(), allowed })
        };
        let refused_for = |key, number, what: &str, allowed| {
            let name = self.sink.get(number).map_or("", SinkConfig::name);
            Err(ConfigError::Value { key, number, found: format!("{what} for {name}"), allowed })
        };
        let first = |is: &dyn Fn(&SinkConfig) -> bool| self.sink.iter().position(is);
        if self.udf.retry.on_exhausted == Some(Exhausted::Dlq) && self.dead_letters().is_none() {
            return refused("udf.retry.on_exhausted", &"dlq", "stop or drop without a sink of role dlq");
        }
        if self.udf.retry.on_exhausted == Some(Exhausted::Nack)
            && self.source.abilities().ack != AckMode::Individual
        {
            let allowed = "\"stop\", \"drop\" or \"dlq\" with a source that cannot be given a single record back; \"nack\" is for source.mode = \"work_queue\"";
            return refused("udf.retry.on_exhausted", &"\"nack\"", allowed);
        }
        self.check_batches_of_sinks()?;
        let dead = self.sink.iter().filter(|sink| sink.role == Role::Dlq).count();
        if dead > 1 {
            return refused("sink.role", &format!("dlq for {dead} sinks"), "dlq for one sink at most");
        }
        if let Some(number) = first(&|sink| sink.role == Role::Dlq && !sink.required) {
            let allowed = "true for dead letters: an input is not done before its letter is there";
            return refused_for("sink.required", number, "false", allowed);
        }
        let delivery = self.pipeline.delivery;
        if delivery != Delivery::AtLeastOnce && self.source.abilities().replay == Replay::Redelivered {
            let allowed = "\"at_least_once\" with source.mode = \"work_queue\": records that come again have no place to go on from";
            return refused("pipeline.delivery", &format!("{:?}", delivery.name()), allowed);
        }
        if delivery != Delivery::AtLeastOnce && self.ledger.is_none() {
            return refused("ledger", &"missing", "there, since progress has to survive the vertex");
        }
        let per_epoch =
            |sink: &SinkConfig| matches!(sink.kind, SinkKind::File(FileSink { mode: FileMode::Epoch, .. }));
        let in_parts =
            |sink: &SinkConfig| per_epoch(sink) && (sink.max_records.is_some() || sink.max_bytes.is_some());
        if let Some(number) = first(&in_parts) {
            let allowed =
                "left out with mode = \"epoch\", and sink.max_bytes too: a file has its whole epoch";
            return refused_for("sink.max_records", number, "set", allowed);
        }
        if delivery != Delivery::EffectivelyOnce
            && let Some(number) = first(&per_epoch)
        {
            let allowed = "\"append\" unless pipeline.delivery is \"effectively_once\"";
            return refused_for("sink.mode", number, "\"epoch\"", allowed);
        }
        let compares = first(&SinkConfig::compares_positions);
        if let (Some(number), Positions::PerRun) = (compares, self.source.abilities().positions) {
            let allowed =
                "\"put\" with a source whose positions are others in each run: there is nothing to compare";
            return refused_for("sink.mode", number, "\"guarded\"", allowed);
        }
        if delivery != Delivery::EffectivelyOnce {
            return Ok(());
        }
        // One that is not required is promised less than that anyway.
        let plain = |sink: &SinkConfig| sink.class() == Class::C && !sink.allow_duplicates && sink.required;
        if let Some(number) = first(&plain) {
            let allowed = "set for a sink of class C: after a crash it may have outputs of one epoch twice";
            return refused_for("sink.allow_duplicates", number, "not set", allowed);
        }
        let Abilities { positions, replay, ack, .. } = self.source.abilities();
        // A source that keeps what is not acknowledged has what an epoch needs that is not committed.
        let comes_again = match replay {
            Replay::Yes => true,
            Replay::Limited => ack != AckMode::None,
            Replay::Redelivered | Replay::No => false,
        };
        if positions != Positions::Stable || !comes_again {
            let allowed = "a source that can be read again, with the same positions";
            return refused("source.kind", &"one that cannot be read again", allowed);
        }
        Ok(())
    }

    /// Whether `linger` and `ordered` mean something for the sinks that have them (VX-842).
    fn check_batches_of_sinks(&self) -> Result<(), ConfigError> {
        for (number, sink) in self.sink.iter().enumerate() {
            let refused =
                |key, found: String, allowed| Err(ConfigError::Value { key, number, found, allowed });
            let found = || format!("set for {}", sink.name());
            let lingers = sink.linger() > Nanos::ZERO;
            if lingers && self.pipeline.delivery == Delivery::EffectivelyOnce {
                let allowed = "left out with pipeline.delivery = \"effectively_once\": a sink gets an epoch as a whole, and epoch.interval says how long that is";
                return refused("sink.linger", found(), allowed);
            }
            if lingers && (!sink.required || sink.role == Role::Dlq) {
                let allowed = "left out with role = \"dlq\" and with required = false: for the one nothing may wait, and nothing waits for the other";
                return refused("sink.linger", found(), allowed);
            }
            let may_be_any = sink.takes_any_order() && sink.required;
            if !sink.ordered && !may_be_any {
                let allowed = "true, but for kind = \"jetstream\" with mode = \"ids\" and kind = \"kv\" with mode = \"guarded\" that are required: others have one place for what comes next, or would keep the wrong one";
                return refused("sink.ordered", format!("false for {}", sink.name()), allowed);
            }
        }
        Ok(())
    }
}
