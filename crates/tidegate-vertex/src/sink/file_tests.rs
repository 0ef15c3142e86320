//! Files that are written, cut back and opened again.

use std::fs;

use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

use super::*;
use crate::{
    batch::Record,
    fence::{FenceTable, Reason},
    sink::{OutputIds, Session},
};

const SESSION: Session = Session { partition: PartitionId(0), generation: Generation(1), nonce: 1 };

fn publish(sink: &mut Append, values: &[&[u8]]) -> Vec<Rejected> {
    let mut fence = FenceTable::create(1, 1).unwrap();
    let (_, guard) = fence.bind(PartitionId(0), Generation(1)).unwrap();
    let outputs: Vec<Output> = values
        .iter()
        .map(|value| Output { position: Position(0), number: 0, record: Record::of(value.to_vec()) })
        .collect();
    let ids = OutputIds::new(1, "out");
    let (first, last) = (Position(0), Position(0));
    let delivery = Delivery {
        session: SESSION,
        epoch: EpochId(1),
        first,
        last,
        source: 0,
        outputs: &outputs,
        ids: &ids,
    };
    let published = sink.publish(&delivery, &guard).unwrap();
    assert_eq!(published.through, outputs.len());
    published.rejected
}

fn config(dir: &tempfile::TempDir, keys: &str) -> FileSink {
    let mut config: FileSink = toml::from_str(&format!("path = \"out\"\n{keys}")).unwrap();
    config.path = dir.path().join("out");
    config
}

/// Rules: VX-853, VX-854.
#[test]
fn rows_have_a_header_row_and_fields_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let keys = config(&dir, "format = \"csv\"\ncolumns = [\"id\", \"text, quoted\"]");
    let mut sink = Append::open(&keys, Lines::Values).unwrap();
    let values: [&[u8]; 5] = [
        br#"{"text, quoted":"a \"b\"\nc","id":7}"#,
        br#"{"id":null}"#,
        b"[1]",
        br#"{"other":1}"#,
        br#"{"id":true}"#,
    ];
    let rejected = publish(&mut sink, &values);
    assert_eq!(rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), [2, 3]);
    let token = sink.flush().unwrap().unwrap();
    let expected = "id,\"text, quoted\"\n7,\"a \"\"b\"\"\nc\"\n,\ntrue,\n";
    assert_eq!(fs::read_to_string(&keys.path).unwrap(), expected);
    publish(&mut sink, &[br#"{"id":"late, and longer than what comes instead"}"#]);
    // A crash: the next one cuts back, and the header row stays one.
    let mut sink = Append::open(&keys, Lines::Values).unwrap();
    sink.restore(&token, &[]).unwrap();
    publish(&mut sink, &[br#"{"id":"next"}"#]);
    assert_eq!(fs::read_to_string(&keys.path).unwrap(), format!("{expected}next,\n"));
    let other = config(&dir, "format = \"csv\"\ncolumns = [\"x\"]");
    let refused = Append::open(&other, Lines::Values).unwrap_err();
    assert!(matches!(refused, SinkError::Setting { key: "columns", .. }), "{refused}");
}

/// Rules: VX-853, VX-854.
#[test]
fn an_array_has_as_many_rows_as_were_committed() {
    let dir = tempfile::tempdir().unwrap();
    let keys = config(&dir, "format = \"npy\"\ndtype = \"<u2\"\nshape = [2]");
    let header = |path| Header::read(&mut File::open(path).unwrap()).unwrap().unwrap();
    let mut sink = Append::open(&keys, Lines::Values).unwrap();
    let rejected = publish(&mut sink, &[&[1, 0, 2, 0], &[1, 2, 3], &[3, 0, 4, 0]]);
    assert_eq!(rejected.len(), 1);
    let token = sink.flush().unwrap().unwrap();
    assert_eq!(header(&keys.path).shape, [2, 2]);
    publish(&mut sink, &[&[9, 9, 9, 9]]);
    assert_eq!(header(&keys.path).shape, [2, 2], "not committed");
    let mut sink = Append::open(&keys, Lines::Values).unwrap();
    sink.restore(&token, &[]).unwrap();
    publish(&mut sink, &[&[5, 0, 6, 0]]);
    sink.flush().unwrap();
    let found = header(&keys.path);
    assert_eq!((found.descr.as_str(), found.shape.as_slice()), ("<u2", &[3, 2][..]));
    let bytes = fs::read(&keys.path).unwrap();
    assert_eq!(bytes[found.data as usize..], [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    assert_eq!(found.data % 64, 0);
    let other = config(&dir, "format = \"npy\"\ndtype = \"<u2\"\nshape = [3]");
    assert!(matches!(
        Append::open(&other, Lines::Values).unwrap_err(),
        SinkError::Setting { key: "dtype and shape", .. }
    ));
}

/// A session that lost its right leaves nothing that is written with the right of the next one.
///
/// Rules: VX-722, VX-854.
#[test]
fn what_may_not_be_written_is_not_written_later() {
    let dir = tempfile::tempdir().unwrap();
    for keys in ["", "format = \"csv\"\ncolumns = [\"id\"]"] {
        let mut sink = Append::open(&config(&dir, keys), Lines::Values).unwrap();
        let mut fence = FenceTable::create(1, 1).unwrap();
        let (_, guard) = fence.bind(PartitionId(0), Generation(1)).unwrap();
        guard.revoke(Reason::Operator);
        let record = Record::of(br#"{"id":"fenced"}"#.to_vec());
        let outputs = [Output { position: Position(0), number: 0, record }];
        let (first, last, ids) = (Position(0), Position(0), &OutputIds::new(1, "out"));
        let delivery =
            Delivery { session: SESSION, epoch: EpochId(1), first, last, source: 0, outputs: &outputs, ids };
        assert!(matches!(sink.publish(&delivery, &guard), Err(SinkError::Fenced(_))));
        publish(&mut sink, &[br#"{"id":"next"}"#]);
        let written = fs::read_to_string(dir.path().join("out")).unwrap();
        let expected = if keys.is_empty() { "{\"id\":\"next\"}\n" } else { "id\nnext\n" };
        assert_eq!(written, expected);
        fs::remove_file(dir.path().join("out")).unwrap();
    }
}

/// What was written since the last commit can be kept, but for a record that was not finished.
///
/// Rules: VX-002, VX-854.
#[test]
fn what_is_there_is_kept_without_its_torn_end() {
    let npy = "format = \"npy\"\ndtype = \"<u4\"";
    let csv = "format = \"csv\"\ncolumns = [\"id\"]";
    let lines = [br#"{"id":"a\nb"}"#.as_slice(), br#"{"id":"c\nd"}"#];
    for (keys, values) in [("", lines), (csv, lines), (npy, [&[1, 0, 0, 0], &[2, 0, 0, 0]])] {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Append::open(&config(&dir, keys), Lines::Values).unwrap();
        publish(&mut sink, &values[..1]);
        let token = sink.flush().unwrap().unwrap();
        publish(&mut sink, &values[1..]);
        let whole = fs::read(dir.path().join("out")).unwrap();
        for torn in ["", "\"x", "\"x\ny"].iter().filter(|torn| !torn.contains('\n') || keys == csv) {
            fs::write(dir.path().join("out"), [&whole, torn.as_bytes()].concat()).unwrap();
            let mut sink = Append::open(&config(&dir, keys), Lines::Values).unwrap();
            sink.keep(&token, &[]).unwrap();
            assert_eq!(fs::read(dir.path().join("out")).unwrap(), whole, "{keys} {torn}");
            assert_eq!(sink.len, whole.len() as u64);
        }
        fs::write(dir.path().join("out"), &whole[..3]).unwrap();
        assert!(matches!(sink.keep(&token, &[]), Err(SinkError::Shorter { .. })));
    }
}

/// Rules: VX-853.
#[test]
fn keys_that_do_not_fit_the_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (keys, key) in [
        ("format = \"csv\"", "columns"),
        ("columns = [\"a\"]", "columns"),
        ("format = \"npy\"", "dtype"),
        ("format = \"npy\"\ndtype = \"f4\"", "dtype"),
        ("format = \"npy\"\ndtype = \"<f4\"\nshape = [0]", "shape"),
        ("shape = [1]", "dtype or shape"),
        ("mode = \"epoch\"\nformat = \"npy\"\ndtype = \"<f4\"", "format"),
    ] {
        match Append::open(&config(&dir, keys), Lines::Values).unwrap_err() {
            SinkError::Setting { key: found, .. } => assert_eq!(found, key, "{keys}"),
            other => panic!("{keys}: {other}"),
        }
    }
}
