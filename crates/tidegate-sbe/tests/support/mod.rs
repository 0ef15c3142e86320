//! The golden data of the tensor pool, as files.

use std::fs;
use std::path::{Path, PathBuf};

/// `conformance/vectors/tensor-pool`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/vectors/tensor-pool")
}

/// Path relative to [`root`] and content of every golden message and layout, in the order of `index.json`.
pub(crate) fn files() -> Vec<(String, Vec<u8>)> {
    let index = fs::read(root().join("index.json")).expect("index of the golden data");
    let names: Vec<String> = serde_json::from_slice(&index).expect("a list of names");
    let read = |name: String| {
        let bytes = fs::read(root().join(&name)).expect("a golden file");
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}
