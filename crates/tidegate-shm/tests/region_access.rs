//! Bounds of regions and spans, held against a plain vector of bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use proptest::prelude::*;
use tidegate_shm::{
    region::{
        AccessError, CreateOptions, OwnedU64, Region, RegionDir, RegionMut, SharedSpan, SharedSpanMut, Span,
        SpanMut, create_region,
    },
    sync::Ordering,
};

const LEN: usize = 300;

/// A region of [`LEN`] bytes, whose file is gone already; byte `i` is `i % 251`.
fn region() -> (RegionMut, Vec<u8>) {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    let region = create_region(&dir, "region", &CreateOptions::new(LEN as u64)).unwrap();
    let model: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
    region.write(0, &model).unwrap();
    (region, model)
}

fn bytes_of(region: &Region) -> Vec<u8> {
    region.span(0, region.len()).unwrap().to_vec()
}

/// Offsets and lengths around all edges, up to the largest numbers.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![0..400_u64, (0..16_u64).prop_map(|below| u64::MAX - below), Just(1 << 63), Just(1 << 32)]
}

proptest! {
    /// Rules: TP-064, TP-086.
    #[test]
    fn views_exist_exactly_inside_the_region(offset in edge(), len in edge()) {
        let (region, model) = region();
        let inside = u128::from(offset) + u128::from(len) <= LEN as u128;
        let span = region.span(offset, len);
        prop_assert_eq!(span.is_ok(), inside);
        prop_assert_eq!(region.span_mut(offset, len).is_ok(), inside);
        prop_assert_eq!(region.shared_span(offset, len).is_ok(), inside);
        prop_assert_eq!(region.shared_span_mut(offset, len).is_ok(), inside);
        match span {
            Ok(span) => prop_assert_eq!(span.to_vec(), &model[offset as usize..][..len as usize]),
            Err(error) => {
                let expected = AccessError::OutOfBounds { offset, len, available: LEN as u64 };
                prop_assert_eq!(error, expected);
                prop_assert!(region.fill(offset, len, 0).is_err());
                prop_assert_eq!(bytes_of(&region), model, "a refused write writes nothing");
            }
        }
    }

    #[test]
    fn words_exist_exactly_inside_at_multiples_of_their_size(offset in edge()) {
        let (region, model) = region();
        for size in [4_u64, 8] {
            let value = match size {
                4 => region.atomic_u32(offset).map(|word| u64::from(word.load(Ordering::Acquire))),
                _ => region.as_region().atomic_u64(offset).map(|word| word.load(Ordering::Acquire)),
            };
            let inside = offset.checked_add(size).is_some_and(|end| end <= LEN as u64);
            match value {
                Ok(value) => {
                    prop_assert!(inside && offset % size == 0);
                    let bytes = &model[offset as usize..][..size as usize];
                    prop_assert_eq!(&value.to_le_bytes()[..size as usize], bytes);
                }
                Err(AccessError::Misaligned { align, .. }) => prop_assert!(offset % size != 0 && align == size),
                Err(_) => prop_assert!(!inside),
            }
        }
        prop_assert_eq!(region.owned_u64(offset).is_ok(), region.as_region().atomic_u64(offset).is_ok());
    }

    #[test]
    fn reads_and_writes_act_as_on_a_vector(offset in 0..400_usize, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (region, mut model) = region();
        let written = region.write(offset as u64, &bytes);
        prop_assert_eq!(written.is_ok(), offset + bytes.len() <= LEN);
        if written.is_ok() {
            model[offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        prop_assert_eq!(bytes_of(&region), &model[..]);
        let mut read = vec![0xAA; bytes.len()];
        let untouched = read.clone();
        prop_assert_eq!(region.read(offset as u64, &mut read).is_ok(), written.is_ok());
        prop_assert_eq!(read, if written.is_ok() { bytes } else { untouched });
    }

    #[test]
    fn parts_of_spans_act_as_parts_of_slices(
        start in 0..200_usize,
        len in 0..100_usize,
        // The powers of two are multiples of 2^64 as the index of a wide element.
        from in prop_oneof![0..150_usize, Just(usize::MAX), Just(1 << 61), Just(1 << 62), Just(1 << 63)],
        to in prop_oneof![0..150_usize, Just(usize::MAX)],
        size in 0..40_usize,
    ) {
        let (region, model) = region();
        let span = region.span(start as u64, len as u64).unwrap();
        let slice = &model[start..start + len];
        prop_assert_eq!(span.sub(from..to).ok().map(|part| part.to_vec()), slice.get(from..to).map(<[u8]>::to_vec));
        let chunks: Vec<_> = span.chunks(size).map(|chunk| chunk.to_vec()).collect();
        let expected: Vec<_> = if size == 0 { vec![] } else { slice.chunks(size).map(<[u8]>::to_vec).collect() };
        prop_assert_eq!(chunks, expected);

        let mut appended = b"before".to_vec();
        let found = from.checked_add(size).and_then(|end| slice.get(from..end));
        prop_assert_eq!(span.append_to(from, size, &mut appended).is_ok(), found.is_some());
        prop_assert_eq!(appended, [b"before", found.unwrap_or_default()].concat());

        let element = |width: usize| {
            let at = from.checked_mul(width)?;
            slice.get(at..at.checked_add(width)?)
        };
        prop_assert_eq!(span.load_u8(from).ok(), slice.get(from).copied());
        prop_assert_eq!(span.load_u16(from).ok(), element(2).map(|b| u16::from_le_bytes(b.try_into().unwrap())));
        prop_assert_eq!(span.load_u32(from).ok(), element(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())));
        prop_assert_eq!(span.load_u64(from).ok(), element(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())));
        let bits = span.load_f32(from).ok().map(f32::to_bits);
        prop_assert_eq!(bits, span.load_u32(from).ok());
        let bits = span.load_f64(from).ok().map(f64::to_bits);
        prop_assert_eq!(bits, span.load_u64(from).ok());
    }
}

/// Rules: TP-064.
#[test]
fn the_last_byte_is_inside_and_the_next_is_not() {
    let (region, _) = region();
    let end = LEN as u64;
    for offset in 0..=end {
        assert!(region.span(offset, end - offset).is_ok(), "{offset}");
        assert!(region.span(offset, end - offset + 1).is_err(), "{offset}");
        let span = region.span(offset, end - offset).unwrap();
        assert!(span.sub(0..span.len()).is_ok() && span.sub(0..span.len() + 1).is_err(), "{offset}");
        assert!(span.read_at(1, &mut vec![0; span.len()]).is_err(), "{offset}");
        assert!(span.append_to(1, span.len(), &mut Vec::new()).is_err(), "{offset}");
    }
    assert!(region.span(end + 1, 0).is_err());
    // 300 is a multiple of 4 but not of 8.
    assert!(region.atomic_u32(end - 4).is_ok() && region.atomic_u32(end).is_err());
    assert!(region.atomic_u64(end - 12).is_ok() && region.atomic_u64(end - 4).is_err());
    assert!(matches!(region.atomic_u64(296), Err(AccessError::OutOfBounds { available: 300, .. })));
}

#[test]
fn whole_copies_need_equal_lengths() {
    let (region, model) = region();
    let span = region.span_mut(10, 20).unwrap();
    let wrong = AccessError::LengthDiffers { given: 21, expected: 20 };
    assert_eq!(span.copy_from(&[0; 21]), Err(wrong));
    assert_eq!(span.copy_to(&mut [0; 21]), Err(wrong));
    assert_eq!(span.copy_from_span(region.span(0, 21).unwrap()), Err(wrong));
    assert_eq!(bytes_of(&region), model);

    span.copy_from_span(region.span(100, 20).unwrap()).unwrap();
    span.sub_mut(18..20).unwrap().fill(1);
    let mut expected = model.clone();
    expected[10..30].copy_from_slice(&model[100..120]);
    expected[28..30].fill(1);
    assert_eq!(bytes_of(&region), expected);
}

#[test]
fn owned_views_outlive_the_handles() {
    let (region, model) = region();
    let span = region.shared_span(8, 16).unwrap();
    let span_mut = region.shared_span_mut(8, 16).unwrap();
    let word = region.owned_u64(8).unwrap();
    drop(region);
    assert_eq!(span.as_span().to_vec(), model[8..24]);
    span_mut.as_span_mut().copy_from(&[9; 16]).unwrap();
    assert_eq!(span.as_span().to_vec(), [9; 16]);
    assert_eq!(word.as_shared().load(Ordering::Acquire), u64::from_le_bytes([9; 8]));
    assert_eq!(span_mut.as_shared_span().region().len(), LEN as u64);
}

#[test]
fn words_can_be_changed_through_a_writable_region_only() {
    let (region, _) = region();
    let word = region.atomic_u64(16).unwrap();
    word.store(5, Ordering::Release);
    assert_eq!(word.fetch_add(2, Ordering::AcqRel), 5);
    assert_eq!(word.fetch_sub(1, Ordering::AcqRel), 7);
    assert_eq!(word.fetch_or(8, Ordering::AcqRel), 6);
    assert_eq!(word.compare_exchange(3, 1, Ordering::AcqRel), Err(14));
    assert_eq!(word.compare_exchange(14, 1, Ordering::AcqRel), Ok(14));
    assert_eq!(region.as_region().atomic_u64(16).unwrap().load(Ordering::SeqCst), 1);
}

/// Orders that make no sense for an access are weakened, where `std` would panic.
#[test]
fn no_ordering_makes_an_access_panic() {
    let (region, _) = region();
    let word = region.atomic_u32(16).unwrap();
    let orders =
        [Ordering::Relaxed, Ordering::Acquire, Ordering::Release, Ordering::AcqRel, Ordering::SeqCst];
    for (value, order) in (0..).zip(orders) {
        word.store(value, order);
        assert_eq!(word.load(order), value);
        assert_eq!(word.compare_exchange(value, value, order), Ok(value));
    }
}

#[test]
fn handles_and_views_may_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Region>();
    check::<RegionMut>();
    check::<Span<'_>>();
    check::<SpanMut<'_>>();
    check::<SharedSpan>();
    check::<SharedSpanMut>();
    check::<OwnedU64>();
}
