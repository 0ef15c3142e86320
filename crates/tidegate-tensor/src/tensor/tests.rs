//! Rules of 6.4 on single cases, and on arbitrary headers.

use proptest::prelude::*;

use super::*;

fn raw(dtype: Dtype, order: MajorOrder, dims: &[i32], strides: &[i32]) -> RawTensorHeader {
    let fill = |list: &[i32]| std::array::from_fn(|axis| list.get(axis).copied().unwrap_or(0));
    RawTensorHeader {
        dtype: dtype.raw(),
        major_order: order.raw(),
        ndims: dims.len() as u8,
        dims: fill(dims),
        strides: fill(strides),
        ..RawTensorHeader::default()
    }
}

fn row(dtype: Dtype, dims: &[i32], strides: &[i32]) -> Result<TensorLayout, TensorError> {
    raw(dtype, MajorOrder::Row, dims, strides).validate()
}

fn column(dtype: Dtype, dims: &[i32], strides: &[i32]) -> Result<TensorLayout, TensorError> {
    raw(dtype, MajorOrder::Column, dims, strides).validate()
}

/// Rules: TP-023, TP-024.
#[test]
fn numbers_and_sizes_of_element_types_are_fixed() {
    let table = [
        ("uint8", 1, 1),
        ("int8", 2, 1),
        ("uint16", 3, 2),
        ("int16", 4, 2),
        ("uint32", 5, 4),
        ("int32", 6, 4),
        ("uint64", 7, 8),
        ("int64", 8, 8),
        ("float32", 9, 4),
        ("float64", 10, 8),
        ("bool", 11, 1),
        ("bytes", 13, 1),
        ("bit", 14, 1),
    ];
    let found = Dtype::ALL.map(|dtype| (dtype.name(), dtype.raw(), dtype.element_size()));
    assert_eq!(found, table);
    for number in i16::MIN..=i16::MAX {
        let assigned = table.iter().any(|entry| entry.1 == number);
        assert_eq!(Dtype::from_raw(number).map(Dtype::raw), assigned.then_some(number));
    }
    assert_eq!((MajorOrder::Row.raw(), MajorOrder::Column.raw()), (1, 2));
    let units = [ProgressUnit::None, ProgressUnit::Rows, ProgressUnit::Columns];
    assert_eq!(units.map(ProgressUnit::raw), [0, 1, 2]);
}

#[test]
fn element_types_have_numpy_names() {
    for dtype in Dtype::ALL {
        assert_eq!(dtype.to_string().parse(), Ok(dtype));
        let stored = dtype.npy_descr().parse::<Dtype>().unwrap();
        assert_eq!(stored.element_size(), dtype.element_size());
    }
    assert_eq!("<f4".parse(), Ok(Dtype::Float32));
    assert_eq!("u2".parse(), Ok(Dtype::Uint16));
    assert_eq!("?".parse(), Ok(Dtype::Boolean));
    for text in ["", ">f4", "f2", "<<f4", "float", "UINT8"] {
        assert_eq!(text.parse::<Dtype>(), Err(ParseDtypeError { found: text.to_owned() }));
    }
}

/// Rules: TP-090, TC-045.
#[test]
fn refuses_no_axis_and_nine() {
    for ndims in [0, 9, 255] {
        let header = RawTensorHeader { ndims, ..raw(Dtype::Uint8, MajorOrder::Row, &[1], &[]) };
        assert_eq!(header.validate(), Err(TensorError::Rank { found: usize::from(ndims) }));
    }
    assert!(row(Dtype::Uint8, &[1; 8], &[]).is_ok());
    let nine = TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[1; 9]);
    assert_eq!(nine, Err(TensorError::Rank { found: 9 }));
    assert_eq!(
        TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[]),
        Err(TensorError::Rank { found: 0 })
    );
}

/// Rules: TP-016, TP-093, TC-046.
#[test]
fn refuses_unlisted_numbers() {
    let good = raw(Dtype::Uint8, MajorOrder::Row, &[4], &[]);
    for dtype in [0, 12, 15, -1] {
        let header = RawTensorHeader { dtype, ..good };
        assert_eq!(header.validate(), Err(TensorError::Dtype { found: dtype }));
    }
    for major_order in [0, 3, -1] {
        let header = RawTensorHeader { major_order, ..good };
        assert_eq!(header.validate(), Err(TensorError::MajorOrder { found: major_order }));
    }
    for progress_unit in [3, 255] {
        let header = RawTensorHeader { progress_unit, ..good };
        assert_eq!(header.validate(), Err(TensorError::ProgressUnit { found: progress_unit }));
    }
}

/// Rules: TP-091, TC-047.
#[test]
fn negative_lengths_are_refused_and_zero_is_an_empty_axis() {
    let negative = row(Dtype::Uint8, &[2, -1], &[]);
    assert_eq!(negative, Err(TensorError::NegativeDim { axis: 1, found: -1 }));
    let empty = row(Dtype::Float32, &[2, 0, 3], &[]).unwrap();
    assert_eq!(empty.strides(), [12, 12, 4]);
    assert_eq!((empty.element_count(), empty.extent_bytes()), (0, 0));
    assert_eq!(empty.runs().count(), 0);
    assert!(empty.fits(0));
}

/// Rules: TP-094, TC-048, TC-050.
#[test]
fn infers_contiguous_strides() {
    assert_eq!(row(Dtype::Uint16, &[2, 3], &[]).unwrap().strides(), [6, 2]);
    assert_eq!(column(Dtype::Float32, &[2, 3], &[]).unwrap().strides(), [4, 8]);
    assert_eq!(row(Dtype::Uint16, &[2, 3, 4], &[0, 10, 0]).unwrap().strides(), [30, 10, 2]);
    assert_eq!(column(Dtype::Uint16, &[2, 3, 4], &[0, 10, 0]).unwrap().strides(), [2, 10, 30]);
}

/// Rules: TP-094, TC-049.
#[test]
fn refuses_overlap_and_accepts_padding() {
    let overlap = row(Dtype::Uint16, &[2, 3], &[4, 2]);
    assert_eq!(overlap, Err(TensorError::StrideTooSmall { axis: 0, found: 4, required: 6 }));
    assert_eq!(row(Dtype::Uint16, &[2, 3], &[8, 2]).unwrap().strides(), [8, 2]);
    assert_eq!(row(Dtype::Uint16, &[2, 3], &[12, 4]).unwrap().strides(), [12, 4]);
    let negative = row(Dtype::Uint16, &[2, 3], &[-6, 2]);
    assert_eq!(negative, Err(TensorError::NegativeStride { axis: 0, found: -6 }));
    // Row strides in a tensor that says column order, and the other way round.
    assert!(column(Dtype::Uint16, &[2, 3], &[6, 2]).is_err());
    assert!(row(Dtype::Uint16, &[2, 3], &[2, 4]).is_err());
}

/// Rules: TP-095, TC-051.
#[test]
fn the_fastest_stride_holds_an_element() {
    let small = row(Dtype::Float32, &[4], &[2]);
    assert_eq!(small, Err(TensorError::StrideTooSmall { axis: 0, found: 2, required: 4 }));
    let small = column(Dtype::Float64, &[4, 2], &[4, 0]);
    assert_eq!(small, Err(TensorError::StrideTooSmall { axis: 0, found: 4, required: 8 }));
    assert!(row(Dtype::Float32, &[4], &[5]).is_ok());
}

/// Rules: TP-096, TC-052.
#[test]
fn refuses_strides_beyond_an_i32() {
    let large = row(Dtype::Float64, &[2, 65536, 65536], &[]);
    assert_eq!(large, Err(TensorError::StrideTooLarge { axis: 0, required: 1 << 35 }));
    // 2^32 would look like 0 in 32 bits.
    let wrapped = row(Dtype::Uint8, &[2, 65536, 65536], &[]);
    assert_eq!(wrapped, Err(TensorError::StrideTooLarge { axis: 0, required: 1 << 32 }));
    let one_too_many = row(Dtype::Uint8, &[2, 32768, 65536], &[]);
    assert_eq!(one_too_many, Err(TensorError::StrideTooLarge { axis: 0, required: 1 << 31 }));
    assert!(row(Dtype::Uint8, &[2, i32::MAX], &[]).is_ok());
    // The slowest axis has no stride beyond it.
    let extent = row(Dtype::Uint8, &[i32::MAX, i32::MAX], &[]).unwrap().extent_bytes();
    assert_eq!(extent, u64::from(i32::MAX.unsigned_abs()).pow(2));
}

/// Rules: TP-098, TC-053, TC-054.
#[test]
fn the_progress_stride_is_the_stride_of_its_axis() {
    let header = |order, dims: &[i32], unit: ProgressUnit, stride| RawTensorHeader {
        progress_unit: unit.raw(),
        progress_stride_bytes: stride,
        ..raw(Dtype::Uint16, order, dims, &[])
    };
    let wrong = |unit, expected, found| Err(TensorError::ProgressStride { unit, expected, found });
    for (order, rows, columns) in [(MajorOrder::Row, 6, 2), (MajorOrder::Column, 2, 4)] {
        for (unit, stride) in [(ProgressUnit::Rows, rows), (ProgressUnit::Columns, columns)] {
            let layout = header(order, &[2, 3], unit, stride).validate().unwrap();
            assert_eq!((layout.progress_unit(), layout.progress_stride_bytes()), (unit, stride));
            for found in [0, stride + 1, 100] {
                assert_eq!(header(order, &[2, 3], unit, found).validate(), wrong(unit, stride, found));
            }
        }
    }
    let one_axis = header(MajorOrder::Row, &[3], ProgressUnit::Columns, 2).validate();
    assert_eq!(one_axis, Err(TensorError::ProgressRank { unit: ProgressUnit::Columns, ndims: 1 }));
    // Without progress the field is ignored, and written as 0.
    let none = header(MajorOrder::Row, &[2, 3], ProgressUnit::None, 77).validate().unwrap();
    assert_eq!(none.to_raw().progress_stride_bytes, 0);
}

/// Rules: TP-092, TC-055.
#[test]
fn entries_beyond_the_axes_are_ignored_and_written_as_zero() {
    let mut header = raw(Dtype::Uint16, MajorOrder::Row, &[2, 3], &[]);
    header.dims[2..].fill(-7);
    header.strides[2..].fill(i32::MIN);
    let written = header.validate().unwrap().to_raw();
    assert_eq!((written.dims, written.strides), ([2, 3, 0, 0, 0, 0, 0, 0], [6, 2, 0, 0, 0, 0, 0, 0]));
    assert_eq!(written.encode()[11 + 8..43], [0; 24]);
    assert_eq!(written.encode()[43 + 8..], [0; 133]);
}

/// Rules: TP-099, TC-059.
#[test]
fn a_typed_view_needs_its_whole_extent() {
    let layout = row(Dtype::Float32, &[10, 100], &[]).unwrap();
    assert_eq!(layout.extent_bytes(), 4000);
    assert!(layout.fits(4000));
    assert!(!layout.fits(3999) && !layout.fits(12));
    // The padding behind the last row is not part of the extent.
    assert_eq!(row(Dtype::Uint16, &[2, 3], &[8, 2]).unwrap().extent_bytes(), 14);
}

/// Rules: TP-087.
#[test]
fn lists_are_unaligned() {
    let header = RawTensorHeader {
        dims: [1, 2, 3, 4, 5, 6, 7, -8],
        strides: [-1, 1 << 24, 3, 4, 5, 6, 7, 8],
        ..raw(Dtype::Int8, MajorOrder::Column, &[0; 8], &[])
    };
    let body = header.encode();
    assert_eq!(body[11..15], [1, 0, 0, 0]);
    assert_eq!(body[39..51], [0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1]);
}

#[test]
fn the_builder_checks_what_it_is_given() {
    let layout = TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[480, 640, 3]).unwrap();
    assert_eq!((layout.shape(), layout.strides()), ([480, 640, 3].as_slice(), [1920, 3, 1].as_slice()));
    assert!(layout.is_contiguous());
    assert_eq!(layout.packed_bytes(), 921_600);

    let padded = layout.with_progress(ProgressUnit::Rows).unwrap().with_strides(&[2048, 0, 0]).unwrap();
    assert!(!padded.is_contiguous());
    assert_eq!((padded.strides(), padded.progress_stride_bytes()), ([2048, 3, 1].as_slice(), 2048));
    assert_eq!(padded.to_raw().validate(), Ok(padded));

    assert_eq!(layout.with_strides(&[2048, 3]), Err(TensorError::StrideCount { expected: 3, found: 2 }));
    let large = 1_usize << 31;
    let too_large = layout.with_strides(&[large, 3, 1]);
    assert_eq!(too_large, Err(TensorError::StrideTooLarge { axis: 0, required: 1 << 31 }));
    let too_large = TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[1, large]);
    assert_eq!(too_large, Err(TensorError::DimTooLarge { axis: 1, found: large }));
}

#[test]
fn runs_merge_what_lies_together() {
    let runs = |layout: TensorLayout| layout.runs().map(|run| (run.start, run.end)).collect::<Vec<_>>();
    assert_eq!(runs(row(Dtype::Uint16, &[2, 3], &[]).unwrap()), [(0, 12)]);
    assert_eq!(runs(row(Dtype::Uint16, &[2, 3], &[8, 2]).unwrap()), [(0, 6), (8, 14)]);
    assert_eq!(runs(row(Dtype::Uint16, &[2, 1, 3], &[8, 8, 2]).unwrap()), [(0, 6), (8, 14)]);
    assert_eq!(runs(row(Dtype::Uint8, &[1, 4], &[100, 1]).unwrap()), [(0, 4)]);
    let columns = runs(column(Dtype::Uint8, &[2, 3], &[]).unwrap());
    assert_eq!(columns, [(0, 1), (2, 3), (4, 5), (1, 2), (3, 4), (5, 6)]);
    assert_eq!(runs(column(Dtype::Uint8, &[3, 1], &[]).unwrap()), [(0, 3)]);
}

fn small_layouts() -> impl Strategy<Value = TensorLayout> {
    let axis = (0_usize..4, 0_usize..3);
    let axes = proptest::collection::vec(axis, 1..=4);
    (axes, 0..Dtype::ALL.len(), any::<bool>()).prop_map(|(axes, dtype, is_row)| {
        let order = if is_row { MajorOrder::Row } else { MajorOrder::Column };
        let dims: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
        let layout = TensorLayout::contiguous(Dtype::ALL[dtype], order, &dims).unwrap();
        // Room between the elements, growing with the axis so that the order is kept.
        let mut strides: Vec<usize> = vec![0; dims.len()];
        let mut required = layout.element_size();
        for step in 0..dims.len() {
            let at = if is_row { dims.len() - 1 - step } else { step };
            strides[at] = required + axes[at].1;
            required = strides[at] * dims[at].max(1);
        }
        layout.with_strides(&strides).unwrap()
    })
}

fn headers() -> impl Strategy<Value = RawTensorHeader> {
    let dim = prop_oneof![20 => 0..5_i32, 1 => any::<i32>()];
    let stride = prop_oneof![20 => Just(0), 4 => 0..100_i32, 1 => any::<i32>()];
    let (dims, strides) = (proptest::array::uniform8(dim), proptest::array::uniform8(stride));
    (0..16_i16, 0..4_i16, 0..10_u8, 0..4_u8, 0..20_u32, dims, strides).prop_map(
        |(dtype, major_order, ndims, progress_unit, progress_stride_bytes, dims, strides)| RawTensorHeader {
            dtype,
            major_order,
            ndims,
            progress_unit,
            progress_stride_bytes,
            dims,
            strides,
        },
    )
}

proptest! {
    /// Rules: TP-094, TP-095, TP-096, TP-098.
    #[test]
    fn whatever_is_accepted_obeys_the_invariants(header in headers()) {
        let Ok(layout) = header.validate() else { return Ok(()) };
        let mut axes: Vec<(u64, u64)> = layout
            .shape()
            .iter()
            .zip(layout.strides())
            .map(|(&dim, &stride)| (u64::try_from(dim).unwrap(), u64::try_from(stride).unwrap()))
            .collect();
        if layout.order() == MajorOrder::Row {
            axes.reverse();
        }
        let mut required = layout.element_size() as u64;
        for &(dim, stride) in &axes {
            prop_assert!(stride >= required && stride <= i32::MAX as u64);
            required = stride * dim.max(1);
        }
        prop_assert!(layout.extent_bytes() <= required);
        prop_assert!(layout.packed_bytes() <= layout.extent_bytes());
        prop_assert_eq!(layout.extent_bytes() == 0, layout.element_count() == 0);
        for (axis, &stride) in layout.strides().iter().enumerate() {
            prop_assert!(header.strides[axis] == 0 || header.strides[axis] == stride);
        }
        prop_assert_eq!(layout.to_raw().validate(), Ok(layout));
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), RawTensorHeader::LEN)) {
        let body: [u8; RawTensorHeader::LEN] = body.try_into().unwrap();
        let header = RawTensorHeader::decode(&body);
        prop_assert_eq!(RawTensorHeader::decode(&header.encode()), header);
        let _ = header.validate();
    }

    #[test]
    fn runs_visit_every_element_once_in_row_order(layout in small_layouts()) {
        let size = layout.element_size();
        let dims: Vec<usize> = layout.shape().iter().map(|&dim| dim as usize).collect();
        let mut expected = Vec::new();
        for number in 0..layout.element_count() as usize {
            let mut rest = number;
            let mut offset = 0;
            for (axis, &dim) in dims.iter().enumerate().rev() {
                offset += rest % dim * layout.strides()[axis] as usize;
                rest /= dim;
            }
            expected.extend(offset..offset + size);
        }
        prop_assert_eq!(layout.runs().flatten().collect::<Vec<_>>(), expected);
        prop_assert_eq!(layout.runs().len(), layout.runs().count());
        prop_assert!(layout.runs().all(|run| run.end as u64 <= layout.extent_bytes()));
    }
}
