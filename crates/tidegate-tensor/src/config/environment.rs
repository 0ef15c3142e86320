//! Variables that are not overrides of a key (24.6). `AERON_DIR` is read where `driver.aeron_dir` is.

use std::str::FromStr;

use super::error::{ConfigError, Origin};
use super::source::{Env, Scalar, excerpt};
use super::{DriverSection, Endpoint};
use crate::channel::Channel;
use crate::ids::AeronStreamId;

const LOG_LEVEL: &str = "TP_LOG_LEVEL";
const CONTROL_CHANNEL: &str = "TP_CONTROL_CHANNEL";
const CONTROL_STREAM_ID: &str = "TP_CONTROL_STREAM_ID";

/// How much is logged; each level includes those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// 0
    Error,
    /// 1
    Warn,
    /// 2
    #[default]
    Info,
    /// 3
    Debug,
    /// 4
    Trace,
}

impl FromStr for LogLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "0" => Self::Error,
            "1" => Self::Warn,
            "2" => Self::Info,
            "3" => Self::Debug,
            "4" => Self::Trace,
            _ => return Err(()),
        })
    }
}

/// The level of `TP_LOG_LEVEL`.
///
/// # Errors
/// [`ConfigError::Value`] when it is not a number from 0 to 4.
pub fn log_level(env: &dyn Fn(&str) -> Option<String>) -> Result<LogLevel, ConfigError> {
    let Some(text) = env(LOG_LEVEL) else { return Ok(LogLevel::default()) };
    text.parse().map_err(|()| wrong(LOG_LEVEL, &text, "a number from 0 (errors) to 4 (trace)"))
}

/// The driver endpoint tools talk to: `TP_CONTROL_CHANNEL` and `TP_CONTROL_STREAM_ID` over the driver's defaults.
///
/// # Errors
/// [`ConfigError`] when a variable is set to something else than a channel or a stream id.
pub fn tool_endpoint(env: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, ConfigError> {
    let default = DriverSection::default().control;
    Ok(Endpoint {
        channel: channel(env)?.unwrap_or(default.channel),
        stream_id: stream_id(env)?.unwrap_or(default.stream_id),
    })
}

fn channel(env: Env<'_>) -> Result<Option<Channel>, ConfigError> {
    let Some(text) = env(CONTROL_CHANNEL) else { return Ok(None) };
    Channel::parse(&text).map(Some).map_err(|source| ConfigError::Channel {
        key: CONTROL_CHANNEL.to_owned(),
        origin: origin(CONTROL_CHANNEL),
        source,
    })
}

fn stream_id(env: Env<'_>) -> Result<Option<AeronStreamId>, ConfigError> {
    let Some(text) = env(CONTROL_STREAM_ID) else { return Ok(None) };
    match AeronStreamId::from_text(&text) {
        Some(id) => Ok(Some(id)),
        None => Err(wrong(CONTROL_STREAM_ID, &text, AeronStreamId::ALLOWED)),
    }
}

fn wrong(variable: &str, found: &str, allowed: &'static str) -> ConfigError {
    ConfigError::Value { key: variable.to_owned(), origin: origin(variable), found: excerpt(found), allowed }
}

fn origin(variable: &str) -> Origin {
    Origin::Environment { variable: variable.to_owned() }
}
