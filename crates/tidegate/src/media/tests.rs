use std::io::{Cursor, Write};
use std::path::Path;

use proptest::prelude::*;

use super::y4m::Y4mHeaderError;
use super::*;
use crate::tensor::tensor::{Dtype, MajorOrder};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/astronaut-pan.npy");

fn open_bytes(bytes: &[u8], options: OpenOptions) -> Result<Box<dyn FrameSource>, MediaError> {
    open_stream("test", Box::new(Cursor::new(bytes.to_vec())), options)
}

fn detect(bytes: &[u8]) -> Result<Box<dyn FrameSource>, MediaError> {
    open_bytes(bytes, OpenOptions::default())
}

fn raw(dtype: Dtype, shape: &[usize]) -> OpenOptions {
    let layout = TensorLayout::contiguous(dtype, MajorOrder::Row, shape).unwrap();
    OpenOptions { single_tensor: false, raw: Some(layout) }
}

fn error(outcome: Result<Box<dyn FrameSource>, MediaError>) -> MediaError {
    match outcome {
        Ok(source) => panic!("opened as {:?}", source.layout()),
        Err(error) => error,
    }
}

fn frames(source: &mut dyn FrameSource) -> Result<Vec<Vec<u8>>, MediaError> {
    let mut frames = Vec::new();
    while let Some(frame) = source.next_frame()? {
        frames.push(frame.bytes.to_vec());
    }
    Ok(frames)
}

fn video(header: &str, pictures: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("YUV4MPEG2 {header}\n").into_bytes();
    for picture in pictures {
        bytes.extend_from_slice(b"FRAME\n");
        bytes.extend_from_slice(picture);
    }
    bytes
}

#[test]
fn the_recording_of_the_examples() {
    let mut source = open(Path::new(RECORDING), OpenOptions::default()).unwrap();
    assert_eq!((source.layout().dtype(), source.layout().shape()), (Dtype::Uint8, &[200, 320][..]));
    assert_eq!(frames(&mut *source).unwrap().len(), 30);
}

#[test]
fn raw_frames_from_file_and_pipe() {
    let bytes = [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0];
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let options = raw(Dtype::Uint16, &[3]);

    let mut source = open(file.path(), options).unwrap();
    let expected = vec![bytes[..6].to_vec(), bytes[6..].to_vec()];
    assert_eq!(frames(&mut *source).unwrap(), expected);
    source.rewind().unwrap();
    assert_eq!(frames(&mut *source).unwrap(), expected);

    let mut source = open_bytes(&bytes, options).unwrap();
    assert_eq!(frames(&mut *source).unwrap(), expected);
    assert!(matches!(source.rewind(), Err(MediaError::NotRewindable { .. })));
}

#[test]
fn raw_input_that_is_no_whole_number_of_frames() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 10]).unwrap();
    let at_open = error(open(file.path(), raw(Dtype::Uint8, &[4])));
    assert!(
        matches!(at_open, MediaError::Truncated { part: Part::RawFrame(2), expected: 12, found: 10, .. }),
        "{at_open}"
    );
    let mut pipe = open_bytes(&[7; 10], raw(Dtype::Uint8, &[4])).unwrap();
    let at_end = frames(&mut *pipe).unwrap_err();
    assert!(
        matches!(at_end, MediaError::Truncated { part: Part::RawFrame(2), expected: 12, found: 10, .. }),
        "{at_end}"
    );
}

#[test]
fn raw_layouts_that_make_no_frames() {
    assert!(matches!(error(open_bytes(&[1], raw(Dtype::Uint8, &[4, 0]))), MediaError::NoElements { .. }));
    let huge = raw(Dtype::Float64, &[1 << 20, 1 << 11]);
    assert!(matches!(error(open_bytes(&[1], huge)), MediaError::FrameTooLarge { bytes: 17_179_869_184, .. }));
}

/// A raw source hands out its first frame without waiting for more bytes than it needs.
#[test]
fn a_short_raw_frame_is_not_held_back_by_detection() {
    use std::os::unix::net::UnixStream;
    let (mut sender, receiver) = UnixStream::pair().unwrap();
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    sender.write_all(&[5, 6]).unwrap();
    let mut source = open_stream("socket", Box::new(receiver), raw(Dtype::Uint8, &[2])).unwrap();
    assert_eq!(source.next_frame().unwrap().unwrap().bytes, [5, 6]);
    drop(sender);
    assert!(source.next_frame().unwrap().is_none());
}

#[test]
fn options_that_contradict_the_file() {
    let wrong = error(open(Path::new(RECORDING), raw(Dtype::Uint8, &[4])));
    assert!(matches!(wrong, MediaError::RawNotWanted { format: ".npy", .. }));
    let single = OpenOptions { single_tensor: true, raw: None };
    let wrong = error(open_bytes(&video("W2 H2 Cmono", &[&[0; 4]]), single));
    assert!(matches!(wrong, MediaError::SingleNotWanted { format: ".y4m", .. }));
}

#[test]
fn files_that_are_something_else() {
    let cases: [(&[u8], Option<&str>); 5] = [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Some("a PNG picture")),
        (b"PK\x03\x04 and so on", Some("a zip archive, such as .npz; unpack it first")),
        (b"\0\0\0\x1cftypisom", Some("an MP4 video")),
        (b"hello, world, this is text", None),
        (b"x", None),
    ];
    for (bytes, expected) in cases {
        let MediaError::UnknownFormat { looks_like, .. } = error(detect(bytes)) else { panic!("{bytes:?}") };
        assert_eq!(looks_like, expected);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("photo.npy");
    std::fs::write(&path, cases[0].0).unwrap();
    let message = error(open(&path, OpenOptions::default())).to_string();
    assert!(
        message.starts_with(&format!("{} is neither .npy nor .y4m (it looks like a PNG", path.display()))
    );
}

#[test]
fn inputs_without_content() {
    assert!(matches!(error(detect(b"")), MediaError::Empty { .. }));
    assert!(matches!(error(open_bytes(b"", raw(Dtype::Uint8, &[1]))), MediaError::Empty { .. }));
    for (start, needed) in [(&b"\x93NU"[..], 6), (b"YUV4", 9)] {
        let MediaError::Truncated { part, expected, found, .. } = error(detect(start)) else { panic!() };
        assert_eq!((part, expected, found), (Part::Header, needed, start.len() as u64));
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(error(open(directory.path(), OpenOptions::default())), MediaError::Directory { .. }));
    let nothing = directory.path().join("nothing.npy");
    assert!(matches!(error(open(&nothing, OpenOptions::default())), MediaError::Open { .. }));
}

#[test]
fn every_colour_space() {
    use Dtype::{Uint8, Uint16};
    let cases: [(&str, Dtype, &[i32]); 16] = [
        ("", Uint8, &[6, 8]),
        ("Cmono", Uint8, &[4, 8]),
        ("Cmono9", Uint16, &[4, 8]),
        ("Cmono16", Uint16, &[4, 8]),
        ("C420", Uint8, &[6, 8]),
        ("C420jpeg", Uint8, &[6, 8]),
        ("C420mpeg2", Uint8, &[6, 8]),
        ("C420paldv", Uint8, &[6, 8]),
        ("C420p10", Uint16, &[6, 8]),
        ("C411", Uint8, &[6, 8]),
        ("C422", Uint8, &[8, 8]),
        ("C422p12", Uint16, &[8, 8]),
        ("C444", Uint8, &[3, 4, 8]),
        ("C444p14", Uint16, &[3, 4, 8]),
        ("C444alpha", Uint8, &[4, 4, 8]),
        ("F30000:1001 Ip A1:1 C444 XYSCSS=444", Uint8, &[3, 4, 8]),
    ];
    for (parameters, dtype, shape) in cases {
        let elements: i32 = shape.iter().product();
        let picture: Vec<u8> = (0..elements as usize * dtype.element_size()).map(|at| at as u8).collect();
        let bytes = video(&format!("W8 H4 {parameters}"), &[&picture, &picture]);
        let mut source = detect(&bytes).unwrap();
        assert_eq!((source.layout().dtype(), source.layout().shape()), (dtype, shape), "{parameters}");
        assert_eq!(frames(&mut *source).unwrap(), [picture.clone(), picture], "{parameters}");
    }
}

#[test]
fn videos_that_cannot_be_tensors() {
    let header = |text: &str| match error(detect(&video(text, &[]))) {
        MediaError::Y4mHeader { source, .. } => source,
        other => panic!("{other}"),
    };
    assert_eq!(header("H4"), Y4mHeaderError::Size { parameter: 'W' });
    assert_eq!(header("W4 H0"), Y4mHeaderError::Size { parameter: 'H' });
    assert_eq!(header("W-4 H4"), Y4mHeaderError::Size { parameter: 'W' });
    for found in ["410", "420p11", "444p", "mono7", "rgb"] {
        let expected = Y4mHeaderError::ColourSpace { found: found.to_owned() };
        assert_eq!(header(&format!("W4 H4 C{found}")), expected);
    }
    let odd = header("W5 H4 C422");
    assert!(matches!(odd, Y4mHeaderError::Odd { width: 5, across: 2, down: 1, .. }), "{odd}");
    assert!(matches!(header("W6 H4 C411"), Y4mHeaderError::Odd { across: 4, down: 2, .. }));
    assert!(matches!(header("W4 H5"), Y4mHeaderError::Odd { across: 2, down: 2, .. }));

    let huge = format!("W{0} H{0} C444", u64::MAX - 1);
    assert!(matches!(error(detect(&video(&huge, &[]))), MediaError::Tensor { .. }));
    let large = error(detect(&video("W65536 H65536 Cmono", &[])));
    assert!(matches!(large, MediaError::FrameTooLarge { bytes: 4_294_967_296, .. }), "{large}");
    let endless = [b"YUV4MPEG2 ".as_slice(), &[b'X'; 5000]].concat();
    let endless = error(detect(&endless));
    let expected = Y4mHeaderError::Line { part: Part::Header };
    assert!(matches!(endless, MediaError::Y4mHeader { source, .. } if source == expected));
}

/// A cut anywhere but between two pictures is an error.
#[test]
fn videos_truncated_at_every_length() {
    let whole = video("W4 H2 Cmono", &[&[1; 8], &[2; 8]]);
    let header = whole.len() - 2 * 14;
    for len in 1..whole.len() {
        let outcome = detect(&whole[..len]).and_then(|mut source| frames(&mut *source));
        if len == header || len == header + 14 {
            assert_eq!(outcome.unwrap().len(), (len - header) / 14);
            continue;
        }
        let Err(MediaError::Truncated { expected, found, .. }) = outcome else {
            panic!("{len}: {outcome:?}")
        };
        assert!(found == len as u64 && expected > found && expected <= whole.len() as u64);
    }
}

#[test]
fn pictures_that_are_not_where_they_should_be() {
    for middle in ["FRAMES\n", "frame\n", "\n"] {
        let mut bytes = video("W2 H1 Cmono", &[&[1, 2]]);
        bytes.extend_from_slice(middle.as_bytes());
        bytes.extend_from_slice(&[3, 4]);
        let mut source = detect(&bytes).unwrap();
        assert!(source.next_frame().unwrap().is_some());
        let outcome = source.next_frame();
        let expected = Y4mHeaderError::NotFrame { part: Part::FrameHeader(1) };
        assert!(
            matches!(&outcome, Err(MediaError::Y4mHeader { source, .. }) if *source == expected),
            "{middle:?}: {outcome:?}"
        );
    }
    let mut bytes = video("W2 H1 Cmono", &[&[1, 2]]);
    bytes.extend_from_slice(b"FRAME Ip\n\x03\x04");
    assert_eq!(frames(&mut *detect(&bytes).unwrap()).unwrap(), [[1, 2], [3, 4]]);
}

#[test]
fn a_video_file_can_be_played_again() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&video("W2 H1 Cmono", &[&[1, 2], &[3, 4]])).unwrap();
    let mut source = open(file.path(), OpenOptions::default()).unwrap();
    let first = frames(&mut *source).unwrap();
    source.rewind().unwrap();
    assert_eq!(frames(&mut *source).unwrap(), first);
    assert_eq!(first, [[1, 2], [3, 4]]);
}

proptest! {
    /// What an independent encoder writes is read back plane by plane.
    #[test]
    fn videos_of_another_encoder(width in 1_usize..9, height in 1_usize..9, space in 0_usize..6, seed: u8) {
        use ::y4m::Colorspace as C;
        let (width, height) = (2 * width, 2 * height);
        let space = [C::Cmono, C::C420, C::C420p10, C::C422, C::C444, C::C444p12][space];
        let samples = width * height * space.get_bytes_per_sample();
        let chroma = match space {
            C::Cmono => 0,
            C::C420 | C::C420p10 => samples / 4,
            C::C422 => samples / 2,
            _ => samples,
        };
        let plane = |len: usize, salt: u8| -> Vec<u8> {
            (0..len).map(|at| (at as u8).wrapping_mul(7) ^ seed ^ salt).collect()
        };
        let planes = [plane(samples, 0), plane(chroma, 1), plane(chroma, 2)];
        let mut bytes = Vec::new();
        let rate = ::y4m::Ratio::new(25, 1);
        let mut encoder = ::y4m::encode(width, height, rate).with_colorspace(space).write_header(&mut bytes).unwrap();
        let picture = ::y4m::Frame::new([&planes[0], &planes[1], &planes[2]], None);
        encoder.write_frame(&picture).unwrap();
        encoder.write_frame(&picture).unwrap();

        let read = frames(&mut *detect(&bytes).unwrap()).unwrap();
        prop_assert_eq!(read, [planes.concat(), planes.concat()]);
    }

    #[test]
    fn random_videos(random in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [b"YUV4MPEG2 W4 H2 ".as_slice(), &random].concat();
        let _ = detect(&bytes).and_then(|mut source| frames(&mut *source));
    }

    #[test]
    fn random_inputs(random in prop::collection::vec(any::<u8>(), 0..200), single: bool) {
        let _ = open_bytes(&random, OpenOptions { single_tensor: single, raw: None });
    }
}
