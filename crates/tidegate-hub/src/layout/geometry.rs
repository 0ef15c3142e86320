//! Where everything lies: the one function from sizes to offsets (DH-009).

use super::{
    CONTROL_LEN, CONTROL_OFF, LINE, LOCK_TABLE_LEN, MAX_CONSUMERS, MAX_SCHEMA_TEXT, MAX_SLOT_SIZE, MAX_SLOTS,
    MAX_ZONE_SIZE, MAX_ZONES, METRICS_LEN, Mismatch, PAGE, SCHEMA_OFF, SYNC_LEN,
    pages::{ConsumerRow, DigestEntry, SlotRecord, ZoneControl},
};

/// The sizes that decide the layout of a block.
#[derive(Debug, Clone, Copy)]
pub struct Sizes<'a> {
    /// Slots of the ring.
    pub slot_count: u32,
    /// Bytes of a slot, before rounding.
    pub slot_size: u64,
    /// Rows of the consumer table.
    pub max_consumers: u32,
    /// Bytes of each zone, before rounding.
    pub zone_sizes: &'a [u64],
    /// Whether there is a digest table.
    pub digests: bool,
    /// Bytes of the schema text.
    pub schema_text_len: u32,
    /// Bytes of a page.
    pub page_size: u32,
}

impl Sizes<'_> {
    /// Every size that is out of its range (1.3), in the order of the header page.
    pub fn faults(&self) -> Vec<Mismatch> {
        let page_sizes = "4096, 16384, 65536, or a huge page size of at most 1 GiB";
        let page_ok = self.page_size.is_power_of_two()
            && (matches!(self.page_size, 0x1000 | 0x4000) || (0x1_0000..=1 << 30).contains(&self.page_size));
        let mut faults = Vec::new();
        let mut within = |field, lowest: u64, highest: u64, found: u64| {
            if found < lowest || found > highest {
                faults.push(Mismatch::range(field, lowest, highest, found));
            }
        };
        within("slot_count", 1, MAX_SLOTS.into(), self.slot_count.into());
        within("max_consumers", 1, MAX_CONSUMERS.into(), self.max_consumers.into());
        within("slot_size", 1, MAX_SLOT_SIZE, self.slot_size);
        within("zone_count", 0, MAX_ZONES as u64, self.zone_sizes.len() as u64);
        within("schema_text_len", 0, MAX_SCHEMA_TEXT.into(), self.schema_text_len.into());
        if !page_ok {
            faults.push(Mismatch::rule("page_size", page_sizes, self.page_size.into()));
        }
        for (index, &size) in (0..).zip(self.zone_sizes) {
            if size == 0 || size > MAX_ZONE_SIZE {
                faults.push(Mismatch::range("zone size", 1, MAX_ZONE_SIZE, size).at(index));
            }
        }
        faults
    }
}

/// A piece of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the start of the block.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Extent {
    /// The byte after the last one.
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// As a range of offsets.
    pub const fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.end()
    }
}

/// Offsets and lengths of everything in a block, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Distance of two slots.
    pub slot_stride: u64,
    /// The regions in the order of the region table.
    pub regions: [Extent; 11],
    /// Offset of the control line of each zone.
    pub zone_offsets: Vec<u64>,
    /// Bytes of the whole block.
    pub total_size: u64,
}

/// Defines accessors for the entries of the region table.
macro_rules! regions {
    ($($(#[$doc:meta])* $name:ident = $index:literal,)*) => {
        /// Names of the entries of the region table.
        pub const REGION_NAMES: [&str; 11] = [$(stringify!($name)),*];

        impl Geometry {
            $(
                $(#[$doc])*
                pub const fn $name(&self) -> Extent {
                    self.regions[$index]
                }
            )*
        }
    };
}

regions! {
    /// Words of the acting writer (area C).
    control = 0,
    /// Schema text (area D).
    schema = 1,
    /// Area S, from the sync page to the zones: what consumers may write.
    shared = 2,
    /// Maintenance lock, masks, waiting, audit ring.
    sync = 3,
    /// Counters.
    metrics = 4,
    /// Lock table.
    locks = 5,
    /// Consumer table.
    consumers = 6,
    /// Flexible zones.
    zones = 7,
    /// Slot records.
    slot_records = 8,
    /// Digest table, empty if digests are off.
    digests = 9,
    /// The slots.
    slots = 10,
}

impl Geometry {
    /// The layout of a block with these sizes.
    ///
    /// # Errors
    /// The first size that is out of its range; with all sizes in range nothing overflows.
    pub fn compute(sizes: &Sizes<'_>) -> Result<Self, Mismatch> {
        if let Some(fault) = sizes.faults().first() {
            return Err(*fault);
        }
        let page_size = u64::from(sizes.page_size);
        let slot_stride = sizes.slot_size.next_multiple_of(LINE as u64);
        let mut next = SCHEMA_OFF;
        let mut take = |len: u64, align: u64| {
            let offset = next.next_multiple_of(align);
            let len = len.next_multiple_of(align);
            next = offset + len;
            Extent { offset, len }
        };

        let schema = take(u64::from(sizes.schema_text_len.max(1)), PAGE);
        let sync = take(SYNC_LEN, PAGE);
        let metrics = take(METRICS_LEN, PAGE);
        let locks = take(LOCK_TABLE_LEN, PAGE);
        let consumers = take(records(sizes.max_consumers, size_of::<ConsumerRow>()), PAGE);
        let (zone_offsets, zones_len) = place_zones(sizes.zone_sizes, consumers.end());
        let zones = take(zones_len, PAGE);
        let slot_records = take(records(sizes.slot_count, size_of::<SlotRecord>()), PAGE);
        let digest_rows = if sizes.digests { sizes.slot_count } else { 0 };
        let digests = take(records(digest_rows, size_of::<DigestEntry>()), PAGE);
        let slots = take(u64::from(sizes.slot_count) * slot_stride, page_size);

        let control = Extent { offset: CONTROL_OFF, len: CONTROL_LEN };
        let shared = Extent { offset: sync.offset, len: zones.end() - sync.offset };
        Ok(Self {
            slot_stride,
            regions: [
                control,
                schema,
                shared,
                sync,
                metrics,
                locks,
                consumers,
                zones,
                slot_records,
                digests,
                slots,
            ],
            zone_offsets,
            total_size: slots.end(),
        })
    }
}

/// Offsets of the control lines of the zones from `start` on, and the length of all of them together.
fn place_zones(sizes: &[u64], start: u64) -> (Vec<u64>, u64) {
    let mut next = start;
    let offsets = sizes.iter().map(|size| {
        let offset = next;
        next += size_of::<ZoneControl>() as u64 + size.next_multiple_of(LINE as u64);
        offset
    });
    let offsets = offsets.collect();
    (offsets, next - start)
}

fn records(count: u32, size: usize) -> u64 {
    u64::from(count) * size as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: Sizes<'_> = Sizes {
        slot_count: 8,
        slot_size: 4096,
        max_consumers: 8,
        zone_sizes: &[256],
        digests: true,
        schema_text_len: 100,
        page_size: 4096,
    };

    fn total(sizes: &Sizes<'_>) -> u64 {
        Geometry::compute(sizes).unwrap().total_size
    }

    /// Rules: DH-009, L-01.
    #[test]
    fn the_worked_example_has_the_offsets_of_the_sheet() {
        let geometry = Geometry::compute(&RING).unwrap();
        let expected = [
            ("control", 0x2000, 0x1000),
            ("schema", 0x3000, 0x1000),
            ("shared", 0x4000, 0x5000),
            ("sync", 0x4000, 0x1000),
            ("metrics", 0x5000, 0x1000),
            ("locks", 0x6000, 0x1000),
            ("consumers", 0x7000, 0x1000),
            ("zones", 0x8000, 0x1000),
            ("slot_records", 0x9000, 0x1000),
            ("digests", 0xA000, 0x1000),
            ("slots", 0xB000, 0x8000),
        ];
        let found: Vec<_> =
            REGION_NAMES.iter().zip(geometry.regions).map(|(name, e)| (*name, e.offset, e.len)).collect();
        assert_eq!(found, expected);
        assert_eq!((geometry.total_size, geometry.slot_stride), (77_824, 4096));
        assert_eq!(geometry.zone_offsets, [0x8000]);
    }

    /// Rules: DH-009, L-02.
    #[test]
    fn other_totals_are_those_of_the_sheet() {
        let single = Sizes { slot_count: 1, slot_size: 64, zone_sizes: &[], digests: false, ..RING };
        assert_eq!(total(&single), 40_960);
        let double = Sizes { slot_count: 2, slot_size: 4 << 20, ..RING };
        assert_eq!(total(&double), 8_433_664);
        let huge = Sizes { page_size: 2 << 20, ..double };
        let geometry = Geometry::compute(&huge).unwrap();
        assert_eq!((geometry.slots().offset, geometry.total_size), (0x20_0000, 10_485_760));
        assert_eq!(total(&Sizes { slot_count: 256, ..RING }), 1_118_208);
    }

    /// Rules: DH-009.
    #[test]
    fn regions_follow_each_other_without_overlap_at_every_limit() {
        for sizes in [
            Sizes {
                slot_count: MAX_SLOTS,
                slot_size: MAX_SLOT_SIZE,
                max_consumers: MAX_CONSUMERS,
                zone_sizes: &[MAX_ZONE_SIZE; MAX_ZONES],
                schema_text_len: MAX_SCHEMA_TEXT,
                page_size: 1 << 30,
                ..RING
            },
            Sizes { slot_count: 1, slot_size: 1, zone_sizes: &[1, 65, 64], schema_text_len: 0, ..RING },
        ] {
            let geometry = Geometry::compute(&sizes).unwrap();
            let mut end = CONTROL_OFF;
            for (index, extent) in geometry.regions.iter().enumerate().filter(|(index, _)| *index != 2) {
                assert!(extent.offset >= end, "{}", REGION_NAMES[index]);
                end = extent.end();
            }
            assert_eq!(geometry.total_size, end);
            assert_eq!(geometry.shared().range(), geometry.sync().offset..geometry.zones().end());
        }
        let small = Sizes { zone_sizes: &[1, 65, 64], ..RING };
        assert_eq!(Geometry::compute(&small).unwrap().zone_offsets, [0x8000, 0x8080, 0x8140]);
    }

    /// L-09, the sizes.
    /// Rules: DH-021, L-09.
    #[test]
    fn sizes_out_of_range_are_named_and_nothing_overflows() {
        let first = |sizes: Sizes<'_>| Geometry::compute(&sizes).unwrap_err().field;
        for slot_count in [0, MAX_SLOTS + 1, u32::MAX] {
            assert_eq!(first(Sizes { slot_count, ..RING }), "slot_count");
        }
        for slot_size in [0, MAX_SLOT_SIZE + 1, 1 << 63, u64::MAX] {
            assert_eq!(first(Sizes { slot_size, ..RING }), "slot_size");
        }
        for max_consumers in [0, 33, u32::MAX] {
            assert_eq!(first(Sizes { max_consumers, ..RING }), "max_consumers");
        }
        for page_size in [0, 64, 4095, 8192, 0x8000, (2 << 20) + 1, 1 << 31] {
            assert_eq!(first(Sizes { page_size, ..RING }), "page_size");
        }
        assert_eq!(first(Sizes { zone_sizes: &[1; 17], ..RING }), "zone_count");
        assert_eq!(first(Sizes { zone_sizes: &[1, 0], ..RING }), "zone size");
        assert_eq!(first(Sizes { zone_sizes: &[MAX_ZONE_SIZE + 1], ..RING }), "zone size");
        assert_eq!(first(Sizes { schema_text_len: MAX_SCHEMA_TEXT + 1, ..RING }), "schema_text_len");
    }
}
