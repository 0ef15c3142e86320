//! The tensor streams at the ends of a pipeline.

use std::path::Path;

use super::{ConfigError, Pipeline, SinkKind, SourceConfig};
use crate::tensor::Stream;

/// An end that is a tensor stream.
#[derive(Debug)]
pub struct TensorEnd<'a> {
    /// The stream, to be linked.
    pub stream: &'a mut Stream,
    /// Directory of its node, if the file names one.
    pub dir: Option<&'a Path>,
    /// Whether it is made when there is none.
    pub writes: bool,
}

impl Pipeline {
    /// The tensor streams at its ends. Each has to be linked before the vertex is started.
    pub fn streams(&mut self) -> impl Iterator<Item = TensorEnd<'_>> {
        let source = match &mut self.source {
            SourceConfig::Tensor(keys) => {
                Some(TensorEnd { stream: &mut keys.stream, dir: keys.dir.as_deref(), writes: false })
            }
            _ => None,
        };
        let sinks = self.sink.iter_mut().filter_map(|sink| match &mut sink.kind {
            SinkKind::Tensor(keys) => {
                Some(TensorEnd { stream: &mut keys.stream, dir: keys.dir.as_deref(), writes: true })
            }
            _ => None,
        });
        source.into_iter().chain(sinks)
    }

    /// Whether each sink can have the tensors that it says.
    pub(super) fn check_streams(&self) -> Result<(), ConfigError> {
        for (number, sink) in self.sink.iter().enumerate() {
            if let SinkKind::Tensor(keys) = &sink.kind
                && !keys.layout().is_ok_and(|layout| layout.packed_bytes() <= LARGEST)
            {
                let allowed = "1 to 8 lengths, of a tensor of 2 GiB at most";
                let found = keys.tensor();
                return Err(ConfigError::Value { key: "sink.shape", number, found, allowed });
            }
        }
        Ok(())
    }
}

/// Bytes of the largest tensor: what the length of a payload can say, and some room behind it.
const LARGEST: u64 = 1 << 31;
