//! The choices a block is made with, as the header page codes them.

use std::fmt;

/// Defines an enumeration with the codes of the header page.
macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl $name {
            /// The largest code in use.
            pub const MAX_CODE: u8 = {
                let codes = [$($code),*];
                codes[codes.len() - 1]
            };

            /// The byte that stands for it in the header page.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// What `code` stands for, if anything.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

coded! {
    /// How many slots there are and how they are used (table 6.1).
    Policy {
        /// One slot, overwritten.
        Single = 0,
        /// Two slots: one finished, one being filled.
        DoubleBuffer = 1,
        /// A queue of 2 to 2^20 slots.
        RingBuffer = 2,
    }
}

coded! {
    /// Which values consumers see (table 7.1).
    SyncPolicy {
        /// The newest.
        LatestOnly = 0,
        /// Every one, by one consumer.
        SingleReader = 1,
        /// Every one, by each consumer.
        AllReaders = 2,
    }
}

coded! {
    /// What a full ring does to the producer.
    Overflow {
        /// It waits.
        Block = 0,
        /// It is told at once.
        Fail = 1,
        /// The oldest unread slot is given up.
        DropOldest = 2,
    }
}

coded! {
    /// What a full ring without consumers does.
    Orphan {
        /// As with consumers.
        Retain = 0,
        /// Slots are overwritten unseen.
        Advance = 1,
    }
}

coded! {
    /// What happens to the slot to be reused while somebody reads it (DH-090).
    OnHeld {
        /// The writer waits.
        Wait = 0,
        /// The writer passes over it.
        Skip = 1,
    }
}

coded! {
    /// How slots are hashed.
    DigestAlg {
        /// Not at all; there is no digest table.
        None = 0,
        /// BLAKE2b with 32 bytes.
        Blake2b = 1,
        /// BLAKE3.
        Blake3 = 2,
        /// BLAKE2b with a key.
        KeyedBlake2b = 3,
        /// BLAKE3 with a key.
        KeyedBlake3 = 4,
        /// HMAC-SHA-256.
        HmacSha256 = 5,
    }
}

impl DigestAlg {
    /// Whether it needs a key.
    pub const fn is_keyed(self) -> bool {
        matches!(self, Self::KeyedBlake2b | Self::KeyedBlake3 | Self::HmacSha256)
    }
}

coded! {
    /// Who makes and verifies digests.
    DigestPolicy {
        /// The application, when it wants to.
        Manual = 0,
        /// The library, always.
        Enforced = 1,
    }
}

coded! {
    /// What pages the block lies in (3.9).
    PageMode {
        /// Ordinary ones.
        Base = 0,
        /// Ordinary file, huge pages given by the kernel.
        TransparentHuge = 1,
        /// hugetlbfs.
        Hugetlb = 2,
    }
}

coded! {
    /// What the secret protects (DH-162).
    SecurityLevel {
        /// There is none: file permissions only.
        None = 0,
        /// Attaching.
        AttachTag = 1,
        /// Attaching and the content of the slots.
        AuthenticatedSlots = 2,
    }
}
