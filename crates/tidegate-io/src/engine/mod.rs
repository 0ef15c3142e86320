//! (being written)
/// Facts about a stream.
#[derive(Debug)]
pub struct StreamInfo {}
/// Reaches a connection from any thread.
#[derive(Clone, Debug)]
pub struct Control {}
