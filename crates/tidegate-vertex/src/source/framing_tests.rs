//! Records cut out of bytes that come in every possible piece.

use proptest::prelude::*;

use super::*;

/// Cuts everything out of `bytes`, which come in pieces of `piece` bytes.
fn cut_all(framing: Framing, bytes: &[u8], piece: usize) -> Result<Vec<(usize, Vec<u8>)>, FramingError> {
    let mut cutter = Cutter::new(framing);
    let (mut start, mut end, mut records) = (0, 0, Vec::new());
    loop {
        let last = end == bytes.len();
        match cutter.cut(&bytes[start..end], last, 64)? {
            Cut::Record { taken, value } => {
                records.push((start, value));
                start += taken;
            }
            Cut::Skip { taken } => start += taken,
            Cut::Unfit { taken, fault } => {
                records.push((start, format!("{fault:?}").into_bytes()));
                start += taken;
            }
            Cut::More if last => return Ok(records),
            Cut::More => end = (end + piece).min(bytes.len()),
        }
    }
}

fn texts(records: &[(usize, Vec<u8>)]) -> Vec<(usize, &str)> {
    records.iter().map(|(at, value)| (*at, str::from_utf8(value).unwrap())).collect()
}

#[test]
fn rows_are_objects_named_by_the_header_row() {
    let text = b"id,name\r\n1,\"a, \"\"b\"\"\nc\"\r\n\r\n2\n3,last";
    let records = cut_all(Framing::Csv, text, 3).unwrap();
    let expected = [
        (9, r#"{"id":"1","name":"a, \"b\"\nc"}"#),
        (24, r#"{"id":"2"}"#),
        (31, r#"{"id":"3","name":"last"}"#),
    ];
    let found = texts(&records);
    assert_eq!(found.iter().map(|(_, text)| *text).collect::<Vec<_>>(), expected.map(|(_, text)| text));
}

#[test]
fn what_is_no_record_is_refused() {
    let long = [b'x'; 65];
    for (framing, bytes, error) in [
        (Framing::Ndjson, &long[..], FramingError::TooLong { max: 64 }),
        (Framing::Csv, &long[..], FramingError::TooLong { max: 64 }),
        (Framing::Csv, b"a\xff\n1\n", FramingError::Utf8),
        (Framing::Length, b"\x41\0\0\0", FramingError::TooLong { max: 64 }),
    ] {
        assert_eq!(cut_all(framing, bytes, 2).unwrap_err(), error, "{framing:?}");
    }
}

/// What is wrong with one record is no reason not to read the next.
/// Rules: VX-620.
#[test]
fn what_is_behind_a_record_that_says_nothing_is_read() {
    let fields = FramingError::Fields { found: 2, expected: 1 };
    for (framing, bytes, faults) in [
        (Framing::Csv, &b"a\n1\n1,2\n\xff\n3\n"[..], vec![(4, fields), (8, FramingError::Utf8)]),
        (
            Framing::Length,
            b"\x01\0\0\0a\x03\0\0\0ab",
            vec![(5, FramingError::Short { found: 6, expected: 7 })],
        ),
        (Framing::Length, b"\x01\0\0\0a\x03\0", vec![(5, FramingError::Short { found: 2, expected: 4 })]),
    ] {
        let records = cut_all(framing, bytes, 2).unwrap();
        let unfit: Vec<_> = faults.iter().map(|(at, fault)| (*at, format!("{fault:?}"))).collect();
        let found = texts(&records);
        assert!(unfit.iter().all(|(at, fault)| found.contains(&(*at, fault.as_str()))), "{found:?}");
        assert_eq!(found.len() - unfit.len(), if framing == Framing::Csv { 2 } else { 1 }, "{found:?}");
    }
}

proptest! {
    /// The pieces that bytes come in change neither records nor positions; every record is found again from its position.
    #[test]
    fn pieces_do_not_matter(bytes in prop::collection::vec(prop::sample::select(b"ab\n\r,\"\x01\0".to_vec()), 0..80)) {
        for framing in [Framing::Ndjson, Framing::Csv, Framing::Length] {
            let whole = cut_all(framing, &bytes, bytes.len().max(1));
            for piece in [1, 2, 7] {
                prop_assert_eq!(&cut_all(framing, &bytes, piece), &whole);
            }
        }
    }
}
