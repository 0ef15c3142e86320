use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::header::{self, NpyHeader};
use super::*;
use crate::media::{self, FrameSource, MediaError, OpenOptions};
use crate::tensor::tensor::{Dtype, MajorOrder, TensorLayout};

const NUMBERS: [Dtype; 11] = [
    Dtype::Uint8,
    Dtype::Int8,
    Dtype::Uint16,
    Dtype::Int16,
    Dtype::Uint32,
    Dtype::Int32,
    Dtype::Uint64,
    Dtype::Int64,
    Dtype::Float32,
    Dtype::Float64,
    Dtype::Boolean,
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/npy/{name}.npy"))
}

/// Stem of the fixture of an element type: `f4` of `<f4`.
fn stem(dtype: Dtype) -> &'static str {
    dtype.npy_descr().trim_start_matches(['<', '|'])
}

fn open(name: &str) -> Result<Box<dyn FrameSource>, MediaError> {
    media::open(&fixture(name), OpenOptions::default())
}

fn open_whole(name: &str) -> Result<Box<dyn FrameSource>, MediaError> {
    media::open(&fixture(name), OpenOptions { single_tensor: true, raw: None })
}

fn open_bytes(bytes: Vec<u8>) -> Result<Box<dyn FrameSource>, MediaError> {
    media::open_stream("test", Box::new(std::io::Cursor::new(bytes)), OpenOptions::default())
}

fn error(outcome: Result<Box<dyn FrameSource>, MediaError>) -> MediaError {
    match outcome {
        Ok(source) => panic!("opened as {:?}", source.layout()),
        Err(error) => error,
    }
}

/// The elements in row order, whatever the order of the frame.
fn row_order(layout: &TensorLayout, bytes: &[u8]) -> Vec<u8> {
    assert!(layout.fits(bytes.len() as u64));
    layout.runs().flat_map(|run| bytes[run].to_vec()).collect()
}

/// Element `i` of the fixtures' arrays.
fn counting(dtype: Dtype, i: u8) -> Vec<u8> {
    match dtype {
        Dtype::Float32 => (f32::from(i) / 2.0).to_le_bytes().to_vec(),
        Dtype::Float64 => (f64::from(i) / 2.0).to_le_bytes().to_vec(),
        Dtype::Boolean => vec![u8::from(i.is_multiple_of(3))],
        _ => {
            let mut bytes = vec![0; dtype.element_size()];
            bytes[0] = i;
            bytes
        }
    }
}

/// All frames in row order, one after the other: elements 0 to 23 of a fixture.
fn drain(source: &mut dyn FrameSource) -> (usize, Vec<u8>) {
    let (mut frames, mut all) = (0, Vec::new());
    while let Some(frame) = source.next_frame().unwrap() {
        assert_eq!(frame.bytes.len() as u64, frame.layout.packed_bytes());
        all.extend(row_order(frame.layout, frame.bytes));
        frames += 1;
    }
    (frames, all)
}

fn check_fixture(
    mut source: Box<dyn FrameSource>,
    dtype: Dtype,
    order: MajorOrder,
    frames: usize,
    shape: &[i32],
) {
    assert_eq!(source.layout().dtype(), dtype);
    assert_eq!(source.layout().order(), order);
    assert_eq!(source.layout().shape(), shape);
    let expected: Vec<u8> = (0..24).flat_map(|i| counting(dtype, i)).collect();
    assert_eq!(drain(&mut *source), (frames, expected.clone()));
    assert!(source.next_frame().unwrap().is_none(), "the end stays the end");
    source.rewind().unwrap();
    assert_eq!(drain(&mut *source), (frames, expected));
}

#[test]
fn every_dtype_in_both_orders_as_numpy_wrote_it() {
    for dtype in NUMBERS {
        let name = stem(dtype);
        check_fixture(open(&format!("{name}-c")).unwrap(), dtype, MajorOrder::Row, 2, &[3, 4]);
        check_fixture(open(&format!("{name}-f")).unwrap(), dtype, MajorOrder::Column, 2, &[3, 4]);
        check_fixture(open_whole(&format!("{name}-c")).unwrap(), dtype, MajorOrder::Row, 1, &[2, 3, 4]);
        check_fixture(open_whole(&format!("{name}-f")).unwrap(), dtype, MajorOrder::Column, 1, &[2, 3, 4]);
    }
}

#[test]
fn every_format_version() {
    for version in 1..=3 {
        let source = open(&format!("version-{version}")).unwrap();
        check_fixture(source, Dtype::Int16, MajorOrder::Row, 2, &[3, 4]);
    }
}

#[test]
fn shapes_at_the_edges() {
    check_fixture(open("one-axis").unwrap(), Dtype::Uint32, MajorOrder::Row, 1, &[24]);
    check_fixture(open("one-frame-f").unwrap(), Dtype::Uint16, MajorOrder::Column, 1, &[4, 6]);
    check_fixture(open("nine-axes").unwrap(), Dtype::Uint8, MajorOrder::Row, 2, &[1, 1, 1, 1, 1, 1, 1, 12]);
    assert!(matches!(error(open_whole("nine-axes")), MediaError::Tensor { .. }));
}

#[test]
fn pipes_give_the_same_frames_and_cannot_be_rewound() {
    for name in ["f4-c", "f4-f"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let mut source = open_bytes(bytes).unwrap();
        let expected: Vec<u8> = (0..24).flat_map(|i| counting(Dtype::Float32, i)).collect();
        assert_eq!(drain(&mut *source), (2, expected));
    }
    let mut source = open_bytes(std::fs::read(fixture("f4-c")).unwrap()).unwrap();
    assert!(matches!(source.rewind(), Err(MediaError::NotRewindable { .. })));
}

#[test]
fn elements_that_tensors_cannot_hold_are_named() {
    let cases = [
        ("big-endian", ">f4", DtypeReason::BigEndian),
        ("complex", "<c8", DtypeReason::Complex),
        ("half", "<f2", DtypeReason::Unsupported),
        ("text", "<U4", DtypeReason::Unsupported),
        ("date", "<M8[D]", DtypeReason::Unsupported),
    ];
    for (name, expected, why) in cases {
        let error = error(open(name));
        assert!(error.to_string().contains(&format!("{name}.npy: elements of dtype {expected}")), "{error}");
        let MediaError::NpyHeader { source: NpyHeaderError::Dtype { descr, reason }, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((descr.as_str(), reason), (expected, why));
    }
    let records = error(open("records")).to_string();
    assert!(records.contains("[('gr\\xc3\\xbcn', '<f4')") && records.contains("save one field"), "{records}");
}

#[test]
fn arrays_without_frames_are_refused() {
    let scalar = error(open("scalar"));
    assert!(matches!(scalar, MediaError::NpyHeader { source: NpyHeaderError::NoAxis, .. }), "{scalar}");
    assert!(matches!(error(open("no-elements")), MediaError::NoElements { .. }));
}

/// Every cut of a file is an error that says how long it is and should be; a pipe notices at the same place or later.
#[test]
fn truncated_at_every_length() {
    for name in ["f4-c", "u2-f", "version-2"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cut.npy");
        for len in 1..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let outcome = media::open(&path, OpenOptions::default());
            let MediaError::Truncated { name, expected, found, .. } = error(outcome) else {
                panic!("{len} bytes were not called truncated")
            };
            assert_eq!(name, path.display().to_string());
            assert!(found == len as u64 && expected > found && expected <= whole.len() as u64);

            let end = open_bytes(whole[..len].to_vec()).and_then(|mut source| {
                while source.next_frame()?.is_some() {}
                Ok(())
            });
            let Err(MediaError::Truncated { expected, found, .. }) = end else { panic!("{end:?}") };
            assert!(found == len as u64 && expected > found, "{expected} {found} {len}");
        }
    }
}

#[test]
fn bytes_after_the_array_are_an_error() {
    for name in ["f4-c", "f4-f"] {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        bytes.push(0);
        let mut source = open_bytes(bytes.clone()).unwrap();
        assert!(source.next_frame().unwrap().is_some() && source.next_frame().unwrap().is_some());
        assert!(matches!(source.next_frame(), Err(MediaError::Trailing { .. })));

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let outcome = media::open(file.path(), OpenOptions::default());
        assert!(matches!(error(outcome), MediaError::Trailing { expected: 224, .. }));
    }
}

/// A version 2.0 file with this header text and no data.
fn with_text(text: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text);
    bytes
}

#[test]
fn header_texts() {
    let parse = |text: &str| NpyHeader::parse(text.as_bytes());
    let expected = NpyHeader { dtype: Dtype::Float32, order: MajorOrder::Column, shape: vec![2, 3] };
    for good in [
        "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }   \n",
        "{\"shape\":(2L,3L,),\"fortran_order\":True,\"descr\":\"<f4\"}",
        "\n{ 'descr' : '<f4' , 'fortran_order' : True , 'shape' : ( 2 , 3 ) } ",
    ] {
        assert_eq!(parse(good).as_ref(), Ok(&expected), "{good}");
    }
    for dtype in NUMBERS {
        let text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': (1,)}}", dtype.npy_descr());
        assert_eq!(parse(&text).map(|header| header.dtype), Ok(dtype));
    }
    let one_byte = parse("{'descr': '>u1', 'fortran_order': False, 'shape': (1,)}");
    assert_eq!(one_byte.map(|header| header.dtype), Ok(Dtype::Uint8));

    use NpyHeaderError as E;
    type Check = fn(&E) -> bool;
    let bad: [(&str, Check); 18] = [
        ("", |e| matches!(e, E::Syntax { offset: 0, expected: "{", .. })),
        ("[]", |e| matches!(e, E::Syntax { offset: 0, .. })),
        ("{}", |e| matches!(e, E::Missing { key: "descr" })),
        ("{'descr': '<f4'}", |e| matches!(e, E::Missing { key: "fortran_order" })),
        ("{'descr': '<f4', 'fortran_order': True}", |e| matches!(e, E::Missing { key: "shape" })),
        ("{'descr': '<f4', 'descr': '<f8'}", |e| matches!(e, E::Key { key } if key == "descr")),
        ("{'colour': 1}", |e| matches!(e, E::Key { key } if key == "colour")),
        ("{'descr", |e| matches!(e, E::Syntax { expected: "a string that ends", .. })),
        ("{'descr': '<f4' 'shape'", |e| matches!(e, E::Syntax { expected: ", or }", .. })),
        ("{'descr': 7}", |e| matches!(e, E::Syntax { expected: "a string", .. })),
        ("{'descr': 'f4'}", |e| matches!(e, E::Dtype { .. })),
        ("{'descr': '|O'}", |e| matches!(e, E::Dtype { reason: DtypeReason::Unsupported, .. })),
        ("{'descr': '<uint8'}", |e| matches!(e, E::Dtype { .. })),
        ("{'fortran_order': 1}", |e| matches!(e, E::Syntax { expected: "True or False", .. })),
        ("{'shape': [1]}", |e| matches!(e, E::Syntax { expected: "(", .. })),
        ("{'shape': (-1,)}", |e| matches!(e, E::Syntax { expected: "a number", .. })),
        ("{'shape': (18446744073709551616,)}", |e| matches!(e, E::AxisTooLong { axis: 0 })),
        ("{'descr': '<f4', 'fortran_order': True, 'shape': (1,)} x", |e| matches!(e, E::Syntax { .. })),
    ];
    for (text, check) in bad {
        let outcome = parse(text);
        assert!(outcome.as_ref().is_err_and(check), "{text}: {outcome:?}");
    }
    let axes = format!("{{'shape': ({})}}", "1,".repeat(65));
    assert_eq!(parse(&axes), Err(E::TooManyAxes));
}

/// Headers that promise the impossible fail at once, also on a pipe whose length nobody knows.
#[test]
fn hostile_headers() {
    let huge = |shape: &str| {
        with_text(format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}").as_bytes())
    };
    let source = |bytes| match error(open_bytes(bytes)) {
        MediaError::NpyHeader { source, .. } => source,
        other => panic!("{other}"),
    };
    assert_eq!(source(huge("(18446744073709551615, 18446744073709551615)")), NpyHeaderError::TooLarge);
    assert_eq!(source(huge("(2305843009213693952,)")), NpyHeaderError::TooLarge);
    assert!(matches!(error(open_bytes(huge("(1, 4294967296)"))), MediaError::Tensor { .. }));
    assert!(matches!(error(open_bytes(huge("(2000000000,)"))), MediaError::FrameTooLarge { .. }));
    assert!(matches!(error(open_bytes(huge("(1000000000000000000, 0)"))), MediaError::NoElements { .. }));

    let mut length = b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec();
    assert!(matches!(source(length.clone()), NpyHeaderError::TooLong { found: 0xffff_ffff, .. }));
    length.truncate(6);
    length.extend_from_slice(b"\x04\x00\0\0\0\0");
    assert_eq!(source(length), NpyHeaderError::Version { major: 4, minor: 0 });

    // Twenty nested brackets keep an expression parser busy for minutes.
    let nested = format!("{{'descr': {}", "[".repeat(9000));
    assert!(matches!(source(with_text(nested.as_bytes())), NpyHeaderError::Dtype { .. }));
    let fortran = b"{'descr': '<f8', 'fortran_order': True, 'shape': (1000, 1000, 1000)}";
    assert!(matches!(error(open_bytes(with_text(fortran))), MediaError::InterleavedTooLarge { .. }));
}

/// A pipe that promises 4 GB and brings 1000 bytes costs memory for what it brings.
#[test]
fn memory_follows_the_bytes_that_are_there() {
    for (order, text) in [
        ("C", "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2000000000)}".to_owned()),
        (
            "F",
            format!("{{'descr': '|u1', 'fortran_order': True, 'shape': (2, {})}}", MAX_INTERLEAVED_BYTES / 2),
        ),
    ] {
        let mut bytes = with_text(text.as_bytes());
        bytes.extend_from_slice(&[7; 1000]);
        let input = crate::media::input::Input::stream("test", Box::new(std::io::Cursor::new(bytes)));
        let mut source = NpySource::open(input, false).unwrap();
        assert!(matches!(source.next_frame(), Err(MediaError::Truncated { .. })), "{order}");
        assert!(source.held_bytes() < 64 << 10, "{order}: {}", source.held_bytes());
    }
}

#[test]
fn a_failing_disk_is_reported_with_its_place() {
    struct Failing(Vec<u8>);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::Error::other("bad sector"));
            }
            let count = buffer.len().min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }
    let mut bytes = std::fs::read(fixture("u1-c")).unwrap();
    bytes.truncate(128 + 20);
    let mut source = media::open_stream("tape", Box::new(Failing(bytes)), OpenOptions::default()).unwrap();
    assert!(source.next_frame().unwrap().is_some());
    let error = source.next_frame().unwrap_err();
    assert_eq!(error.to_string(), "reading tape failed at byte 148: bad sector");
}

#[test]
fn written_files_are_the_ones_numpy_writes() {
    let directory = tempfile::tempdir().unwrap();
    for dtype in NUMBERS {
        for order in ["c", "f"] {
            let mut source = open(&format!("{}-{order}", stem(dtype))).unwrap();
            let path = directory.path().join("out.npy");
            let mut writer = NpyWriter::create(&path).unwrap();
            while let Some(frame) = source.next_frame().unwrap() {
                writer.push(frame.layout, frame.bytes).unwrap();
            }
            assert_eq!(writer.finish().unwrap(), 2);
            let expected = std::fs::read(fixture(&format!("{}-c", stem(dtype)))).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), expected, "{dtype}");
        }
    }
}

fn files_in(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    std::fs::read_dir(directory).unwrap().map(name).collect()
}

#[test]
fn an_unfinished_writer_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.npy");
    std::fs::write(&path, "before").unwrap();
    let layout = TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[4]).unwrap();

    let mut writer = NpyWriter::create(&path).unwrap();
    writer.push(&layout, &[1, 2, 3, 4]).unwrap();
    assert_eq!(files_in(directory.path()).len(), 2);
    drop(writer);
    assert_eq!(files_in(directory.path()), ["out.npy"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"before");

    assert_eq!(NpyWriter::create(&path).unwrap().finish().unwrap(), 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"before");

    let nowhere = NpyWriter::create(&directory.path().join("no/where.npy"));
    assert!(matches!(nowhere, Err(MediaError::Write { .. })));
}

#[test]
fn a_frame_of_another_shape_is_refused_and_the_rest_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.npy");
    let layout = |dtype, shape: &[usize]| TensorLayout::contiguous(dtype, MajorOrder::Row, shape).unwrap();
    let pairs = layout(Dtype::Uint16, &[2]);

    let mut writer = NpyWriter::create(&path).unwrap();
    writer.push(&pairs, &[1, 0, 2, 0]).unwrap();
    let shape = writer.push(&layout(Dtype::Uint16, &[2, 1]), &[3, 0, 4, 0]).unwrap_err();
    assert!(shape.to_string().starts_with("frame 1 is uint16 [2, 1], but"), "{shape}");
    let dtype = writer.push(&layout(Dtype::Int16, &[2]), &[3, 0, 4, 0]);
    assert!(matches!(dtype, Err(MediaError::ShapeChanged { frame: 1, .. })));
    let short = writer.push(&pairs, &[3, 0, 4]);
    assert!(matches!(short, Err(MediaError::ShortFrame { frame: 1, expected: 4, found: 3 })));
    writer.push(&pairs, &[3, 0, 4, 0]).unwrap();
    assert_eq!(writer.frames(), 2);
    assert_eq!(writer.finish().unwrap(), 2);

    let mut source = media::open(&path, OpenOptions::default()).unwrap();
    assert_eq!(drain(&mut *source), (2, vec![1, 0, 2, 0, 3, 0, 4, 0]));
}

#[test]
fn peeking_does_not_lose_bytes_of_a_slow_pipe() {
    /// One byte per read.
    struct Trickle(std::vec::IntoIter<u8>);
    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match (buffer.first_mut(), self.0.next()) {
                (Some(place), Some(byte)) => {
                    *place = byte;
                    Ok(1)
                }
                _ => Ok(0),
            }
        }
    }
    let bytes = std::fs::read(fixture("i8-c")).unwrap();
    let mut source =
        media::open_stream("pipe", Box::new(Trickle(bytes.into_iter())), OpenOptions::default()).unwrap();
    assert_eq!(drain(&mut *source).1, (0..24).flat_map(|i| counting(Dtype::Int64, i)).collect::<Vec<_>>());
}

fn any_layout() -> impl Strategy<Value = TensorLayout> {
    let order = prop_oneof![Just(MajorOrder::Row), Just(MajorOrder::Column)];
    let dtype = prop::sample::select(NUMBERS.to_vec());
    (dtype, order, prop::collection::vec(1_usize..5, 1..5), 0_usize..3).prop_map(
        |(dtype, order, shape, pad)| {
            let tight = TensorLayout::contiguous(dtype, order, &shape).unwrap();
            // Padding behind each step of the slowest axis.
            let slowest = if order == MajorOrder::Row { 0 } else { shape.len() - 1 };
            let mut strides: Vec<usize> = tight.strides().iter().map(|&stride| stride as usize).collect();
            strides[slowest] += pad * dtype.element_size();
            tight.with_strides(&strides).unwrap()
        },
    )
}

proptest! {
    /// Whatever is written is read back in row order.
    #[test]
    fn written_frames_come_back(layout in any_layout(), frames in 1_u8..4, seed: u8) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.npy");
        let mut writer = NpyWriter::create(&path).unwrap();
        let mut expected = Vec::new();
        for frame in 0..frames {
            let bytes: Vec<u8> = (0..layout.extent_bytes()).map(|at| (at as u8) ^ seed ^ frame).collect();
            writer.push(&layout, &bytes).unwrap();
            expected.extend(row_order(&layout, &bytes));
        }
        writer.finish().unwrap();

        let mut source = media::open(&path, OpenOptions::default()).unwrap();
        prop_assert_eq!(source.layout().dtype(), layout.dtype());
        prop_assert_eq!(source.layout().shape(), layout.shape());
        prop_assert_eq!(drain(&mut *source), (usize::from(frames), expected));
    }

    #[test]
    fn headers_keep_their_length(dtype in prop::sample::select(NUMBERS.to_vec()),
                                 shape in prop::collection::vec(0..i32::MAX, 1..9), frames: u64) {
        let bytes = header::format(dtype, &shape, frames);
        prop_assert_eq!(bytes.len(), header::format(dtype, &shape, 0).len());
        prop_assert_eq!(bytes.len() % 64, 0);
        let parsed = NpyHeader::parse(&bytes[10..]).unwrap();
        let mut axes = vec![frames];
        axes.extend(shape.iter().map(|&axis| axis as u64));
        prop_assert_eq!(parsed, NpyHeader { dtype, order: MajorOrder::Row, shape: axes });
    }

    /// Any bytes behind the magic end in frames or an error, never in a panic or a long wait.
    #[test]
    fn random_files(version in 0_u8..5, random in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend_from_slice(&[version, 0]);
        bytes.extend(random);
        read_all(bytes);
    }

    /// A real file with a few bytes changed.
    #[test]
    fn damaged_files(changes in prop::collection::vec((0_usize..224, any::<u8>()), 1..6)) {
        let mut bytes = std::fs::read(fixture("f4-f")).unwrap();
        for (at, value) in changes {
            bytes[at] = value;
        }
        read_all(bytes);
    }

    /// Words of the header language in any order.
    #[test]
    fn header_language(words in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "(", ")", "[", "]", ",", ":", "'", "\"", "'descr'", "'shape'", "'fortran_order'", "'<f4'", "'>i8'",
        "True", "False", "7", "18446744073709551615", "L", " ", "\n", "\\", "\u{fc}",
    ]), 0..40)) {
        read_all(with_text(words.concat().as_bytes()));
    }
}

fn read_all(bytes: Vec<u8>) {
    if let Ok(mut source) = open_bytes(bytes) {
        while let Ok(Some(frame)) = source.next_frame() {
            assert_eq!(frame.bytes.len() as u64, frame.layout.packed_bytes());
        }
    }
}
