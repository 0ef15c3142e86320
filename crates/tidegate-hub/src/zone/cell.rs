//! Plain values in a zone. They can be torn, so they are reached by who has the zone to itself, or in a snapshot
//! (DH-137, DH-138).

use std::{fmt, marker::PhantomData};

use tidegate_shm::region::{Row, RowMut, SpanMut};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::schema::{RecordField, TypeDef, ZoneField};

/// What a cell can hold: a record, a number, or an array of them.
pub trait CellValue: RecordField + FromBytes + IntoBytes + Immutable {}

impl<P: RecordField + FromBytes + IntoBytes + Immutable> CellValue for P {}

/// A field of a zone that holds a plain value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ZoneCell<P>(P);

impl<P> ZoneCell<P> {
    /// The value, out of a snapshot.
    pub fn into_inner(self) -> P {
        self.0
    }
}

/// A cell seen by who does not have the zone to itself: nothing can be done with it.
#[derive(Clone, Copy, Debug)]
pub struct Closed;

/// A cell seen by who has the zone to itself.
#[derive(Clone, Copy)]
pub struct Cell<'z, P> {
    /// As many bytes as `P` has.
    bytes: SpanMut<'z>,
    value: PhantomData<P>,
}

impl<P: CellValue> Cell<'_, P> {
    /// A copy of the value.
    pub fn load(&self) -> P {
        let mut value = P::new_zeroed();
        let copied = self.bytes.copy_to(value.as_mut_bytes());
        debug_assert!(copied.is_ok(), "{copied:?}");
        value
    }

    /// Replaces the value.
    pub fn store(&self, value: &P) {
        let copied = self.bytes.copy_from(value.as_bytes());
        debug_assert!(copied.is_ok(), "{copied:?}");
    }
}

impl<P> fmt::Debug for Cell<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({} bytes)", self.bytes.len())
    }
}

impl<P: CellValue> ZoneField for ZoneCell<P> {
    const TYPE: TypeDef = <P as RecordField>::TYPE;
    type Read<'z> = Closed;
    type Shared<'z> = Closed;
    type Held<'z> = Cell<'z, P>;

    fn read<const AT: usize, const SIZE: usize>(_: Row<'_, SIZE>) -> Closed {
        Closed
    }
    fn shared<const AT: usize, const SIZE: usize>(_: RowMut<'_, SIZE>) -> Closed {
        Closed
    }
    #[inline]
    fn held<const AT: usize, const SIZE: usize>(row: RowMut<'_, SIZE>) -> Cell<'_, P> {
        Cell { bytes: row.bytes_of::<P, AT>(), value: PhantomData }
    }
}
