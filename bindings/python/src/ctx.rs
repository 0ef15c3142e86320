//! What is around an input (VX-501).

use std::time::Duration;

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyDict, PyString},
};
use tidegate_udf::{FenceCheck, Journal, Level, StopToken, wire::ids::Position};

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
    #[pyo3(get)]
    stop: Py<Stop>,
    fence: FenceCheck,
    journal: Journal,
}

impl Ctx {
    /// `ended` is what says by its `requested` that somebody ended the worker.
    pub(crate) fn new(
        py: Python<'_>,
        ctx: &tidegate_udf::Ctx<'_>,
        params: Py<PyAny>,
        ended: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
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
            stop: Py::new(py, Stop { token: ctx.stop(), ended })?,
            fence: ctx.fence(),
            journal: ctx.journal(),
        })
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

    /// Writes a line to the log of the runtime; does not wait.
    #[pyo3(signature = (message, /, level = "info", **fields))]
    fn log(
        &self,
        py: Python<'_>,
        message: &str,
        level: &str,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let level = Level::from_name(level)
            .ok_or_else(|| PyValueError::new_err("level is error, warn, info or debug"))?;
        let fields: Vec<(String, String)> = fields
            .into_iter()
            .flatten()
            .map(|(name, value)| Ok((name.extract()?, as_json(py, &value)?)))
            .collect::<PyResult<_>>()?;
        let parsed = fields.iter().map(|(name, text)| {
            // NaN and infinities are none in JSON.
            (name.as_str(), text.parse().unwrap_or_else(|_| text.as_str().into()))
        });
        self.journal.log(level, message, &parsed.collect::<Vec<_>>());
        Ok(())
    }

    /// Adds to a counter of the function.
    #[pyo3(signature = (name, by = 1, /))]
    fn count(&self, name: &str, by: u64) {
        self.journal.count(name, by);
    }

    /// A `random.Random` of its own for each input, the same in every try.
    fn rng<'py>(&self, py: Python<'py>, record: &Record) -> PyResult<Bound<'py, PyAny>> {
        let seed = self.fence.seed(Position(record.position()?));
        py.import("random")?.getattr("Random")?.call1((seed,))
    }
}

/// Says that the function should come to an end.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Stop {
    token: StopToken,
    ended: Option<Py<PyAny>>,
}

#[pymethods]
impl Stop {
    /// Whether it should.
    fn is_set(&self, py: Python<'_>) -> PyResult<bool> {
        let requested = self.ended.as_ref().map(|ended| ended.bind(py).getattr("requested")?.is_truthy());
        Ok(self.token.is_set() || requested.transpose()?.unwrap_or(false))
    }

    /// Sleeps until it should (true), or so many seconds have passed (false).
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let mut left = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        loop {
            // Signals are seen between the steps.
            let step = left.min(STEP);
            py.detach(|| self.token.wait(step));
            py.check_signals()?;
            left -= step;
            if left.is_zero() || self.is_set(py)? {
                return self.is_set(py);
            }
        }
    }
}

/// A value of a field as JSON: what has none is its text.
fn as_json(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let options = PyDict::new(py);
    options.set_item("default", py.get_type::<PyString>())?;
    py.import("json")?.getattr("dumps")?.call((value,), Some(&options))?.extract()
}

/// How soon a signal is seen.
const STEP: Duration = Duration::from_millis(100);
