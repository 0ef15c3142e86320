//! Generator of the codecs: reads `schemas/*.xml` and writes one Rust file per schema into `OUT_DIR`.
//!
//! Three steps, one module each: [`parse`] turns a schema into a tree and knows XML, [`layout`] gives every field its
//! place and its Rust type and refuses what does not fit, [`emit`] prints Rust. The hand-written half of the codecs,
//! which the printed code calls, is `src/wire.rs`.
//!
//! `arbitrary.rs` is written beside the codecs. Only the tests include it: it makes random values of every message.

mod emit;
mod layout;
mod parse;

use std::path::PathBuf;
use std::{env, fs};

/// File stems of the schemas; also the names of the modules that `lib.rs` includes them into.
const SCHEMAS: [&str; 6] = ["control", "driver", "bridge", "merge", "tracelink", "discovery"];

/// Why no codecs could be generated.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("cargo did not set {name}")]
    Environment { name: &'static str, source: env::VarError },
    #[error("cannot access {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{schema}.xml: {source}")]
    Parse { schema: &'static str, source: parse::ParseError },
    #[error("{schema}.xml: {source}")]
    Layout { schema: &'static str, source: layout::LayoutError },
}

fn main() -> Result<(), BuildError> {
    let schemas = directory("CARGO_MANIFEST_DIR")?.join("../../schemas");
    let out = directory("OUT_DIR")?;
    println!("cargo::rerun-if-changed=build");
    let mut modules = Vec::new();
    for schema in SCHEMAS {
        let path = schemas.join(schema).with_extension("xml");
        println!("cargo::rerun-if-changed={}", path.display());
        let xml = fs::read_to_string(&path).map_err(|source| BuildError::File { path, source })?;
        let tree = parse::schema(&xml).map_err(|source| BuildError::Parse { schema, source })?;
        let layout = layout::schema(&tree).map_err(|source| BuildError::Layout { schema, source })?;
        write(out.join(schema).with_extension("rs"), &emit::module(&layout))?;
        modules.push((schema, layout));
    }
    write(out.join("arbitrary.rs"), &emit::arbitrary(&modules))
}

fn directory(name: &'static str) -> Result<PathBuf, BuildError> {
    env::var(name).map(PathBuf::from).map_err(|source| BuildError::Environment { name, source })
}

fn write(path: PathBuf, text: &str) -> Result<(), BuildError> {
    fs::write(&path, text).map_err(|source| BuildError::File { path, source })
}
