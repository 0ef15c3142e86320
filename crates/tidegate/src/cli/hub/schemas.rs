//! `tidegate hub schema ...`: what the records of a channel are, and whether two descriptions of them go together.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidegate::hub::block::Role;
use tidegate::hub::inspect::Inspector;
use tidegate::hub::schema::{
    Offer, Schema, SchemaExpectation, SchemaHash, SchemaMode, SchemaTexts, SchemaVersion, compare,
};

use super::block::{BlockArgs, DirArgs, problems};
use super::error::with_codes_of_hub;
use super::schema::SchemaPlace;
use crate::cli::text;
use crate::output::{Exit, HubExit, Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A schema is a file with a tds1 text or a named schema (.json), ID@MAJOR of a named one in --schema-dir, or the name of a block.

Examples:
  tidegate hub schema show --channel sensor_temperature
  tidegate hub schema hash load.tds1
  tidegate hub schema diff load.tds1 tidegate_load_9f3c21ab")]
pub(crate) enum Command {
    /// Show the schema of a block: text, hash, version, fields
    #[command(after_help = "Example:\n  tidegate hub schema show --channel sensor_temperature --json")]
    Show(Show),
    /// Compute the hash of a schema
    #[command(after_help = "Example:\n  tidegate hub schema hash load.tds1")]
    Hash(Hash),
    /// Whether a consumer of one schema can read records of another one, and the first difference
    #[command(after_help = "\
Exit code 3 when it cannot.

Examples:
  tidegate hub schema diff mine.tds1 theirs.tds1
  tidegate hub schema diff load@2 tidegate_load_9f3c21ab --allow-appended --json")]
    Diff(Diff),
}

pub(super) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Show(command) => command.run(output),
        Command::Hash(command) => command.run(output),
        Command::Diff(command) => command.run(output),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    block: BlockArgs,
}

impl Show {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        let block = self.block.open()?;
        let spec = &block.descriptor().spec;
        let texts = texts(&block)?;
        let version = SchemaVersion::new(spec.schema.version.0, spec.schema.version.1);
        let slot = texts.slot(SchemaHash::from_bytes(spec.schema.slot_hash)).map_err(damaged)?;
        let zone = |zone: &tidegate::hub::layout::ZoneSpec| {
            let hash = SchemaHash::from_bytes(zone.schema_hash);
            let schema = texts.zone(zone.text_index.unwrap_or(SchemaTexts::NO_LINE), hash);
            Ok((
                zone.name.clone(),
                SchemaVersion::new(zone.version.0, zone.version.1),
                schema.map_err(damaged)?,
            ))
        };
        let zones: Vec<(String, SchemaVersion, Option<&Schema>)> =
            spec.zones.iter().map(zone).collect::<Result<_, Stop>>()?;
        output.result(
            || {
                let mut page = described("slots", version, slot);
                for (name, version, schema) in &zones {
                    page += &format!("\n{}", described(&format!("zone {name}"), *version, *schema));
                }
                page
            },
            || {
                json!({
                    "block": block.name(),
                    "channel": spec.channel.as_str(),
                    "slots": value(version, slot),
                    "zones": zones
                        .iter()
                        .map(|(name, version, schema)| json!({ "name": name, "schema": value(*version, *schema) }))
                        .collect::<Vec<_>>(),
                })
            },
        )
    }
}

#[derive(Debug, Args)]
pub(crate) struct Hash {
    /// The schema
    #[arg(value_name = "FILE|ID@MAJOR")]
    schema: String,
    #[command(flatten)]
    place: SchemaPlace,
}

impl Hash {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        let (schema, version) = self.place.load(&self.schema).map_err(with_codes_of_hub)?;
        output.result(|| schema.hash().to_string(), || value(version, Some(&schema)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// What the consumer expects
    #[arg(value_name = "EXPECTED")]
    expected: String,
    /// What the producer writes
    #[arg(value_name = "FOUND")]
    found: String,
    /// Accept optional fields at the end that only one side knows
    #[arg(long)]
    allow_appended: bool,
    #[command(flatten)]
    place: SchemaPlace,
    #[command(flatten)]
    dir: DirArgs,
}

impl Diff {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        let (schema, version) = self.load(&self.expected)?;
        let (found, found_version) = self.load(&self.found)?;
        let mode = if self.allow_appended { SchemaMode::AllowAppended } else { SchemaMode::Strict };
        let hash = schema.hash();
        let expected = SchemaExpectation { schema, version, min_minor: 0, mode };
        let text = found.to_string();
        let offer = Offer { hash: found.hash(), version: found_version, text: Some(&text) };
        let judged = compare(&expected, &offer);
        let difference = judged.as_ref().err().map(|mismatch| mismatch.first_difference.to_string());
        output.result(
            || match &difference {
                None => "compatible".to_owned(),
                Some(difference) => format!("not compatible: {difference}"),
            },
            || {
                json!({
                    "compatible": difference.is_none(),
                    "identical": hash == offer.hash,
                    "expected": { "hash": hash.to_string(), "version": version.to_string() },
                    "found": { "hash": offer.hash.to_string(), "version": found_version.to_string() },
                    "first_difference": difference,
                })
            },
        )?;
        problems(difference.is_some())
    }

    /// A schema, or that of a block's slots.
    fn load(&self, name: &str) -> Result<(Schema, SchemaVersion), Stop> {
        let is_block = name.starts_with("tidegate_") && !Path::new(name).exists();
        if !is_block {
            return self.place.load(name).map_err(with_codes_of_hub);
        }
        let block = Inspector::open(name, &self.dir.options(Role::Inspector))?;
        let spec = &block.descriptor().spec;
        let version = SchemaVersion::new(spec.schema.version.0, spec.schema.version.1);
        let texts = texts(&block)?;
        let slot = texts.slot(SchemaHash::from_bytes(spec.schema.slot_hash)).map_err(damaged)?;
        let slot = slot.cloned().ok_or_else(|| Stop::Error {
            exit: Exit::Hub(HubExit::NotFound),
            code: "unknown_schema",
            message: format!("the slots of {name} are untyped bytes; there is nothing to compare"),
        })?;
        Ok((slot, version))
    }
}

fn texts(block: &Inspector) -> Result<SchemaTexts, Stop> {
    SchemaTexts::parse(block.descriptor().spec.schema.text.as_bytes()).map_err(damaged)
}

fn damaged(error: impl std::fmt::Display) -> Stop {
    let message = format!("the block's schema: {error}");
    Stop::Error { exit: Exit::Hub(HubExit::Damaged), code: "damaged", message }
}

/// A schema for people.
fn described(what: &str, version: SchemaVersion, schema: Option<&Schema>) -> String {
    let Some(schema) = schema else { return format!("{what}: untyped bytes") };
    let mut rows = vec![text::heading(["FIELD", "TYPE", "OFFSET", "SIZE", "OPTIONAL"])];
    rows.extend(schema.fields().iter().filter(|field| !field.is_padding()).map(|field| {
        vec![
            field.name().to_owned(),
            field.ty().to_string(),
            field.offset().to_string(),
            field.size().to_string(),
            if field.is_optional() { "yes" } else { "-" }.to_owned(),
        ]
    }));
    format!(
        "{what}: {} v{version}, {} bytes, align {}\nhash {}\ntext {schema}\n{}",
        schema.name(),
        schema.size(),
        schema.align(),
        schema.hash(),
        text::table(&rows)
    )
}

fn value(version: SchemaVersion, schema: Option<&Schema>) -> Value {
    let Some(schema) = schema else { return Value::Null };
    json!({
        "name": schema.name(),
        "hash": schema.hash().to_string(),
        "version": version.to_string(),
        "size": schema.size(),
        "align": schema.align(),
        "text": schema.to_string(),
    })
}
