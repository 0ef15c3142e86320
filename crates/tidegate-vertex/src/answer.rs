//! What a worker answered to a batch: one private copy of the payload, and what it says about each input.
//!
//! The copy was taken out of shared memory once. It is checked when the answer is made, its records are brought into the order
//! of their inputs if they are not, and nothing is taken out of it before it is wanted: outputs are parts of the copy (VX-221).

use bytes::Bytes;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::{
    record::{Direction, RawView, RecordFault, RecordType, Records},
    status::Status,
};

use crate::batch::Record;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    status: Status,
    /// Records in the order of their inputs; those of one input as the worker gave them.
    payload: Bytes,
    inputs: u32,
    routes: usize,
}

/// What became of one input, as the function says.
#[derive(Debug, Clone)]
pub enum Verdict<'a> {
    /// Done, with these outputs; without any it was filtered.
    Done(Outputs<'a>),
    /// Left out on purpose.
    Dropped,
    /// To be tried again.
    Failed(String),
    /// To be given back to the source, and to come again after this time.
    Nacked(Nanos, String),
    /// Bad for good.
    Rejected(String),
}

/// The outputs of one input.
#[derive(Debug, Clone)]
pub struct Outputs<'a> {
    payload: &'a Bytes,
    records: Records<'a>,
    count: u32,
}

/// One output of an input, as the function gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Number of its route.
    pub route: usize,
    /// Key, value, headers, time.
    pub record: Record,
}

impl Answer {
    /// An answer that is about the batch as a whole, and says nothing about its inputs.
    pub fn of_batch(status: Status) -> Self {
        Self { status, payload: Bytes::new(), inputs: 0, routes: 0 }
    }

    /// The answer in a payload of so many records to so many inputs. `routes` is how many there are.
    ///
    /// # Errors
    /// The first record that is wrong (VX-400).
    pub fn parse(
        status: Status,
        payload: Vec<u8>,
        records: u32,
        inputs: u32,
        routes: usize,
    ) -> Result<Self, RecordFault> {
        let parsed = Records::parse(&payload, records, Direction::Response { inputs })?;
        let payload = if parsed.are_in_order() { payload } else { in_order(&payload) };
        Ok(Self { status, payload: payload.into(), inputs, routes })
    }

    /// How it went as a whole.
    pub fn status(&self) -> Status {
        self.status
    }

    /// What became of each input, in order.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict<'_>> {
        let mut rest = Records::accepted(&self.payload);
        (0..self.inputs).map(move |input| self.verdict(input, &mut rest))
    }

    /// The verdict on the next input; `rest` begins with its records, if it has any.
    fn verdict<'a>(&'a self, input: u32, rest: &mut Records<'a>) -> Verdict<'a> {
        let mut outputs = Outputs { payload: &self.payload, records: rest.clone(), count: 0 };
        let mut other = None;
        while let Some(view) = rest.next_of(input) {
            let reason = || String::from_utf8_lossy(view.value).into_owned();
            match view.kind {
                // VX-402.
                RecordType::Data if view.place as usize >= self.routes => {
                    other = Some(Verdict::Rejected(format!("there is no route {}", view.place)));
                }
                RecordType::Data => outputs.count += 1,
                RecordType::Drop => other = Some(Verdict::Dropped),
                RecordType::Fail => other = Some(Verdict::Failed(reason())),
                RecordType::Nack => other = Some(nacked(view.value)),
                RecordType::Reject => other = Some(Verdict::Rejected(reason())),
            }
        }
        // Outputs of an input with another verdict do not count (VX-401).
        other.unwrap_or(Verdict::Done(outputs))
    }
}

impl<'a> Outputs<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none: the input was filtered.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The outputs as they are in the payload.
    pub fn views(self) -> impl Iterator<Item = RawView<'a>> {
        let Self { records, count, .. } = self;
        // All records of the input are outputs.
        records.take(count as usize)
    }

    /// The outputs as parts of the payload.
    pub fn emitted(self) -> impl Iterator<Item = Emitted> {
        let payload = self.payload;
        let part = |bytes: &[u8]| if bytes.is_empty() { Bytes::new() } else { payload.slice_ref(bytes) };
        self.views().map(move |view| {
            let (value, key, headers) = (part(view.value), part(view.key), part(view.headers));
            let record = Record { value, key, headers, event_time: view.event_time };
            Emitted { route: view.place as usize, record }
        })
    }
}

/// What a nack says: milliseconds, then the reason.
fn nacked(value: &[u8]) -> Verdict<'static> {
    // That it has them was checked when the answer was made.
    let (delay, reason) = value.split_first_chunk::<4>().unwrap_or((&[0; 4], value));
    let delay = Nanos::from_millis(u32::from_le_bytes(*delay).into());
    Verdict::Nacked(delay, String::from_utf8_lossy(reason).into_owned())
}

/// The records of a payload that was accepted, in the order of their inputs.
fn in_order(payload: &[u8]) -> Vec<u8> {
    let mut rest = Records::accepted(payload);
    let mut records = Vec::new();
    loop {
        let before = rest.rest();
        let Some(view) = rest.next() else { break };
        let len = before.len() - rest.rest().len();
        records.push((view.index, before.get(..len).unwrap_or_default()));
    }
    // Stable: the records of one input stay as they are.
    records.sort_by_key(|(index, _)| *index);
    records.into_iter().map(|(_, record)| record).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use tidegate_udf::wire::record::{RecordHead, RecordWriter};

    use super::*;

    type Said<'a> = (RecordType, u32, u32, &'a str);

    fn answer(records: &[Said<'_>], inputs: u32) -> Result<Answer, RecordFault> {
        let mut writer = RecordWriter::default();
        for &(kind, index, place, value) in records {
            let head = RecordHead { kind, index, place, event_time: None, key: b"k", headers: &[] };
            writer.push(&head, value.as_bytes()).unwrap();
        }
        Answer::parse(Status::Ok, writer.bytes().to_vec(), writer.count(), inputs, 2)
    }

    fn told(answer: &Answer) -> Vec<String> {
        let text = |verdict: Verdict<'_>| match verdict {
            Verdict::Done(outputs) => {
                assert_eq!(outputs.len(), outputs.clone().views().count());
                let emitted = outputs.emitted().map(|Emitted { route, record }| {
                    assert_eq!(record.key, "k");
                    format!("{route}:{}", String::from_utf8_lossy(&record.value))
                });
                emitted.collect::<Vec<_>>().join(" ")
            }
            Verdict::Dropped => "dropped".to_owned(),
            Verdict::Failed(reason) => format!("failed {reason}"),
            Verdict::Nacked(delay, reason) => format!("nacked {} {reason}", delay.0),
            Verdict::Rejected(reason) => format!("rejected {reason}"),
        };
        answer.verdicts().map(text).collect()
    }

    const DATA: RecordType = RecordType::Data;

    /// Rules: VX-401, VX-402, VX-603.
    #[test]
    fn each_input_has_a_verdict_and_outputs_of_one_that_failed_do_not_count() {
        let said = [
            (DATA, 0, 0, "a"),
            (DATA, 0, 1, "b"),
            (DATA, 2, 0, "lost"),
            (RecordType::Fail, 2, 0, "why"),
            (RecordType::Drop, 3, 0, ""),
            (RecordType::Reject, 4, 0, "bad"),
            (DATA, 5, 2, "nowhere"),
            (DATA, 6, 0, "lost, too"),
            (RecordType::Nack, 6, 0, "\x02\x01\0\0later"),
        ];
        let expected = [
            "0:a 1:b",
            "",
            "failed why",
            "dropped",
            "rejected bad",
            "rejected there is no route 2",
            "nacked 258000000 later",
            "",
        ];
        assert_eq!(told(&answer(&said, 8).unwrap()), expected);
    }

    /// A worker may answer its inputs in any order; outputs of one input keep theirs.
    /// Rules: VX-400.
    #[test]
    fn answers_in_any_order_are_told_in_that_of_the_inputs() {
        let said =
            [(DATA, 2, 0, "e"), (DATA, 0, 0, "a"), (DATA, 2, 1, "f"), (DATA, 1, 0, "c"), (DATA, 0, 0, "b")];
        assert_eq!(told(&answer(&said, 3).unwrap()), ["0:a 0:b", "0:c", "0:e 1:f"]);
        assert_eq!(answer(&said, 2).unwrap_err().field, "index (below the batch size)");
    }

    /// The outputs are parts of the one copy.
    /// Rules: VX-221.
    #[test]
    fn outputs_are_not_copied_again() {
        let answer = answer(&[(DATA, 0, 0, "long enough to have a place of its own")], 1).unwrap();
        let place = answer.payload.as_ptr_range();
        for verdict in answer.verdicts() {
            let Verdict::Done(outputs) = verdict else { continue };
            assert!(outputs.emitted().all(|output| place.contains(&output.record.value.as_ptr())));
        }
    }
}
