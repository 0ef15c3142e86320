//! A directory of epochs against sessions that overlap, die in between, or have no business there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use super::*;
use crate::{
    batch::Record,
    fence::{FenceTable, Reason},
    sink::{Output, OutputIds},
};

/// One vertex of partition 0 with a session.
struct Writer {
    sink: Epochs,
    session: Session,
    guard: WriteGuard,
}

impl Writer {
    /// Opens the sink without putting up the barrier.
    fn new(dir: &Path, generation: u64, nonce: u64) -> Self {
        let generation = Generation(generation);
        let mut table = FenceTable::create(1, 1).unwrap();
        let (_, guard) = table.bind(PartitionId(0), generation).unwrap();
        let session = Session { partition: PartitionId(0), generation, nonce };
        Self { sink: Epochs::open(dir, Lines::Values).unwrap(), session, guard }
    }

    /// One that may write.
    fn ready(dir: &Path, generation: u64) -> Self {
        let mut writer = Self::new(dir, generation, generation);
        writer.barrier().unwrap();
        writer
    }

    fn barrier(&mut self) -> Result<(), SinkError> {
        self.sink.barrier(&self.session, &self.guard)
    }

    fn read_back(&mut self, since: Option<&Token>) -> u64 {
        self.sink.read_back(&self.session, since, &self.guard).unwrap()
    }

    fn stage(&mut self, epoch: u64, range: std::ops::Range<u64>) -> Result<(), SinkError> {
        let outputs = outputs(range.clone(), self.session.generation);
        let delivery = delivery(self.session, epoch, &range, &outputs);
        self.sink.stage(&delivery, &self.guard)
    }

    fn publish(&mut self, epoch: u64, range: std::ops::Range<u64>) -> Result<Published, SinkError> {
        let outputs = outputs(range.clone(), self.session.generation);
        let delivery = delivery(self.session, epoch, &range, &outputs);
        self.sink.publish(&delivery, &self.guard)
    }
}

/// One output of each input, which says who wrote it.
fn outputs(range: std::ops::Range<u64>, generation: Generation) -> Vec<Output> {
    let output = |position| Output {
        position: Position(position),
        number: 0,
        record: Record::of(format!("{position} {generation}").into_bytes()),
    };
    range.map(output).collect()
}

fn delivery<'a>(
    session: Session,
    epoch: u64,
    range: &std::ops::Range<u64>,
    outputs: &'a [Output],
) -> Delivery<'a> {
    static IDS: std::sync::LazyLock<OutputIds> = std::sync::LazyLock::new(|| OutputIds::new(1, "main"));
    let (first, last) = (Position(range.start), Position(range.end - 1));
    Delivery { session, epoch: EpochId(epoch), first, last, source: 0, outputs, ids: &IDS }
}

/// What readers see.
fn visible(dir: &Path) -> Vec<(String, String)> {
    let place = dir.join("p=0");
    let mut names: Vec<String> =
        entries(&place).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    let content = |name: String| (name.clone(), fs::read_to_string(place.join(name)).unwrap());
    names.into_iter().map(content).collect()
}

/// Rules: VX-840, VX-853.
#[test]
fn an_epoch_is_seen_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::ready(dir.path(), 1);
    assert_eq!(writer.read_back(None), 0);
    writer.stage(0x1F, 5..8).unwrap();
    assert_eq!(visible(dir.path()), []);
    let published = writer.publish(0x1F, 5..8).unwrap();
    let name = "000000000000001f-5-7.ndjson".to_owned();
    assert_eq!(published.through, 3);
    assert_eq!(published.token, Some(Token(name.clone().into_bytes())));
    assert_eq!(visible(dir.path()), [(name, "5 1\n6 1\n7 1\n".to_owned())]);
    let nothing = delivery(writer.session, 0x20, &(8..9), &[]);
    writer.sink.stage(&nothing, &writer.guard).unwrap();
    assert_eq!(writer.sink.publish(&nothing, &writer.guard).unwrap(), Published::default());
    assert_eq!(visible(dir.path()).len(), 1, "a file without lines");
}

/// What an older session does after the barrier fails, wherever it was stopped (Z1 to Z3).
/// Cases: CT-31.
/// Rules: VX-728, VX-755, VX-853.
#[test]
fn an_older_session_cannot_write_after_the_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = Writer::ready(dir.path(), 4);
    old.stage(1, 0..2).unwrap();
    old.publish(1, 0..2).unwrap();
    old.stage(2, 2..4).unwrap();
    let mut new = Writer::ready(dir.path(), 5);
    assert!(matches!(old.publish(2, 2..4), Err(SinkError::Refused { .. })));
    assert!(matches!(old.stage(3, 4..6), Err(SinkError::Refused { .. })));
    let since = Token(b"0000000000000001-0-1.ndjson".to_vec());
    assert_eq!(new.read_back(Some(&since)), 0);
    new.stage(2, 2..9).unwrap();
    new.publish(2, 2..9).unwrap();
    let names: Vec<String> = visible(dir.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["0000000000000001-0-1.ndjson", "0000000000000002-2-8.ndjson"]);
    let staging = entries(&dir.path().join("p=0")).unwrap();
    let staging = staging.iter().filter(|name| name.as_encoded_bytes().starts_with(b".")).count();
    assert_eq!(staging, 1, "directories of older sessions stay behind");
}

/// Rules: VX-714, VX-734, VX-755.
#[test]
fn a_session_that_is_not_the_newest_is_refused_at_its_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let mut new = Writer::ready(dir.path(), 5);
    let refused = Writer::new(dir.path(), 4, 1).barrier();
    assert!(
        matches!(refused, Err(SinkError::Newer { found: Generation(5), own: Generation(4), .. })),
        "{refused:?}"
    );
    // A ledger that was set back gives the same number again.
    let refused = Writer::new(dir.path(), 5, 6).barrier();
    assert!(matches!(refused, Err(SinkError::Regressed { generation: Generation(5), .. })), "{refused:?}");
    new.stage(1, 0..2).unwrap();
    new.publish(1, 0..2).unwrap();
}

/// Rules: VX-840, VX-853.
#[test]
fn what_is_visible_already_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Writer::ready(dir.path(), 1);
    for (epoch, range) in [(1, 0..3), (2, 3..5)] {
        first.stage(epoch, range.clone()).unwrap();
        first.publish(epoch, range).unwrap();
    }
    let mut second = Writer::ready(dir.path(), 2);
    let since = Token(b"0000000000000001-0-2.ndjson".to_vec());
    assert_eq!(second.read_back(Some(&since)), 1);
    second.stage(2, 3..5).unwrap();
    let published = second.publish(2, 3..5).unwrap();
    assert_eq!(published.through, 2);
    assert_eq!(visible(dir.path())[1].1, "3 1\n4 1\n", "written again by another session");
    let damaged = second.sink.read_back(&second.session, Some(&Token(b"x".to_vec())), &second.guard);
    assert!(matches!(damaged, Err(SinkError::Token { .. })), "{damaged:?}");
}

/// Files of epochs that were cut in another way are of another pipeline, or of a ledger that was lost.
/// Rules: VX-786, VX-853.
#[test]
fn what_overlaps_was_written_by_somebody_else() {
    for (epoch, range) in [(2, 3..6), (2, 9..11), (7, 4..8)] {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Writer::ready(dir.path(), 1);
        first.stage(2, 3..5).unwrap();
        first.publish(2, 3..5).unwrap();
        let mut second = Writer::ready(dir.path(), 2);
        assert_eq!(second.read_back(None), 1);
        for refused in [second.stage(epoch, range.clone()), second.publish(epoch, range.clone()).map(drop)] {
            assert!(
                matches!(refused, Err(SinkError::ForeignWriter { .. })),
                "epoch {epoch} of {range:?}: {refused:?}"
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::ready(dir.path(), 1);
    writer.stage(1, 0..2).unwrap();
    fs::write(dir.path().join("p=0").join("0000000000000001-0-1.ndjson"), "foreign\n").unwrap();
    assert!(matches!(writer.publish(1, 0..2), Err(SinkError::ForeignWriter { .. })));
    assert_eq!(visible(dir.path())[0].1, "foreign\n", "it was replaced");
}

/// Cases: CT-25.
/// Rules: VX-722, VX-723.
#[test]
fn nothing_is_written_without_a_permit() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::ready(dir.path(), 1);
    writer.stage(1, 0..2).unwrap();
    writer.guard.revoke(Reason::Operator);
    assert!(matches!(writer.publish(1, 0..2), Err(SinkError::Fenced(_))));
    assert!(matches!(writer.stage(2, 2..3), Err(SinkError::Fenced(_))));
    let mut fresh = Writer::new(dir.path(), 2, 2);
    fresh.guard.revoke(Reason::Operator);
    assert!(matches!(fresh.barrier(), Err(SinkError::Fenced(_))));
    assert_eq!(visible(dir.path()), []);
}
