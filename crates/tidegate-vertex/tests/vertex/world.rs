//! A place for one test: its pipeline file, its output, and marks that its workers leave.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
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
    pipeline(dir, role, &(ledger(dir) + "[epoch]\ninterval = \"10ms\""), source)
}

/// A pipeline with small rings and batches whose worker is this binary in `role`.
pub(crate) fn pipeline(dir: &Path, role: &str, udf: &str, source: &str) -> Pipeline {
    of(dir, "at_least_once", role, udf, source, &file_sink(dir)).parse().unwrap()
}

/// A pipeline that commits epochs of about a hundred inputs.
pub(crate) fn with_epochs(dir: &Path, role: &str, source: &str, sinks: &str) -> Pipeline {
    let rest = ledger(dir) + "[epoch]\ninterval = \"1h\"\nmax_records = 100";
    of(dir, "effectively_once", role, &rest, source, sinks).parse().unwrap()
}

/// The table of a ledger. Others may follow.
pub(crate) fn ledger(dir: &Path) -> String {
    format!("\n[ledger]\npath = {:?}\n", dir.join("ledger"))
}

/// The sink that [`World::lines`] reads. Further keys may follow, and tables.
pub(crate) fn file_sink(dir: &Path) -> String {
    format!("[[sink]]\nname = \"main\"\nkind = \"file\"\npath = {:?}\n", dir.join("out"))
}

/// A sink with a file for each epoch, in `epochs`. Further keys may follow, and tables.
pub(crate) fn epoch_sink(dir: &Path) -> String {
    format!("[[sink]]\nname = \"main\"\nkind = \"file\"\nmode = \"epoch\"\ndir = {:?}\n", dir.join("epochs"))
}

/// The text of a pipeline file; `udf` are further keys of `[udf]` and whatever comes behind it, `sinks` tables.
pub(crate) fn of(dir: &Path, delivery: &str, role: &str, udf: &str, source: &str, sinks: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let workers = format!(
        "command = [{program:?}, \"--exact\", \"worker_process\", \"--nocapture\"]
        env = {{ TIDEGATE_TEST_FUNCTION = {role:?}, TIDEGATE_TEST_PLACE = {dir:?} }}"
    );
    // Others start them.
    let workers = if udf.contains("listen = ") { String::new() } else { workers };
    // A test machine may stand still for longer than the defaults allow.
    let patience: String = ["attach_timeout", "batch_timeout"]
        .iter()
        .filter(|key| !udf.contains(**key))
        .map(|key| format!("{key} = \"5m\"\n"))
        .collect();
    format!(
        "version = 1
        [pipeline]
        name = \"test\"
        uid = \"00000000000000aa\"
        delivery = {delivery:?}
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
        {sinks}
        [udf]
        {workers}
        {patience}{udf}",
    )
}

/// The lines of all epochs of a partition, in their order; each file by itself.
pub(crate) fn epoch_files(dir: &Path, partition: u32) -> Vec<Vec<String>> {
    let place = dir.join(format!("p={partition}"));
    let Ok(entries) = fs::read_dir(&place) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    let lines =
        |name: &String| fs::read_to_string(place.join(name)).unwrap().lines().map(str::to_owned).collect();
    names.iter().map(lines).collect()
}

/// Waits for something that another thread or process does.
pub(crate) fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(100);
    while !happened() {
        assert!(Instant::now() < give_up, "{what}: never");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a vertex in a process of its own, in which the test `test` was started again; it sees `place` by [`runtime_place`].
pub(crate) fn runtime(test: &str, world: &World) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(PLACE, world.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// In a process that [`runtime`] has started: where it works.
pub(crate) fn runtime_place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

const PLACE: &str = "TIDEGATE_TEST_RUNTIME";
