//! Structures of the protocol as bytes, with every offset written down and checked by the compiler.

/// Defines a structure of little-endian integers: what it is in memory, and where each field lies in its bytes. The
/// compiler refuses fields that are not aligned to their size, that leave a gap, or that do not fill the size.
macro_rules! layout {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident[$size:literal] {
            $($(#[$doc:meta])* $field:ident: $ty:ty = $at:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$doc])* $vis $field: $ty,)*
        }

        const _: () = {
            let mut end = 0;
            $(
                assert!($at == end, concat!(stringify!($field), " leaves a gap or overlaps"));
                assert!($at % size_of::<$ty>() == 0, concat!(stringify!($field), " is not aligned"));
                end += size_of::<$ty>();
            )*
            assert!(end == $size, "the fields do not fill the structure");
        };

        impl $name {
            /// The structure as the other side reads it.
            $vis fn to_bytes(self) -> [u8; $size] {
                let mut bytes = [0; $size];
                $(bytes[$at..$at + size_of::<$ty>()].copy_from_slice(&self.$field.to_le_bytes());)*
                bytes
            }

            /// The structure as the other side wrote it; nothing is checked.
            $vis fn from_bytes(bytes: &[u8; $size]) -> Self {
                Self {
                    $($field: {
                        let mut raw = [0; size_of::<$ty>()];
                        raw.copy_from_slice(&bytes[$at..$at + size_of::<$ty>()]);
                        <$ty>::from_le_bytes(raw)
                    },)*
                }
            }
        }
    };
}
pub(crate) use layout;
