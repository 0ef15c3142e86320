//! Naming a schema on the command line, and what records look like as lines.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tidegate::hub::layout::{Descriptor, SchemaInfo};
use tidegate::hub::schema::{
    CsvColumns, NamedSchema, NamedSchemas, RecordRef, Schema, SchemaId, SchemaVersion, ValueError,
};

use crate::output::{Exit, Stop, exit_of_io};

/// Which records.
#[derive(Debug, Clone, Args)]
pub(super) struct SchemaArgs {
    /// A file with a tds1 text or a named schema (.json), or ID@MAJOR of one in --schema-dir
    #[arg(long, value_name = "FILE|ID@MAJOR")]
    pub(super) schema: Option<String>,
    #[command(flatten)]
    place: SchemaPlace,
}

/// Where named schemas are, and what texts do not say.
#[derive(Debug, Clone, Args)]
pub(super) struct SchemaPlace {
    /// Directory of named schemas
    #[arg(long, value_name = "DIR", default_value = "schemas")]
    schema_dir: PathBuf,
    /// Version of a schema that is a tds1 text
    #[arg(long, value_name = "MAJOR.MINOR", default_value = "1.0")]
    schema_version: SchemaVersion,
}

/// How a record is written as a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A JSON object per line
    Ndjson,
    /// Comma-separated values, names of the columns first
    Csv,
}

impl Format {
    /// What the name of a file says.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

impl SchemaArgs {
    /// The schema that was named.
    pub(super) fn load(&self) -> Result<Option<(Schema, SchemaVersion)>, Stop> {
        self.schema.as_ref().map(|name| self.place.load(name)).transpose()
    }
}

impl SchemaPlace {
    /// The schema of this name.
    pub(super) fn load(&self, name: &str) -> Result<(Schema, SchemaVersion), Stop> {
        let path = Path::new(name);
        if !path.exists()
            && let Ok(id) = name.parse::<SchemaId>()
        {
            return self.named(&id);
        }
        let text = std::fs::read_to_string(path).map_err(|error| {
            let (exit, code) = exit_of_io(&error);
            Stop::Error { exit, code, message: format!("cannot read the schema {name}: {error}") }
        })?;
        if text.trim_start().starts_with('{') {
            let named = NamedSchema::from_json(&text).map_err(|error| wrong(name, &error))?;
            return slot_of(named, name);
        }
        // One line end is the editor's.
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let schema = Schema::parse(line).map_err(|error| wrong(name, &error))?;
        Ok((schema, self.schema_version))
    }

    fn named(&self, id: &SchemaId) -> Result<(Schema, SchemaVersion), Stop> {
        let dir = self.schema_dir.display().to_string();
        let schemas = NamedSchemas::load(&self.schema_dir).map_err(|error| wrong(&dir, &error))?;
        let found = schemas.find(id).next().cloned().ok_or_else(|| Stop::Error {
            exit: Exit::NotFound,
            code: "unknown_schema",
            message: format!("there is no schema {id} in {dir}; name another directory with --schema-dir"),
        })?;
        slot_of(found, &id.to_string())
    }
}

fn slot_of(named: NamedSchema, name: &str) -> Result<(Schema, SchemaVersion), Stop> {
    let version = named.version;
    named
        .slot
        .map(|slot| (slot, version))
        .ok_or_else(|| wrong(name, &"it describes zones only, and no slots"))
}

fn wrong(name: &str, error: &dyn std::fmt::Display) -> Stop {
    Stop::Error { exit: Exit::Usage, code: "bad_schema", message: format!("schema {name}: {error}") }
}

/// What the descriptor of a block says about slots with such records.
pub(super) fn info(schema: &Schema, version: SchemaVersion) -> SchemaInfo {
    SchemaInfo {
        slot_hash: *schema.hash().as_bytes(),
        version: (version.major, version.minor),
        struct_size: schema.size(),
        struct_align: schema.align(),
        text: schema.to_string(),
    }
}

/// The schema of the slots of a block; none if they are untyped.
pub(super) fn of_block(descriptor: &Descriptor) -> Result<Option<Schema>, Stop> {
    let text = descriptor.spec.schema.text.lines().next().unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    Schema::parse(text).map(Some).map_err(|error| wrong(&descriptor.file_name(), &error))
}

/// Records as lines.
pub(super) enum Lines<'a> {
    /// Bytes that mean nothing here, as `{"base64":"..."}`.
    Untyped,
    Ndjson(&'a Schema),
    Csv(CsvColumns<'a>),
}

impl<'a> Lines<'a> {
    pub(super) fn new(schema: Option<&'a Schema>, format: Format) -> Result<Self, Stop> {
        match (schema, format) {
            (None, Format::Ndjson) => Ok(Self::Untyped),
            (None, Format::Csv) => {
                Err(Stop::usage("the channel has no schema, so there are no columns; use ndjson"))
            }
            (Some(schema), Format::Ndjson) => Ok(Self::Ndjson(schema)),
            (Some(schema), Format::Csv) => match CsvColumns::of(schema) {
                Ok(columns) => Ok(Self::Csv(columns)),
                Err(error) => Err(Stop::usage(error)),
            },
        }
    }

    /// What comes before all lines.
    pub(super) fn head(&self) -> Option<String> {
        match self {
            Self::Csv(columns) => Some(columns.names().map(quoted).collect::<Vec<_>>().join(",")),
            _ => None,
        }
    }

    /// The line of one record. `number` counts records for errors.
    pub(super) fn line(&self, number: u64, bytes: &[u8]) -> Result<String, ValueError> {
        match self {
            Self::Csv(columns) => {
                let row = columns.row(number, bytes)?;
                let line = row.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",");
                // A line of blanks is no record to whoever reads it.
                Ok(if line.trim().is_empty() { format!("\"{line}\"") } else { line })
            }
            _ => self.value(number, bytes).map(|value| value.to_string()),
        }
    }

    /// The record as JSON.
    pub(super) fn value(&self, number: u64, bytes: &[u8]) -> Result<Value, ValueError> {
        use base64::Engine;
        let schema = match self {
            Self::Untyped => {
                return Ok(json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }));
            }
            Self::Ndjson(schema) => schema,
            Self::Csv(columns) => columns.schema(),
        };
        match RecordRef::new(schema, bytes) {
            Ok(record) => record.to_json(number),
            Err(_) => Ok(json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) })),
        }
    }
}

/// A field of CSV, in quotes where it must be.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
