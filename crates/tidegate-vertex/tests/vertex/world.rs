//! A place for one test: its pipeline file, its output, and marks that its workers leave.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidegate_vertex::{
    config::Pipeline,
    run::{Report, Vertex, VertexError},
};

pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn file_source(&self, name: &str) -> String {
        format!("kind = \"file\"\npath = {:?}", self.path(name))
    }

    /// Runs a vertex to its end. `udf` are further keys of `[udf]`, `source` those of `[source]`.
    pub(crate) fn run(&self, role: &str, udf: &str, source: &str) -> Result<Report, VertexError> {
        self.start(role, udf, source)?.run()
    }

    pub(crate) fn start(&self, role: &str, udf: &str, source: &str) -> Result<Vertex, VertexError> {
        Vertex::start(self.pipeline(role, udf, source))
    }

    pub(crate) fn pipeline(&self, role: &str, udf: &str, source: &str) -> Pipeline {
        pipeline(self.dir.path(), role, udf, source)
    }

    /// What the sink has.
    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.path("out")).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The same with a ledger.
pub(crate) fn with_ledger(dir: &Path, role: &str, source: &str) -> Pipeline {
    let ledger = format!("\n[ledger]\npath = {:?}\n[epoch]\ninterval = \"10ms\"", dir.join("ledger"));
    pipeline(dir, role, &ledger, source)
}

/// A pipeline with small rings and batches whose worker is this binary in `role`.
pub(crate) fn pipeline(dir: &Path, role: &str, udf: &str, source: &str) -> Pipeline {
    let program = std::env::current_exe().unwrap();
    // A test machine may stand still for longer than the defaults allow.
    let patience: String = ["attach_timeout", "batch_timeout"]
        .iter()
        .filter(|key| !udf.contains(**key))
        .map(|key| format!("{key} = \"5m\"\n"))
        .collect();
    let text = format!(
        "version = 1
        [pipeline]
        name = \"test\"
        uid = \"00000000000000aa\"
        delivery = \"at_least_once\"
        [batch]
        max_records = 50
        max_bytes = \"8KiB\"
        [transport]
        ring = \"64KiB\"
        max_in_flight = 4
        max_response = \"2MiB\"
        checksum = \"full\"
        [source]
        {source}
        [[sink]]
        name = \"main\"
        kind = \"file\"
        path = {out:?}
        [udf]
        command = [{program:?}, \"--exact\", \"worker_process\", \"--nocapture\"]
        env = {{ TIDEGATE_TEST_FUNCTION = {role:?}, TIDEGATE_TEST_PLACE = {dir:?} }}
        {patience}{udf}",
        out = dir.join("out"),
    );
    text.parse().unwrap()
}
