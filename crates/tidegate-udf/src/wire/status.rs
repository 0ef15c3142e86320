//! How a batch or a session ended (9.1).

/// Status of an answer, and the last error of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All records were processed.
    Ok,
    /// Some records failed; the answer says which.
    Partial,
    /// The function failed as a whole.
    UdfError,
    /// The function panicked or its process died.
    UdfPanic,
    /// The function took too long.
    Timeout,
    /// The batch is of a generation that is over.
    StaleGeneration,
    /// The schemas do not match.
    SchemaMismatch,
    /// A frame cannot be read.
    BadFrame,
    /// The outputs are longer than the answer may be.
    OutputTooLarge,
    /// Given back undone.
    Cancelled,
    /// Not now.
    Overloaded,
    /// The peer broke the protocol.
    Protocol,
}

impl Status {
    /// The number on the wire.
    pub(crate) fn code(self) -> u32 {
        self as u32
    }

    /// The status of a number.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        ALL.get(usize::try_from(code).ok()?).copied()
    }
}

/// All of them, each at its number.
const ALL: [Status; 12] = [
    Status::Ok,
    Status::Partial,
    Status::UdfError,
    Status::UdfPanic,
    Status::Timeout,
    Status::StaleGeneration,
    Status::SchemaMismatch,
    Status::BadFrame,
    Status::OutputTooLarge,
    Status::Cancelled,
    Status::Overloaded,
    Status::Protocol,
];

const _: () = {
    let mut code = 0;
    while code < ALL.len() {
        assert!(ALL[code] as usize == code, "a status stands at its number");
        code += 1;
    }
};
