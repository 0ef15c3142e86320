//! Structures whose offsets the compiler compares with the numbers of the sheet (DH-015).

/// Defines a structure and proves the offset of each field and its size.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident: $size:literal { $($at:literal $(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!($size % super::LINE == 0, "DH-014");
            $(assert!(std::mem::offset_of!($name, $field) == $at);)*
        };
    };
}

pub(super) use layout;
