//! Running a function over a batch: each input on its own, so that one that fails takes no other with it (VX-502).

use std::{
    any::Any,
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    api::{Ctx, Emit, Outcome, Record, Verdict},
    wire::{
        record::{RawView, RecordHead, RecordType, RecordWriter, Records},
        status::Status,
    },
};

/// A function of one record at a time.
pub(crate) trait MapFn: FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome {}
impl<F: FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome> MapFn for F {}

/// Runs `function` over the inputs and writes outputs and what became of the inputs into `answer`. `max_record` is the longest
/// record of an answer. Returns how it went and the text of the last panic.
pub(crate) fn run(
    function: &mut dyn MapFn,
    inputs: Records<'_>,
    ctx: &Ctx<'_>,
    max_record: usize,
    answer: &mut RecordWriter,
) -> (Status, Option<String>) {
    let (mut status, mut panicked) = (Status::Ok, None);
    for view in inputs {
        let before = answer.mark();
        let mut emit = Emit::new(answer, view.index, max_record);
        let record = Record::new(view, ctx.frame.source_first);
        // What the function keeps in itself may be half changed after a panic; that is for the function to know.
        let outcome = catch_unwind(AssertUnwindSafe(|| function(record, ctx, &mut emit)));
        let too_long = emit.is_too_long();
        let verdict = match outcome {
            Ok(Outcome(Verdict::Ok)) if too_long => Verdict::Reject(RECORD_TOO_LARGE.into()),
            Ok(Outcome(verdict)) => verdict,
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                panicked = Some(text.clone());
                Verdict::Fail(text.into())
            }
        };
        if verdict == Verdict::Ok {
            continue;
        }
        answer.rewind(before);
        if !matches!(verdict, Verdict::Drop(_)) {
            status = Status::Partial;
        }
        report(&view, verdict, answer);
    }
    (status, panicked)
}

/// Says what became of an input.
fn report(input: &RawView<'_>, verdict: Verdict, answer: &mut RecordWriter) {
    let (kind, delay, reason) = match verdict {
        Verdict::Ok => return,
        Verdict::Drop(reason) => (RecordType::Drop, None, reason),
        Verdict::Fail(reason) => (RecordType::Fail, None, reason),
        Verdict::Reject(reason) => (RecordType::Reject, None, reason),
        Verdict::Nack(delay, reason) => (RecordType::Nack, Some(delay), reason),
    };
    let head = RecordHead { kind, index: input.index, place: 0, event_time: None, key: &[], headers: &[] };
    // Short enough by far for the numbers of a record.
    let _ = answer.push_with(&head, |bytes| {
        if let Some(delay) = delay {
            let milliseconds = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&milliseconds.to_le_bytes());
        }
        bytes.extend_from_slice(cut(&reason).as_bytes());
    });
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text: Cow<'_, str> = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => Cow::Borrowed(text),
        (None, Some(text)) => Cow::Borrowed(text.as_str()),
        (None, None) => Cow::Borrowed("a panic without a text"),
    };
    format!("panicked: {}", cut(&text))
}

/// The first 4 KiB, not splitting a character.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_REASON)).unwrap_or(text)
}

const MAX_REASON: usize = 4096;
/// Why an input whose output does not fit a frame is rejected (VX-213).
const RECORD_TOO_LARGE: &str = "RECORD_TOO_LARGE: an output does not fit a frame; raise transport.max_frame";

#[cfg(test)]
#[path = "function_tests.rs"]
mod tests;
