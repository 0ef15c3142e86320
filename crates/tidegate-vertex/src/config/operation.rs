//! `[admin]`, `[metrics]` and `[log]`: how a vertex is watched and steered.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use tidegate_shm::clock::Nanos;

use super::units::Time;

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The admin socket; without it, one in the node's directory that has the name of the pipeline.
    pub socket: Option<PathBuf>,
    /// How long what was read may take to be finished after the first SIGTERM.
    pub shutdown_grace: Time,
}

/// `[metrics]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where `/metrics`, `/livez` and `/readyz` are; without it, nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// What lines look like.
    pub format: LogFormat,
    /// The least important lines that are written; without it, what the command line says.
    pub level: Option<LogLevel>,
}

/// What lines of the log look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Levels of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual ones")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { socket: None, shutdown_grace: Time(Nanos::from_secs(20)) }
    }
}
