//! The parts of a mapped block as records and tables, once for each role.
//!
//! All places were checked against the mapping when the views were made; after that, using a word costs no check and
//! using a row one comparison. What a role may not change, its views cannot change: consumers see the control page and
//! the slot records as words that only load (DH-010).

use tidegate_shm::region::{
    AccessError, GuardedRegion, Pieces, PiecesMut, Record, RecordMut, Table, TableMut,
};

use crate::layout::{Descriptor, LOCKS};

/// Bytes of a page-sized record.
pub const PAGE_RECORD: usize = 4096;

/// Defines the views of one role, from the kind of view for areas C and P and the kind for area S.
macro_rules! views {
    ($(#[$doc:meta])* $name:ident, $record:ident, $record_fn:ident, $table:ident, $table_fn:ident,
     $pieces:ident, $pieces_fn:ident, $shared_record:ident, $shared_record_fn:ident, $shared_table:ident, $shared_table_fn:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            /// [`ControlPage`](crate::layout::pages::ControlPage), area C.
            pub control: $record<PAGE_RECORD>,
            /// [`SyncPage`](crate::layout::pages::SyncPage), area S.
            pub sync: $shared_record<PAGE_RECORD>,
            /// [`MetricsPage`](crate::layout::pages::MetricsPage), area S.
            pub metrics: $shared_record<PAGE_RECORD>,
            /// [`LockRecord`](crate::layout::pages::LockRecord)s, area S.
            pub locks: $shared_table<64>,
            /// [`ConsumerRow`](crate::layout::pages::ConsumerRow)s, area S.
            pub consumers: $shared_table<256>,
            /// [`SlotRecord`](crate::layout::pages::SlotRecord)s, area P.
            pub slot_records: $table<64>,
            /// The payloads of the slots, area P.
            pub payloads: $pieces,
            /// [`DigestEntry`](crate::layout::pages::DigestEntry)s, area P; none if digests are off.
            pub digests: $table<64>,
        }

        impl $name {
            pub(super) fn new(region: &GuardedRegion, descriptor: &Descriptor) -> Result<Self, AccessError> {
                let geometry = &descriptor.geometry;
                let slots = descriptor.spec.slot_count;
                let digests = if geometry.digests().len == 0 { 0 } else { slots };
                Ok(Self {
                    control: region.$record_fn(geometry.control().offset)?,
                    sync: region.$shared_record_fn(geometry.sync().offset)?,
                    metrics: region.$shared_record_fn(geometry.metrics().offset)?,
                    locks: region.$shared_table_fn(geometry.locks().offset, LOCKS)?,
                    consumers: region
                        .$shared_table_fn(geometry.consumers().offset, descriptor.spec.max_consumers)?,
                    payloads: region.$pieces_fn(
                        geometry.slots().offset,
                        slots,
                        descriptor.spec.slot_size,
                        geometry.slot_stride,
                    )?,
                    slot_records: region.$table_fn(geometry.slot_records().offset, slots)?,
                    digests: region.$table_fn(geometry.digests().offset, digests)?,
                })
            }
        }
    };
}

views! {
    /// What an inspector sees: everything, changing nothing.
    InspectorViews, Record, record, Table, table, Pieces, pieces, Record, record, Table, table
}

views! {
    /// What a consumer sees: it changes area S only.
    ConsumerViews, Record, record, Table, table, Pieces, pieces, RecordMut, record_mut, TableMut, table_mut
}

views! {
    /// What the acting writer sees: it may change everything.
    WriterViews, RecordMut, record_mut, TableMut, table_mut, PiecesMut, pieces_mut, RecordMut, record_mut, TableMut,
    table_mut
}
