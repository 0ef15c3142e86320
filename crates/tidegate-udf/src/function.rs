//! The functions of this crate as handlers. Those of one record run each input on its own, so that one that fails takes no
//! other with it (VX-502).

use std::{
    any::Any,
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    api::{Ctx, Emit, Outcome, Record, Verdict},
    batch::{Answers, Batch, Failure, Handled, Handler, cut},
    wire::function::FunctionKind,
};

/// A function of one record at a time.
pub(crate) struct MapHandler<F>(pub(crate) F);

impl<F> Handler for MapHandler<F>
where
    F: FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome,
{
    fn kind(&self) -> FunctionKind {
        FunctionKind::Map
    }

    fn handle(&mut self, batch: &Batch, ctx: &Ctx<'_>, answers: &mut Answers) -> Handled {
        for record in batch.records() {
            let before = answers.mark();
            let mut emit = answers.of(&record);
            // What the function keeps in itself may be half changed after a panic; that is for the function to know.
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.0)(record, ctx, &mut emit)));
            let outcome = outcome.unwrap_or_else(|panic| {
                let text = panic_text(panic.as_ref());
                answers.note_panic(text.clone());
                Outcome::fail(text)
            });
            let is_ok = outcome.0 == Verdict::Ok;
            if !is_ok || answers.has_too_long(record.index()) {
                answers.rewind(before);
            }
            if !is_ok {
                answers.forget_too_long(record.index());
                answers.settle(&record, outcome);
            }
        }
        Handled::Answered
    }
}

/// A function of all records of a batch.
pub(crate) struct BatchHandler<F>(pub(crate) F);

impl<F> Handler for BatchHandler<F>
where
    F: FnMut(&Batch, &Ctx<'_>, &mut Answers) -> Result<(), Failure>,
{
    fn kind(&self) -> FunctionKind {
        FunctionKind::BatchMap
    }

    fn handle(&mut self, batch: &Batch, ctx: &Ctx<'_>, answers: &mut Answers) -> Handled {
        match catch_unwind(AssertUnwindSafe(|| (self.0)(batch, ctx, answers))) {
            Ok(Ok(())) => Handled::Answered,
            Ok(Err(Failure(reason))) => Handled::Failed(reason.into_owned()),
            Err(panic) => Handled::Panicked(panic_text(panic.as_ref())),
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text: Cow<'_, str> = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => Cow::Borrowed(text),
        (None, Some(text)) => Cow::Borrowed(text.as_str()),
        (None, None) => Cow::Borrowed("a panic without a text"),
    };
    format!("panicked: {}", cut(&text))
}

#[cfg(test)]
#[path = "function_tests.rs"]
mod tests;
