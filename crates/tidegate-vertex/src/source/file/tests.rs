//! Files that are read, followed, rotated, cut and replaced.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::*;

const BUDGET: Budget = Budget { records: 100, bytes: 1 << 20, value: 1 << 20 };
const ONLY: PartitionId = PartitionId(0);

struct Place {
    dir: tempfile::TempDir,
    woken: Receiver<()>,
    waker: Waker,
}

impl Place {
    fn new() -> Self {
        let (wake, woken) = channel();
        let waker = Waker::new(move || wake.send(()).unwrap_or(()));
        Self { dir: tempfile::tempdir().unwrap(), woken, waker }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until a file that is made now is younger than this one.
    fn wait_for_a_younger_than(&self, name: &str) {
        let born = |name: &str| rotated::born(&fs::metadata(self.path(name)).unwrap()).unwrap();
        loop {
            self.append("probe", "");
            let probed = born("probe");
            fs::remove_file(self.path("probe")).unwrap();
            if probed > born(name) {
                return;
            }
        }
    }

    /// Gives files other names, and makes a younger one.
    fn rotate(&self, renamed: &[(&str, &str)], name: &str, text: &str) {
        self.wait_for_a_younger_than(name);
        renamed.iter().for_each(|(from, to)| fs::rename(self.path(from), self.path(to)).unwrap());
        self.append(name, text);
    }

    fn files(&self, name: &str, format: Format, follow: bool) -> Result<Files, SourceError> {
        Files::open(&FileSource { path: self.path(name), format, follow }, &self.waker)
    }

    /// The next so many records of a file that is followed.
    fn take(&self, files: &mut Files, count: usize) -> Vec<Input> {
        let mut inputs = Vec::new();
        while inputs.len() < count {
            match files.poll(ONLY, BUDGET).unwrap() {
                Polled::Inputs(more) => inputs.extend(more),
                Polled::Idle => self.woken.recv_timeout(Duration::from_secs(60)).unwrap(),
                other => panic!("a file that is followed does not end: {other:?}"),
            }
        }
        inputs
    }
}

fn values(inputs: &[Input]) -> Vec<&str> {
    inputs.iter().map(|input| str::from_utf8(&input.record.value).unwrap()).collect()
}

fn all(files: &mut Files, partition: PartitionId) -> Vec<Input> {
    let mut inputs = Vec::new();
    while let Polled::Inputs(more) = files.poll(partition, BUDGET).unwrap() {
        inputs.extend(more);
    }
    inputs
}

fn resume(files: &mut Files, position: Position) -> Resume {
    Resume { position, identity: files.identity(ONLY, position).unwrap() }
}

/// A file that comes between others, one with another name, and one that is gone.
/// Cases: CT-49.
/// Rules: VX-830, VX-832.
#[test]
fn a_file_keeps_its_number_when_others_come_and_go() {
    let place = Place::new();
    for name in ["b", "d", "f"] {
        place.append(name, &format!("{name}1\n{name}2\n"));
    }
    let mut files = place.files("?", Format::Ndjson, false).unwrap();
    let known: Vec<Option<Resume>> = (0..3)
        .map(|partition| {
            files.open(PartitionId(partition), None).unwrap();
            let first = all(&mut files, PartitionId(partition)).remove(0);
            let identity = files.identity(PartitionId(partition), first.next).unwrap();
            Some(Resume { position: first.next, identity })
        })
        .collect();
    for name in ["a", "c"] {
        place.append(name, &format!("{name}1\n"));
    }
    fs::rename(place.path("b"), place.path("z")).unwrap();
    let read = |known: &[Option<Resume>]| {
        let mut files = place.files("?", Format::Ndjson, false).unwrap();
        files.remember(known);
        let count = files.partitions();
        let mut read = |partition: u32| {
            let from = known.get(partition as usize).and_then(Option::as_ref);
            let opened = files.open(PartitionId(partition), from);
            opened.map(|_| values(&all(&mut files, PartitionId(partition))).join(" "))
        };
        (0..count).map(&mut read).map(Result::ok).collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(read(&known), [text("b2"), text("d2"), text("f2"), text("a1"), text("c1")]);
    // One that was not committed yet has no name.
    let without = [known[0].clone(), None, known[2].clone()];
    assert_eq!(read(&without), [text("b2"), text("a1"), text("f2"), text("c1"), text("d1 d2")]);
    fs::remove_file(place.path("d")).unwrap();
    assert_eq!(read(&known), [text("b2"), None, text("f2"), text("a1"), text("c1")]);
}

/// Rules: VX-830.
#[test]
fn each_file_is_a_partition_in_the_order_of_names() {
    let place = Place::new();
    place.append("b.csv", "n,t\n3,three\n");
    place.append("a.csv", "n,t\n1,one\n2,two\n");
    let mut files = place.files("*.csv", Format::Csv, false).unwrap();
    assert_eq!(files.partitions(), 2);
    for (partition, expected) in
        [(0, vec![r#"{"n":"1","t":"one"}"#, r#"{"n":"2","t":"two"}"#]), (1, vec![r#"{"n":"3","t":"three"}"#])]
    {
        assert_eq!(files.open(PartitionId(partition), None).unwrap(), Position(0));
        assert_eq!(values(&all(&mut files, PartitionId(partition))), expected);
    }
    // Behind the header row it still knows the names.
    files.open(ONLY, None).unwrap();
    let first = all(&mut files, ONLY)[0].clone();
    let from = resume(&mut files, first.next);
    assert_eq!(files.open(ONLY, Some(&from)).unwrap(), first.next);
    assert_eq!(values(&all(&mut files, ONLY)), [r#"{"n":"2","t":"two"}"#]);
    assert!(place.files("*.txt", Format::Ndjson, false).is_err());
}

/// Cases: CT-49.
/// Rules: VX-830.
#[test]
fn a_followed_file_is_finished_before_its_successor_is_begun() {
    let place = Place::new();
    place.append("log", "one\ntw");
    let mut files = place.files("log", Format::Ndjson, true).unwrap();
    files.open(ONLY, None).unwrap();
    assert_eq!(values(&place.take(&mut files, 1)), ["one"]);
    assert_eq!(files.poll(ONLY, BUDGET).unwrap(), Polled::Idle, "a line without newline is no record yet");
    place.append("log", "o\nlast");
    let two = place.take(&mut files, 1);
    assert_eq!(values(&two), ["two"]);
    let from = resume(&mut files, two[0].next);
    fs::rename(place.path("log"), place.path("log.1")).unwrap();
    place.append("log", "new\n");
    let rest = place.take(&mut files, 2);
    assert_eq!(values(&rest), ["last", "new"]);
    assert_eq!((rest[0].position, rest[1].position), (Position(8), Position(12)));
    // A run that came to the middle of the old file finds it under its new name.
    let mut again = place.files("log", Format::Ndjson, true).unwrap();
    assert_eq!(again.open(ONLY, Some(&from)).unwrap(), Position(8));
    assert_eq!(place.take(&mut again, 2), rest);
    // One that came to the middle of the new file goes on there.
    let from = resume(&mut files, rest[1].next);
    place.append("log", "newer\n");
    let mut again = place.files("log", Format::Ndjson, true).unwrap();
    again.open(ONLY, Some(&from)).unwrap();
    let newer = place.take(&mut again, 1);
    assert_eq!((values(&newer), newer[0].position), (vec!["newer"], Position(16)));
}

/// While nobody looks, and while nothing runs.
/// Cases: CT-49.
/// Rules: VX-830, VX-832.
#[test]
fn no_file_is_passed_over_however_often_it_is_rotated() {
    type Renamed = &'static [(&'static str, &'static str)];
    let numbers: [Renamed; 3] = [
        &[("a.log", "a.log.1")],
        &[("a.log.1", "a.log.2"), ("a.log", "a.log.1")],
        &[("a.log.2", "a.log.3"), ("a.log.1", "a.log.2"), ("a.log", "a.log.1")],
    ];
    let dates: [Renamed; 3] =
        [&[("a.log", "a-20261121.log")], &[("a.log", "a-20261122.log")], &[("a.log", "a-20261123.log")]];
    for rotations in [numbers, dates] {
        let place = Place::new();
        place.append("a.log.7", "older\n");
        place.wait_for_a_younger_than("a.log.7");
        place.append("a.log", "a1\na2\n");
        let mut files = place.files("a.log", Format::Ndjson, true).unwrap();
        files.open(ONLY, None).unwrap();
        let read = place.take(&mut files, 2);
        let from = resume(&mut files, read[0].next);
        for (renamed, text) in rotations.iter().zip(["b1\n", "c1\n", "d1\n"]) {
            place.rotate(renamed, "a.log", text);
            place.append("b.log.1", "of another one\n");
        }
        let rest = place.take(&mut files, 3);
        assert_eq!(values(&rest), ["b1", "c1", "d1"]);
        assert_eq!(rest.iter().map(|input| input.position.0).collect::<Vec<_>>(), [6, 9, 12]);
        let mut again = place.files("a.log", Format::Ndjson, true).unwrap();
        again.open(ONLY, Some(&from)).unwrap();
        assert_eq!(values(&place.take(&mut again, 4)), ["a2", "b1", "c1", "d1"]);
    }
}

/// Cases: CT-49.
/// Rules: VX-832, VX-833.
#[test]
fn what_is_not_committed_of_several_files_is_read_again_from_where_it_is() {
    let place = Place::new();
    place.append("log", "a1\na2\n");
    let mut files = place.files("log", Format::Ndjson, true).unwrap();
    files.open(ONLY, None).unwrap();
    let mut read = place.take(&mut files, 2);
    place.rotate(&[("log", "log.1")], "log", "b1\n");
    read.extend(place.take(&mut files, 1));
    place.rotate(&[("log.1", "log.2"), ("log", "log.1")], "log", "c1\n");
    read.extend(place.take(&mut files, 1));
    assert_eq!(values(&read), ["a1", "a2", "b1", "c1"]);
    for done in 0..read.len() {
        let from = resume(&mut files, read[done].next);
        let mut again = place.files("log", Format::Ndjson, true).unwrap();
        assert_eq!(again.open(ONLY, Some(&from)).unwrap(), read[done].next);
        assert_eq!(place.take(&mut again, read.len() - done - 1), read[done + 1..]);
    }
}

/// Cases: CT-49.
/// Rules: VX-832.
#[test]
fn a_rotation_that_leaves_too_little_is_refused() {
    let place = Place::new();
    place.append("log", "a1\n");
    let mut files = place.files("log", Format::Ndjson, true).unwrap();
    files.open(ONLY, None).unwrap();
    place.take(&mut files, 1);
    // One that was replaced at once is no rotation.
    fs::remove_file(place.path("log")).unwrap();
    place.append("log", "b1\n");
    assert_eq!(values(&place.take(&mut files, 1)), ["b1"]);
    place.rotate(&[("log", "log.1")], "log", "c1\n");
    place.rotate(&[("log", "log.1")], "log", "d1\n");
    let error = files.poll(ONLY, BUDGET).unwrap_err();
    let SourceError::Rotated { found, .. } = error else { panic!("{error}") };
    assert_eq!(found, place.path("log.1"));
}

/// Cases: CT-48, CT-49.
/// Rules: VX-832, VX-833.
#[test]
fn a_file_that_is_not_what_was_read_is_refused() {
    let place = Place::new();
    place.append("log", "one\ntwo\n");
    let open = |from: &Resume| {
        let error = place.files("log", Format::Ndjson, false).unwrap().open(ONLY, Some(from)).unwrap_err();
        error.to_string()
    };
    let mut files = place.files("log", Format::Ndjson, false).unwrap();
    files.open(ONLY, None).unwrap();
    all(&mut files, ONLY);
    let from = resume(&mut files, Position(8));
    fs::write(place.path("log"), "one\n").unwrap();
    assert!(open(&from).contains("ends at 4, before the position 8"));
    fs::write(place.path("log"), "one\nTWO\n").unwrap();
    assert!(open(&from).contains("its beginning differs"), "{}", open(&from));
    fs::write(place.path("other"), "one\ntwo\n").unwrap();
    fs::rename(place.path("other"), place.path("log")).unwrap();
    assert!(open(&from).contains("its inode differs"));
    // Behind what is compared at the beginning, what stands before the position counts.
    let long = "x".repeat(100_000);
    fs::write(place.path("log"), format!("{long}\nend\n")).unwrap();
    let mut files = place.files("log", Format::Ndjson, false).unwrap();
    files.open(ONLY, None).unwrap();
    let from = resume(&mut files, Position(100_005));
    fs::write(place.path("log"), format!("{long}\nEND\n")).unwrap();
    assert!(open(&from).contains("what stands before the position differs"), "{}", open(&from));
}

/// Cases: CT-49.
/// Rules: VX-832.
#[test]
fn a_followed_file_that_was_cut_is_refused() {
    let place = Place::new();
    place.append("log", "one\ntwo\n");
    let mut files = place.files("log", Format::Ndjson, true).unwrap();
    files.open(ONLY, None).unwrap();
    place.take(&mut files, 2);
    fs::write(place.path("log"), "new\n").unwrap();
    let error = files.poll(ONLY, BUDGET).unwrap_err();
    assert!(matches!(error, SourceError::Gap { resume: Position(8), found: Position(4) }), "{error}");
}

/// Cases: CT-48.
/// Rules: VX-832.
#[test]
fn rows_of_an_array_are_records() {
    let place = Place::new();
    let mut bytes = crate::npy::Header::encode("<u2", &[2], 3);
    bytes.extend_from_slice(&[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    fs::write(place.path("a.npy"), &bytes).unwrap();
    let mut files = place.files("a.npy", Format::Npy, false).unwrap();
    files.open(ONLY, None).unwrap();
    let rows = all(&mut files, ONLY);
    assert_eq!(
        rows.iter().map(|row| &row.record.value[..]).collect::<Vec<_>>(),
        [[1, 0, 2, 0], [3, 0, 4, 0], [5, 0, 6, 0]]
    );
    let from = resume(&mut files, Position(2));
    assert_eq!(files.open(ONLY, Some(&from)).unwrap(), Position(2));
    assert_eq!(all(&mut files, ONLY), rows[2..]);
    fs::write(place.path("a.npy"), crate::npy::Header::encode("<u2", &[2], 1)).unwrap();
    let error = files.open(ONLY, Some(&from)).unwrap_err();
    assert!(matches!(error, SourceError::Gap { found: Position(1), .. }), "{error}");
    let refused = place.files("a.npy", Format::Npy, true).unwrap_err();
    assert!(matches!(refused, SourceError::FollowNpy { .. }));
}
