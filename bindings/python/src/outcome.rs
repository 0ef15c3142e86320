//! What a Python function returns for an input, and how it becomes an answer.

use std::time::Duration;

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyList, PyMemoryView, PyString, PyTuple},
};
use tidegate_udf::{Answers, Ctx, Outcome, wire::record::push_header};

use crate::batch::Batch;

/// One output with everything it can have.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Output {
    value: Py<PyAny>,
    key: Option<Py<PyAny>>,
    event_time: Option<i64>,
    route: Route,
    headers: Vec<u8>,
}

enum Route {
    Number(u16),
    Name(String),
}

#[pymethods]
impl Output {
    #[new]
    #[pyo3(signature = (value, *, key=None, event_time=None, route=None, headers=None))]
    fn new(
        value: Py<PyAny>,
        key: Option<Py<PyAny>>,
        event_time: Option<i64>,
        route: Option<&Bound<'_, PyAny>>,
        headers: Option<Vec<(String, Vec<u8>)>>,
    ) -> PyResult<Self> {
        let route = match route {
            None => Route::Number(0),
            Some(name) if name.is_instance_of::<PyString>() => Route::Name(name.extract()?),
            Some(number) => Route::Number(number.extract()?),
        };
        let mut bytes = Vec::new();
        for (name, value) in headers.unwrap_or_default() {
            if !push_header(&mut bytes, &name, &value) {
                return Err(PyValueError::new_err("the name of a header ends at 64 KiB, its value at 4 GiB"));
            }
        }
        Ok(Self { value, key, event_time, route, headers: bytes })
    }
}

/// Left out on purpose.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Drop {
    #[pyo3(get)]
    reason: String,
}

/// Failed; to be tried again.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Fail {
    #[pyo3(get)]
    reason: String,
}

/// Bad for good; no further try.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Reject {
    #[pyo3(get)]
    reason: String,
}

/// Back to the source, to come again after a delay in seconds.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Nack {
    delay: Duration,
    #[pyo3(get)]
    reason: String,
}

#[pymethods]
impl Drop {
    #[new]
    #[pyo3(signature = (reason=String::new()))]
    fn new(reason: String) -> Self {
        Self { reason }
    }
}

#[pymethods]
impl Fail {
    #[new]
    fn new(reason: String) -> Self {
        Self { reason }
    }
}

#[pymethods]
impl Reject {
    #[new]
    fn new(reason: String) -> Self {
        Self { reason }
    }
}

#[pymethods]
impl Nack {
    #[new]
    fn new(delay: f64, reason: String) -> PyResult<Self> {
        let delay =
            Duration::try_from_secs_f64(delay).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { delay, reason })
    }
}

/// The answers of a batch, filled with what a function returned.
pub(crate) struct Filling<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) ctx: &'a Ctx<'a>,
    pub(crate) answers: &'a mut Answers,
}

impl Filling<'_> {
    /// Takes what a function returned for the input at `place`.
    pub(crate) fn take(&mut self, place: usize, returned: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(list) = returned.cast::<PyList>() {
            return list.iter().try_for_each(|one| self.take_one(place, &one));
        }
        if let Ok(tuple) = returned.cast::<PyTuple>() {
            return tuple.iter().try_for_each(|one| self.take_one(place, &one));
        }
        self.take_one(place, returned)
    }

    /// Takes a single output or what else became of the input.
    pub(crate) fn take_one(&mut self, place: usize, returned: &Bound<'_, PyAny>) -> PyResult<()> {
        if returned.is_none() {
            return Ok(());
        }
        if let Ok(bytes) = returned.cast::<PyBytes>() {
            self.push_like(place, returned.py(), bytes.as_bytes());
            return Ok(());
        }
        if let Ok(output) = returned.cast::<Output>() {
            return self.push(place, returned.py(), output.get());
        }
        let index = self.batch.places().get(place).map_or(u32::MAX, |place| place.index);
        let outcome = if let Ok(it) = returned.cast::<Drop>() {
            Outcome::drop(it.get().reason.clone())
        } else if let Ok(it) = returned.cast::<Fail>() {
            Outcome::fail(it.get().reason.clone())
        } else if let Ok(it) = returned.cast::<Reject>() {
            Outcome::reject(it.get().reason.clone())
        } else if let Ok(it) = returned.cast::<Nack>() {
            Outcome::nack(it.get().delay, it.get().reason.clone())
        } else {
            let bytes = buffer(returned)?;
            self.push_like(place, returned.py(), bytes.as_bytes());
            return Ok(());
        };
        self.answers.settle_at(index, outcome);
        Ok(())
    }

    /// An output that keeps key and event time of its input.
    pub(crate) fn push_like(&mut self, place: usize, py: Python<'_>, value: &[u8]) {
        let Some(place) = self.batch.places().get(place) else { return };
        let Some(mut emit) = self.answers.at(place.index) else { return };
        let output = emit.record().key(self.batch.part(&place.key)).event_time(place.event_time);
        copying(py, value.len(), || output.value(value));
    }

    /// The input itself as its output.
    pub(crate) fn pass(&mut self, place: usize) {
        let Some(place) = self.batch.places().get(place) else { return };
        let Some(mut emit) = self.answers.at(place.index) else { return };
        let output = emit.record().key(self.batch.part(&place.key)).event_time(place.event_time);
        output.raw_headers(self.batch.part(&place.headers)).value(self.batch.part(&place.value));
    }

    fn push(&mut self, place: usize, py: Python<'_>, made: &Output) -> PyResult<()> {
        let Some(place) = self.batch.places().get(place) else { return Ok(()) };
        let route = match &made.route {
            Route::Number(number) => *number,
            Route::Name(name) => {
                let Some(number) = self.ctx.route(name) else {
                    let routes = self.ctx.routes().join(", ");
                    let reason = format!("there is no route {name:?}; the pipeline has {routes}");
                    self.answers.settle_at(place.index, Outcome::reject(reason));
                    return Ok(());
                };
                number
            }
        };
        let key = made.key.as_ref().map(|key| buffer(key.bind(py))).transpose()?;
        let value = buffer(made.value.bind(py))?;
        let Some(mut emit) = self.answers.at(place.index) else { return Ok(()) };
        let output = emit.record().event_time(made.event_time).route(route).raw_headers(&made.headers);
        let output = output.key(key.as_ref().map_or(&[], |key| key.as_bytes()));
        let value = value.as_bytes();
        copying(py, value.len(), || output.value(value));
        Ok(())
    }
}

/// Copies with the GIL released when it is much (VX-521).
fn copying(py: Python<'_>, len: usize, copy: impl FnOnce() + Send) {
    if len > LONG {
        py.detach(copy);
    } else {
        copy();
    }
}

/// The bytes of an object that has the buffer protocol.
fn buffer<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    let Ok(view) = PyMemoryView::from(object) else {
        let name = object.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "an output is bytes or another buffer, Output, Drop, Fail, Reject, Nack, None, or a list of them, not {name:?}; \
             encode texts with .encode()"
        )));
    };
    Ok(view.call_method0("tobytes")?.cast_into::<PyBytes>()?)
}

const LONG: usize = 64 * 1024;
