//! Native part of the `tidegate` Python package: the worker of a fused vertex (chapter 8.3 of the sheet).
//!
//! | module | gives |
//! |---|---|
//! | `batch` | the inputs: a batch that exports its memory, and its records |
//! | `ctx` | what is around an input |
//! | `outcome` | outputs and what else can become of an input |
//! | `handler` | a Python function as a handler of `tidegate-udf`, and the module's functions that run it |
//!
//! Attaching, rings, fences and the watching thread are those of `tidegate-udf` and do not touch Python: the GIL is held while
//! user code runs and while its inputs and results are converted, and at no other time (VX-521).

mod batch;
mod ctx;
mod handler;
mod outcome;

use pyo3::prelude::*;

/// The extension module.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::batch::{Batch, Record};
    #[pymodule_export]
    use super::ctx::{Ctx, Stop};
    #[pymodule_export]
    use super::handler::{WorkerError, harness, serve};
    #[pymodule_export]
    use super::outcome::{Drop, Fail, Nack, Output, Reject};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
