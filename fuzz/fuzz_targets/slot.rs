//! Header slots and the tensor headers in them: a frame that passes every check lies inside its pool.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::tensor::ids::{PoolId, Seq};
use tidegate::tensor::layout::{SLOT_LEN, SlotCount, SlotHeader, Stride, pool_len};

fuzz_target!(|input: (u64, [u8; SLOT_LEN])| {
    let (seq, mut slot) = input;
    let slots = SlotCount::new(8).expect("a power of two");
    let stride = Stride::new(4096).expect("a multiple of 64");
    let Ok(header) = SlotHeader::decode(&slot) else { return };
    let index = slots.index_of(Seq::new(seq));
    let pool = |id| (id == PoolId::new(1)).then_some(stride);
    if let Ok(span) = header.payload_span(index, slots, pool) {
        assert!(span.offset + u64::from(span.len) <= pool_len(slots, stride));
    }
    if let Ok(layout) = header.tensor.validate() {
        let extent = layout.extent_bytes();
        // Layouts of millions of tiny runs are legal but slow to walk.
        for run in layout.runs().take(10_000) {
            assert!(run.start < run.end && run.end as u64 <= extent);
        }
        header.encode(&mut slot);
        assert_eq!(SlotHeader::decode(&slot), Ok(header));
    }
});
