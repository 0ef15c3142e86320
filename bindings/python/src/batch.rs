//! The inputs of a call, as Python sees them.
//!
//! A batch was copied out of shared memory once, into memory that this process alone has and that nothing writes any more. So
//! every view of it is safe and lives as long as anybody keeps it: views of values and arrays made of them hold the batch.

use std::{ffi::c_int, ops::Range, sync::Arc};

use pyo3::{
    exceptions::{PyBufferError, PyIndexError, PyValueError},
    ffi,
    prelude::*,
    types::{PyBytes, PyList, PyMemoryView, PySlice, PyString},
};
use tidegate_udf::{Place, wire::record::headers};

/// The records of a batch: a sequence of `Record`, and a read-only buffer of the whole payload.
#[pyclass(frozen, sequence, module = "tidegate.udf")]
pub(crate) struct Batch {
    payload: Arc<Vec<u8>>,
    places: Vec<Place>,
}

impl Batch {
    pub(crate) fn new(batch: &tidegate_udf::Batch) -> Self {
        Self { payload: batch.payload().clone(), places: batch.places().collect() }
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(crate) fn part(&self, part: &Range<usize>) -> &[u8] {
        self.payload.get(part.clone()).unwrap_or_default()
    }

    /// Calls a function of the numpy side, which is not loaded before somebody needs it.
    fn columnar<'py>(
        this: &Bound<'py, Self>,
        name: &str,
        arguments: (Option<&Bound<'py, PyAny>>, Option<usize>),
    ) -> PyResult<Bound<'py, PyAny>> {
        let function = this.py().import("tidegate.udf._columns")?.getattr(name)?;
        match arguments {
            (Some(dtype), width) => function.call1((this, dtype, width)),
            (None, _) => function.call1((this,)),
        }
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.places.len()
    }

    fn __getitem__(this: &Bound<'_, Self>, index: isize) -> PyResult<Record> {
        let len = this.get().places.len();
        let place = if index < 0 { index.checked_add_unsigned(len) } else { Some(index) };
        let place = place.and_then(|place| usize::try_from(place).ok()).filter(|&place| place < len);
        let place =
            place.ok_or_else(|| PyIndexError::new_err(format!("batch of {len} records has no {index}")))?;
        let view = PyMemoryView::from(this.as_any())?;
        Ok(Record { batch: this.clone().unbind(), view: view.unbind(), place })
    }

    /// The values as an array of fixed width; see `tidegate.udf.Batch`.
    #[pyo3(signature = (dtype, width=None))]
    fn values_matrix<'py>(
        this: &Bound<'py, Self>,
        dtype: &Bound<'py, PyAny>,
        width: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::columnar(this, "values_matrix", (Some(dtype), width))
    }

    /// Positions, event times and lengths as arrays; see `tidegate.udf.Batch`.
    fn columns<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::columnar(this, "columns", (None, None))
    }

    /// Offset of the first value, bytes from one value to the next, and bytes of each, if they are the same all over.
    fn _uniform(&self) -> Option<(usize, usize, usize)> {
        let first = self.places.first()?;
        let (start, len) = (first.value.start, first.value.len());
        let stride = self.places.get(1).map_or(len, |second| second.value.start - start);
        let fits = |(number, place): (usize, &Place)| {
            place.value.len() == len && place.value.start == start + number * stride
        };
        self.places.iter().enumerate().all(fits).then_some((start, stride, len))
    }

    /// A copy of all values of `width` bytes, one behind the other, and the ordinals of the others.
    fn _gather<'py>(&self, py: Python<'py>, width: usize) -> (Bound<'py, PyBytes>, Vec<u32>) {
        let (bytes, others) = py.detach(|| {
            let mut bytes =
                Vec::with_capacity(width.saturating_mul(self.places.len()).min(self.payload.len()));
            let mut others = Vec::new();
            for place in &self.places {
                if place.value.len() == width {
                    bytes.extend_from_slice(self.part(&place.value));
                } else {
                    others.push(place.index);
                }
            }
            (bytes, others)
        });
        (PyBytes::new(py, &bytes), others)
    }

    /// Of each record 8 bytes of position, 8 of event time (the smallest number for none), 4 of ordinal, 4 of length.
    fn _heads<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut bytes = Vec::with_capacity(24 * self.places.len());
        for place in &self.places {
            let len = u32::try_from(place.value.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&place.position.0.to_le_bytes());
            bytes.extend_from_slice(&place.event_time.unwrap_or(i64::MIN).to_le_bytes());
            bytes.extend_from_slice(&place.index.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        PyBytes::new(py, &bytes)
    }

    /// Exports the payload, read-only.
    ///
    /// # Safety
    /// As the buffer protocol has it: `view` is a `Py_buffer` to fill.
    unsafe fn __getbuffer__(this: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let payload = &this.get().payload;
        let len = ffi::Py_ssize_t::try_from(payload.len())?;
        let bytes = payload.as_ptr().cast_mut().cast();
        // SAFETY: `view` is a `Py_buffer` to fill, by the contract of this function. The bytes stay where they are and as they
        // are while the object lives, whose class is frozen and never changes its payload; the view holds a reference to it;
        // and `readonly` is 1, so nobody may write.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, this.as_ptr(), bytes, len, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(this.py())) }
    }

    /// Nothing to give back: the view's reference to the batch is all there is.
    ///
    /// # Safety
    /// Touches nothing.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}

/// One input.
#[pyclass(frozen, module = "tidegate.udf")]
pub(crate) struct Record {
    batch: Py<Batch>,
    view: Py<PyMemoryView>,
    place: usize,
}

impl Record {
    /// The record at `place`, of a batch whose buffer is `view`.
    pub(crate) fn new(batch: &Bound<'_, Batch>, view: &Bound<'_, PyMemoryView>, place: usize) -> Self {
        Self { batch: batch.clone().unbind(), view: view.clone().unbind(), place }
    }

    fn place(&self) -> PyResult<&Place> {
        let place = self.batch.get().places.get(self.place);
        place.ok_or_else(|| PyValueError::new_err("a record outside of its batch"))
    }

    fn view<'py>(&self, py: Python<'py>, part: &Range<usize>) -> PyResult<Bound<'py, PyAny>> {
        let (start, end) = (isize::try_from(part.start)?, isize::try_from(part.end)?);
        self.view.bind(py).get_item(PySlice::new(py, start, end, 1))
    }
}

#[pymethods]
impl Record {
    /// The value.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view(py, &self.place()?.value)
    }

    /// The key, empty if there is none.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view(py, &self.place()?.key)
    }

    /// A copy of the value.
    fn tobytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.batch.get().part(&self.place()?.value)))
    }

    /// Event time in milliseconds since 1970, if the source has one.
    #[getter]
    fn event_time(&self) -> PyResult<Option<i64>> {
        Ok(self.place()?.event_time)
    }

    /// Where the record is in its source partition.
    #[getter]
    pub(crate) fn position(&self) -> PyResult<u64> {
        Ok(self.place()?.position.0)
    }

    /// Ordinal in the batch.
    #[getter]
    fn index(&self) -> PyResult<u32> {
        Ok(self.place()?.index)
    }

    /// Name and value of each header.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let bytes = self.batch.get().part(&self.place()?.headers);
        let pairs = headers(bytes).map(|(name, value)| {
            (PyString::new(py, &String::from_utf8_lossy(name)), PyBytes::new(py, value))
        });
        PyList::new(py, pairs.collect::<Vec<_>>())
    }

    fn __repr__(&self) -> PyResult<String> {
        let place = self.place()?;
        Ok(format!("<Record at {}: {} bytes>", place.position, place.value.len()))
    }
}
