//! The kinds of functions, and the worker that runs one of them.

use crate::{
    api::{Ctx, Emit, Outcome, Record},
    batch::{Answers, Batch, Failure, Handler},
    function::{BatchHandler, MapHandler},
    session::{self, Schemas, Sdk, WorkerError},
    wire::ids::SchemaId,
};

/// A worker process, to be given its function.
pub fn worker() -> Worker {
    Worker { private: () }
}

/// See [`worker`]. In all its functions `name` is for logs and for `tidegate vertex status`.
#[derive(Debug)]
pub struct Worker {
    private: (),
}

impl Worker {
    /// A function of one record at a time, with any number of outputs.
    pub fn map<F>(self, name: &str, function: F) -> FunctionWorker
    where
        F: FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome + 'static,
    {
        self.handler(name, MapHandler(function))
    }

    /// A function that says of each record whether it goes on, with its key, event time and headers, to the default sink.
    ///
    /// ```no_run
    /// tidegate_udf::worker().filter("not empty", |record, _| !record.value().is_empty()).run()?;
    /// # Ok::<(), tidegate_udf::WorkerError>(())
    /// ```
    pub fn filter<F>(self, name: &str, mut function: F) -> FunctionWorker
    where
        F: FnMut(Record<'_>, &Ctx<'_>) -> bool + 'static,
    {
        self.map(name, move |record, ctx, out| {
            if function(record, ctx) {
                out.record().like(&record).value(record.value());
            }
            Outcome::ok()
        })
    }

    /// A function that makes any number of values out of a record. They keep its key and event time and go to the default sink.
    ///
    /// ```no_run
    /// let words = |record: tidegate_udf::Record<'_>, _: &tidegate_udf::Ctx<'_>| {
    ///     record.value().split(u8::is_ascii_whitespace).map(<[u8]>::to_vec).collect::<Vec<_>>()
    /// };
    /// tidegate_udf::worker().flat_map("words", words).run()?;
    /// # Ok::<(), tidegate_udf::WorkerError>(())
    /// ```
    pub fn flat_map<F, I>(self, name: &str, mut function: F) -> FunctionWorker
    where
        F: FnMut(Record<'_>, &Ctx<'_>) -> I + 'static,
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.map(name, move |record, ctx, out| {
            for value in function(record, ctx) {
                out.record().key(record.key()).event_time(record.event_time()).value(value.as_ref());
            }
            Outcome::ok()
        })
    }

    /// A function of all records of a batch. An input that it does not mention is filtered. If it fails or panics, the batch is
    /// tried again, in halves after the second time, so that only the record that is to blame is left out at last (9.3).
    ///
    /// ```no_run
    /// use tidegate_udf::{Answers, Batch, Ctx, Failure};
    ///
    /// fn numbered(batch: &Batch, _: &Ctx<'_>, answers: &mut Answers) -> Result<(), Failure> {
    ///     let texts = batch.records().map(|record| std::str::from_utf8(record.value()));
    ///     let numbers = texts.map(|text| Ok(text?.parse::<i64>()?)).collect::<Result<Vec<_>, Failure>>()?;
    ///     let sum: i64 = numbers.iter().sum();
    ///     for record in batch.records() {
    ///         answers.of(&record).record().value(sum.to_string().as_bytes());
    ///     }
    ///     Ok(())
    /// }
    ///
    /// tidegate_udf::worker().batch_map("numbered", numbered).run()?;
    /// # Ok::<(), tidegate_udf::WorkerError>(())
    /// ```
    pub fn batch_map<F>(self, name: &str, function: F) -> FunctionWorker
    where
        F: FnMut(&Batch, &Ctx<'_>, &mut Answers) -> Result<(), Failure> + 'static,
    {
        self.handler(name, BatchHandler(function))
    }

    /// A handler of another kind, for SDKs of other languages.
    pub fn handler(self, name: &str, handler: impl Handler + 'static) -> FunctionWorker {
        let Self { private: () } = self;
        FunctionWorker { name: name.to_owned(), schemas: Schemas::default(), handler: Box::new(handler) }
    }
}

/// A worker process with its function.
pub struct FunctionWorker {
    name: String,
    schemas: Schemas,
    handler: Box<dyn Handler>,
}

impl FunctionWorker {
    /// Says that the function takes records of this schema; of one of several, if it is said several times. Without it the
    /// function takes untyped bytes. The id is as `tidegate vertex validate` prints it; `SchemaId::of` of feature `schema-text`
    /// makes it from the text of the schema.
    ///
    /// ```no_run
    /// use tidegate_udf::{SchemaId, worker};
    ///
    /// let order = SchemaId(0x0196_79b7_17eb_12d0);
    /// worker().filter("all", |_, _| true).schema_in(order).schema_out(order).run()?;
    /// # Ok::<(), tidegate_udf::WorkerError>(())
    /// ```
    #[must_use]
    pub fn schema_in(mut self, schema: SchemaId) -> Self {
        self.schemas.takes.push(schema);
        self
    }

    /// Says that the outputs of the function are records of this schema.
    #[must_use]
    pub fn schema_out(mut self, schema: SchemaId) -> Self {
        self.schemas.makes = schema;
        self
    }

    /// Attaches to the runtime and answers batches until the runtime ends the session. Takes standard input if the runtime has
    /// started this process, over which it passes the control socket; otherwise connects to the socket that `TIDEGATE_VX_SOCKET`
    /// names, and waits for the runtime.
    ///
    /// # Errors
    /// There is no runtime, it refused the worker, or it broke the protocol.
    pub fn run(mut self) -> Result<(), WorkerError> {
        session::serve(&self.name, Sdk::Rust, &self.schemas, self.handler.as_mut())
    }
}

impl FunctionWorker {
    pub(crate) fn function(&mut self) -> &mut dyn Handler {
        self.handler.as_mut()
    }
}

impl std::fmt::Debug for FunctionWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionWorker").field("name", &self.name).finish_non_exhaustive()
    }
}
