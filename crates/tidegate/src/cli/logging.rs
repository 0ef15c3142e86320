//! Logs of all parts, to standard error (TP-467).

use std::io;

use tidegate::tensor::config::{ConfigError, LogLevel, log_level};
use tracing::level_filters::LevelFilter;

use crate::output::{Exit, Report};

/// Starts logging at the level of `TP_LOG_LEVEL`, `verbose` steps up, or at errors only when `quiet`.
///
/// # Errors
/// `TP_LOG_LEVEL` is not a number from 0 to 4.
pub(crate) fn start(verbose: u8, quiet: bool) -> Result<(), LogLevelError> {
    let configured =
        log_level(&|name| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned()))
            .map_err(LogLevelError)?;
    let level = if quiet { LevelFilter::ERROR } else { raised(configured, verbose) };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).log_internal_errors(false).init();
    Ok(())
}

/// A bad `TP_LOG_LEVEL`.
#[derive(Debug, thiserror::Error)]
#[error("{0}; correct or unset it")]
pub(crate) struct LogLevelError(ConfigError);

impl Report for LogLevelError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn code(&self) -> &'static str {
        "usage"
    }
}

fn raised(level: LogLevel, steps: u8) -> LevelFilter {
    const LEVELS: [LevelFilter; 5] =
        [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
    LEVELS.get(level as usize + usize::from(steps)).copied().unwrap_or(LevelFilter::TRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: TP-467.
    #[test]
    fn levels_count_from_errors_to_trace() {
        let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
        let filters = [
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ];
        for (start, level) in levels.into_iter().enumerate() {
            for steps in 0..=255 {
                assert_eq!(raised(level, steps), filters[(start + usize::from(steps)).min(4)]);
            }
        }
    }
}
