//! What is around an input (VX-501).

use pyo3::prelude::*;
use tidegate_udf::{FenceCheck, wire::ids::Position};

use crate::batch::Record;

/// The context of a call.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Ctx {
    #[pyo3(get)]
    pipeline: String,
    #[pyo3(get)]
    params: Py<PyAny>,
    #[pyo3(get)]
    routes: Vec<String>,
    #[pyo3(get)]
    partition: u32,
    #[pyo3(get)]
    generation: u64,
    #[pyo3(get)]
    epoch: u64,
    #[pyo3(get)]
    batch: u64,
    #[pyo3(get)]
    attempt: u16,
    #[pyo3(get)]
    is_replay: bool,
    #[pyo3(get)]
    watermark: Option<i64>,
    fence: FenceCheck,
}

impl Ctx {
    pub(crate) fn new(ctx: &tidegate_udf::Ctx<'_>, params: Py<PyAny>) -> Self {
        Self {
            pipeline: ctx.pipeline().to_owned(),
            params,
            routes: ctx.routes().to_vec(),
            partition: ctx.partition().0,
            generation: ctx.generation().0,
            epoch: ctx.epoch().0,
            batch: ctx.batch().0,
            attempt: ctx.attempt(),
            is_replay: ctx.is_replay(),
            watermark: ctx.watermark(),
            fence: ctx.fence(),
        }
    }
}

#[pymethods]
impl Ctx {
    /// Whether the vertex may still act for this batch.
    fn is_current(&self) -> bool {
        self.fence.is_current()
    }

    /// Seconds that the batch may still take before the runtime ends this worker.
    fn time_left(&self) -> f64 {
        self.fence.time_left().as_secs_f64()
    }

    /// A `random.Random` of its own for each input, the same in every try.
    fn rng<'py>(&self, py: Python<'py>, record: &Record) -> PyResult<Bound<'py, PyAny>> {
        let seed = self.fence.seed(Position(record.position()?));
        py.import("random")?.getattr("Random")?.call1((seed,))
    }
}
