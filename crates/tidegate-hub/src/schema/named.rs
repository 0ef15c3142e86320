//! Named schemas (12.6): schemas kept in files, and those that producers register. A name is an alias for people; what
//! decides is the hash.
//!
//! ```json
//! { "id": "SensorData", "version": "2.0",
//!   "slot": { "fields": [ { "name": "timestamp_ns", "type": "u64" }, { "name": "samples", "type": "f32", "count": 4 } ] },
//!   "zones": [ { "name": "calibration", "fields": [ { "name": "gain", "type": "f64", "optional": false } ] } ] }
//! ```
//!
//! Fields are laid out as C does, with padding where it is needed. The record of the slots is called as `id`, that of a
//! zone as the zone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs, io};

use serde::Deserialize;
use thiserror::Error;

use super::parse::excerpt;
use super::{BuildError, Builder, Prim, Problem, Schema, SchemaVersion, VersionError};

/// `id@major`, as messages refer to a named schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId {
    /// The name.
    pub id: String,
    /// The major version.
    pub major: u16,
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.major)
    }
}

impl FromStr for SchemaId {
    type Err = NamedError;

    fn from_str(text: &str) -> Result<Self, NamedError> {
        let wrong = || NamedError::Id { found: text.chars().take(96).collect() };
        let (id, major) = text.split_once('@').ok_or_else(wrong)?;
        let canonical = major == "0" || !major.starts_with(['0', '+']);
        match major.parse() {
            Ok(major) if canonical && !id.is_empty() => Ok(Self { id: id.to_owned(), major }),
            _ => Err(wrong()),
        }
    }
}

/// A schema with a name: of slots, zones, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSchema {
    /// The name.
    pub id: String,
    /// The version.
    pub version: SchemaVersion,
    /// Schema of the slots; nothing if they are untyped.
    pub slot: Option<Schema>,
    /// Schemas of the zones, in their order.
    pub zones: Vec<ZoneSchema>,
}

/// The schema of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneSchema {
    /// Name of the zone.
    pub name: String,
    /// What is in it.
    pub schema: Schema,
}

impl NamedSchema {
    /// Reads the content of a schema file.
    ///
    /// # Errors
    /// [`NamedError`] for text that is not such JSON, types that do not exist, and schemas that cannot be made.
    pub fn from_json(json: &str) -> Result<Self, NamedError> {
        let file: FileText = serde_json::from_str(json).map_err(NamedError::Json)?;
        let version = file.version.parse()?;
        let slot = file.slot.map(|slot| schema_of(&file.id, &slot.fields)).transpose()?;
        let zone =
            |zone: ZoneText| Ok(ZoneSchema { schema: schema_of(&zone.name, &zone.fields)?, name: zone.name });
        let zones = file.zones.into_iter().map(zone).collect::<Result<Vec<_>, NamedError>>()?;
        Ok(Self { id: file.id, version, slot, zones })
    }

    /// How messages refer to it.
    pub fn schema_id(&self) -> SchemaId {
        SchemaId { id: self.id.clone(), major: self.version.major }
    }
}

/// The named schemas that a broker knows (DH-181): from files, which stay, and of owners, which go with them.
#[derive(Clone, Debug, Default)]
pub struct NamedSchemas {
    files: BTreeMap<SchemaId, NamedSchema>,
    owned: BTreeMap<(String, SchemaId), NamedSchema>,
}

impl NamedSchemas {
    /// Most files that are read.
    pub const MAX_FILES: usize = 4096;
    /// Deepest folder below the given one.
    pub const MAX_FOLDERS: usize = 16;
    /// Largest file in bytes.
    pub const MAX_FILE_LEN: u64 = 1024 * 1024;

    /// Reads all files `*.json` in a directory and its folders. Links to folders are not followed.
    ///
    /// # Errors
    /// [`NamedError`] with the path of the first file that cannot be read or is no schema, and for two files of one id and
    /// major version.
    pub fn load(directory: &Path) -> Result<Self, NamedError> {
        let mut paths = Vec::new();
        collect(directory, 0, &mut paths)?;
        paths.sort();
        let mut schemas = Self::default();
        for path in paths {
            let schema = read(&path).map_err(|error| error.in_file(&path))?;
            let id = schema.schema_id();
            if schemas.files.insert(id.clone(), schema).is_some() {
                return Err(NamedError::Twice { id }.in_file(&path));
            }
        }
        Ok(schemas)
    }

    /// Registers a schema of an owner in place of the owner's earlier one of this id and major version. Those of files and
    /// of other owners stay as they are.
    pub fn register(&mut self, owner: &str, schema: NamedSchema) {
        self.owned.insert((owner.to_owned(), schema.schema_id()), schema);
    }

    /// Forgets all schemas of an owner; returns how many there were.
    pub fn remove_owner(&mut self, owner: &str) -> usize {
        let before = self.owned.len();
        self.owned.retain(|(other, _), _| other != owner);
        before - self.owned.len()
    }

    /// All schemas of this id: the file's first, then by owner. They can differ, since the hash decides, not the name.
    pub fn find<'a>(&'a self, id: &'a SchemaId) -> impl Iterator<Item = &'a NamedSchema> {
        let owned = self.owned.iter().filter(move |((_, other), _)| other == id).map(|(_, schema)| schema);
        self.files.get(id).into_iter().chain(owned)
    }
}

/// A named schema that cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NamedError {
    /// Not the JSON of a schema file.
    #[error("schema file: {0}")]
    Json(serde_json::Error),
    /// A version that is none.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A schema that cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A reference that is none.
    #[error("schema id: expected \"ID@MAJOR\", found {found:?}")]
    Id {
        /// What was there.
        found: String,
    },
    /// Two files of one name.
    #[error("{id} is in an earlier file too; remove one of both")]
    Twice {
        /// The name.
        id: SchemaId,
    },
    /// Too much in the directory.
    #[error("{}: more than {most} {what}; is it the right directory?", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        most: u64,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Something is wrong with a file.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<Self>,
    },
}

impl NamedError {
    fn in_file(self, path: &Path) -> Self {
        match self {
            named @ (Self::Io { .. } | Self::TooMany { .. }) => named,
            error => Self::File { path: path.to_owned(), error: Box::new(error) },
        }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    id: String,
    version: String,
    slot: Option<SlotText>,
    #[serde(default)]
    zones: Vec<ZoneText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotText {
    fields: Vec<FieldText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneText {
    name: String,
    fields: Vec<FieldText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldText {
    name: String,
    #[serde(rename = "type")]
    prim: String,
    count: Option<u32>,
    #[serde(default)]
    optional: bool,
}

fn schema_of(name: &str, fields: &[FieldText]) -> Result<Schema, BuildError> {
    let builder = fields.iter().try_fold(Builder::new(name), |builder, field| {
        let prim = Prim::from_word(&field.prim).ok_or_else(|| BuildError {
            at: field.name.clone(),
            problem: Problem::Unexpected {
                expected: "a type: u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 b8 c8",
                found: excerpt(&field.prim),
            },
        })?;
        builder.field(&field.name, prim, field.count, field.optional)
    })?;
    builder.finish()
}

fn read(path: &Path) -> Result<NamedSchema, NamedError> {
    let len = fs::metadata(path).map_err(NamedError::io(path))?.len();
    if len > NamedSchemas::MAX_FILE_LEN {
        return Err(NamedError::TooMany {
            path: path.to_owned(),
            what: "bytes",
            most: NamedSchemas::MAX_FILE_LEN,
        });
    }
    NamedSchema::from_json(&fs::read_to_string(path).map_err(NamedError::io(path))?)
}

fn collect(directory: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), NamedError> {
    let too_many =
        |what, most: usize| NamedError::TooMany { path: directory.to_owned(), what, most: most as u64 };
    if depth > NamedSchemas::MAX_FOLDERS {
        return Err(too_many("folders in each other", NamedSchemas::MAX_FOLDERS));
    }
    for entry in fs::read_dir(directory).map_err(NamedError::io(directory))? {
        let entry = entry.map_err(NamedError::io(directory))?;
        let path = entry.path();
        if entry.file_type().map_err(NamedError::io(&path))?.is_dir() {
            collect(&path, depth + 1, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            if paths.len() == NamedSchemas::MAX_FILES {
                return Err(too_many("schema files", NamedSchemas::MAX_FILES));
            }
            paths.push(path);
        }
    }
    Ok(())
}
