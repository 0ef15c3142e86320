//! `tidegate tensor config`: the configuration a driver would run with.
//!
//! Without a file it is the one of a node that is started without a file. Environment variables override keys in both
//! cases, as they do for a driver (TP-462).

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidegate::tensor::config::{ConfigError, DriverConfig, Loaded, Profile};

use crate::output::{Exit, Output, Report, Stop, exit_of_io};

/// Longest file that is read; real ones have a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidegate tensor config check driver.toml")]
pub(crate) enum Command {
    /// Say whether a driver would start with a configuration, and what it would serve
    #[command(after_help = "Example:\n  tidegate tensor config check driver.toml")]
    Check(Source),
    /// Show every key with the value in effect, as a file that can be used again
    #[command(after_help = "Examples:\n  tidegate tensor config dump > driver.toml\n  \
                            DRIVER_CONTROL_STREAM_ID=1010 tidegate tensor config dump driver.toml --json")]
    Dump(Source),
}

#[derive(Debug, Args)]
pub(crate) struct Source {
    /// Configuration of a driver (TOML); - is standard input; without one, a node's defaults
    file: Option<PathBuf>,
}

impl Command {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        match self {
            Self::Check(source) => check(&source, output),
            Self::Dump(source) => dump(&source, output),
        }
    }
}

fn check(source: &Source, output: &mut Output) -> Result<(), Stop> {
    let Loaded { config, warnings } = source.load()?;
    output.result(
        || {
            let mut text = format!("{}: ok\n", source.name());
            for warning in &warnings {
                text.push_str(&format!("  {warning}\n"));
            }
            for profile in &config.profiles {
                text.push_str(&format!("  profile {}\n", describe(profile)));
            }
            for stream in &config.streams {
                text.push_str(&format!(
                    "  stream {}: id {}, profile {}\n",
                    stream.name, stream.stream_id, stream.profile
                ));
            }
            if config.policies.allow_dynamic_streams {
                let ranges: Vec<String> =
                    config.driver.stream_id_range.iter().map(ToString::to_string).collect();
                let profile = config.default_profile().map_or("none", |profile| &profile.name);
                text.push_str(&format!("  further streams: ids {}, profile {profile}\n", ranges.join(", ")));
            }
            text
        },
        || {
            let warnings: Vec<Value> = warnings
                .iter()
                .map(|unknown| json!({ "key": unknown.key, "line": unknown.line, "message": unknown.to_string() }))
                .collect();
            let profiles: Vec<Value> = config.profiles.iter().map(profile_json).collect();
            let streams: Vec<Value> = config
                .streams
                .iter()
                .map(|stream| {
                    json!({ "name": stream.name, "stream_id": stream.stream_id.get(), "profile": stream.profile })
                })
                .collect();
            json!({
                "source": source.name(),
                "ok": true,
                "warnings": warnings,
                "profiles": profiles,
                "streams": streams,
                "dynamic_streams": config.policies.allow_dynamic_streams,
            })
        },
    )
}

fn dump(source: &Source, output: &mut Output) -> Result<(), Stop> {
    let Loaded { config, warnings } = source.load()?;
    for warning in warnings {
        tracing::warn!("{}: {warning}", source.name());
    }
    let text = config.to_toml();
    let value = as_json(&text).map_err(|source| LoadError::NoJson { source })?;
    output.result(|| text, || value)
}

/// The same tables as JSON objects.
fn as_json(text: &str) -> Result<Value, toml::de::Error> {
    toml::from_str(text)
}

fn describe(profile: &Profile) -> String {
    let pools: Vec<String> = profile.payload_pools.iter().map(|pool| pool.stride.get().to_string()).collect();
    format!(
        "{}: {} slots, pools of {} bytes, {} bytes of shared memory per stream and epoch",
        profile.name,
        profile.header_nslots.get(),
        pools.join(", "),
        profile.region_bytes()
    )
}

fn profile_json(profile: &Profile) -> Value {
    let pools: Vec<Value> = profile
        .payload_pools
        .iter()
        .map(|pool| json!({ "pool_id": pool.pool_id.get(), "stride_bytes": pool.stride.get() }))
        .collect();
    json!({
        "name": profile.name,
        "header_nslots": profile.header_nslots.get(),
        "payload_pools": pools,
        "region_bytes": profile.region_bytes(),
    })
}

impl Source {
    fn name(&self) -> String {
        match &self.file {
            None => "defaults of a node".to_owned(),
            Some(path) if is_stdin(path) => "standard input".to_owned(),
            Some(path) => path.display().to_string(),
        }
    }

    /// The configuration in a file.
    pub(crate) fn file(path: &Path) -> Self {
        Self { file: Some(path.to_owned()) }
    }

    pub(crate) fn load(&self) -> Result<Loaded, LoadError> {
        let text = match &self.file {
            None => DriverConfig::default_node().to_toml(),
            Some(path) => self.read(path)?,
        };
        let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        DriverConfig::from_toml_str(&text, &env)
            .map_err(|source| LoadError::Config { name: self.name(), source })
    }

    fn read(&self, path: &Path) -> Result<String, LoadError> {
        let failed = |source| LoadError::Read { name: self.name(), source };
        let mut bytes = Vec::new();
        let reader: Box<dyn Read> = if is_stdin(path) {
            Box::new(io::stdin().lock())
        } else {
            Box::new(std::fs::File::open(path).map_err(failed)?)
        };
        reader.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(LoadError::TooLong { name: self.name() });
        }
        String::from_utf8(bytes).map_err(|_| LoadError::NotText { name: self.name() })
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("cannot read {name}: {source}; `tidegate tensor config dump` writes a file to start from")]
    Read { name: String, source: io::Error },
    #[error("{name} is longer than {MAX_FILE} bytes, no configuration is; name another file")]
    TooLong { name: String },
    #[error("{name} is not UTF-8 text; a configuration is TOML")]
    NotText { name: String },
    #[error("{name}: {source}")]
    Config { name: String, source: ConfigError },
    #[error("the configuration has no form in JSON: {source}; leave out --json")]
    NoJson { source: toml::de::Error },
}

impl Report for LoadError {
    fn exit(&self) -> Exit {
        match self {
            Self::Read { source, .. } => exit_of_io(source).0,
            Self::TooLong { .. } | Self::NotText { .. } | Self::Config { .. } | Self::NoJson { .. } => {
                Exit::Failed
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read { source, .. } => exit_of_io(source).1,
            Self::TooLong { .. } | Self::NotText { .. } => "not_a_configuration",
            Self::Config { .. } | Self::NoJson { .. } => "configuration",
        }
    }
}
