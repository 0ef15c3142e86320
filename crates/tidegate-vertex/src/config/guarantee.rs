//! What a sink is promised, in one sentence (VX-002).

use super::{Delivery, FileMode, FileSink, Pipeline, SinkConfig, SinkKind};
use crate::sink::Class;

impl Pipeline {
    /// What this sink has after whatever happens, as delivery and its class have it.
    pub fn guarantee(&self, sink: &SinkConfig) -> &'static str {
        let appends = matches!(sink.kind, SinkKind::File(FileSink { mode: FileMode::Append, .. }));
        match (self.pipeline.delivery, sink.class()) {
            (_, _) if self.ledger.is_none() => {
                "at least once while the vertex runs, whatever its workers do; a vertex that is started again reads from the \
                 beginning, since there is no [ledger]"
            }
            (Delivery::AtMostOnce, _) => {
                "at most once: what was read and not written when the vertex crashed is lost, nothing is written twice"
            }
            (Delivery::AtLeastOnce, _) if appends => {
                "at least once; a vertex that is started again on this host cuts the file back to its last commit, so nothing \
                 is in it twice"
            }
            (Delivery::AtLeastOnce, Class::B) => {
                "at least once; what is written again after a crash is known by its id (class B), as long as the sink \
                 remembers ids"
            }
            (Delivery::AtLeastOnce, _) => {
                "at least once; after a crash of the vertex what was written since the last commit is written again"
            }
            (Delivery::EffectivelyOnce, Class::A) => {
                "exactly once in a sink of class A: every output is visible once, whatever crashes, and a vertex that lost its \
                 right cannot write"
            }
            (Delivery::EffectivelyOnce, Class::B) => {
                "effectively once in a sink of class B: repeated writes have the same id, which the sink ignores as long as it \
                 remembers ids"
            }
            (Delivery::EffectivelyOnce, Class::C) if appends => {
                "at least once in a sink of class C; a vertex that is started again on this host cuts the file back to its \
                 last commit, so nothing is in it twice"
            }
            (Delivery::EffectivelyOnce, Class::C) => {
                "at least once in a sink of class C: after a crash outputs of one epoch of each partition may be there twice"
            }
        }
    }
}
