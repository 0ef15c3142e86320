//! A Python function as a handler of batches, and the functions of the module that run it.

use std::{collections::BTreeMap, error::Error};

use pyo3::{
    create_exception,
    exceptions::{PyException, PyKeyboardInterrupt, PyRuntimeError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyList, PyMemoryView},
};
use tidegate_udf::{
    Answered, Answers, Handled, Handler, Harness, Outcome, SchemaId, Schemas, Sdk,
    wire::function::FunctionKind, worker,
};

use crate::{
    batch::{Batch, Record},
    ctx::Ctx,
    outcome::Filling,
};

create_exception!(
    tidegate.udf,
    WorkerError,
    PyException,
    "There is no runtime, it refused the worker, or it broke the protocol."
);

/// Serves a function until the runtime ends the session, or until `stop.requested` is true.
#[pyfunction]
pub(crate) fn serve(
    py: Python<'_>,
    name: &str,
    kind: &str,
    function: Py<PyAny>,
    stop: Py<PyAny>,
    schema_in: Vec<Schema>,
    schema_out: Option<Schema>,
) -> PyResult<()> {
    let mut handler = PyHandler::new(py, kind, function, Some(stop))?;
    let takes = schema_in.iter().map(Schema::id).collect();
    let schemas = Schemas { takes, makes: schema_out.as_ref().map(Schema::id).unwrap_or_default() };
    let served = py.detach(|| tidegate_udf::serve(name, Sdk::Python, &schemas, &mut handler));
    match handler.raised {
        Some(raised) if raised.is_instance_of::<PyKeyboardInterrupt>(py) => Ok(()),
        Some(raised) => Err(raised),
        None => served.map_err(|error| WorkerError::new_err(with_causes(&error))),
    }
}

/// A schema: its text, or its id.
#[derive(FromPyObject)]
pub(crate) enum Schema {
    #[pyo3(transparent)]
    Text(String),
    #[pyo3(transparent)]
    Id(u64),
}

impl Schema {
    fn id(&self) -> SchemaId {
        match self {
            Self::Text(text) => SchemaId::of(text),
            Self::Id(id) => SchemaId(*id),
        }
    }
}

/// `(value, key, event_time, headers)` of an input.
type Pushed = (Vec<u8>, Vec<u8>, Option<i64>, Vec<(String, Vec<u8>)>);

/// Runs a function without a runtime; for `Worker.test`.
#[pyfunction]
pub(crate) fn harness<'py>(
    py: Python<'py>,
    kind: &str,
    function: Py<PyAny>,
    inputs: Vec<Pushed>,
    params: &str,
    routes: Vec<String>,
) -> PyResult<(Bound<'py, PyList>, BTreeMap<String, u64>)> {
    let handler = PyHandler::new(py, kind, function, None)?;
    let failed = |error: &dyn Error| PyRuntimeError::new_err(with_causes(error));
    let params = params.parse().map_err(|_| PyValueError::new_err("params are not JSON"))?;
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let mut harness = Harness::new(worker().handler("test", handler)).map_err(|error| failed(&error))?;
    harness = harness.params(params).routes(&routes);
    for (value, key, event_time, headers) in &inputs {
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        harness = harness.push_record(key, *event_time, &headers, value);
    }
    let (answers, counters) = harness.answers_and_counters();
    let answers = answers.map_err(|failure| PyRuntimeError::new_err(failure.reason().to_owned()))?;
    let answers = answers.iter().map(|answer| shown(py, answer)).collect::<PyResult<Vec<_>>>()?;
    Ok((PyList::new(py, answers)?, counters))
}

/// `(word, reason, delay, outputs)`, with an output as `(value, key, event_time, route, headers)`.
fn shown<'py>(py: Python<'py>, answer: &Answered) -> PyResult<Bound<'py, PyAny>> {
    let (word, reason, delay, outputs) = match answer {
        Answered::Done(outputs) => ("done", "", 0.0, outputs.as_slice()),
        Answered::Dropped(reason) => ("dropped", reason.as_str(), 0.0, &[][..]),
        Answered::Failed(reason) => ("failed", reason.as_str(), 0.0, &[][..]),
        Answered::Rejected(reason) => ("rejected", reason.as_str(), 0.0, &[][..]),
        Answered::Nacked(delay, reason) => ("nacked", reason.as_str(), delay.as_secs_f64(), &[][..]),
    };
    let outputs = outputs.iter().map(|made| {
        let headers: Vec<_> = made
            .headers
            .iter()
            .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), PyBytes::new(py, value)))
            .collect();
        (PyBytes::new(py, &made.value), PyBytes::new(py, &made.key), made.event_time, made.route, headers)
    });
    Ok((word, reason, delay, outputs.collect::<Vec<_>>()).into_pyobject(py)?.into_any())
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// How the function is called.
#[derive(Debug, Clone, Copy)]
enum Call {
    Map,
    Filter,
    FlatMap,
    BatchMap,
    BatchTable,
}

struct PyHandler {
    function: Py<PyAny>,
    call: Call,
    /// Whose `requested` says that the worker shall end.
    stop: Option<Py<PyAny>>,
    /// Makes a text of an exception and shows it.
    describe: Py<PyAny>,
    loads: Py<PyAny>,
    params: Option<Py<PyAny>>,
    /// What ended the worker.
    raised: Option<PyErr>,
}

impl PyHandler {
    fn new(py: Python<'_>, kind: &str, function: Py<PyAny>, stop: Option<Py<PyAny>>) -> PyResult<Self> {
        let call = match kind {
            "map" => Call::Map,
            "filter" => Call::Filter,
            "flat_map" => Call::FlatMap,
            "batch_map" => Call::BatchMap,
            "batch_table" => Call::BatchTable,
            _ => return Err(PyValueError::new_err(format!("no kind of function: {kind:?}"))),
        };
        let describe = py.import("tidegate.udf._errors")?.getattr("describe")?.unbind();
        let loads = py.import("json")?.getattr("loads")?.unbind();
        Ok(Self { function, call, stop, describe, loads, params: None, raised: None })
    }

    /// What the pipeline file gives to the function, made once.
    fn params(&mut self, py: Python<'_>, ctx: &tidegate_udf::Ctx<'_>) -> PyResult<Py<PyAny>> {
        if let Some(params) = &self.params {
            return Ok(params.clone_ref(py));
        }
        let params = self.loads.call1(py, (ctx.params().to_string(),))?;
        self.params = Some(params.clone_ref(py));
        Ok(params)
    }

    fn run(
        &mut self,
        py: Python<'_>,
        batch: &tidegate_udf::Batch,
        ctx: &tidegate_udf::Ctx<'_>,
        answers: &mut Answers,
    ) -> PyResult<()> {
        let ended = self.stop.as_ref().map(|stop| stop.clone_ref(py));
        let around = Bound::new(py, Ctx::new(py, ctx, self.params(py, ctx)?, ended)?)?;
        let inputs = Bound::new(py, Batch::new(batch))?;
        let filling = Filling { batch: inputs.get(), ctx, answers };
        match self.call {
            Call::Map | Call::Filter | Call::FlatMap => self.each(&inputs, &around, filling),
            Call::BatchMap => self.all(&inputs, &around, filling),
            Call::BatchTable => self.table(&inputs, &around, filling),
        }
    }

    /// Calls the function with each record; one that raises fails its record alone (VX-502).
    fn each(
        &self,
        inputs: &Bound<'_, Batch>,
        ctx: &Bound<'_, Ctx>,
        mut filling: Filling<'_>,
    ) -> PyResult<()> {
        let py = inputs.py();
        let view = PyMemoryView::from(inputs.as_any())?;
        for (number, place) in inputs.get().places().iter().enumerate() {
            let record = Bound::new(py, Record::new(inputs, &view, number))?;
            let Err(error) = self.one(&record, ctx, number, &mut filling) else { continue };
            if !error.is_instance_of::<PyException>(py) {
                return Err(error);
            }
            let text = self.describe(py, error)?;
            filling.answers.settle_at(place.index, Outcome::fail(text));
        }
        Ok(())
    }

    fn one(
        &self,
        record: &Bound<'_, Record>,
        ctx: &Bound<'_, Ctx>,
        number: usize,
        filling: &mut Filling<'_>,
    ) -> PyResult<()> {
        let returned = self.function.bind(record.py()).call1((record, ctx))?;
        match self.call {
            Call::Filter => {
                if returned.is_truthy()? {
                    filling.pass(number);
                }
                Ok(())
            }
            Call::FlatMap => returned.try_iter()?.try_for_each(|one| filling.take_one(number, &one?)),
            _ => filling.take(number, &returned),
        }
    }

    /// Calls the function with the batch; it returns a list with an entry for each record.
    fn all(&self, inputs: &Bound<'_, Batch>, ctx: &Bound<'_, Ctx>, mut filling: Filling<'_>) -> PyResult<()> {
        let returned = self.function.bind(inputs.py()).call1((inputs, ctx))?;
        let (len, expected) = (returned.len()?, inputs.get().places().len());
        if len != expected {
            return Err(PyValueError::new_err(format!(
                "batch_map returned {len} results for {expected} records"
            )));
        }
        for (number, one) in returned.try_iter()?.enumerate() {
            filling.take(number, &one?)?;
        }
        Ok(())
    }

    /// Calls the function with columns: rows of the same width come back, the ordinal of the input of each, and what is wrong
    /// with inputs that are no rows.
    fn table(
        &self,
        inputs: &Bound<'_, Batch>,
        ctx: &Bound<'_, Ctx>,
        mut filling: Filling<'_>,
    ) -> PyResult<()> {
        type Rows<'py> = (Bound<'py, PyBytes>, usize, Vec<u32>, Vec<(u32, String)>);
        let returned = self.function.bind(inputs.py()).call1((inputs, ctx))?;
        let (bytes, width, parents, rejected): Rows<'_> = returned.extract()?;
        let mut rows = bytes.as_bytes();
        let places = inputs.get().places();
        for parent in parents {
            let (row, behind) =
                rows.split_at_checked(width).ok_or_else(|| PyTypeError::new_err("rows are missing"))?;
            rows = behind;
            let number = places.binary_search_by_key(&parent, |place| place.index);
            let number =
                number.map_err(|_| PyValueError::new_err(format!("no row has the number {parent}")))?;
            filling.push_like(number, inputs.py(), row);
        }
        for (index, reason) in rejected {
            filling.answers.settle_at(index, Outcome::reject(reason));
        }
        Ok(())
    }

    fn describe(&self, py: Python<'_>, error: PyErr) -> PyResult<String> {
        self.describe.bind(py).call1((error.into_value(py),))?.extract()
    }
}

impl Handler for PyHandler {
    fn kind(&self) -> FunctionKind {
        match self.call {
            Call::Map | Call::Filter | Call::FlatMap => FunctionKind::Map,
            Call::BatchMap => FunctionKind::BatchMap,
            Call::BatchTable => FunctionKind::BatchTable,
        }
    }

    fn handle(
        &mut self,
        batch: &tidegate_udf::Batch,
        ctx: &tidegate_udf::Ctx<'_>,
        answers: &mut Answers,
    ) -> Handled {
        Python::attach(|py| {
            let Err(error) = self.run(py, batch, ctx, answers) else { return Handled::Answered };
            if error.is_instance_of::<PyException>(py) {
                let name = error.get_type(py).to_string();
                return Handled::Failed(self.describe(py, error).unwrap_or(name));
            }
            let interrupted = error.is_instance_of::<PyKeyboardInterrupt>(py);
            self.raised = Some(error);
            if interrupted { Handled::Interrupted } else { Handled::Exited }
        })
    }

    fn is_over(&mut self) -> bool {
        if self.raised.is_some() {
            return true;
        }
        Python::attach(|py| {
            if let Err(error) = py.check_signals() {
                self.raised = Some(error);
                return true;
            }
            let Some(stop) = &self.stop else { return false };
            stop.bind(py).getattr("requested").and_then(|requested| requested.is_truthy()).unwrap_or(true)
        })
    }
}
