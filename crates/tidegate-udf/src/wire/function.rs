//! Kinds of functions (8.1).

/// What a function is given and what it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// One record at a time: map, filter and flat-map.
    Map,
    /// All records of a batch at once.
    BatchMap,
    /// All records of a batch as columns.
    BatchTable,
}

impl FunctionKind {
    const ALL: [Self; 3] = [Self::Map, Self::BatchMap, Self::BatchTable];

    /// How `hello` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::BatchMap => "batch_map",
            Self::BatchTable => "batch_table",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The number in D.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Map => 1,
            Self::BatchMap => 2,
            Self::BatchTable => 3,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}
